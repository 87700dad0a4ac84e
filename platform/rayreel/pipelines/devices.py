"""Where networks compute, and in which dtype."""

from dataclasses import dataclass

import psutil
import torch

from rayreel.checkpoints.quantization import QuantizationName
from rayreel.config.jobs import DtypeName, StageSpec
from rayreel.config.model import AttentionBackend
from rayreel.errors import SpecError
from rayreel.models.video_vae.fitting import FRAMES, LONG_SIDE

SMALL_TILE = (256, 32)
"""Long side and frames of a tile where memory is short."""


@dataclass(frozen=True)
class Device:
    """A choice, and why it was made.

    Attributes:
        name: ``cuda``, ``mps`` or ``cpu``.
        dtype: Name of the dtype of weights and activations.
        reason: For logs and ``run.json``.
        attention: Kernels of attention, or ``auto``.
    """

    name: str
    dtype: str
    reason: str
    attention: AttentionBackend = "auto"

    @property
    def torch_dtype(self) -> torch.dtype:
        """``dtype`` as PyTorch's."""
        return {
            "bfloat16": torch.bfloat16,
            "float16": torch.float16,
            "float32": torch.float32,
        }[self.dtype]


def choose_device(choice: StageSpec, *, cluster_gpus: float = 0) -> Device:
    """Resolve ``auto``: CUDA, then MPS, then CPU; the dtype follows from the device.

    Args:
        choice: Device, dtype and attention as the spec has them. Where the dtype is ``auto``, it is
            bfloat16 on accelerators, the files' own dtype, and on a CPU float32 unless it has units
            for bfloat16 matrices.
        cluster_gpus: GPUs that the workers may get; this process may have none itself.

    Raises:
        SpecError: If a device is named that is not there.
    """
    device, dtype = choice.device, choice.dtype
    have = {"cuda": bool(cluster_gpus) or torch.cuda.is_available(), "cpu": True}
    have["mps"] = torch.backends.mps.is_available()
    if device == "auto":
        name = next(candidate for candidate in ("cuda", "mps", "cpu") if have[candidate])
        reason = f"auto: first of cuda, mps, cpu that is there is {name}"
    elif have[device]:
        name, reason = device, f"the spec says {device}"
    else:
        there = ", ".join(sorted(candidate for candidate, found in have.items() if found))
        raise SpecError(f"device {device!r} is not available here; available: {there}")
    if dtype == "auto":
        dtype, why = _dtype_of(name)
    else:
        why = f"the spec says {dtype}"
    return Device(name, dtype, f"{reason}; {why}", choice.attention)


def _dtype_of(device: str) -> tuple[DtypeName, str]:
    """The dtype that suits a device, and why."""
    if device != "cpu":
        return "bfloat16", "bfloat16 is the weight files' dtype"
    # By what the processor has, not by a measurement: the same machine must choose the same again.
    # There is no public name in all releases of PyTorch that we support.
    if torch.cpu._is_amx_tile_supported():
        return "bfloat16", "this CPU has units for products of bfloat16 matrices"
    return "float32", "this CPU has no units for products of bfloat16 matrices"


def supported_quantization(device: torch.device, choice: QuantizationName) -> QuantizationName:
    """How weights can be held on a device: Metal has no float8, so there they are widened.

    Raises:
        SpecError: If float8 is asked for where there is none.
    """
    if device.type != "mps":
        return choice
    if choice == "fp8_cast":
        raise SpecError("model.quantization fp8_cast needs CUDA or a CPU: Metal has no float8")
    return "none"


def release_memory(device: torch.device) -> None:
    """Give back what PyTorch keeps of a device's memory for later allocations."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def largest_tile(device: torch.device) -> tuple[int, int]:
    """Long side and frames of the tiles to decode in, at most: on Metal small ones, always."""
    return SMALL_TILE if device.type == "mps" else (LONG_SIDE, FRAMES)


def settle(device: torch.device) -> None:
    """After a chunk of work: Metal keeps what was freed until it is told to give it back."""
    if device.type == "mps":
        release_memory(device)


def usable_memory(device: torch.device) -> int:
    """What of the free memory activations may take: kernels and the allocator need some too."""
    return free_memory(device) * 4 // 5


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated: of the GPU's memory, or of the machine's.

    What PyTorch keeps for later allocations counts as free.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return int(psutil.virtual_memory().available)
