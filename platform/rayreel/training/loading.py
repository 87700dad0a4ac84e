"""Reads ahead what the next steps of a worker need: threads make batches, in order."""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import tee

from rayreel.config.train import TrainDataSpec
from rayreel.data.columns import TrainingSample
from rayreel.training.dataset import TrainingData
from rayreel.training.example import Batch, Draws, stacked
from rayreel.training.order import Order, Position
from rayreel.training.passes import Pass, passes

Make = Callable[[TrainingSample, Draws], Batch]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedStep:
    """One optimiser step of a worker.

    Attributes:
        step: Optimiser steps that were done before it.
        position: Its own.
        next_position: Where training goes on after it.
        samples: Of all workers.
        num_passes: Of this worker, as many as of any other one.
        passes: Batches of this worker, and the weight of their losses: 1, or 0 for one that is
            there for company. To be taken once, and all of them before the next step is asked for.
    """

    step: int
    position: Position
    next_position: Position
    samples: tuple[int, ...]
    num_passes: int
    passes: Iterator[tuple[Batch, float]]


@dataclass(frozen=True, slots=True)
class _Planned:
    """A step before anything of it is read."""

    step: int
    position: Position
    samples: tuple[int, ...]
    passes: list[Pass]


class Loader:
    """What one worker trains on, step by step."""

    def __init__(
        self,
        data: TrainingData,
        make: Make,
        order: Order,
        *,
        seed: int,
        spec: TrainDataSpec,
        rank: int,
        world: int,
        micro_batch: int | None,
    ) -> None:
        """Keep the arguments; reads nothing yet.

        Args:
            data: Samples by number.
            make: Makes a batch of one sample; called from many threads.
            order: Of the samples.
            seed: Of the run.
            spec: How far to read ahead.
            rank: Number of this worker, from 0.
            world: Workers.
            micro_batch: Samples of a pass, at most.
        """
        self._data = data
        self._make = make
        self._order = order
        self._seed = seed
        self._spec = spec
        self._rank = rank
        self._world = world
        self._micro_batch = micro_batch

    def steps(self, position: Position, step: int) -> Generator[LoadedStep, None, None]:
        """Steps from a position on, for ever; whoever is done closes it, and its threads end.

        Args:
            position: Of the first one.
            step: Optimiser steps that were done before it.

        Raises:
            RayreelError: If a sample cannot be read; raised where its batch is asked for, as
                whatever else goes wrong in a thread.
        """
        threads = ThreadPoolExecutor(self._spec.loaders, thread_name_prefix="loader")
        mine, ahead = tee(self._planned(position, step))
        to_read = ((planned, one) for planned in ahead for one in planned.passes)
        reading: deque[Future[Batch]] = deque()

        def read_ahead() -> None:
            while len(reading) < self._spec.ahead:
                reading.append(threads.submit(self._batch, *next(to_read)))

        def taken(planned: _Planned) -> Iterator[tuple[Batch, float]]:
            for one in planned.passes:
                found = reading.popleft()
                # Before it is waited for, so that no thread has nothing to do.
                read_ahead()
                yield found.result(), one.weight

        try:
            for planned in mine:
                read_ahead()
                batches = taken(planned)
                yield LoadedStep(
                    step=planned.step,
                    position=planned.position,
                    next_position=self._order.after(planned.position),
                    samples=planned.samples,
                    num_passes=len(planned.passes),
                    passes=batches,
                )
                if next(batches, None) is not None:
                    raise ValueError(f"not all passes of step {planned.step} were taken")
        finally:
            threads.shutdown(wait=True, cancel_futures=True)

    def _planned(self, position: Position, step: int) -> Iterator[_Planned]:
        for number, (place, samples) in enumerate(self._order.steps(position), start=step):
            shares = passes(samples, self._data.shapes, self._world, self._micro_batch)
            yield _Planned(number, place, samples, shares[self._rank])

    def _batch(self, planned: _Planned, one: Pass) -> Batch:
        return stacked([self._example(planned, number) for number in one.samples])

    def _example(self, planned: _Planned, number: int) -> Batch:
        draws = Draws(
            seed=self._seed, epoch=planned.position.epoch, step=planned.step, sample=number
        )
        try:
            return self._make(self._data.sample(number), draws)
        except Exception as error:
            error.add_note(f"sample {number} of {self._data.uri}, step {planned.step}")
            raise
