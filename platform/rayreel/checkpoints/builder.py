"""Builds networks on the meta device, then assigns mapped weights: nothing is copied twice."""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from rayreel.errors import CheckpointError

M = TypeVar("M", bound=nn.Module)

Shape = tuple[int, ...]


def build(
    make: Callable[[], M],
    tensors: Mapping[str, Tensor],
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    source: str = "the weight file",
) -> M:
    """Make a network and give it its weights, strictly.

    Args:
        make: Constructor without arguments; runs under the meta device.
        tensors: Weights by parameter and buffer name.
        device: Where the weights go.
        dtype: What floating-point weights are cast to; ``None`` keeps the file's.
        source: Named in errors.

    Returns:
        The network in evaluation mode, without gradients.

    Raises:
        CheckpointError: If weights are missing, unexpected or misshapen; all of them are listed.
    """
    with torch.device("meta"):
        model = make()
    check_fit(_shapes(model.state_dict()), _shapes(tensors), source=source)
    state = {
        name: tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None)
        for name, tensor in tensors.items()
    }
    model.load_state_dict(state, strict=True, assign=True)
    return model.requires_grad_(False).eval()


def check_fit(wanted: Mapping[str, Shape], given: Mapping[str, Shape], *, source: str) -> None:
    """Compare two sets of weights by name and shape.

    Raises:
        CheckpointError: Listing what is missing, unexpected and misshapen, together.
    """
    misshapen = [
        f"{name}: expected {wanted[name]}, got {given[name]}"
        for name in sorted(wanted.keys() & given.keys())
        if wanted[name] != given[name]
    ]
    faults = {
        "missing": sorted(wanted.keys() - given.keys()),
        "unexpected": sorted(given.keys() - wanted.keys()),
        "wrong shape": misshapen,
    }
    if any(faults.values()):
        lines = [
            f"  {what} ({len(found)}): {_some(found)}" for what, found in faults.items() if found
        ]
        raise CheckpointError("\n".join([f"{source} does not fit the network:", *lines]))


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, Shape]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _some(names: Iterable[str], most: int = 12) -> str:
    names = list(names)
    rest = f", and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
