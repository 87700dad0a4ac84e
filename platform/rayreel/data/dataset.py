"""An encoded dataset: a folder of shards, and ``dataset.json``, which is written last."""

from contextlib import AbstractContextManager
from typing import BinaryIO, Self

import fsspec
from pydantic import Field, ValidationError, field_serializer, model_validator

from rayreel.config.base import StrictModel
from rayreel.config.buckets import Bucket
from rayreel.data.storage import Storage
from rayreel.errors import RayreelError

SCHEMA_VERSION = 1
"""Of ``dataset.json`` and the shards' columns; another one means that they cannot be read."""

INFO_FILE = "dataset.json"
SHARDS = "shards"


class ChannelStatistics(StrictModel):
    """Mean and variance of each channel of video latents."""

    positions: int = Field(description="that they are taken over, of all samples together")
    mean: tuple[float, ...]
    variance: tuple[float, ...]

    def __add__(self, other: "ChannelStatistics") -> "ChannelStatistics":
        """Of both together.

        Raises:
            ValueError: If they have other channels.

        Reference:
            Chan et al. 1979, updating formulae for variances.
        """
        if len(self.mean) != len(other.mean):
            raise ValueError(
                f"latents of {len(self.mean)} and {len(other.mean)} channels are not of one model"
            )
        total = self.positions + other.positions
        share = other.positions / total
        mean, variance = [], []
        pairs = zip(self.mean, self.variance, other.mean, other.variance, strict=True)
        for mine, spread, its, its_spread in pairs:
            mean.append(mine + (its - mine) * share)
            between = (its - mine) ** 2 * share * (1 - share)
            variance.append(spread * (1 - share) + its_spread * share + between)
        return ChannelStatistics(positions=total, mean=tuple(mean), variance=tuple(variance))


class ShardStatistics(StrictModel):
    """What a shard holds, or several that were added up in their order."""

    samples: int = 0
    frames: int = 0
    seconds: float = 0.0
    with_audio: int = Field(default=0, description="samples that have audio latents")
    buckets: dict[str, int] = Field(default_factory=dict, description="samples by bucket")
    video_latents: ChannelStatistics | None = None

    def __add__(self, other: "ShardStatistics") -> "ShardStatistics":
        """Of both together."""
        names = sorted({*self.buckets, *other.buckets})
        both = [one for one in (self.video_latents, other.video_latents) if one]
        return ShardStatistics(
            samples=self.samples + other.samples,
            frames=self.frames + other.frames,
            seconds=self.seconds + other.seconds,
            with_audio=self.with_audio + other.with_audio,
            buckets={n: self.buckets.get(n, 0) + other.buckets.get(n, 0) for n in names},
            video_latents=both[0] + both[1] if len(both) == 2 else next(iter(both), None),
        )


class ShardInfo(StrictModel):
    """One shard of a dataset."""

    name: str = Field(description="within the dataset, such as shards/00000.parquet")
    samples: int = Field(ge=0)
    num_bytes: int = Field(ge=0)
    sha256: str


class DatasetInfo(StrictModel):
    """``dataset.json``: what a dataset holds, written once all of it is there."""

    schema_version: int = SCHEMA_VERSION
    fingerprints: dict[str, str] = Field(
        default_factory=dict, description="of the weights that encoded it, by component"
    )
    buckets: tuple[Bucket, ...] = ()
    num_samples: int = Field(ge=0)
    statistics: ShardStatistics
    shards: tuple[ShardInfo, ...]

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if (counted := sum(shard.samples for shard in self.shards)) != self.num_samples:
            raise ValueError(f"num_samples={self.num_samples}, but its shards have {counted}")
        return self

    @field_serializer("buckets")
    def _as_written(self, buckets: tuple[Bucket, ...]) -> list[str]:
        return [str(bucket) for bucket in buckets]


def write_info(storage: Storage, info: DatasetInfo) -> None:
    """Publish a dataset, all shards of which are there: equal ones have equal bytes."""
    storage.write_bytes(INFO_FILE, f"{info.model_dump_json(indent=2)}\n".encode())


def read_info(storage: Storage) -> DatasetInfo:
    """What a dataset holds.

    Raises:
        RayreelError: If there is none, or one that this version cannot read.
    """
    where = storage.join(INFO_FILE)
    try:
        data = storage.read_bytes(INFO_FILE)
    except FileNotFoundError as error:
        raise RayreelError(
            f"{storage.uri} is not a dataset: it has no {INFO_FILE}, which is written once "
            "everything is encoded; run the encode job again, and it goes on. A folder of another "
            "trainer becomes one by rayreel import"
        ) from error
    try:
        version = _Versioned.model_validate_json(data).schema_version
        if version != SCHEMA_VERSION:
            raise RayreelError(
                f"{where} has schema_version {version}, but this version of rayreel reads "
                f"{SCHEMA_VERSION}: use the version that wrote it, or encode the list into another "
                "folder"
            )
        info = DatasetInfo.model_validate_json(data)
        for shard in info.shards:
            storage.join(shard.name)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"])) or "its text"
        raise RayreelError(f"{where} is damaged, at {at}: {first['msg']}") from error
    except ValueError as error:
        raise RayreelError(f"{where} is damaged: {error}") from error
    return info


def opened(storage: Storage, name: str, num_bytes: int) -> AbstractContextManager[BinaryIO]:
    """A file for reading at random: of an object store, only what is asked for is fetched.

    Args:
        storage: Where it lies.
        name: Of the file.
        num_bytes: Its size, which is not asked for then.
    """
    local = storage.local_path(name)
    if local is not None:
        return local.open("rb")
    # Connections belong to their process, which may be another one by now.
    file_system, path = fsspec.url_to_fs(storage.join(name))
    file: AbstractContextManager[BinaryIO] = file_system.open(
        path, "rb", cache_type="none", size=num_bytes
    )
    return file


class _Versioned(StrictModel, extra="ignore"):
    schema_version: int
