"""Joining a Ray cluster, and asking what it has."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ray

from rayreel.errors import ClusterError


@dataclass(frozen=True)
class Capacity:
    """Logical resources of the cluster that no running job holds."""

    cpus: float
    gpus: float


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
    address = os.environ.get("RAY_ADDRESS")
    try:
        if address:
            ray.init(address=address, log_to_driver=True)
        else:
            # A cluster of our own on the loopback needs no token, and nobody sees its dashboard.
            os.environ.setdefault("RAY_AUTH_MODE", "disabled")
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            ray.init(
                address="local",
                include_dashboard=False,
                log_to_driver=False,
                configure_logging=True,
                logging_level=logging.ERROR,
            )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ClusterError(f"no Ray cluster at {address or 'this machine'}: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


def capacity() -> Capacity:
    """What the connected cluster has free."""
    free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
    return Capacity(cpus=free.get("CPU", 0), gpus=free.get("GPU", 0))
