"""What rows of a list share: rows that differ in their words and seeds alone are planned once."""

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import ValidationError

from rayreel.checkpoints.files import ModelFiles
from rayreel.config.load import faults
from rayreel.config.request import RenderRequest, RequestFields
from rayreel.data.hashing import canonical_json, content_hash
from rayreel.errors import MediaError, RayreelError
from rayreel.pipelines import pipeline_of
from rayreel.pipelines.choice import choose_pipeline
from rayreel.pipelines.chunks import is_chained
from rayreel.pipelines.faults import request_faults
from rayreel.pipelines.phases import batch_key
from rayreel.pipelines.resolve import resolve
from rayreel.pipelines.sources import Sourced, read_sources
from rayreel.requests.row_files import RowFiles

# A list whose rows all name files of their own has as many templates as rows.
_MOST_TEMPLATES = 4096
_GUIDED_FIELDS = ("steps", "scheduler", "negative_prompt", "video_guidance", "audio_guidance")


class FaultyRow(Exception):  # noqa: N818 - caught by whoever plans the list, and no error of ours
    """What is wrong with a row.

    Attributes:
        lines: A fault each.
    """

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class Own(NamedTuple):
    """What rows of one template differ in: nothing else of the request depends on it.

    Attributes:
        prompt: Of the row, or the job's.
        negative_prompt: Likewise; ``None`` where neither says one.
        seed: Likewise.
    """

    prompt: str
    negative_prompt: str | None
    seed: int | None


_OWN = frozenset(Own._fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A planned row without its own values.

    Attributes:
        request: The resolved request, with the values of the row that the template was made from.
        reason: Why it goes to its pipeline.
        notes: What is otherwise than a reader of the row may expect.
        ignored: What the row says to no effect; empty where all of it counts.
        shape: Which example of ``Templates`` it could share a batch with.
        weights: Identity of the weights that it is rendered with.
        negates: Whether the negative prompt is the row's own.
        seeded: Canonical JSON of what it asks for, cut where own values stand.
        unseeded: The same, without the seed.
    """

    request: RenderRequest
    reason: str
    notes: tuple[str, ...]
    ignored: str
    shape: int
    weights: str
    negates: bool
    seeded: tuple[str, ...]
    unseeded: tuple[str, ...]

    @property
    def encodes(self) -> bool:
        """Whether its texts go through the text encoder."""
        return pipeline_of(self.request).traits.stages > 0

    def texts(self, own: Own) -> tuple[str, str | None]:
        """Prompt, and negative prompt where there is one, of a row."""
        return own.prompt, own.negative_prompt if self.negates else self.request.negative_prompt

    def identify(self, own: Own, job_seed: int) -> tuple[str, int]:
        """Identity of what a row asks for, and its seed.

        Args:
            own: The row's values.
            job_seed: Moves the seeds of rows that have none.
        """
        words = [json.dumps(own.negative_prompt)] if self.negates else []
        words.append(json.dumps(own.prompt))
        seed = own.seed
        if seed is None:
            digest = content_hash("seed", str(job_seed), _joined(self.unseeded, words))
            seed = int(digest[:8], 16)
        words.append(str(seed))
        return content_hash(_joined(self.seeded, words), self.weights), seed

    def asked(self, own: Own, seed: int) -> RenderRequest:
        """The resolved request of a row."""
        prompt, negative = self.texts(own)
        values = {"prompt": prompt, "negative_prompt": negative, "seed": seed}
        return self.request.model_copy(update=values)


def _joined(pieces: tuple[str, ...], words: list[str]) -> str:
    return "".join(part for pair in zip(pieces, [*words, ""], strict=True) for part in pair)


class Templates:
    """Rows of one list to templates for one model.

    Attributes:
        examples: The first request of each shape, with the values of one row.
    """

    def __init__(self, defaults: RequestFields, files: ModelFiles, row_files: RowFiles) -> None:
        """Start without templates.

        Args:
            defaults: For what rows do not say.
            files: The model.
            row_files: What rows name.
        """
        self._files = files
        self._defaults = defaults.model_dump(exclude_unset=True)
        self._row_files = row_files
        self.examples: list[RenderRequest] = []
        self._shapes: dict[tuple[object, ...], int] = {}
        self._known: dict[str, Template] = {}

    def match(self, values: dict[str, Any]) -> tuple[Template, Own]:
        """The template of a row, and what it fills in.

        Args:
            values: Of the row, without its ``id``.

        Raises:
            FaultyRow: If the row is wrong.
        """
        # Text of the values, as 1 and 1.0 and True are equal but not the same to validation.
        key = repr(
            ([field in values for field in Own._fields],
             {field: value for field, value in values.items() if field not in _OWN})
        )  # fmt: skip
        template = self._known.get(key)
        if template and (own := self._plain(values)):
            return template, own
        request = self._validated(values)
        own = Own(request.prompt, request.negative_prompt, request.seed)
        if template is None:
            template = self._template(request, values)
            if len(self._known) >= _MOST_TEMPLATES:
                self._known.clear()
            self._known[key] = template
        return template, own

    def _plain(self, values: dict[str, Any]) -> Own | None:
        """The own values of a row that are legal at first sight."""
        job = self._defaults
        prompt = values.get("prompt", job.get("prompt"))
        negative = values.get("negative_prompt", job.get("negative_prompt"))
        seed = values.get("seed", job.get("seed"))
        if not (isinstance(prompt, str) and prompt.isascii() and prompt.strip()):
            return None
        if not (negative is None or (isinstance(negative, str) and negative.isascii())):
            return None
        if not (seed is None or (type(seed) is int and 0 <= seed < 2**63)):
            return None
        return Own(prompt, negative, seed)

    def _validated(self, values: dict[str, Any]) -> RenderRequest:
        """The request of a row, over the job's defaults."""
        if {"seconds", "num_frames"} <= values.keys():
            said = "num_frames says the length already; expected one of them"
            raise FaultyRow([f"field 'seconds': {said}"])
        # A row that states its length in one way does not take the job's in the other.
        lengths = {"seconds": "num_frames", "num_frames": "seconds"}
        others = {lengths[field] for field in values if field in lengths}
        track = values.get("soundtrack")
        if not others and isinstance(track, dict) and "duration_s" in track:
            others = {*lengths}
        fields = {k: v for k, v in self._defaults.items() if k not in others} | values
        try:
            return RenderRequest.model_validate(fields)
        except ValidationError as error:
            raise FaultyRow(faults(error, RenderRequest)) from error

    def _template(self, request: RenderRequest, values: dict[str, Any]) -> Template:
        """What is left to find out of a valid request."""
        sourced = self._sourced(request)
        pipeline, reason = choose_pipeline(
            sourced.request, image_model=self._files.spec.image_model is not None
        )
        request = sourced.request.model_copy(update={"pipeline": pipeline})
        if found := request_faults(request, self._files):
            raise FaultyRow([f"field {field!r}: {message}" for field, message in found])
        kind = pipeline_of(request)
        request = resolve(request, self._files, kind)
        content = self._row_files.identity(request, self._files)
        negates = "negative_prompt" in values and request.negative_prompt is not None
        blanks = ("negative_prompt", "prompt") if negates else ("prompt",)
        return Template(
            request=request,
            reason=reason,
            notes=(*sourced.notes, *self._notes(request)),
            ignored=_ignored(values, request),
            shape=self._shape(request),
            weights=self._files.fingerprint(kind.traits.files),
            negates=negates,
            seeded=_pieces(content, (*blanks, "seed")),
            unseeded=_pieces({k: v for k, v in content.items() if k != "seed"}, blanks),
        )

    def _shape(self, request: RenderRequest) -> int:
        key = batch_key(request)
        if key not in self._shapes:
            self._shapes[key] = len(self.examples)
            self.examples.append(request)
        return self._shapes[key]

    def _sourced(self, request: RenderRequest) -> Sourced:
        """The request with its files located, and what follows from them."""
        try:
            request = self._row_files.located(request)
        except RayreelError as error:
            raise FaultyRow([str(error)]) from error
        if unreadable := self._row_files.faults(request, self._files):
            raise FaultyRow(unreadable)
        try:
            return read_sources(request, self._files)
        except MediaError as error:
            field = "retake.path" if request.retake else "extend.path"
            raise FaultyRow([f"field {field!r}: {error}"]) from error

    def _notes(self, request: RenderRequest) -> list[str]:
        """What is otherwise than a reader of the row may expect."""
        kind = pipeline_of(request)
        notes = kind.notes(request, self._files)
        still = request.num_frames == 1 and request.video and kind.traits.stages > 0
        if still and self._files.spec.image_model is None:
            notes.append("a single frame of the video model: the spec names no image_model")
        longest_s = self._files.transformer.positional_embedding_max_pos[0]
        if request.video and not is_chained(request) and request.duration_s > longest_s:
            notes.append(f"in one piece, past the {longest_s:g} s that the positions cover")
        if request.extend and not request.extend.latents:
            notes.append("goes on from encoded frames: there are no latents of the clip")
        return notes


def _pieces(content: dict[str, Any], blanks: tuple[str, ...]) -> tuple[str, ...]:
    """Canonical JSON of a request, cut where the values of some fields stand.

    Args:
        content: The request as plain JSON.
        blanks: The fields, sorted as the text has them.
    """
    # Nobody writes such a text.
    marks = {field: f"\0{field}" for field in blanks}
    rest = canonical_json({**content, **marks})
    pieces = []
    for mark in marks.values():
        piece, _, rest = rest.partition(json.dumps(mark))
        pieces.append(piece)
    return (*pieces, rest)


def without_effect(request: RenderRequest) -> set[str]:
    """Fields of a resolved request that play no part, or follow from a file that it names."""
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
    return ignored


def _ignored(values: dict[str, Any], request: RenderRequest) -> str:
    """What a row says to no effect; empty where all of it counts."""
    said = ", ".join(sorted(without_effect(request) & values.keys()))
    audio = "on" if request.audio else "off"
    return said and f"{said}: no effect with pipeline {request.pipeline}, audio {audio}"
