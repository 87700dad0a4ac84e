"""What is known of the cost of stages: measured by earlier clips, and told for other shapes."""

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, ValidationError

from rayreel.config.base import StrictModel
from rayreel.config.jobs import StageName
from rayreel.data.ledger import LedgerEntry
from rayreel.data.storage import Storage
from rayreel.errors import SpecError
from rayreel.pipelines.devices import Device
from rayreel.runs.planning.shapes import DENOISING, Shape

FILE = "costs.json"
TEXT = "text"
"""Shape of a text to encode: they all take about as long."""
WRITTEN = "text, written first"
"""Shape of a text that the language model writes out before it is encoded."""

Basis = Literal["measured", "scaled", "unknown"]


def device_label(device: Device, hardware: str) -> str:
    """Name of what computes, as costs are kept under it: ``NVIDIA H100 bfloat16``.

    Args:
        device: Of a stage.
        hardware: Product name of the cluster's accelerators; of no effect for the CPU.
    """
    return f"{device.name if device.name == 'cpu' else hardware} {device.dtype}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What one item took in one stage.

    Attributes:
        stage: Name of the stage.
        shape: Name of the item's shape.
        device: As ``device_label`` says it.
        batch: Items that were worked on together.
        seconds: The item's share of the time.
        work: As of ``Shape``; 1 for texts.
    """

    stage: StageName
    shape: str
    device: str
    batch: int
    seconds: float
    work: float = 1.0


class StageCost(StrictModel):
    """What a stage takes for a shape."""

    stage: StageName
    shape: str
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
    source: str = Field(default="", description="batch and shape that it was measured with")


class CostBook(StrictModel):
    """All that is known. Books are values: merging gives a new one."""

    stages: tuple[StageCost, ...] = ()
    files: tuple[FileCost, ...] = ()

    @classmethod
    def of(
        cls,
        observations: Iterable[Observation],
        sizes: Iterable[tuple[str, int]] = (),
    ) -> "CostBook":
        """The medians of single measurements.

        Args:
            observations: Of stages.
            sizes: Shapes and bytes of files.
        """
        seen: dict[tuple[StageName, str, str, int], list[Observation]] = {}
        for one in observations:
            seen.setdefault((one.stage, one.shape, one.device, one.batch), []).append(one)
        files: dict[str, list[int]] = {}
        for shape, num_bytes in sizes:
            files.setdefault(shape, []).append(num_bytes)
        return cls(
            stages=tuple(
                StageCost(
                    stage=stage,
                    shape=shape,
                    device=device,
                    batch=batch,
                    seconds=statistics.median(one.seconds for one in found),
                    work=found[0].work,
                    samples=len(found),
                )
                for (stage, shape, device, batch), found in sorted(seen.items())
            ),
            files=tuple(
                FileCost(shape=shape, num_bytes=statistics.median(found), samples=len(found))
                for shape, found in sorted(files.items())
            ),
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

    def cost(
        self, stage: StageName, device: str, *, batch: int, shape: str, work: float = 1.0
    ) -> Cost:
        """What is expected of an item.

        Args:
            stage: Name of the stage.
            device: As ``device_label`` says it.
            batch: Items that will be worked on together.
            shape: Name of the item's shape.
            work: As of ``Shape``; 1 for texts.

        Returns:
            What was measured of the shape, at this batch size or at the nearest one; else what
            follows from the shape with the nearest amount of work.
        """
        known = [cost for cost in self.stages if (cost.stage, cost.device) == (stage, device)]
        own = [cost for cost in known if cost.shape == shape]
        if own:
            best = min(own, key=lambda cost: (_ratio(cost.batch, batch), cost.batch))
            return Cost(seconds=best.seconds, basis="measured", source=f"batch {best.batch}")
        # Writing a text out takes very much longer than to encode it: they say nothing of another.
        known = [cost for cost in known if WRITTEN not in {cost.shape, shape}]
        if not known:
            return Cost()
        best = min(known, key=lambda c: (_ratio(c.work, work), _ratio(c.batch, batch), c.shape))
        factor = work / best.work
        return Cost(
            seconds=best.seconds * factor,
            basis="scaled",
            source=f"{best.shape}, batch {best.batch}, times {factor:.3g}",
        )

    def file_bytes(self, shape: Shape) -> tuple[float, Basis]:
        """Size of a clip's file, and how it is known: measured, or no more than a guess."""
        for cost in self.files:
            if cost.shape == shape.name:
                return cost.num_bytes, "measured"
        return shape.file_bytes, "unknown"


def observe(
    entry: LedgerEntry, shape: Shape, devices: dict[StageName, str], batch: int
) -> Iterator[Observation]:
    """What a finished clip tells of the stages.

    Args:
        entry: Of a clip that is done.
        shape: Of the clip.
        devices: Of the stages, as ``device_label`` says them.
        batch: Clips that were denoised together.
    """
    for stage, work in shape.work.items():
        # What passes through a stage that it does not need is no measurement.
        if stage in entry.seconds and stage in devices:
            yield Observation(
                stage=stage,
                shape=shape.name,
                device=devices[stage],
                batch=batch if stage in DENOISING else 1,
                seconds=entry.seconds[stage],
                work=work,
            )


def _key(cost: StageCost) -> tuple[StageName, str, str, int]:
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
