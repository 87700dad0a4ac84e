"""Waveforms joined into a longer one, each faded into the next."""

from collections.abc import Generator, Iterable

import torch
from torch import Tensor


def crossfaded(pieces: Iterable[Tensor], fade: int) -> Generator[Tensor, None, None]:
    """Join waveforms that overlap, holding back no more than the overlap.

    Args:
        pieces: Float ``(C, N)`` of at least ``fade`` samples; the first ``fade`` samples of each
            but the first one are at the same time as the last ``fade`` ones before it.
        fade: Samples over which each piece turns linearly into the next; 0 puts them end to end.

    Yields:
        Float ``(C, N)``, none of them empty: together the sum of the pieces' samples, less ``fade``
        for each piece but the first.

    Raises:
        ValueError: If ``fade`` is negative, or a piece is shorter.
    """
    if fade < 0:
        raise ValueError(f"fade={fade}: expected 0 samples or more")
    # Both ends are left out: they would repeat a sample of one piece alone.
    weights = torch.linspace(0, 1, fade + 2)[1:-1]
    tail: Tensor | None = None
    for index, piece in enumerate(pieces):
        if piece.shape[1] < fade:
            raise ValueError(
                f"piece {index} has {piece.shape[1]} samples, fewer than the {fade} of the fade"
            )
        start = piece[:, :fade]
        faded = start if tail is None else torch.lerp(tail, start, weights.to(piece))
        joined = torch.cat([faded, piece[:, fade:]], dim=1)
        done = joined.shape[1] - fade
        # A view would keep the whole piece in memory.
        tail = joined[:, done:].clone()
        if done:
            yield joined[:, :done]
    if tail is not None and fade:
        yield tail
