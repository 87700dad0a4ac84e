"""Many clients in one process: jobs of several shapes, sent to a service and followed to the end.

Bounded in count and time: what is not done when the time is over is cancelled.
"""

import asyncio
import itertools
import logging
import random
import secrets
import time
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import suppress
from json import loads
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx
from pydantic import Field, JsonValue

from rayreel.config.base import StrictModel
from rayreel.errors import SpecError
from rayreel.serving.loadtest_results import End, Outcome
from rayreel.serving.loopback import is_loopback

_ENDS: Mapping[str, End] = {"completed": "done", "failed": "failed", "cancelled": "cancelled"}
# Names of events that say where a job stands, as the statuses that they stand for.
_STATUSES = {
    "queued": "queued",
    "running": "in_progress",
    "done": "completed",
    "failed": "failed",
    "cancelled": "cancelled",
}
_TIMEOUT = httpx.Timeout(30.0, pool=None)
# A service says something every quarter of a minute, be it a comment.
_SILENCE_S = 60.0
_FIRST_PAUSE_S, _MOST_PAUSE_S = 0.2, 5.0
# So that those who are told the same time do not all come at once.
_SPREAD = 0.1
_CANCEL_S = 5.0

log = logging.getLogger(__name__)


class MixEntry(StrictModel):
    """One kind of job."""

    name: str = Field(description="in the report")
    weight: float = Field(default=1.0, gt=0, description="how often it is taken, of all weights")
    request: dict[str, JsonValue] = Field(description="body of POST /v1/videos")


def _small(name: str, size: str, frames: int, weight: float) -> MixEntry:
    request: dict[str, JsonValue] = {"prompt": "a fox", "size": size, "num_frames": frames}
    return MixEntry(name=name, weight=weight, request=request)


class LoadSpec(StrictModel):
    """How a service is tested."""

    jobs: int = Field(default=20, ge=1, le=100_000, description="how many jobs are sent")
    rate: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="jobs that are sent per second; all at once by default",
    )
    limit_s: float = Field(
        default=600.0,
        gt=0,
        allow_inf_nan=False,
        description="when the test is over; jobs that are left then are cancelled",
    )
    follow: Literal["poll", "events"] = Field(
        default="poll",
        description="whether clients ask again and again, or keep a connection each for events",
    )
    poll_s: float = Field(
        default=0.5, gt=0, allow_inf_nan=False, description="seconds between two questions"
    )
    connections: int = Field(
        default=64, ge=1, description="most requests at a time, without those for events"
    )
    seed: int = Field(default=0, description="of the order of shapes")
    mix: tuple[MixEntry, ...] = Field(
        default=(
            _small("short", "128x128", 9, 6),
            _small("wide", "256x128", 9, 3),
            _small("long", "128x128", 33, 1),
        ),
        min_length=1,
        description="kinds of jobs; by default small ones, for the tiny model",
    )


def check_target(url: str, *, allow_remote: bool = False) -> None:
    """Refuse to test a service by accident.

    Args:
        url: Of the service.
        allow_remote: Whether it may be on another machine than this one.

    Raises:
        SpecError: If it is no http address, or not on the loopback and that is not allowed.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise SpecError(f"{url}: expected the address of a service, such as http://127.0.0.1:8000")
    if not allow_remote and not is_loopback(parts.hostname):
        raise SpecError(
            f"{parts.hostname} is not this machine; a load test of another one needs "
            "--allow-remote, and should be agreed on with whoever runs it"
        )


async def run_load(
    url: str, spec: LoadSpec, *, key: str | None = None, allow_remote: bool = False
) -> list[Outcome]:
    """Send jobs to a service, and follow them.

    Args:
        url: Of the service.
        spec: What is sent, and how.
        key: API key.
        allow_remote: Whether the service may be on another machine.

    Returns:
        What became of each job, in the order in which they were sent.

    Raises:
        SpecError: As ``check_target`` does.
    """
    check_target(url, allow_remote=allow_remote)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    limits = httpx.Limits(max_connections=spec.connections)
    unlimited = httpx.Limits(max_connections=None)
    waiting = httpx.Timeout(30.0, read=_SILENCE_S)
    # A proxy of the environment would be what is tested.
    async with (
        httpx.AsyncClient(
            base_url=url, headers=headers, limits=limits, timeout=_TIMEOUT, trust_env=False
        ) as http,
        httpx.AsyncClient(
            base_url=url, headers=headers, limits=unlimited, timeout=waiting, trust_env=False
        ) as streams,
    ):
        test = _LoadTest(spec, http, streams)
        return list(await asyncio.gather(*(test.job(index) for index in range(spec.jobs))))


class _LoadTest:
    """What all jobs of a test share."""

    def __init__(self, spec: LoadSpec, http: httpx.AsyncClient, streams: httpx.AsyncClient) -> None:
        self._spec, self._http, self._streams = spec, http, streams
        self._random = random.Random(spec.seed)
        weights = [entry.weight for entry in spec.mix]
        self._entries = self._random.choices(spec.mix, weights, k=spec.jobs)
        self._keys = secrets.token_hex(8)
        self._start = time.monotonic()

    async def job(self, index: int) -> Outcome:
        """One job from beginning to end."""
        entry = self._entries[index]
        outcome = Outcome(index=index, shape=entry.name)
        try:
            async with asyncio.timeout(self._spec.limit_s - self._now()):
                if self._spec.rate:
                    await asyncio.sleep(index / self._spec.rate - self._now())
                await self._submit(outcome, entry)
                if outcome.job_id:
                    await (self._events if self._spec.follow == "events" else self._poll)(outcome)
        except TimeoutError:
            if outcome.job_id:
                await self._cancel(outcome)
            else:
                outcome.end = "refused"
                outcome.message = outcome.message or "not accepted while the test went on"
        return outcome

    async def _submit(self, outcome: Outcome, entry: MixEntry) -> None:
        outcome.asked_at = self._now()
        # The same key at each try: a job whose answer was lost must not run twice.
        headers = {"Idempotency-Key": f"loadtest-{self._keys}-{outcome.index}"}
        response = await self._ask(
            outcome, "POST", "/v1/videos", json=entry.request, headers=headers
        )
        if response.is_error:
            outcome.end, outcome.message = "refused", _said(response)
            return
        try:
            video = response.json()
        except ValueError as error:
            raise SpecError(
                f"{response.url}: expected the API of a service, got no JSON"
            ) from error
        outcome.job_id, outcome.accepted_at = video["id"], self._now()
        outcome.answer_s = response.elapsed.total_seconds()
        outcome.eta_s = video.get("eta_s")
        self._saw(outcome, video)

    async def _poll(self, outcome: Outcome) -> None:
        while outcome.ended_at is None:
            await asyncio.sleep(self._spec.poll_s)
            response = await self._ask(outcome, "GET", f"/v1/videos/{outcome.job_id}")
            if response.is_error:
                self._lost(outcome, response)
            else:
                self._saw(outcome, response.json())

    async def _events(self, outcome: Outcome) -> None:
        for pause in _pauses():
            # The service may go away with a job half done, and come back.
            with suppress(httpx.TransportError):
                await self._read_events(outcome)
            if outcome.ended_at is not None:
                return
            outcome.errors += 1
            await asyncio.sleep(pause)

    async def _read_events(self, outcome: Outcome) -> None:
        path = f"/v1/videos/{outcome.job_id}/events"
        async with self._streams.stream("GET", path) as response:
            if response.is_error:
                await response.aread()
                if not _comes_back(response):
                    self._lost(outcome, response)
                return
            async for name, data in events(response.aiter_lines()):
                if outcome.first_event_s is None and outcome.accepted_at is not None:
                    outcome.first_event_s = self._now() - outcome.accepted_at
                if name in _STATUSES:
                    self._saw(outcome, {**data, "status": _STATUSES[name]})

    def _saw(self, outcome: Outcome, video: Mapping[str, Any]) -> None:
        status, position = video["status"], video.get("position")
        if status != "queued" and outcome.started_at is None:
            outcome.started_at = self._now()
        # Only of the first wait: who is tried again takes the place that they had.
        if position is not None and outcome.started_at is None:
            outcome.positions.extend([position] if outcome.positions[-1:] != [position] else [])
        if status in _ENDS and outcome.ended_at is None:
            outcome.end, outcome.ended_at = _ENDS[status], self._now()
            outcome.message = (video.get("error") or {}).get("message", "")

    def _lost(self, outcome: Outcome, response: httpx.Response) -> None:
        """The service does not know a job that it has accepted."""
        outcome.end, outcome.ended_at, outcome.message = "failed", self._now(), _said(response)

    async def _ask(
        self,
        outcome: Outcome,
        method: str,
        path: str,
        *,
        json: Mapping[str, JsonValue] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """The answer of the service, once it has one; waits when it is told to."""
        for pause in _pauses():
            wait = pause
            try:
                response = await self._http.request(method, path, json=json, headers=headers)
            except httpx.TransportError as error:
                outcome.errors += 1
                outcome.message = f"{type(error).__name__}: {error}"
            else:
                if not _comes_back(response):
                    return response
                outcome.too_many += response.status_code == 429
                outcome.errors += response.status_code >= 500
                outcome.message = _said(response)
                wait = _retry_after(response, pause)
            await asyncio.sleep(wait * (1 + _SPREAD * self._random.random()))
        raise AssertionError("pauses do not end")

    async def _cancel(self, outcome: Outcome) -> None:
        try:
            path = f"/v1/videos/{outcome.job_id}/cancel"
            await self._http.post(path, timeout=httpx.Timeout(_CANCEL_S))
        except httpx.TransportError as error:
            log.warning("%s could not be cancelled: %s", outcome.job_id, type(error).__name__)

    def _now(self) -> float:
        return time.monotonic() - self._start


async def events(lines: AsyncIterable[str]) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Server-sent events whose data are JSON objects.

    Args:
        lines: Of the stream, without their ends.

    Yields:
        Names and data. What is cut off in the middle is none.
    """
    name, data = "message", ""
    async for line in lines:
        key, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                yield name, loads(data)
            name, data = "message", ""
        elif key == "event":
            name = value
        elif key == "data":
            data = f"{data}\n{value}" if data else value


def _comes_back(response: httpx.Response) -> bool:
    """Whether the same request may be answered otherwise later."""
    return response.status_code == 429 or response.status_code >= 500


def _retry_after(response: httpx.Response, otherwise: float) -> float:
    """Seconds that the service asks to wait for; it may also say a date, which ours does not."""
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isdecimal() else otherwise


def _pauses() -> itertools.chain[float]:
    growing = (_FIRST_PAUSE_S * 2.0**n for n in range(5))
    return itertools.chain(growing, itertools.repeat(_MOST_PAUSE_S))


def _said(response: httpx.Response) -> str:
    """Status and message of an error."""
    with suppress(ValueError, KeyError, TypeError):
        return f"{response.status_code}: {response.json()['error']['message']}"
    return f"{response.status_code}: {response.text[:200]}"
