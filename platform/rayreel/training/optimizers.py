"""Optimisers, and the learning rate at each step."""

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from rayreel.config.train import OptimizationSpec
from rayreel.errors import SpecError
from rayreel.training.lowbit import adamw8bit
from rayreel.training.muon import Muon


def optimizer_for(parameters: Sequence[nn.Parameter], spec: OptimizationSpec) -> Optimizer:
    """The optimiser of a spec, for weights that learn, all in one group; raises ``SpecError``."""
    if spec.optimizer == "adamw8bit":
        return adamw8bit(
            parameters,
            learning_rate=spec.learning_rate,
            betas=spec.betas,
            weight_decay=spec.weight_decay,
        )
    if spec.optimizer == "muon":
        return Muon(
            parameters,
            learning_rate=spec.learning_rate,
            betas=spec.betas,
            weight_decay=spec.weight_decay,
        )
    return AdamW(
        parameters, lr=spec.learning_rate, betas=spec.betas, weight_decay=spec.weight_decay
    )


@torch.no_grad()
def make_state(optimizer: Optimizer) -> None:
    """Give an optimiser the state that it would make in its first step, as it is before that.

    There is nothing to load values into otherwise. An optimiser that has its state keeps it.
    """
    if optimizer.state:
        return
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    gradients = [one.grad for one in parameters]
    rates = [group["lr"] for group in optimizer.param_groups]
    for one in parameters:
        one.grad = torch.zeros_like(one)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    # Neither a gradient of zeros nor weight decay moves a weight at a rate of 0.
    optimizer.step()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    for one, gradient in zip(parameters, gradients, strict=True):
        one.grad = gradient
        optimizer.state[one]["step"].zero_()


def learning_rate(step: int, spec: OptimizationSpec) -> float:
    """Rate of a step, which no number of workers changes.

    It rises over the warm-up, and follows the schedule over the steps that are left.

    Args:
        step: Steps done before, from 0.
        spec: Of the run.

    Raises:
        SpecError: As ``check_schedule`` does.

    Reference:
        The classes of the same names in ``torch.optim.lr_scheduler``.
    """
    schedule, values = _schedule(spec)
    if step < spec.warmup:
        return spec.learning_rate * (step + 1) / (spec.warmup + 1)
    return schedule.rate(step - spec.warmup, spec.learning_rate, values)


def check_schedule(spec: OptimizationSpec) -> None:
    """Refuse parameters that a schedule does not have, or that make no sense.

    Raises:
        SpecError: Names the parameter, and those that there are.
    """
    _schedule(spec)


Values = Mapping[str, float]


@dataclass(frozen=True)
class _Schedule:
    """Rate over the steps after the warm-up.

    Attributes:
        rate: Of a step, the full rate and the parameters.
        defaults: Parameters as they usually are, for a number of steps.
    """

    rate: Callable[[int, float, Values], float]
    defaults: Callable[[int], dict[str, float]]


def _linear(step: int, full: float, values: Values) -> float:
    done = min(step / values["total_iters"], 1.0)
    start, end = values["start_factor"], values["end_factor"]
    return full * (start + (end - start) * done)


def _cosine(step: int, full: float, values: Values) -> float:
    low = values["eta_min"]
    return low + (full - low) * (1 + math.cos(math.pi * step / values["T_max"])) / 2


def _restarting_cosine(step: int, full: float, values: Values) -> float:
    length, growth = values["T_0"], values["T_mult"]
    while step >= length:
        step, length = step - int(length), length * growth
    return _cosine(step, full, {"eta_min": values["eta_min"], "T_max": length})


def _polynomial(step: int, full: float, values: Values) -> float:
    left = 1 - min(step / values["total_iters"], 1.0)
    return float(full * left ** values["power"])


def _stairs(step: int, full: float, values: Values) -> float:
    return float(full * values["gamma"] ** (step // values["step_size"]))


_SCHEDULES: Mapping[str, _Schedule] = {
    "constant": _Schedule(lambda _, full, __: full, lambda _: {}),
    "linear": _Schedule(
        _linear, lambda steps: {"start_factor": 1.0, "end_factor": 0.1, "total_iters": steps}
    ),
    "cosine": _Schedule(_cosine, lambda steps: {"T_max": steps, "eta_min": 0.0}),
    "cosine_with_restarts": _Schedule(
        _restarting_cosine, lambda steps: {"T_0": steps // 4, "T_mult": 1, "eta_min": 5e-5}
    ),
    "polynomial": _Schedule(_polynomial, lambda steps: {"power": 1.0, "total_iters": steps}),
    "step": _Schedule(_stairs, lambda steps: {"step_size": steps // 2, "gamma": 0.1}),
}
_COUNTS = {"total_iters", "T_max", "T_0", "T_mult", "step_size"}


def _schedule(spec: OptimizationSpec) -> tuple[_Schedule, Values]:
    """The schedule of a spec, with its parameters."""
    schedule = _SCHEDULES[spec.schedule]
    usual = schedule.defaults(max(spec.steps - spec.warmup, 1))
    for name, value in spec.schedule_params.items():
        if name not in usual:
            raise SpecError(_unknown(spec.schedule, name, list(usual)))
        if name in _COUNTS and (value < 1 or value != int(value)):
            raise SpecError(
                f"optimization.schedule_params.{name}={value:g} must be a whole number from 1"
            )
    values = usual | spec.schedule_params
    low = values.get("eta_min", 0.0)
    if low > spec.learning_rate:
        raise SpecError(
            f"schedule {spec.schedule} would raise optimization.learning_rate "
            f"({spec.learning_rate:g}) to its eta_min ({low:g}); set optimization.schedule_params."
            f"eta_min to less than {spec.learning_rate:g}"
        )
    # A quarter of very few steps is none.
    return schedule, {n: max(v, 1) if n in _COUNTS else v for n, v in values.items()}


def _unknown(schedule: str, name: str, known: Sequence[str]) -> str:
    if not known:
        return f"schedule {schedule} has no parameters, but schedule_params has {name!r}"
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return (
        f"optimization.schedule_params has {name!r}, which schedule {schedule} does not have; "
        f"expected {', '.join(known)}{hint}"
    )
