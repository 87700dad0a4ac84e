"""``failed.jsonl``: the rows whose clip failed, as a prompt list that asks for the same clips."""

import json
from collections.abc import Iterable
from typing import IO, Any

from rayreel.config.request import RenderRequest
from rayreel.pipelines import pipeline_of
from rayreel.requests.templates import without_effect
from rayreel.runs.requests import PlannedRow


def write_rows(file: IO[str], rows: Iterable[PlannedRow]) -> None:
    """Write rows as lines of a prompt list.

    A line states all that the clip depends on, so the job's defaults and seed no longer matter, and
    names files by absolute paths. With the same weights it asks for the same item.

    One thing only a job's defaults can say, as a list's nulls count as absent: ``stg_blocks: null``
    (every block) where the checkpoint's generation perturbs some. Such a row comes back with those.

    Args:
        file: Of text, opened for writing.
        rows: What to write.
    """
    for row in rows:
        file.write(json.dumps({"id": row.name, **stated(row.request)}) + "\n")


def stated(request: RenderRequest) -> dict[str, Any]:
    """The fields of a row that asks for a resolved request.

    Args:
        request: With its files located; what has no effect in it is left out.
    """
    values = request.model_dump(mode="json", exclude=_left_out(request))
    fields: dict[str, Any] = _without_nulls(values)
    return fields


def _left_out(request: RenderRequest) -> set[str]:
    """Fields that a row need not state: they play no part, or it may not state them."""
    made_elsewhere = not pipeline_of(request).traits.stages
    return without_effect(request) | ({"loras", "sampler"} if made_elsewhere else set())


def _without_nulls(value: Any) -> Any:  # noqa: ANN401 - plain JSON
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
