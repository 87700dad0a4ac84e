"""How a clip that is longer than one chunk is cut into chunks, and what one hands to the next."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from rayreel.checkpoints.files import ModelFiles
from rayreel.config.conditions import Chain, Extension
from rayreel.config.request import RenderRequest
from rayreel.errors import MediaError
from rayreel.media.audio import read_audio
from rayreel.media.container import probe
from rayreel.media.files import open_file
from rayreel.media.video import read_last_frames, stream_frames
from rayreel.pipelines.inputs import (
    Handover,
    encode_frames,
    encode_sound,
)
from rayreel.pipelines.ledger import ModelLedger
from rayreel.types import Latents

ClipEnd = Literal["start", "end"]

STILL_NEGATIVE = "static, freeze, loop, pause, still image, motionless, blurred, morphing"
"""What later chunks must not be either: they tend to stand still where they go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A part of a long clip that is rendered on its own.

    Attributes:
        index: Order of rendering, from 0; of a backward extension the last one comes first.
        request: What it renders.
        skip: Its frames before those that the clip shows.
        keep: Frames that the clip shows.
        reaches: Ends of the clip that its latents reach to the frame.
    """

    index: int
    request: RenderRequest
    skip: int
    keep: int
    reaches: tuple[ClipEnd, ...]


def is_chained(request: RenderRequest) -> bool:
    """Whether a resolved request is rendered in chunks."""
    longest = request.chain.chunk_frames
    return request.extend is not None or (longest is not None and request.num_frames > longest)


def is_backward(request: RenderRequest) -> bool:
    """Whether a request is rendered from its last chunk to its first."""
    return request.extend is not None and request.extend.direction == "backward"


def resolved_chain(request: RenderRequest, files: ModelFiles) -> Chain:
    """The request's chain with the length of a chunk, and without what plays no part."""
    time = files.factors.time
    seconds = files.transformer.positional_embedding_max_pos[0]
    longest = request.chain.chunk_frames or int(seconds * request.fps - 1) // time * time + 1
    if request.extend is None and request.num_frames <= longest:
        return Chain()
    chain, backward = request.chain, is_backward(request)
    if backward:
        chain = chain.model_copy(update={"trim": "exact"})
    if request.extend:
        # What is added in one chunk is the same however long that might have been.
        alone = _rounded_up(_overlap(chain, time, backward=backward) + request.num_frames, time)
        longest = min(longest, max(alone, shortest_chunk(chain, time, backward=backward)))
    return chain.model_copy(update={"chunk_frames": longest})


def num_chunks(request: RenderRequest, time_factor: int) -> int:
    """Chunks of a resolved request, 1 for one that is rendered in a piece."""
    return len(plan_chunks(request, time_factor)) if is_chained(request) else 1


def plan_chunks(request: RenderRequest, time_factor: int) -> list[Chunk]:
    """The chunks of a resolved request, in the order of rendering.

    Args:
        request: A chained one.
        time_factor: Pixel frames per latent frame.
    """
    chunks: list[Chunk] = []
    made = 0
    for frames, skip, keep in _lengths(request, time_factor):
        index = len(chunks)
        # What it shows first, in frames of all that is made.
        start = request.num_frames - made - keep if is_backward(request) else made
        values: dict[str, Any] = {
            "num_frames": frames,
            "seed": ((request.seed or 0) + index) % 2**63,
            "images": tuple(
                image.model_copy(update={"frame": image.frame - start + skip})
                for image in request.images
                if start <= image.frame < start + keep
            ),
            "extend": None,
            "chain": Chain(),
            "enhance": False,
        }
        if request.negative_prompt is not None and (index or request.extend):
            values["negative_prompt"] = f"{request.negative_prompt}, {STILL_NEGATIVE}"
        chunk = request.model_copy(update=values)
        made += keep
        chunks.append(
            Chunk(
                index=index,
                request=chunk,
                skip=skip,
                keep=keep,
                reaches=_reached(request, frames, skip, keep, last=made == request.num_frames),
            )
        )
    return chunks


def _reached(
    request: RenderRequest, frames: int, skip: int, keep: int, *, last: bool
) -> tuple[ClipEnd, ...]:
    if is_backward(request):
        return ("start",) if last and skip == 0 else ()
    ends: tuple[ClipEnd, ...] = ("end",) if last and skip + keep == frames else ()
    return ("start", *ends) if skip == 0 else ends


def _lengths(request: RenderRequest, time_factor: int) -> Iterator[tuple[int, int, int]]:
    """Frames of each chunk, those before the shown ones, and those that are shown."""
    chain, left = request.chain, request.num_frames
    assert chain.chunk_frames is not None, "chained requests are resolved"
    backward = is_backward(request)
    joins = request.extend is not None
    while left > 0:
        overlap = _overlap(chain, time_factor, backward=backward) if joins else 0
        keep = min(left, chain.chunk_frames - overlap)
        frames = _rounded_up(overlap + keep, time_factor)
        # Backward, the overlap lies behind, and what was rounded up goes first.
        yield frames, frames - overlap - keep if backward else overlap, keep
        left -= keep
        joins = True


def _rounded_up(frames: int, time_factor: int) -> int:
    """The least number of frames that the video VAE takes and that holds so many."""
    return -(-(frames - 1) // time_factor) * time_factor + 1


def _overlap(chain: Chain, time_factor: int, *, backward: bool) -> int:
    """Frames that a chunk shares with its neighbour, or is cut by."""
    return time_factor * chain.overlap + 1 if backward else chain.trimmed(time_factor)


def shortest_chunk(chain: Chain, time_factor: int, *, backward: bool) -> int:
    """Frames that a chunk must have to show any of its own."""
    return time_factor * (_overlap(chain, time_factor, backward=backward) // time_factor + 1) + 1


def handed_over(
    files: ModelFiles, latents: Latents, last: RenderRequest, chain: Chain, new: RenderRequest
) -> Handover:
    """What the next chunk takes of a finished one before it.

    Args:
        files: The model.
        latents: Of the finished chunk, at full size.
        last: Its request.
        chain: Says how many latent frames.
        new: Request of the next chunk.
    """
    assert latents.video is not None, "chains have pictures"
    sound = latents.audio if new.audio else None
    if sound is not None:
        # What the last chunk has of it after all that is its own.
        sound = sound[:, sound.shape[1] - shared_sound(files, chain, last, backward=False) :]
    return Handover(video=latents.video[:, -chain.overlap :], audio=sound)


def handed_back(files: ModelFiles, latents: Latents, chain: Chain, new: RenderRequest) -> Handover:
    """What the chunk before a finished one takes of it; arguments as of ``handed_over``."""
    assert latents.video is not None, "chains have pictures"
    sound = latents.audio if new.audio else None
    if sound is not None:
        sound = sound[:, : shared_sound(files, chain, new, backward=True)]
    return Handover(
        video=latents.video[:, 1 : chain.overlap + 1],
        audio=sound,
        backward=True,
        first=latents.video[:, :1],
    )


def shared_sound(files: ModelFiles, chain: Chain, earlier: RenderRequest, *, backward: bool) -> int:
    """Latent frames of sound that a chunk shares with the one after it in time.

    Args:
        files: The model.
        chain: Says how many latent frames of the picture are handed on.
        earlier: Request of the chunk.
        backward: Whether it was rendered after the other one.
    """
    rate = files.audio_vae.latents_per_second
    own_s = (earlier.num_frames - _shared(chain.overlap + backward, files)) / earlier.fps
    return round(earlier.duration_s * rate) - round(own_s * rate)


def _shared(count: int, files: ModelFiles) -> int:
    """Frames that so many latent frames decode to."""
    return files.factors.time * (count - 1) + 1


def frames_to_go_on_from(request: RenderRequest, files: ModelFiles) -> int:
    """Frames that a clip must have to be made longer."""
    return _shared(request.chain.overlap + is_backward(request), files)


def source_handover(ledger: ModelLedger, request: RenderRequest, new: RenderRequest) -> Handover:
    """What the first chunk takes of the clip that is made longer.

    Latents that the clip's run kept are taken as they are; of other clips, frames are encoded.

    Args:
        ledger: For the encoders.
        request: The extension.
        new: Request of its first chunk.

    Raises:
        MediaError: If the clip, or what was kept of it, is too short or cannot be read.
    """
    extend, chain, files = _extension(request), request.chain, ledger.files
    latents = read_latents(extend.latents) if extend.latents else _encoded(ledger, request, new)
    needed = chain.overlap + is_backward(request)
    there = 0 if latents.video is None else latents.video.shape[1]
    if latents.video is None or there < needed:
        raise MediaError(
            f"{extend.latents or extend.path} has {there} latent frames; expected at least "
            f"{needed} to hand {chain.overlap} on; nearest is a smaller chain.overlap"
        )
    if is_backward(request):
        return handed_back(files, latents, chain, new)
    if not extend.latents:
        return Handover(video=latents.video, audio=latents.audio)
    frames = _shared(latents.video.shape[1], files)
    last = request.model_copy(update={"num_frames": frames})
    return handed_over(files, latents, last, chain, new)


def _encoded(ledger: ModelLedger, request: RenderRequest, new: RenderRequest) -> Latents:
    """Frames at the end of a clip, or at its start, and the sound of the same time."""
    extend, files = _extension(request), ledger.files
    assert extend.path is not None, "clips of runs are located before"
    shared = frames_to_go_on_from(request, files)
    frames = (
        stream_frames(extend.path, stop=shared)
        if is_backward(request)
        else read_last_frames(extend.path, shared)
    )
    video = encode_frames(ledger, frames, (request.height, request.width))[0]
    sound = _encoded_sound(ledger, request, new) if request.audio else None
    return Latents(video=video, audio=sound)


def _encoded_sound(
    ledger: ModelLedger, request: RenderRequest, new: RenderRequest
) -> Tensor | None:
    """The sound of the frames that are shared; ``None`` where the clip's ends before."""
    extend, files = _extension(request), ledger.files
    assert extend.path is not None, "clips of runs are located before"
    shared, rate = frames_to_go_on_from(request, files), files.audio_vae.latents_per_second
    before = 0 if is_backward(request) else probe(extend.path).num_frames - shared
    duration_s = shared / request.fps
    sound = read_audio(extend.path, start_s=max(0, before) / request.fps, max_duration_s=duration_s)
    if sound is None:
        return None
    if is_backward(request):
        # It is placed by its end: silence stands for what the clip lacks of it.
        count = shared_sound(files, request.chain, new, backward=True)
        missing = round(duration_s * sound.sample_rate_hz) - sound.waveform.shape[1]
        sound = replace(sound, waveform=F.pad(sound.waveform, (0, max(0, missing))))
    else:
        there = int(sound.waveform.shape[1] / sound.sample_rate_hz * rate)
        count = min(there, round(duration_s * rate))
    return encode_sound(ledger, sound, count)[0] if count else None


def read_latents(path: str | Path) -> Latents:
    """Latents of a chunk as a run keeps them; raises ``MediaError``."""
    try:
        with open_file(path) as file:
            tensors = load(file.read())
    except (OSError, SafetensorError) as error:
        raise MediaError(f"cannot read latents {path}: {error}") from error
    return Latents(video=tensors.get("video"), audio=tensors.get("audio"))


def _extension(request: RenderRequest) -> Extension:
    assert request.extend is not None, "only extensions have a source"
    return request.extend
