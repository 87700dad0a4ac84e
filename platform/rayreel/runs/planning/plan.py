"""What a run is expected to come to, and what it came to; both as JSON."""

from collections.abc import Iterable, Mapping
from typing import Self

from pydantic import Field, ValidationError

from rayreel.config.base import StrictModel
from rayreel.data.ledger import LedgerEntry
from rayreel.data.storage import Storage
from rayreel.errors import SpecError
from rayreel.requests.costs import Basis
from rayreel.runs.planning.replicas import Placement

FILE = "plan.json"


class StagePlan(StrictModel):
    """A stage of a pool."""

    name: str
    seconds: float | None = Field(description="per item on average, where anything is known")
    basis: Basis


class PoolPlan(StrictModel):
    """Actors that hold the same stages."""

    name: str = Field(description="names of the stages, joined by +")
    stages: tuple[StagePlan, ...]
    replicas: int
    cpus: float = Field(description="of one actor")
    gpus: float = Field(description="of one actor")
    batches: tuple[int, ...] = Field(description="batch sizes, smallest first")
    rate: float | None = Field(description="items per second that the pool can do")
    utilisation: float | None = Field(description="share of the time that its actors work")
    bottleneck: bool = False

    @property
    def seconds(self) -> float | None:
        """Per item, in all stages."""
        known = [stage.seconds for stage in self.stages if stage.seconds is not None]
        return sum(known) if len(known) == len(self.stages) else None


class ShapePlan(StrictModel):
    """Clips of one shape."""

    name: str
    clips: int
    batch: int
    reason: str = Field(description="why that batch size")


class Plan(StrictModel):
    """What a run is expected to come to. Seconds are none where costs are not known."""

    rows: int
    clips: int = Field(description="distinct ones")
    finished: int
    left: int = Field(description="clips to render")
    texts_known: int = Field(description="that need not be encoded")
    texts_new: int
    shapes: tuple[ShapePlan, ...] = Field(description="the most frequent one first")
    placement: Placement
    reason: str = Field(description="why that placement")
    text: PoolPlan | None = Field(description="of the text pass; none with nothing to encode")
    pools: tuple[PoolPlan, ...] = Field(description="of the render pass, in order")
    throughput: float | None = Field(description="clips per second")
    text_s: float | None
    render_s: float | None
    gpu_hours: float | None = Field(description="that actors hold, at work or not")
    clip_bytes: float
    clip_bytes_measured: bool = Field(description="else they are guessed from size and length")
    text_bytes: float
    latent_bytes: float
    notes: tuple[str, ...] = Field(default=(), description="what the numbers leave out")

    @property
    def seconds(self) -> float | None:
        """Of the whole run: the passes follow each other."""
        if self.text_s is None or self.render_s is None:
            return None
        return self.text_s + self.render_s

    @property
    def batch_sizes(self) -> dict[str, int]:
        """By name of the shape."""
        return {shape.name: shape.batch for shape in self.shapes}

    def save(self, storage: Storage) -> None:
        """Write it to a run directory."""
        storage.write_bytes(FILE, self.model_dump_json(indent=1).encode())

    @classmethod
    def load(cls, storage: Storage) -> Self | None:
        """The plan of a run, if it has one.

        Raises:
            SpecError: If the file is damaged.
        """
        try:
            return cls.model_validate_json(storage.read_bytes(FILE))
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise SpecError(
                f"{storage.join(FILE)} is not a plan ({error.errors()[0]['msg']}); remove it"
            ) from error


class Actual(StrictModel):
    """What a call of a run came to."""

    clips: int = Field(description="made by it")
    stages: dict[str, float] = Field(description="seconds per item, on average over all")
    throughput: float | None = Field(description="clips per second of the render pass")
    text_s: float
    render_s: float
    gpu_hours: float
    clip_bytes: float

    @classmethod
    def of(
        cls,
        entries: Iterable[LedgerEntry],
        *,
        text_s: float,
        render_s: float,
        gpu_hours: float,
        per_text_s: float | None = None,
    ) -> Self:
        """What the ledger tells.

        Args:
            entries: Of the clips that the call made; those that failed are left out.
            text_s: Length of the text pass.
            render_s: Length of the render pass.
            gpu_hours: That its actors held.
            per_text_s: An actor's time for one text.
        """
        clips, num_bytes = 0, 0
        seconds: dict[str, float] = {}
        for entry in entries:
            if entry.status == "done":
                clips += 1
                num_bytes += entry.num_bytes or 0
                for stage, took in entry.seconds.items():
                    seconds[stage] = seconds.get(stage, 0.0) + took
        return cls(
            clips=clips,
            stages=_per_item(seconds, clips, per_text_s),
            throughput=clips / render_s if render_s else None,
            text_s=text_s,
            render_s=render_s,
            gpu_hours=gpu_hours,
            clip_bytes=num_bytes,
        )


def _per_item(
    seconds: Mapping[str, float], clips: int, per_text_s: float | None
) -> dict[str, float]:
    """Means over all clips, as plans have them: clips that skip a stage count with nothing."""
    found = {stage: total / clips for stage, total in seconds.items() if stage != "text"}
    return found if per_text_s is None else {"text": per_text_s, **found}
