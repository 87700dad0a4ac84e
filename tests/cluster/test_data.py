import logging
import re
from contextlib import closing
from typing import Any

import pytest
import ray

from rayreel.cluster.board import Board
from rayreel.cluster.connect import Capacity, Node
from rayreel.cluster.data import run
from rayreel.cluster.pool import Pool, preflight
from rayreel.cluster.stalls import looked_after
from rayreel.cluster.telemetry import Telemetry
from rayreel.errors import ClusterError
from rayreel.stages.base import ItemFailure, Stage
from tests.cluster import fakes
from tests.cluster.fakes import Broken, Counting, Deadly, Hanging, Slow, items

# Workers cannot import the tests.
ray.cloudpickle.register_pickle_by_value(fakes)


def pool(
    *stages: Stage[Any],
    replicas: int = 1,
    most: int | None = None,
    batch_size: int | None = None,
    cpus: float = 1,
    gpus: float = 0,
    node: str | None = None,
):
    return Pool(
        stages=stages,
        replicas=replicas,
        max_replicas=most or replicas,
        batch_size=batch_size,
        cpus=cpus,
        gpus=gpus,
        node=node,
    )


def cluster(*nodes: tuple[float, float]) -> Capacity:
    return Capacity(
        cpus=sum(n[0] for n in nodes),
        gpus=sum(n[1] for n in nodes),
        nodes=tuple(Node(*node) for node in nodes),
    )


@pytest.fixture
def counting(tmp_path):
    return Counting(tmp_path / "notes")


def test_preflight_accepts_pools_that_fill_the_cluster(counting):
    preflight(
        [pool(counting, replicas=3, cpus=0.66), pool(counting, cpus=2, gpus=1)], cluster((4, 1))
    )


def test_preflight_names_the_stage_that_does_not_fit_any_more(tmp_path):
    pools = [pool(Counting(tmp_path, "text")), pool(Counting(tmp_path, "decode"), replicas=2)]
    with pytest.raises(ClusterError, match=r"cannot hold stage decode: 2 x \(1 CPU, 0 GPU\)"):
        preflight(pools, cluster((2, 0)))


def test_preflight_refuses_gpus_that_the_cluster_lacks(counting):
    with pytest.raises(ClusterError, match=r"counting: 2 x .* 0 GPU free"):
        preflight([pool(counting, replicas=2, gpus=0.5)], Capacity(8, 0, (Node(8, 1),)))


def test_preflight_refuses_an_actor_that_is_larger_than_every_node(counting):
    with pytest.raises(ClusterError, match="no node of the cluster can hold stage counting"):
        preflight([pool(counting, cpus=4, gpus=1)], cluster((2, 1), (2, 1), (8, 0)))


def test_preflight_refuses_a_node_that_is_not_there(counting):
    with pytest.raises(ClusterError, match="no node of the cluster that has the resource 'big'"):
        preflight([pool(counting, node="big")], cluster((2, 1)))


@pytest.fixture
def board(ray_cluster):
    with closing(Board()) as board:
        yield board


def alone(*names: str):
    """Batches of one."""
    return [[item] for item in items(*names)]


@pytest.mark.ray
def test_every_item_comes_back_once_through_pools_of_batches(board, tmp_path):
    first, second = Counting(tmp_path / "first"), Counting(tmp_path / "second")
    names = [*"abcdefghi", "bad"]
    batches = [items(*names[:4]), items(*names[4:8]), items(*names[8:])]
    results = list(
        run(batches, [pool(first), pool(second, batch_size=1)], board, Telemetry("test"))
    )
    assert sorted(result.item_id for result in results) == sorted(names)
    assert [result.item_id for result in results if isinstance(result, ItemFailure)] == ["bad"]
    assert sorted(first.notes.read_text().splitlines()) == ["a b c d", "e f g h", "i bad"]
    assert sorted(second.notes.read_text().splitlines()) == list("abcdefghi")


@pytest.mark.ray
def test_a_bug_in_a_stage_ends_the_job_and_its_traceback_is_logged(board, caplog):
    with (
        caplog.at_level(logging.ERROR),
        pytest.raises(ClusterError, match="stage broken is broken"),
    ):
        list(run(alone("a"), [pool(Broken("call"))], board, Telemetry("test")))
    assert "KeyError: 1" in caplog.text


@pytest.mark.ray
def test_an_item_that_kills_its_worker_costs_itself_and_is_found_in_its_batch(board, tmp_path):
    stage = Deadly(tmp_path / "notes")
    results = list(run([items("a", "deadly", "b")], [pool(stage)], board, Telemetry("test")))
    by_name = {result.item_id: result for result in results}
    failure = by_name.pop("deadly")
    assert (failure.error, failure.stage, failure.retryable) == ("WorkerLost", "deadly", True)
    assert [name for name, result in by_name.items() if not isinstance(result, ItemFailure)] == [
        *("a", "b")
    ]
    assert stage.notes.read_text().splitlines().count("deadly") == 1


@pytest.mark.slow
@pytest.mark.ray
def test_workers_that_die_while_they_start_end_the_job(board, tmp_path):
    with pytest.raises(ClusterError, match="workers ended, each before it had finished anything"):
        list(
            run(
                alone("a"), [pool(Deadly(tmp_path / "notes", at="setup"))], board, Telemetry("test")
            )
        )


@pytest.mark.slow
@pytest.mark.ray
def test_a_worker_that_hangs_is_reported_and_replaced(board, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("rayreel.cluster.data.looked_after", _impatient)
    stage = Hanging(tmp_path / "notes")
    (result,) = run(alone("stuck"), [pool(stage)], board, Telemetry("test"))
    assert isinstance(result, ItemFailure)
    assert result.error == "WorkerLost"
    assert re.search(r"stage hanging on \S+ is at item stuck and has told nothing for", caplog.text)


def _impatient(board, pools, on_look):
    return looked_after(board, pools, on_look, report_s=1, replace_s=4)


@pytest.mark.slow
@pytest.mark.ray
def test_a_pool_grows_while_work_waits(board, tmp_path):
    stage = Slow(tmp_path / "notes")
    names = [f"item{n}" for n in range(40)]
    assert (
        len(list(run(alone(*names), [pool(stage, most=3, cpus=0.5)], board, Telemetry("test"))))
        == 40
    )
    workers = set(stage.notes.read_text().split())
    assert 1 < len(workers) <= 3
