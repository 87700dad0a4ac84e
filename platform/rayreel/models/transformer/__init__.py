"""Dual-stream diffusion transformer."""

from rayreel.models.transformer.block import Block
from rayreel.models.transformer.model import Transformer
from rayreel.models.transformer.perturbations import (
    Perturbation,
    Perturbations,
    PerturbationType,
)

__all__ = [
    "Block",
    "Perturbation",
    "PerturbationType",
    "Perturbations",
    "Transformer",
]
