"""A service behind a client in the same process."""

import pytest
from starlette.testclient import TestClient

from rayreel.serving.api import create_api
from tests.serving.api.harness import make_clip, make_service


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("clips"))


@pytest.fixture
def parts(tmp_path, clip, monkeypatch):
    monkeypatch.setenv("RAYREEL_ADAPTERS", str(tmp_path / "adapters"))
    service, worker = make_service(tmp_path / "serve", clip)
    yield service, worker
    service.store.close()


@pytest.fixture
def service(parts):
    return parts[0]


@pytest.fixture
def worker(parts):
    return parts[1]


@pytest.fixture
def client(service):
    with TestClient(create_api(service), base_url="http://localhost") as client:
        yield client


@pytest.fixture
def make(client):
    """Asks for a small clip."""

    def make(**fields):
        body = {"prompt": "a cat", "width": 64, "height": 64, "num_frames": 9} | fields
        answer = client.post("/v1/videos", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    return make
