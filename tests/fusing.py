"""Adapters fused into weights in one call."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rayreel.checkpoints.lora import Adapter, Fusion, exchange_adapters


def fuse(
    weights: Mapping[str, Tensor],
    adapters: Sequence[Adapter],
    device: torch.device | str | None = None,
    **options: Any,
) -> dict[str, Tensor]:
    moved = {name: w.to(device or w.device) for name, w in weights.items()}
    options.setdefault("shapes", {name: tuple(w.shape) for name, w in weights.items()})
    return Fusion(adapters=adapters, **options).apply(moved)


def apply_adapters(
    model: nn.Module,
    base: Mapping[str, Tensor],
    old: Sequence[Adapter],
    new: Sequence[Adapter],
) -> None:
    shapes = {name: tuple(w.shape) for name, w in base.items()}
    exchange_adapters(model, base, Fusion(shapes, old), Fusion(shapes, new))
