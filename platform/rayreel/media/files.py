"""Where media come from: local files, and whatever else fsspec opens."""

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
