"""Where media of a list lie, and what tells that one of them has changed."""

import errno
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import fsspec
from fsspec.implementations.local import LocalFileSystem

# Object stores answer slowly, and many questions at a time.
_ASKERS = 16
# What file systems call the time of a change, or a hash of the content; the first that is there.
_SIGNS = ("ETag", "etag", "md5", "mtime", "LastModified", "last_modified", "updated", "created")


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
    """
    names = list(dict.fromkeys(sources))
    with ThreadPoolExecutor(_ASKERS) as askers:
        return dict(zip(names, askers.map(_token, names), strict=True))


def _token(source: str) -> Token | OSError:
    try:
        # What fsspec makes of "::" in a path is not meant: ``open_file`` makes nothing of it.
        local = "://" not in source
        file_system, path = (LocalFileSystem(), source) if local else fsspec.url_to_fs(source)
        info: dict[str, Any] = file_system.info(path)
    except FileNotFoundError:
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), source)
    except OSError as error:
        return error
    # File systems let errors of their own through, such as botocore's for missing credentials.
    except Exception as error:  # noqa: BLE001 - it is told of the rows that name the file
        return OSError(f"{type(error).__name__}: {error}")
    if info.get("type") == "directory":
        return IsADirectoryError(errno.EISDIR, "it is a folder", source)
    sign = next((info[name] for name in _SIGNS if info.get(name) is not None), "")
    return Token(int(info.get("size") or 0), str(sign))
