"""Prompt list to clips: takes the run, renders what is left of it, and writes the reports."""

import dataclasses
import json
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from rayreel.cluster.board import Board
from rayreel.cluster.connect import Capacity, capacity, connected
from rayreel.cluster.jobs import run_id
from rayreel.cluster.pool import Pool, preflight
from rayreel.cluster.telemetry import Telemetry
from rayreel.cluster.tracing import tracing_target
from rayreel.config.jobs import RenderSpec, StageName
from rayreel.data.ledger import LedgerTable
from rayreel.errors import ClusterError, RunStopped
from rayreel.logs import log_context, log_settings
from rayreel.pipelines.chunks import is_chained, num_chunks
from rayreel.pipelines.devices import Device
from rayreel.requests.costs import CostBook
from rayreel.requests.shapes import shape_name
from rayreel.runs.budget import ErrorBudget
from rayreel.runs.forecast import cluster_of, forecast, placed
from rayreel.runs.left import Left, Retry
from rayreel.runs.measured import Measured
from rayreel.runs.opened import Run, open_run
from rayreel.runs.passes import Passes, in_waves
from rayreel.runs.planning.options import Cluster
from rayreel.runs.planning.plan import Plan
from rayreel.runs.planning.table import compare
from rayreel.runs.pools import choose_devices, render_pools, text_pool
from rayreel.runs.progress import following
from rayreel.runs.report import write_report
from rayreel.runs.run_file import common_facts
from rayreel.runs.waves import Waves, distinct

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
    stopped, comparison = "", None
    with open_run(spec) as run:
        left = run.left(retry)
        if left.clips:
            try:
                comparison = render_left(run, left)
            except RunStopped as error:
                stopped = str(error)
        run.ledger.compact()
        after = run.ledger.table()
        summary = _summary(run, after, left, stopped, time.monotonic() - start)
        title = PurePosixPath(spec.output).name
        write_report(
            run.storage, run.rows, after, title=title, summary=str(summary), comparison=comparison
        )
    return summary


def plan_run(run: Run, left: Left, free: Capacity) -> tuple[Plan, Cluster]:
    """What is left of a run, planned for a cluster.

    Args:
        run: The run; its placement may be left open.
        left: Of its list.
        free: What the cluster has.
    """
    devices = choose_devices(run.spec, [request for request, _ in left.shapes()], free)
    cluster = cluster_of(free, devices)
    book = CostBook.load(run.store)
    return forecast(run.spec, run.files, run.rows, left, cluster, book), cluster


def render_left(run: Run, left: Left) -> str:
    """Render what is left, and add what it took to the costs that are known.

    Args:
        run: The run.
        left: Of its list; at least one clip.

    Returns:
        What was planned beside what came of it, as lines of text.

    Raises:
        RunStopped: If too many fail.
        ClusterError: If the cluster cannot hold the job, or stopped it.
    """
    with connected():
        free = capacity()
        plan, cluster = plan_run(run, left, free)
        plan.save(run.storage)
        spec, devices = placed(run.spec, plan), cluster.devices
        text = text_pool(spec, devices["text"], free) if "text" in devices else None
        pools = render_pools(spec, devices, free)
        # The texts are encoded before the others start: both have the whole cluster.
        preflight([text] if text else [], free)
        preflight(pools, free)
        _write_run_file(run, devices, [text, *pools] if text else pools)
        telemetry = Telemetry(run_id(spec.output), tracing_target(spec.traces), log_settings())
        measured = Measured(run.files, cluster.labels)
        try:
            with (
                log_context(run=telemetry.run),
                closing(Board()) as board,
                following(left.clips, _chunks(run, left), run.storage) as progress,
                closing(Passes(run.ledger, run.lease, board, telemetry, spec.attempts)) as passes,
            ):
                waves = Waves(
                    spec=spec,
                    files=run.files,
                    passes=passes,
                    text=text,
                    pools=pools,
                    # Rows of one kind may differ in what they cost: only examples are known.
                    batch_size=lambda one: plan.batch_sizes.get(shape_name(one), 1),
                    progress=progress,
                    budget=ErrorBudget(spec.error_budget, left.clips),
                    measured=measured,
                )
                for wave in in_waves(distinct(left.rows()), spec.wave):
                    waves.render(wave, [left.attempt(row.item_id) for row in wave])
                    run.ledger.compact(_COMPACT)
                waves.finish()
        finally:
            CostBook.load(run.store).merged(measured.book()).save(run.store)
        return compare(plan, measured.actual(pools))


def _chunks(run: Run, left: Left) -> int:
    """Chunks of all clips that are left."""
    if not any(is_chained(request) for request, _ in left.shapes()):
        return left.clips
    time_factor = run.files.factors.time
    return sum(num_chunks(row.request, time_factor) for row in left.rows())


def _summary(
    run: Run, table: LedgerTable, left: Left, stopped: str, seconds: float
) -> RenderSummary:
    statuses = Counter(table.status(np.unique(run.rows.item_ids)))
    if statuses[None] and not stopped:
        raise ClusterError(
            f"{statuses[None]} clips are done, but {run.storage.join('ledger')} has no lines of "
            "them; the output must be a directory that all nodes see, or a URI"
        )
    return RenderSummary(
        rows=len(run.rows),
        clips=run.rows.num_clips,
        rendered=left.clips - statuses[None],
        failed=statuses["failed"],
        left=statuses[None],
        seconds=seconds,
        gallery=run.storage.join("index.html"),
        stopped=stopped,
    )


def _write_run_file(run: Run, devices: Mapping[StageName, Device], pools: Sequence[Pool]) -> None:
    files = run.files
    content: dict[str, Any] = {
        **common_facts(run.spec, files),
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
    }
    run.storage.write_bytes("run.json", json.dumps(content, indent=2).encode())
