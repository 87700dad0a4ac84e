"""One model on several processes: how it is split, and how gradients become those of all samples.

Gradients are added up over processes, never averaged: the loss of a pass is divided by the number
of samples of the whole step, and with that all numbers of processes compute the same.
"""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint

from rayreel.config.train import TrainSpec
from rayreel.models.transformer import Transformer
from rayreel.training.group import BACKENDS, Group

log = logging.getLogger(__name__)

_EXCHANGES_EVERY_PASS: WeakSet[nn.Module] = WeakSet()


def parallelise(model: Transformer, spec: TrainSpec, group: Group, dtype: torch.dtype) -> None:
    """Prepare a model in place for training on all processes; names of parameters stay.

    Splitting costs time even where it does nothing, so a process that is alone does so only for
    what it brings with it: weights in the host's memory, and float32 weights that are computed
    with in another dtype.

    Args:
        model: With its weights, the same on all processes, on any device.
        spec: Of the run.
        group: All of its processes must call this.
        dtype: That is computed in.
    """
    fast = spec.acceleration
    if fast.checkpoint_activations:
        for block in model.transformer_blocks:
            _recompute(block)
    offloads = fast.offload and group.device.type != "cpu"
    if fast.offload and not offloads:
        log.info("acceleration.offload changes nothing on a CPU: weights are in its memory already")
    casts = spec.mode == "full" and dtype != torch.float32
    splits = group.world > 1 and fast.sharding == "full"
    if not (splits or casts or offloads):
        model.to(group.device)
        return
    mesh = _mesh(group, splits=splits)
    # Inputs are in their dtype already, and positions must stay float32.
    precision = MixedPrecisionPolicy(cast_forward_inputs=False)
    if casts:
        precision = MixedPrecisionPolicy(
            param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
        )
        # Gradients that wait are float32, new ones are not, and FSDP2 takes no mixture of them, as
        # it comes about where only some samples have sound. Nor would all of them fit unsplit.
        _EXCHANGES_EVERY_PASS.add(model)
    offload = CPUOffloadPolicy() if offloads else OffloadPolicy()
    for module in (*model.transformer_blocks, model):
        fully_shard(module, mesh=mesh, mp_policy=precision, offload_policy=offload)
    for part in model.modules():
        if isinstance(part, FSDPModule):
            _add_up(part)
    # It warns of views of which somebody changes the values later; nobody does here.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor", UserWarning)


@contextmanager
def accumulating(model: nn.Module, *, last: bool) -> Iterator[None]:
    """Run one pass of an optimiser step.

    Args:
        model: That ``parallelise`` has prepared.
        last: Whether it is the last pass of the step, in which split gradients are added up; in
            the others nothing is exchanged for them, unless weights are cast to be computed with.
    """
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(last or model in _EXCHANGES_EVERY_PASS)
    yield


@torch.no_grad()
def sum_gradients(parameters: Sequence[nn.Parameter], group: Group) -> None:
    """Complete the gradients of a step, after its last pass.

    Gradients of weights that are not split are added up over processes, all in one exchange. A
    weight that no sample has used gets a gradient of zeros: whether another process has used it
    must not change what an optimiser does with it.

    Args:
        parameters: All that learn; every process has the same ones.
        group: All of its processes must call this.
    """
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    whole = [_gradient(one) for one in parameters if not _is_split(one)]
    if group.world == 1 or not whole:
        return
    summed = group.sum(torch.cat([gradient.flatten() for gradient in whole]))
    parts = torch.split(summed, [gradient.numel() for gradient in whole])
    for gradient, part in zip(whole, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


@torch.no_grad()
def clip_gradients(parameters: Sequence[nn.Parameter], max_norm: float, group: Group) -> float:
    """Scale all gradients down so that together their norm is no more than a limit.

    Args:
        parameters: All that learn, with gradients.
        max_norm: The limit; 0 only measures.
        group: All of its processes must call this.

    Returns:
        The norm before, over all weights wherever they lie.
    """
    split = [_gradient(one) for one in parameters if _is_split(one)]
    whole = [_gradient(one) for one in parameters if not _is_split(one)]
    squares = _squares(whole, group)
    if any(map(_is_split, parameters)):
        squares = squares + group.sum(_squares(split, group))
    norm = squares.sqrt().item()
    if max_norm and norm > max_norm:
        # Like PyTorch's own, a little more than needed.
        torch._foreach_mul_([*split, *whole], max_norm / (norm + 1e-6))
    return norm


def local(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor, sharing its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _recompute(block: nn.Module) -> None:
    """Forget what a block computes, and compute it once more when gradients are asked for."""
    forward = block.forward

    def again(*inputs: Any, **named: Any) -> Any:  # noqa: ANN401 - whatever the block takes
        return checkpoint(forward, *inputs, use_reentrant=False, **named)

    # A module around the block would change the names of its weights.
    block.forward = again


def _mesh(group: Group, *, splits: bool) -> DeviceMesh:
    """Devices that a weight is split over: those of all processes, or this one's alone."""
    kind = group.device.type
    if not dist.is_initialized():
        store = dist.HashStore()  # type: ignore[attr-defined] # a public name all the same
        dist.init_process_group(BACKENDS[kind], store=store, rank=0, world_size=1)
    if splits:
        return init_device_mesh(kind, (group.world,))
    copies = init_device_mesh(kind, (group.world, 1), mesh_dim_names=("copies", "shards"))
    return copies["shards"]


def _add_up(module: FSDPModule) -> None:
    """Let gradients be sums over processes, of all weights."""
    module.set_gradient_divide_factor(1.0)
    module.set_force_sum_reduction_for_comms(True)
    if hasattr(module, "set_reduce_scatter_unused_params"):
        module.set_reduce_scatter_unused_params(True, recurse=False)
    else:
        log.warning(
            "this PyTorch cannot train split weights on samples of which only some have sound; "
            "with such a dataset update it, or set acceleration.sharding: replicate"
        )


def _is_split(parameter: nn.Parameter) -> bool:
    return isinstance(parameter, DTensor) and parameter.device_mesh.size() > 1


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None, "sum_gradients comes first"
    return local(parameter.grad)


def _squares(gradients: list[Tensor], group: Group) -> Tensor:
    """Sum of the squares of all values, float32 on the group's device."""
    if not gradients:
        return torch.zeros((), device=group.device)
    norms = torch.stack(torch._foreach_norm(gradients, dtype=torch.float32))
    return norms.square().sum().to(group.device)
