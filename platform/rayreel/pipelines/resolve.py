"""What a request leaves open, filled in from its pipeline and the checkpoint's generation."""

from typing import TYPE_CHECKING, Any

from rayreel.checkpoints.files import ModelFiles
from rayreel.config.conditions import Chain
from rayreel.config.request import DEFAULT_NEGATIVE_PROMPT, RenderRequest
from rayreel.config.sampling import Guidance
from rayreel.diffusion.guiders import MultiModalGuider
from rayreel.diffusion.samplers import SAMPLERS
from rayreel.diffusion.schedulers import STAGE_2_SIGMAS
from rayreel.pipelines.chunks import resolved_chain

if TYPE_CHECKING:
    from rayreel.pipelines.base import Pipeline


def resolve(request: RenderRequest, files: ModelFiles, kind: "type[Pipeline]") -> RenderRequest:
    """Fill in what a request leaves to the checkpoint's generation, and drop what plays no part.

    Args:
        request: A request without faults.
        files: The model that will render it.
        kind: The pipeline that it goes to.

    Returns:
        The request with every field set but, perhaps, the seed. Two requests that make the same
        clip are equal afterwards.
    """
    guided = kind.guided(request)
    defaults = kind.defaults(files)
    crf = files.defaults.image_crf
    stepped = guided and request.sigmas is None
    audio = request.audio and kind.traits.makes_audio
    request = request.model_copy(update={"video": kind.traits.makes_video, "audio": audio})
    values: dict[str, Any] = {
        "loras": tuple(lora for lora in request.loras if lora.strength),
        "steps": (request.steps or defaults.steps) if stepped else None,
        "scheduler": request.scheduler if stepped else "ltx2",
        "sampler": request.sampler or kind.sampler(files),
        "stage2_sigmas": request.stage2_sigmas if kind.traits.stages > 1 else None,
        "negative_prompt": None,
        "video_guidance": (
            _over(request.video_guidance, defaults.video) if guided and request.video else None
        ),
        "audio_guidance": (
            _over(request.audio_guidance, defaults.audio) if guided and request.audio else None
        ),
        "images": tuple(
            image if image.crf is not None else image.model_copy(update={"crf": crf})
            for image in request.images
        ),
        "chain": resolved_chain(request, files) if "chain" in kind.traits.takes else Chain(),
    }
    if values["stage2_sigmas"] == STAGE_2_SIGMAS:
        values["stage2_sigmas"] = None
    if guided and _needs_negative(values):
        negative = request.negative_prompt
        values["negative_prompt"] = DEFAULT_NEGATIVE_PROMPT if negative is None else negative
    if kind.traits.stages == 0:
        values |= {"loras": (), "sampler": None}
    unused = ("audio_format",) if kind.traits.makes_video else ("width", "height", "crf")
    values |= {field: RenderRequest.model_fields[field].default for field in unused}
    return request.model_copy(update=values)


def _needs_negative(values: dict[str, Any]) -> bool:
    """Whether anything is pushed away from the negative prompt."""
    guidances = (values["video_guidance"], values["audio_guidance"])
    pushes = any(MultiModalGuider(guidance).needs_uncond for guidance in guidances if guidance)
    return pushes or SAMPLERS[values["sampler"]]().needs_uncond


def _over(choice: Guidance | None, default: Guidance) -> Guidance:
    """The fields that a row sets, over the generation's."""
    said = choice.model_dump(exclude_unset=True) if choice else {}
    return Guidance.model_validate({**default.model_dump(), **said})
