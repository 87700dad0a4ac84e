"""A job's trace holds its wait and its stages, and every line about it has its id."""

import json
import logging
from dataclasses import replace

import pytest

from rayreel.cluster.telemetry import Observer, Telemetry
from rayreel.config.request import RenderRequest
from rayreel.logs import LogSettings, setup_logging
from rayreel.serving.dispatch.settings import Event
from rayreel.serving.jobs import Job
from rayreel.serving.load import Load, PoolLoad
from rayreel.serving.store import Totals
from rayreel.serving.telemetry import ServiceTelemetry, shape_class
from rayreel.stages.base import StageItem, run_stage

CAME = 1_700_000_000.0


def request(**fields):
    return RenderRequest(prompt="a fox", pipeline="two_stage", seed=1, **fields)


def job(name="video_a", **fields):
    return Job(
        job_id=name,
        owner="",
        kind="video",
        request=request(),
        asked={},
        shape="two_stage",
        batch_key="",
        adapters="",
        cost_s=5.0,
        priority="normal",
        due=0.0,
        created_at=CAME,
        **fields,
    )


class Decode:
    """A stage that hands on what it gets."""

    name = "decode"
    loads = ("VideoDecoder",)

    def setup(self):
        pass

    def __call__(self, batch):
        return [*batch]


def work(service, folder, *job_ids):
    """An actor does a batch."""
    items = [StageItem(item_id=job_id) for job_id in job_ids]
    with Observer(Telemetry(service, folder)).batch(Decode(), items) as results:
        results.extend(run_stage(Decode(), items))


@pytest.fixture
def traces(tmp_path):
    """A folder for spans, and how to read them in the order in which they ended."""
    folder = tmp_path / "traces"

    def read():
        lines = [line for file in folder.glob("*.jsonl") for line in file.read_text().splitlines()]
        return sorted(map(json.loads, lines), key=lambda span: span["end_time"])

    return str(folder), read


@pytest.fixture
def lines(capsys):
    """Log lines as JSON."""
    root = logging.getLogger()
    level, handlers = root.level, [*root.handlers]
    setup_logging("INFO", json=True)
    yield lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    root.setLevel(level)
    root.handlers[:] = handlers


def test_the_wait_the_stages_and_the_whole_of_a_job_are_one_trace(traces):
    folder, read = traces
    service = ServiceTelemetry(Telemetry("films", folder))
    service.told(Event(what="taken", job=job(started_at=CAME + 3), at=CAME + 3))
    work("films", folder, "video_a")
    service.told(Event(what="done", job=job(started_at=CAME + 3), at=CAME + 9))
    service.close()
    spans = read()
    assert [span["name"] for span in spans] == ["queue", "decode", "item"]
    assert len({span["context"]["trace_id"] for span in spans}) == 1
    around = spans[2]["context"]["span_id"]
    assert [span["parent_id"] for span in spans] == [around, around, None]
    assert spans[0]["start_time"] == spans[2]["start_time"] == "2023-11-14T22:13:20.000000Z"


@pytest.mark.parametrize(
    ("what", "error", "told"),
    [("failed", "worker_lost", "worker_lost"), ("cancelled", "", "cancelled")],
)
def test_the_span_of_a_job_that_did_not_end_well_says_why(traces, what, error, told):
    folder, read = traces
    service = ServiceTelemetry(Telemetry("films", folder))
    service.told(Event(what=what, job=job(attempt=3), at=CAME + 9, error=error))
    (span,) = read()
    assert span["status"]["status_code"] == "ERROR"
    assert span["attributes"]["error.type"] == told
    assert span["attributes"]["rayreel.attempt"] == 3


def test_a_job_that_is_cancelled_in_the_queue_has_a_trace_too(traces):
    folder, read = traces
    ServiceTelemetry(Telemetry("films", folder)).cancelled(job(), CAME + 1)
    assert [span["attributes"]["error.type"] for span in read()] == ["cancelled"]


def test_another_try_has_no_second_span_of_the_wait(traces):
    folder, read = traces
    service = ServiceTelemetry(Telemetry("films", folder))
    for attempt in (1, 2):
        taken = job(attempt=attempt, started_at=CAME + attempt)
        service.told(Event(what="taken", job=taken, at=CAME + attempt))
        if attempt == 1:
            service.told(Event(what="released", job=taken, at=CAME + 1.5, error="worker_lost"))
    assert [span["name"] for span in read()] == ["queue"]


def test_services_of_other_names_have_traces_of_their_own(traces):
    folder, read = traces
    for name in ("films", "drafts", "films"):
        ServiceTelemetry(Telemetry(name, folder)).cancelled(job(), CAME + 1)
    first, other, again = (span["context"]["trace_id"] for span in read())
    assert first == again != other


def test_lines_about_a_job_can_be_found_by_its_id(lines):
    service = ServiceTelemetry(Telemetry("films"))
    service.accepted(job("video_a"))
    service.accepted(job("video_b"))
    service.told(Event(what="taken", job=job("video_a"), at=CAME + 3))
    with service.about("video_a", "video_b"):
        logging.getLogger("elsewhere").warning("a batch of two")
    service.told(Event(what="failed", job=job("video_a"), at=CAME + 9, error="internal"))
    mine = [line for line in lines() if "video_a" in line["items"]]
    assert {line["run"] for line in mine} == {"films"}
    assert [line["message"].partition(":")[0] for line in mine] == [
        *("accepted", "started", "a batch of two", "failed")
    ]
    assert [line["level"] for line in mine] == ["INFO", "INFO", "WARNING", "WARNING"]


def test_classes_of_shapes_are_few():
    sizes = [(64 * w, 64 * h) for w in range(2, 60, 3) for h in range(2, 60, 3)]
    lengths = [1, 9, 121, 241, 481, 2401]
    found = {
        shape_class(request(width=width, height=height, num_frames=frames))
        for width, height in sizes
        for frames in lengths
    }
    assert len(found) == 5 * 5
    assert "two_stage 720p 10s" in found
    assert "two_stage small" in found


def test_sound_has_a_length_and_no_size():
    assert shape_class(request(video=False, num_frames=121)) == "two_stage 5s"


def test_numbers_of_queue_and_pools_go_nowhere_without_a_cluster():
    service = ServiceTelemetry(Telemetry("films"))
    totals = Totals(queued=0, queued_s=0, running=0, running_s=0, oldest_created_at=None)
    for found in (totals, replace(totals, queued=1, oldest_created_at=CAME)):
        service.totals(found, CAME + 5)
    pool = PoolLoad(replicas=1, waiting_s=2, running_s=1, jobs=3, idle_s=0)
    service.load(Load(at=CAME, pools={"fused": pool}))


def test_weeks_of_batches_leave_nothing_behind():
    observer = Observer(Telemetry("films", None, LogSettings()))
    service = ServiceTelemetry(Telemetry("films"))
    for index in range(20):
        one = job(f"video_{index}", started_at=CAME)
        service.told(Event(what="taken", job=one, at=CAME))
        items = [StageItem(item_id=one.job_id)]
        with observer.batch(Decode(), items) as results:
            results.extend(items)
        service.told(Event(what="done", job=one, at=CAME + 1))
    held = json.dumps([vars(observer), vars(service)], default=vars_of)
    assert "video_" not in held


def vars_of(value):
    """What an object holds, as JSON."""
    return vars(value) if hasattr(value, "__dict__") else repr(value)
