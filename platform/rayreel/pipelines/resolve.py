"""What a request leaves open, filled in from the checkpoint's generation."""

from typing import Any

from rayreel.checkpoints.files import ModelFiles
from rayreel.config.presets import default_guidance
from rayreel.config.request import DEFAULT_NEGATIVE_PROMPT, RenderRequest
from rayreel.config.sampling import Guidance


def resolve(request: RenderRequest, files: ModelFiles) -> RenderRequest:
    """Fill in what a request leaves to the checkpoint's generation, and drop what plays no part.

    Args:
        request: A request without faults.
        files: The model that will render it.

    Returns:
        The request with every field set but, perhaps, the seed. Two requests that make the same
        clip are equal afterwards.
    """
    defaults = files.defaults
    video, audio = default_guidance(defaults.stg_block)
    guided = request.traits.guided
    values: dict[str, Any] = {
        "steps": (request.steps or defaults.steps) if guided else None,
        "scheduler": request.scheduler if guided else "ltx2",
        "negative_prompt": None,
        "video_guidance": _over(request.video_guidance, video) if guided else None,
        "audio_guidance": (
            _over(request.audio_guidance, audio) if guided and request.audio else None
        ),
        "images": tuple(
            image if image.crf is not None else image.model_copy(update={"crf": defaults.image_crf})
            for image in request.images
        ),
    }
    if guided:
        negative = request.negative_prompt
        values["negative_prompt"] = DEFAULT_NEGATIVE_PROMPT if negative is None else negative
    return request.model_copy(update=values)


def _over(choice: Guidance | None, default: Guidance) -> Guidance:
    """The fields that a row sets, over the generation's."""
    said = choice.model_dump(exclude_unset=True) if choice else {}
    return default.model_copy(update=said)
