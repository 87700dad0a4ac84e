"""Small encoded datasets that fit the tiny model, without anything being encoded."""

from collections.abc import Sequence
from pathlib import Path

import torch

from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.tiny import locate_model
from rayreel.config.buckets import Bucket
from rayreel.config.jobs import ModelSpec
from rayreel.data.columns import SampleInfo, SampleRow
from rayreel.data.dataset import SHARDS, DatasetInfo, ShardStatistics, write_info
from rayreel.data.shards import put_shard
from rayreel.data.storage import Storage
from rayreel.data.store import RecordStore
from rayreel.models.text.tokenizer import PROMPT_TOKENS
from rayreel.pipelines.encoding import sound_steps
from rayreel.pipelines.latents import LatentStore
from rayreel.pipelines.texts import TextStore

LatentSize = tuple[int, int, int]
"""Latent frames, height and width."""

FPS = 24.0
_REFERENCE_S = 0.2


def tiny_dataset(
    folder: Path | str,
    *,
    clips: int = 8,
    shapes: Sequence[LatentSize | None] = ((2, 2, 3),),
    audio: bool = True,
    references: bool = False,
    reference_scales: tuple[int, int] = (1, 1),
    masks: bool = False,
    text: bool = True,
    fingerprints: bool = True,
    seed: int = 0,
    model: ModelSpec | None = None,
    per_shard: int = 4,
) -> Path | str:
    """Write a dataset, and return its folder.

    Latents are noise about a mean of each channel that all clips share, so there is something to
    learn. A clip depends on seed, number and its shape alone.

    Args:
        folder: Folder or URI.
        clips: Number of samples.
        shapes: That clips have by turns: one frame is an image, which is silent, and ``None`` is
            sound alone.
        audio: Whether videos have sound.
        references: Whether they have a reference, of sound too if they have sound.
        reference_scales: Pixels of the target per pixel of the reference, and frames per frame.
        masks: Whether they have masks: the left half is kept, and the first half of the sound.
        text: Whether they have captions.
        fingerprints: Whether the dataset says which weights encoded it; an imported one does not.
        seed: Of all numbers.
        model: That it fits; by default the tiny one.
        per_shard: Samples of a shard.
    """
    files = ModelFiles(model or locate_model("tiny"))

    def row(number: int) -> SampleRow:
        return _row(
            number,
            shapes[number % len(shapes)],
            files=files,
            audio=audio,
            references=reference_scales if references else None,
            masks=masks,
            text=text,
            seed=seed,
        )

    storage = Storage(folder)
    written = [
        put_shard(
            storage,
            f"{SHARDS}/{start // per_shard:05d}.parquet",
            map(row, range(start, min(start + per_shard, clips))),
        )
        for start in range(0, clips, per_shard)
    ]
    info = DatasetInfo(
        fingerprints=_fingerprints(files, storage, text=text) if fingerprints else {},
        buckets=tuple(_bucket(shape) for shape in dict.fromkeys(shapes) if shape),
        num_samples=clips,
        statistics=sum((statistics for _, statistics in written), ShardStatistics()),
        shards=tuple(shard for shard, _ in written),
    )
    write_info(storage, info)
    return folder


def _row(
    number: int,
    shape: LatentSize | None,
    *,
    files: ModelFiles,
    audio: bool,
    references: tuple[int, int] | None,
    masks: bool,
    text: bool,
    seed: int,
) -> SampleRow:
    made = torch.Generator().manual_seed(seed * 1_000_003 + number)
    channels = files.video_vae.latent_channels
    tensors: dict[str, torch.Tensor] = {}

    def noise(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=made)

    def video(size: Sequence[int]) -> torch.Tensor:
        mean = torch.linspace(-1, 1, channels).reshape(-1, 1, 1, 1)
        return (mean + noise(channels, *size) / 2).bfloat16()

    def sound(duration_s: float) -> torch.Tensor:
        network = files.audio_vae.network
        mean = torch.linspace(-1, 1, files.audio_vae.latent_bins)
        size = (network.z_channels, sound_steps(files.audio_vae, duration_s), len(mean))
        return mean + noise(*size) / 2

    bucket = _bucket(shape) if shape else None
    is_image = bool(bucket and bucket.num_frames == 1)
    has_sound = not is_image and (audio or not shape)
    duration_s = bucket.num_frames / FPS if bucket else 0.5
    space, time = references or (1, 1)
    if shape:
        tensors["video_latents"] = video(shape)
    if has_sound:
        tensors["audio_latents"] = sound(duration_s)
    if references and shape:
        frames, height, width = shape
        size = ((frames - 1) // time + 1, height // space, width // space)
        tensors["reference_latents"] = video(size)
    if references and has_sound:
        tensors["reference_audio_latents"] = sound(_REFERENCE_S)
    if masks and shape:
        tensors["video_mask"] = torch.zeros(shape)
        tensors["video_mask"][:, :, : shape[2] // 2] = 1
    if masks and has_sound:
        steps = tensors["audio_latents"].shape[1]
        tensors["audio_mask"] = (torch.arange(steps) < steps // 2).float()
    if text:
        tokens = 3 + number % 5
        if files.text.feature_version == "v1":
            tensors["text"] = noise(tokens, files.text.video.width).bfloat16()
        else:
            tensors["text_video"] = noise(tokens, files.text.video.width).bfloat16()
            tensors["text_audio"] = noise(tokens, files.text.audio.width).bfloat16()
    return SampleRow(
        info=SampleInfo(
            sample_id=f"{number:032x}",
            row=number + 1,
            name=f"clip {number}",
            source=f"clips/{number}.mp4",
            content=f"{number:064x}",
            fps=None if bucket is None else 1.0 if is_image else FPS,
            bucket=bucket,
            duration_s=duration_s,
            reference_fps=FPS / time if references and shape else None,
            reference_duration_s=_REFERENCE_S if references and has_sound else None,
            text_length=PROMPT_TOKENS if text else None,
            caption=f"A fox, number {number}." if text else None,
        ),
        tensors=tensors,
    )


def _fingerprints(files: ModelFiles, storage: Storage, *, text: bool) -> dict[str, str]:
    """What an encode job would have written."""
    records = RecordStore(storage)
    found = LatentStore(records, files, tiled=False).made_by
    return found | (TextStore(records, files).made_by if text else {})


def _bucket(shape: LatentSize) -> Bucket:
    frames, height, width = shape
    return Bucket(width=width * 32, height=height * 32, num_frames=(frames - 1) * 8 + 1)
