"""Jobs are submitted once, followed through lost connections, and stopped."""

import io
import os
import signal
import socket
import threading

import pytest
import torch
from safetensors.torch import save_file

from rayreel.cluster.jobs import DETACHED, follow, run_id, stop, submit
from rayreel.errors import ClusterError, SpecError
from tests.cluster import nodes
from tests.cluster.jobs_api import TOKEN, Job, JobsApi

OUTPUT = "s3://bucket/runs/demo"
JOB = f"rayreel-{run_id(OUTPUT)}-1"


@pytest.fixture(autouse=True)
def _no_address(monkeypatch):
    # What is set here is taken back afterwards, and so is what a client sets.
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS")


@pytest.fixture
def api():
    server = JobsApi()
    end = server.start()
    yield server
    end()


def followed(api, job):
    """What following a job shows, what it says beside, and its exit code."""
    api.jobs[JOB] = job
    out, err = io.StringIO(), io.StringIO()
    code = follow(JOB, out=out, err=err, address=api.address)
    return out.getvalue(), err.getvalue(), code


def test_a_job_is_submitted_under_the_id_of_its_run(api):
    arguments = ["render", "s3://bucket/my job.yaml", "--output", OUTPUT]
    environment = {"RAYREEL": "1"}
    assert submit(arguments, output=OUTPUT, address=api.address, environment=environment) == JOB
    job = api.jobs[JOB]
    assert job.entrypoint == f"rayreel render 's3://bucket/my job.yaml' --output {OUTPUT}"
    assert job.runtime_env == {"env_vars": environment}


def test_a_run_that_is_under_way_is_not_started_twice(api):
    submit(["render"], output=OUTPUT, address=api.address)
    with pytest.raises(ClusterError, match=f"is running already: rayreel attach {JOB}"):
        submit(["render"], output=f"{OUTPUT}/", address=api.address)
    assert submit(["render"], output="/runs/other", address=api.address) != JOB


def test_a_run_that_has_ended_is_submitted_again_under_the_next_number(api):
    for number in (1, 9, 10):
        api.jobs[f"{JOB[:-1]}{number}"] = Job(status="FAILED")
    assert submit(["render"], output=OUTPUT, address=api.address) == f"{JOB[:-1]}11"


def test_following_shows_the_log_and_returns_the_exit_code(api):
    assert followed(api, Job(["one\n", "two\n"])) == ("one\ntwo\n", "", 0)
    assert followed(api, Job(["row 3 failed\n"], status="FAILED", exit_code=1))[2] == 1


def test_a_lost_connection_is_made_again_and_nothing_is_shown_twice(api):
    texts = [f"line {n}\n" for n in range(6)]
    out, err, code = followed(api, Job(texts, cuts=[2, 4]))
    assert out == "".join(texts)
    assert err.count("lost") == 2
    assert code == 0


def test_a_connection_that_says_nothing_is_made_again(api, monkeypatch):
    monkeypatch.setattr("rayreel.cluster.jobs._SILENCE_S", 0.2)
    out, err, code = followed(api, Job(["one\n"], silent=True))
    assert (out, err.count("lost"), code) == ("one\n", 1, 0)


def test_a_job_that_was_stopped_or_never_started_is_an_error(api):
    with pytest.raises(ClusterError, match="was stopped; what is finished is kept"):
        followed(api, Job(status="STOPPED"))
    with pytest.raises(ClusterError, match=f"{JOB} failed: why"):
        followed(api, Job(status="FAILED", exit_code=None))


def test_an_unknown_job_is_an_error_that_names_those_there_are(api):
    api.jobs[JOB] = Job()
    with pytest.raises(ClusterError, match=f"knows no job rayreel-x; it has {JOB}"):
        follow("rayreel-x", out=io.StringIO(), err=io.StringIO(), address=api.address)


def test_interrupting_leaves_the_job_running_and_says_how_to_go_on(api):
    api.jobs[JOB] = Job(["one\n"], status="RUNNING")
    err = io.StringIO()
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    assert follow(JOB, out=io.StringIO(), err=err, address=api.address) == DETACHED
    assert f"rayreel attach {JOB}" in err.getvalue()
    assert f"rayreel stop {JOB}" in err.getvalue()
    assert api.jobs[JOB].status == "RUNNING"


def test_stopping_says_whether_the_job_was_running(api):
    api.jobs[JOB] = Job(status="RUNNING")
    assert stop(JOB, address=api.address)
    assert not stop(JOB, address=api.address)


def test_the_address_wins_over_the_environment_which_wins_over_the_default(api, monkeypatch):
    api.jobs[JOB] = Job()
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", api.address)
    assert not stop(JOB)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:9")
    assert not stop(JOB, address=api.address.removeprefix("http://"))


def test_a_cluster_that_does_not_answer_is_one_sentence():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(ClusterError, match=f"no Ray cluster answers at {address}"):
            stop(JOB, address=address)


def test_a_missing_token_is_one_sentence_and_is_not_repeated(api):
    api.needs_token = True
    with pytest.raises(ClusterError, match="RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN") as raised:
        stop(JOB, address=api.address)
    assert TOKEN not in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"output": "runs/demo"}, "output runs/demo: expected an absolute path or a URI"),
        ({"working_dir": "/nowhere"}, "/nowhere is not a folder"),
        ({"address": "ray://host:10001"}, "expected that of the dashboard"),
    ],
)
def test_what_cannot_be_right_is_refused_before_anything_is_sent(changes, said):
    with pytest.raises(SpecError, match=said):
        submit(["render"], **{"output": OUTPUT, **changes})


@pytest.fixture(scope="module")
def cluster():
    with nodes.cluster(4) as made:
        yield made.dashboard


@pytest.mark.slow
def test_on_a_real_cluster_an_uploaded_file_is_read_and_each_follower_sees_the_whole_log(
    cluster, tmp_path
):
    save_file({"one": torch.zeros(2, 3)}, tmp_path / "one.safetensors")
    arguments = ["inspect", "one.safetensors"]
    job = submit(arguments, output="/runs/upload", address=cluster, working_dir=str(tmp_path))
    said = [io.StringIO(), io.StringIO()]
    codes = [follow(job, out=out, err=io.StringIO(), address=cluster) for out in said]
    assert codes == [0, 0]
    assert "6 parameters in 1 tensors" in said[0].getvalue()
    assert said[0].getvalue() == said[1].getvalue()


@pytest.mark.slow
def test_on_a_real_cluster_a_job_s_exit_code_comes_back(cluster):
    out = io.StringIO()
    job = submit(["inspect", "nowhere.safetensors"], output="/runs/exit", address=cluster)
    assert follow(job, out=out, err=io.StringIO(), address=cluster) == 2
    assert "rayreel: " in out.getvalue()


@pytest.mark.slow
def test_on_a_real_cluster_a_run_is_not_started_twice_and_is_stopped(cluster):
    job = submit(["doctor"], output="/runs/twice", address=cluster)
    with pytest.raises(ClusterError, match=f"is running already: rayreel attach {job}"):
        submit(["doctor"], output="/runs/twice", address=cluster)
    assert stop(job, address=cluster)
    with pytest.raises(ClusterError, match="was stopped"):
        follow(job, out=io.StringIO(), err=io.StringIO(), address=cluster)
