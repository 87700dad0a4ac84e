"""The gallery: one page, and data files beside it that it loads as they are needed.

Data files are scripts, since a page that is opened from disk may load no other kind. There are two
sorts: ``index``, what is searched and what a card needs at first sight, and ``clips``, the rest of
each card, which is loaded when the card comes into view.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rayreel.data.storage import Storage
from rayreel.pipelines.chunks import is_chained
from rayreel.runs.report.outcomes import Outcome
from rayreel.runs.report.pages import as_script, render_page

FOLDER = "gallery"
PAGE = 60
CLIPS_PER_FILE = 300
CLIPS_PER_INDEX = 6000
_LONGEST = 120
_TIMES = "\N{MULTIPLICATION SIGN}"
_KINDS = {"mp4": "video", "png": "image", "wav": "sound", "m4a": "sound"}


class Gallery:
    """Takes clips in order, writes data files as they fill, and the page at the end."""

    def __init__(self, storage: Storage) -> None:
        """Start without clips.

        Args:
            storage: The run directory.
        """
        self._storage = storage
        self._first_page: list[dict[str, Any]] = []
        self._index: list[str] = []
        self._clips: list[str] = []
        self._num_files = 0
        self._statuses: Counter[str] = Counter()
        self._counts: list[list[int]] = []
        self._written: set[str] = set()

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """Take in rows; one that asks for the clip of a row before it adds nothing."""
        for outcome in outcomes:
            if outcome.names is None:
                continue
            summary, details = _summary(outcome), _details(outcome)
            if len(self._first_page) < PAGE and not self._counts:
                path, kind = summary[4], summary[5]
                self._first_page.append({**details, "path": path, "kind": kind})
            self._index.append(as_script(summary))
            self._clips.append(as_script(details))
            self._statuses[outcome.status] += 1
            if len(self._clips) == CLIPS_PER_FILE:
                self._flush_clips()
            if len(self._index) == CLIPS_PER_INDEX:
                self._flush_index()

    def finish(self, *, title: str, summary: str) -> None:
        """Write what is left, then the page, and remove data files of a longer run before.

        Args:
            title: Heading.
            summary: What the run came to, in one line.
        """
        if self._clips:
            self._flush_clips()
        if self._index:
            self._flush_index()
        run = {"page": PAGE, "clips": CLIPS_PER_FILE, "index": CLIPS_PER_INDEX}
        done, failed, left = (sum(counts) for counts in zip(*self._counts, strict=True))
        page = render_page(
            "gallery.html.j2",
            title=title,
            summary=summary,
            run=as_script({**run, "counts": self._counts}),
            counts={"": done + failed + left, "done": done, "failed": failed, "left": left},
            first_page=self._first_page,
        )
        self._storage.write_bytes("index.html", page)
        self._storage.remove(set(self._storage.names(FOLDER)) - self._written)

    def _flush_clips(self) -> None:
        self._num_files += 1
        self._write("clips", self._num_files, self._clips)
        self._clips = []

    def _flush_index(self) -> None:
        self._counts.append([self._statuses[status] for status in ("done", "failed", "left")])
        self._write("index", len(self._counts), self._index)
        self._index, self._statuses = [], Counter()

    def _write(self, kind: str, number: int, lines: list[str]) -> None:
        name = f"{FOLDER}/{kind}-{number:04}.js"
        rows = ",\n".join(lines)
        self._storage.write_bytes(name, f'rayreel("{kind}",{number},[\n{rows}\n]);\n'.encode())
        self._written.add(name)


def _summary(outcome: Outcome) -> list[Any]:
    """What is searched, and what a card shows until its details are there."""
    request, entry = outcome.row.request, outcome.entry
    error = entry and entry.error
    return [
        _cut(str(outcome.names)),
        _cut(request.prompt),
        outcome.status,
        request.pipeline,
        entry and entry.output,
        _kind(outcome),
        _cut(f"{error.stage}: {error.error}: {error.message}") if error else "",
        request.width,
        request.height,
    ]


def _details(outcome: Outcome) -> dict[str, Any]:
    """What a card shows in the end."""
    request, entry = outcome.row.request, outcome.entry
    error = entry and entry.error
    return {
        "names": outcome.names,
        "prompt": request.prompt,
        "written": list(entry.prompts) if entry else [],
        "error": [error.stage, error.error, error.message] if error else [],
        "facts": [fact for fact in _facts(outcome) if fact[1]],
    }


def _facts(outcome: Outcome) -> list[tuple[str, str]]:
    row, request, entry = outcome.row, outcome.row.request, outcome.entry
    conditions = _conditions(outcome)
    facts = [
        (_kind(outcome), _size(outcome)),
        ("pipeline", f"{request.pipeline}{', ' + conditions if conditions else ''}: {row.reason}"),
        *(("note", note) for note in (entry.notes if entry else row.notes)),
        ("seed", str(request.seed)),
    ]
    if entry:
        times = (f"{stage} {seconds:.1f}" for stage, seconds in entry.seconds.items())
        batch = entry.batch or 0
        facts += [
            ("attempt", f"{entry.attempt}" if entry.attempt > 1 or entry.error else ""),
            ("batch", f"{batch} together" if batch > 1 else ""),
            ("memory", entry.memory or ""),
            ("seconds", ", ".join(times)),
        ]
    return facts


def _size(outcome: Outcome) -> str:
    request, kind = outcome.row.request, _kind(outcome)
    if kind == "sound":
        return f"{request.num_frames / request.fps:.2f} s"
    if kind == "image":
        return f"{request.width}{_TIMES}{request.height}"
    added = "added " if request.extend else ""
    sound = "with sound" if request.audio else "silent"
    size = f"{request.width}{_TIMES}{request.height}, {request.num_frames} frames"
    return f"{size} {added}at {request.fps:g} fps, {sound}"


def _kind(outcome: Outcome) -> str:
    entry, request = outcome.entry, outcome.row.request
    if entry and entry.output:
        return _KINDS[entry.output.rpartition(".")[2]]
    if not request.video:
        return "sound"
    return "image" if request.pipeline == "image" else "video"


def _conditions(outcome: Outcome) -> str:
    """What the clip was made from beside its prompt, in words."""
    request = outcome.row.request
    said = {
        "image-conditioned": request.images,
        "reference video": request.references,
        "soundtrack": request.soundtrack,
        "retake": request.retake,
        "extension": request.extend,
        "in chunks": is_chained(request),
    }
    return ", ".join(name for name, there in said.items() if there)


def _cut(text: str) -> str:
    """The start of a text, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST].rstrip()}…"
