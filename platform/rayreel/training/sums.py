"""What an optimiser step came to, added up over passes and processes."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rayreel.training.example import Batch
from rayreel.training.group import Group
from rayreel.training.objective import StreamLosses

SIGMA_BINS = 4
"""Equal parts of the noise levels, whose losses are told apart."""

# Rows of the table of sums and counts; those of the noise levels come behind them.
_TOTAL, _VIDEO, _AUDIO, _TOKENS, _FLOPS, _BINS = range(6)


class StepSums:
    """Losses and sizes of a step."""

    def __init__(self, device: torch.device) -> None:
        """Count nothing yet.

        Args:
            device: Of the losses: nothing waits for it before ``reduce``.
        """
        self._values = torch.zeros(_BINS + SIGMA_BINS, 2, dtype=torch.float64, device=device)

    def add(self, found: StreamLosses, batch: Batch, flops: int) -> None:
        """Count a pass.

        Args:
            found: Losses of its samples.
            batch: The samples.
            flops: That it took.
        """
        total = found.total.detach().double()
        self._count(_TOTAL, total)
        for row, stream in ((_VIDEO, found.video), (_AUDIO, found.audio)):
            if stream is not None:
                self._count(row, stream.detach().double())
        self._values[_TOKENS, 0] += batch.tokens
        self._values[_FLOPS, 0] += flops
        places = (_sigmas(batch) * SIGMA_BINS).long().clamp(0, SIGMA_BINS - 1)
        counts = torch.stack((total, torch.ones_like(total)), dim=1)
        self._values[_BINS:].index_add_(0, places, counts)

    def reduce(self, group: Group) -> None:
        """Add up over all processes; all of them must call it."""
        self._values = group.sum(self._values).cpu()

    @property
    def loss(self) -> float:
        """Mean over the samples of the step, of both streams together."""
        return self._mean(_TOTAL)

    @property
    def tokens(self) -> int:
        """Of all samples."""
        return int(self._values[_TOKENS, 0])

    @property
    def flops(self) -> float:
        """Of all passes."""
        return float(self._values[_FLOPS, 0])

    def losses(self) -> dict[str, Any]:
        """Means over the samples: of both streams, of each that is learned, and by noise level."""
        streams = {"loss_video": _VIDEO, "loss_audio": _AUDIO}
        return {
            "loss": self.loss,
            **{name: self._mean(row) for name, row in streams.items() if self._values[row, 1]},
            "sigma_loss": self._by_sigma(),
        }

    def _by_sigma(self) -> Mapping[str, float]:
        width = 1 / SIGMA_BINS
        return {
            f"{place * width:.2f}-{(place + 1) * width:.2f}": self._mean(_BINS + place)
            for place in range(SIGMA_BINS)
            if self._values[_BINS + place, 1]
        }

    def _count(self, row: int, values: Tensor) -> None:
        self._values[row, 0] += values.sum()
        self._values[row, 1] += len(values)

    def _mean(self, row: int) -> float:
        total, count = self._values[row].tolist()
        return float(total / count)


def _sigmas(batch: Batch) -> Tensor:
    """Noise level of each sample: of the picture where it is learned, else of the sound."""
    streams = [stream for stream in (batch.video, batch.audio) if stream is not None]
    learned = [stream for stream in streams if stream.target is not None]
    return (learned or streams)[0].sigma
