import logging
from typing import Any

import pytest
import ray

from rayreel.cluster.connect import Capacity
from rayreel.cluster.data import Pool, preflight, run
from rayreel.errors import ClusterError
from rayreel.stages.base import ItemFailure, Stage
from tests.cluster import fakes
from tests.cluster.fakes import Broken, Counting, Deadly, items

# Workers cannot import the tests.
ray.cloudpickle.register_pickle_by_value(fakes)


def pool(
    *stages: Stage[Any], replicas: int = 1, batch_size: int = 1, cpus: float = 1, gpus: float = 0
):
    return Pool(stages=stages, replicas=replicas, batch_size=batch_size, cpus=cpus, gpus=gpus)


def cluster(*nodes: tuple[float, float]) -> Capacity:
    return Capacity(cpus=sum(n[0] for n in nodes), gpus=sum(n[1] for n in nodes), nodes=nodes)


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
        preflight([pool(counting, replicas=2, gpus=0.5)], Capacity(8, 0, ((8, 1),)))


def test_preflight_refuses_an_actor_that_is_larger_than_every_node(counting):
    with pytest.raises(ClusterError, match="no node of the cluster can hold stage counting"):
        preflight([pool(counting, cpus=4, gpus=1)], cluster((2, 1), (2, 1), (8, 0)))


@pytest.mark.ray
def test_every_item_comes_back_once_through_pools_of_batches(ray_cluster, tmp_path):
    first, second = Counting(tmp_path / "first"), Counting(tmp_path / "second")
    ids = [*"abcdefghi", "bad"]
    pools = [pool(first, batch_size=4), pool(second, batch_size=2)]
    results = list(run(items(*ids), pools))
    assert sorted(result.item_id for result in results) == sorted(ids)
    assert [result.item_id for result in results if isinstance(result, ItemFailure)] == ["bad"]
    assert sorted(first.notes.read_text().split()) == sorted(ids)
    assert max(len(line.split()) for line in first.notes.read_text().splitlines()) == 4
    assert sorted(second.notes.read_text().split()) == sorted("abcdefghi")


@pytest.mark.ray
def test_a_bug_in_a_stage_ends_the_job_and_its_traceback_is_logged(ray_cluster, caplog):
    with (
        caplog.at_level(logging.ERROR),
        pytest.raises(ClusterError, match="stage broken is broken"),
    ):
        list(run(items("a"), [pool(Broken("call"))]))
    assert "KeyError: 1" in caplog.text


@pytest.mark.slow
@pytest.mark.ray
def test_an_item_is_tried_again_when_its_worker_dies(ray_cluster, tmp_path):
    stage = Deadly(tmp_path / "notes")
    (result,) = run(items("fragile"), [pool(stage)])
    assert result.item_id == "fragile"
    assert stage.notes.read_text().split() == ["fragile", "fragile"]


@pytest.mark.slow
@pytest.mark.ray
def test_an_item_that_kills_every_worker_ends_the_job(ray_cluster, tmp_path):
    stage = Deadly(tmp_path / "notes")
    with pytest.raises(ClusterError, match=r"a worker was lost.*a rerun goes on from there"):
        list(run(items("deadly"), [pool(stage)]))
    assert 2 <= len(stage.notes.read_text().split()) <= 3
