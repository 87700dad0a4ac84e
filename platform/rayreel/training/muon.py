"""Muon: each weight matrix moves by its averaged gradient with all singular values made equal.

A network that learns from scratch needs a fraction of the steps that AdamW needs: directions that
few samples speak of are not drowned by those that all samples share. PyTorch's own class takes
matrices alone, and computes in bfloat16, which is several times slower on a CPU that has no
instructions for it.

Reference:
    Jordan et al. 2024, Muon: an optimizer for hidden layers in neural networks; Liu et al. 2025,
    arXiv:2502.16982, for the size of its steps.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from rayreel.errors import SpecError

_MOMENTUM = 0.95
_ITERATIONS = 5
# Of the polynomial, whose slope at 0 is as steep as can be while values stay about 1.
_LINEAR, _CUBIC, _QUINTIC = 3.4445, -4.7750, 2.0315
# Root mean square of a step that AdamW makes, so that both take the same rates.
_USUAL = 0.2
_EPS = 1e-8


class Muon(Optimizer):
    """Muon for weights of two dimensions and more, AdamW for vectors.

    A convolution's weights are a matrix of a row per output channel.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        learning_rate: float,
        betas: tuple[float, float],
        weight_decay: float,
    ) -> None:
        """Keep the arguments; the state is made in the first step.

        Args:
            parameters: That learn, each whole in this process.
            learning_rate: At first.
            betas: Of both moments of vectors.
            weight_decay: Share of a weight that is taken off per step, times the rate.

        Raises:
            SpecError: If weights are split over processes.
        """
        given = list(parameters)
        if any(isinstance(one, DTensor) for one in given):
            raise SpecError(
                "optimization.optimizer muon needs whole matrices, and acceleration.sharding full "
                "splits them; set acceleration.sharding: replicate, or optimizer: adamw"
            )
        usual = {"lr": learning_rate, "betas": betas, "weight_decay": weight_decay}
        super().__init__(given, usual)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override] # nothing is returned
        """Move every weight that has a gradient; in all processes of a group alike."""
        assert closure is None, "gradients are there already"
        for group in self.param_groups:
            moving = [weight for weight in group["params"] if weight.grad is not None]
            matrices = [weight for weight in moving if weight.dim() > 1]
            moves = dict(zip(matrices, shared_out(map(self._ahead, matrices)), strict=True))
            for weight in moving:
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                move = moves[weight] if weight in moves else self._vector(weight, group)
                weight.sub_(move.view_as(weight), alpha=group["lr"])

    def _ahead(self, weight: Tensor) -> Tensor:
        """Where a matrix is led: by what comes next, which is nearer than the average to now."""
        gradient = weight.grad
        assert gradient is not None, "it moves"
        average: Tensor = self._state(weight, "momentum")["momentum"]
        return gradient.lerp(average.lerp_(gradient, 1 - _MOMENTUM), _MOMENTUM).flatten(1)

    def _vector(self, weight: Tensor, group: dict[str, Any]) -> Tensor:
        gradient = weight.grad
        assert gradient is not None, "it moves"
        state, (first, second) = self._state(weight, "first", "second"), group["betas"]
        state["first"].lerp_(gradient, 1 - first)
        state["second"].lerp_(gradient.square(), 1 - second)
        steps = state["step"].item()
        spread = (state["second"] / (1 - second**steps)).sqrt_().add_(_EPS)
        move: Tensor = state["first"] / spread.mul_(1 - first**steps)
        return move

    def _state(self, weight: Tensor, *names: str) -> dict[str, Any]:
        state: dict[str, Any] = self.state[weight]
        if not state:
            state["step"] = torch.zeros(())
            state.update({name: torch.zeros_like(weight) for name in names})
        state["step"] += 1
        return state


def shared_out(matrices: Iterable[Tensor]) -> list[Tensor]:
    """Moves along matrices, each made by one process of the group for all of them.

    Args:
        matrices: ``(M, N)``, the same in all processes, which must all call this.

    Returns:
        Like them, of the size that steps of AdamW have.
    """
    given = list(matrices)
    if not given or not dist.is_initialized() or dist.get_world_size() == 1:
        return [_move(matrix) for matrix in given]
    rank, loads = dist.get_rank(), [0] * dist.get_world_size()
    moves = torch.zeros(sum(one.numel() for one in given), device=given[0].device)
    places = torch.split(moves, [one.numel() for one in given])
    # The longest first, each to whoever has least to do.
    for index in sorted(range(len(given)), key=lambda index: -_cost(given[index])):
        owner = loads.index(min(loads))
        loads[owner] += _cost(given[index])
        if owner == rank:
            places[index].copy_(_move(given[index]).flatten())
    dist.all_reduce(moves)
    return [place.view_as(one) for place, one in zip(places, given, strict=True)]


def _move(matrix: Tensor) -> Tensor:
    return orthogonal(matrix) * (_USUAL * math.sqrt(max(matrix.shape)))


def _cost(matrix: Tensor) -> int:
    """Multiplications that making it orthogonal takes, about."""
    return min(matrix.shape) * matrix.numel()


def orthogonal(matrix: Tensor) -> Tensor:
    """The nearest matrix whose singular values are all about 1, by Newton and Schulz's iteration.

    Args:
        matrix: ``(M, N)``, of any size; computed in its dtype, float32.

    Returns:
        Singular values between 0.5 and 1.3 where they are not nearly 0 beside the others.
    """
    wide = matrix.shape[0] <= matrix.shape[1]
    x: Tensor = matrix / (torch.linalg.matrix_norm(matrix) + _EPS)
    x = x if wide else x.T
    for _ in range(_ITERATIONS):
        square = x @ x.T
        x = _LINEAR * x + (_CUBIC * square + _QUINTIC * square @ square) @ x
    return x if wide else x.T
