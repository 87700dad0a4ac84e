"""A run's directory, on a local disk or in an object store.

Whatever appears under a name appears whole: local files are written beside their place and renamed
or linked, and object stores show a put or an upload only once it is complete. A store that does not
answer is tried again for a while; a local disk is not.
"""

import errno
import os
import re
import tempfile
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import uuid4

import fsspec
from fsspec.config import conf
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from rayreel.data.patience import Patience, already_there

PATIENCE_S = 60.0
"""How long a store may fail to answer before a run gives up."""

ATTEMPT_S = 30.0
SLOWEST_BYTES_PER_S = 2**20
"""An upload that takes longer than this allows is taken for stuck."""

_SAFE_PART = re.compile(r"[A-Za-z0-9._-]{1,200}")
_REMOVERS = 16
_CONNECTIONS = 50
# The store of this process alone looks and then writes.
_MEMORY = threading.Lock()


class Storage:
    """Files of one run, by names relative to its directory such as ``videos/a.mp4``.

    A part of a name has 1 to 200 letters, digits, dots, hyphens and underscores. Every method
    raises ``ValueError`` for a name that is not like that, and so cannot leave the directory; and
    ``StorageError`` if an object store does not answer.

    Attributes:
        uri: The directory as it was given.
        patience_s: How long a store may fail to answer.
    """

    def __init__(self, uri: str | Path, patience_s: float = PATIENCE_S) -> None:
        self.uri = str(uri)
        self.patience_s = patience_s
        # Other processes write too, so a listing must never come from a cache.
        self._fs, self._root = fsspec.url_to_fs(
            self.uri, use_listings_cache=False, **_options(self.uri)
        )
        if _is_s3(self.uri):
            # Tries of its own come on top, and none of them is told to anybody.
            self._fs.retries = 1
        self._patient = Patience(self.uri, patience_s)

    def __reduce__(self) -> tuple[type["Storage"], tuple[str, float]]:
        """Pickled as what it was made from: connections belong to their process."""
        return type(self), (self.uri, self.patience_s)

    def join(self, name: str) -> str:
        """The URI or path of a name, for whoever reads it without this class."""
        path = self._path(name)
        return path if self._is_local else str(self._fs.unstrip_protocol(path))

    def local_path(self, name: str) -> Path | None:
        """Path of a name on this machine's disk; ``None`` in an object store."""
        return Path(self._path(name)) if self._is_local else None

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return self._info(name) is not None

    def size(self, name: str) -> int:
        """Bytes of a file.

        Raises:
            FileNotFoundError: If there is none.
        """
        info = self._info(name)
        if info is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", self.join(name))
        return int(info["size"])

    def names(self, folder: str) -> list[str]:
        """Names of the files directly in a folder, sorted; none if the folder does not exist."""
        path = self._path(folder)
        try:
            found = self._do(f"listing {folder}", self._fs.ls, path, detail=True)
        except FileNotFoundError:
            return []
        files = (PurePosixPath(info["name"]).name for info in found if info["type"] == "file")
        return sorted(f"{folder}/{file}" for file in files if _is_safe(file))

    def read_bytes(self, name: str) -> bytes:
        """Contents of a file.

        Raises:
            FileNotFoundError: If there is none.
        """
        return self.read_many([name])[name]

    def read_text(self, name: str) -> str:
        """Contents of a UTF-8 file.

        Raises:
            FileNotFoundError: If there is none.
        """
        return self.read_bytes(name).decode()

    def read_many(self, names: Iterable[str], *, missing_ok: bool = False) -> dict[str, bytes]:
        """Contents of several files by name; object stores fetch them side by side.

        Args:
            names: Of the files.
            missing_ok: Whether to leave out files that do not exist.

        Raises:
            FileNotFoundError: If one of them does not exist and it has to.
        """
        paths = {name: self._path(name) for name in names}
        contents: dict[str, bytes] = {}

        def fetch() -> None:
            left = [name for name in paths if name not in contents]
            # Unlike ``cat``, this does not take brackets in the run's own path for a pattern.
            found = self._fs.cat_ranges([paths[name] for name in left], None, None)
            # It returns what went wrong instead of raising it.
            wrong = {name: got for name, got in zip(left, found, strict=True) if _is_error(got)}
            contents.update((n, c) for n, c in zip(left, found, strict=True) if n not in wrong)
            for name, error in wrong.items():
                if missing_ok and isinstance(error, FileNotFoundError):
                    del paths[name]
                else:
                    raise error

        self._do(f"reading {len(paths)} files", fetch)
        return {name: contents[name] for name in paths}

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a file, or replace it as a whole."""
        path = self._path(name)
        if self._is_local:
            with self.local_staging(name) as staged:
                staged.write_bytes(data)
        else:
            limit = self._limit(len(data))
            self._do(f"writing {name}", self._fs.pipe_file, path, data, **limit)

    def create_bytes(self, name: str, data: bytes) -> bool:
        """Write a file if there is none of this name yet: of several writers, one succeeds.

        Returns:
            Whether this call wrote it. In an object store a file of exactly the same data counts as
            its own: one whose answer was lost, and that is tried again, cannot be told from it.
        """
        if self._is_local:
            try:
                with self.local_staging(name, replace=False) as staged:
                    staged.write_bytes(data)
            except FileExistsError:
                return False
            return True
        path = self._path(name)
        create = partial(self._fs.pipe_file, path, data, mode="create", **self._limit(len(data)))
        return self._created(name, create) or self._holds(name, data)

    @contextmanager
    def local_staging(self, name: str, replace: bool = True) -> Iterator[Path]:
        """A local path with the suffix of ``name`` to write a file to.

        The file appears under its name when the block ends, on disk to stay; if the block raises,
        nothing does. Its folder is created.

        Args:
            name: Of the file.
            replace: Whether to replace a file of this name.

        Raises:
            FileExistsError: If there is one and it is not replaced; the staged file is thrown away.
                An upload whose answer was lost may so find the file that it has left itself.
        """
        final = self._path(name)
        suffix = PurePosixPath(name).suffix
        if not self._is_local:
            with tempfile.TemporaryDirectory() as temporary:
                staged = Path(temporary) / f"staged{suffix}"
                yield staged
                self._upload(name, staged, replace)
            return
        folder = Path(final).parent
        folder.mkdir(parents=True, exist_ok=True)
        # "~" is in no legal name: what a killed writer leaves behind is never listed or read.
        partial_file = folder / f"~{uuid4().hex}{suffix}"
        try:
            yield partial_file
            _sync(partial_file)
            if replace:
                partial_file.replace(final)
            else:
                _link(partial_file, Path(final))
            _sync(folder)
        finally:
            partial_file.unlink(missing_ok=True)

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; those that do not exist are fine."""
        paths = {name: self._path(name) for name in names}
        if self._is_local:
            for path in paths.values():
                Path(path).unlink(missing_ok=True)
        else:
            with ThreadPoolExecutor(_REMOVERS) as removers:
                list(removers.map(self._remove, paths, paths.values()))

    def honours_create(self) -> bool:
        """Whether ``create_bytes`` is exclusive here: some stores ignore the condition.

        Writes a small file, tries to create it again, and removes it.
        """
        name = f".create-{uuid4().hex}"
        try:
            return self.create_bytes(name, b"first") and not self.create_bytes(name, b"second")
        finally:
            self.remove([name])

    @property
    def _is_local(self) -> bool:
        return isinstance(self._fs, LocalFileSystem)

    def _path(self, name: str) -> str:
        if not all(_is_safe(part) for part in name.split("/")):
            raise ValueError(
                f"{name!r} is not a name in {self.uri}: its parts must match {_SAFE_PART.pattern}"
            )
        return f"{self._root.rstrip('/')}/{name}"

    def _info(self, name: str) -> dict[str, Any] | None:
        path = self._path(name)
        try:
            # ``isfile`` would take any error for a missing file.
            info: dict[str, Any] = self._do(f"looking for {name}", self._fs.info, path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return info if info["type"] == "file" else None

    def _upload(self, name: str, staged: Path, replace: bool) -> None:
        path, limit = self._path(name), self._limit(staged.stat().st_size)
        put = partial(self._fs.put_file, str(staged), path, **limit)
        if replace:
            self._do(f"uploading {name}", put)
            return
        if isinstance(self._fs, MemoryFileSystem):
            put = partial(self._fs.pipe_file, path, staged.read_bytes())
        if not self._created(name, partial(put, mode="create")):
            raise FileExistsError(errno.EEXIST, "there is a file already", self.join(name))

    def _created(self, name: str, create: "partial[Any]") -> bool:
        def attempt() -> bool:
            try:
                if isinstance(self._fs, MemoryFileSystem):
                    with _MEMORY:
                        create()
                else:
                    create()
            except Exception as error:
                if already_there(error):
                    return False
                raise
            return True

        return bool(self._do(f"creating {name}", attempt))

    def _holds(self, name: str, data: bytes) -> bool:
        try:
            return self.size(name) == len(data) and self.read_bytes(name) == data
        except FileNotFoundError:
            return False

    def _remove(self, name: str, path: str) -> None:
        with suppress(FileNotFoundError):
            self._do(f"removing {name}", self._fs.rm_file, path)

    def _do(self, operation: str, work: Any, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - fsspec has no types
        if self._is_local:
            return work(*args, **options)
        return self._patient(operation, partial(work, *args, **options))

    def _limit(self, num_bytes: int) -> dict[str, float]:
        """Longest time for an upload: one that waits to be let in has no other time-out."""
        if not self._fs.async_impl:
            return {}
        return {"timeout": ATTEMPT_S + num_bytes / SLOWEST_BYTES_PER_S}


def _options(uri: str) -> dict[str, Any]:
    """For stores that are spoken to through botocore: what the user's fsspec settings leave open.

    Without them it tries each request five times, and a store that is down is told minutes later.
    """
    if not _is_s3(uri):
        return {}
    own = conf.get("s3", {}) | conf.get("s3a", {})
    config = {"retries": {"total_max_attempts": 1}, "max_pool_connections": _CONNECTIONS}
    return {"config_kwargs": config | own.get("config_kwargs", {})}


def _is_s3(uri: str) -> bool:
    return fsspec.core.split_protocol(uri)[0] in ("s3", "s3a")


def _is_safe(part: str) -> bool:
    return part not in (".", "..") and _SAFE_PART.fullmatch(part) is not None


def _is_error(content: bytes | Exception) -> bool:
    return isinstance(content, Exception)


def _link(partial_file: Path, final: Path) -> None:
    """Give a file its name if nobody has it."""
    try:
        final.hardlink_to(partial_file)
    except FileExistsError:
        # A network file system that missed the answer tries again and finds its own link.
        if not final.samefile(partial_file):
            raise
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOTSUP):
            error.add_note(f"a run directory needs hard links, which {final.parent} does not have")
        raise


def _sync(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
