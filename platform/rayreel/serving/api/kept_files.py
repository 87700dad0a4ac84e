"""Files of a request in the service directory: how jobs remember them, and hand them on."""

import shutil
from collections.abc import Callable, Mapping
from typing import Any

from rayreel.data.storage import Storage
from rayreel.errors import MediaError
from rayreel.media.files import open_file
from rayreel.serving.api.errors import ApiError
from rayreel.serving.gate.files import UPLOADS

# Keys of a request whose values are files.
_FILE_KEYS = frozenset({"path", "mask"})


def relative(storage: Storage, job_id: str, placed: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a request with files by their names in the service directory."""
    start = storage.join(f"{UPLOADS}/{job_id}") + "/"

    def shorten(path: str) -> str:
        if not path.startswith(start):
            return path
        return f"{UPLOADS}/{job_id}/{path.removeprefix(start)}"

    return {name: _mapped(value, shorten, name) for name, value in placed.items()}


def copy_files(
    storage: Storage, source_id: str, job_id: str, fields: Mapping[str, Any]
) -> dict[str, Any]:
    """Give a job copies of the files of another one, as each is removed with its own.

    Args:
        storage: The service directory.
        source_id: The other job.
        job_id: The job.
        fields: Of the other's request, as ``relative`` says them.

    Returns:
        The fields with absolute paths of the copies.

    Raises:
        ApiError: If a file is not there any more.
    """
    start = f"{UPLOADS}/{source_id}/"

    def copy(path: str) -> str:
        if not path.startswith(start):
            return path
        name = f"{UPLOADS}/{job_id}/{path.removeprefix(start)}"
        try:
            with (
                open_file(storage.join(path)) as kept,
                storage.local_staging(name) as staged,
                staged.open("wb") as target,
            ):
                shutil.copyfileobj(kept, target)
        except MediaError as error:
            raise ApiError(
                404,
                f"the files of {source_id} are gone; expected a job whose files are kept",
                code="files_gone",
            ) from error
        return storage.join(name)

    return {name: _mapped(value, copy, name) for name, value in fields.items()}


def _mapped(value: Any, change: Callable[[str], str], key: str = "") -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, Mapping):
        return {name: _mapped(inner, change, name) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_mapped(inner, change, key) for inner in value]
    return change(value) if key in _FILE_KEYS and isinstance(value, str) else value
