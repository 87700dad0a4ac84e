"""What a run leaves to look at: a table of all rows, and a gallery that plays the clips."""

import io
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from jinja2 import Environment, PackageLoader, StrictUndefined

from rayreel.data.ledger import LedgerEntry
from rayreel.data.storage import Storage
from rayreel.pipelines.chunks import is_chained
from rayreel.runs.requests import PlannedRow

_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("name", pa.string()),
        ("item_id", pa.string()),
        ("status", pa.string()),
        ("output", pa.string()),
        ("sha256", pa.string()),
        ("num_bytes", pa.int64()),
        ("prompt", pa.string()),
        ("written_prompts", pa.list_(pa.string())),
        ("pipeline", pa.string()),
        ("pipeline_reason", pa.string()),
        ("notes", pa.list_(pa.string())),
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("num_frames", pa.int64()),
        ("fps", pa.float64()),
        ("video", pa.bool_()),
        ("audio", pa.bool_()),
        ("seed", pa.int64()),
        ("attempt", pa.int64()),
        ("seconds", pa.float64()),
        ("error_stage", pa.string()),
        ("error", pa.string()),
        ("error_message", pa.string()),
    ]
)


def write_report(
    storage: Storage,
    rows: Sequence[PlannedRow],
    entries: Mapping[str, LedgerEntry],
    *,
    title: str,
    summary: str,
) -> None:
    """Write ``results.parquet`` and ``index.html``.

    Args:
        storage: The run directory.
        rows: The prompt list; every row's item has an entry.
        entries: The ledger.
        title: Heading of the gallery.
        summary: What the run came to, in one line.
    """
    table = pa.Table.from_pylist([_record(row, entries[row.item_id]) for row in rows], _SCHEMA)
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    storage.write_bytes("results.parquet", buffer.getvalue())
    environment = Environment(
        loader=PackageLoader("rayreel.runs", "."), autoescape=True, undefined=StrictUndefined
    )
    page = environment.get_template("gallery.html.j2").render(
        title=title,
        summary=summary,
        clips=_clips(rows, entries),
        failed=[_record(row, entries[row.item_id]) for row in rows if entries[row.item_id].error],
    )
    storage.write_bytes("index.html", page.encode())


def _record(row: PlannedRow, entry: LedgerEntry) -> dict[str, Any]:
    request, error = row.request, entry.error
    return {
        "row": row.number,
        "name": row.name,
        "item_id": row.item_id,
        "status": entry.status,
        "output": entry.output,
        "sha256": entry.sha256,
        "num_bytes": entry.num_bytes,
        "attempt": entry.attempt,
        "seconds": sum(entry.seconds.values()),
        "error_stage": error and error.stage,
        "error": error and error.error,
        "error_message": error and error.message,
        "written_prompts": list(entry.prompts),
        "pipeline_reason": row.reason,
        "notes": list(entry.notes),
        **request.model_dump(
            include={"prompt", "pipeline", "fps", "video", "audio", "seed"}
        ),
        "width": request.width if request.video else None,
        "height": request.height if request.video else None,
        "num_frames": request.num_frames if entry.num_frames is None else entry.num_frames,
    }  # fmt: skip


_KINDS = {".mp4": "video", ".png": "image", ".wav": "sound", ".m4a": "sound"}


def _conditions(row: PlannedRow) -> str:
    """What the clip was made from beside its prompt, in words."""
    request = row.request
    said = {
        "image-conditioned": request.images,
        "reference video": request.references,
        "soundtrack": request.soundtrack,
        "retake": request.retake,
        "extension": request.extend,
        "in chunks": is_chained(request),
    }
    return ", ".join(name for name, there in said.items() if there)


def _clips(rows: Sequence[PlannedRow], entries: Mapping[str, LedgerEntry]) -> list[dict[str, Any]]:
    """One card per clip, with the names of all rows that asked for it."""
    cards: dict[str, dict[str, Any]] = {}
    for row in rows:
        entry = entries[row.item_id]
        if entry.status == "failed":
            continue
        timings = (f"{stage} {seconds:.1f}" for stage, seconds in entry.seconds.items())
        card = cards.setdefault(
            row.item_id,
            {
                **row.request.model_dump(),
                "names": [],
                "path": entry.output,
                "kind": _KINDS[PurePosixPath(str(entry.output)).suffix],
                "conditions": _conditions(row),
                "reason": row.reason,
                "written": entry.prompts,
                "notes": entry.notes,
                "timings": ", ".join(timings),
            },
        )
        card["names"].append(row.name)
    return list(cards.values())
