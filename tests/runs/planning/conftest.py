"""Shapes of the tiny model, and a cluster for them."""

import pytest

from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.tiny import locate_model
from rayreel.config.jobs import RenderSpec
from rayreel.pipelines.devices import Device
from rayreel.requests.costs import CostBook, Item, Observation
from rayreel.runs.planning.make import Counts, count_shapes
from rayreel.runs.planning.options import Cluster
from rayreel.runs.planning.replicas import Room
from tests.pipelines.small import small_resolved

GPU = Device("cuda", "bfloat16", "for tests")
LABEL = "H100 bfloat16"
EIGHT = Cluster(
    room=Room(cpus=64, gpus=8, nodes=((32, 4), (32, 4))),
    devices=dict.fromkeys(("text", "stage1", "stage2", "decode"), GPU),
    device_bytes={"cuda": 80 * 2**30},
    hardware="H100",
)
COUNTS = Counts(
    rows=1200, clips=1010, finished=10, texts_known=1, texts_new=900, text_bytes=200_000.0
)


@pytest.fixture(scope="session")
def files():
    return ModelFiles(locate_model("tiny"))


@pytest.fixture(scope="session")
def shapes(files):
    """600 clips of two stages and 400 of one."""
    one, two = (small_resolved(files, pipeline=name) for name in ("one_stage", "two_stage"))
    return count_shapes([(one, 400), (two, 600)], files)


def spec(placement="auto", **fields) -> RenderSpec:
    job = RenderSpec(prompts="list.jsonl", placement="split", **fields)
    return job.model_copy(update={"placement": placement})


def seen(item: Item, seconds: float, *, batch: int = 1, device: str = LABEL) -> Observation:
    return Observation(item=item, device=device, batch=batch, seconds=seconds)


def book_of(shapes, *, cluster: Cluster = EIGHT, batch: int = 8, **seconds: float) -> CostBook:
    """All shapes measured on the devices of a cluster: seconds by stage."""
    labels = cluster.labels
    clips = [
        seen(
            Item.clip(stage, shape),
            seconds[stage],
            batch=1 if stage == "decode" else batch,
            device=labels[stage],
        )
        for shape, _ in shapes
        for stage in shape.work
    ]
    sizes = [(shape.name, 100_000) for shape, _ in shapes]
    starts = {"text": 20.0, "stage1+stage2+decode": 60.0, "stage1": 60.0, "stage2": 60.0}
    starts["decode"] = 5.0
    texts = [seen(Item.text(), 0.05, batch=8, device=labels["text"])]
    return CostBook.of([*texts, *clips], sizes, starts)
