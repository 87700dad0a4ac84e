"""The stage graph of a render job: which stages the items need, and on which actors they run."""

from collections.abc import Sequence

from rayreel.cluster.connect import Capacity
from rayreel.cluster.data import Pool
from rayreel.config.jobs import RenderSpec, StageName, StageSpec
from rayreel.pipelines import pipeline_of
from rayreel.pipelines.devices import Device, choose_device
from rayreel.stages.base import RenderItem, Stage
from rayreel.stages.decode import DecodeStage
from rayreel.stages.denoise import GenerateStage, RefineStage
from rayreel.stages.text import TextStage

# An actor computes with as many threads as it has CPUs. Another number of threads sums in another
# order, so by default it must not depend on how many actors there are, or on the machine.
_CPUS = 1.0
# Ray rounds resources to four digits: shares that it rounds up would not fit side by side.
_SHARES_PER_CPU = 100


def choose_devices(
    spec: RenderSpec, items: Sequence[RenderItem], free: Capacity
) -> dict[StageName, Device]:
    """Device of every stage that the items need; what none of them goes through is left out.

    Raises:
        SpecError: If the spec names a device that is not there.
    """
    stages = max(pipeline_of(item.request).traits.stages for item in items)
    needed: list[tuple[StageName, bool]] = [
        ("text", stages > 0),
        ("stage1", stages > 0),
        ("stage2", stages > 1),
        ("decode", True),
    ]
    names = [name for name, there in needed if there]
    return {name: choose_device(spec.stage(name), cluster_gpus=free.gpus) for name in names}


def make_pools(spec: RenderSpec, devices: dict[StageName, Device], free: Capacity) -> list[Pool]:
    """Actor pools for the stages: one for all of them, or one each.

    Args:
        spec: Placement, replicas, batch sizes and resources; paths are absolute.
        devices: Of the stages, in order.
        free: What the cluster has. Actors without a number of CPUs take one each, or an even share
            where that is too much.
    """
    stages = {name: _stage(spec, name, device) for name, device in devices.items()}
    if spec.placement == "fused":
        groups = [(tuple(stages), spec.workers)]
    else:
        groups = [((name,), spec.stage(name)) for name in stages]
    share = _share([choice for _, choice in groups], free)
    pools = []
    for names, choice in groups:
        on_gpu = any(devices[name].name == "cuda" for name in names)
        pools.append(
            Pool(
                stages=tuple(stages[name] for name in names),
                replicas=choice.replicas,
                batch_size=choice.batch_size,
                cpus=choice.cpus or share,
                gpus=float(on_gpu) if choice.gpus is None else choice.gpus,
            )
        )
    return pools


def _share(choices: Sequence[StageSpec], free: Capacity) -> float:
    """CPUs of an actor whose spec says nothing; never none, so that preflight can refuse it."""
    held = sum(choice.replicas * choice.cpus for choice in choices if choice.cpus)
    others = sum(choice.replicas for choice in choices if not choice.cpus)
    shares = _SHARES_PER_CPU * (free.cpus - held) // max(1, others)
    return min(_CPUS, max(1, shares) / _SHARES_PER_CPU)


def _stage(spec: RenderSpec, name: StageName, device: Device) -> Stage[RenderItem]:
    store = spec.store or spec.output
    match name:
        case "text":
            return TextStage(spec.model, device, spec.memory, store)
        case "stage1":
            return GenerateStage(spec.model, device, spec.memory, spec.output, store)
        case "stage2":
            return RefineStage(spec.model, device, spec.memory)
        case "decode":
            return DecodeStage(spec.model, device, spec.memory, spec.output, spec.keep_latents)
