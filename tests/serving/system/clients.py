"""A client that sends jobs all the time, tries again until each is accepted, and follows them."""

import random
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.cluster.nodes import wait

ENDS = ("completed", "failed", "cancelled")

_OPEN = 4
_PAUSE_S = 0.2
_TIMEOUT_S = 10.0
# What a service that lost a part may answer; anything else is a fault.
_AWAY = (500, 502, 503)
# So does a proxy of Ray that is there before the service.
_NO_ROUTE = "/-/routes"


@dataclass
class Client:
    """Sends and follows jobs from a thread of its own.

    Attributes:
        url: Of the service.
        rng: What decides which requests are sent twice.
        seen: Ids that were answered for each idempotency key.
        jobs: Each accepted job as it was told last, by id.
        faults: What must not have been.
    """

    url: str
    rng: random.Random
    seen: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    @property
    def ended(self) -> list[str]:
        """Accepted jobs that came to an end."""
        return [name for name, job in [*self.jobs.items()] if job["status"] in ENDS]

    def send(self, key: str, body: dict[str, Any]) -> str:
        """Send a request until it is accepted; returns the job's id."""
        answers: list[dict[str, Any]] = []

        def accepted() -> bool:
            job = self._call("POST", "/v1/videos", json=body, headers={"Idempotency-Key": key})
            answers.extend([job] if job else [])
            return bool(job)

        # Also after the answer, as a client does that has not got it.
        for _ in range(1 + (self.rng.random() < 0.5)):
            wait(accepted, f"{key} to be accepted", 240, _PAUSE_S)
        self.seen[key] |= {job["id"] for job in answers}
        self.jobs.setdefault(answers[0]["id"], answers[0])
        return str(answers[0]["id"])

    def follow(self) -> None:
        """Look at all jobs once; one that has ended stays as it is."""
        for name, before in [*self.jobs.items()]:
            job = self._call("GET", f"/v1/videos/{name}")
            if job is None:
                continue
            ended = before["status"] in ENDS
            if ended and (job["status"], job["completed_at"]) != (
                before["status"],
                before["completed_at"],
            ):
                self.faults.append(f"{before} became {job}")
            self.jobs[name] = job

    def keep_sending(self, bodies: Iterator[tuple[str, dict[str, Any]]]) -> None:
        """Have some jobs open all the time, until it is stopped."""
        while not self._stop.is_set():
            try:
                if len(self.jobs) - len(self.ended) < _OPEN:
                    self.send(*next(bodies))
                self.follow()
            except Exception as error:  # noqa: BLE001 - of a thread, which nobody else sees
                self.faults.append(f"{type(error).__name__}: {error}")
                return
            self._stop.wait(_PAUSE_S)

    @contextmanager
    def load(self, bodies: Iterator[tuple[str, dict[str, Any]]]) -> Iterator[None]:
        """Jobs are sent meanwhile."""
        thread = threading.Thread(target=self.keep_sending, args=(bodies,))
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def wait_for_ends(self, timeout_s: float) -> None:
        """Wait until every accepted job has ended."""

        def over() -> bool:
            self.follow()
            return len(self.ended) == len(self.jobs)

        wait(over, f"an end of all jobs of {self.jobs}", timeout_s, _PAUSE_S)

    def _call(self, method: str, path: str, **options: Any) -> dict[str, Any] | None:
        """The answer, or ``None`` if the service is away."""
        try:
            answer = httpx.request(method, f"{self.url}{path}", timeout=_TIMEOUT_S, **options)
        except httpx.TransportError:
            return None
        if answer.status_code in _AWAY or _NO_ROUTE in answer.text:
            return None
        if not answer.is_success:
            self.faults.append(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
            return None
        found: dict[str, Any] = answer.json()
        return found
