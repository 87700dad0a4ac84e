"""MLflow with the real client, and a store on disk in place of a server."""

from typing import Any

import pytest

from rayreel.data.storage import Storage
from rayreel.training.tracking import Trackers, trackers_for
from tests.training.tracking.lines import line, spec

mlflow = pytest.importorskip("mlflow")


@pytest.fixture
def mlflow_spec(tmp_path, monkeypatch) -> Any:
    # The client without a server has no other store than this one, which new users shall not use.
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "server").as_uri()
    return spec(tmp_path / "foxes", mlflow={"uri": uri, "experiment": "films"})


def log_steps(mlflow_spec, first: int, last: int) -> Trackers:
    trackers = trackers_for(mlflow_spec, Storage(mlflow_spec.output), first - 1)
    for step in range(first, last + 1):
        trackers.log(line(step))
    return trackers


def client(mlflow_spec) -> Any:
    return mlflow.MlflowClient(tracking_uri=mlflow_spec.tracking.mlflow.uri)


def the_run(mlflow_spec) -> Any:
    experiment = client(mlflow_spec).get_experiment_by_name("films")
    (run,) = client(mlflow_spec).search_runs([experiment.experiment_id])
    return run


def losses(mlflow_spec) -> list[tuple[int, float]]:
    run_id = the_run(mlflow_spec).info.run_id
    found = client(mlflow_spec).get_metric_history(run_id, "train/loss")
    return [(one.step, one.value) for one in found]


def test_numbers_spec_and_end_are_there(mlflow_spec):
    log_steps(mlflow_spec, 1, 3).close("finished")
    run = the_run(mlflow_spec)
    assert losses(mlflow_spec) == [(1, 1), (2, 1 / 2), (3, 1 / 3)]
    assert run.data.params["optimization.steps"] == "2000"
    assert (run.info.run_name, run.info.status) == ("foxes", "FINISHED")
    assert [one.path for one in client(mlflow_spec).list_artifacts(run.info.run_id)] == [
        "spec.yaml"
    ]


def test_run_that_goes_on_is_the_same_run_without_doubled_steps(mlflow_spec):
    log_steps(mlflow_spec, 1, 4).close("failed")
    assert the_run(mlflow_spec).info.status == "FAILED"
    log_steps(mlflow_spec, 3, 6).close("stopped")
    assert [step for step, _ in losses(mlflow_spec)] == [1, 2, 3, 4, 5, 6]
    assert the_run(mlflow_spec).info.status == "KILLED"


def test_clips_are_artifacts_of_their_step(mlflow_spec, tmp_path):
    trackers = log_steps(mlflow_spec, 1, 1)
    clip = tmp_path / "fox.mp4"
    clip.write_bytes(b"a video")
    trackers.clips(1, {"fox": clip})
    trackers.close("finished")
    run_id = the_run(mlflow_spec).info.run_id
    (found,) = client(mlflow_spec).list_artifacts(run_id, "validation/step-00000001")
    assert found.path.endswith("/fox.mp4")


def test_server_that_is_not_there_does_not_stop_a_run(tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    lost = spec(tmp_path / "foxes", mlflow={"uri": "http://127.0.0.1:9"})
    trackers = trackers_for(lost, Storage(lost.output), 0)
    trackers.log(line(1))
    trackers.close("finished")
    assert "MLflow is told no more of this run, which goes on" in caplog.text
    assert Storage(lost.output).names("metrics") == ["metrics/00000001.jsonl"]
