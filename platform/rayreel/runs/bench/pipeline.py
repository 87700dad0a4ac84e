"""Clips from prompts to files: our pipeline against the same work done another way."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import torch

from rayreel.checkpoints.files import ModelFiles
from rayreel.config.jobs import MemorySpec
from rayreel.config.request import RenderRequest
from rayreel.config.sampling import Guidance
from rayreel.media.mux import write_clip
from rayreel.pipelines import PIPELINE_CLASSES, OneStage, Pipeline, phases
from rayreel.pipelines.devices import Device
from rayreel.pipelines.ledger import ComponentName, ModelLedger
from rayreel.pipelines.resolve import resolve
from rayreel.runs.bench.baseline import (
    denoise_with_diffusers,
    diffusers_pipeline,
    render_with_diffusers,
)
from rayreel.runs.bench.networks import Line
from rayreel.runs.bench.spec import ClipsCase, DiffusersLoopCase, ResidentCase
from rayreel.runs.bench.timing import Race, difference, race

Renderer = Callable[[Sequence[RenderRequest], Path], None]
"""Renders resolved requests into an empty folder, a file each."""

CPU = Device("cpu", "float32", reason="as measured")
"""Where clips are compared."""

_PER_CALL = MemorySpec.model_validate(dict.fromkeys(get_args(ComponentName), "per_call"))
_SUBJECTS = ("A fox in fresh snow", "Rain on a tin roof", "A tram at night", "Kites over a beach")


def compare_with_diffusers(case: DiffusersLoopCase, seconds: float) -> Line:
    """Seconds of a clip, ours and theirs.

    Raises:
        ValueError: If both do not make the same latents of the same noise.
    """
    pipeline = OneStage(ModelLedger("tiny", CPU))
    theirs = diffusers_pipeline(pipeline.ledger.files)
    requests = clip_requests(case, pipeline.ledger.files)
    (ours,) = pipeline.generate(phases.encode(pipeline.ledger, requests[:1]))
    expected = denoise_with_diffusers(theirs, requests[0], pipeline.ledger)
    assert ours.video is not None, "the requests have a picture"
    assert expected.video is not None, "and so have theirs"
    found = difference(ours.video, expected.video)
    result = race_renderers(
        partial(render_with_ours, pipeline),
        partial(render_with_diffusers, theirs),
        requests,
        seconds,
    )
    return {"difference": found, **result.line("loop over diffusers' pipeline")}


def compare_policies(case: ResidentCase, seconds: float) -> Line:
    """Seconds of a clip, with networks that stay and with all of them built anew for each clip.

    What is built anew opens its files for every clip, reads the tokenizer, and fuses adapters.
    """
    kind = PIPELINE_CLASSES[case.pipeline]
    resident = kind(ModelLedger("tiny", CPU))
    built: list[str] = []

    def anew(requests: Sequence[RenderRequest], folder: Path) -> None:
        for index, request in enumerate(requests):
            ledger = ModelLedger("tiny", CPU, _PER_CALL)
            _render(kind(ledger), request, folder / f"{index}.mp4")
            built[:] = ledger.loads

    result = race_renderers(
        partial(render_with_ours, resident),
        anew,
        clip_requests(case, resident.ledger.files),
        seconds,
    )
    return {"built": sorted(built), **result.line("all networks built from their files for a clip")}


def race_renderers(
    ours: Renderer, theirs: Renderer, requests: Sequence[RenderRequest], seconds: float
) -> Race:
    """Let both render the same list by turns.

    Args:
        ours: One way.
        theirs: The other way.
        requests: Resolved.
        seconds: As for ``race``.

    Returns:
        Seconds of a clip, in the fastest call of each.
    """

    def rendered(render: Renderer) -> None:
        with TemporaryDirectory() as folder:
            render(requests, Path(folder))

    both = race(lambda: rendered(ours), lambda: rendered(theirs), seconds)
    return Race(both.ours / len(requests), both.theirs / len(requests))


def clip_requests(case: ClipsCase, files: ModelFiles) -> list[RenderRequest]:
    """Resolved requests, each with a prompt of its own."""
    return [
        resolve(request, files, PIPELINE_CLASSES[case.pipeline])
        for request in written_requests(case, prompts=case.clips)
    ]


def written_requests(case: ClipsCase, *, prompts: int, seed: int = 0) -> list[RenderRequest]:
    """Requests of a case as a person writes them.

    Args:
        case: Sizes, and how many.
        prompts: How many different ones they have.
        seed: Of the first; that of each further one is one more.
    """
    video = Guidance(
        cfg_scale=3.0, stg_scale=0.0, stg_blocks=(), rescale_scale=0.0, modality_scale=1.0
    )
    own: dict[str, Any] = {}
    if PIPELINE_CLASSES[case.pipeline].traits.guided:
        audio = video.model_copy(update={"cfg_scale": 7.0})
        own = {"steps": case.steps, "video_guidance": video, "audio_guidance": audio}
    return [
        RenderRequest(
            prompt=f"{_SUBJECTS[index % len(_SUBJECTS)]}, slow camera, take {index}.",
            pipeline=case.pipeline,
            width=case.width,
            height=case.height,
            num_frames=case.frames,
            seed=seed + number,
            **own,
        )
        for number in range(case.clips)
        for index in (number % prompts,)
    ]


def render_with_ours(pipeline: Pipeline, requests: Sequence[RenderRequest], folder: Path) -> None:
    """Our pipeline in a plain loop, in this process."""
    for index, request in enumerate(requests):
        _render(pipeline, request, folder / f"{index}.mp4")


def _render(pipeline: Pipeline, request: RenderRequest, path: Path) -> None:
    with torch.inference_mode():
        clip = pipeline(request)
    write_clip(path, clip, crf=request.crf)
