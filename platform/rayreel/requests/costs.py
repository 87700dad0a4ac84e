"""What is known of the cost of stages: measured by earlier clips, and told for other shapes."""

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, ValidationError

from rayreel.config.base import StrictModel
from rayreel.config.jobs import StageName
from rayreel.data.ledger import LedgerEntry
from rayreel.data.storage import Storage
from rayreel.errors import SpecError
from rayreel.pipelines.devices import Device
from rayreel.requests.shapes import DENOISING, Kind, Shape

FILE = "costs.json"
TEXT: Kind = "text"
"""Kind, and shape, of a text to encode: they all take about as long."""
WRITTEN: Kind = "written text"
"""The same of a text that the language model writes out before it is encoded."""

Basis = Literal["measured", "scaled", "unknown"]


def device_label(device: Device, hardware: str) -> str:
    """Name of what computes, as costs are kept under it: ``NVIDIA H100 bfloat16``.

    Args:
        device: Of a stage.
        hardware: Product name of the cluster's accelerators; of no effect for the CPU.
    """
    return f"{device.name if device.name == 'cpu' else hardware} {device.dtype}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """What a cost is asked for.

    Attributes:
        stage: Name of the stage.
        shape: Name of the item's shape.
        kind: Of the shape.
        work: As of ``Shape``; 1 for texts.
    """

    stage: str
    shape: str
    kind: str
    work: float = 1.0

    @classmethod
    def clip(cls, stage: StageName, shape: Shape) -> "Item":
        """A clip in a stage that it goes through."""
        return cls(stage=stage, shape=shape.name, kind=shape.kind, work=shape.work[stage])

    @classmethod
    def text(cls, *, written: bool = False) -> "Item":
        """A text to encode, perhaps written out first."""
        kind = WRITTEN if written else TEXT
        return cls(stage="text", shape=kind, kind=kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What one item took in one stage.

    Attributes:
        item: In a stage.
        device: As ``device_label`` says it.
        batch: Items that were worked on together.
        seconds: The item's share of the time.
    """

    item: Item
    device: str
    batch: int
    seconds: float


class StageCost(StrictModel):
    """What a stage takes for a shape."""

    stage: str
    shape: str
    kind: str
    device: str
    batch: int = Field(ge=1, description="items that were worked on together")
    seconds: float = Field(ge=0, description="of one item, the median")
    work: float = Field(gt=0, description="of one item, in a unit of the stage")
    samples: int = Field(ge=1, description="items that were measured")


class FileCost(StrictModel):
    """What a clip of a shape takes on disk."""

    shape: str
    num_bytes: float = Field(ge=0, description="of one file, the median")
    samples: int = Field(ge=1, description="files that were measured")


class Cost(StrictModel):
    """What is expected of one item in one stage."""

    seconds: float | None = Field(default=None, description="none where nothing is known")
    basis: Basis = "unknown"
    batch: int | None = Field(default=None, description="that it was measured with")


class CostBook(StrictModel):
    """All that is known. Books are values: merging gives a new one."""

    stages: tuple[StageCost, ...] = ()
    files: tuple[FileCost, ...] = ()
    starts: dict[str, float] = Field(
        default_factory=dict, description="seconds until a pool's actors are ready, by pool"
    )

    @classmethod
    def of(
        cls,
        observations: Iterable[Observation],
        sizes: Iterable[tuple[str, int]] = (),
        starts: Mapping[str, float] | None = None,
    ) -> "CostBook":
        """The medians of single measurements.

        Args:
            observations: Of stages.
            sizes: Names of shapes, and bytes of files.
            starts: Seconds until a pool's actors were ready, by pool.
        """
        seen: dict[tuple[str, str, str, int], list[Observation]] = {}
        for one in observations:
            key = (one.item.stage, one.device, one.item.shape, one.batch)
            seen.setdefault(key, []).append(one)
        files: dict[str, list[int]] = {}
        for shape, num_bytes in sizes:
            files.setdefault(shape, []).append(num_bytes)
        return cls(
            stages=tuple(
                StageCost(
                    stage=stage,
                    shape=shape,
                    kind=found[0].item.kind,
                    device=device,
                    batch=batch,
                    seconds=statistics.median(one.seconds for one in found),
                    work=found[0].item.work,
                    samples=len(found),
                )
                for (stage, device, shape, batch), found in sorted(seen.items())
            ),
            files=tuple(
                FileCost(shape=shape, num_bytes=statistics.median(found), samples=len(found))
                for shape, found in sorted(files.items())
            ),
            starts=dict(starts or {}),
        )

    def merged(self, other: "CostBook") -> "CostBook":
        """Both books; what is in both counts by its samples, which must not be the same ones."""
        stages = {_key(cost): cost for cost in self.stages}
        for cost in other.stages:
            known = stages.get(_key(cost))
            stages[_key(cost)] = _mean_cost(known, cost) if known else cost
        files = {cost.shape: cost for cost in self.files}
        for size in other.files:
            there = files.get(size.shape)
            files[size.shape] = _mean_size(there, size) if there else size
        return CostBook(
            stages=tuple(stages[key] for key in sorted(stages)),
            files=tuple(files[key] for key in sorted(files)),
            starts={**self.starts, **other.starts},
        )

    def save(self, storage: Storage) -> None:
        """Write it to a run directory."""
        storage.write_bytes(FILE, self.model_dump_json(indent=1).encode())

    @classmethod
    def load(cls, storage: Storage) -> "CostBook":
        """The book of a run; empty if it has none yet.

        Raises:
            SpecError: If the file is damaged.
        """
        try:
            return cls.model_validate_json(storage.read_bytes(FILE))
        except FileNotFoundError:
            return cls()
        except ValidationError as error:
            raise SpecError(
                f"{storage.join(FILE)} is not a list of costs ({error.errors()[0]['msg']}); "
                "remove it to measure again"
            ) from error

    def sizes_measured(
        self, shape: str, stages: Sequence[tuple[StageName, str]]
    ) -> dict[int, float]:
        """Seconds of an item in all of some stages, by the batch sizes that all were measured at.

        Args:
            shape: Name of a shape.
            stages: Names and devices.
        """
        found = [
            {cost.batch: cost.seconds for cost in self.stages if _key(cost)[:3] == (*one, shape)}
            for one in stages
        ]
        common = set.intersection(*map(set, found)) if found else set()
        return {batch: sum(costs[batch] for costs in found) for batch in sorted(common)}

    def cost(self, item: "Item", device: str, batch: int) -> Cost:
        """What is expected of an item.

        Args:
            item: In a stage.
            device: As ``device_label`` says it.
            batch: Items that will be worked on together.

        Returns:
            What was measured of the shape, at this batch size or at the nearest one; else what
            follows from the shape of its kind with the nearest amount of work.
        """
        known = [cost for cost in self.stages if (cost.stage, cost.device) == (item.stage, device)]
        own = [cost for cost in known if cost.shape == item.shape]
        if own:
            best = min(own, key=lambda cost: (_ratio(cost.batch, batch), cost.batch))
            return Cost(seconds=best.seconds, basis="measured", batch=best.batch)
        known = [cost for cost in known if cost.kind == item.kind]
        if not known:
            return Cost()
        best = min(
            known, key=lambda c: (_ratio(c.work, item.work), _ratio(c.batch, batch), c.shape)
        )
        seconds = best.seconds * item.work / best.work
        return Cost(seconds=seconds, basis="scaled", batch=best.batch)

    def file_bytes(self, shape: Shape) -> tuple[float, Basis]:
        """Size of a clip's file, and how it is known: measured, or no more than a guess."""
        for cost in self.files:
            if cost.shape == shape.name:
                return cost.num_bytes, "measured"
        return shape.file_bytes, "unknown"


def observe(
    entry: LedgerEntry, shape: Shape, devices: Mapping[StageName, str], batch: int
) -> Iterator[Observation]:
    """What a finished clip tells of the stages.

    Args:
        entry: Of a clip that is done.
        shape: Of the clip.
        devices: Of the stages, as ``device_label`` says them.
        batch: Clips that were denoised together.
    """
    for stage in shape.work:
        # What passes through a stage that it does not need is no measurement.
        if stage in entry.seconds and stage in devices:
            yield Observation(
                item=Item.clip(stage, shape),
                device=devices[stage],
                batch=batch if stage in DENOISING else 1,
                seconds=entry.seconds[stage],
            )


def _key(cost: StageCost) -> tuple[str, str, str, int]:
    return cost.stage, cost.device, cost.shape, cost.batch


def _mean_cost(a: StageCost, b: StageCost) -> StageCost:
    samples = a.samples + b.samples
    seconds = (a.seconds * a.samples + b.seconds * b.samples) / samples
    return b.model_copy(update={"seconds": seconds, "samples": samples})


def _mean_size(a: FileCost, b: FileCost) -> FileCost:
    samples = a.samples + b.samples
    num_bytes = (a.num_bytes * a.samples + b.num_bytes * b.samples) / samples
    return b.model_copy(update={"num_bytes": num_bytes, "samples": samples})


def _ratio(a: float, b: float) -> float:
    """How many times the smaller one goes into the larger one."""
    return max(a, b) / min(a, b)
