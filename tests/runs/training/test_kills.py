"""Whoever is killed, and whenever: a run ends as one that was left alone."""

import json
import random
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rayreel.data.storage import Storage
from rayreel.requests.spec import read_train_spec
from rayreel.training.run import TrainJob, train
from rayreel.training.tracking import read_metrics
from tests.cluster.nodes import Cluster, cluster, wait, with_pid
from tests.runs.driver import Driver
from tests.runs.training.jobs import TrainJobFiles, write_job
from tests.training.datasets import tiny_dataset
from tests.training.runs import losses

pytestmark = pytest.mark.slow

STEPS = 16
SPEC = {
    "optimization": {"steps": STEPS, "batch_size": 4, "learning_rate": 1e-3, "ema": 0.9},
    "checkpoints": {"interval": 2},
    "workers": {"num_workers": [1, 2], "cpus": 1},
}
TITLE = "RayTrainWorker"


@dataclass
class Chaos:
    """A run on a cluster where things die.

    Attributes:
        job: The run.
        nodes: The cluster.
        rng: What decides when.
        environment: Of the driver.
    """

    job: TrainJobFiles
    nodes: Cluster
    rng: random.Random
    environment: dict[str, str]
    killed: list[str] = field(default_factory=list)

    def drive(self) -> Driver:
        environment = {
            **self.environment,
            "RAY_ADDRESS": self.nodes.address,
            "RAY_AUTH_MODE": "disabled",
        }
        return Driver(["train", str(self.job.spec), "-o", self.job.output], environment)

    def await_step(self, driver: Driver, least: int, most: int) -> None:
        """Wait until a step within these bounds, drawn at random, is done."""
        step = self.rng.randint(least, most)
        wait(lambda: driver.ended or len(self.job.lines) >= step, f"step {step}", timeout_s=600)
        self.killed.append(f"after step {step}")

    def kill_worker(self) -> None:
        workers = self.nodes.workers(TITLE)
        with_pid(self.rng.choice(workers).pid, signal.SIGKILL)


@pytest.fixture
def chaos(request, tmp_path, s3_server) -> Iterator[Chaos]:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - shown where the test fails
    dataset = Path(tiny_dataset(tmp_path / "data"))
    output = f"{s3_server.url}/train-kills-{seed}"
    job = write_job(tmp_path, dataset, output, **SPEC)
    with cluster(1, 1, environment=s3_server.environment) as nodes:
        yield Chaos(job, nodes, random.Random(seed), s3_server.environment)


@pytest.fixture
def quiet(chaos, tmp_path):
    """Metrics of the same run that nobody disturbed, in one process."""
    spec = read_train_spec(str(chaos.job.spec), (), str(tmp_path / "quiet"))
    train(TrainJob(spec=spec))
    return read_metrics(Storage(spec.output))


def test_after_any_kills_the_losses_are_those_of_a_quiet_run(chaos, quiet):
    first = chaos.drive()
    chaos.await_step(first, 2, 5)
    chaos.kill_worker()
    chaos.await_step(first, 6, 9)
    assert first.kill(), chaos.killed
    second = chaos.drive()
    chaos.await_step(second, 10, 13)
    # With it goes a worker, and the node that is left has room for one.
    chaos.nodes.nodes[1].kill()
    assert second.end() == 0, chaos.killed
    last = f"checkpoints/step-{STEPS:08d}/checkpoint.json"
    assert json.loads(Storage(chaos.job.output).read_text(last))["world"] == 1, chaos.killed
    lines = chaos.job.lines
    assert [line["step"] for line in lines] == [*range(1, STEPS + 1)], chaos.killed
    assert losses(lines) == pytest.approx(losses(quiet), rel=2e-3), chaos.killed
    for epoch in range(STEPS // 2):
        seen = Counter(n for line in lines if line["epoch"] == epoch for n in line["samples"])
        assert seen == Counter(range(8)), chaos.killed
