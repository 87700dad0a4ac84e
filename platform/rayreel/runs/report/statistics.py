"""What a run came to in numbers, gathered clip by clip."""

import heapq
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from rayreel.data.ledger_entry import FailureRecord
from rayreel.runs.report.outcomes import Outcome

_MOST_EXAMPLES = 3
_MOST_SLOW = 10


@dataclass(slots=True, kw_only=True)
class FailureKind:
    """Failures of one stage and class.

    Attributes:
        message: Of the first one.
        count: Clips.
        examples: Names of the first rows.
    """

    message: str
    count: int = 0
    examples: list[str] = field(default_factory=list)


class Statistics:
    """Numbers of distinct clips; some 60 bytes of each.

    Attributes:
        rows: Rows of the list.
        statuses: Clips by what became of them.
        attempts: Tries of all clips.
        retried: Clips that took more than one.
        num_bytes: Size of all files.
        finished_at: Unix time at the end of each finished clip, in seconds.
        stage_seconds: Of each finished clip, by stage in the order of work.
        batches: Finished clips by how many were rendered together, where that is known.
        memory: Finished clips by what was done to fit them into memory.
        failures: By stage and class of the error.
    """

    def __init__(self) -> None:
        """Start with nothing."""
        self.rows = 0
        self.statuses: Counter[str] = Counter()
        self.attempts = 0
        self.retried = 0
        self.num_bytes = 0
        self.finished_at = array("d")
        self.stage_seconds: dict[str, array[float]] = {}
        self.batches: Counter[int] = Counter()
        self.memory: Counter[str] = Counter()
        self.failures: dict[tuple[str, str], FailureKind] = {}
        self._slowest: list[tuple[float, int, str]] = []

    @property
    def slowest(self) -> list[tuple[str, float]]:
        """Names of the slowest clips and their seconds, the slowest first."""
        return [(name, seconds) for seconds, _, name in sorted(self._slowest, reverse=True)]

    @property
    def common_failures(self) -> list[tuple[str, str, FailureKind]]:
        """Stage, class and what happened, the most frequent first."""
        kinds = sorted(self.failures.items(), key=lambda item: -item[1].count)
        return [(stage, error, kind) for (stage, error), kind in kinds]

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """Count rows; one that asks for the clip of a row before it counts as a row alone."""
        self.rows += len(outcomes)
        for outcome in outcomes:
            if outcome.names is not None:
                self._count(outcome, outcome.names)

    def _count(self, outcome: Outcome, names: str) -> None:
        self.statuses[outcome.status] += 1
        if (entry := outcome.entry) is None:
            return
        self.attempts += entry.attempt
        self.retried += entry.attempt > 1
        if entry.error:
            self._fail(entry.error, names)
            return
        self.num_bytes += entry.num_bytes or 0
        self.finished_at.append(entry.finished_at.timestamp())
        for stage, seconds in entry.seconds.items():
            self.stage_seconds.setdefault(stage, array("d")).append(seconds)
        if entry.batch is not None:
            self.batches[entry.batch] += 1
        if entry.memory:
            self.memory[entry.memory] += 1
        slow = (outcome.seconds, -outcome.row.number, names)
        if len(self._slowest) < _MOST_SLOW:
            heapq.heappush(self._slowest, slow)
        else:
            heapq.heappushpop(self._slowest, slow)

    def _fail(self, error: FailureRecord, names: str) -> None:
        kind = self.failures.setdefault(
            (error.stage, error.error), FailureKind(message=error.message)
        )
        kind.count += 1
        if len(kind.examples) < _MOST_EXAMPLES:
            kind.examples.append(names)
