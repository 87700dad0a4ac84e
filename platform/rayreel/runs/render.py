"""Prompt list to clips: checks the spec, wires the stages, follows the work, writes the reports."""

import dataclasses
import importlib.metadata
import json
import logging
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from rayreel.checkpoints.compatibility import text_encoder_warning
from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.networks import check_networks
from rayreel.checkpoints.tiny import locate_model
from rayreel.cluster.connect import capacity, connected
from rayreel.cluster.data import Pool, preflight, run
from rayreel.config.jobs import RenderSpec, StageName
from rayreel.data.ledger import FailureRecord, Ledger, LedgerEntry, worker_name
from rayreel.data.storage import Storage
from rayreel.errors import CheckpointError, ClusterError, RayreelError, SpecError
from rayreel.pipelines.chunks import num_chunks
from rayreel.pipelines.devices import Device
from rayreel.pipelines.image import image_faults
from rayreel.pipelines.phases import batch_key
from rayreel.runs.pools import choose_devices, make_pools
from rayreel.runs.progress import Progress, following
from rayreel.runs.report import write_report
from rayreel.runs.requests import PlannedRow, plan_rows
from rayreel.stages.base import ItemFailure, RenderItem, Result

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RenderSummary:
    """What a run came to.

    Attributes:
        rows: Rows of the prompt list.
        clips: Distinct clips that they ask for.
        rendered: Clips that this call tried to make; the others were finished before.
        failed: Clips that could not be made.
        seconds: How long this call took.
        gallery: Page to look at.
    """

    rows: int
    clips: int
    rendered: int
    failed: int
    seconds: float
    gallery: str

    @property
    def exit_code(self) -> int:
        """0 if every row has a clip, 1 if some failed."""
        return 1 if self.failed else 0

    def __str__(self) -> str:
        """One line."""
        work = f"{self.rendered} in {self.seconds:.0f} s" if self.rendered else "nothing was left"
        return (
            f"{self.rows} rows, {self.clips} clips: {self.clips - self.failed} done, "
            f"{self.failed} failed ({work})"
        )


def plan(spec: RenderSpec) -> tuple[ModelFiles, list[PlannedRow]]:
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
    return files, list(plan_rows(spec, files))


def render(spec: RenderSpec) -> RenderSummary:
    """Render what is left of a prompt list.

    Args:
        spec: The job; its paths are absolute.

    Returns:
        What it came to: for a run with nothing left, what the finishing run did.

    Raises:
        SpecError: If the spec or a row is wrong; nothing has started.
        CheckpointError: If weight files are.
        ClusterError: If the cluster cannot hold the job, or stopped it.
    """
    start = time.monotonic()
    files, rows = plan(spec)
    storage, finished = _open(spec.output)
    ledger = Ledger(storage)
    left = unfinished(rows, finished)
    if left:
        with connected():
            free = capacity()
            devices = choose_devices(spec, left, free)
            pools = make_pools(spec, devices, free)
            preflight(pools, free)
            _write_run_file(storage, spec, files, devices, pools)
            names = {row.item_id: row.name for row in reversed(rows)}
            chunks = {item.item_id: num_chunks(item.request, files.factors.time) for item in left}
            with following(chunks, storage) as progress:
                _follow(run(left, pools), ledger, names, progress)
    entries = ledger.read()
    ids = {row.item_id for row in rows}
    if unseen := ids - entries.keys():
        raise ClusterError(
            f"{len(unseen)} clips are done, but {storage.join('ledger')} has no lines of them; "
            "the output must be a directory that all nodes see, or a URI"
        )
    summary = RenderSummary(
        rows=len(rows),
        clips=len(ids),
        rendered=len(left),
        failed=sum(entries[item_id].status == "failed" for item_id in ids),
        seconds=time.monotonic() - start,
        gallery=storage.join("index.html"),
    )
    title = PurePosixPath(spec.output).name
    write_report(storage, rows, entries, title=title, summary=str(summary))
    return summary


def _open(output: str) -> tuple[Storage, dict[str, LedgerEntry]]:
    """The run directory and what its ledger holds; one that cannot be written is refused."""
    try:
        storage = Storage(output)
        if not storage.exists("run.json"):
            storage.write_bytes("run.json", b"{}")
        return storage, Ledger(storage).read()
    except RayreelError:
        raise
    except Exception as error:
        # Each file system has errors of its own.
        raise SpecError(
            f"output {output} cannot be a run directory ({type(error).__name__}: {error}); "
            "expected a folder or an fsspec URI that can be written"
        ) from error


def unfinished(rows: Sequence[PlannedRow], finished: dict[str, LedgerEntry]) -> list[RenderItem]:
    """Items without a line in the ledger, each once; like ones side by side to share batches."""
    items = {
        row.item_id: RenderItem(item_id=row.item_id, request=row.request, notes=row.notes)
        for row in rows
        if row.item_id not in finished
    }
    return sorted(items.values(), key=lambda item: repr(batch_key(item.request)))


def _follow(
    results: Iterable[Result], ledger: Ledger, names: Mapping[str, str], progress: Progress
) -> None:
    """Count results as they come, and record those that failed; stages record what they finish."""
    for result in results:
        if isinstance(result, ItemFailure):
            ledger.append(_failed_entry(result))
        progress.finish(result, names[result.item_id])


def _failed_entry(failure: ItemFailure) -> LedgerEntry:
    return LedgerEntry(
        item_id=failure.item_id,
        status="failed",
        attempt=failure.attempt,
        seed=failure.seed,
        error=FailureRecord(stage=failure.stage, error=failure.error, message=failure.message),
        worker=worker_name(),
        finished_at=datetime.now(UTC),
    )


def _write_run_file(
    storage: Storage,
    spec: RenderSpec,
    files: ModelFiles,
    devices: dict[StageName, Device],
    pools: Sequence[Pool],
) -> None:
    packages = ("rayreel", "torch", "ray", "transformers", "av")
    content: dict[str, Any] = {
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "spec": spec.model_dump(mode="json"),
        "model": files.spec.model_dump(mode="json"),
        "model_version": ".".join(map(str, files.transformer_file.model_version)),
        "weights": files.fingerprint(tuple(files.fingerprints)),
        "loras": [lora.name for lora in files.adapters(distilled=True)],
        "devices": {name: dataclasses.asdict(device) for name, device in devices.items()},
        "pools": [
            {
                "stages": pool.name,
                "replicas": pool.replicas,
                "batch_size": pool.batch_size,
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
    storage.write_bytes("run.json", json.dumps(content, indent=2).encode())
