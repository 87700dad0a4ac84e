"""Under which name a server knows a run: kept in its directory, so that it goes on there."""

import json
from collections.abc import Callable

from rayreel.data.storage import Storage


def kept_id(storage: Storage, service: str, make: Callable[[], str]) -> str:
    """Id of the run at a server; the first call makes it.

    Args:
        storage: The run directory.
        service: Name of the server, and of the file.
        make: Makes an id.

    Raises:
        StorageError: If the storage does not answer.
    """
    name = f"{service}.json"
    if not storage.exists(name):
        storage.write_bytes(name, json.dumps({"id": make()}).encode())
    return str(json.loads(storage.read_bytes(name))["id"])
