"""A model is asked for clips of the drawn world, and what they show is held against it."""

import io
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import PurePosixPath
from typing import NoReturn

import pyarrow.parquet as pq
import torch
from tqdm import tqdm

from rayreel.config.evaluate import EvalSpec, ReconstructedSuite
from rayreel.data.lease import Lease
from rayreel.data.storage import Storage
from rayreel.requests.models import checked_model
from rayreel.runs.evaluation.judge import Case, judge_file
from rayreel.runs.evaluation.judged import JudgedClip, read_lines, write_lines
from rayreel.runs.evaluation.page import markdown_tables, write_page
from rayreel.runs.evaluation.reconstruction import FOLDER, Reconstruction, reconstruction_cases
from rayreel.runs.evaluation.scenes import SuiteRow, render_job, suite_rows, write_job
from rayreel.runs.evaluation.summary import SuiteSummary, as_json, summarise
from rayreel.runs.left import Retry
from rayreel.runs.opened import open_directory
from rayreel.runs.render import RenderSummary, render
from rayreel.runs.run_file import common_facts

_SUMMARY = "evaluation.json"
_TABLES = "evaluation.md"
_COLUMNS = ["name", "item_id", "output", "error_message", "audio"]
# Starting a process takes as long as judging so many clips.
_CLIPS_PER_PROCESS = 32


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluation came to.

    Attributes:
        suites: In the order of the spec.
        tables: The same as Markdown.
        page: To look at.
        rendered: What rendering came to; ``None`` if no suite needs it.
        judged: Clips that this call judged; the others were known.
        seconds: How long this call took.
    """

    suites: tuple[SuiteSummary, ...]
    tables: str
    page: str
    rendered: RenderSummary | None
    judged: int
    seconds: float

    @property
    def exit_code(self) -> int:
        """0 if every clip was judged, 1 if some could not be made or read, 3 if it was stopped."""
        stopped = self.rendered is not None and bool(self.rendered.stopped)
        return 3 if stopped else 1 if any(suite.failed for suite in self.suites) else 0

    def __str__(self) -> str:
        """What was rendered and judged, and the tables."""
        clips, failed = (
            sum(getattr(suite, name) for suite in self.suites) for name in ("clips", "failed")
        )
        work = f"{self.judged} judged in {self.seconds:.0f} s" if self.judged else "nothing new"
        line = f"{clips} clips of {len(self.suites)} suites, {failed} failed ({work})"
        return "\n".join([*([str(self.rendered)] if self.rendered else []), line, "", self.tables])


def evaluate(spec: EvalSpec, *, retry: Retry = "none") -> Evaluation:
    """Render what is left of an evaluation, judge what is new, and write its reports.

    Args:
        spec: With absolute paths.
        retry: ``failed`` renders those clips again that have failed, and no others.

    Raises:
        SpecError: If the spec is wrong; nothing has started.
        CheckpointError: If weight files are.
        StorageError: If the run directory does not answer any more.
        ClusterError: If the cluster cannot hold the rendering, or stopped it.
        RayreelError: If another driver is at work, or what was judged before is damaged.
    """
    start = time.monotonic()
    files = checked_model(spec.model)
    reconstructed = [
        (case, suite)
        for suite in spec.suites
        if isinstance(suite, ReconstructedSuite)
        for case in reconstruction_cases(spec, suite, files)
    ]
    rows = suite_rows(spec)
    storage = open_directory(spec.output)
    rendered = None
    if rows:
        job = render_job(spec)
        with Lease(storage):
            write_job(job, rows)
        rendered = render(job, retry=retry)
    with Lease(storage):
        clips = list(_clip_files(spec, storage, rows))
        cases = [*(one[0] for one in clips), *(one[0] for one in reconstructed)]
        work = _Work(spec, storage, cases)
        try:
            work.judge_files(clips)
            work.reconstruct(reconstructed)
        finally:
            write_lines(storage, work.lines())
        suites = tuple(
            summarise(suite.name, [one for one in work.lines() if one.suite == suite.name])
            for suite in spec.suites
        )
        tables = markdown_tables(suites)
        facts = {
            **common_facts(spec, files),
            "weights": files.fingerprint(tuple(files.fingerprints)),
            "suites": as_json(suites),
        }
        storage.write_bytes(_SUMMARY, json.dumps(facts, indent=2).encode())
        storage.write_bytes(_TABLES, tables.encode())
        title = PurePosixPath(spec.output).name
        page = write_page(storage, suites, work.lines(), title=title, rendered=bool(rows))
    return Evaluation(
        suites=suites,
        tables=tables,
        page=page,
        rendered=rendered,
        judged=work.new,
        seconds=time.monotonic() - start,
    )


def _clip_files(
    spec: EvalSpec, storage: Storage, rows: Sequence[SuiteRow]
) -> Iterator[tuple[Case, str | None, str]]:
    """What each row is held against, its file, and why there is none where there is none."""
    if not rows:
        return
    table = pq.read_table(io.BytesIO(storage.read_bytes("results.parquet")), columns=_COLUMNS)
    results = {line["name"]: line for line in table.to_pylist()}
    for row in rows:
        found = results[row.name]
        case = Case(
            suite=row.suite.name,
            name=row.name,
            asked=row.asked,
            identity=found["item_id"],
            sound=found["audio"],
            given=row.suite.given,
            parts=row.suite.parts,
            bounds=spec.bounds,
        )
        yield case, found["output"], found["error_message"] or "it was not rendered"


class _Work:
    """Judges what is not known yet.

    Attributes:
        new: Clips that were judged.
    """

    def __init__(self, spec: EvalSpec, storage: Storage, cases: Sequence[Case]) -> None:
        self._spec = spec
        self._storage = storage
        self._keys = [case.key for case in cases]
        self._known = read_lines(storage)
        self.new = 0

    def lines(self) -> list[JudgedClip]:
        """Of all clips so far that are asked for, in their order."""
        return [self._known[key] for key in self._keys if key in self._known]

    def judge_files(self, clips: Sequence[tuple[Case, str | None, str]]) -> None:
        """Judge rendered clips side by side."""
        todo = []
        for case, path, fault in clips:
            if path is None:
                self._known[case.key] = case.faulty(fault)
            elif self._is_new(case):
                todo.append((case, self._storage.join(path), path))
        with _progress("judging", len(todo)) as bar:
            for found in _side_by_side(todo):
                self._add(found, bar)

    def reconstruct(self, cases: Sequence[tuple[Case, ReconstructedSuite]]) -> None:
        """Take drawn clips through the autoencoders."""
        todo = [(case, suite) for case, suite in cases if self._is_new(case)]
        if todo:
            work = Reconstruction(self._spec, self._storage)
            with _progress("reconstructing", len(todo)) as bar:
                for case, suite in todo:
                    self._add(work.judged(case, suite), bar)
        there = {one.path for one in self.lines() if one.path}
        self._storage.remove(set(self._storage.names(FOLDER)) - there)

    def _is_new(self, case: Case) -> bool:
        known = self._known.get(case.key)
        return known is None or bool(known.fault)

    def _add(self, found: JudgedClip, bar: "tqdm[NoReturn]") -> None:
        self._known[found.key] = found
        self.new += 1
        bar.update()


def _side_by_side(clips: Sequence[tuple[Case, str, str]]) -> Iterator[JudgedClip]:
    """Judge clips in processes, in any order; few of them here."""
    processes = min(os.cpu_count() or 1, len(clips) // _CLIPS_PER_PROCESS)
    if processes < 2:
        yield from (judge_file(*one) for one in clips)
        return
    # A fork of a process with threads may hang, and PyTorch and Ray have some.
    pool = ProcessPoolExecutor(
        processes,
        mp_context=get_context("spawn"),
        initializer=torch.set_num_threads,
        initargs=(1,),
    )
    try:
        for future in as_completed([pool.submit(judge_file, *one) for one in clips]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _progress(doing: str, clips: int) -> "tqdm[NoReturn]":
    # A log file takes a line of progress now and then, and a terminal a moving bar.
    interval_s = 0.1 if sys.stderr.isatty() else 10
    return tqdm(total=clips, unit="clip", desc=doing, mininterval=interval_s, disable=not clips)
