"""How much of a machine training uses: arithmetic of a step, against what matrix products reach."""

import time
from dataclasses import dataclass, field
from functools import cache
from typing import Literal, NamedTuple

import psutil
import torch
from torch.utils.flop_counter import FlopCounterMode

from rayreel.config.model import TransformerConfig
from rayreel.models.transformer import Transformer
from rayreel.training.example import Batch
from rayreel.training.forward import modalities
from rayreel.types import TextContext

_META = torch.device("meta")
_PEAK_S = 0.3
# Large enough to keep a device busy, small enough for some repetitions.
_SIDES = {"cpu": 1024}
_SIDE = 8192


class ForwardFlops(NamedTuple):
    """Floating-point operations of a forward pass; to multiply and add is two.

    Attributes:
        linear: Of products with weights.
        attention: Of products of activations with each other.
    """

    linear: int
    attention: int


@dataclass(frozen=True, kw_only=True)
class StepFlops:
    """Counts what forward and backward pass of a batch take, once for each shape.

    With all weights learning, backward takes twice the forward pass: gradients of what went into a
    product, and of its weights. Frozen weights have no gradients, so an adapter's pass saves those;
    products of activations have two gradients as ever. The adapter's own products are estimated by
    its share of the weights. What is computed again to save memory is not useful, and not counted;
    nor is the frozen reading of texts.

    Attributes:
        config: Of the transformer.
        mode: Whether an adapter learns, or all weights.
        adapter_share: Weights of the adapter, per weight of the transformer.
    """

    config: TransformerConfig
    mode: Literal["lora", "full"]
    adapter_share: float = 0.0
    _known: dict[object, int] = field(default_factory=dict)

    def __call__(self, batch: Batch) -> int:
        """Floating-point operations of a batch.

        Args:
            batch: Its shapes count, on any device.
        """
        shape = _shape(batch)
        if shape not in self._known:
            forward = forward_flops(self.config, batch)
            per_linear = 3.0 if self.mode == "full" else 2 + 3 * self.adapter_share
            total = per_linear * forward.linear + 3 * forward.attention
            self._known[shape] = round(total)
        return self._known[shape]


def forward_flops(config: TransformerConfig, batch: Batch) -> ForwardFlops:
    """Count the transformer's forward pass from shapes alone.

    Args:
        config: Of the transformer.
        batch: Its shapes count, on any device.
    """
    # All blocks are alike, so two of them tell of any number.
    one, two = (_counted(config.model_copy(update={"num_layers": n}), batch) for n in (1, 2))
    blocks = config.num_layers - 1
    return ForwardFlops(
        one.linear + blocks * (two.linear - one.linear),
        one.attention + blocks * (two.attention - one.attention),
    )


def _counted(config: TransformerConfig, batch: Batch) -> ForwardFlops:
    with _META:
        model = Transformer(config)
        length = batch.texts[0].length
        video, audio = (torch.empty(length, width) for width in _text_widths(config))
        context = TextContext(video=video, audio=audio)
    contexts = [context] * len(batch.samples)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(*modalities(batch.to(_META), contexts, torch.float32))
    counts = counter.get_flop_counts()["Global"]
    linear = sum(counts.get(op, 0) for op in (torch.ops.aten.addmm, torch.ops.aten.mm))
    return ForwardFlops(linear, counter.get_total_flops() - linear)


def _text_widths(config: TransformerConfig) -> tuple[int, int]:
    """Widths of text as the transformer is given it: it may have projections of its own."""
    captions = None if config.caption_proj_before_connector else config.caption_channels
    return captions or config.cross_attention_dim, captions or config.audio_cross_attention_dim


def _shape(batch: Batch) -> object:
    streams = (batch.video, batch.audio)
    return batch.texts[0].length, *(
        one and (one.noisy.shape, one.timesteps.shape, one.keyframes_mask is not None)
        for one in streams
    )


@cache
def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s that products of large square matrices reach, measured once in a third of a second.

    Args:
        device: That computes.
        dtype: Of the matrices.
    """
    side = _SIDES.get(device.type, _SIDE)
    a, b = (torch.ones(side, side, device=device, dtype=dtype) for _ in range(2))
    best, start = float("inf"), time.monotonic()
    # The first product may choose a kernel, and does not count.
    a @ b
    while time.monotonic() - start < _PEAK_S or best == float("inf"):
        _wait(device)
        began = time.perf_counter()
        a @ b
        _wait(device)
        best = min(best, time.perf_counter() - began)
    return 2 * side**3 / best


def memory_gib(device: torch.device) -> float:
    """Memory of training: the most that CUDA had allocated so far, or what the process holds now.

    Args:
        device: That computes.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return float(psutil.Process().memory_info().rss / 2**30)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
