"""Placements worked out: batch sizes, seconds per clip, needs of memory, and actors."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rayreel.checkpoints.files import ModelFiles
from rayreel.config.jobs import RenderSpec, StageName, StageSpec, cpu_share
from rayreel.pipelines.devices import Device
from rayreel.requests.costs import Basis, CostBook, Item, device_label
from rayreel.requests.shapes import DENOISING, RENDER_STAGES, Shape
from rayreel.runs.needs import FUSED
from rayreel.runs.planning.batch_sizes import (
    USABLE,
    BatchChoice,
    choose_batch,
    device_bytes,
    gib,
)
from rayreel.runs.planning.plan import StagePlan
from rayreel.runs.planning.replicas import (
    PLACEMENTS,
    Allocation,
    Load,
    Placement,
    Room,
    choose_placement,
    pool_replicas,
    split_replicas,
)

_BASES: list[Basis] = ["measured", "scaled", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What there is to render on.

    Attributes:
        room: CPUs and GPUs.
        devices: Of the stages.
        device_bytes: Memory of one device by the device's name, of the host for ``cpu``; one that
            is not named has room for everything.
        hardware: Product name of the accelerators.
    """

    room: Room
    devices: Mapping[StageName, Device]
    device_bytes: Mapping[str, int] = field(default_factory=dict)
    hardware: str = "cuda"

    @property
    def labels(self) -> dict[StageName, str]:
        """Names of devices as costs are kept under them."""
        return {name: device_label(one, self.hardware) for name, one in self.devices.items()}

    def gpus(self, stage: StageName, choice: StageSpec) -> float:
        """GPUs of an actor."""
        on_gpu = self.devices[stage].name == "cuda"
        return float(on_gpu) if choice.gpus is None else choice.gpus

    def memory(self, stage: StageName, choice: StageSpec) -> float:
        """Bytes of the device that an actor has: all, or its share of a GPU."""
        gpus = self.gpus(stage, choice)
        share = gpus if 0 < gpus < 1 else 1.0
        return share * self.device_bytes.get(self.devices[stage].name, math.inf)


@dataclass(frozen=True, kw_only=True)
class Option:
    """A placement, worked out.

    Attributes:
        batches: Batch sizes of the shapes, in order.
        stages: Seconds per clip, on average over all clips.
        loads: The pools, in order.
        needs: Bytes on the device, by stage and for ``FUSED``.
        found: Their actors; ``None`` if the cluster cannot hold them.
        unfit: Why memory rules it out; empty if it does not.
        doubts: What its seconds rest on, where that is little.
    """

    batches: list[BatchChoice]
    stages: list[StagePlan]
    loads: list[Load]
    needs: dict[str, int]
    found: Allocation | None
    unfit: str
    doubts: list[str]

    @property
    def known(self) -> bool:
        """Whether something is known of the cost of every stage."""
        return all(stage.seconds is not None for stage in self.stages)


@dataclass(frozen=True)
class Planner:
    """Works out the render pass of a list.

    Attributes:
        spec: Placement, limits of the pools and batch sizes.
        files: The model.
        shapes: Of the clips that are left, and how many have them; not empty.
        cluster: What there is to render on.
        book: What is known of costs.
    """

    spec: RenderSpec
    files: ModelFiles
    shapes: Sequence[tuple[Shape, int]]
    cluster: Cluster
    book: CostBook
    _known_needs: dict[tuple[str, int], dict[str, int]] = field(
        init=False, default_factory=dict, repr=False
    )

    @property
    def stages(self) -> list[StageName]:
        """Stages that some clips go through, in order."""
        needed = {stage for shape, _ in self.shapes for stage in shape.work}
        return [stage for stage in RENDER_STAGES if stage in needed]

    def choose(self) -> tuple[Placement, str, Option]:
        """The placement that the spec names or the better one, why, and what it comes to."""
        for placement in PLACEMENTS:
            if placement == self.spec.placement:
                return placement, "the spec says so", self.option(placement)
        options = {placement: self.option(placement) for placement in PLACEMENTS}
        unfit = {name: option.unfit for name, option in options.items() if option.unfit}
        if all(option.known for option in options.values()):
            found = {name: option.found for name, option in options.items()}
            chosen, reason = choose_placement(found, unfit)
            return chosen, reason, options[chosen]
        if "fused" not in unfit and options["fused"].found:
            return "fused", "costs are not known, and fused needs no balance", options["fused"]
        why = unfit.get("fused", "the cluster cannot hold its actors")
        return "split", f"fused is out: {why}", options["split"]

    def option(self, placement: Placement) -> Option:
        """A placement, worked out."""
        batches = [self._batch(shape, placement) for shape, _ in self.shapes]
        doubts: list[str] = []
        stages = [self._mean(stage, batches, doubts) for stage in self.stages]
        needs = self._needs(batches)
        pools = self._pools(placement)
        loads = self._loads(pools, stages, needs)
        room = self.cluster.room
        fused = placement == "fused"
        return Option(
            batches=batches,
            stages=stages,
            loads=loads,
            needs=needs,
            found=pool_replicas(loads[0], room) if fused else split_replicas(loads, room),
            unfit=self._unfit(pools, needs),
            doubts=list(dict.fromkeys(doubts)),
        )

    def load(self, pool: "Pooled", seconds: float, needs: Mapping[str, int], cpus: float) -> Load:
        """What a pool has to do, within the spec's limits.

        Args:
            pool: Its stages, and what the spec says of it.
            seconds: Of an actor for an item.
            needs: Bytes on the device, by stage and for ``FUSED``.
            cpus: Of an actor, where the spec says nothing.
        """
        choice = pool.choice
        decided = self.spec.placement in PLACEMENTS
        free = not decided and not choice.model_fields_set & {"replicas", "max_replicas"}
        on_host = self.cluster.devices[pool.stage].name == "cpu"
        return Load(
            name=pool.name,
            seconds=seconds,
            cpus=choice.cpus or cpus,
            gpus=self.cluster.gpus(pool.stage, choice),
            host_bytes=needs.get(pool.need, 0) if on_host else 0,
            least=choice.replicas,
            most=None if free else choice.max_replicas or choice.replicas,
        )

    def cpus(self, pools: Sequence["Pooled"]) -> float:
        """CPUs of an actor that the spec says nothing of."""
        return cpu_share([pool.choice for pool in pools], self.cluster.room.cpus)

    def _pools(self, placement: Placement) -> list["Pooled"]:
        if placement == "split":
            stages = self.stages
            return [Pooled(name, name, name, self.spec.stage(name)) for name in stages]
        name = "+".join(self.stages)
        return [Pooled(name, FUSED, self.stages[0], self.spec.workers)]

    def _loads(
        self, pools: Sequence["Pooled"], stages: Sequence[StagePlan], needs: Mapping[str, int]
    ) -> list[Load]:
        cpus = self.cpus(pools)
        loads = []
        for pool in pools:
            # Where nothing is known, all stages count alike: actors are counted, and no rate told.
            seconds = [s.seconds or 1.0 for s in stages if s.name in pool.name.split("+")]
            loads.append(self.load(pool, sum(seconds), needs, cpus))
        return loads

    def _batch(self, shape: Shape, placement: Placement) -> BatchChoice:
        """Batch size of a shape: the spec's, or the best that fits."""
        stage: StageName = next((s for s in DENOISING if s in shape.work), "decode")
        choice = self.spec.workers if placement == "fused" else self.spec.stage(stage)
        if shape.batched and choice.batch_size != "auto":
            return BatchChoice(size=choice.batch_size, reason="the spec says so")

        pools = {FUSED} if placement == "fused" else set(DENOISING)

        def need(size: int) -> int:
            needs = self._shape_needs(shape, size)
            return max(needs[name] for name in needs if name in pools)

        return choose_batch(
            shape,
            need=need,
            memory=self.cluster.memory(stage, choice),
            book=self.book,
            devices=self.cluster.labels,
        )

    def _shape_needs(self, shape: Shape, batch: int) -> dict[str, int]:
        key = shape.name, batch
        if key not in self._known_needs:
            devices = self.cluster.devices
            self._known_needs[key] = device_bytes(self.spec, self.files, shape, devices, batch)
        return self._known_needs[key]

    def _needs(self, batches: Sequence[BatchChoice]) -> dict[str, int]:
        """The most that any shape needs of a device, by stage and for ``FUSED``."""
        most: dict[str, int] = {}
        for (shape, _), batch in zip(self.shapes, batches, strict=True):
            for name, size in self._shape_needs(shape, batch.size).items():
                most[name] = max(size, most.get(name, 0))
        return most

    def _unfit(self, pools: Sequence["Pooled"], needs: Mapping[str, int]) -> str:
        for pool in pools:
            usable = USABLE * self.cluster.memory(pool.stage, pool.choice)
            needed = needs.get(pool.need, 0)
            if needed > usable:
                return f"{pool.need} needs {gib(needed)}, of {gib(usable)} that may be used"
        return ""

    def _mean(
        self, stage: StageName, batches: Sequence[BatchChoice], doubts: list[str]
    ) -> StagePlan:
        """Seconds of a stage per clip; clips of which nothing is known count like the others."""
        label = self.cluster.labels[stage]
        total, known, there, worst = 0.0, 0, 0, 0
        for (shape, count), batch in zip(self.shapes, batches, strict=True):
            if stage not in shape.work:
                continue
            there += count
            size = batch.size if stage in DENOISING else 1
            cost = self.book.cost(Item.clip(stage, shape), label, size)
            worst = max(worst, _BASES.index(cost.basis))
            if cost.seconds is None:
                doubts.append(f"nothing is known of {stage} for {shape.name} ({count} clips)")
            else:
                total += count * cost.seconds
                known += count
                if cost.batch != size:
                    doubts.append(f"{stage} of batches of {size} counts as of {cost.batch}")
        clips = sum(count for _, count in self.shapes)
        seconds = total / known * there / clips if known else None
        return StagePlan(name=stage, seconds=seconds, basis=_BASES[worst])


@dataclass(frozen=True)
class Pooled:
    """Stages that share actors.

    Attributes:
        name: Of the pool.
        need: Name of its needs of memory.
        stage: The first one.
        choice: What the spec says of the actors.
    """

    name: str
    need: str
    stage: StageName
    choice: StageSpec
