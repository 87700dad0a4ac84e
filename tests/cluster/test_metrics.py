"""Metrics reach the port of a node, in the format of Prometheus, and cost nothing without one."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from ray.dashboard.modules.metrics.dashboards.serve_dashboard_panels import SERVE_GRAFANA_PANELS
from ray.dashboard.modules.metrics.dashboards.serve_deployment_dashboard_panels import (
    SERVE_DEPLOYMENT_GRAFANA_PANELS,
)
from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

from rayreel.cluster.metrics import DEFINITIONS, RunMetrics, StageMetrics

DASHBOARDS = Path(__file__).parents[2] / "manifests" / "grafana"

# Tests turn the collection of metrics off, so this runs in a process of its own.
SCRIPT = """
import sys, time, urllib.request
import ray
from rayreel.cluster.metrics import RunMetrics, ServiceMetrics, StageMetrics

@ray.remote(num_cpus=0)
class Worker:
    def __init__(self):
        self.stages = [StageMetrics("r1", name) for name in ("stage1", "decode")]
    def work(self):
        for stage in self.stages:
            stage.batch(2, 3.5)
            stage.batch(4, 100.0)
            stage.load("VideoDecoder")
            stage.failure("MediaError")

port = int(sys.argv[1])
ray.init(address="local", num_cpus=1, include_dashboard=False, object_store_memory=80 * 2**20,
         _metrics_export_port=port, log_to_driver=False, logging_level="error")
worker = Worker.remote()
ray.get(worker.work.remote())
run = RunMetrics("r1")
run.progress(left=5, done=3, failed=0)
run.progress(left=3, done=4, failed=1)
run.queue("decode", 7)
run.texts(hits=0, misses=2)
run.texts(hits=6, misses=0)
run.retry("worker lost", 2)
service = ServiceMetrics("films")
service.accepted("high")
service.refused("queue_full")
service.refused("queue_full")
service.started("high", 4.0)
service.retry("taken over")
service.done("two_stage 720p 10s", 50.0)
service.finished("done")
service.finished("failed", "worker_lost")
service.eta(told_s=0.0, took_s=5.0)
service.eta(told_s=10.0, took_s=12.0)
service.jobs("queued", jobs=9, seconds=90.0)
service.oldest(33.0)
service.pool("stage1", replicas=2, seconds=60.0)
text, end = "", time.monotonic() + 60
while time.monotonic() < end and not ("rayreel_retries" in text and "rayreel_failures" in text):
    time.sleep(0.5)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
    except OSError:
        pass
print(text)
ray.shutdown()
"""


@pytest.fixture(scope="module")
def exported():
    """Values that a node exports, by name and by the labels that are ours."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    quick = {"RAY_enable_metrics_collection": "1", "RAY_metrics_report_interval_ms": "500"}
    said = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(port)],
        env={**os.environ, **quick},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    ours = {tag for definition in DEFINITIONS for tag in definition.tags} | {"run", "le"}
    return {
        (
            sample.name,
            *(f"{key}={value}" for key, value in sorted(sample.labels.items()) if key in ours),
        ): sample.value
        for family in text_string_to_metric_families(said.stdout)
        for sample in family.samples
        if "rayreel" in sample.name
    }


def test_every_metric_is_exported_under_the_names_that_are_stated(exported):
    stated = {name for definition in DEFINITIONS for name in definition.exported}
    assert {name for name, *_ in exported} == stated


def test_batches_are_counted_by_stage(exported):
    for stage in ("stage1", "decode"):
        tags = ("run=r1", f"stage={stage}")
        assert exported["ray_rayreel_batch_seconds_count", *tags] == 2
        assert exported["ray_rayreel_batch_seconds_bucket", "le=5.0", *tags] == 1
        assert exported["ray_rayreel_batch_items_bucket", "le=2.0", *tags] == 1
        assert exported["ray_rayreel_stage_items_total", *tags] == 6


def test_loads_failures_and_retries_say_of_what(exported):
    assert (
        exported["ray_rayreel_loads_total", "network=VideoDecoder", "run=r1", "stage=decode"] == 1
    )
    assert exported["ray_rayreel_failures_total", "error=MediaError", "run=r1", "stage=decode"] == 1
    assert exported["ray_rayreel_retries_total", "reason=worker lost", "run=r1"] == 2


def test_the_driver_s_numbers_are_the_latest_or_add_up(exported):
    latest = {"items_left": 3, "items_done": 4, "items_failed": 1, "text_hits_total": 6}
    for name, value in {**latest, "text_misses_total": 2}.items():
        assert exported[f"ray_rayreel_{name}", "run=r1"] == value
    assert exported["ray_rayreel_queue_items", "run=r1", "stage=decode"] == 7


def test_a_service_tells_of_its_jobs_under_its_name(exported):
    jobs = {
        ("jobs_accepted_total", "priority=high"): 1,
        ("refusals_total", "code=queue_full"): 2,
        ("job_wait_seconds_bucket", "le=5.0", "priority=high"): 1,
        ("job_wait_seconds_bucket", "le=3.0", "priority=high"): 0,
        ("retries_total", "reason=taken over"): 1,
        ("job_seconds_count", "shape=two_stage 720p 10s"): 1,
        ("jobs_finished_total", "error=worker_lost", "state=failed"): 1,
    }
    for (name, *tags), value in jobs.items():
        assert exported[f"ray_rayreel_{name}", *sorted([*tags, "run=films"])] == value


def test_a_service_tells_how_much_there_is_to_do(exported):
    gauges = {
        ("jobs", "state=queued"): 9,
        ("jobs_seconds", "state=queued"): 90,
        ("jobs_oldest_seconds",): 33,
        ("pool_replicas", "pool=stage1"): 2,
        ("pool_seconds", "pool=stage1"): 60,
    }
    for (name, *tags), value in gauges.items():
        assert exported[f"ray_rayreel_{name}", *sorted([*tags, "run=films"])] == value


def test_an_eta_that_nobody_was_told_does_not_count(exported):
    assert exported["ray_rayreel_eta_ratio_count", "run=films"] == 1
    assert exported["ray_rayreel_eta_ratio_bucket", "le=1.1", "run=films"] == 0
    assert exported["ray_rayreel_eta_ratio_bucket", "le=1.25", "run=films"] == 1


def test_without_a_cluster_metrics_go_nowhere():
    StageMetrics("r1", "decode").batch(2, 3.5)
    RunMetrics("r1").progress(left=1, done=0, failed=0)


@pytest.fixture(scope="module", params=["rayreel", "serving"])
def dashboard(request):
    return json.loads((DASHBOARDS / f"{request.param}.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def dashboards():
    return [json.loads(path.read_text("utf-8")) for path in sorted(DASHBOARDS.glob("*.json"))]


def queries(dashboard):
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]


def shown(dashboard):
    return {name for query in queries(dashboard) for name in re.findall(r"ray_rayreel_\w+", query)}


def test_a_dashboard_shows_no_metric_that_is_not_there(dashboard):
    assert shown(dashboard) <= {name for one in DEFINITIONS for name in one.exported}


def test_the_dashboards_show_every_metric(dashboards):
    names = {name for dashboard in dashboards for name in shown(dashboard)}
    assert [one.name for one in DEFINITIONS if not names & {*one.exported}] == []


def test_the_dashboard_names_metrics_that_ray_has(dashboard):
    others = {name for query in queries(dashboard) for name in re.findall(r"ray_node_\w+", query)}
    assert len(others) == 3
    assert others <= {f"ray_{name}" for name in METRICS_GAUGES}


def test_the_dashboard_of_services_names_metrics_that_serve_has(dashboards):
    theirs = {
        name
        for panel in (*SERVE_GRAFANA_PANELS, *SERVE_DEPLOYMENT_GRAFANA_PANELS)
        for target in panel.targets
        for name in re.findall(r"ray_serve_\w+", target.expr)
    }
    texts = [query for dashboard in dashboards for query in queries(dashboard)]
    named = {name for query in texts for name in re.findall(r"ray_serve_\w+", query)}
    assert len(named) >= 4
    assert named <= theirs


def test_the_dashboards_have_ids_of_their_own(dashboards):
    assert {dashboard["uid"] for dashboard in dashboards} == {"rayreel", "rayreel-serving"}


def test_the_dashboard_asks_for_labels_that_the_metrics_have(dashboard):
    labels = {name: {"run", *one.tags} for one in DEFINITIONS for name in one.exported}
    for query in queries(dashboard):
        for name, selector in re.findall(r"(ray_rayreel_\w+)\{([^}]*)\}", query):
            assert set(re.findall(r"(\w+)=", selector)) <= labels[name]
        grouped = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", query)))) - {"le"}
        for name in re.findall(r"ray_rayreel_\w+", query):
            assert grouped <= labels[name]


def test_the_dashboard_s_panels_have_places_of_their_own(dashboard):
    cells = [
        (x, y)
        for panel in dashboard["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
