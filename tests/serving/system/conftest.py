"""Services on the run-wide cluster, as Ray Serve runs them, with the tiny model."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from rayreel.config.serving import ServeSpec
from rayreel.data.ledger import Ledger
from rayreel.data.storage import Storage
from rayreel.serving.jobs import Job
from rayreel.serving.store import JobStore
from tests.cluster.nodes import wait
from tests.serving.page.conftest import browser, complaints, context, free_port
from tests.serving.system.clients import ENDS

__all__ = ["browser", "complaints", "context"]

SMALL = {"width": 128, "height": 64, "num_frames": 9, "steps": 2}
# Many times what it takes, since other work may go on beside it.
PATIENCE_S = 240.0
_POLL_S = 0.02


@dataclass
class Running:
    """A service that runs.

    Attributes:
        url: Where it answers.
        spec: What it was made from.
        headers: That requests need.
    """

    url: str
    spec: ServeSpec
    headers: dict[str, str] = field(default_factory=dict)

    def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        """An answer, whatever it is."""
        return httpx.request(
            method, f"{self.url}{path}", headers=self.headers, timeout=PATIENCE_S, **options
        )

    def ask(self, prompt: str = "A fox in the snow.", **fields: Any) -> str:
        """Ask for a clip; the id of its job."""
        answer = self.call("POST", "/v1/videos", json={"prompt": prompt, **fields})
        assert answer.is_success, answer.text
        return str(answer.json()["id"])

    def job(self, job_id: str) -> dict[str, Any]:
        """How a job stands."""
        found: dict[str, Any] = self.call("GET", f"/v1/videos/{job_id}").json()
        return found

    def until(self, job_id: str, done: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait for something of a job, which may not end before."""
        end = time.monotonic() + PATIENCE_S
        while not done(job := self.job(job_id)):
            assert job["status"] not in ENDS, job
            assert time.monotonic() < end, job
            time.sleep(_POLL_S)
        return job

    def ended(self, job_id: str) -> dict[str, Any]:
        """Wait until a job has ended."""
        return self.until(job_id, lambda job: job["status"] in ENDS)

    def made(self, **fields: Any) -> dict[str, Any]:
        """Ask for a clip, and wait until it is done."""
        job = self.ended(self.ask(**fields))
        assert job["status"] == "completed", job
        return job

    def cancel(self, job_id: str) -> None:
        """Ask a job to stop."""
        assert self.call("POST", f"/v1/videos/{job_id}/cancel").is_success

    def frames(self, job_id: str) -> str | None:
        """Hash of a clip's frames, as the ledger has it."""
        entry = Ledger(Storage(self.spec.output)).find(job_id)
        return entry.sha256 if entry else None

    def stored(self, job_id: str) -> Job:
        """A job as the database has it."""
        with closing(JobStore(self.spec.database_url)) as store:
            job = store.get(job_id)
        assert job is not None, job_id
        return job

    def started_at(self, job_id: str) -> float:
        """When a job's work began."""
        started_at = self.stored(job_id).started_at
        assert started_at is not None, job_id
        return started_at

    def models(self) -> list[dict[str, Any]]:
        """Itself and its adapters."""
        return list(self.call("GET", "/v1/models").json()["data"])

    def pools(self) -> dict[str, Any]:
        """What it says of its pools."""
        found: dict[str, Any] = self.call("GET", "/readyz").json().get("pools", {})
        return found

    def wait_until_ready(self) -> None:
        """Wait until jobs are worked on."""
        wait(lambda: self.call("GET", "/readyz").is_success, f"{self.spec.name}", PATIENCE_S)


Start = Callable[..., Running]


@pytest.fixture(scope="package")
def start(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts services, or starts them again, until all tests are done."""
    from ray import serve  # noqa: PLC0415 - as in tests/conftest.py
    from ray.serve.config import HTTPOptions, ProxyLocation  # noqa: PLC0415
    from ray.serve.schema import LoggingConfig  # noqa: PLC0415

    from rayreel.serving.app import app  # noqa: PLC0415

    port = free_port()
    serve.start(
        proxy_location=ProxyLocation.HeadOnly,
        http_options=HTTPOptions(host="127.0.0.1", port=port),
        logging_config=LoggingConfig(log_level="WARNING", enable_access_log=False),
    )

    def start(name: str, prefix: str, output: Path | None = None, **fields: Any) -> Running:
        values = {"model": "tiny", "workers": {"cpus": 0.1}, "defaults": SMALL, **fields}
        output = output or tmp_path_factory.mktemp(name)
        spec = ServeSpec.model_validate({"name": name, "output": str(output), **values})
        serve.run(app(spec), name=name, route_prefix=prefix)
        running = Running(f"http://127.0.0.1:{port}{prefix.rstrip('/')}", spec)
        running.wait_until_ready()
        return running

    yield start
    serve.shutdown()


@pytest.fixture
def ray_logs(ray_cluster: None) -> Path:
    """Where all processes of the cluster write their logs."""
    import ray  # noqa: PLC0415 - as in tests/conftest.py

    node = ray._private.worker._global_node
    assert node is not None
    return Path(node.get_logs_dir_path())


@pytest.fixture(scope="package")
def service(start: Start) -> Running:
    """Stages in pools of their own; no key is needed."""
    return start("rayreel", "/", placement="split")


@pytest.fixture(scope="package")
def other(start: Start) -> Running:
    """All stages in one pool, which sleeps soon; needs keys, and stops soon."""
    made = start(
        "other", "/other", placement="fused", auth="keys", drain_s=1, scaling={"idle_s": 1}
    )
    with_key(made, "alice")
    return made


def with_key(running: Running, name: str) -> str:
    """Give a service's requests a key of this name; the key."""
    with closing(JobStore(running.spec.database_url)) as store:
        _, secret = store.add_key(name)
    running.headers["Authorization"] = f"Bearer {secret}"
    return secret
