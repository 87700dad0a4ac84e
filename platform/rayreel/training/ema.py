"""A moving average of the weights, which is often better than the weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from rayreel.training.parallel import local


class Ema:
    """Exponential moving average of the weights that learn; split weights are averaged split.

    Its first steps keep less than the decay says, or what there was before them would stay in it.

    Attributes:
        average: By name of the weight, float32, laid out like it.
    """

    def __init__(self, named: Mapping[str, nn.Parameter], decay: float) -> None:
        """Begin at the weights as they are.

        Args:
            named: Weights that learn, as ``parallelise`` has left them.
            decay: Share of the average that stays at each later step, in ``(0, 1)``.
        """
        self._decay = decay
        self._named = named
        self.average: dict[str, Tensor] = {
            name: weight.detach().to(torch.float32, copy=True) for name, weight in named.items()
        }

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after a step.

        Args:
            step: That was made, from 0: its average keeps ``(1 + step) / (10 + step)`` at most.
        """
        decay = min(self._decay, (1 + step) / (10 + step))
        weights = [local(self._named[name].detach()).float() for name in self.average]
        averages = [local(tensor) for tensor in self.average.values()]
        torch._foreach_lerp_(averages, weights, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The weights are the average, within the block; after it they are as they were."""
        kept = {name: weight.detach().clone() for name, weight in self._named.items()}
        self._put(self.average)
        try:
            yield
        finally:
            self._put(kept)

    @torch.no_grad()
    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, weight in self._named.items():
            local(weight.detach()).copy_(local(values[name]))
