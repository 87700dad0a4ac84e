"""Where media come from: local files, and whatever else fsspec opens."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import fsspec

from rayreel.errors import MediaError


def open_file(source: str | Path) -> BinaryIO:
    """Open a file to read its bytes.

    Args:
        source: A local path, or a URI of any fsspec file system such as ``s3://bucket/clip.mp4``:
            whatever has ``://`` in it. Nothing else is looked for in a path, no protocol either.

    Raises:
        MediaError: If it cannot be opened; names the source.
    """
    if "://" not in str(source):
        try:
            return Path(source).open("rb")
        except OSError as error:
            raise MediaError(f"cannot read {source}: {error.strerror}") from error
    try:
        return cast("BinaryIO", fsspec.open(str(source), "rb").open())
    # File systems let errors of their own through, such as botocore's for missing credentials.
    except Exception as error:
        raise MediaError(f"cannot read {source}: {type(error).__name__}: {error}") from error


@contextmanager
def local_copy(source: str | Path) -> Iterator[Path]:
    """A local file with the bytes of a source: itself if it is local, else a copy for the while.

    Args:
        source: As for :func:`open_file`.

    Raises:
        MediaError: If a source that is not local cannot be read; names the source.
    """
    if "://" not in str(source):
        yield Path(source)
        return
    with tempfile.TemporaryDirectory(prefix="rayreel-") as folder:
        # The end of its name, so that messages about the copy say which file it is.
        copy = Path(folder) / f"copy-of-{str(source).rsplit('/', maxsplit=1)[-1][-100:]}"
        with open_file(source) as file, copy.open("wb") as target:
            try:
                shutil.copyfileobj(file, target, 2**20)
            # As above; the disk may be full too.
            except Exception as error:
                raise MediaError(
                    f"cannot copy {source}: {type(error).__name__}: {error}"
                ) from error
        yield copy
