"""The work of a render job: wave after wave of clips, their texts first, and failures once more."""

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rayreel.checkpoints.files import ModelFiles
from rayreel.cluster.pool import Pool
from rayreel.config.jobs import RenderSpec
from rayreel.data.storage import Storage
from rayreel.data.store import RecordStore
from rayreel.pipelines.chunks import num_chunks
from rayreel.pipelines.texts import TextStore
from rayreel.runs.batches import Size, like_batches
from rayreel.runs.budget import ErrorBudget
from rayreel.runs.measured import Measured
from rayreel.runs.passes import Passes, lost
from rayreel.runs.progress import Progress
from rayreel.runs.requests import PlannedRow
from rayreel.stages.base import ItemFailure, RenderItem, StageItem, TextItem
from rayreel.stages.text import is_written_before, needed_texts

_TEXTS = 8

log = logging.getLogger(__name__)


def distinct(rows: Iterable[PlannedRow]) -> Iterator[PlannedRow]:
    """The first of the rows that ask for each clip."""
    seen: set[str] = set()
    for row in rows:
        if row.item_id not in seen:
            seen.add(row.item_id)
            yield row


@dataclass
class Waves:
    """Renders waves of items, and keeps what is to be tried again.

    Attributes:
        spec: The job.
        files: Its model.
        passes: Of the run.
        text: The pool that encodes texts, if any are needed.
        pools: Those that render.
        batch_size: Of like requests.
        progress: Told of every clip that is finished.
        budget: Of failures.
        measured: Told of what clips took.
    """

    spec: RenderSpec
    files: ModelFiles
    passes: Passes
    text: Pool | None
    pools: Sequence[Pool]
    batch_size: Size
    progress: Progress
    budget: ErrorBudget
    measured: Measured
    again: list[RenderItem] = field(default_factory=list)
    _names: dict[str, str] = field(default_factory=dict)

    def render(self, wave: Sequence[PlannedRow], attempts: Sequence[int]) -> None:
        """Render the clips of some rows.

        Args:
            wave: Rows of different clips.
            attempts: Which try of each this is.

        Raises:
            ClusterError: If a stage is broken, or the cluster is lost.
            RunStopped: If too many fail.
        """
        self._names |= {row.item_id: row.name for row in wave}
        self._render(
            [
                RenderItem(
                    item_id=row.item_id, request=row.request, notes=row.notes, attempt=attempt
                )
                for row, attempt in zip(wave, attempts, strict=True)
            ]
        )

    def finish(self) -> None:
        """Try again what failed and may go otherwise, until it is done or was tried often enough.

        Raises:
            ClusterError: As ``render`` does; and RunStopped.
        """
        for back_off_s in self.passes.back_offs():
            if not self.again:
                return
            log.warning("%d clips are tried again in %.0f s", len(self.again), back_off_s)
            time.sleep(back_off_s)
            items, self.again = self.again, []
            for start in range(0, len(items), self.spec.wave):
                self._render(items[start : start + self.spec.wave])

    def _render(self, items: list[RenderItem]) -> None:
        time_factor = self.files.factors.time
        self.progress.expect({i.item_id: num_chunks(i.request, time_factor) for i in items})
        at_work = {item.item_id: item for item in self._with_texts(items)}
        workers = self.pools[0].max_replicas
        batches = like_batches(at_work.values(), self.batch_size, workers=workers)
        if not batches:
            return
        started_ns = time.time_ns()
        for result in self._run("render", batches, self.pools):
            self.passes.tracer.item(started_ns, result)
            self._finished(at_work.pop(result.item_id), result)
        for item in at_work.values():
            self._finished(item, lost(item, "render"))

    def _run(
        self, name: str, batches: Sequence[Sequence[StageItem]], pools: Sequence[Pool]
    ) -> Iterator[Any]:
        """Results of a pass, whose time is taken."""
        began = time.monotonic()
        first = True
        try:
            for result in self.passes.run(batches, pools):
                if first and not isinstance(result, ItemFailure):
                    worked_s = sum(
                        s for stage, s in result.seconds if stage != "text" or name == stage
                    )
                    self.measured.started([pool.name for pool in pools], began, worked_s)
                    first = False
                yield result
        finally:
            self.measured.spent(name, time.monotonic() - began)

    def _with_texts(self, items: Sequence[RenderItem]) -> list[RenderItem]:
        """The items whose texts are in the store by now; those whose are not have failed."""
        store = TextStore(RecordStore(Storage(self.spec.store or self.spec.output)), self.files)
        time_factor = self.files.factors.time
        needed = {item.item_id: needed_texts(item.request, time_factor) for item in items}
        texts = {text for own in needed.values() for text in own}
        unknown = sorted(texts - store.known(texts), key=len)
        self.passes.metrics.texts(hits=len(texts) - len(unknown), misses=len(unknown))
        works = [TextItem(item_id=store.key(text), text=text) for text in unknown]
        works += [
            TextItem(item_id=item.item_id, text=item.request.prompt, request=item.request)
            for item in items
            if is_written_before(item.request)
        ]
        if not works:
            return list(items)
        assert self.text is not None, "somebody has texts"
        size = self.text.batch_size or _TEXTS
        batches = [works[start : start + size] for start in range(0, len(works), size)]
        results = {}
        for result in self._run("text", batches, [self.text]):
            results[result.item_id] = result
            if isinstance(result, TextItem):
                self.measured.text(result, size)
        ready = []
        for item in items:
            keys = (item.item_id, *map(store.key, needed[item.item_id]))
            own = [results[key] for key in keys if key in results]
            if is_written_before(item.request) and item.item_id not in results:
                self._finished(item, lost(item, "render"))
            elif failures := [one for one in own if isinstance(one, ItemFailure)]:
                self._finished(item, replace(failures[0], item_id=item.item_id, seed=item.seed))
            else:
                ready.append(_prepared(item, own[0]) if own else item)
        return ready

    def _finished(self, item: RenderItem, result: StageItem | ItemFailure) -> None:
        """Record a failure, count a clip, or keep it for another try."""
        failed = result if isinstance(result, ItemFailure) else None
        if failed and self.passes.failed(replace(failed, attempt=item.attempt)):
            self.again.append(replace(item, attempt=item.attempt + 1))
            return
        if isinstance(result, RenderItem):
            self.measured.clip(result)
        progress = self.progress
        progress.finish(item.item_id, failed, self._names.pop(item.item_id))
        self.passes.metrics.progress(left=progress.left, done=progress.done, failed=progress.failed)
        self.budget.count(failed)


def _prepared(item: RenderItem, text: TextItem) -> RenderItem:
    """The item with what was found out about its prompt."""
    prompts = (text.written,) if text.written else ()
    return replace(item, prompts=prompts, notes=(*item.notes, *text.notes), seconds=text.seconds)
