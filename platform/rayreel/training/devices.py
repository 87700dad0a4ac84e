"""Where a run trains, and in which dtype."""

import torch

from rayreel.config.jobs import StageSpec
from rayreel.config.train import AccelerationSpec
from rayreel.errors import SpecError
from rayreel.pipelines.devices import Device, choose_device


def training_device(spec: AccelerationSpec, *, cluster_gpus: float = 0) -> Device:
    """Resolve ``auto``: CUDA, then CPU; bfloat16 on CUDA and float32 on a CPU.

    A CPU's dtype does not depend on its kind, so that a run may go on on another one.

    Args:
        spec: Device and dtype as they are written.
        cluster_gpus: GPUs that the workers may get; this process may have none itself.

    Raises:
        SpecError: If a device is named that is not there or that training does not know, or a
            dtype that it would need scaled gradients for.
    """
    if spec.device == "mps":
        raise SpecError("acceleration.device mps: training runs on cuda or cpu")
    if spec.dtype == "float16":
        raise SpecError(
            "acceleration.dtype float16: its gradients would need scaling; expected bfloat16 or "
            "float32"
        )
    device, dtype = spec.device, spec.dtype
    if device == "auto":
        device = "cuda" if cluster_gpus or torch.cuda.is_available() else "cpu"
    if dtype == "auto":
        dtype = "bfloat16" if device == "cuda" else "float32"
    return choose_device(StageSpec(device=device, dtype=dtype), cluster_gpus=cluster_gpus)
