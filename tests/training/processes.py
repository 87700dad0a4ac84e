"""Functions run by two processes that know each other, as a launcher would start them."""

import multiprocessing
import os
import socket
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from typing import Any, TypeVar
from unittest.mock import patch

import torch

T = TypeVar("T")

WORLD = 2
_TIMEOUT_S = 300


def in_two_processes(function: Callable[..., T], *arguments: Any) -> list[T]:
    """What a function returns in each of two processes.

    Args:
        function: Of a module; it finds the other process by ``joined``.
        arguments: Picklable.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pools = _pools()
    try:
        waiting = [
            pool.submit(_as_rank, rank, port, function, arguments)
            for rank, pool in enumerate(pools)
        ]
        return [future.result(timeout=_TIMEOUT_S) for future in waiting]
    except BaseException:
        # The other one may wait for ever for the one that failed.
        for pool in pools:
            for process in pool._processes.values():
                process.kill()
        _pools.cache_clear()
        raise


@cache
def _pools() -> list[ProcessPoolExecutor]:
    """Two processes for all tests: each takes seconds to import what it needs.

    Each keeps its rank, as PyTorch remembers what it has found of a mesh, which part is its own.
    """
    context = multiprocessing.get_context("spawn")
    return [ProcessPoolExecutor(1, mp_context=context) for _ in range(WORLD)]


def _as_rank(rank: int, port: int, function: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    torch.set_num_threads(1)
    torch.manual_seed(rank)
    variables = {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(WORLD),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    with patch.dict(os.environ, variables), warnings.catch_warnings():
        warnings.simplefilter("error")
        return function(*arguments)
