"""Single images: requests of one frame, made by a Flux 2 pipeline of ``diffusers``.

Nothing of the video model takes part, so nothing is denoised or encoded here: the other pipeline
does all of it when the clip is decoded. ``diffusers`` is the optional extra ``image``, imported
when a picture is made and not before.
"""

import importlib
import importlib.util
import json
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError

from rayreel.checkpoints.files import ModelFiles
from rayreel.config.conditions import ImageCondition
from rayreel.config.jobs import ImageModelSpec
from rayreel.config.request import RenderRequest
from rayreel.diffusion.watch import Watch
from rayreel.errors import CheckpointError, ItemError, MediaError, SpecError
from rayreel.media.image import load_image
from rayreel.pipelines.base import Fault, Pipeline, PipelineTraits
from rayreel.pipelines.inputs import EncodedRequest
from rayreel.types import Clip, ClipStream, Latents, seeded_generator

SIZE_MULTIPLE = 16
"""Pixels per token of Flux 2 along height and width."""
MAX_REFERENCES = 3
MAX_REFERENCE_AREA = 768 * 768

# Distilled models were trained for few steps, without guidance.
_STEPS, _DISTILLED_STEPS = 28, 4
_GUIDANCE, _DISTILLED_GUIDANCE = 4.0, 1.0

_TEXT_ENCODERS = {
    "Flux2Pipeline": "Mistral3ForConditionalGeneration",
    "Flux2KleinPipeline": "Qwen3ForCausalLM",
}
_LIBRARIES = ("diffusers", "transformers")
# Files that run code when they are imported or loaded.
_UNSAFE = (".py", ".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")
_MISSING = "single images need the package diffusers: pip install 'rayreel[image]'"


class SingleImage(Pipeline):
    """A picture from a prompt and up to three reference images, without sound.

    Steps and guidance are the model's, not the request's. The pipeline of ``diffusers`` is loaded
    once per process and stays on the ledger's device whatever the memory policy says. On Metal it
    computes in float32, which Flux needs there.
    """

    traits = PipelineTraits(
        stages=0, guided=False, needs=("image_model",), takes=("images",), makes_audio=False
    )

    @classmethod
    def faults(cls, request: RenderRequest, files: ModelFiles) -> list[Fault]:  # noqa: ARG003
        """What of a request a single image cannot do."""
        found = []
        if request.num_frames != 1:
            found.append(("num_frames", f"{request.num_frames}; a single image has 1 frame"))
        for field in ("width", "height"):
            size = getattr(request, field)
            if size % SIZE_MULTIPLE:
                below = size // SIZE_MULTIPLE * SIZE_MULTIPLE
                nearest = " and ".join(str(s) for s in (below, below + SIZE_MULTIPLE) if s)
                said = f"{size} is not a multiple of {SIZE_MULTIPLE}, as single images need"
                found.append((field, f"{said}; nearest: {nearest}"))
        count = len(request.images)
        if count > MAX_REFERENCES:
            said = f"{count} reference images; a single image takes at most {MAX_REFERENCES}"
            found.append(("images", said))
        found += [
            (
                f"images.{index}.strength",
                f"{image.strength:g} has no effect on a reference image; expected 1",
            )
            for index, image in enumerate(request.images)
            if image.strength != 1
        ]
        if request.enhance:
            said = "prompts of single images are taken as they are; set it to false"
            found.append(("enhance", said))
        return found

    def generate(self, batch: Sequence[EncodedRequest]) -> list[Latents]:
        """Nothing: the latents of a picture are not this model's."""
        return [Latents(video=None, audio=None) for _ in batch]

    def decode(
        self,
        request: RenderRequest,
        latents: Latents,  # noqa: ARG002 - of other pipelines
    ) -> ClipStream:
        """Make the picture.

        Returns:
            A clip of one frame and no sound. The same request gives the same picture on the same
            kind of device.

        Raises:
            ItemError: If the request has a fault.
            MediaError: If a reference image cannot be read, or is too small or too long.
            CheckpointError: If the model names no image model, or its folder has a fault.
            SpecError: If ``diffusers`` is not installed.
            Cancelled: If the watch says so.
        """
        if found := self.faults(request, self.ledger.files):
            raise ItemError("; ".join(f"field {field!r}: {said}" for field, said in found))
        spec = self.ledger.files.spec.image_model
        if spec is None:
            raise CheckpointError("the model names no image_model, which this pipeline needs")
        if request.seed is None:
            raise ValueError("seed=None: a request on its own needs a seed")
        device = self.ledger.device
        dtype = torch.float32 if device.type == "mps" else self.ledger.dtype
        pipeline = _loaded(spec.folder, device, dtype)
        distilled = _is_distilled(_index(Path(spec.folder)))
        steps = spec.steps or (_DISTILLED_STEPS if distilled else _STEPS)
        guidance = _DISTILLED_GUIDANCE if distilled else _GUIDANCE
        pictures = pipeline(
            image=[_reference(pipeline, image) for image in request.images] or None,
            prompt=request.prompt,
            width=request.width,
            height=request.height,
            num_inference_steps=steps,
            guidance_scale=guidance if spec.guidance is None else spec.guidance,
            generator=seeded_generator(request.seed, "image"),
            callback_on_step_end=_Steps(self.watch or Watch(), steps),
        ).images
        frame = torch.from_numpy(np.array(pictures[0]))
        return Clip(frames=frame[None], fps=request.fps).stream()

    def __call__(self, request: RenderRequest) -> Clip:
        """Make the picture of one request, its prompt as it is; errors as of ``decode``."""
        return self.decode(request, Latents(video=None, audio=None)).collect()


class _Steps:
    """Progress and cancellation of a run of ``diffusers``, which reports steps that are done."""

    def __init__(self, watch: Watch, steps: int) -> None:
        self.watch = watch
        self.steps = steps
        self._begin(0)

    def __call__(
        self,
        pipeline: Any,  # noqa: ANN401, ARG002 - diffusers' own
        step: int,
        timestep: Any,  # noqa: ANN401, ARG002
        tensors: dict[str, Any],
    ) -> dict[str, Any]:
        self._begin(step + 1)
        return tensors

    def _begin(self, step: int) -> None:
        self.watch.token.check()
        if step < self.steps:
            self.watch.on_step("image", step, self.steps)


def image_faults(spec: ImageModelSpec) -> list[str]:
    """What is wrong with an image model, from names of files and small JSON files alone.

    Args:
        spec: Its folder is an absolute path.

    Returns:
        One message per fault, empty if there is none.
    """
    faults = [] if importlib.util.find_spec("diffusers") else [_MISSING]
    folder = Path(spec.folder)
    if not folder.is_dir():
        return [
            *faults,
            f"model.image_model.folder {spec.folder}: not a folder on this machine; expected a "
            "Flux 2 pipeline in the layout of diffusers, as save_pretrained writes it",
        ]
    try:
        index = _index(folder)
    except CheckpointError as error:
        return [*faults, str(error)]
    if _is_distilled(index) and spec.guidance is not None:
        faults.append(
            f"model.image_model.guidance {spec.guidance:g}: no effect, as the model in {folder} is "
            "distilled; leave it out"
        )
    return [*faults, *_folder_faults(folder, index)]


def _index(folder: Path) -> dict[str, Any]:
    """What ``model_index.json`` says; raises ``CheckpointError`` if it is no object."""
    path = folder / "model_index.json"
    try:
        index = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    if not isinstance(index, dict):
        raise CheckpointError(f"{path}: expected a JSON object")
    return index


def _is_distilled(index: dict[str, Any]) -> bool:
    return index.get("is_distilled") is True


def _networks(index: dict[str, Any]) -> dict[str, list[str]]:
    """Library and class of the parts with weights, as they must be."""
    return {
        "transformer": ["diffusers", "Flux2Transformer2DModel"],
        "vae": ["diffusers", "AutoencoderKLFlux2"],
        "text_encoder": ["transformers", _TEXT_ENCODERS[index["_class_name"]]],
    }


def _folder_faults(folder: Path, index: dict[str, Any]) -> list[str]:
    name = index.get("_class_name")
    if not isinstance(name, str) or name not in _TEXT_ENCODERS:
        return [
            f"{folder / 'model_index.json'}: _class_name {name!r} is not one of "
            f"{', '.join(_TEXT_ENCODERS)}"
        ]
    faults = [
        f"{path}: files of this kind can run code when they are loaded; expected safetensors and "
        "classes of diffusers and transformers alone"
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in _UNSAFE
    ]
    networks = _networks(index)
    for part, kind in index.items():
        known = networks.get(part)
        foreign = isinstance(kind, list) and kind[:1] not in [[name] for name in _LIBRARIES]
        if foreign or (known and kind != known):
            expected = known or f"a class of {' or '.join(_LIBRARIES)}"
            faults.append(f"{folder / 'model_index.json'}: {part} {kind}; expected {expected}")
    for part in networks:
        faults += _weight_faults(folder / part)
    return faults


def _weight_faults(folder: Path) -> list[str]:
    """Weights of one network that are not there."""
    there = {path.name for path in folder.glob("*.safetensors")}
    if not there:
        return [f"{folder}: no weights; expected *.safetensors"]
    missing: set[str] = set()
    for path in folder.glob("*.safetensors.index.json"):
        try:
            missing |= {*json.loads(path.read_text("utf-8"))["weight_map"].values()} - there
        except (OSError, ValueError, KeyError, AttributeError) as error:
            return [f"{path}: not the index of a sharded file ({type(error).__name__}: {error})"]
    return [f"{folder}: {name} is not there" for name in sorted(missing)]


@cache
def _loaded(folder: str, device: torch.device, dtype: torch.dtype) -> Any:  # noqa: ANN401
    """The pipeline of this process, loaded strictly: ``diffusers`` would make up what is missing.

    Raises:
        CheckpointError: If the folder has a fault, or its weights do not fit.
        SpecError: If ``diffusers`` is not installed.
    """
    try:
        diffusers, transformers = map(importlib.import_module, _LIBRARIES)
    except ImportError as error:
        raise SpecError(f"{_MISSING} ({error})") from error
    root = Path(folder)
    index = _index(root)
    if faults := _folder_faults(root, index):
        raise CheckpointError("\n  ".join([f"image model {folder}:", *faults]))
    # Their bars would end up in the logs of workers.
    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
    options = {"local_files_only": True, "dtype": dtype}
    weights = {**options, "use_safetensors": True, "output_loading_info": True}
    try:
        networks = {}
        for part, (library_name, name) in _networks(index).items():
            library = {"diffusers": diffusers, "transformers": transformers}[library_name]
            network, info = getattr(library, name).from_pretrained(root / part, **weights)
            _require_all(root / part, info["missing_keys"])
            networks[part] = network
        kind = getattr(diffusers, index["_class_name"])
        pipeline = kind.from_pretrained(folder, **options, **networks)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"image model {folder}: {error}") from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def _require_all(folder: Path, missing: Sequence[str]) -> None:
    # The counter of a batch norm plays no part in what it computes.
    names = sorted(name for name in missing if not name.endswith("num_batches_tracked"))
    if names:
        raise CheckpointError(f"{folder}: {len(names)} weights are missing, such as {names[0]}")


def _reference(pipeline: Any, image: ImageCondition) -> Image.Image:  # noqa: ANN401
    """A reference image at the size that the model reads."""
    picture = Image.fromarray(load_image(image.path).numpy())
    scale = math.sqrt(MAX_REFERENCE_AREA / (picture.width * picture.height))
    if scale < 1:
        size = (int(picture.width * scale), int(picture.height * scale))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    try:
        pipeline.image_processor.check_image_input(picture)
    except ValueError as error:
        raise MediaError(f"reference image {image.path}: {error}") from error
    return picture
