"""The scenes of suites, as rows of a prompt list with the files that they name."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

import yaml

from rayreel.config.evaluate import EvalSpec, RenderedSuite, Suite
from rayreel.config.jobs import ModelSetup, RenderSpec
from rayreel.config.request import RequestFields
from rayreel.data.hashing import canonical_json, content_hash
from rayreel.data.storage import Storage
from rayreel.media.image import write_image
from rayreel.world.dataset import Format, write_outlines
from rayreel.world.prompts import Asked, asked
from rayreel.world.scene import NEW_COLOUR, NEW_SHAPE, Scene

PROMPTS = "prompts.jsonl"
"""Name of the prompt list."""

_JOB = "render.yaml"
_GIVEN = "given"
_FORM = Format()


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteRow:
    """A scene of a suite that is rendered.

    Attributes:
        name: Of the row.
        suite: That it is of.
        asked: What the clip has to show.
        values: The row.
    """

    name: str
    suite: RenderedSuite
    asked: Asked
    values: dict[str, Any]


def scenes(suite: Suite, seed: int) -> list[Asked]:
    """What a suite asks for: the first ones stay the same as it grows.

    Args:
        suite: The suite.
        seed: Of the evaluation.
    """
    drawn = (
        asked(
            f"prompt/{seed}/{index}",
            things=suite.things,
            split=suite.split,
            new=suite.new is not None,
        )
        for index in count()
    )
    return list(islice((one for one in drawn if _is_new(one.scene) == suite.new), suite.clips))


def world_defaults(spec: EvalSpec) -> RequestFields:
    """The model's defaults, over the size and length of the drawn world's clips."""
    said = spec.defaults.model_dump(exclude_unset=True)
    world = {
        "width": _FORM.width,
        "height": _FORM.height,
        "num_frames": _FORM.num_frames,
        "fps": _FORM.fps,
    }
    if "seconds" in said:
        del world["num_frames"]
    return RequestFields.model_validate(world | said)


def render_job(spec: EvalSpec) -> RenderSpec:
    """The job that renders what an evaluation asks for, in its run directory."""
    setup = {name: getattr(spec, name) for name in ModelSetup.model_fields}
    return RenderSpec(
        **{**setup, "defaults": world_defaults(spec)},
        prompts=Storage(spec.output).join(PROMPTS),
        output=spec.output,
    )


def suite_rows(spec: EvalSpec) -> list[SuiteRow]:
    """All rows of an evaluation, in its order."""
    defaults = world_defaults(spec)
    return [
        row
        for suite in spec.suites
        if isinstance(suite, RenderedSuite)
        for row in _rows(suite, spec.seed, defaults)
    ]


def write_job(job: RenderSpec, rows: Iterable[SuiteRow]) -> None:
    """Write a job, its prompt list, and the files that this names and that are not there yet.

    Args:
        job: As of ``render_job``.
        rows: Of the list.

    Raises:
        StorageError: If it does not answer.
    """
    storage = Storage(job.output)
    there = set(storage.names(_GIVEN))
    lines = []
    for row in rows:
        lines.append(f"{json.dumps(row.values)}\n")
        form = _form(row.suite, job.defaults)
        for given in row.suite.given:
            name = _given_name(given, row.asked.scene, form)
            if name not in there:
                _write_given(storage, name, given, row.asked.scene, form)
                there.add(name)
    storage.write_bytes(PROMPTS, "".join(lines).encode())
    values = job.model_dump(mode="json", exclude_defaults=True)
    storage.write_bytes(_JOB, yaml.safe_dump(values, sort_keys=False).encode())


def _is_new(scene: Scene) -> str | None:
    """What of a scene base data never has; it may be both."""
    colour = any(thing.colour == NEW_COLOUR for thing in scene.things)
    shape = any(thing.shape == NEW_SHAPE for thing in scene.things)
    return "both" if colour and shape else "colour" if colour else "shape" if shape else None


def _rows(suite: RenderedSuite, seed: int, defaults: RequestFields) -> Iterator[SuiteRow]:
    said = suite.request.model_dump(mode="json", exclude_unset=True)
    form = _form(suite, defaults)
    for index, one in enumerate(scenes(suite, seed)):
        name = f"{suite.name}-{index:04}"
        # The same noise in all suites, so that they differ in what they state alone.
        noise = int(content_hash("noise", str(seed), str(index))[:8], 16)
        values = {"id": name, "prompt": one.prompt, "seed": noise, **said}
        for given in suite.given:
            path = _given_name(given, one.scene, form)
            if given == "reference":
                values["references"] = [{"path": path}]
            else:
                frame = 0 if given == "first_frame" else form.num_frames - 1
                values.setdefault("images", []).append({"path": path, "frame": frame})
        yield SuiteRow(name=name, suite=suite, asked=one, values=values)


def _form(suite: RenderedSuite, defaults: RequestFields) -> Format:
    """Size and length of a suite's clips, as far as they are known before they are made."""
    request = defaults.model_copy(update=suite.request.model_dump(exclude_unset=True))
    return Format(
        width=request.width,
        height=request.height,
        num_frames=request.num_frames,
        fps=request.fps,
    )


def _given_name(given: str, scene: Scene, form: Format) -> str:
    size = [form.width, form.height, form.num_frames, form.fps]
    identity = content_hash(canonical_json([scene.model_dump(), size]))[:16]
    suffix = "mp4" if given == "reference" else "png"
    return f"{_GIVEN}/{identity}-{given.replace('_', '-')}.{suffix}"


def _write_given(storage: Storage, name: str, given: str, scene: Scene, form: Format) -> None:
    with storage.local_staging(name) as staged:
        if given == "reference":
            write_outlines(staged, scene, form)
        else:
            write_image(staged, form.drawn(scene)[0 if given == "first_frame" else -1])
