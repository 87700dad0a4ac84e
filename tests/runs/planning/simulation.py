"""A render pass as a queueing network: actors as servers, bounded queues between their pools."""

import random
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import simpy

from rayreel.runs.planning.replicas import Load

Draw = Callable[[float], float]


def steady(mean: float) -> float:
    """Always the mean."""
    return mean


def varying(seed: int, deviation: float = 0.3) -> Draw:
    """Gamma around the mean; ``deviation`` is relative."""
    source, shape = random.Random(seed), deviation**-2
    return lambda mean: source.gammavariate(shape, mean / shape) if mean else 0.0


@dataclass(frozen=True)
class Outcome:
    """When each clip was done, in order."""

    done: list[float]

    @property
    def seconds(self) -> float:
        return self.done[-1]

    @property
    def throughput(self) -> float:
        """Rate of the clips between the first tenth and the last."""
        first, last = len(self.done) // 10, len(self.done) * 9 // 10
        return (last - first) / (self.done[last] - self.done[first])


def simulate(
    clips: Sequence[Mapping[str, float]],
    loads: Sequence[Load],
    replicas: Mapping[str, int],
    draw: Draw = steady,
    waiting: int = 2,
) -> Outcome:
    """Send clips through pools.

    Args:
        clips: Mean seconds of each clip by stage, in the order that they start.
        loads: The pools, in order.
        replicas: Actors by pool.
        draw: Seconds for a mean.
        waiting: Clips per actor that may wait in front of a pool.
    """
    world = simpy.Environment()
    queues = [simpy.Store(world, waiting * replicas[load.name]) for load in loads]
    done: list[float] = []

    def source() -> Generator[simpy.Event, Any, None]:
        for clip in clips:
            yield queues[0].put(clip)

    def actor(index: int) -> Generator[simpy.Event, Any, None]:
        while True:
            clip = yield queues[index].get()
            yield world.timeout(draw(clip[loads[index].name]))
            if index + 1 < len(loads):
                yield queues[index + 1].put(clip)
            else:
                done.append(world.now)

    world.process(source())
    for index, load in enumerate(loads):
        for _ in range(replicas[load.name]):
            world.process(actor(index))
    world.run()
    assert len(done) == len(clips)
    return Outcome(done)
