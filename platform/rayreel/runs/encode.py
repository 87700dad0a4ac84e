"""Dataset list to shards: takes the run, encodes what is left of it, and publishes the dataset."""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import PurePosixPath

from rayreel.config.encode import EncodeSpec
from rayreel.errors import RunStopped
from rayreel.runs.budget import ErrorBudget
from rayreel.runs.encoding.on_cluster import OnCluster
from rayreel.runs.encoding.opened import EncodeRun, open_encode
from rayreel.runs.encoding.progress import following_rows
from rayreel.runs.encoding.publish import publish
from rayreel.runs.encoding.report import write_page
from rayreel.runs.encoding.results import SCHEMA, record
from rayreel.runs.encoding.run_file import write_run_file
from rayreel.runs.encoding.tries import Tries, Workers
from rayreel.runs.encoding.waves import EncodeWaves
from rayreel.runs.left import Retry
from rayreel.runs.passes import in_waves
from rayreel.runs.report.results import ResultsTable

# Lines of the ledger that are in files of their own before they are gathered.
_COMPACT = 1000


@dataclass(frozen=True, kw_only=True)
class EncodeSummary:
    """What a run came to.

    Attributes:
        rows: Rows of the list.
        done: Samples of the dataset.
        dropped: Clips that a rule took out.
        failed: Clips that could not be encoded.
        encoded: Records that this call made; the others were there before.
        seconds: How long this call took.
        page: To look at.
        stopped: Why it was, if it was.
    """

    rows: int
    done: int
    dropped: int
    failed: int
    encoded: int
    seconds: float
    page: str
    stopped: str = ""

    @property
    def exit_code(self) -> int:
        """0 if no clip failed, 1 if some did, 3 if the error budget was spent."""
        return 3 if self.stopped else 1 if self.failed else 0

    def __str__(self) -> str:
        """One line, and why it was stopped."""
        work = f"{self.encoded} encoded in {self.seconds:.0f} s" if self.encoded else "nothing new"
        line = (
            f"{self.rows} rows: {self.done} samples, {self.dropped} dropped, {self.failed} failed "
            f"({work})"
        )
        return f"{self.stopped}\n{line}" if self.stopped else line


def encode(
    spec: EncodeSpec,
    *,
    retry: Retry = "none",
    workers: Callable[[EncodeRun], Workers] = OnCluster,
) -> EncodeSummary:
    """Encode what is left of a list, and publish it as a dataset.

    Args:
        spec: The job; its paths are absolute.
        retry: ``failed`` tries again what failed for good, too.
        workers: Where passes are worked on.

    Returns:
        What it came to.

    Raises:
        SpecError: If the spec or the list is wrong; nothing has started.
        CheckpointError: If weight files are.
        StorageError: If the output or the store does not answer any more.
        ClusterError: If the cluster cannot hold the job, or stopped it.
    """
    start = time.monotonic()
    with open_encode(spec) as run:
        waves, stopped = _encoded(run, retry, workers(run))
        run.ledger.compact()
        info = None if stopped else publish(run, waves.shards, run.ledger.table())
        counts = waves.counts
        summary = EncodeSummary(
            rows=run.rows.num_rows,
            done=counts["done"],
            dropped=counts["dropped"],
            failed=counts["failed"],
            encoded=waves.encoded,
            seconds=time.monotonic() - start,
            page=run.storage.join("index.html"),
            stopped=stopped,
        )
        title = PurePosixPath(spec.output).name
        write_page(run.storage, title=title, summary=str(summary), info=info)
    return summary


def _encoded(run: EncodeRun, retry: Retry, workers: Workers) -> tuple[EncodeWaves, str]:
    """The waves, all of them done, and why they were stopped, if they were."""
    spec = run.spec
    with (
        following_rows(run.rows.num_rows) as progress,
        closing(Tries(run, workers, run.ledger.table(), progress, retry)) as tries,
        run.storage.local_staging("results.parquet") as staged,
        ResultsTable(staged, SCHEMA) as results,
    ):
        waves = EncodeWaves(run, tries, ErrorBudget(spec.error_budget, run.rows.num_rows))
        try:
            for rows in in_waves(run.rows, spec.wave):
                results.add([record(outcome) for outcome in waves.encode(rows)])
                run.ledger.compact(_COMPACT)
        except RunStopped as error:
            return waves, str(error)
        if tries.seconds:
            write_run_file(run, tries)
        return waves, ""
