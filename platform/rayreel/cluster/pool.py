"""Pools of actors: what they hold, what they take, and whether the cluster has it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from rayreel.cluster.connect import Capacity
from rayreel.data.ledger import Ledger
from rayreel.errors import ClusterError
from rayreel.stages.base import Stage


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Actors that hold the same stages.

    Attributes:
        stages: What each actor does to a batch, in order.
        replicas: Actors, at least.
        max_replicas: Actors, at most.
        batch_size: Items of one call, at most; ``None`` takes batches as they come.
        cpus: Logical CPUs of one actor; also how many threads it computes with.
        gpus: GPUs of one actor.
        node: Custom resource that its nodes have; ``None`` for any node.
        ledger: Where it records what it finishes, if it does.
    """

    stages: tuple[Stage[Any], ...]
    replicas: int
    max_replicas: int
    batch_size: int | None
    cpus: float
    gpus: float
    node: str | None = None
    ledger: Ledger | None = None

    @property
    def name(self) -> str:
        """The stages' names, joined."""
        return "+".join(stage.name for stage in self.stages)

    def for_batches(self, count: int) -> "Pool":
        """The pool without actors that would have nothing to do.

        Args:
            count: Batches, each of which one actor works on.
        """
        most = max(1, count)
        return replace(
            self,
            replicas=min(self.replicas, most),
            max_replicas=min(self.max_replicas, most),
        )


def preflight(pools: Sequence[Pool], free: Capacity) -> None:
    """Refuse a job that would wait for ever.

    Raises:
        ClusterError: Naming the pool that does not fit any more, and what is missing.
    """
    cpus, gpus = free.cpus, free.gpus
    for pool in pools:
        actor = f"({pool.cpus:g} CPU, {pool.gpus:g} GPU)"
        if not any(
            node.cpus >= pool.cpus
            and node.gpus >= pool.gpus
            and (pool.node is None or pool.node in node.resources)
            for node in free.nodes
        ):
            where = f" that has the resource {pool.node!r}" if pool.node else ""
            raise ClusterError(
                f"no node of the cluster{where} can hold stage {pool.name}: an actor takes "
                f"{actor}; lower 'cpus' or 'gpus' of the stage{', or name another' * bool(where)}"
            )
        cpus -= pool.replicas * pool.cpus
        gpus -= pool.replicas * pool.gpus
        if cpus < -1e-6 or gpus < -1e-6:
            raise ClusterError(
                f"the cluster cannot hold stage {pool.name}: {pool.replicas} x {actor} after the "
                f"stages before it, of {free.cpus:g} CPU and {free.gpus:g} GPU free; lower "
                "'replicas', 'cpus' or 'gpus' of the stage"
            )
