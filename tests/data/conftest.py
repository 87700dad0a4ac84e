"""A run directory of each kind."""

from uuid import uuid4

import pytest

from rayreel.data.storage import Storage


def _storage(kind, request) -> Storage:
    if kind == "s3":
        return Storage(f"{request.getfixturevalue('s3_server').url}/{uuid4().hex}")
    if kind == "memory":
        return Storage(f"memory://{uuid4().hex}")
    folder = request.getfixturevalue("tmp_path")
    return Storage(folder / ("run [1] *" if kind == "brackets" else "run"))


@pytest.fixture(params=["local", "brackets", "memory", "s3"])
def storage(request) -> Storage:
    return _storage(request.param, request)


@pytest.fixture(params=["memory", "s3"])
def object_store(request) -> Storage:
    return _storage(request.param, request)
