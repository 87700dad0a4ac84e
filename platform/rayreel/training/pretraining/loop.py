"""From a step to the next one, for any network that learns from scratch by itself."""

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch

from rayreel.config.pretrain import PretrainSpec
from rayreel.data.storage import Storage
from rayreel.errors import RayreelError
from rayreel.training.checkpoints import Checkpoints
from rayreel.training.group import Group, joined
from rayreel.training.optimizers import learning_rate
from rayreel.training.parallel import clip_gradients
from rayreel.training.pretraining.part import Part
from rayreel.training.state import TrainState
from rayreel.training.tracking import MetricLog

Told = Callable[[Mapping[str, Any]], None]
"""Given each line of the metrics."""


def pretrain(spec: PretrainSpec, part: Part, told: Told) -> None:
    """Train a network from its last checkpoint to the last step.

    A step depends on the seed, its number and the weights alone: a run that was stopped ends as one
    that was not.

    Args:
        spec: Of the run; its output is nobody else's meanwhile.
        part: The network, freshly made.
        told: Told of every step.

    Raises:
        RayreelError: If a loss is not finite.
        CheckpointError: If the last checkpoint is of another network.
        StorageError: If the run directory does not answer.
    """
    storage, optimization = Storage(spec.output), spec.optimization
    with joined("cpu") as group:
        checkpoints = Checkpoints(storage, group, keep_last=1)
        begun = checkpoints.latest() is not None
        if not begun:
            part.begin()
        # Averages begin with the weights that there are.
        state = TrainState(part.network, optimization, group)
        if begun:
            checkpoints.load(state)
        log = MetricLog(storage)
        log.resume(state.step)
        try:
            while state.step < spec.steps:
                line = _step(spec, part, state, group)
                log.log(line)
                told(line)
                if state.step % spec.checkpoint_interval == 0:
                    log.cut(state.step)
                    checkpoints.save(state)
        except KeyboardInterrupt:
            checkpoints.save(state)
            raise
        finally:
            checkpoints.finish()
            log.close("stopped")
        with state.ema.applied() if state.ema else nullcontext():
            part.write(storage)


def _step(spec: PretrainSpec, part: Part, state: TrainState, group: Group) -> dict[str, Any]:
    began, stretch = time.monotonic(), spec.stretch(state.step)
    rate = learning_rate(state.step, spec.optimization)
    for weights in state.optimizer.param_groups:
        weights["lr"] = rate
    state.optimizer.zero_grad(set_to_none=True)
    found = part.losses(state.step, stretch)
    torch.autograd.backward(found["loss"])
    told = {name: float(value.detach()) for name, value in found.items()}
    if not torch.isfinite(found["loss"]):
        raise RayreelError(
            f"the loss of step {state.step + 1} is {told['loss']}; lower "
            f"optimization.learning_rate ({spec.optimization.learning_rate:g}), in another output"
        )
    norm = clip_gradients(state.parameters, spec.optimization.max_grad_norm, group)
    state.optimizer.step()
    if state.ema:
        state.ema.update(state.step)
    state.step += 1
    state.samples += stretch.batch_size
    return {
        "step": state.step,
        **told,
        "learning_rate": rate,
        "grad_norm": norm,
        "tokens": stretch.batch_size,
        "seconds": time.monotonic() - began,
    }
