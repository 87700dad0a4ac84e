"""Clips from prompts to files: our pipeline against the same work done another way."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from rayreel.checkpoints.files import ModelFiles
from rayreel.config.jobs import MemorySpec
from rayreel.config.request import RenderRequest
from rayreel.config.sampling import Guidance
from rayreel.media.mux import write_clip
from rayreel.pipelines import OneStage, Pipeline, phases
from rayreel.pipelines.devices import Device
from rayreel.pipelines.ledger import ModelLedger
from rayreel.pipelines.resolve import resolve
from rayreel.runs.bench.baseline import (
    denoise_with_diffusers,
    diffusers_pipeline,
    render_with_diffusers,
)
from rayreel.runs.bench.networks import Line
from rayreel.runs.bench.spec import DiffusersLoopCase, ResidentCase
from rayreel.runs.bench.timing import Race, difference, race

Renderer = Callable[[Sequence[RenderRequest], Path], None]
"""Renders resolved requests into an empty folder, a file each."""

_DEVICE = Device("cpu", "float32", reason="as measured")
_PER_CALL = MemorySpec.model_validate(dict.fromkeys(MemorySpec.model_fields, "per_call"))
_SUBJECTS = ("A fox in fresh snow", "Rain on a tin roof", "A tram at night", "Kites over a beach")


def compare_with_diffusers(case: DiffusersLoopCase, seconds: float) -> Line:
    """Seconds of a clip, ours and theirs.

    Raises:
        ValueError: If both do not make the same latents of the same noise.
    """
    pipeline = OneStage(ModelLedger("tiny", _DEVICE))
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
    """Seconds of a clip, with networks that stay and with networks that are built for each use."""
    resident, built = (
        OneStage(ModelLedger("tiny", _DEVICE, memory)) for memory in (MemorySpec(), _PER_CALL)
    )
    result = race_renderers(
        partial(render_with_ours, resident),
        partial(render_with_ours, built),
        clip_requests(case, resident.ledger.files),
        seconds,
    )
    return result.line("networks built for each call")


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


def clip_requests(case: DiffusersLoopCase | ResidentCase, files: ModelFiles) -> list[RenderRequest]:
    """Resolved requests of one stage, each with a prompt of its own."""
    video = Guidance(
        cfg_scale=3.0, stg_scale=0.0, stg_blocks=(), rescale_scale=0.0, modality_scale=1.0
    )
    return [
        resolve(
            RenderRequest(
                prompt=f"{_SUBJECTS[index % len(_SUBJECTS)]}, slow camera, take {index}.",
                pipeline="one_stage",
                width=case.width,
                height=case.height,
                num_frames=case.frames,
                steps=case.steps,
                seed=index,
                video_guidance=video,
                audio_guidance=video.model_copy(update={"cfg_scale": 7.0}),
            ),
            files,
            OneStage,
        )
        for index in range(case.clips)
    ]


def render_with_ours(pipeline: Pipeline, requests: Sequence[RenderRequest], folder: Path) -> None:
    """Our pipeline in a plain loop, in this process."""
    for index, request in enumerate(requests):
        with torch.inference_mode():
            clip = pipeline(request)
        write_clip(folder / f"{index}.mp4", clip, crf=request.crf)
