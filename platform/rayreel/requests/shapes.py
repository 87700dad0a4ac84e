"""Shapes: what clips have in common that take equally long."""

from dataclasses import dataclass
from typing import Literal

from rayreel.checkpoints.files import ModelFiles
from rayreel.config.jobs import StageName
from rayreel.config.request import RenderRequest
from rayreel.diffusion.guiders import MultiModalGuider
from rayreel.diffusion.schedulers import DISTILLED_SIGMAS, STAGE_2_SIGMAS
from rayreel.pipelines import pipeline_of
from rayreel.pipelines.chunks import is_chained, plan_chunks
from rayreel.types import AudioLatentShape, VideoLatentShape

DENOISING: tuple[StageName, ...] = ("stage1", "stage2")
Kind = Literal["video", "sound", "image", "text", "written text"]

RENDER_STAGES: tuple[StageName, ...] = (*DENOISING, "decode")

# Multiplications of a block per token: 14 width^2 in its projections, and 2 tokens width in the
# scores and sums of self-attention. As many tokens as this times the width double the work.
_WIDTHS_TO_DOUBLE = 7
_SECOND_ORDER = "res_2s"
# What x264 makes of such clips at CRF 19, about; 6 steps of CRF halve it.
_BITS_PER_PIXEL, _CRF, _HALVING_CRF = 0.15, 19, 6
_AAC_BYTES_PER_S = 16_000
_WAV_BYTES_PER_S = 2 * 2 * 48_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What clips of one name take.

    Attributes:
        name: For people, and the key of measured costs.
        kind: ``video``, ``sound`` or ``image``: costs of one kind tell nothing of another.
        work: Of each stage that such a clip goes through, in a unit that is the same for all shapes
            of its kind (and for both denoising stages).
        batched: Whether such clips can share a batch.
        file_bytes: Size of a clip's file, a rough guess.
        latent_bytes: Size of its latents, if they are kept as bfloat16.
        request: One of them.
    """

    name: str
    kind: Kind
    work: dict[StageName, float]
    batched: bool
    file_bytes: float
    latent_bytes: int
    request: RenderRequest


def shape_name(request: RenderRequest) -> str:
    """Name of a resolved request's shape, such as ``two_stage 768x512x121 24fps s30x4``.

    It is coarser than ``pipelines.phases.batch_key``: which adapters, references or noise levels
    they are changes what clips may share a batch, and not what they cost.

    Args:
        request: A resolved request.
    """
    kind = pipeline_of(request)
    words = [str(request.pipeline)]
    if request.video:
        words.append(f"{request.width}x{request.height}x{request.num_frames}")
    words.append(f"{request.fps:g}fps" if request.video else f"{request.duration_s:g}s")
    if kind.traits.stages > 0:
        words.append(f"s{_evaluations(request)}x{_passes(request)}")
    if kind.traits.stages > 1 and request.stage2_sigmas is not None:
        words.append(f"r{_second_evaluations(request)}")
    if not request.audio:
        words.append("silent")
    for count, what in ((len(request.images), "images"), (len(request.references), "references")):
        if count:
            words.append(f"{count} {what}")
    if is_chained(request):
        words.append(f"in chunks of {request.chain.chunk_frames}")
    return " ".join(words)


def shape_of(request: RenderRequest, files: ModelFiles) -> Shape:
    """The shape of a resolved request.

    Args:
        request: A resolved request.
        files: The model that renders it.
    """
    kind, chained = pipeline_of(request), is_chained(request)
    work: dict[StageName, float] = {}
    if chained:
        # The first stage renders all of it, chunk after chunk.
        chunks = [chunk.request for chunk in plan_chunks(request, files.factors.time)]
        work["stage1"] = sum(sum(_denoising(chunk, files).values()) for chunk in chunks)
    elif kind.traits.stages > 0:
        work |= _denoising(request, files)
    pixels = request.width * request.height * request.num_frames if request.video else 0
    work["decode"] = float(pixels) or request.duration_s
    return Shape(
        name=shape_name(request),
        kind=("video" if request.video else "sound") if kind.traits.stages > 0 else "image",
        work=work,
        batched=not chained and kind.traits.stages > 0,
        file_bytes=_file_bytes(request, pixels),
        latent_bytes=_latent_bytes(request, files) if kind.traits.stages > 0 else 0,
        request=request,
    )


def _denoising(request: RenderRequest, files: ModelFiles) -> dict[StageName, float]:
    """Work of the denoising stages: tokens, times passes, times evaluations."""
    stages = pipeline_of(request).traits.stages
    first = _tokens(request, files, stages) * _passes(request) * _evaluations(request)
    if stages < 2:
        return {"stage1": first}
    return {
        "stage1": first,
        "stage2": _tokens(request, files, 1) * _second_evaluations(request),
    }


def _tokens(request: RenderRequest, files: ModelFiles, downscale: int) -> float:
    """Tokens, each counted with what it attends to."""
    if not request.video:
        return float(_audio_shape(request, files).frames)
    tokens = _video_shape(request, files, downscale).tokens
    return tokens * (1 + tokens / (_WIDTHS_TO_DOUBLE * files.transformer.video_width))


def _passes(request: RenderRequest) -> int:
    """Predictions of one evaluation."""
    guidances = (request.video_guidance, request.audio_guidance)
    guiders = [MultiModalGuider(guidance) for guidance in guidances if guidance]
    if not pipeline_of(request).guided(request):
        return 1
    needed = (
        request.negative_prompt is not None,
        any(guider.needs_perturbed for guider in guiders),
        any(guider.needs_isolated for guider in guiders),
    )
    return 1 + sum(needed)


def _evaluations(request: RenderRequest) -> int:
    """Evaluations of the first stage."""
    if request.steps is not None and request.sigmas is None:
        steps = request.steps
    else:
        steps = len(request.sigmas or DISTILLED_SIGMAS) - 1
    return _with_order(steps, request.sampler)


def _second_evaluations(request: RenderRequest) -> int:
    steps = len(request.stage2_sigmas or STAGE_2_SIGMAS) - 1
    return _with_order(steps, pipeline_of(request).refiner)


def _with_order(steps: int, sampler: str | None) -> int:
    return 2 * steps + 1 if sampler == _SECOND_ORDER else steps


def _file_bytes(request: RenderRequest, pixels: int) -> float:
    if not request.video:
        wav = request.audio_format == "wav"
        return request.duration_s * (_WAV_BYTES_PER_S if wav else _AAC_BYTES_PER_S)
    bits = pixels * _BITS_PER_PIXEL * 2 ** ((_CRF - request.crf) / _HALVING_CRF)
    return bits / 8 + request.audio * request.duration_s * _AAC_BYTES_PER_S


def _latent_bytes(request: RenderRequest, files: ModelFiles) -> int:
    elements = 0
    if request.video:
        video = _video_shape(request, files, 1)
        elements += video.channels * video.tokens
    if request.audio:
        audio = _audio_shape(request, files)
        elements += audio.channels * audio.frames * audio.bins
    return 2 * elements


def _video_shape(request: RenderRequest, files: ModelFiles, downscale: int) -> VideoLatentShape:
    return VideoLatentShape.from_pixels(
        frames=request.num_frames,
        height=request.height // downscale,
        width=request.width // downscale,
        channels=files.video_vae.latent_channels,
        factors=files.factors,
    )


def _audio_shape(request: RenderRequest, files: ModelFiles) -> AudioLatentShape:
    audio = files.audio_vae
    return AudioLatentShape.from_duration(
        request.duration_s,
        channels=audio.network.z_channels,
        bins=audio.latent_bins,
        latents_per_second=audio.latents_per_second,
    )
