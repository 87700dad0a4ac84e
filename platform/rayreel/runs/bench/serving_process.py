"""A service in processes of its own, and a client of it that takes the time."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import yaml

from rayreel.config.request import RenderRequest
from rayreel.data.ledger import Ledger
from rayreel.data.storage import Storage

_READY_S = 240.0
_STOP_S = 60.0
_JOB_S = 300.0
# Questions take time from the work.
_LOOK_S = 0.5
# Requests at a time, as of a few clients that are quick.
_CLIENTS = 8


@dataclass(frozen=True)
class JobTimes:
    """What a client saw of one job, in seconds.

    Attributes:
        answer: Of the request for it.
        first_event: From that answer until the first event came.
        running: From the request until it was told that the job runs.
        whole: From the request until it was told that the job is done.
        stages: What its stages took, by the ledger.
    """

    answer: float
    first_event: float
    running: float
    whole: float
    stages: float


class Service:
    """A service that runs, as its only client sees it."""

    def __init__(self, url: str, output: Path) -> None:
        """Connect.

        Args:
            url: Where it answers.
            output: The service directory.
        """
        self._ledger = Ledger(Storage(output))
        # A proxy of the environment would be part of what is timed.
        self._http = httpx.Client(base_url=url, timeout=_JOB_S, trust_env=False)

    def close(self) -> None:
        """Disconnect."""
        self._http.close()

    def one(self, request: RenderRequest) -> JobTimes:
        """Ask for a clip, and follow its events until it is done.

        Raises:
            RuntimeError: If it comes to another end.
        """
        asked = time.perf_counter()
        job_id = self._post(request)
        answered = time.perf_counter()
        seen: dict[str, float] = {}
        with self._http.stream("GET", f"/v1/videos/{job_id}/events") as response:
            for line in response.iter_lines():
                if line.startswith("event: "):
                    seen.setdefault(line.removeprefix("event: "), time.perf_counter())
        if "done" not in seen:
            raise RuntimeError(f"a comparison needs all clips: {job_id} had events {[*seen]}")
        entry = self._ledger.find(job_id)
        assert entry is not None, "its line is written before it is done"
        return JobTimes(
            answer=answered - asked,
            first_event=min(seen.values()) - answered,
            running=seen.get("running", seen["done"]) - asked,
            whole=seen["done"] - asked,
            stages=sum(entry.seconds.values()),
        )

    def burst(self, requests: Sequence[RenderRequest]) -> float:
        """Ask for clips as fast as it goes.

        Returns:
            Seconds of one clip, when the time from the first request until the last file is there
            is shared.

        Raises:
            RuntimeError: If one is not done.
        """
        start = time.time()
        with ThreadPoolExecutor(_CLIENTS) as clients:
            wanted = [*clients.map(self._post, requests)]
        while self._works():
            time.sleep(_LOOK_S)
        found = [self._ledger.find(job_id) for job_id in wanted]
        ends = [entry.finished_at.timestamp() for entry in found if entry is not None]
        if len(ends) < len(wanted):
            raise RuntimeError(
                f"a comparison needs all clips; {len(wanted) - len(ends)} are not done"
            )
        return (max(ends) - start) / len(requests)

    def _post(self, request: RenderRequest) -> str:
        body = request.model_dump(mode="json", exclude_unset=True)
        return str(_checked(self._http.post("/v1/videos", json=body)).json()["id"])

    def _works(self) -> bool:
        query: dict[str, int | list[str]] = {"limit": 1, "status": ["queued", "in_progress"]}
        return bool(_checked(self._http.get("/v1/videos", params=query)).json()["data"])


@contextmanager
def running_service(spec: Mapping[str, Any]) -> Iterator[Service]:
    """A service with a cluster of its own, both ended afterwards.

    Args:
        spec: Of the service, without its output.

    Raises:
        RuntimeError: If it does not start.
    """
    # Sockets lie in it, whose paths must be short.
    with TemporaryDirectory(dir="/tmp", prefix="rb", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        output, log, port = folder / "service", folder / "log", _free_port()
        written = folder / "service.yaml"
        written.write_text(yaml.safe_dump(dict(spec)), "utf-8")
        command = [str(Path(sys.executable).with_name("rayreel")), "serve", str(written)]
        command += ["-o", str(output), "--port", str(port)]
        environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
        environment["RAY_TMPDIR"] = name
        with log.open("wb") as file:
            process = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(process, url, log)
            service = Service(url, output)
            try:
                yield service
            finally:
                service.close()
        finally:
            _end(process)


def _wait(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    """Until jobs are accepted and worked on."""
    until = time.monotonic() + _READY_S
    while True:
        with suppress(httpx.TransportError):
            if httpx.get(f"{url}/readyz", trust_env=False, timeout=5).is_success:
                return
        if process.poll() is not None or time.monotonic() > until:
            said = json.dumps(log.read_text("utf-8", "replace")[-1000:])
            raise RuntimeError(f"the service does not get ready: {said}")
        time.sleep(0.2)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _checked(response: httpx.Response) -> httpx.Response:
    if response.is_error:
        raise RuntimeError(f"{response.url}: {response.status_code} {response.text[:300]}")
    return response


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
