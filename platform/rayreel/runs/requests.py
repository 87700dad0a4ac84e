"""Prompt lists become resolved requests with identities, or one list of all their faults."""

import logging
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from rayreel.checkpoints.files import ModelFiles
from rayreel.config.jobs import RenderSpec
from rayreel.config.load import faults
from rayreel.config.request import RenderRequest
from rayreel.data.hashing import canonical_json, content_hash
from rayreel.data.manifest import read_manifest
from rayreel.errors import MediaError, RayreelError, SpecError
from rayreel.pipelines import pipeline_of
from rayreel.pipelines.choice import choose_pipeline
from rayreel.pipelines.chunks import is_chained
from rayreel.pipelines.faults import request_faults
from rayreel.pipelines.resolve import resolve
from rayreel.pipelines.sources import Sourced, read_sources
from rayreel.runs.row_files import RowFiles

_MOST_FAULTS = 50
_MOST_ROWS = 5
_GUIDED_FIELDS = ("steps", "scheduler", "negative_prompt", "video_guidance", "audio_guidance")

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PlannedRow:
    """One row of the prompt list.

    Attributes:
        number: Position in the list, from 1.
        name: The row's ``id``, or ``row-<number>``.
        item_id: Identity of what it asks for; equal rows share it.
        request: The resolved request.
        reason: Why it goes to its pipeline.
        notes: What is otherwise than a reader of the row may expect.
    """

    number: int
    name: str
    item_id: str
    request: RenderRequest
    reason: str
    notes: tuple[str, ...] = ()


def plan_rows(spec: RenderSpec, files: ModelFiles) -> list[PlannedRow]:
    """Read, check and resolve a prompt list.

    Args:
        spec: The job; ``prompts`` is an absolute path or a URI.
        files: Its model.

    Returns:
        One entry per row, in order.

    Raises:
        SpecError: Naming row, field, what was expected and the nearest legal value, for all rows.
    """
    rows: list[PlannedRow] = []
    wrong: list[str] = []
    ignored: dict[str, list[int]] = {}
    planner = _Planner(spec, files)
    names: dict[str, int] = {}
    for number, values in read_manifest(spec.prompts):
        name = str(values.pop("id", f"row-{number}"))
        found = [f"id {name!r} was used by row {names[name]}"] if name in names else []
        names[name] = number
        try:
            row = planner.plan(number, name, values)
        except _FaultyRow as faulty:
            found += faulty.lines
        else:
            rows.append(row)
            if said := _ignored(values, row.request):
                ignored.setdefault(said, []).append(number)
        wrong += [f"row {number}: {fault}" for fault in found]
    if wrong:
        more = [f"and {len(wrong) - _MOST_FAULTS} more"] if len(wrong) > _MOST_FAULTS else []
        raise SpecError("\n  ".join([f"{spec.prompts}:", *wrong[:_MOST_FAULTS], *more]))
    if not rows:
        raise SpecError(f"{spec.prompts} has no rows")
    for said, numbers in ignored.items():
        more = [f"{len(numbers) - _MOST_ROWS} more"] if len(numbers) > _MOST_ROWS else []
        log.warning("%s, in row %s", said, ", ".join([*map(str, numbers[:_MOST_ROWS]), *more]))
    return rows


class _FaultyRow(Exception):  # noqa: N818 - caught right here, and no error of ours
    """What is wrong with a row.

    Attributes:
        lines: A fault each.
    """

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class _Planner:
    """Rows of one list to requests of one model."""

    def __init__(self, spec: RenderSpec, files: ModelFiles) -> None:
        self.spec = spec
        self.files = files
        self.defaults = spec.defaults.model_dump(exclude_unset=True)
        self.row_files = RowFiles(spec.prompts.rpartition("/")[0], spec.output)

    def plan(self, number: int, name: str, values: dict[str, Any]) -> PlannedRow:
        """The planned row; raises ``_FaultyRow``."""
        sourced = self._sourced(self._validated(values))
        pipeline, reason = choose_pipeline(
            sourced.request, image_model=self.files.spec.image_model is not None
        )
        request = sourced.request.model_copy(update={"pipeline": pipeline})
        if found := request_faults(request, self.files):
            raise _FaultyRow([f"field {field!r}: {message}" for field, message in found])
        request = resolve(request, self.files, pipeline_of(request))
        row = PlannedRow(
            number=number,
            name=name,
            item_id="",
            request=request,
            reason=reason,
            notes=(*sourced.notes, *self._notes(request)),
        )
        return self._identified(row)

    def _validated(self, values: dict[str, Any]) -> RenderRequest:
        """The request of a row, over the job's defaults."""
        if {"seconds", "num_frames"} <= values.keys():
            said = "num_frames says the length already; expected one of them"
            raise _FaultyRow([f"field 'seconds': {said}"])
        # A row that states its length in one way does not take the job's in the other.
        lengths = {"seconds": "num_frames", "num_frames": "seconds"}
        others = {lengths[field] for field in values if field in lengths}
        track = values.get("soundtrack")
        if not others and isinstance(track, dict) and "duration_s" in track:
            others = {*lengths}
        fields = {k: v for k, v in self.defaults.items() if k not in others} | values
        try:
            return RenderRequest.model_validate(fields)
        except ValidationError as error:
            raise _FaultyRow(faults(error, RenderRequest)) from error

    def _sourced(self, request: RenderRequest) -> Sourced:
        """The request with its files located, and what follows from them."""
        try:
            request = self.row_files.located(request)
        except RayreelError as error:
            raise _FaultyRow([str(error)]) from error
        if unreadable := self.row_files.faults(request, self.files):
            raise _FaultyRow(unreadable)
        try:
            return read_sources(request, self.files)
        except MediaError as error:
            field = "retake.path" if request.retake else "extend.path"
            raise _FaultyRow([f"field {field!r}: {error}"]) from error

    def _notes(self, request: RenderRequest) -> list[str]:
        """What is otherwise than a reader of the row may expect."""
        kind = pipeline_of(request)
        notes = kind.notes(request, self.files)
        still = request.num_frames == 1 and request.video and kind.traits.stages > 0
        if still and self.files.spec.image_model is None:
            notes.append("a single frame of the video model: the spec names no image_model")
        longest_s = self.files.transformer.positional_embedding_max_pos[0]
        if request.video and not is_chained(request) and request.duration_s > longest_s:
            notes.append(f"in one piece, past the {longest_s:g} s that the positions cover")
        if request.extend and not request.extend.latents:
            notes.append("goes on from encoded frames: there are no latents of the clip")
        return notes

    def _identified(self, row: PlannedRow) -> PlannedRow:
        content = self.row_files.identity(row.request, self.files)
        request = row.request
        if request.seed is None:
            del content["seed"]
            digest = content_hash("seed", str(self.spec.seed), canonical_json(content))
            content["seed"] = int(digest[:8], 16)
            request = request.model_copy(update={"seed": content["seed"]})
        weights = self.files.fingerprint(pipeline_of(request).traits.files)
        item_id = content_hash(canonical_json(content), weights)
        return replace(row, item_id=item_id, request=request)


def _ignored(values: dict[str, Any], request: RenderRequest) -> str:
    """What a row says to no effect; empty where all of it counts."""
    kind = pipeline_of(request)
    ignored: set[str] = set()
    if not kind.guided(request):
        ignored.update(_GUIDED_FIELDS)
    elif request.sigmas is not None:
        ignored |= {"steps", "scheduler"}
    if kind.traits.stages < 2:
        ignored.add("stage2_sigmas")
    if not request.audio:
        ignored.add("audio_guidance")
    if request.video:
        ignored.add("audio_format")
    else:
        ignored |= {"video_guidance", "width", "height", "crf"}
    if request.retake or request.extend:
        ignored |= {"width", "height", "fps"}
    if request.retake:
        ignored |= {"num_frames", "seconds"}
    if not is_chained(request):
        ignored.add("chain")
    said = ", ".join(sorted(ignored & values.keys()))
    audio = "on" if request.audio else "off"
    return said and f"{said}: no effect with pipeline {request.pipeline}, audio {audio}"
