"""Builds networks on the meta device, then assigns mapped weights: nothing is copied twice."""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from rayreel.checkpoints.quantization import cast_weight, swap_linears
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
        tensors: Weights by parameter and buffer name; linear layers hold float8 ones as they are.
        device: Where the weights go.
        dtype: What floating-point weights are cast to, but for those that ``cast_weight`` keeps;
            ``None`` keeps the file's.
        source: Named in errors.

    Returns:
        The network in evaluation mode, without gradients.

    Raises:
        CheckpointError: If weights are missing, unexpected or misshapen; all of them are listed.
    """
    model = outline(make, tensors, source=source)
    state = {name: cast_weight(name, tensor.to(device), dtype) for name, tensor in tensors.items()}
    model.load_state_dict(state, strict=True, assign=True)
    return model.requires_grad_(False).eval()


def outline(make: Callable[[], M], tensors: Mapping[str, Tensor], *, source: str) -> M:
    """Make a network without weights, with the layers that given ones need.

    Args:
        make: Constructor without arguments; runs under the meta device.
        tensors: Weights by parameter and buffer name, perhaps on the meta device themselves.
        source: Named in errors.

    Returns:
        The network on the meta device.

    Raises:
        CheckpointError: If the weights do not fit it; see ``check_fit`` and ``swap_linears``.
    """
    model = construct(make, source=source)
    swap_linears(model, tensors, source=source)
    check_fit(model, {name: tuple(t.shape) for name, t in tensors.items()}, source=source)
    return model


def construct(make: Callable[[], M], *, source: str) -> M:
    """Make a network without weights, on the meta device.

    Raises:
        CheckpointError: If there is no such network; ``source`` is where its architecture is from.
    """
    try:
        with torch.device("meta"):
            return make()
    except ValueError as error:
        raise CheckpointError(f"{source}: its architecture is not supported: {error}") from error


def check_fit(model: nn.Module, given: Mapping[str, Shape], *, source: str) -> None:
    """Compare a network with weights by name and shape.

    Args:
        model: The network, perhaps on the meta device.
        given: Shapes by parameter and buffer name.
        source: Where they come from, named in errors.

    Raises:
        CheckpointError: Listing what is missing, unexpected and misshapen, together.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
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
        title = f"{source} does not fit the network {type(model).__name__}:"
        raise CheckpointError("\n".join([title, *lines]))


def _some(names: Iterable[str], most: int = 12) -> str:
    names = list(names)
    rest = f", and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
