"""The stages of a service, and the pools that they are spread over."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rayreel.config.jobs import StageName, StageSpec
from rayreel.config.serving import ServeSpec
from rayreel.pipelines.devices import Device, choose_device
from rayreel.stages.base import Stage
from rayreel.stages.decode import DecodeStage
from rayreel.stages.denoise import GenerateStage, RefineStage
from rayreel.stages.prompt import PromptStage
from rayreel.stages.text import TextStage

STAGES: tuple[StageName, ...] = ("text", "stage1", "stage2", "decode")
FUSED = "fused"


@dataclass(frozen=True, kw_only=True)
class PoolPlan:
    """A pool before it is deployed.

    Attributes:
        name: A stage's, or ``fused``.
        choice: What its actors take, and how many there are.
        devices: Its stages in order, and where each computes.
    """

    name: str
    choice: StageSpec
    devices: Mapping[StageName, Device]

    @property
    def stages(self) -> tuple[StageName, ...]:
        """What its actors do, in order."""
        return tuple(self.devices)

    @property
    def gpus(self) -> float:
        """GPUs of one actor."""
        if self.choice.gpus is not None:
            return self.choice.gpus
        return float(any(device.name == "cuda" for device in self.devices.values()))


def plan_pools(spec: ServeSpec, cluster_gpus: float) -> list[PoolPlan]:
    """One pool for all stages, or one for each.

    Args:
        spec: Of the service; its paths are absolute.
        cluster_gpus: GPUs that the cluster has.

    Raises:
        SpecError: If the spec names a device that is not there.
    """
    devices = {name: choose_device(spec.stage(name), cluster_gpus=cluster_gpus) for name in STAGES}
    if spec.placement == "fused":
        return [PoolPlan(name=FUSED, choice=spec.workers, devices=devices)]
    return [
        PoolPlan(name=name, choice=spec.stage(name), devices={name: devices[name]})
        for name in STAGES
    ]


def make_stage(spec: ServeSpec, name: StageName, device: Device) -> Stage[Any]:
    """A stage that works in the service directory, not yet set up."""
    store = spec.store or spec.output
    memory = spec.memory.model_copy(update={"adapter_sets": spec.adapters})
    match name:
        case "text":
            return PromptStage(TextStage(spec.model, device, memory, store))
        case "stage1":
            return GenerateStage(spec.model, device, memory, store, spec.output, previews=True)
        case "stage2":
            return RefineStage(spec.model, device, memory, store, previews=True)
        case "decode":
            return DecodeStage(spec.model, device, memory, spec.output, spec.keep_latents, store)
