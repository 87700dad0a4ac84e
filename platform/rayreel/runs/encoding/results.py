"""``results.parquet`` of an encode job: one line per clip or scene, kept or not, and why."""

from typing import Any

import pyarrow as pa

from rayreel.media.measures import MEASURES
from rayreel.runs.encoding.outcomes import Outcome
from rayreel.runs.report.outcomes import legible

SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("name", pa.string()),
        ("scene", pa.int64()),
        ("sample_id", pa.string()),
        ("status", pa.string()),
        ("rule", pa.string()),
        ("reason", pa.string()),
        ("all_reasons", pa.list_(pa.string())),
        ("notes", pa.list_(pa.string())),
        ("source", pa.string()),
        ("content", pa.string()),
        ("kind", pa.string()),
        ("start_frame", pa.int64()),
        ("scene_frames", pa.int64()),
        ("source_width", pa.int64()),
        ("source_height", pa.int64()),
        ("fps", pa.float64()),
        ("bucket", pa.string()),
        ("caption", pa.string()),
        ("caption_original", pa.string()),
        ("caption_changes", pa.list_(pa.string())),
        ("caption_by", pa.string()),
        ("shard", pa.string()),
        *((f"measure_{name}", pa.float64()) for name in sorted(MEASURES)),
    ]
)


def record(outcome: Outcome) -> dict[str, Any]:
    """The line of a candidate."""
    candidate, caption = outcome.candidate, outcome.caption
    row, scan, scene = candidate.row, candidate.scan, candidate.scene
    values: dict[str, Any] = {
        "row": row.number,
        "name": legible(row.name),
        "scene": candidate.index,
        "sample_id": outcome.sample_id or None,
        "status": outcome.status,
        "rule": outcome.finding and outcome.finding.rule,
        "reason": outcome.finding and outcome.finding.reason,
        "all_reasons": [f"{one.rule}: {one.reason}" for one in candidate.findings],
        "notes": list(candidate.notes),
        "source": row.media.get("video", row.media.get("audio")),
        "bucket": str(candidate.bucket) if candidate.bucket else None,
        "caption_original": legible(caption.original if caption else row.caption) or None,
        "caption_changes": list(caption.changes) if caption else [],
        "caption": caption and legible(caption.text),
        "caption_by": caption and caption.by,
        "shard": outcome.shard or None,
    }
    if scan and scene:
        values |= {
            "content": scan.content,
            "kind": scan.kind,
            "start_frame": scene.start,
            "scene_frames": scene.num_frames,
            "source_width": scan.width,
            "source_height": scan.height,
            "fps": scan.fps,
        }
        values |= {f"measure_{name}": value for name, value in scene.measures.items()}
    return values
