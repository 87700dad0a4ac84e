"""A load test sends what it is told to, loses no job, and reports what clients saw."""

import asyncio
import json
import socket
import threading
import time
from contextlib import contextmanager

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route
from typer.testing import CliRunner

from rayreel.cli import app
from rayreel.config.load import parse
from rayreel.errors import SpecError
from rayreel.serving.loadtest import LoadSpec, check_target, events, run_load
from rayreel.serving.loadtest_results import LoadReport, Outcome, Spread
from tests.ports import server_ports
from tests.serving.demo_service import demo_service

TOO_MANY = JSONResponse({"error": {"message": "40 jobs wait"}}, 429, {"Retry-After": "0"})
BAD = JSONResponse({"error": {"message": "size is no size"}}, 400)


class FakeService:
    """Works on one job at a time, a moment each.

    Attributes:
        answers: To the next requests for jobs, in place of accepting them.
        asked: Bodies of all requests for jobs.
        keys: Their idempotency keys.
        jobs: When each accepted job will be done.
        cancelled: Jobs that were cancelled.
        job_s: What a job takes.
    """

    def __init__(self):
        self.answers, self.asked, self.keys, self.cancelled = [], [], [], []
        self.jobs: dict[str, float] = {}
        self.job_s = 0.05
        self.application = Starlette(
            routes=[
                Route("/v1/videos", self.create, methods=["POST"]),
                Route("/v1/videos/{name}", self.get),
                Route("/v1/videos/{name}/events", self.events),
                Route("/v1/videos/{name}/cancel", self.cancel, methods=["POST"]),
            ]
        )

    def video(self, name):
        left = self.jobs[name] - time.monotonic()
        if left > self.job_s:
            position = int(left / self.job_s) - 1
            return {"id": name, "status": "queued", "position": position, "eta_s": left}
        return {"id": name, "status": "completed" if left < 0 else "in_progress"}

    async def create(self, request):
        self.asked.append(await request.json())
        self.keys.append(request.headers["Idempotency-Key"])
        if self.answers:
            return self.answers.pop(0)
        name = f"video_{len(self.jobs)}"
        after = max([time.monotonic(), *self.jobs.values()])
        self.jobs[name] = after + self.job_s
        return JSONResponse(self.video(name))

    async def get(self, request):
        return JSONResponse(self.video(request.path_params["name"]))

    async def cancel(self, request):
        self.cancelled.append(request.path_params["name"])
        return JSONResponse({})

    async def events(self, request):
        return StreamingResponse(self.lines(request.path_params["name"]))

    async def lines(self, name):
        names = {"queued": "queued", "in_progress": "running", "completed": "done"}
        while True:
            video = self.video(name)
            yield f": still here\r\n\r\nid: 1\r\nevent: {names[video['status']]}\r\n"
            yield f"data: {json.dumps(video)}\r\n\r\n"
            if video["status"] == "completed":
                return
            await asyncio.sleep(0.02)


@contextmanager
def running(application, after_s=0.0):
    """Serve an application on the loopback; the connections are refused for a while."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(application, log_level="error"))
        thread = threading.Timer(after_s, server.run, [[bound]])
        thread.start()
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def service():
    """Address of a service, and the service."""
    fake = FakeService()
    with running(fake.application) as url:
        yield url, fake


def load(url, **fields):
    spec = LoadSpec(**{"poll_s": 0.02, "limit_s": 20, **fields})
    return asyncio.run(run_load(url, spec))


@pytest.mark.parametrize("follow", ["poll", "events"])
def test_every_job_is_followed_to_its_end(service, follow):
    url, fake = service
    fake.job_s = 0.1
    outcomes = load(url, jobs=6, follow=follow)
    assert [one.end for one in outcomes] == ["done"] * 6
    assert len({one.job_id for one in outcomes} & {*fake.jobs}) == 6
    last = max(outcomes, key=lambda one: one.total_s)
    assert last.positions == sorted(last.positions, reverse=True)
    assert last.positions[0] >= 2
    assert 0 < last.wait_s < last.total_s < 5
    assert [one.first_event_s is not None for one in outcomes] == [follow == "events"] * 6


def test_shapes_come_as_often_as_their_weights_say_and_in_the_same_order_each_time(service):
    url, fake = service
    fake.job_s = 0.001
    mix = [{"name": n, "weight": w, "request": {"prompt": n}} for n, w in (("a", 3), ("b", 1))]
    first, again = (load(url, jobs=40, mix=mix, connections=8) for _ in range(2))
    assert [one.shape for one in first] == [one.shape for one in again]
    assert 20 < sum(one.shape == "a" for one in first) < 40
    asked = sorted(body["prompt"] for body in fake.asked[:40])
    assert asked == sorted(one.shape for one in first)


def test_jobs_are_sent_at_the_rate_that_is_asked_for(service):
    outcomes = load(service[0], jobs=5, rate=10)
    late = [one.asked_at - one.index / 10 for one in outcomes]
    assert min(late) >= 0
    assert max(late) < 0.5


def test_a_full_queue_is_tried_again_with_the_same_key(service):
    url, fake = service
    fake.answers = [TOO_MANY, TOO_MANY]
    (outcome,) = load(url, jobs=1)
    assert (outcome.end, outcome.too_many) == ("done", 2)
    assert len(fake.keys) == 3
    assert len({*fake.keys}) == 1


def test_the_time_that_a_full_queue_asks_for_is_waited(service):
    url, fake = service
    fake.answers = [JSONResponse({}, 429, {"Retry-After": "1"})]
    (outcome,) = load(url, jobs=1)
    assert 1 < outcome.accepted_at < 5


def test_a_request_that_is_wrong_is_not_tried_again(service):
    url, fake = service
    fake.answers = [BAD]
    first, second = load(url, jobs=2)
    ends = {first.end: first, second.end: second}
    assert ends["refused"].message == "400: size is no size"
    assert ends["done"].job_id
    assert len(fake.asked) == 2


def test_what_is_left_when_the_time_is_over_is_cancelled(service):
    url, fake = service
    fake.job_s = 60
    start = time.monotonic()
    outcomes = load(url, jobs=2, limit_s=0.5)
    assert time.monotonic() - start < 5
    assert [one.end for one in outcomes] == ["unfinished"] * 2
    assert sorted(fake.cancelled) == ["video_0", "video_1"]


def test_a_service_that_never_accepts_is_given_up(service):
    url, fake = service
    fake.answers = [TOO_MANY] * 1000
    (outcome,) = load(url, jobs=1, limit_s=0.3)
    assert (outcome.end, outcome.message) == ("refused", "429: 40 jobs wait")


def test_a_service_that_comes_back_is_gone_on_with():
    with running(FakeService().application, after_s=0.5) as url:
        (outcome,) = load(url, jobs=1)
    assert outcome.end == "done"
    assert outcome.errors > 0


@pytest.mark.parametrize("follow", ["poll", "events"])
def test_the_api_is_spoken_as_it_is(tmp_path, follow):
    with demo_service(tmp_path, server_ports()[380], step_s=0.01) as demo:
        outcomes = load(demo.url, jobs=3, follow=follow, limit_s=60)
    assert [(one.end, one.errors) for one in outcomes] == [("done", 0)] * 3
    assert max(place for one in outcomes for place in one.positions) > 0
    assert all(one.eta_s for one in outcomes)


def test_what_is_no_service_is_said():
    async def page(scope, receive, send):
        await StreamingResponse(iter(["<html>"]))(scope, receive, send)

    with running(page) as url, pytest.raises(SpecError, match="expected the API of a service"):
        load(url, jobs=1)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com",
        "http://10.0.0.1:8000",
        "http://127.0.0.1@example.com/",
        "http://127.0.0.1.example.com",
        "http://[2001:db8::1]:8000",
    ],
)
def test_other_machines_are_refused_unless_that_is_asked_for(url):
    with pytest.raises(SpecError, match="--allow-remote"):
        check_target(url)
    check_target(url, allow_remote=True)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000", "http://localhost:1", "http://[::1]:8"])
def test_this_machine_is_tested_without_asking(url):
    check_target(url)


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://localhost/", "http://", "runs/serve"])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(SpecError, match="such as http://127"):
        check_target(url, allow_remote=True)


def test_events_are_read_as_the_standard_says():
    async def read():
        async def lines():
            for line in [": hello", "", "event: a", 'data: {"x":', "data: 1}", "", "event: cut"]:
                yield line

        return [event async for event in events(lines())]

    assert asyncio.run(read()) == [("a", {"x": 1})]


def test_the_report_says_what_the_jobs_say_together():
    done = [
        Outcome(
            index=i,
            shape="a",
            end="done",
            accepted_at=0.0,
            started_at=float(i),
            ended_at=i + 1.0,
            eta_s=2.0 * (i + 1),
            positions=[i, i + 1],
        )
        for i in range(20)
    ]
    refused = Outcome(index=20, shape="b", end="refused", too_many=3, errors=1)
    report = LoadReport.of([*done, refused])
    assert report.spreads["total"] == Spread(count=20, p50=10, p95=19, most=20)
    assert report.spreads["eta ratio"].most == 0.5
    assert "total b" not in report.spreads
    assert (report.accepted, report.too_many, report.errors) == (20, 3, 1)
    assert (report.highest, report.rose, report.seconds) == (20, 20, 20)
    table = report.table()
    assert "21 jobs in 20.0 s, 60.0 done a minute" in table
    assert "accepted 20; done 20, failed 0, cancelled 0, refused 1, unfinished 0" in table


def test_positions_that_only_fall_do_not_rise():
    assert not Outcome(index=0, shape="a", positions=[5, 3, 0]).rose
    assert Outcome(index=0, shape="a", positions=[5, 3, 4]).rose


def test_a_mix_without_jobs_is_refused():
    with pytest.raises(SpecError, match="mix"):
        parse({"mix": []}, LoadSpec, where="mix.yaml")


def test_the_command_prints_a_table_and_writes_lines(service, tmp_path):
    url, fake = service
    fake.answers = [BAD]
    file = tmp_path / "jobs.jsonl"
    settings = ["--set", "jobs=3", "--set", "poll_s=0.02", "-o", str(file)]
    result = CliRunner().invoke(app, ["loadtest", url, *settings])
    assert result.exit_code == 1
    assert "accepted 2; done 2" in result.stdout
    assert "- 400: size is no size" in result.stdout
    lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert sorted(line["end"] for line in lines) == ["done", "done", "refused"]
    assert {line["rose"] for line in lines} == {False}


def test_the_command_refuses_other_machines():
    result = CliRunner().invoke(app, ["loadtest", "http://example.com"])
    assert result.exit_code == 2
    assert "--allow-remote" in result.stderr


def test_the_key_of_the_environment_is_sent(monkeypatch):
    seen = []

    async def refuse(request):
        seen.append(request.headers.get("Authorization"))
        return JSONResponse({"error": {"message": "no"}}, 401)

    monkeypatch.setenv("RAYREEL_API_KEY", "rr_secret")
    routes = [Route("/v1/videos", refuse, methods=["POST"])]
    with running(Starlette(routes=routes)) as url:
        result = CliRunner().invoke(app, ["loadtest", url, "--set", "jobs=1"])
    assert (result.exit_code, seen) == (1, ["Bearer rr_secret"])
    assert "rr_secret" not in result.stdout
