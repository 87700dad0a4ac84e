"""What became of the jobs of a load test, and what that says of the service."""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

End = Literal["done", "failed", "cancelled", "refused", "unfinished"]


@dataclass(slots=True, kw_only=True)
class Outcome:
    """One job, as its client saw it; times are seconds since the test began.

    Attributes:
        index: Which of the jobs, from 0.
        shape: Name of its entry in the mix.
        job_id: That the service gave it.
        end: ``refused``: never accepted; ``unfinished``: not done when the test was over.
        asked_at: When it was first asked for.
        answer_s: How long the request took that was accepted.
        accepted_at: When that was answered.
        started_at: When it was first seen out of the queue.
        ended_at: When its end was seen.
        first_event_s: From when it was accepted until its first event came, where it was followed
            by events.
        eta_s: What the service told when it accepted it.
        positions: In the queue, as they were seen, without repetitions.
        too_many: Answers 429.
        errors: Connections that broke, and answers from 500 on.
        message: Why it was refused, or failed.
    """

    index: int
    shape: str
    job_id: str = ""
    end: End = "unfinished"
    asked_at: float = 0.0
    answer_s: float | None = None
    accepted_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    first_event_s: float | None = None
    eta_s: float | None = None
    positions: list[int] = field(default_factory=list)
    too_many: int = 0
    errors: int = 0
    message: str = ""

    @property
    def wait_s(self) -> float | None:
        """From when it was accepted until it started."""
        return _between(self.accepted_at, self.started_at)

    @property
    def total_s(self) -> float | None:
        """From when it was accepted until it was done; of those that are."""
        return _between(self.accepted_at, self.ended_at) if self.end == "done" else None

    @property
    def eta_ratio(self) -> float | None:
        """Time until it was done, as a share of what was told."""
        return self.total_s / self.eta_s if self.total_s and self.eta_s else None

    @property
    def rose(self) -> bool:
        """Whether it was seen further back in the queue than before."""
        return any(later > sooner for sooner, later in itertools.pairwise(self.positions))

    def to_json(self) -> dict[str, Any]:
        """All of it, also what follows from the rest."""
        known = {"wait_s": self.wait_s, "total_s": self.total_s, "rose": self.rose}
        return {**asdict(self), **known}


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How some numbers are spread.

    Attributes:
        count: How many there are.
        p50: The median.
        p95: What 95 of 100 do not exceed.
        most: The largest.
    """

    count: int
    p50: float
    p95: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float | None]) -> "Spread | None":
        """Of those that are known; ``None`` without any."""
        known = sorted(value for value in values if value is not None)
        if not known:
            return None
        p50, p95 = (known[math.ceil(share * len(known)) - 1] for share in (0.5, 0.95))
        return cls(count=len(known), p50=p50, p95=p95, most=known[-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """A load test in numbers.

    Attributes:
        ends: How many jobs ended how.
        accepted: Jobs that were accepted.
        too_many: Answers 429.
        errors: Connections that broke, and answers from 500 on.
        seconds: From when the first was asked for until the last one ended.
        spreads: Of seconds, and of ``eta ratio``, by name.
        highest: Position of the job that was furthest back in the queue, as seen.
        rose: Jobs that were seen further back than before: shorter or more urgent ones came.
    """

    ends: dict[End, int]
    accepted: int
    too_many: int
    errors: int
    seconds: float
    spreads: dict[str, Spread]
    highest: int | None
    rose: int

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> "LoadReport":
        """What the jobs say together.

        Args:
            outcomes: At least one.
        """
        ends: tuple[End, ...] = ("done", "failed", "cancelled", "refused", "unfinished")
        spreads = {
            "answer": Spread.of(one.answer_s for one in outcomes),
            "first event": Spread.of(one.first_event_s for one in outcomes),
            "wait": Spread.of(one.wait_s for one in outcomes),
            "total": Spread.of(one.total_s for one in outcomes),
        }
        for shape in dict.fromkeys(one.shape for one in outcomes):
            spreads[f"total {shape}"] = Spread.of(o.total_s for o in outcomes if o.shape == shape)
        spreads["eta ratio"] = Spread.of(one.eta_ratio for one in outcomes)
        last = max((one.ended_at for one in outcomes if one.ended_at is not None), default=0.0)
        return cls(
            ends={end: sum(one.end == end for one in outcomes) for end in ends},
            accepted=sum(one.accepted_at is not None for one in outcomes),
            too_many=sum(one.too_many for one in outcomes),
            errors=sum(one.errors for one in outcomes),
            seconds=max(0.0, last - min(one.asked_at for one in outcomes)),
            spreads={name: spread for name, spread in spreads.items() if spread},
            highest=max((place for one in outcomes for place in one.positions), default=None),
            rose=sum(one.rose for one in outcomes),
        )

    def table(self) -> str:
        """For people."""
        pace = 60 * self.ends["done"] / self.seconds if self.seconds else 0.0
        width = max(len(name) for name in (*self.spreads, ""))
        rows = [f"{'':{width}}  {'jobs':>6}  {'p50':>9}  {'p95':>9}  {'most':>9}"]
        for name, one in self.spreads.items():
            unit = "x" if name == "eta ratio" else "s"
            numbers = "  ".join(f"{value:>8.2f}{unit}" for value in (one.p50, one.p95, one.most))
            rows.append(f"{name:{width}}  {one.count:>6}  {numbers}")
        places = "no positions seen"
        if self.highest is not None:
            places = f"highest position {self.highest}; rose for {self.rose} jobs"
        return "\n".join(
            [
                f"{sum(self.ends.values())} jobs in {self.seconds:.1f} s, {pace:.1f} done a minute",
                f"accepted {self.accepted}; "
                + ", ".join(f"{end} {count}" for end, count in self.ends.items()),
                f"answers 429: {self.too_many}; broken connections and answers from 500 on: "
                f"{self.errors}",
                places,
                *rows,
            ]
        )


def _between(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else end - start
