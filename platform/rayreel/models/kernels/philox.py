"""Counter-based random numbers, equal to those of Triton's ``tl.rand``."""

import torch
from torch import Tensor

_ROUNDS = 10
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_FACTORS = (0xD2511F53, 0xCD9E8D57)
_WORD = 0xFFFFFFFF
# Takes the largest 31-bit integer to just below 1 in float32.
_SCALE = 4.6566127342e-10


def uniforms(seed: int, start: int, stop: int, *, device: torch.device | str = "cpu") -> Tensor:
    """Numbers that follow from a seed and their index alone.

    Args:
        seed: Key, up to 64 bits.
        start: First index.
        stop: One after the last index, at most ``2 ** 32``.
        device: Where they are made; it does not change them.

    Returns:
        Float32 ``(stop - start,)`` in ``[0, 1)``.

    Reference:
        Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3" (Philox 4x32, 10 rounds).
    """
    # Words of 32 bits, kept in integers of 64.
    c0 = torch.arange(start, stop, dtype=torch.int64, device=device)
    c1 = c2 = c3 = torch.zeros_like(c0)
    k0, k1 = seed & _WORD, seed >> 32 & _WORD
    for _ in range(_ROUNDS):
        first, second = c0 * _FACTORS[0], c2 * _FACTORS[1]
        c0, c1 = (second >> 32 & _WORD) ^ c1 ^ k0, second & _WORD
        c2, c3 = (first >> 32 & _WORD) ^ c3 ^ k1, first & _WORD
        k0, k1 = k0 + _KEY_STEPS[0] & _WORD, k1 + _KEY_STEPS[1] & _WORD
    # As a signed word, the negative half mirrored onto the other one.
    return torch.where(c0 > _WORD >> 1, c0 ^ _WORD, c0).float() * _SCALE
