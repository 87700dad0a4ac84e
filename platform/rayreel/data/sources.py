"""Media of a list, wherever they lie: local copies of them, and what tells that one has changed."""

import errno
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from rayreel.data.patience import Patience, without_user
from rayreel.errors import MediaError, RetryableError, StorageError

T = TypeVar("T")

PATIENCE_S = 60.0
"""How long a store may fail to answer before a run gives up."""

# Object stores answer slowly, and many questions at a time.
_ASKERS = 16
# What file systems call the time of a change, or a hash of the content; the first that is there.
_SIGNS = ("ETag", "etag", "md5", "mtime", "LastModified", "last_modified", "updated", "created")
# Each of their files may be on a server of its own.
_WEB = ("http://", "https://")


class Token(NamedTuple):
    """What a file system says of a file.

    Attributes:
        num_bytes: Its size.
        sign: Changes with the file.
    """

    num_bytes: int
    sign: str


def tokens(sources: Iterable[str]) -> dict[str, Token | OSError]:
    """What file systems say of each source; an error where it cannot be looked at.

    Args:
        sources: Paths, or URIs that fsspec opens.

    Raises:
        StorageError: If a store does not answer.
    """
    names = list(dict.fromkeys(sources))
    with ThreadPoolExecutor(_ASKERS) as askers:
        return dict(zip(names, askers.map(_token, names), strict=True))


@contextmanager
def local_copy(source: str) -> Iterator[Path]:
    """A local file with the bytes of a source: itself if it is local, else a copy for the while.

    Args:
        source: A path, or a URI that fsspec opens.

    Raises:
        MediaError: If a source that is not local cannot be read; names the source. One that names
            the copy is raised again with the name of the source.
        RetryableError: If a web server does not answer now.
        StorageError: If a store does not answer.
    """
    if "://" not in source:
        yield Path(source)
        return
    with tempfile.TemporaryDirectory(prefix="rayreel-") as folder:
        copy = Path(folder) / "copy"

        def fetch() -> None:
            file_system, path = fsspec.url_to_fs(source)
            file_system.get_file(path, str(copy))

        try:
            _patiently(source, "copying", fetch)
        except (RetryableError, StorageError):
            raise
        # File systems let errors of their own through, such as botocore's for missing credentials.
        except Exception as error:
            raise MediaError(
                f"cannot copy {without_user(source)}: {type(error).__name__}: {error}"
            ) from error
        try:
            yield copy
        except MediaError as error:
            raise MediaError(str(error).replace(str(copy), without_user(source))) from error


def _token(source: str) -> Token | OSError:
    try:
        info = _patiently(source, "looking at", lambda: _info(source))
    except FileNotFoundError:
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), source)
    except OSError as error:
        return error
    except StorageError:
        raise
    except Exception as error:  # noqa: BLE001 - as above; it is told of the rows that name the file
        return OSError(f"{type(error).__name__}: {error}")
    if info.get("type") == "directory":
        return IsADirectoryError(errno.EISDIR, "it is a folder", source)
    sign = next((info[name] for name in _SIGNS if info.get(name) is not None), "")
    return Token(int(info.get("size") or 0), str(sign))


def _info(source: str) -> dict[str, Any]:
    # What fsspec makes of "::" in a path is not meant.
    local = "://" not in source
    file_system, path = (LocalFileSystem(), source) if local else fsspec.url_to_fs(source)
    found: dict[str, Any] = file_system.info(path)
    return found


def _patiently(source: str, operation: str, work: Callable[[], T]) -> T:
    """Ask for something again while a store does not answer."""
    if "://" not in source:
        return work()
    try:
        return Patience(source, PATIENCE_S)(operation, work)
    except StorageError as error:
        if source.startswith(_WEB):
            raise RetryableError(str(error)) from error
        raise
