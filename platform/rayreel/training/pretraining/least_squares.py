"""Weights of a convolution that are known without learning: least squares over what it sees."""

import torch
from torch import Tensor

# What is added to the squares, in shares of their mean.
_RIDGE = 1e-3


def least_squares(given: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """The affine map that comes nearest.

    Args:
        given: ``(N, D)``.
        wanted: ``(N, E)``.

    Returns:
        Weight ``(E, D)`` and bias ``(E,)``.
    """
    given_mean, wanted_mean = given.mean(0), wanted.mean(0)
    given, wanted = given - given_mean, wanted - wanted_mean
    square = given.T @ given / len(given)
    square += _RIDGE * square.diagonal().mean() * torch.eye(len(square))
    weight = torch.linalg.solve(square, given.T @ wanted / len(given)).T
    return weight, wanted_mean - weight @ given_mean
