"""Joining a Ray cluster, and asking what it has."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ray

from rayreel.errors import ClusterError

_OWN_CLUSTER = {
    # On the loopback it needs no token.
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    # A process per CPU, started in advance, would hold up the few that a job needs.
    "RAY_prestart_worker_first_driver": "0",
}

_ASK_S = 60.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Node:
    """Logical resources of one node, held or not.

    Attributes:
        cpus: CPUs.
        gpus: GPUs.
        resources: Names of its other resources.
    """

    cpus: float
    gpus: float
    resources: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Capacity:
    """Logical resources of the cluster.

    Attributes:
        cpus: CPUs that no running job holds.
        gpus: GPUs that no running job holds.
        nodes: All that are alive.
    """

    cpus: float
    gpus: float
    nodes: tuple[Node, ...]


@contextmanager
def connected() -> Iterator[None]:
    """Join the cluster that runs this process, or start one on this machine and end it afterwards.

    A process started by ``ray job submit`` or with ``RAY_ADDRESS`` set joins that cluster; one that
    is connected already stays so.

    Raises:
        ClusterError: If the named cluster does not answer.
    """
    if ray.is_initialized():
        yield
        return
    # Ray's native code complains on the terminal about every pool of actors that may restart, as
    # Ray Data keeps their arguments in the object store. What is serious is raised as well.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    address = os.environ.get("RAY_ADDRESS")
    try:
        if address:
            with _without_native_stderr():
                ray.init(address=address, logging_level=logging.WARNING)
        else:
            for name, value in _OWN_CLUSTER.items():
                os.environ.setdefault(name, value)
            with _without_native_stderr():
                ray.init(
                    address="local",
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
    except Exception as error:
        # Of whatever class: a node that is too slow to start raises a bare one.
        raise ClusterError(f"no Ray cluster at {address or 'this machine'}: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


def capacity() -> Capacity:
    """What the connected cluster has."""
    free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    return Capacity(
        cpus=free.get("CPU", 0),
        gpus=free.get("GPU", 0),
        nodes=tuple(
            Node(node.get("CPU", 0.0), node.get("GPU", 0.0), frozenset(node)) for node in nodes
        ),
    )


def accelerator(free: Capacity) -> tuple[str, int] | None:
    """Name and bytes of memory of the cluster's GPUs, as one of its nodes sees them.

    Nodes are taken to be alike. ``None`` where there is no GPU, or where none can be asked within a
    minute.

    Args:
        free: What the cluster has.
    """
    if not free.gpus:
        return None
    question = ray.remote(_see_gpu).options(num_cpus=0, num_gpus=min(free.gpus, 0.01))
    try:
        found: tuple[str, int] | None = ray.get(question.remote(), timeout=_ASK_S)
    except ray.exceptions.RayError as error:
        log.warning("the cluster's GPUs cannot be looked at: %s", type(error).__name__)
        return None
    return found


def _see_gpu() -> tuple[str, int] | None:
    import torch  # noqa: PLC0415 - where it runs, not where it is asked

    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(0)
    return properties.name, properties.total_memory


@contextmanager
def _without_native_stderr() -> Iterator[None]:
    """Hold back what native code writes: Ray announces there that it was told to be quiet."""
    sys.stderr.flush()
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)
