"""A run's directory, on a local disk or in an object store.

Whatever appears under a name appears whole: local files are written beside their place and renamed,
and object stores show a put or an upload only once it is complete.
"""

import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from uuid import uuid4

import fsspec
from fsspec.implementations.local import LocalFileSystem

_SAFE_PART = re.compile(r"[A-Za-z0-9._-]{1,200}")


class Storage:
    """Files of one run, by names relative to its directory such as ``videos/a.mp4``.

    A part of a name has 1 to 200 letters, digits, dots, hyphens and underscores. Every method
    raises ``ValueError`` for a name that is not like that, and so cannot leave the directory.

    Attributes:
        uri: The directory as it was given.
    """

    def __init__(self, uri: str | Path) -> None:
        self.uri = str(uri)
        # Other processes write too, so a listing must never come from a cache.
        self._fs, self._root = fsspec.url_to_fs(self.uri, use_listings_cache=False)

    def join(self, name: str) -> str:
        """The URI or path of a name, for whoever reads it without this class."""
        path = self._path(name)
        return path if self._is_local else str(self._fs.unstrip_protocol(path))

    def local_path(self, name: str) -> Path | None:
        """Path of a name on this machine's disk; ``None`` in an object store."""
        return Path(self._path(name)) if self._is_local else None

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return bool(self._fs.isfile(self._path(name)))

    def names(self, folder: str) -> list[str]:
        """Names of the files directly in a folder, sorted; none if the folder does not exist."""
        try:
            found = self._fs.ls(self._path(folder), detail=True)
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

    def read_many(self, names: Iterable[str]) -> dict[str, bytes]:
        """Contents of several files by name; object stores fetch them side by side.

        Raises:
            FileNotFoundError: If one of them does not exist.
        """
        names = list(names)
        # Unlike ``cat``, this does not take brackets in the run's own path for a pattern.
        contents = self._fs.cat_ranges([self._path(name) for name in names], None, None)
        # It returns what went wrong instead of raising it.
        for content in contents:
            if isinstance(content, Exception):
                raise content
        return dict(zip(names, contents, strict=True))

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a file, or replace it as a whole."""
        if self._is_local:
            with self.local_staging(name) as staged:
                staged.write_bytes(data)
        else:
            self._fs.pipe_file(self._path(name), data)

    @contextmanager
    def local_staging(self, name: str) -> Iterator[Path]:
        """A local path with the suffix of ``name`` to write a file to.

        The file appears under its name when the block ends, on disk to stay; if the block raises,
        nothing does. Its folder is created.
        """
        final = self._path(name)
        suffix = PurePosixPath(name).suffix
        if not self._is_local:
            with tempfile.TemporaryDirectory() as temporary:
                staged = Path(temporary) / f"staged{suffix}"
                yield staged
                self._fs.put_file(str(staged), final)
            return
        folder = Path(final).parent
        folder.mkdir(parents=True, exist_ok=True)
        # "~" is in no legal name: what a killed writer leaves behind is never listed or read.
        partial = folder / f"~{uuid4().hex}{suffix}"
        try:
            yield partial
            _sync(partial)
            partial.replace(final)
            _sync(folder)
        finally:
            partial.unlink(missing_ok=True)

    @property
    def _is_local(self) -> bool:
        return isinstance(self._fs, LocalFileSystem)

    def _path(self, name: str) -> str:
        if not all(_is_safe(part) for part in name.split("/")):
            raise ValueError(
                f"{name!r} is not a name in {self.uri}: its parts must match {_SAFE_PART.pattern}"
            )
        return f"{self._root.rstrip('/')}/{name}"


def _is_safe(part: str) -> bool:
    return part not in (".", "..") and _SAFE_PART.fullmatch(part) is not None


def _sync(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
