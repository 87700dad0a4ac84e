"""Prompt lists become resolved requests with identities, or one list of all their faults."""

import hashlib
import logging
from dataclasses import dataclass
from typing import Any

import fsspec
from pydantic import ValidationError

from rayreel.checkpoints.files import ModelFiles
from rayreel.config.jobs import RenderSpec
from rayreel.config.load import faults
from rayreel.config.request import ImageCondition, RenderRequest, geometry_faults
from rayreel.data.hashing import canonical_json, content_hash
from rayreel.data.manifest import read_manifest
from rayreel.errors import SpecError
from rayreel.pipelines.resolve import resolve

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
    """

    number: int
    name: str
    item_id: str
    request: RenderRequest


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
    defaults = spec.defaults.model_dump(exclude_unset=True)
    images = _Images(base=spec.prompts.rpartition("/")[0])
    names: dict[str, int] = {}
    for number, values in read_manifest(spec.prompts):
        fields = {**defaults, **values}
        name = str(fields.pop("id", f"row-{number}"))
        found = [f"id {name!r} was used by row {names[name]}"] if name in names else []
        names[name] = number
        try:
            request = RenderRequest.model_validate(fields)
        except ValidationError as error:
            found += faults(error, RenderRequest)
        else:
            request = images.located(request)
            found += [*_faults(request, files), *images.faults(request)]
            if said := _ignored(values, request):
                ignored.setdefault(said, []).append(number)
            if not found:
                rows.append(_planned(number, name, request, spec.seed, files, images))
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


def _ignored(values: dict[str, Any], request: RenderRequest) -> str:
    """What a row says to no effect; empty where all of it counts."""
    ignored = set() if request.traits.guided else set(_GUIDED_FIELDS)
    if not request.audio:
        ignored.add("audio_guidance")
    said = ", ".join(sorted(ignored & values.keys()))
    audio = "on" if request.audio else "off"
    return said and f"{said}: no effect with pipeline {request.pipeline}, audio {audio}"


def _faults(request: RenderRequest, files: ModelFiles) -> list[str]:
    """What the request asks of this model that it does not have."""
    time, space, _ = files.factors
    # A border is reflected from the positions beside it, so there must be some.
    least = 2 * space if files.video_vae.decoder_padding == "reflect" else space
    found = [
        f"field {field!r}: {message}"
        for field, message in geometry_faults(
            request, time_factor=time, space_factor=space, least_size=least
        )
    ]
    if request.audio and not files.transformer.has_audio:
        found.append("field 'audio': this model makes pictures alone; set audio to false")
    elif request.audio and not round(request.duration_s * files.audio_vae.latents_per_second):
        found.append(
            f"field 'num_frames': {request.num_frames} frames at {request.fps:g} fps are too short "
            "for sound; set audio to false, or make the clip longer"
        )
    for need in request.traits.needs:
        if getattr(files.spec, need) is None:
            found.append(
                f"field 'pipeline': {request.pipeline} needs model.{need}, "
                "which the spec does not name"
            )
    layers = files.transformer.num_layers
    for stream in ("video_guidance", "audio_guidance"):
        choice = getattr(request, stream)
        blocks = choice.stg_blocks if choice else None
        past = [block for block in blocks or () if block >= layers]
        if past:
            found.append(
                f"field '{stream}.stg_blocks': {past[0]} is not a block of this transformer; "
                f"expected 0 to {layers - 1}"
            )
    return found


def _planned(
    number: int,
    name: str,
    request: RenderRequest,
    job_seed: int,
    files: ModelFiles,
    images: "_Images",
) -> PlannedRow:
    request = resolve(request, files)
    content = request.model_dump(mode="json")
    for image in content["images"]:
        image["content"] = images.hash_of(image.pop("path"))
    if request.seed is None:
        del content["seed"]
        digest = content_hash("seed", str(job_seed), canonical_json(content))
        content["seed"] = int(digest[:8], 16)
        request = request.model_copy(update={"seed": content["seed"]})
    weights = files.fingerprint(request.traits.files)
    item_id = content_hash(canonical_json(content), weights)
    return PlannedRow(number=number, name=name, item_id=item_id, request=request)


class _Images:
    """Conditioning images of a list: where they lie, whether they can be read, what they hold."""

    def __init__(self, base: str) -> None:
        self.base = base
        self._hashes: dict[str, str] = {}
        self._errors: dict[str, str] = {}

    def located(self, request: RenderRequest) -> RenderRequest:
        """The request with relative image paths taken from the list's folder."""

        def absolute(image: ImageCondition) -> ImageCondition:
            if "://" in image.path or image.path.startswith("/"):
                return image
            return image.model_copy(update={"path": f"{self.base}/{image.path}"})

        return request.model_copy(update={"images": tuple(absolute(i) for i in request.images)})

    def faults(self, request: RenderRequest) -> list[str]:
        """Images that cannot be read."""
        for image in request.images:
            if image.path not in self._hashes and image.path not in self._errors:
                try:
                    with fsspec.open(image.path, "rb") as file:
                        digest = hashlib.file_digest(file, "blake2b")
                except (OSError, ValueError, ImportError) as error:
                    self._errors[image.path] = f"{type(error).__name__}: {error}"
                else:
                    self._hashes[image.path] = digest.hexdigest()[:32]
        return [
            f"field 'images.{index}.path': cannot read the image {image.path} "
            f"({self._errors[image.path]})"
            for index, image in enumerate(request.images)
            if image.path in self._errors
        ]

    def hash_of(self, path: str) -> str:
        """Identity of an image's content."""
        return self._hashes[path]
