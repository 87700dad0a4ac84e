"""Which pipeline a request goes to where it names none, and why."""

from rayreel.config.conditions import Chain
from rayreel.config.request import RenderRequest

GENERAL = "two_stage"
"""Where requests go that ask for nothing special."""


def choose_pipeline(request: RenderRequest, *, image_model: bool) -> tuple[str, str]:
    """The pipeline of a request.

    Args:
        request: With its length known.
        image_model: Whether there is a model for single images.

    Returns:
        Its name, and the reason in half a sentence.
    """
    pinned = {image.frame for image in request.images}
    rules = (
        (request.pipeline, request.pipeline or "", "it is named"),
        (request.references, "ic_lora", "it has reference videos"),
        (request.retake, "retake", "it retakes a stretch of a video"),
        (request.soundtrack, "audio_to_video", "it has a soundtrack"),
        (not request.video, "text_to_audio", "it has no picture"),
        (request.num_frames == 1 and image_model, "image", "it is a single frame"),
        (
            request.num_frames > 1
            and {0, request.num_frames - 1} <= pinned
            and not request.extend
            and request.chain == Chain(),
            "keyframes",
            "it has images at its first and last frame",
        ),
    )
    for holds, name, reason in rules:
        if holds:
            return name, reason
    return GENERAL, "it is the general one"
