"""Files of PyTorch's distributed checkpoints, in a run directory of any kind."""

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from typing import Any

import fsspec
from torch.distributed.checkpoint.filesystem import (
    FileSystemBase,
    FileSystemReader,
    FileSystemWriter,
)

from rayreel.data.storage import Storage

Name = str | PathLike[str]


class _Files(FileSystemBase):
    """Names in a run directory, as paths: files appear whole, and stores are waited for."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    @contextmanager
    def create_stream(self, path: Name, mode: str) -> Iterator[Any]:
        if mode == "wb":
            with self._storage.local_staging(str(path)) as staged, staged.open("wb") as stream:
                yield stream
        else:
            # Shards may be larger than the memory that is left, so they are read as they are used.
            files, place = fsspec.url_to_fs(self._storage.join(str(path)))
            with files.open(place, mode) as stream:
                yield stream

    def concat_path(self, path: Name, suffix: str) -> str:
        return f"{path}/{suffix}"

    def rename(self, path: Name, new_path: Name) -> None:
        self._storage.write_bytes(str(new_path), self._storage.read_bytes(str(path)))
        self.rm_file(path)

    def init_path(self, path: Name) -> str:
        return str(path)

    def mkdir(self, path: Name) -> None:
        """Folders come with their files."""

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Name) -> bool:
        return bool(checkpoint_id)

    def exists(self, path: Name) -> bool:
        return self._storage.exists(str(path))

    def rm_file(self, path: Name) -> None:
        self._storage.remove([str(path)])


class CheckpointWriter(FileSystemWriter):
    """Writes a checkpoint to a folder of a run directory."""

    def __init__(self, storage: Storage, folder: str) -> None:
        # Whoever gives a file its name waits for the disk.
        super().__init__(folder, sync_files=False)
        self.fs = _Files(storage)  # type: ignore[assignment] # PyTorch's own for fsspec does so
        self.path = folder


class CheckpointReader(FileSystemReader):
    """Reads a checkpoint from a folder of a run directory."""

    def __init__(self, storage: Storage, folder: str) -> None:
        super().__init__(folder)
        self.fs = _Files(storage)  # type: ignore[assignment] # PyTorch's own for fsspec does so
        self.path = folder
