"""``results.parquet``: one line per row of the list, a million of them if need be."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from rayreel.runs.report.outcomes import Outcome, legible

_ROW_GROUP = 50_000
SCHEMA = pa.schema(
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
        ("batch", pa.int64()),
        ("memory", pa.string()),
        ("error_stage", pa.string()),
        ("error", pa.string()),
        ("error_message", pa.string()),
    ]
)


class ResultsTable:
    """Writes a table, a row group at a time; a context that ends with the file complete."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        """Open the file.

        Args:
            path: Where to write it.
            schema: Its columns.
        """
        self._schema = schema
        self._writer = pq.ParquetWriter(path, schema)
        self._waiting: list[pa.Table] = []

    def __enter__(self) -> Self:
        """The table, to add rows to."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write what waits."""
        if error is None:
            self._flush()
        self._writer.close()

    def add(self, records: Sequence[dict[str, Any]]) -> None:
        """Write rows, or keep them until a row group is full."""
        self._waiting.append(pa.Table.from_pylist(records, self._schema))
        if sum(map(len, self._waiting)) >= _ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting), row_group_size=_ROW_GROUP)
        self._waiting = []


def record(outcome: Outcome) -> dict[str, Any]:
    """The line of a row."""
    row, request = outcome.row, outcome.row.request
    values = {
        "row": row.number,
        "name": legible(row.name),
        "item_id": row.item_id,
        "status": outcome.status,
        "prompt": legible(request.prompt),
        "pipeline": request.pipeline,
        "pipeline_reason": row.reason,
        "width": request.width if request.video else None,
        "height": request.height if request.video else None,
        "num_frames": request.num_frames,
        "fps": request.fps,
        "video": request.video,
        "audio": request.audio,
        "seed": request.seed,
    }
    if (entry := outcome.entry) is None:
        return {**values, "written_prompts": [], "notes": list(row.notes)}
    error = entry.error
    return {
        **values,
        "output": entry.output,
        "sha256": entry.sha256,
        "num_bytes": entry.num_bytes,
        "written_prompts": list(entry.prompts),
        "notes": list(entry.notes),
        "num_frames": request.num_frames if entry.num_frames is None else entry.num_frames,
        "attempt": entry.attempt,
        "seconds": outcome.seconds,
        "batch": entry.batch,
        "memory": entry.memory,
        "error_stage": error and error.stage,
        "error": error and error.error,
        "error_message": error and error.message,
    }
