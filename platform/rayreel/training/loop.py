"""The training loop: fetch, forward, loss, backward, clip, step, log.

The same for one process and for many, on any launcher; what is special to a run is in ``Work``.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rayreel.config.train import TrainSpec
from rayreel.errors import RayreelError
from rayreel.pipelines.devices import Device
from rayreel.training.contexts import Contexts
from rayreel.training.example import Batch
from rayreel.training.forward import modalities
from rayreel.training.group import Group
from rayreel.training.loading import LoadedStep, Loader
from rayreel.training.objective import StreamLosses, losses
from rayreel.training.optimizers import learning_rate
from rayreel.training.parallel import accumulating, clip_gradients, sum_gradients
from rayreel.training.state import TrainState
from rayreel.training.sums import StepSums
from rayreel.training.teacher import Teacher
from rayreel.training.utilisation import memory_gib


@dataclass(frozen=True, kw_only=True)
class Work:
    """What the loop works with, in each process of the group.

    Attributes:
        spec: Of the run.
        group: Processes that train together.
        model: That learns.
        contexts: Reads texts for it.
        teacher: Says what it should predict, instead of the data.
        state: Everything that is needed to go on.
        loader: Gives this process its batches.
        device: Where the run computes, and in which dtype.
        flops: Of forward and backward pass of a batch, without those of a teacher.
        peak: FLOP/s of this machine's matrix products in that dtype.
    """

    spec: TrainSpec
    group: Group
    model: nn.Module
    contexts: Contexts
    teacher: Teacher | None
    state: TrainState
    loader: Loader
    device: Device
    flops: Callable[[Batch], int]
    peak: float


def train_steps(work: Work) -> Iterator[dict[str, Any]]:
    """Train up to the last step of the spec; a value for each optimiser step, once it is done.

    Yields:
        A line of the metrics, the same in all processes but for its times.

    Raises:
        RayreelError: If a loss is not finite; the weights are those of before the step.
    """
    state, last = work.state, work.spec.optimization.steps
    if state.step >= last:
        return
    steps = work.loader.steps(state.position, state.step)
    try:
        while state.step < last:
            began = time.monotonic()
            loaded = next(steps)
            line = _optimise(work, loaded)
            state.step, state.position = loaded.step + 1, loaded.next_position
            state.samples += len(loaded.samples)
            # Whatever is done with it, such as a validation, is no part of the next step.
            yield _with_speed(line, work, time.monotonic() - began)
    finally:
        steps.close()


def _optimise(work: Work, loaded: LoadedStep) -> dict[str, Any]:
    """One optimiser step."""
    spec, state, model = work.spec.optimization, work.state, work.model
    rate = learning_rate(state.step, spec)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.optimizer.zero_grad(set_to_none=True)
    sums, passes = StepSums(work.group.device), _Waited(loaded.passes)
    for number, (loaded_batch, weight) in enumerate(passes, start=1):
        batch = loaded_batch.to(work.group.device)
        with accumulating(model, last=number == loaded.num_passes):
            found = _losses(work, batch)
            # Gradients of all processes are added up.
            torch.autograd.backward(found.total.sum() * (weight / len(loaded.samples)))
        if weight:
            sums.add(found, batch, work.flops(batch))
    sums.reduce(work.group)
    _check(sums.loss, work, loaded)
    sum_gradients(state.parameters, work.group)
    norm = clip_gradients(state.parameters, spec.max_grad_norm, work.group)
    state.optimizer.step()
    if state.ema:
        state.ema.update(state.step)
    return {
        "step": loaded.step + 1,
        "epoch": loaded.position.epoch,
        "samples": list(loaded.samples),
        **sums.losses(),
        "learning_rate": rate,
        "grad_norm": norm,
        "tokens": sums.tokens,
        "flops": sums.flops,
        "wait_seconds": passes.seconds,
    }


def _losses(work: Work, batch: Batch) -> StreamLosses:
    """Losses of the samples of one pass."""
    contexts = work.contexts.of(batch)
    if work.teacher:
        batch = work.teacher.taught(batch, contexts)
    video, audio = work.model(*modalities(batch, contexts, work.device.torch_dtype))
    return losses(video, audio, batch)


def _check(loss: float, work: Work, loaded: LoadedStep) -> None:
    if not math.isfinite(loss):
        spec = work.spec.optimization
        raise RayreelError(
            f"the loss of step {loaded.step + 1} is {loss} (samples "
            f"{', '.join(map(str, loaded.samples[:8]))}); lower optimization.learning_rate "
            f"({spec.learning_rate:g}) or set optimization.max_grad_norm, in another output: the "
            "last checkpoint is as it was"
        )


def _with_speed(line: dict[str, Any], work: Work, seconds: float) -> dict[str, Any]:
    """The line of a step that took so long."""
    flops_per_s = line.pop("flops") / seconds
    return {
        **line,
        "seconds": seconds,
        "tokens_per_s": line["tokens"] / seconds,
        "flops_per_s": flops_per_s,
        "utilisation": flops_per_s / (work.peak * work.group.world),
        "memory_gib": memory_gib(work.group.device),
        "time": time.time(),
    }


class _Waited:
    """The passes of a step, and how long they were waited for."""

    def __init__(self, passes: Iterator[tuple[Batch, float]]) -> None:
        self.seconds = 0.0
        self._passes = passes

    def __iter__(self) -> Iterator[tuple[Batch, float]]:
        while True:
            start = time.monotonic()
            found = next(self._passes, None)
            self.seconds += time.monotonic() - start
            if found is None:
                return
            yield found
