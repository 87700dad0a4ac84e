"""Small pictures of latents without a decoder: by the linear map that fits decoded clips best.

Letters: C channels, F frames, H height, W width, N positions of latents.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from rayreel.types import ScaleFactors

# Latent frames of a clip that are looked at: neighbours tell little beyond each other.
_LOOKED_AT = 2
# Weight of the guess that a channel says nothing, in positions of latents of unit variance: it
# counts as long as few positions were seen, which could be explained in many ways.
_PRIOR = 1.0


@dataclass(frozen=True, slots=True)
class Projection:
    """From latents to colours.

    Attributes:
        weight: Float32 ``(C + 1, 3)`` on the CPU: red, green and blue in [0, 1] of each channel,
            and in the last row what is added.
    """

    weight: Tensor

    def __call__(self, latent: Tensor) -> Tensor:
        """The picture of one latent frame.

        Args:
            latent: ``(C, H, W)``, of any dtype and on any device.

        Returns:
            RGB ``uint8`` ``(H, W, 3)`` on the CPU.
        """
        values = latent.float().cpu().movedim(0, -1)
        colours = values @ self.weight[:-1] + self.weight[-1]
        return (255 * colours.nan_to_num().clamp(0, 1)).round().to(torch.uint8)


@dataclass(frozen=True, slots=True)
class ProjectionSums:
    """What a least-squares fit has to remember of all that it saw.

    Attributes:
        latents: Float64 ``(C + 1, C + 1)``: products of channels, and of the constant 1.
        colours: Float64 ``(C + 1, 3)``: the same with colours in [0, 1].
    """

    latents: Tensor
    colours: Tensor

    @classmethod
    def empty(cls, channels: int) -> "ProjectionSums":
        """Of nothing."""
        size = channels + 1
        return cls(torch.zeros(size, size).double(), torch.zeros(size, 3).double())

    def plus(self, latents: Tensor, colours: Tensor) -> "ProjectionSums":
        """The sums with more positions.

        Args:
            latents: ``(N, C)``.
            colours: Red, green and blue in [0, 1], ``(N, 3)``.
        """
        rows = torch.cat((latents.double(), torch.ones(len(latents), 1).double()), dim=1)
        return ProjectionSums(
            self.latents + rows.T @ rows, self.colours + rows.T @ colours.double()
        )

    def solved(self) -> Projection:
        """The map with the least squared error."""
        prior = torch.full((len(self.latents),), _PRIOR).double()
        # Of the constant nothing is guessed, but nothing was seen is not singular either.
        prior[-1] = 1e-9
        weight = torch.linalg.solve(self.latents + prior.diag(), self.colours)
        return Projection(weight.float())


@dataclass(slots=True)
class ClipColours:
    """Gathers what colours some latent frames of a clip became, while its frames pass by.

    Attributes:
        video: Latents ``(C, F, H, W)`` that are decoded.
        factors: Pixels of a latent position.
    """

    video: Tensor
    factors: ScaleFactors
    _position: int = field(default=0, init=False)
    _sums: dict[int, Tensor] = field(default_factory=dict, init=False)

    def see(self, chunk: Tensor) -> None:
        """Look at the next frames, RGB ``uint8`` ``(F, H, W, 3)`` on the CPU."""
        start, self._position = self._position, self._position + len(chunk)
        for index in _looked_at(self.video.shape[1]):
            first, end = self._frames(index)
            # Most chunks have none of them.
            if first < self._position and end > start:
                seen = chunk[max(0, first - start) : end - start]
                self._sums[index] = self._sums.get(index, 0) + _cells(seen, self.factors)

    def added(self, sums: ProjectionSums) -> ProjectionSums:
        """Sums with what was seen, once all frames have passed by.

        Latents that are not finite are left out: they would be in all sums to come.
        """
        for index, total in self._sums.items():
            first, end = self._frames(index)
            pixels = (end - first) * self.factors.height * self.factors.width
            latents = self.video[:, index].cpu().flatten(1).T
            if latents.isfinite().all():
                sums = sums.plus(latents, total.view(-1, 3) / (255 * pixels))
        return sums

    def _frames(self, index: int) -> tuple[int, int]:
        """Pixel frames of a latent frame, the end excluded: the first one has a single one."""
        end = index * self.factors.time + 1
        return max(0, end - self.factors.time), end


def _looked_at(frames: int) -> Sequence[int]:
    """In the middle of equal parts of a clip."""
    parts = min(frames, _LOOKED_AT)
    return [(2 * part + 1) * frames // (2 * parts) for part in range(parts)]


def _cells(frames: Tensor, factors: ScaleFactors) -> Tensor:
    """Sums over frames and over the pixels of each latent position: float64 ``(H, W, 3)``."""
    _, height, width, _ = frames.shape
    rows, columns = height // factors.height, width // factors.width
    # NumPy adds up small integers several times as fast as torch does.
    lines = frames.numpy().reshape(-1, rows, factors.height, width * 3)
    summed = lines.sum(axis=2, dtype=np.uint32).reshape(-1, rows, columns, factors.width, 3)
    return torch.from_numpy(summed.sum(axis=(0, 3), dtype=np.float64))
