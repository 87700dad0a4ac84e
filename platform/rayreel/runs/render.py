"""Prompt list to clips: takes the run, renders what is left of it, and writes the reports."""

import dataclasses
import importlib.metadata
import json
import logging
import platform
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from rayreel.checkpoints.compatibility import text_encoder_warning
from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.networks import check_networks
from rayreel.checkpoints.tiny import locate_model
from rayreel.cluster.board import Board
from rayreel.cluster.connect import capacity, connected
from rayreel.cluster.jobs import run_id
from rayreel.cluster.pool import Pool, preflight
from rayreel.cluster.telemetry import Telemetry
from rayreel.cluster.tracing import tracing_target
from rayreel.config.jobs import RenderSpec, StageName
from rayreel.data.lease import Lease
from rayreel.data.ledger import Ledger, LedgerTable
from rayreel.data.storage import Storage
from rayreel.errors import CheckpointError, ClusterError, RayreelError, RunStopped, SpecError
from rayreel.logs import log_settings
from rayreel.pipelines.chunks import is_chained, num_chunks
from rayreel.pipelines.devices import Device
from rayreel.pipelines.image import image_faults
from rayreel.runs.batches import Size
from rayreel.runs.budget import ErrorBudget
from rayreel.runs.left import Left, Retry
from rayreel.runs.pools import choose_devices, render_pools, text_pool
from rayreel.runs.progress import following
from rayreel.runs.report import write_report
from rayreel.runs.requests import RowPlan, plan_rows
from rayreel.runs.waves import Waves, in_waves

# Denoised together where the spec leaves it open; gains are small beyond.
_LARGEST_BATCH = 8
# Lines of the ledger that are in files of their own before they are gathered.
_COMPACT = 1000

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RenderSummary:
    """What a run came to.

    Attributes:
        rows: Rows of the prompt list.
        clips: Distinct clips that they ask for.
        rendered: Clips that this call tried to make; the others were finished before.
        failed: Clips that could not be made.
        left: Clips that were not tried, as the run was stopped.
        seconds: How long this call took.
        gallery: Page to look at.
        stopped: Why it was, if it was.
    """

    rows: int
    clips: int
    rendered: int
    failed: int
    left: int
    seconds: float
    gallery: str
    stopped: str = ""

    @property
    def exit_code(self) -> int:
        """0 if every row has a clip, 1 if some failed, 3 if the error budget was spent."""
        return 3 if self.stopped else 1 if self.failed else 0

    def __str__(self) -> str:
        """One line, and why it was stopped."""
        work = f"{self.rendered} in {self.seconds:.0f} s" if self.rendered else "nothing was left"
        left = f"{self.left} left, " * bool(self.left)
        line = (
            f"{self.rows} rows, {self.clips} clips: {self.clips - self.failed - self.left} done, "
            f"{left}{self.failed} failed ({work})"
        )
        return f"{self.stopped}\n{line}" if self.stopped else line


def plan(spec: RenderSpec) -> tuple[ModelFiles, RowPlan]:
    """Check a spec and everything that it names; reads headers, and no weight.

    Raises:
        SpecError: If rows are wrong.
        CheckpointError: If weight files are missing, damaged or do not fit their architecture.
    """
    files = ModelFiles(locate_model(spec.model))
    check_networks(files)
    if files.spec.image_model and (found := image_faults(files.spec.image_model)):
        raise CheckpointError("\n".join(found))
    if warning := text_encoder_warning(files.transformer_file, files.text_encoder):
        log.warning("%s", warning)
    return files, plan_rows(spec, files)


def render(spec: RenderSpec, *, retry: Retry = "none") -> RenderSummary:
    """Render what is left of a prompt list.

    Args:
        spec: The job; its paths are absolute.
        retry: ``failed`` tries those clips again that have failed, and no others.

    Returns:
        What it came to: for a run with nothing left, what the finishing run did.

    Raises:
        SpecError: If the spec or a row is wrong; nothing has started.
        CheckpointError: If weight files are.
        StorageError: If the run directory does not answer any more.
        ClusterError: If the cluster cannot hold the job, or stopped it.
    """
    start = time.monotonic()
    files, rows = plan(spec)
    storage = _opened(spec.output)
    ledger, stopped = Ledger(storage), ""
    with Lease(storage) as lease:
        left = Left(rows, ledger.table(), retry=retry, attempts=spec.attempts)
        if left.clips:
            try:
                _render(_Run(spec, files, rows, storage, ledger, lease), left)
            except RunStopped as error:
                stopped = str(error)
        ledger.compact()
        after = ledger.table()
        summary = _summary(rows, after, left, storage, stopped, time.monotonic() - start)
        title = PurePosixPath(spec.output).name
        write_report(storage, rows, after, title=title, summary=str(summary))
    return summary


@dataclass(frozen=True)
class _Run:
    """What is open while a run is at work."""

    spec: RenderSpec
    files: ModelFiles
    rows: RowPlan
    storage: Storage
    ledger: Ledger
    lease: Lease


def _render(run: _Run, left: Left) -> None:
    requests = [request for request, _ in run.rows.shapes()]
    with connected():
        free = capacity()
        devices = choose_devices(run.spec, requests, free)
        text = text_pool(run.spec, devices["text"], free) if "text" in devices else None
        pools = render_pools(run.spec, devices, free)
        # The texts are encoded before the others start: both have the whole cluster.
        preflight([text] if text else [], free)
        preflight(pools, free)
        _write_run_file(run, devices, [text, *pools] if text else pools)
        chunks = left.clips
        if any(map(is_chained, requests)):
            time_factor = run.files.factors.time
            chunks = sum(num_chunks(row.request, time_factor) for row in left.rows())
        telemetry = Telemetry(
            run_id(run.spec.output), tracing_target(run.spec.traces), log_settings()
        )
        with closing(Board()) as board, following(left.clips, chunks, run.storage) as progress:
            waves = Waves(
                spec=run.spec,
                files=run.files,
                storage=run.storage,
                ledger=run.ledger,
                lease=run.lease,
                board=board,
                telemetry=telemetry,
                text=text,
                pools=pools,
                batch_size=_batch_size(run.spec),
                progress=progress,
                budget=ErrorBudget(run.spec.error_budget, left.clips),
            )
            for wave in in_waves(left.rows(), run.spec.wave):
                waves.render(wave, [left.attempt(row.item_id) for row in wave])
                run.ledger.compact(_COMPACT)
            waves.finish()


def _batch_size(spec: RenderSpec) -> Size:
    size = spec.stage("stage1").batch_size
    return lambda _: _LARGEST_BATCH if size == "auto" else size


def _summary(
    rows: RowPlan, table: LedgerTable, left: Left, storage: Storage, stopped: str, seconds: float
) -> RenderSummary:
    ids = np.unique(rows.item_ids)
    statuses = Counter(table.status(ids))
    if statuses[None] and not stopped:
        raise ClusterError(
            f"{statuses[None]} clips are done, but {storage.join('ledger')} has no lines of them; "
            "the output must be a directory that all nodes see, or a URI"
        )
    return RenderSummary(
        rows=len(rows),
        clips=len(ids),
        rendered=left.clips - statuses[None],
        failed=statuses["failed"],
        left=statuses[None],
        seconds=seconds,
        gallery=storage.join("index.html"),
        stopped=stopped,
    )


def _opened(output: str) -> Storage:
    """The run directory; one that cannot be written is refused."""
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


def _write_run_file(run: _Run, devices: Mapping[StageName, Device], pools: Sequence[Pool]) -> None:
    packages = ("rayreel", "torch", "ray", "transformers", "av")
    files = run.files
    content: dict[str, Any] = {
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "spec": run.spec.model_dump(mode="json"),
        "model": files.spec.model_dump(mode="json"),
        "model_version": ".".join(map(str, files.transformer_file.model_version)),
        "weights": files.fingerprint(tuple(files.fingerprints)),
        "loras": [lora.name for lora in files.adapters(distilled=True)],
        "devices": {name: dataclasses.asdict(device) for name, device in devices.items()},
        "pools": [
            {
                "stages": pool.name,
                "replicas": pool.replicas,
                "max_replicas": pool.max_replicas,
                "batch_size": pool.batch_size or "auto",
                "cpus": pool.cpus,
                "gpus": pool.gpus,
            }
            for pool in pools
        ],
        "versions": {
            "python": platform.python_version(),
            **{package: importlib.metadata.version(package) for package in packages},
        },
    }
    run.storage.write_bytes("run.json", json.dumps(content, indent=2).encode())
