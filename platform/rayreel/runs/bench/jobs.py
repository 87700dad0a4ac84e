"""A real render job with a list of its own, the same stages in a plain loop, and what both took."""

import json
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rayreel.cluster.connect import Capacity
from rayreel.config.jobs import RenderSpec, StageSpec
from rayreel.config.request import RenderRequest
from rayreel.data.ledger import Ledger, LedgerEntry
from rayreel.data.storage import Storage
from rayreel.pipelines.phases import texts_of
from rayreel.requests.costs import CostBook
from rayreel.runs.batches import like_batches
from rayreel.runs.bench.spec import JobCase
from rayreel.runs.opened import plan
from rayreel.runs.planning.plan import Plan
from rayreel.runs.pools import choose_devices, render_pools, text_pool
from rayreel.runs.render import render
from rayreel.stages.base import RenderItem, Result, TextItem, run_stage

_HERE = Capacity(cpus=1, gpus=0, nodes=())


@dataclass(frozen=True)
class Took:
    """What a list of clips took, in seconds.

    Attributes:
        whole: From the call to its end.
        start: From the call to the first clip.
        clip: For a clip after the first batch of every worker.
        texts: How many were encoded.
        text: For a text, by the median of those that the job has measured.
    """

    whole: float
    start: float
    clip: float
    texts: int = 0
    text: float = 0.0


def job_spec(
    case: JobCase, requests: Sequence[RenderRequest], folder: Path, store: Path | None = None
) -> RenderSpec:
    """The spec of a job, with its list.

    Args:
        case: Workers and batch size.
        requests: As a person writes them.
        folder: Where the list and the run directory go; it may be missing.
        store: Of texts and costs, if another one than the run directory.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = [request.model_dump(mode="json", exclude_unset=True) for request in requests]
    path = folder / "list.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    return RenderSpec(
        prompts=str(path),
        output=str(folder / "run"),
        store=str(store) if store else None,
        workers=StageSpec(
            replicas=case.workers, cpus=1, batch_size=case.batch, device="cpu", dtype="float32"
        ),
    )


def run_job(spec: RenderSpec) -> Took:
    """Run a job as the command line does.

    Raises:
        RuntimeError: If not all of its clips are there afterwards.
    """
    began, start = datetime.now(UTC), time.perf_counter()
    summary = render(spec)
    whole = time.perf_counter() - start
    if summary.exit_code:
        raise RuntimeError(f"a comparison needs all clips of the job: {summary}")
    planned = Plan.load(Storage(spec.output))
    assert planned is not None, "the job had clips to render"
    costs = CostBook.load(Storage(spec.store or spec.output)).stages
    text = [cost.seconds for cost in costs if cost.stage == "text"] if planned.texts_new else []
    return _took(spec, began, whole, texts=planned.texts_new, text=max(text, default=0.0))


def run_stages(spec: RenderSpec) -> Took:
    """Put the batches of a job of one worker through its stages in this process, without Ray."""
    began, start = datetime.now(UTC), time.perf_counter()
    stages_in_loop(spec)
    return _took(spec, began, time.perf_counter() - start)


def stages_in_loop(spec: RenderSpec, batches: int | None = None) -> tuple[str, ...]:
    """Render the first batches of a job, or all, by its stages in this process.

    Args:
        spec: Of the job; its texts should be in the store.
        batches: How many at most.

    Returns:
        Classes of the networks that the stages of this process have built so far.

    Raises:
        RuntimeError: If a clip fails.
    """
    _, rows = plan(spec)
    items = [RenderItem(item_id=row.item_id, request=row.request, notes=row.notes) for row in rows]
    devices = choose_devices(spec, [item.request for item in items], _HERE)
    (pool,) = render_pools(spec, devices, _HERE)
    for stage in pool.stages:
        stage.setup()
    for batch in like_batches(items, lambda _: pool.batch_size or 1)[:batches]:
        results: list[Result] = [*batch]
        for stage in pool.stages:
            results = run_stage(stage, results)
        if failures := [result for result in results if not isinstance(result, RenderItem)]:
            raise RuntimeError(f"a comparison needs all clips: {failures[0]}")
    return tuple(sorted({network for stage in pool.stages for network in stage.loads}))


def encode_texts(spec: RenderSpec) -> None:
    """Put all texts of a job into its store, in this process."""
    _, rows = plan(spec)
    requests = [row.request for row in rows]
    devices = choose_devices(spec, requests, _HERE)
    (stage,) = text_pool(spec, devices["text"], _HERE).stages
    stage.setup()
    stage([TextItem(item_id=text, text=text) for text in texts_of(requests)])


def pace(entries: Collection[LedgerEntry]) -> float:
    """Seconds of a clip when all workers are at work: the first batch of each does not count.

    Raises:
        ValueError: If no worker had a second batch.
    """
    workers: dict[str, list[LedgerEntry]] = {}
    for entry in sorted(entries, key=lambda entry: entry.finished_at):
        workers.setdefault(entry.worker, []).append(entry)
    rate = 0.0
    for done in workers.values():
        first = done[0].batch or 1
        if later := done[first:]:
            took = later[-1].finished_at - done[first - 1].finished_at
            rate += len(later) / took.total_seconds()
    if not rate:
        raise ValueError("no worker had a second batch; expected more clips, or smaller batches")
    return 1 / rate


def _took(
    spec: RenderSpec, began: datetime, whole: float, *, texts: int = 0, text: float = 0.0
) -> Took:
    entries = Ledger(Storage(spec.output)).read().values()
    first = min(entry.finished_at for entry in entries)
    shared = text * texts / len(entries) / spec.workers.replicas
    return Took(whole, (first - began).total_seconds(), pace(entries) + shared, texts, text)
