"""Other launchers than Ray start the same training."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.nodes import free_ports
from tests.runs.training.jobs import write_job
from tests.training.datasets import tiny_dataset
from tests.training.runs import losses

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent
LAUNCHERS = {
    "torchrun": ("torchrun", "--nproc-per-node", "2", "--master-port", "{port}"),
    "accelerate": (
        *("accelerate", "launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"),
        *("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "{port}"),
    ),
}


def launched(launcher: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    (port,) = free_ports(1)
    program, *options = (word.format(port=port) for word in LAUNCHERS[launcher])
    return subprocess.run(
        [BIN / program, *options, "jobs/finetune_launched.py", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A training in one process."""
    folder = tmp_path_factory.mktemp("alone")
    job = write_job(folder, Path(tiny_dataset(folder / "data")), folder / "out")
    assert job.run().exit_code == 0
    return job


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_two_processes_of_a_launcher_learn_what_one_process_does(
    launcher, alone, tmp_path, repository
):
    dataset = Path(tiny_dataset(tmp_path / "data"))
    together = write_job(tmp_path, dataset, tmp_path / "out")
    found = launched(launcher, str(together.spec), "-o", together.output)
    assert found.returncode == 0, found.stderr
    assert "6 steps, 6 of them now" in found.stdout
    assert losses(together.lines) == pytest.approx(losses(alone.lines), rel=1e-3)


def test_a_wrong_spec_ends_all_processes_with_its_message(tmp_path, repository):
    dataset = Path(tiny_dataset(tmp_path / "data"))
    job = write_job(tmp_path, dataset, tmp_path / "out")
    found = launched("torchrun", str(job.spec), "--set", "lora.targets=[nowhere]")
    assert found.returncode != 0
    assert "'nowhere' is the end of no linear layer" in found.stderr
