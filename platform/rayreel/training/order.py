"""Which samples make up which optimiser step; depends on shapes, batch size, seed and epoch alone.

Letters: N samples, B samples of a step.
"""

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray

from rayreel.training.shapes import SampleShape
from rayreel.types import seeded_generator


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the order of all epochs.

    Attributes:
        epoch: From 0.
        step: Within the epoch, from 0.
    """

    epoch: int = 0
    step: int = 0


class Epoch(Sequence[tuple[int, ...]]):
    """Samples of each step of an epoch, made when they are asked for: an array holds millions."""

    def __init__(self, samples: NDArray[np.int64], batch_size: int) -> None:
        """Cut samples ``(N,)`` into steps."""
        self._samples = samples
        self._batch_size = batch_size

    def __len__(self) -> int:
        """Number of steps."""
        return math.ceil(len(self._samples) / self._batch_size)

    @overload
    def __getitem__(self, step: int) -> tuple[int, ...]: ...

    @overload
    def __getitem__(self, step: slice) -> list[tuple[int, ...]]: ...

    def __getitem__(self, step: int | slice) -> tuple[int, ...] | list[tuple[int, ...]]:
        """Samples of a step, or of several."""
        if isinstance(step, slice):
            return [self[one] for one in range(*step.indices(len(self)))]
        place = range(len(self))[step] * self._batch_size
        return tuple(self._samples[place : place + self._batch_size].tolist())


class Order:
    """Steps of every epoch: each sample once, and as many steps as can be of one shape.

    What is left of the shapes when whole steps are taken out is put together to mixed steps; the
    last step of an epoch may be short.

    Attributes:
        steps_per_epoch: The same for all epochs.
    """

    def __init__(self, shapes: Sequence[SampleShape], batch_size: int, seed: int) -> None:
        """Remember which samples are of one shape.

        Args:
            shapes: Of every sample, at least one.
            batch_size: Samples B of a step, over all workers.
            seed: Of the run.

        Raises:
            ValueError: If there are no samples.
        """
        if not shapes:
            raise ValueError("there are no samples to put in order")
        numbers: dict[Hashable, int] = {}
        self._shapes = np.fromiter(
            (numbers.setdefault(shape.key, len(numbers)) for shape in shapes),
            dtype=np.int64,
            count=len(shapes),
        )
        self._batch_size = batch_size
        self._seed = seed
        self.steps_per_epoch = math.ceil(len(shapes) / batch_size)

    def epoch(self, number: int) -> Epoch:
        """Steps of an epoch, from 0."""
        generator = seeded_generator(self._seed, f"epoch{number}/order")

        def shuffled(length: int) -> NDArray[np.int64]:
            return torch.randperm(length, generator=generator).numpy()

        samples = shuffled(len(self._shapes))
        samples = samples[np.argsort(self._shapes[samples], kind="stable")]
        shapes, size = self._shapes[samples], self._batch_size
        counts = np.bincount(shapes)
        within = np.arange(len(samples)) - (np.cumsum(counts) - counts)[shapes]
        alike = within < (counts // size * size)[shapes]
        ordered = np.concatenate([samples[alike], samples[~alike]])
        whole = len(ordered) // size * size
        steps = ordered[:whole].reshape(-1, size)
        # A step that is short comes last: the epoch's length is the same then, wherever one begins.
        ordered[:whole] = steps[shuffled(len(steps))].reshape(-1)
        return Epoch(ordered, size)

    def steps(self, position: Position) -> Iterator[tuple[Position, tuple[int, ...]]]:
        """Steps from a position on, for ever, with their positions.

        Raises:
            ValueError: If epochs have no such step.
        """
        start = position.step
        if not 0 <= start < self.steps_per_epoch:
            raise ValueError(
                f"step {start} of an epoch should be from 0 to {self.steps_per_epoch - 1}"
            )
        for number in count(position.epoch):
            epoch = self.epoch(number)
            for step in range(start, len(epoch)):
                yield Position(number, step), epoch[step]
            start = 0

    def after(self, position: Position, steps: int = 1) -> Position:
        """Where an order is that many steps after a position."""
        step = position.epoch * self.steps_per_epoch + position.step + steps
        return Position(*divmod(step, self.steps_per_epoch))
