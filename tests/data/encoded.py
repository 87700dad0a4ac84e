"""Small encoded datasets with samples of every kind."""

import torch

from rayreel.config.buckets import Bucket
from rayreel.data.columns import TENSORS, SampleInfo, SampleRow, TrainingSample
from rayreel.data.dataset import SHARDS, DatasetInfo, ShardStatistics, write_info
from rayreel.data.shards import put_shard
from rayreel.data.storage import Storage

BUCKETS = (
    Bucket(width=96, height=64, num_frames=9),
    Bucket(width=64, height=64, num_frames=1),
)
CHANNELS = 4
TEXT_LENGTH = 16
MEASURES = ("black", "silence")


def row(number: int, *, kind: str = "video", split_text: bool = False) -> SampleRow:
    """A sample with sound, of an image (``image``), of all parts (``all``), or of ``sound`` alone.

    Its numbers depend on its own number alone.
    """
    made = torch.Generator().manual_seed(number)

    def noise(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        return torch.randn(shape, generator=made).to(dtype)

    bucket = {"image": BUCKETS[1], "sound": None}.get(kind, BUCKETS[0])
    tensors = {}
    if bucket:
        frames = (bucket.num_frames - 1) // 8 + 1
        shape = (CHANNELS, frames, bucket.height // 32, bucket.width // 32)
        tensors["video_latents"] = noise(*shape)
    if kind != "image":
        tensors["audio_latents"] = noise(8, 5, 16, dtype=torch.float32)
    if kind == "all":
        tensors["reference_latents"] = noise(CHANNELS, 2, 1, 1)
        tensors["reference_audio_latents"] = noise(8, 3, 16, dtype=torch.float32)
        tensors["video_mask"] = (noise(2, 2, 3) > 0).float()
        tensors["audio_mask"] = (noise(5) > 0).float()
    tokens = 3 + number % 5
    if split_text:
        tensors |= {"text_video": noise(tokens, 12), "text_audio": noise(tokens, 6)}
    else:
        tensors["text"] = noise(tokens, 12)
    return SampleRow(
        info=SampleInfo(
            sample_id=f"{number:032x}",
            row=number + 1,
            name=f"clip {number}",
            source=f"clips/{number}.mp4",
            content=f"{number:064x}",
            start_frame=number,
            fps={"image": 1.0, "sound": None}.get(kind, 24.0),
            bucket=bucket,
            duration_s=0.375,
            reference_fps=12.0 if kind == "all" else None,
            reference_duration_s=0.12 if kind == "all" else None,
            text_length=TEXT_LENGTH,
            caption=f"A fox, number {number}.",
            caption_original=f"This video shows A fox, number {number}. ",
            caption_changes=("white space made single spaces",),
            caption_by="list",
            notes=("odd",) if number % 2 else (),
            measures={"black": number / 10},
        ),
        tensors=tensors,
    )


def encoded(uri, shards: list[list[SampleRow]], measures=MEASURES) -> DatasetInfo:
    """Write a dataset of some shards."""
    storage = Storage(uri)
    written = [
        put_shard(storage, f"{SHARDS}/{number:05d}.parquet", rows, measures=measures)
        for number, rows in enumerate(shards)
    ]
    info = DatasetInfo(
        fingerprints={"video_vae": "0123"},
        buckets=BUCKETS,
        num_samples=sum(map(len, shards)),
        statistics=sum((statistics for _, statistics in written), ShardStatistics()),
        shards=tuple(shard for shard, _ in written),
    )
    write_info(storage, info)
    return info


def numbered(uri, samples: int, per_shard: int) -> DatasetInfo:
    """Write a dataset of so many videos, numbered from 0."""
    numbers = range(samples)
    shards = [numbers[start : start + per_shard] for start in range(0, samples, per_shard)]
    return encoded(uri, [[row(number) for number in shard] for shard in shards])


def assert_same_tensors(read: TrainingSample, expected: SampleRow) -> None:
    """Whether a sample has the tensors that were written, bit by bit, and no others."""
    found = {name: getattr(read, name) for name in TENSORS if not name.startswith("text")}
    if read.text and read.text.audio is read.text.video:
        found["text"] = read.text.video
    elif read.text:
        found |= {"text_video": read.text.video, "text_audio": read.text.audio}
    found = {name: tensor for name, tensor in found.items() if tensor is not None}
    assert set(found) == set(expected.tensors)
    for name, tensor in expected.tensors.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)
