"""Rows of a training spec become resolved requests, checked before anything is trained."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rayreel.checkpoints.files import ModelFiles
from rayreel.config.request import RenderRequest
from rayreel.config.train import TrainSpec
from rayreel.errors import SpecError
from rayreel.pipelines import pipeline_of
from rayreel.requests.row_files import RowFiles
from rayreel.requests.templates import FaultyRow, Template, Templates
from rayreel.training.validation import outline_adapter

DEFAULT_PIPELINE = "one_stage"
"""Guided steps of the model that is trained, at full size: no other weights take part."""

# What that pipeline does not take: rows with one of these go where requests of render jobs go.
_OF_OTHER_PIPELINES = ("references", "soundtrack", "retake")

log = logging.getLogger(__name__)


def validation_requests(
    spec: TrainSpec,
    files: ModelFiles,
    base: str | None = None,
    *,
    reference_scales: tuple[int, int] | None = None,
) -> tuple[tuple[str, RenderRequest], ...]:
    """The rows of a training spec, resolved and checked as rows of a render job are.

    Rows that name no pipeline, and need no special one, go to ``one_stage``. A row without a seed
    has one from the spec's and from what it asks for: the same at each step, and however its
    neighbours change.

    Args:
        spec: Of the run.
        files: Its model.
        base: Folder or URI where relative paths in rows start; by default the current folder.
        reference_scales: Of references to targets in space and time, where the adapter that will be
            trained follows references.

    Returns:
        Names, ``row-1`` and so on, and requests with every field set.

    Raises:
        SpecError: Naming row, field, what was expected and the nearest legal value, for all rows.
        CheckpointError: If weight files are damaged.
    """
    rows, defaults = spec.validation.rows, _said(spec.validation.defaults)
    row_files = RowFiles(_absolute(base or "."), spec.output)
    requests, faults = [], list[str]()
    with _as_trained(files, reference_scales) as trained:
        templates = Templates(spec.validation.defaults, trained, row_files)
        for number, row in enumerate(rows, start=1):
            name, values = f"row-{number}", _said(row)
            if _is_general(defaults | values):
                values["pipeline"] = DEFAULT_PIPELINE
            try:
                template, own = templates.match(values)
            except FaultyRow as faulty:
                faults += [f"  {name}: {line}" for line in faulty.lines]
                continue
            _, seed = template.identify(own, spec.seed)
            requests.append((name, template.asked(own, seed)))
            _tell(name, template, files)
    if faults:
        raise SpecError("\n".join(["validation.rows:", *faults]))
    return tuple(requests)


def _absolute(base: str) -> str:
    return base if "://" in base else str(Path(base).expanduser().absolute())


def _said(fields: Any) -> dict[str, Any]:  # noqa: ANN401 - a model of fields
    said: dict[str, Any] = fields.model_dump(exclude_unset=True)
    return said


def _is_general(values: dict[str, Any]) -> bool:
    """Whether a row leaves its pipeline open, and asks for nothing that needs a certain one."""
    special = any(values.get(field) for field in _OF_OTHER_PIPELINES)
    return values.get("pipeline") is None and values.get("video", True) and not special


@contextmanager
def _as_trained(
    files: ModelFiles, reference_scales: tuple[int, int] | None
) -> Iterator[ModelFiles]:
    """The model with an adapter that says what the trained one will say of references."""
    if reference_scales is None:
        yield files
        return
    with TemporaryDirectory(prefix="rayreel-validation-") as folder:
        outline = outline_adapter(Path(folder) / "outline.safetensors", reference_scales)
        loras = (*files.spec.loras, outline)
        yield ModelFiles(files.spec.model_copy(update={"loras": loras}))


def _tell(name: str, template: Template, files: ModelFiles) -> None:
    """Log what is otherwise than a reader of the row may expect."""
    notes = [*template.notes, *([template.ignored] if template.ignored else [])]
    kind = pipeline_of(template.request)
    distils = bool(kind.traits.stages) and not kind.guided(template.request)
    if distils and files.distilled_lora is None:
        notes.append(
            f"{template.request.pipeline} takes the model as distilled already: it names no "
            "distilled_lora"
        )
    for note in notes:
        log.warning("validation %s: %s", name, note)
