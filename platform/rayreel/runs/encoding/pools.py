"""On which actors the passes of an encode job run."""

from collections.abc import Mapping
from typing import Any

from rayreel.cluster.connect import Capacity
from rayreel.cluster.pool import Pool
from rayreel.config.encode import EncodeSpec, EncodeStageName, LocalCaptioner
from rayreel.data.ledger import Ledger
from rayreel.data.storage import Storage
from rayreel.pipelines.devices import Device, choose_device
from rayreel.runs.encoding.opened import store_of
from rayreel.stages.base import Stage
from rayreel.stages.caption import CaptionStage
from rayreel.stages.latents import LatentStage
from rayreel.stages.scan import ScanStage
from rayreel.stages.shards import ShardStage
from rayreel.stages.text import TextStage

# Passes that no network computes in.
_ON_CPU: tuple[EncodeStageName, ...] = ("scan", "shards")


def encode_devices(spec: EncodeSpec, free: Capacity) -> dict[EncodeStageName, Device]:
    """Device of every pass.

    Raises:
        SpecError: If the spec names a device that is not there.
    """
    names: tuple[EncodeStageName, ...] = ("scan", "caption", "text", "latents", "shards")
    cpu = Device("cpu", "float32", "no network computes here")
    local = isinstance(spec.captions.captioner, LocalCaptioner)
    return {
        name: cpu
        if name in _ON_CPU or (name == "caption" and not local)
        else choose_device(spec.stage(name), cluster_gpus=free.gpus)
        for name in names
    }


def encode_pool(
    spec: EncodeSpec,
    name: EncodeStageName,
    devices: Mapping[EncodeStageName, Device],
    free: Capacity,
) -> Pool:
    """The pool of one pass, which has the cluster for itself.

    Args:
        spec: Replicas and resources; paths are absolute. Where it says nothing of replicas, there
            are as many as the cluster has room for.
        name: Of the pass.
        devices: Of the passes.
        free: What the cluster has.
    """
    choice, device = spec.stage(name), devices[name]
    cpus = choice.cpus or min(1.0, max(free.cpus, 0.01))
    gpus = float(device.name == "cuda") if choice.gpus is None else choice.gpus
    replicas = choice.replicas
    if not {"replicas", "max_replicas"} & choice.model_fields_set:
        room = [free.cpus // cpus, *([free.gpus // gpus] if gpus else [])]
        replicas = max(1, int(min(room)))
    return Pool(
        stages=(_stage(spec, name, device),),
        replicas=replicas,
        max_replicas=choice.max_replicas or replicas,
        batch_size=None,
        cpus=cpus,
        gpus=gpus,
        node=choice.node,
        ledger=Ledger(Storage(spec.output)) if name == "shards" else None,
    )


def _stage(spec: EncodeSpec, name: EncodeStageName, device: Device) -> Stage[Any]:
    store = store_of(spec)
    match name:
        case "scan":
            return ScanStage(store, spec.scenes)
        case "caption":
            return CaptionStage(spec.captions, device, store)
        case "text":
            return TextStage(spec.model, device, spec.memory, store)
        case "latents":
            return LatentStage(spec.model, device, spec.memory, store, spec.tiled)
        case "shards":
            return ShardStage(spec.model, store, spec.output, spec.tiled)
