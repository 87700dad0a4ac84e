"""Datasets of LTX-2's own trainers: ``.precomputed`` folders, written from datasets and read back.

Beside the folders that they know, an export has ``samples.jsonl``, which they pass by: what is
known of each sample beside its tensors, so that an import has all of it again.
"""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from pydantic import Field, ValidationError

from rayreel.config.base import StrictModel
from rayreel.config.buckets import Bucket
from rayreel.data.columns import SampleInfo, SampleRow
from rayreel.data.dataset import (
    INFO_FILE,
    SHARDS,
    DatasetInfo,
    ShardInfo,
    ShardStatistics,
    write_info,
)
from rayreel.data.hashing import content_hash
from rayreel.data.precomputed_files import FOLDERS, dump, load, parts_of, unpacked
from rayreel.data.reader import LatentDataset
from rayreel.data.shards import put_shard
from rayreel.data.storage import Storage
from rayreel.errors import RayreelError
from rayreel.types import ScaleFactors

CHILD = ".precomputed"
LISTING = "samples.jsonl"

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_NAME = 100
_SHOWN = 5
_FACTORS = ScaleFactors()

log = logging.getLogger(__name__)


class _Listed(StrictModel):
    """A line of ``samples.jsonl``."""

    file: str = Field(description="in each folder of the sample")
    folders: tuple[str, ...]
    info: SampleInfo


def export_precomputed(dataset_uri: str | Path, folder: str | Path) -> int:
    """Write a dataset as the trainers of LTX-2 read it, of whatever release.

    A sample's files are called by its number in the dataset and its name, as far as that is fit for
    a file. Text is filled up with zeros on the left. A file appears whole, or not at all, and an
    export that was stopped can be started again.

    Args:
        dataset_uri: The dataset.
        folder: Path or URI; if it has a child ``.precomputed``, which they would read instead, the
            files go there.

    Returns:
        Number of samples.

    Raises:
        RayreelError: If there is no dataset, or the folder has files of other samples.
    """
    dataset, given = LatentDataset(dataset_uri), _Folder(str(folder))
    names = [
        _file_name(index, name, sample_id)
        for index, (name, sample_id) in enumerate(
            zip(*dataset.columns(["name", "sample_id"]).to_pydict().values(), strict=True)
        )
    ]
    _refuse_strangers(given, set(names))
    storage, lines = Storage(given.root), []
    for index, name in enumerate(names):
        sample = dataset[index]
        folders = parts_of(sample)
        for part in folders:
            storage.write_bytes(f"{part}/{name}", dump(FOLDERS[part].pack(sample)))
        listed = _Listed(file=name, folders=tuple(folders), info=sample.info)
        lines.append(f"{listed.model_dump_json()}\n")
    storage.write_bytes(LISTING, "".join(lines).encode())
    return len(names)


def import_precomputed(
    folder: str | Path,
    dataset_uri: str | Path,
    *,
    sources: Sequence[str] = (),
    factors: ScaleFactors = _FACTORS,
    shard_samples: int = 256,
) -> DatasetInfo:
    """Make a dataset of a folder that one of LTX-2's trainers wrote, or ``export_precomputed``.

    A sample is kept if it has a file in every folder that is read; of an export, in every one that
    it had a file in. How many are left out is logged.

    Args:
        folder: Path or URI; its child ``.precomputed`` is read if there is one.
        dataset_uri: Where the dataset is written.
        sources: Folders that are read, such as ``latents``; by default all that there are.
        factors: Of the video VAE, which the files do not tell.
        shard_samples: Samples in a shard, at most.

    Raises:
        RayreelError: If a folder is missing, a file is damaged, no sample is complete, or there is
            a dataset already.
    """
    given, storage = _Folder(str(folder)), Storage(dataset_uri)
    if storage.exists(INFO_FILE):
        raise RayreelError(f"{dataset_uri} holds a dataset already; import into another folder")
    wanted = _complete(given, given.sources(sources))
    measures = sorted({name for _, _, one in wanted if one for name in one.info.measures})
    shards: list[ShardInfo] = []
    statistics, buckets = ShardStatistics(), {}

    def rows(start: int) -> Iterator[SampleRow]:
        for number, sample in enumerate(wanted[start : start + shard_samples], start=start + 1):
            row = _row(given, number, *sample, factors=factors)
            buckets[row.info.bucket] = True
            yield row

    for start in range(0, len(wanted), shard_samples):
        name = f"{SHARDS}/{len(shards):05d}.parquet"
        try:
            shard, own = put_shard(storage, name, rows(start), measures=measures)
            statistics += own
        except ValueError as error:
            raise RayreelError(f"{given.uri} is no dataset of one model: {error}") from error
        shards.append(shard)
    info = DatasetInfo(
        buckets=tuple(bucket for bucket in buckets if bucket),
        num_samples=len(wanted),
        statistics=statistics,
        shards=tuple(shards),
    )
    write_info(storage, info)
    return info


@dataclass(frozen=True)
class _Folder:
    """Files of a ``.precomputed`` folder, or of the folder that it is in."""

    uri: str

    @cached_property
    def files(self) -> Mapping[str, Sequence[str]]:
        """Names of the files within each folder, sorted, folders within it too."""
        found: dict[str, list[str]] = {}
        for name in FOLDERS:
            path = f"{self._path}/{name}"
            if self._file_system.isdir(path):
                inside = self._file_system.find(path)
                found[name] = sorted(
                    str(PurePosixPath(file).relative_to(path))
                    for file in inside
                    if file.endswith(".pt")
                )
        return found

    def sources(self, wanted: Sequence[str]) -> list[str]:
        """Folders that are read."""
        for name in wanted:
            if name not in FOLDERS:
                known = ", ".join(FOLDERS)
                raise RayreelError(f"{name!r} is no folder of a dataset; there are {known}")
            if name not in self.files:
                there = ", ".join(self.files) or "none of the known ones"
                raise RayreelError(f"{self.uri} has no folder {name!r}; it has {there}")
        return list(wanted) or list(self.files)

    def listing(self) -> list[_Listed]:
        """What an export says of its samples; nothing if this is none."""
        path = f"{self._path}/{LISTING}"
        if not self._file_system.exists(path):
            return []
        listed = []
        for number, line in enumerate(self._file_system.cat_file(path).splitlines(), start=1):
            try:
                listed.append(_Listed.model_validate_json(line))
            except ValidationError as error:
                said = error.errors()[0]["msg"]
                raise RayreelError(
                    f"line {number} of {self.shown(LISTING)} is damaged ({said}); remove the file "
                    "to import what the folders tell without it"
                ) from error
        return listed

    def read(self, name: str) -> bytes:
        data: bytes = self._file_system.cat_file(f"{self._path}/{name}")
        return data

    def shown(self, name: str) -> str:
        return f"{self.root}/{name}"

    @cached_property
    def root(self) -> str:
        """Path or URI of the folder itself."""
        child = f"{self.uri.rstrip('/')}/{CHILD}"
        return child if self._file_system.isdir(child) else self.uri

    @cached_property
    def _file_system(self) -> Any:  # noqa: ANN401 - fsspec has no types
        # What was listed before it was written must not be found in a cache.
        return fsspec.url_to_fs(self.uri, use_listings_cache=False)[0]

    @cached_property
    def _path(self) -> str:
        return str(fsspec.url_to_fs(self.root)[1]).rstrip("/")


_Sample = tuple[str, Mapping[str, str], _Listed | None]
"""Name of a sample, its file in each folder, and what an export says of it."""


def _complete(given: _Folder, sources: Sequence[str]) -> list[_Sample]:
    """Samples that have all their files."""
    there = {name: set(given.files[name]) for name in sources}
    listing = given.listing()
    asked: list[_Sample] = [
        (one.file, {name: one.file for name in sources if name in one.folders}, one)
        for one in listing
    ]
    if sources:
        main = "latents" if "latents" in sources else sources[0]
        others = sorted(there[main] - {one.file for one in listing})
        asked += [(file, _files_of(file, sources, there), None) for file in others]
    kept, missing = [], []
    for sample in asked:
        name, files, _ = sample
        lacks = [folder for folder, file in files.items() if file not in there[folder]]
        if lacks or not files:
            missing.append(f"{name} (not in {', '.join(lacks or sources)})")
        else:
            kept.append(sample)
    if missing:
        shown = ", ".join(missing[:_SHOWN])
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        log.warning("%d of %d samples are left out: %s%s", len(missing), len(asked), shown, more)
    if not kept:
        raise RayreelError(
            f"{given.uri} has no complete sample: expected files of one name in each of "
            f"{', '.join(sources or FOLDERS)}; found {len(asked)} incomplete ones"
        )
    return kept


def _files_of(file: str, sources: Sequence[str], there: Mapping[str, set[str]]) -> dict[str, str]:
    """A sample's file in each folder; old texts are called otherwise than their latents."""
    path = PurePosixPath(file)
    files = dict.fromkeys(sources, file)
    if "conditions" in files and path.name.startswith("latent_"):
        old = str(path.with_name(f"condition_{path.name.removeprefix('latent_')}"))
        if file not in there["conditions"]:
            files["conditions"] = old
    return files


def _row(
    given: _Folder,
    number: int,
    name: str,
    files: Mapping[str, str],
    listed: _Listed | None,
    *,
    factors: ScaleFactors,
) -> SampleRow:
    data = {folder: given.read(f"{folder}/{file}") for folder, file in files.items()}
    contents = {
        folder: load(one, given.shown(f"{folder}/{files[folder]}")) for folder, one in data.items()
    }
    try:
        tensors, facts, notes = unpacked(contents)
        latents = tensors.get("video_latents")
        if latents is not None and latents.dim() == 4:
            bucket = _bucket(latents.shape, factors)
            facts |= {"bucket": bucket, "duration_s": bucket.num_frames / facts["fps"]}
        main, first = next(iter(data.items()))
        told = SampleInfo(
            sample_id=content_hash("precomputed", name),
            row=number,
            name=name.removesuffix(".pt"),
            source=f"{main}/{files[main]}",
            content=content_hash(first),
            notes=tuple(notes),
            **facts,
        )
        row = SampleRow(info=listed.info if listed else told, tensors=tensors)
        row.columns()
    except (ValueError, ZeroDivisionError) as error:
        raise RayreelError(
            f"{given.uri}: files of {name} are not those of a sample: {error}"
        ) from error
    return row


def _bucket(shape: Sequence[int], factors: ScaleFactors) -> Bucket:
    """Pixels that latents ``(C, F, H, W)`` were encoded from."""
    _, frames, height, width = shape
    return Bucket(
        width=width * factors.width,
        height=height * factors.height,
        num_frames=(frames - 1) * factors.time + 1,
    )


def _file_name(index: int, name: str, sample_id: str) -> str:
    """Safe and unlike any other: the number alone tells samples apart, whatever else is equal."""
    readable = _UNSAFE.sub("_", name)[:_LONGEST_NAME].strip("_") or _UNSAFE.sub("_", sample_id)
    return f"{index:06d}-{readable[:_LONGEST_NAME]}.pt"


def _refuse_strangers(folder: _Folder, own: set[str]) -> None:
    """Raise if a folder has files of samples that are not to be written."""
    for name, files in folder.files.items():
        if strangers := [file for file in files if file not in own]:
            raise RayreelError(
                f"{folder.shown(name)} has {len(strangers)} file(s) of other samples, such as "
                f"{strangers[0]}, which trainers would mix with these; export into another folder"
            )
