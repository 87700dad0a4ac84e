"""What all tests share: quiet settings for Ray, set before it is imported, and one cluster."""

import logging
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.s3 import S3Server

for _name, _value in {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    # A process per CPU, started in advance, would hold up the few that a test needs.
    "RAY_prestart_worker_first_driver": "0",
    # Of several clusters on this machine, none shall wait for another.
    "RAY_worker_niceness": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_OFFLINE": "1",
}.items():
    os.environ.setdefault(_name, _value)

ROOT = Path(__file__).parents[1]

# Tiny networks gain nothing from threads, and lose much where something else runs beside them.
torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Begin with the tests of the run-wide cluster, which take longest."""
    for item in items:
        if "ray_cluster" in item.fixturenames and _unit(item.nodeid) != "ray":
            raise pytest.UsageError(f"{item.nodeid} uses ray_cluster: expected pytest.mark.ray")
    items.sort(key=lambda item: _unit(item.nodeid) != "ray")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Say which tests stay together where several processes share them."""
    from xdist.scheduler import LoadScopeScheduling  # noqa: PLC0415 - only where it is at work

    # Its own order would be by the number of tests.
    config.option.loadscopereorder = False
    scheduling = LoadScopeScheduling(config, log)
    scheduling._split_scope = _unit
    return scheduling


def _unit(nodeid: str) -> str:
    """All files with tests of the run-wide cluster, so that there is one, or the test's file."""
    file = nodeid.partition("::")[0]
    return "ray" if _uses_cluster(file) else file


@cache
def _uses_cluster(file: str) -> bool:
    return "pytest.mark.ray" in (ROOT / file).read_text("utf-8")


@pytest.fixture(scope="session")
def adapter_library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folder of named adapters, empty at first: of this process and of those that it starts."""
    folder = tmp_path_factory.mktemp("adapters")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYREEL_ADAPTERS", str(folder))
        yield folder


@pytest.fixture(scope="session")
def ray_cluster(adapter_library: Path) -> Iterator[None]:
    """One local Ray cluster for the whole run, whose workers know the library."""
    import ray  # noqa: PLC0415 - reads the settings above when it is imported

    ray.init(
        address="local",
        num_cpus=8,
        include_dashboard=False,
        object_store_memory=256 * 2**20,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One S3 server for the whole run; this process and those that it starts find it by itself."""
    server = S3Server(tmp_path_factory.mktemp("s3"))
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
            patch.delenv(name, raising=False)
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server
    server.stop()


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout."""
    return ROOT
