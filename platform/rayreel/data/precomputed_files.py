"""The files of a ``.precomputed`` folder, as LTX-2's trainers of every release write and read them.

Each is a dictionary that ``torch.save`` wrote: latents of one sample, or its text, or a mask.
"""

import warnings
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any, NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from rayreel.data.columns import TrainingSample
from rayreel.errors import RayreelError
from rayreel.types import TextFeatures

DEFAULT_FPS = 24.0
"""Of latents that do not say."""

Contents = dict[str, Any]


class Folder(NamedTuple):
    """One folder, with one kind of file.

    Attributes:
        part: What its files hold, by the field of a ``TrainingSample``.
        pack: Contents of the file of a sample that has the part.
        unpack: The tensors of a file by their names in a dataset.
        facts: What a file tells beside its tensors, by the field of a ``SampleInfo``.
    """

    part: str
    pack: Callable[[TrainingSample], Contents]
    unpack: Callable[[Contents], dict[str, Tensor]]
    facts: Callable[[Contents], dict[str, Any]]


def dump(contents: Contents) -> bytes:
    """A file: tensors become contiguous ones of their own on the CPU."""
    buffer = BytesIO()
    own: dict[int, Tensor] = {}
    for value in contents.values():
        if isinstance(value, Tensor):
            # Whatever else lies in a tensor's memory would be saved with it.
            own[id(value)] = value.cpu().contiguous().clone()
    torch.save({name: own.get(id(value), value) for name, value in contents.items()}, buffer)
    return buffer.getvalue()


def load(data: bytes, where: str) -> Contents:
    """Contents of a file; no code in it is run.

    Args:
        data: The file.
        where: What a person finds it under.

    Raises:
        RayreelError: If it is damaged, or holds something else.
    """
    try:
        with warnings.catch_warnings():
            # About files that are not torch's, which the error is about too.
            warnings.simplefilter("ignore", UserWarning)
            contents = torch.load(BytesIO(data), map_location="cpu", weights_only=True)
    # Of bytes that are no pickle, an unpickler may raise anything.
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        raise RayreelError(
            f"{where} is no file of tensors that torch.save wrote: {first}"
        ) from error
    if not isinstance(contents, dict):
        raise RayreelError(f"{where} should hold a dictionary, not a {type(contents).__name__}")
    return contents


def _video(prefix: str) -> Folder:
    name = f"{prefix}latents" if prefix else "video_latents"

    def pack(sample: TrainingSample) -> Contents:
        latents = getattr(sample, name)
        _, frames, height, width = latents.shape
        fps = sample.info.reference_fps if prefix else None
        return {
            "latents": latents,
            "num_frames": frames,
            "height": height,
            "width": width,
            "fps": fps or sample.info.fps or DEFAULT_FPS,
        }

    def unpack(contents: Contents) -> dict[str, Tensor]:
        latents = contents["latents"]
        if latents.dim() == 2:
            frames, height = int(contents["num_frames"]), int(contents["height"])
            latents = rearrange(latents, "(f h w) c -> c f h w", f=frames, h=height)
        return {name: latents.to(torch.bfloat16)}

    return Folder(
        name,
        pack,
        unpack,
        lambda contents: {f"{prefix}fps": float(contents.get("fps", DEFAULT_FPS))},
    )


def _audio(prefix: str) -> Folder:
    name = f"{prefix}audio_latents"

    def pack(sample: TrainingSample) -> Contents:
        latents = getattr(sample, name)
        duration = sample.info.reference_duration_s if prefix else None
        return {
            "latents": latents,
            "num_time_steps": latents.shape[1],
            "frequency_bins": latents.shape[2],
            "duration": duration or sample.info.duration_s,
        }

    return Folder(
        name,
        pack,
        lambda contents: {name: contents["latents"].float()},
        lambda contents: {f"{prefix}duration_s": float(contents["duration"])},
    )


def _mask(name: str) -> Folder:
    return Folder(
        name,
        lambda sample: {"mask": getattr(sample, name)},
        lambda contents: {name: contents["mask"].float()},
        lambda _: {},
    )


def _pack_text(sample: TrainingSample) -> Contents:
    """With all keys where both streams share a text, so that every release can read it."""
    text = sample.text
    assert isinstance(text, TextFeatures), "asked for samples with a text alone"
    video, mask = _padded(text.video, text.length)
    if text.audio is text.video:
        names = ("prompt_embeds", "video_prompt_embeds", "audio_prompt_embeds")
        return {**dict.fromkeys(names, video), "prompt_attention_mask": mask}
    contents: Contents = {"video_prompt_embeds": video, "prompt_attention_mask": mask}
    if text.audio.shape[1]:
        contents["audio_prompt_embeds"], _ = _padded(text.audio, text.length)
    return contents


def _unpack_text(contents: Contents) -> dict[str, Tensor]:
    valid = contents["prompt_attention_mask"].bool()
    if "video_prompt_embeds" not in contents:
        return {"text": contents["prompt_embeds"][valid].to(torch.bfloat16)}
    video = contents["video_prompt_embeds"]
    # Without one, there is no audio stream.
    audio = contents.get("audio_prompt_embeds", video[:, :0])
    if torch.equal(video, audio):
        return {"text": video[valid].to(torch.bfloat16)}
    return {
        "text_video": video[valid].to(torch.bfloat16),
        "text_audio": audio[valid].to(torch.bfloat16),
    }


def _padded(text: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """A text filled up on the left, ``(length, D)``, and which of its tokens are valid."""
    missing = length - len(text)
    mask = torch.ones(length, dtype=torch.int64)
    mask[:missing] = 0
    return torch.cat([text.new_zeros(missing, text.shape[1]), text]), mask


FOLDERS: Mapping[str, Folder] = {
    "latents": _video(""),
    "audio_latents": _audio(""),
    "reference_latents": _video("reference_"),
    "reference_audio_latents": _audio("reference_"),
    "video_masks": _mask("video_mask"),
    "audio_masks": _mask("audio_mask"),
    "conditions": Folder(
        "text",
        _pack_text,
        _unpack_text,
        lambda contents: {"text_length": len(contents["prompt_attention_mask"])},
    ),
}
"""By name."""


def parts_of(sample: TrainingSample) -> list[str]:
    """Folders in which a sample has a file."""
    return [name for name, folder in FOLDERS.items() if getattr(sample, folder.part) is not None]


def unpacked(files: Mapping[str, Contents]) -> tuple[dict[str, Tensor], dict[str, Any], list[str]]:
    """A sample of the files that it has, by their folders.

    Returns:
        Tensors by their names in a dataset; what else the files tell, by the field of a
        ``SampleInfo``; and what was changed, in words.

    Raises:
        ValueError: If a file lacks something, or holds something else; names its folder.
    """
    tensors: dict[str, Tensor] = {}
    facts: dict[str, Any] = {}
    notes = []
    for name, contents in files.items():
        folder = FOLDERS[name]
        try:
            found = folder.unpack(contents)
            facts = folder.facts(contents) | facts
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
            said = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"{name}: {said}") from error
        tensors |= found
        is_wider = any(
            isinstance(v, Tensor) and v.dtype == torch.float32 for v in contents.values()
        )
        if is_wider and torch.bfloat16 in {tensor.dtype for tensor in found.values()}:
            notes.append(f"{name} were float32 and are kept as bfloat16")
    return tensors, facts, notes
