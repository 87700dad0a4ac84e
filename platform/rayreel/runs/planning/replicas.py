"""How many actors each stage gets, so that the cluster makes as many clips per second as it can."""

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

# Shares of a CPU are rounded, and so are rates.
_EPSILON = 1e-9
# Fused actors have less that can go wrong, and no stage that idles when shapes change.
_FUSED_PREFERRED = 0.95
_FOLLOWED = 1000

Placement = Literal["fused", "split"]
PLACEMENTS: tuple[Placement, ...] = ("split", "fused")


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What a cluster has, in plain numbers.

    Attributes:
        cpus: CPUs that no running job holds.
        gpus: GPUs that no running job holds.
        nodes: CPUs and GPUs of each node, held or not.
        host_bytes: Memory of each node, where it shall count.
    """

    cpus: float
    gpus: float
    nodes: tuple[tuple[float, float], ...]
    host_bytes: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a pool of actors has to do.

    Attributes:
        name: Of the stage, or of several in one actor.
        seconds: Of an actor for a clip, on average over all clips; those that skip the stage count
            with nothing. More than 0.
        cpus: CPUs of one actor.
        gpus: GPUs of one actor.
        host_bytes: Memory of the node that one actor takes.
        least: Actors, at least.
        most: Actors, at most; ``None`` for as many as there is room for.
    """

    name: str
    seconds: float
    cpus: float
    gpus: float
    host_bytes: float = 0
    least: int = 1
    most: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """Actors for each pool, and what they come to.

    Attributes:
        replicas: Actors by pool.
        throughput: Clips per second once all pools have work.
        bottleneck: Pool that limits it.
        utilisation: Share of the time that the actors of a pool work.
    """

    replicas: dict[str, int]
    throughput: float
    bottleneck: str
    utilisation: dict[str, float]


def fits(loads: Sequence[Load], replicas: Mapping[str, int], room: Room) -> bool:
    """Whether a cluster can hold so many actors.

    Nodes are filled one after the other, the largest actors first; those without a GPU go to nodes
    without one first. A cluster that could hold them in some cleverer order may so be refused.
    """
    if sum(replicas[load.name] * load.cpus for load in loads) > room.cpus + _EPSILON:
        return False
    if sum(replicas[load.name] * load.gpus for load in loads) > room.gpus + _EPSILON:
        return False
    free = [[cpus, gpus, room.host_bytes] for cpus, gpus in sorted(room.nodes, key=lambda n: n[1])]
    for load in sorted(loads, key=lambda one: (-one.gpus, -one.cpus, -one.host_bytes)):
        left = replicas[load.name]
        for node in free:
            count = min(left, _count(load, node))
            for index, amount in enumerate(_amounts(load)):
                node[index] -= count * amount
            left -= count
        if left:
            return False
    return True


def split_replicas(loads: Sequence[Load], room: Room) -> Allocation | None:
    """Actors for stages with a pool each: the highest throughput, with no actor more than it needs.

    It starts from the least and gives an actor to every slowest pool, until one more does not fit.
    That is the best there is: an allocation that is faster than the present one has at least these
    actors, as each pool needs ``ceil(throughput * seconds)`` and so more for a higher throughput.

    Args:
        loads: The stages that some clips go through.
        room: The cluster.

    Returns:
        ``None`` if not even the least fits.
    """
    replicas = {load.name: load.least for load in loads}
    if not fits(loads, replicas, room):
        return None
    while True:
        rates = {load.name: replicas[load.name] / load.seconds for load in loads}
        slowest = min(rates.values()) * (1 + _EPSILON)
        more = {load.name: replicas[load.name] + (rates[load.name] <= slowest) for load in loads}
        limited = any(load.most is not None and more[load.name] > load.most for load in loads)
        if limited or not fits(loads, more, room):
            return allocation(loads, replicas)
        replicas = more


def pool_replicas(load: Load, room: Room, enough: int | None = None) -> Allocation | None:
    """Actors for a single pool that has the cluster to itself: as many as fit.

    Args:
        load: The pool.
        room: The cluster.
        enough: Actors that there is work for.

    Returns:
        ``None`` if not even the least fits.
    """
    if not fits([load], {load.name: load.least}, room):
        return None
    limits = [limit for limit in (load.most, enough) if limit is not None]
    count, most = load.least, min(limits, default=None)
    while (most is None or count < most) and fits([load], {load.name: count + 1}, room):
        count += 1
    return allocation([load], {load.name: count})


def allocation(loads: Sequence[Load], replicas: Mapping[str, int]) -> Allocation:
    """What given numbers of actors come to.

    Args:
        loads: All pools that clips go through.
        replicas: Actors by pool.
    """
    rates = {load.name: replicas[load.name] / load.seconds for load in loads}
    bottleneck = min(rates, key=lambda name: rates[name])
    throughput = rates[bottleneck]
    return Allocation(
        replicas=dict(replicas),
        throughput=throughput,
        bottleneck=bottleneck,
        utilisation={name: throughput / rate for name, rate in rates.items()},
    )


def choose_placement(
    options: Mapping[Placement, Allocation | None], unfit: Mapping[Placement, str]
) -> tuple[Placement, str]:
    """The better of both; fused where it is about as fast.

    Args:
        options: Both placements; ``None`` where the cluster cannot hold the actors.
        unfit: Placements that a device has too little memory for, and why.

    Returns:
        The placement and the reason, a sentence. With neither possible it is ``split``, whose
        actors are the smaller ones.
    """
    out: dict[Placement, str] = {}
    for name, found in options.items():
        if name in unfit:
            out[name] = unfit[name]
        elif found is None:
            out[name] = "the cluster cannot hold its actors"
    told: dict[Placement, str] = {
        name: f"{_told(found)} clips/s" for name, found in options.items() if found
    }
    split, fused = options["split"], options["fused"]
    if len(out) == 2:
        return "split", f"neither placement fits: split: {out['split']}; fused: {out['fused']}"
    if "split" in out or split is None:
        return "fused", f"fused: {told['fused']}; split is out: {out['split']}"
    if "fused" in out or fused is None:
        return "split", f"split: {told['split']}; fused is out: {out['fused']}"
    if fused.throughput >= _FUSED_PREFERRED * split.throughput:
        return "fused", f"fused: {told['fused']}, split: {told['split']}"
    return "split", f"split: {told['split']}, fused: {told['fused']}"


def makespan(
    loads: Sequence[Load], replicas: Mapping[str, int], *, clips: int, batch: float = 1
) -> float:
    """Seconds until the last of some clips is done.

    Args:
        loads: All pools that clips go through, in order.
        replicas: Actors by pool.
        clips: How many.
        batch: Clips of one call, on average; at least 1.
    """
    batches = math.ceil(clips / batch)
    # Followed one by one only until the line is filled: afterwards all goes at one rate.
    followed = min(batches, max(_FOLLOWED, 4 * max(replicas.values())))
    done = [0.0] * followed
    for load in loads:
        actors = [0.0] * replicas[load.name]
        for index, ready in enumerate(done):
            end = max(ready, actors[0]) + min(batch, clips) * load.seconds
            heapq.heapreplace(actors, end)
            done[index] = end
        done.sort()
    rest = (batches - followed) * batch / allocation(loads, replicas).throughput
    return max(done, default=0.0) + rest


def _told(found: Allocation) -> str:
    counts = " + ".join(str(count) for count in found.replicas.values())
    actors = "actor" if sum(found.replicas.values()) == 1 else "actors"
    return f"{counts} {actors} give {found.throughput:.3g}"


def _amounts(load: Load) -> tuple[float, float, float]:
    gpus = load.gpus
    if 0 < gpus < 1:
        # Actors that share a GPU share one: of 0.6 GPU, each takes a whole one.
        gpus = 1 / math.floor(1 / gpus + _EPSILON)
    return load.cpus, gpus, load.host_bytes


def _count(load: Load, node: Sequence[float]) -> int:
    """Actors that what is left of a node can hold; some billions stand for any number."""
    counts = [
        math.floor(have / need + _EPSILON)
        for have, need in zip(node, _amounts(load), strict=True)
        if need > 0 and have != math.inf
    ]
    return min(counts, default=2**31)
