import pytest

from rayreel.cluster.connect import Capacity, Node
from rayreel.cluster.pool import preflight
from rayreel.config.jobs import RenderSpec, StageName, StageSpec
from rayreel.config.request import RenderRequest
from rayreel.errors import ClusterError
from rayreel.pipelines.devices import Device
from rayreel.runs.pools import choose_devices, render_pools, text_pool

LAPTOP = Capacity(cpus=2, gpus=0, nodes=(Node(2, 0),))
CLUSTER = Capacity(cpus=64, gpus=8, nodes=(Node(32, 4), Node(32, 4)))
NAMES: tuple[StageName, ...] = ("text", "stage1", "stage2", "decode")


def pools(free: Capacity, **fields):
    name = "cuda" if free.gpus else "cpu"
    devices = dict.fromkeys(NAMES, Device(name, "float32", "for the test"))
    made = render_pools(RenderSpec(prompts="list.jsonl", **fields), devices, free)
    return {pool.name: pool for pool in made}


def shapes(free: Capacity, **fields):
    return {
        name: (pool.replicas, pool.cpus, pool.gpus) for name, pool in pools(free, **fields).items()
    }


def test_a_laptop_holds_all_stages_in_one_actor():
    assert shapes(LAPTOP) == {"stage1+stage2+decode": (1, 1, 0)}


def test_split_stages_share_the_cpus_of_a_laptop():
    assert shapes(LAPTOP, placement="split") == dict.fromkeys(NAMES[1:], (1, 0.66, 0))


@pytest.mark.parametrize("placement", ["fused", "split"])
def test_texts_have_a_pool_before_the_others_and_the_cluster_to_themselves(placement):
    workers = StageSpec(replicas=2)
    spec = RenderSpec(prompts="list.jsonl", placement=placement, workers=workers)
    pool = text_pool(spec, Device("cpu", "float32", "for the test"), LAPTOP)
    assert (pool.name, pool.replicas, pool.cpus, pool.ledger) == ("text", 2, 1, None)
    preflight([pool], LAPTOP)


def test_only_the_pool_that_writes_clips_looks_into_the_ledger():
    made = pools(LAPTOP, placement="split")
    assert [name for name, pool in made.items() if pool.ledger] == ["decode"]


def test_a_pool_can_grow_up_to_a_limit():
    (pool,) = pools(CLUSTER, workers={"replicas": 2, "max_replicas": 6}).values()
    assert (pool.replicas, pool.max_replicas) == (2, 6)


@pytest.mark.parametrize("replicas", [1, 3, 7])
def test_fused_actors_fit_whatever_their_number(replicas):
    made = pools(LAPTOP, workers={"replicas": replicas})
    preflight(list(made.values()), LAPTOP)
    assert sum(round(10_000 * pool.cpus) * pool.replicas for pool in made.values()) <= 20_000


def test_every_gpu_of_a_cluster_gets_an_actor():
    made = pools(CLUSTER, workers={"replicas": 8, "batch_size": 4})
    preflight(list(made.values()), CLUSTER)
    (pool,) = made.values()
    assert (pool.replicas, pool.batch_size, pool.cpus, pool.gpus) == (8, 4, 1, 1)


def test_split_stages_of_a_cluster_have_their_own_sizes():
    stages = {"stage1": {"replicas": 5}, "decode": {"gpus": 0.5, "cpus": 8}}
    made = pools(CLUSTER, placement="split", workers={"batch_size": 4}, stages=stages)
    preflight(list(made.values()), CLUSTER)
    assert {name: (p.replicas, p.batch_size, p.cpus, p.gpus) for name, p in made.items()} == {
        "stage1": (5, 4, 1, 1),
        "stage2": (1, 4, 1, 1),
        "decode": (1, 1, 8, 0.5),
    }


def test_cpus_that_a_stage_asks_for_are_not_shared_again():
    made = shapes(LAPTOP, placement="split", stages={"stage1": {"cpus": 1.4}})
    assert made["stage1"][1] == 1.4
    assert made["stage2"][1] == pytest.approx(0.3)


def test_more_gpu_actors_than_gpus_are_refused():
    made = pools(CLUSTER, placement="split", stages={"stage1": {"replicas": 8}})
    with pytest.raises(ClusterError, match="cannot hold stage stage2"):
        preflight(list(made.values()), CLUSTER)


def test_asking_for_all_cpus_and_more_is_refused_by_preflight():
    made = pools(LAPTOP, placement="split", stages={"stage1": {"cpus": 2}})
    with pytest.raises(ClusterError, match="cannot hold stage stage2"):
        preflight(list(made.values()), LAPTOP)


@pytest.mark.parametrize(
    ("pipeline", "names"),
    [("one_stage", ["text", "stage1", "decode"]), ("distilled", list(NAMES))],
)
def test_a_graph_has_the_stages_that_its_items_need(pipeline, names):
    request = RenderRequest(prompt="anything", pipeline=pipeline)
    devices = choose_devices(RenderSpec(prompts="list.jsonl"), [request], LAPTOP)
    assert list(devices) == names


def test_a_stage_can_have_a_device_of_its_own():
    spec = RenderSpec(prompts="list.jsonl", stages={"decode": StageSpec(device="cpu")})
    request = RenderRequest(prompt="anything", pipeline="two_stage")
    devices = choose_devices(spec, [request], CLUSTER)
    assert [devices[name].name for name in NAMES] == ["cuda", "cuda", "cuda", "cpu"]


def test_a_stage_on_the_cpu_takes_no_gpu():
    devices = dict.fromkeys(NAMES, Device("cuda", "bfloat16", "for the test"))
    devices["decode"] = Device("cpu", "float32", "for the test")
    made = render_pools(RenderSpec(prompts="list.jsonl", placement="split"), devices, CLUSTER)
    assert [pool.gpus for pool in made] == [1, 1, 0]
