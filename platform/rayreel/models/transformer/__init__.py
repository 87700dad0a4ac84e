"""Dual-stream diffusion transformer."""

from rayreel.models.transformer.block import Block
from rayreel.models.transformer.model import Transformer
from rayreel.models.transformer.perturbations import (
    Perturbation,
    Perturbations,
    PerturbationType,
)
from rayreel.models.transformer.text import TextMemory

__all__ = [
    "Block",
    "Perturbation",
    "PerturbationType",
    "Perturbations",
    "TextMemory",
    "Transformer",
]
