"""Samples of an encoded dataset, and the columns of its shards.

Columns that people filter on are plain; tensors are one safetensors blob, as Arrow has no bfloat16.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import torch
from pydantic import Field, field_serializer
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from rayreel.config.base import StrictModel
from rayreel.config.buckets import Bucket
from rayreel.types import TextFeatures

MEASURE = "measure_"
"""What the column of a measure begins with."""


class Layout(NamedTuple):
    """What a tensor of a sample is like."""

    dtype: torch.dtype
    shape: str


TENSORS: Mapping[str, Layout] = {
    "video_latents": Layout(torch.bfloat16, "CFHW"),
    "audio_latents": Layout(torch.float32, "CTD"),
    "reference_latents": Layout(torch.bfloat16, "CFHW"),
    "reference_audio_latents": Layout(torch.float32, "CTD"),
    "video_mask": Layout(torch.float32, "FHW"),
    "audio_mask": Layout(torch.float32, "T"),
    "text": Layout(torch.bfloat16, "LD"),
    "text_video": Layout(torch.bfloat16, "LD"),
    "text_audio": Layout(torch.bfloat16, "LD"),
}
"""Tensors that a sample may have.

``text`` is for both streams where they share it, else there are ``text_video`` and ``text_audio``;
of texts there are valid tokens alone. In masks, 1 is kept as a condition.
"""


_TEXTS = ("text", "text_video", "text_audio")


class SampleInfo(StrictModel):
    """What is known of a sample beside its tensors."""

    sample_id: str = Field(min_length=1, description="one of a kind in the dataset")
    row: int = Field(description="of the list, from 1")
    name: str = Field(description="what the list calls the row")
    source: str = Field(description="path or URI of the main file")
    content: str = Field(description="hash of the file's bytes")
    start_frame: int = 0
    fps: float | None = Field(default=None, description="1 for an image, none for sound alone")
    bucket: Bucket | None = Field(default=None, description="none for sound alone")
    duration_s: float = 0.0
    reference_fps: float | None = Field(default=None, description="of its latents' frames")
    reference_duration_s: float | None = Field(default=None, description="of its sound")
    text_length: int | None = Field(
        default=None, description="tokens that its text is filled up to, on the left"
    )
    caption: str | None = Field(default=None, description="what was encoded")
    caption_original: str | None = Field(default=None, description="before it was cleaned")
    caption_changes: tuple[str, ...] = ()
    caption_by: str | None = Field(default=None, description="who wrote it")
    notes: tuple[str, ...] = Field(default=(), description="what is unusual, a sentence each")
    measures: dict[str, float] = Field(default_factory=dict, description="by name")

    @field_serializer("bucket")
    def _as_written(self, bucket: Bucket | None) -> str | None:
        return str(bucket) if bucket else None


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRow:
    """A sample as it is written.

    Attributes:
        info: What is known of it.
        tensors: By their names in ``TENSORS``.
    """

    info: SampleInfo
    tensors: Mapping[str, Tensor]

    def columns(self) -> dict[str, Any]:
        """Values of all columns but the blob of tensors.

        Raises:
            ValueError: If a tensor is none that a sample has.
        """
        _check(self)
        values = self.info.model_dump()
        measures = {MEASURE + name: value for name, value in values.pop("measures").items()}
        bucket, shapes = self.info.bucket, {name: one.shape for name, one in self.tensors.items()}
        sizes = {
            "width": bucket and bucket.width,
            "height": bucket and bucket.height,
            "num_frames": bucket and bucket.num_frames,
        }
        for prefix, name in (("", "video_latents"), ("reference_", "reference_latents")):
            video = shapes.get(name, (None,) * 4)
            sizes |= dict(zip(_latent_names(prefix), video[1:], strict=True))
        for prefix, name in (("", "audio_latents"), ("reference_", "reference_audio_latents")):
            sizes[f"{prefix}audio_steps"] = shapes.get(name, (None,) * 2)[1]
        return values | sizes | {"parts": sorted(self.tensors)} | measures


BLOB = pa.field("tensors", pa.large_binary(), nullable=False)
"""The column that holds a sample's tensors, in safetensors' format."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSample:
    """A sample as it is read; what it does not have is ``None``.

    Attributes:
        info: What is known of it.
        text: Valid tokens of its caption, ``(L, D)`` each, before any connector.
        video_latents: Bfloat16 ``(C, F, H, W)``, normalised by channel.
        audio_latents: Float32 ``(C, T, D)``.
        reference_latents: Of what an in-context adapter is shown, like ``video_latents``.
        reference_audio_latents: The same, of sound.
        video_mask: Float32 ``(F, H, W)`` of latent positions: 1 is kept as a condition.
        audio_mask: Float32 ``(T,)``, the same.
    """

    info: SampleInfo
    text: TextFeatures | None = None
    video_latents: Tensor | None = None
    audio_latents: Tensor | None = None
    reference_latents: Tensor | None = None
    reference_audio_latents: Tensor | None = None
    video_mask: Tensor | None = None
    audio_mask: Tensor | None = None


def training_sample(values: Mapping[str, Any]) -> TrainingSample:
    """A sample from the values of its row.

    Args:
        values: By column, such as a row of ``pyarrow.Table.to_pylist``.

    Raises:
        ValueError: If the row is not that of a sample.
    """
    try:
        tensors = load(values[BLOB.name])
    except (KeyError, TypeError, SafetensorError) as error:
        raise ValueError(f"its tensors cannot be read ({error})") from error
    row = SampleRow(info=_info(values), tensors=tensors)
    _check(row)
    return TrainingSample(
        info=row.info,
        text=_text(row),
        **{name: tensor for name, tensor in tensors.items() if name not in _TEXTS},
    )


def _info(values: Mapping[str, Any]) -> SampleInfo:
    """A sample's facts from the values of its row; other columns do not matter."""
    given = {name: values[name] for name in SampleInfo.model_fields if name in values}
    measures = {
        name.removeprefix(MEASURE): value
        for name, value in values.items()
        if name.startswith(MEASURE) and value is not None
    }
    return SampleInfo(**given | {"measures": measures})


def plain_schema(measures: Iterable[str] = ()) -> pa.Schema:
    """Columns of a shard but its last one, ``tensors``.

    Args:
        measures: Names of those that have a column.
    """
    fields = [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        *(pa.field(name, pa.string(), nullable=False) for name in ("name", "source", "content")),
        pa.field("start_frame", pa.int64(), nullable=False),
        pa.field("fps", pa.float64()),
        pa.field("bucket", pa.string()),
        *(pa.field(name, pa.int64()) for name in ("width", "height", "num_frames")),
        pa.field("duration_s", pa.float64(), nullable=False),
        *(pa.field(name, pa.int64()) for name in (*_latent_names(""), "audio_steps")),
        *(pa.field(name, pa.int64()) for name in _latent_names("reference_")),
        pa.field("reference_fps", pa.float64()),
        pa.field("reference_audio_steps", pa.int64()),
        pa.field("reference_duration_s", pa.float64()),
        pa.field("text_length", pa.int64()),
        pa.field("parts", pa.list_(pa.string()), nullable=False),
        *(pa.field(name, pa.string()) for name in ("caption", "caption_original")),
        pa.field("caption_changes", pa.list_(pa.string()), nullable=False),
        pa.field("caption_by", pa.string()),
        pa.field("notes", pa.list_(pa.string()), nullable=False),
        *(pa.field(MEASURE + name, pa.float64()) for name in sorted(measures)),
    ]
    return pa.schema(fields)


def _latent_names(prefix: str) -> tuple[str, str, str]:
    stem = prefix or "latent_"
    return f"{stem}frames", f"{stem}height", f"{stem}width"


def _check(row: SampleRow) -> None:
    """Raise ``ValueError`` for tensors that are not those of a sample."""
    info, tensors = row.info, row.tensors
    for name, tensor in tensors.items():
        layout = TENSORS.get(name)
        if layout is None:
            raise ValueError(f"sample {info.sample_id}: no tensor is called {name!r}")
        if tensor.dtype != layout.dtype or tensor.dim() != len(layout.shape):
            raise ValueError(
                f"sample {info.sample_id}: {name} should be {layout.dtype} of shape "
                f"({', '.join(layout.shape)}), not {tensor.dtype} of {tuple(tensor.shape)}"
            )
    texts = {name for name in _TEXTS if name in tensors}
    if texts not in (set(), {"text"}, {"text_video", "text_audio"}):
        raise ValueError(
            f"sample {info.sample_id}: expected text, or text_video and text_audio, "
            f"not {', '.join(sorted(texts))}"
        )
    longest = max((len(tensors[name]) for name in texts), default=0)
    if texts and (info.text_length is None or longest > info.text_length):
        raise ValueError(
            f"sample {info.sample_id}: a text of {longest} tokens does not fit into "
            f"text_length={info.text_length}"
        )


def _text(row: SampleRow) -> TextFeatures | None:
    both = row.tensors.get("text")
    video, audio = (row.tensors.get(name, both) for name in ("text_video", "text_audio"))
    if video is None or audio is None:
        return None
    assert row.info.text_length is not None, "checked"
    return TextFeatures(video=video, audio=audio, length=row.info.text_length)
