"""Weights that do not learn in int8, and optimiser states in 8 bits; both through torchao."""

import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rayreel.config.train import TrainSpec
from rayreel.errors import SpecError
from rayreel.logs import CHATTY

if TYPE_CHECKING:
    from torch.optim import Optimizer

_BLOCKS = "transformer_blocks."


def check_lowbit(spec: TrainSpec, device: torch.device) -> None:
    """Whether what a spec asks for can be had on this machine.

    Args:
        spec: Of the run.
        device: That it trains on.

    Raises:
        SpecError: Saying what to install, or what to ask for instead.
    """
    eight_bits = spec.optimization.optimizer == "adamw8bit"
    wants = {
        "optimization.optimizer: adamw8bit": eight_bits,
        "acceleration.quantization: int8": spec.acceleration.quantization == "int8",
    }
    for what in (name for name, wanted in wants.items() if wanted):
        if find_spec("torchao") is None:
            raise SpecError(
                f"{what} needs torchao, which is not installed; install the extra rayreel[lowbit]"
            )
    if eight_bits and device.type == "cuda" and find_spec("triton") is None:
        raise SpecError(
            "optimization.optimizer: adamw8bit compiles its step by triton, which is not "
            "installed; install it, or set adamw"
        )
    if spec.acceleration.quantization == "int8" and spec.acceleration.offload:
        raise SpecError(
            "acceleration.quantization: int8 cannot be offloaded; set acceleration.offload: "
            "false, or quantization: fp8"
        )


def quantize_int8(model: nn.Module, device: torch.device) -> None:
    """Hold the weights of the blocks' linear layers in int8, one scale per row.

    Products are computed in the dtype that the weights had. Biases, and what is outside of the
    blocks (projections, embeddings of noise levels), stay as they are.

    Args:
        model: Transformer on any device, without gradients; changed.
        device: Where each layer is quantised, and stays.
    """
    with quiet_torchao():
        from torchao.quantization import (  # noqa: PLC0415 - slow, and an extra
            Int8WeightOnlyConfig,
            quantize_,
        )
    quantize_(model, Int8WeightOnlyConfig(), _is_in_a_block, device=device)


def adamw8bit(
    params: Iterable[Tensor],
    *,
    learning_rate: float,
    betas: tuple[float, float],
    weight_decay: float,
) -> "Optimizer":
    """AdamW whose two moments are held in 8 bits, in blocks of 256 values with a scale each.

    Tensors of fewer than 4096 values, or of no multiple of 256, keep moments in float32.

    Args:
        params: That learn; sharded ones too.
        learning_rate: At first; groups may be given others as numbers.
        betas: Of both moments.
        weight_decay: Share of a weight that is taken off per step, times the rate.
    """
    with quiet_torchao():
        from torchao.optim import AdamW8bit  # noqa: PLC0415 - slow, and an extra

    class Optimiser(AdamW8bit):  # type: ignore[misc] # torchao has no types
        def step(self, closure: None = None) -> None:
            for group in self.param_groups:
                if not isinstance(group["lr"], Tensor):
                    # A number would be compiled into the step, which then is for this rate alone.
                    group["lr"] = torch.tensor(group["lr"], dtype=torch.float32)
            # On a CPU compiling takes longer than a run of the kind that is for, and a compiler.
            on_gpu = any(p.is_cuda for group in self.param_groups for p in group["params"])
            stance = nullcontext() if on_gpu else torch.compiler.set_stance("force_eager")
            with stance:
                super().step(closure)

    optimizer: Optimizer = Optimiser(
        params, lr=learning_rate, betas=betas, weight_decay=weight_decay
    )
    return optimizer


@contextmanager
def quiet_torchao() -> Iterator[None]:
    """For what imports torchao, if it is there: without what it says of kernels nobody uses."""
    loggers = [logging.getLogger(name) for name in CHATTY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # Adapters are never merged into int8 weights.
            warnings.filterwarnings("ignore", message=".*without `get_apply_tensor_subclass`")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _is_in_a_block(module: nn.Module, name: str) -> bool:
    # Subclasses have weights in float8 already.
    return type(module) is nn.Linear and name.startswith(_BLOCKS)
