"""A run directory in use: its list checked, its ledger read, and nobody else at it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rayreel.checkpoints.files import ModelFiles
from rayreel.config.jobs import RenderSpec
from rayreel.data.lease import Lease
from rayreel.data.ledger import Ledger
from rayreel.data.storage import Storage
from rayreel.errors import RayreelError, SpecError
from rayreel.requests.models import rendering_model
from rayreel.runs.left import Left, Retry
from rayreel.runs.requests import RowPlan, plan_rows

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """What is open while a run is at work.

    Attributes:
        spec: The job.
        files: Its model.
        rows: Its list.
        storage: Its directory.
        ledger: What is finished.
        lease: That nobody else drives it.
    """

    spec: RenderSpec
    files: ModelFiles
    rows: RowPlan
    storage: Storage
    ledger: Ledger
    lease: Lease

    @property
    def store(self) -> Storage:
        """Where texts and costs lie, which runs may share."""
        return Storage(self.spec.store) if self.spec.store else self.storage

    def left(self, retry: Retry = "none") -> Left:
        """What is still to do, by the ledger as it is now."""
        return Left(self.rows, self.ledger.table(), retry=retry, attempts=self.spec.attempts)


@contextmanager
def open_run(spec: RenderSpec) -> Iterator[Run]:
    """Check a spec, and hold its run directory until the block ends.

    Args:
        spec: The job; its paths are absolute.

    Raises:
        SpecError: If the spec or a row is wrong, or the run directory cannot be one.
        CheckpointError: If weight files are.
        RayreelError: If another driver is at work.
    """
    files, rows = plan(spec)
    storage = open_directory(spec.output)
    with Lease(storage) as lease:
        yield Run(spec, files, rows, storage, Ledger(storage), lease)


def plan(spec: RenderSpec) -> tuple[ModelFiles, RowPlan]:
    """Check a spec and everything that it names; reads headers, and no weight.

    Raises:
        SpecError: If rows are wrong.
        CheckpointError: If weight files are missing, damaged or do not fit their architecture.
    """
    files = rendering_model(spec.model)
    return files, plan_rows(spec, files)


def open_directory(output: str) -> Storage:
    """A run directory; raises ``SpecError`` for one that cannot be written."""
    try:
        storage = Storage(output)
        if not storage.exists("run.json"):
            storage.write_bytes("run.json", b"{}")
        if not storage.honours_create():
            log.warning(
                "%s ignores conditional writes: should a worker that was thought dead go on, it "
                "may replace a clip by its own",
                output,
            )
    except RayreelError:
        raise
    except Exception as error:
        # Each file system has errors of its own.
        raise SpecError(
            f"output {output} cannot be a run directory ({type(error).__name__}: {error}); "
            "expected a folder or an fsspec URI that can be written"
        ) from error
    return storage
