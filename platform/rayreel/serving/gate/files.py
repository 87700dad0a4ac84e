"""Files of requests: taken in, looked at, and put where the stages read them."""

import asyncio
import base64
import binascii
import copy
import hashlib
import re
import shutil
import tempfile
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.datastructures import UploadFile

from rayreel.checkpoints.library import is_name
from rayreel.config.serving import UploadSpec
from rayreel.data.storage import Storage
from rayreel.errors import MediaError, RayreelError
from rayreel.media.inspection import HEAD_BYTES, FileType, Inspected, file_type
from rayreel.serving.gate.checker import Checker
from rayreel.serving.gate.fetch import Fetcher
from rayreel.stages.chunks import chunk_name

UPLOADS = "uploads"

MAX_FILES = 32
"""Of one request: each is looked at by a process of its own."""

PIECE_BYTES = 2**20

_JOB_ID = re.compile(r"(video|image)_[0-9a-f]{32}")
_DATA_URI = re.compile(r"data:[A-Za-z0-9.+-]*/?[A-Za-z0-9.+-]*;base64,")
_PICTURES = ("image", "video")
_ARTIFACTS = (
    *("videos/{}.mp4", "images/{}.png", "sounds/{}.wav", "sounds/{}.m4a"),
    *("extracts/{}.webp", "extracts/{}.m4a"),
)


class FileRefused(RayreelError):  # noqa: N818 - it is the file that is at fault
    """A file of a request that is not taken.

    Attributes:
        field: Where the request names it, such as ``images.0.path``.
        message: What was expected, and what came.
        status: Of HTTP: 413 for a file that is too large, else 400.
    """

    def __init__(self, field: str, message: str, status: int = 400) -> None:
        super().__init__(f"{field}: {message}")
        self.field, self.message, self.status = field, message, status


@dataclass(frozen=True, slots=True)
class _Slot:
    """A place in a request that names a file.

    Attributes:
        field: Where it is.
        holder: What it is a key of.
        key: That one.
        kinds: What the file may be.
        sound: Whether it must have sound.
    """

    field: str
    holder: dict[str, Any]
    key: str
    kinds: tuple[str, ...]
    sound: bool = False


@dataclass(frozen=True, slots=True)
class _Taken:
    """A file that has come.

    Attributes:
        path: Where it lies until it is stored.
        name: In the service directory.
        inspected: What it is.
    """

    path: Path
    name: str
    inspected: Inspected


class FileGate:
    """Lets in the files of requests, and removes those of jobs.

    Attributes:
        storage: The service directory.
        limits: What files may be like.
        fetch: Reads files from other hosts.
        checker: Looks at files.
    """

    def __init__(self, storage: Storage, limits: UploadSpec, fetch: Fetcher | None = None) -> None:
        self.storage = storage
        self.limits = limits
        self.fetch = fetch or Fetcher(limits.url_hosts)
        self.checker = Checker(limits)

    async def place(
        self, job_id: str, body: Mapping[str, Any], parts: Mapping[str, UploadFile]
    ) -> dict[str, Any]:
        """Take in the files of a request.

        Args:
            job_id: The job that they are for.
            body: Fields of a request, of any shape: what is wrong besides files is left as it is.
            parts: Files that came with it, for ``upload://NAME``.

        Returns:
            The body with every path replaced by where its file lies now.

        Raises:
            FileRefused: If a path is none that clients may name, or its file is refused; then
                nothing is stored.
            StorageError: If the service directory does not answer.
        """
        placed = copy.deepcopy(dict(body))
        slots = list(_slots(placed))
        with tempfile.TemporaryDirectory(prefix="rayreel-") as folder:
            intake = _Intake(self, job_id, Path(folder), parts)
            taken = {id(slot): await intake.take(slot) for slot in slots}
            try:
                for file in {file.name: file for file in taken.values()}.values():
                    await asyncio.to_thread(self._store, file)
            except BaseException:
                await asyncio.to_thread(self._remove_uploads, job_id)
                raise
        for slot in slots:
            slot.holder[slot.key] = self.storage.join(taken[id(slot)].name)
        return placed

    def remove(self, job_id: str) -> None:
        """Remove whatever lies in the service directory for a job, of its request and of its clip.

        Raises:
            StorageError: If the service directory does not answer.
            ValueError: If it is no job's id.
        """
        _check_id(job_id)
        self._remove_uploads(job_id)
        names = [name.format(job_id) for name in _ARTIFACTS]
        index = 0
        while self.storage.exists(chunk := chunk_name(job_id, index)):
            names.append(chunk)
            index += 1
        # From the end: whoever goes on after an interruption counts what is left.
        for name in reversed(names):
            self.storage.remove([name])

    def _remove_uploads(self, job_id: str) -> None:
        folder = f"{UPLOADS}/{job_id}"
        self.storage.remove(self.storage.names(folder))
        if (local := self.storage.local_path(folder)) is not None:
            # It may hold what a killed writer has left, or not exist.
            with suppress(OSError):
                local.rmdir()

    def _store(self, file: _Taken) -> None:
        with self.storage.local_staging(file.name) as staged:
            shutil.copyfile(file.path, staged)


class _Intake:
    """Takes in the files of one request."""

    def __init__(
        self, gate: FileGate, job_id: str, folder: Path, parts: Mapping[str, UploadFile]
    ) -> None:
        _check_id(job_id)
        self._gate, self._job_id, self._folder, self._parts = gate, job_id, folder, parts
        self._left = gate.limits.max_bytes
        self._known: dict[str, _Taken] = {}

    async def take(self, slot: _Slot) -> _Taken:
        """The file that a slot names, after it was looked at."""
        source = slot.holder[slot.key]
        try:
            if source not in self._known:
                if len(self._known) >= MAX_FILES:
                    raise FileRefused(slot.field, f"at most {MAX_FILES} files are taken")
                self._known[source] = await self._taken(slot, source)
        except MediaError as error:
            raise FileRefused(slot.field, str(error)) from error
        file = self._known[source]
        _check_kind(slot, file.inspected)
        return file

    async def _taken(self, slot: _Slot, source: str) -> _Taken:
        path = self._folder / str(len(self._known))
        digest = hashlib.sha256()
        async with aclosing(self._pieces(slot, source)) as pieces:
            with path.open("wb") as file:
                async for piece in pieces:
                    self._left -= len(piece)
                    if self._left < 0:
                        raise _too_large(slot.field, self._gate.limits)
                    await asyncio.to_thread(file.write, piece)
                    digest.update(piece)
        with path.open("rb") as file:
            found: FileType = file_type(file.read(HEAD_BYTES))
        inspected = await self._gate.checker.check(path)
        name = f"{UPLOADS}/{self._job_id}/{digest.hexdigest()[:16]}.{found}"
        return _Taken(path, name, inspected)

    def _pieces(self, slot: _Slot, source: str) -> AsyncGenerator[bytes, None]:
        scheme = source.partition(":")[0]
        if source.startswith("upload://"):
            return self._uploaded(slot, source.removeprefix("upload://"))
        if scheme == "data":
            return self._decoded(slot, source)
        if scheme == "https":
            return self._gate.fetch(source, self._left)
        raise FileRefused(
            slot.field,
            "expected upload://NAME for a part of the form, data:...;base64,... or https://... of "
            f"a host that is allowed; got {source[:80]!r}",
        )

    async def _uploaded(self, slot: _Slot, name: str) -> AsyncGenerator[bytes, None]:
        part = self._parts.get(name)
        if part is None:
            known = ", ".join(sorted(self._parts)) or "none"
            raise FileRefused(
                slot.field, f"the form has no file {name[:80]!r}; files that it has: {known[:500]}"
            )
        await part.seek(0)
        while piece := await part.read(PIECE_BYTES):
            yield piece

    async def _decoded(self, slot: _Slot, source: str) -> AsyncGenerator[bytes, None]:
        found = _DATA_URI.match(source)
        if found is None:
            raise FileRefused(slot.field, f"expected data:TYPE;base64,..., got {source[:40]!r}")
        encoded = source[found.end() :]
        if len(encoded) // 4 * 3 > self._left + 2:
            raise _too_large(slot.field, self._gate.limits)
        try:
            yield base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError) as error:
            raise FileRefused(slot.field, f"what follows base64, is not base64: {error}") from error


def _slots(body: dict[str, Any]) -> Iterator[_Slot]:
    """Files that a body names; refuses what names one in a way that clients may not.

    What has not the shape of a request is passed by, as it will be refused for that.
    """
    for index, image in enumerate(_dicts(body.get("images"))):
        yield from _slot(f"images.{index}", image, "path", ("image",))
    for index, reference in enumerate(_dicts(body.get("references"))):
        for key in ("path", "mask"):
            yield from _slot(f"references.{index}", reference, key, _PICTURES)
    for field, kinds, sound in (
        ("soundtrack", ("audio", "video"), True),
        ("retake", ("video",), False),
        ("extend", ("video",), False),
    ):
        for holder in _dicts([body.get(field)]):
            yield from _slot(field, holder, "path", kinds, sound=sound)
    for holder in _dicts([body.get("extend")]):
        for key in ("run", "latents"):
            if holder.get(key) is not None:
                raise FileRefused(
                    f"extend.{key}",
                    "clients may not set it; expected clip, the id of a finished job, or path",
                )
    for index, adapter in enumerate(_dicts(body.get("loras"))):
        path = adapter.get("path")
        if isinstance(path, str) and not is_name(path):
            raise FileRefused(
                f"loras.{index}.path",
                "expected the name of an adapter of this service, of letters, digits, - and _; "
                f"got {path[:80]!r}",
            )


def _dicts(value: object) -> Iterator[dict[str, Any]]:
    # Others are of no legal shape; an empty one keeps the count.
    for item in value if isinstance(value, list | tuple) else ():
        yield item if isinstance(item, dict) else {}


def _slot(
    field: str, holder: dict[str, Any], key: str, kinds: tuple[str, ...], *, sound: bool = False
) -> Iterator[_Slot]:
    if isinstance(holder.get(key), str):
        yield _Slot(f"{field}.{key}", holder, key, kinds, sound)


def _check_kind(slot: _Slot, found: Inspected) -> None:
    if found.kind not in slot.kinds:
        expected = " or ".join(slot.kinds)
        raise FileRefused(slot.field, f"expected {expected}, and the file is {found.kind}")
    if slot.sound and not found.has_sound:
        raise FileRefused(slot.field, "expected a file with sound, and it has none")


def _check_id(job_id: str) -> None:
    if not _JOB_ID.fullmatch(job_id):
        raise ValueError(f"{job_id!r} is no id of a job: expected {_JOB_ID.pattern}")


def _too_large(field: str, limits: UploadSpec) -> FileRefused:
    return FileRefused(
        field, f"all files of a request may have {limits.max_bytes} bytes; there are more", 413
    )
