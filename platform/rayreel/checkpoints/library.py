"""The adapter library: a folder where adapters have names, for whoever does not want to say paths.

A name is letters, digits, ``-`` and ``_``, so that it cannot be a path to a weight file.
"""

import difflib
import os
import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from rayreel.errors import SpecError

_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
_SUFFIX = ".safetensors"


def library_folder() -> Path:
    """Where adapters are kept: ``RAYREEL_ADAPTERS``, or the user's own folder of data."""
    if folder := os.environ.get("RAYREEL_ADAPTERS"):
        return Path(folder).expanduser()
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "rayreel" / "adapters"


def adapter_names() -> list[str]:
    """Names in the library, sorted; none where there is no library yet."""
    return sorted(path.stem for path in library_folder().glob(f"*{_SUFFIX}"))


def is_name(text: str) -> bool:
    """Whether a text can be an adapter's name, and so is no path."""
    return _NAME.fullmatch(text) is not None


def named_adapter(path: str) -> str:
    """The file that an adapter's ``path`` means.

    Args:
        path: A name in the library, or a path or URI, which stays as it is.

    Raises:
        SpecError: If it is a name that the library does not have.
    """
    if not is_name(path):
        return path
    folder = library_folder()
    file = folder / f"{path}{_SUFFIX}"
    if file.is_file():
        return str(file.absolute())
    known = adapter_names()
    near = difflib.get_close_matches(path, known, n=1, cutoff=0)
    said = f"nearest is {near[0]!r}" if near else "it has none yet"
    raise SpecError(
        f"{path!r} is no adapter of the library {folder} (RAYREEL_ADAPTERS names another); {said}. "
        f"A file of that name is written with its folder or ending, such as ./{path}"
    )


def checked_name(name: str) -> str:
    """A name that an adapter can have in the library; raises ``SpecError`` for others."""
    if not is_name(name):
        raise SpecError(
            f"adapter name {name!r}: expected 1 to 100 letters, digits, '-' and '_', such as "
            f"{re.sub(r'[^A-Za-z0-9_-]+', '-', name).strip('-')[:100] or 'style'!r}"
        )
    return name


def add_adapter(name: str, source: Path) -> Path:
    """Copy an adapter's file into the library; one of the same name is replaced as a whole.

    Args:
        name: That specs will say.
        source: The file.

    Returns:
        Its place in the library.

    Raises:
        SpecError: If the name cannot be one, or the library cannot be written.
    """
    target = library_folder() / f"{checked_name(name)}{_SUFFIX}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".adding-", dir=target.parent) as temporary:
            staged = Path(temporary) / target.name
            shutil.copyfile(source, staged)
            staged.replace(target)
    except OSError as error:
        raise SpecError(
            f"cannot write {target}: {error.strerror}; RAYREEL_ADAPTERS names another library"
        ) from error
    return target
