"""The stage graph of a render job: which stages the items need, and on which actors they run."""

from collections.abc import Iterable, Mapping
from typing import Any

from rayreel.cluster.connect import Capacity
from rayreel.cluster.pool import Pool
from rayreel.config.jobs import RenderSpec, StageName, StageSpec, cpu_share
from rayreel.config.request import RenderRequest
from rayreel.data.ledger import Ledger
from rayreel.data.storage import Storage
from rayreel.pipelines import pipeline_of
from rayreel.pipelines.devices import Device, choose_device
from rayreel.stages.base import Stage
from rayreel.stages.decode import DecodeStage
from rayreel.stages.denoise import GenerateStage, RefineStage
from rayreel.stages.text import TextStage


def choose_devices(
    spec: RenderSpec, requests: Iterable[RenderRequest], free: Capacity
) -> dict[StageName, Device]:
    """Device of every stage that the requests need; what none of them goes through is left out.

    Raises:
        SpecError: If the spec names a device that is not there.
    """
    stages = max(pipeline_of(request).traits.stages for request in requests)
    needed: list[tuple[StageName, bool]] = [
        ("text", stages > 0),
        ("stage1", stages > 0),
        ("stage2", stages > 1),
        ("decode", True),
    ]
    names = [name for name, there in needed if there]
    return {name: choose_device(spec.stage(name), cluster_gpus=free.gpus) for name in names}


def text_pool(spec: RenderSpec, device: Device, free: Capacity) -> Pool:
    """The pool that encodes texts, before the others start.

    Args:
        spec: Replicas, batch size and resources; paths are absolute.
        device: Of the text stage.
        free: What the cluster has.
    """
    choice = spec.workers if spec.placement == "fused" else spec.stage("text")
    return _pool(spec, {"text": device}, choice, cpu_share([choice], free.cpus))


def render_pools(
    spec: RenderSpec, devices: Mapping[StageName, Device], free: Capacity
) -> list[Pool]:
    """Actor pools for the stages after the text: one for all of them, or one each.

    Args:
        spec: Placement, replicas, batch sizes and resources; paths are absolute.
        devices: Of the stages, in order.
        free: What the cluster has. Actors without a number of CPUs take one each, or an even share
            where that is too much.
    """
    names = [name for name in devices if name != "text"]
    if spec.placement == "fused":
        groups = [(names, spec.workers)]
    else:
        groups = [([name], spec.stage(name)) for name in names]
    share = cpu_share([choice for _, choice in groups], free.cpus)
    return [
        _pool(spec, {name: devices[name] for name in group}, choice, share)
        for group, choice in groups
    ]


def _pool(
    spec: RenderSpec, devices: Mapping[StageName, Device], choice: StageSpec, share: float
) -> Pool:
    on_gpu = any(device.name == "cuda" for device in devices.values())
    # Clips are decoded one by one.
    alone = list(devices) == ["decode"]
    size = None if choice.batch_size == "auto" else choice.batch_size
    return Pool(
        stages=tuple(_stage(spec, name, device) for name, device in devices.items()),
        replicas=choice.replicas,
        max_replicas=choice.max_replicas or choice.replicas,
        batch_size=1 if alone else size,
        cpus=choice.cpus or share,
        gpus=float(on_gpu) if choice.gpus is None else choice.gpus,
        node=choice.node,
        ledger=Ledger(Storage(spec.output)) if "decode" in devices else None,
    )


def _stage(spec: RenderSpec, name: StageName, device: Device) -> Stage[Any]:
    store = spec.store or spec.output
    match name:
        case "text":
            return TextStage(spec.model, device, spec.memory, store)
        case "stage1":
            return GenerateStage(spec.model, device, spec.memory, store, spec.output)
        case "stage2":
            return RefineStage(spec.model, device, spec.memory, store)
        case "decode":
            return DecodeStage(spec.model, device, spec.memory, spec.output, spec.keep_latents)
