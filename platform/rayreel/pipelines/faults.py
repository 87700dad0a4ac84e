"""What a request asks of its pipeline and its model that these cannot do."""

import difflib
from collections.abc import Iterable, Iterator
from functools import cache

from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.networks import audio_encoder
from rayreel.config.conditions import Chain
from rayreel.config.request import RenderRequest
from rayreel.diffusion.guiders import GUIDERS
from rayreel.diffusion.res2s import LAST_SIGMA
from rayreel.diffusion.samplers import SAMPLERS
from rayreel.diffusion.schedulers import SCHEDULERS
from rayreel.errors import CheckpointError
from rayreel.pipelines.base import Fault, Pipeline
from rayreel.pipelines.chunks import is_backward, resolved_chain, shortest_chunk
from rayreel.pipelines.registry import PIPELINE_CLASSES, pipeline_of

_CONDITIONS = ("images", "references", "soundtrack", "retake", "extend")


def request_faults(request: RenderRequest, files: ModelFiles) -> list[Fault]:
    """What is wrong with a request, by field.

    Args:
        request: With its sources read and its pipeline named, not yet resolved.
        files: The model; only headers are read.
    """
    if unknown := list(_unknown_names(request)):
        return unknown
    kind = pipeline_of(request)
    if missing := [field for field in kind.traits.asks if not getattr(request, field)]:
        return [(field, f"{request.pipeline} needs it") for field in missing]
    found = [
        *_condition_faults(request, kind),
        *_geometry_faults(request, files, kind),
        *_stream_faults(request, files, kind),
        *_chain_faults(request, files, kind),
        *_sampling_faults(request, files, kind),
    ]
    # Its own checks open files, which is for requests that are right otherwise.
    return found or kind.faults(request, files)


def _unknown_names(request: RenderRequest) -> Iterator[Fault]:
    choices: list[tuple[str, str | None, Iterable[str]]] = [
        ("pipeline", request.pipeline, PIPELINE_CLASSES),
        ("scheduler", request.scheduler, SCHEDULERS),
        ("sampler", request.sampler, SAMPLERS),
    ]
    for stream in ("video_guidance", "audio_guidance"):
        guidance = getattr(request, stream)
        choices.append((f"{stream}.method", guidance and guidance.method, GUIDERS))
    for field, name, known in choices:
        if name is not None and name not in known:
            near = difflib.get_close_matches(name, list(known), n=1, cutoff=0)
            yield field, f"{name!r} is unknown; known: {', '.join(known)}; nearest is {near[0]!r}"


def _condition_faults(request: RenderRequest, kind: type[Pipeline]) -> Iterator[Fault]:
    """Conditions that the pipeline does not know what to do with, or that cannot be met."""
    traits = kind.traits
    for field in _CONDITIONS:
        if getattr(request, field) and field not in (*traits.asks, *traits.takes):
            others = [
                name
                for name, other in PIPELINE_CLASSES.items()
                if field in (*other.traits.asks, *other.traits.takes)
            ]
            yield field, f"{request.pipeline} does not take it; these do: {', '.join(others)}"
    for index, image in enumerate(request.images):
        if image.frame >= request.num_frames:
            yield (
                f"images.{index}.frame",
                f"{image.frame} is past the last of {request.num_frames} frames; "
                f"nearest is {request.num_frames - 1}",
            )
    frames = [image.frame for image in request.images]
    for index, frame in enumerate(frames):
        if frame in frames[:index]:
            yield (
                f"images.{index}.frame",
                f"{frame} is pinned by images.{frames.index(frame)} already; expected another one",
            )
    if request.retake and request.retake.start_s >= request.duration_s:
        yield (
            "retake.start_s",
            f"{request.retake.start_s:g} s is behind the end of the video; expected less than "
            f"{request.duration_s:.2f}",
        )


def _geometry_faults(
    request: RenderRequest, files: ModelFiles, kind: type[Pipeline]
) -> Iterator[Fault]:
    """Sizes and lengths that do not fit the video VAE."""
    if not (kind.traits.makes_video and kind.traits.stages):
        return
    time, space, _ = files.factors
    # A border is reflected from the positions beside it, so there must be some.
    least = 2 * space if files.video_vae.decoder_padding == "reflect" else space
    # These sizes are those of a file, and no fields that a row could change.
    source = "retake.path" if request.retake else "extend.path" if request.extend else None
    rest = (request.num_frames - 1) % time
    if rest and not request.extend:
        low = request.num_frames - rest
        yield (
            source or "num_frames",
            f"{request.num_frames} {'frames do' if source else 'does'} not fit the video VAE "
            f"({time}k + 1 frames); nearest are {low} and {low + time}",
        )
    multiple = space * kind.traits.stages
    for field in ("width", "height"):
        size = getattr(request, field)
        low = size // multiple * multiple
        legal = [near for near in (low, low + multiple) if near >= least]
        nearest = " and ".join(map(str, legal or [least]))
        said = f"its {field} {size}" if source else str(size)
        if size % multiple:
            yield (
                source or field,
                f"{said} is not a multiple of {multiple}, which {request.pipeline} needs; "
                f"nearest: {nearest}",
            )
        elif size < least:
            yield (
                source or field,
                f"{said} is too small for the video decoder; nearest is {nearest}",
            )


def _stream_faults(
    request: RenderRequest, files: ModelFiles, kind: type[Pipeline]
) -> Iterator[Fault]:
    """Streams that pipeline or model do not have, and files that the model lacks."""
    if kind.traits.makes_video and not request.video:
        yield "video", f"{request.pipeline} makes a picture; expected true"
    if not request.audio and ("soundtrack" in kind.traits.asks or not kind.traits.makes_video):
        yield "audio", f"{request.pipeline} is about sound; expected true"
    sounds = request.audio and kind.traits.makes_audio
    if sounds and not files.transformer.has_audio:
        yield "audio", "this model makes pictures alone; set audio to false"
    elif sounds and not _sound_frames(request, files):
        yield (
            "num_frames",
            f"{request.num_frames} frames at {request.fps:g} fps are too short for sound; set "
            "audio to false, or make the clip longer",
        )
    reads_sound = request.soundtrack or request.retake or request.extend
    if request.audio and reads_sound and (why := _cannot_encode_sound(files)):
        field = next(f for f in ("soundtrack", "retake", "extend") if getattr(request, f))
        yield field, f"{why}; without it sound cannot be read, only made"
    for need in kind.traits.needs:
        if getattr(files.spec, need) is None:
            yield (
                "pipeline",
                f"{request.pipeline} needs model.{need}, which the spec does not name",
            )


def _sound_frames(request: RenderRequest, files: ModelFiles) -> int:
    return round(request.duration_s * files.audio_vae.latents_per_second)


@cache
def _cannot_encode_sound(files: ModelFiles) -> str | None:
    """Why a model cannot read sound: some sets leave the encoder out."""
    try:
        audio_encoder(files).outline()
    except CheckpointError:
        return f"{files.audio_vae_file.path} holds no whole audio encoder"
    return None


def _chain_faults(
    request: RenderRequest, files: ModelFiles, kind: type[Pipeline]
) -> Iterator[Fault]:
    chain, time = request.chain, files.factors.time
    if "chain" not in kind.traits.takes:
        if chain != Chain():
            yield "chain", f"{request.pipeline} does not render in chunks"
        return
    frames = chain.chunk_frames
    if frames is not None and (frames - 1) % time:
        low = (frames - 1) // time * time + 1
        yield (
            "chain.chunk_frames",
            f"{frames} does not fit the video VAE ({time}k + 1 frames); nearest are {low} and "
            f"{low + time}",
        )
    found = resolved_chain(request, files)
    if found.chunk_frames is None:
        return
    least = shortest_chunk(found, time, backward=is_backward(request))
    if found.chunk_frames < least:
        yield (
            "chain.chunk_frames",
            f"{found.chunk_frames} frames leave nothing new beside an overlap of {found.overlap} "
            f"latent frames; nearest is {least}",
        )


def _sampling_faults(
    request: RenderRequest, files: ModelFiles, kind: type[Pipeline]
) -> Iterator[Fault]:
    sampler = request.sampler or kind.sampler(files)
    if SAMPLERS[sampler]().needs_uncond and not kind.guided(request):
        yield "sampler", f"{sampler} needs guidance, which {request.pipeline} has not"
    for field, levels, taken in (
        ("sigmas", request.sigmas, sampler),
        ("stage2_sigmas", request.stage2_sigmas, kind.refiner),
    ):
        if taken == "res_2s" and levels and levels[-2] <= LAST_SIGMA:
            yield (
                field,
                f"{levels[-2]:g} is no level before 0 for res_2s; expected more than {LAST_SIGMA}",
            )
    layers = files.transformer.num_layers
    for stream in ("video_guidance", "audio_guidance"):
        choice = getattr(request, stream)
        blocks = choice.stg_blocks if choice else None
        past = [block for block in blocks or () if block >= layers]
        if past:
            yield (
                f"{stream}.stg_blocks",
                f"{past[0]} is not a block of this transformer; expected 0 to {layers - 1}",
            )
