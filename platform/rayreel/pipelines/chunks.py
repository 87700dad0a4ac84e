"""How a clip that is longer than one chunk is cut into chunks, and what one hands to the next."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError
from safetensors.torch import load

from rayreel.checkpoints.files import ModelFiles
from rayreel.config.conditions import Chain, Extension
from rayreel.config.request import RenderRequest
from rayreel.errors import MediaError
from rayreel.media.audio import read_soundtrack
from rayreel.media.container import probe
from rayreel.media.files import open_file
from rayreel.media.video import read_last_frames
from rayreel.pipelines.inputs import (
    Handover,
    encode_frames,
    encode_sound,
    read_frames,
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


def resolved_chain(request: RenderRequest, files: ModelFiles) -> Chain:
    """The request's chain with the length of a chunk; the default where it has a single one."""
    time = files.factors.time
    seconds = files.transformer.positional_embedding_max_pos[0]
    longest = request.chain.chunk_frames or int(seconds * request.fps - 1) // time * time + 1
    if request.extend is None and request.num_frames <= longest:
        return Chain()
    return request.chain.model_copy(update={"chunk_frames": longest})


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
        values: dict[str, Any] = {
            "num_frames": frames,
            "seed": ((request.seed or 0) + index) % 2**63,
            "images": tuple(
                image.model_copy(update={"frame": image.frame - made + skip})
                for image in request.images
                if made <= image.frame < made + keep
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
    if request.extend and request.extend.direction == "backward":
        return ("start",) if last and skip == 0 else ()
    ends: tuple[ClipEnd, ...] = ("end",) if last and skip + keep == frames else ()
    return ("start", *ends) if skip == 0 else ends


def _lengths(request: RenderRequest, time_factor: int) -> Iterator[tuple[int, int, int]]:
    """Frames of each chunk, those before the shown ones, and those that are shown."""
    chain, left = request.chain, request.num_frames
    assert chain.chunk_frames is not None, "chained requests are resolved"
    backward = request.extend is not None and request.extend.direction == "backward"
    joins = request.extend is not None
    while left > 0:
        overlap = _overlap(chain, time_factor, backward=backward) if joins else 0
        keep = min(left, chain.chunk_frames - overlap)
        frames = -(-(overlap + keep - 1) // time_factor) * time_factor + 1
        # Backward, the overlap lies behind, and what was rounded up goes first.
        yield frames, frames - overlap - keep if backward else overlap, keep
        left -= keep
        joins = True


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
    count = chain.overlap
    shared_s = _shared(count, files) / last.fps
    # In latent frames of the last chunk's own clock.
    offset = round((last.duration_s - shared_s) * files.audio_vae.latents_per_second)
    sound = latents.audio if new.audio else None
    return Handover(
        video=latents.video[:, -count:], audio=None if sound is None else sound[:, offset:]
    )


def handed_back(files: ModelFiles, latents: Latents, chain: Chain, new: RenderRequest) -> Handover:
    """What the chunk before a finished one takes of it; arguments as of ``handed_over``."""
    assert latents.video is not None, "chains have pictures"
    count = chain.overlap
    sound = latents.audio if new.audio else None
    return Handover(
        video=latents.video[:, 1 : count + 1],
        audio=None if sound is None else sound[:, : _behind(files, count, new)],
        backward=True,
        first=latents.video[:, :1],
    )


def _shared(count: int, files: ModelFiles) -> int:
    """Frames that so many latent frames decode to."""
    return files.factors.time * (count - 1) + 1


def _behind(files: ModelFiles, count: int, new: RenderRequest) -> int:
    """Latent frames of sound from the first shared frame of a chunk to its end."""
    rate = files.audio_vae.latents_per_second
    own_s = (new.num_frames - _shared(count + 1, files)) / new.fps
    return round(new.duration_s * rate) - round(own_s * rate)


def frames_to_go_on_from(request: RenderRequest, files: ModelFiles) -> int:
    """Frames that a clip must have to be made longer."""
    backward = _extension(request).direction == "backward"
    return _shared(request.chain.overlap + backward, files)


def source_handover(ledger: ModelLedger, request: RenderRequest, new: RenderRequest) -> Handover:
    """What the first chunk takes of the clip that is made longer.

    Latents that the clip's run kept are taken as they are; of other clips, frames are encoded.

    Args:
        ledger: For the encoders.
        request: The extension.
        new: Request of its first chunk.

    Raises:
        MediaError: If the clip is too short or cannot be read.
    """
    extend, chain, files = _extension(request), request.chain, ledger.files
    backward = extend.direction == "backward"
    kept = extend.latents is not None
    latents = read_latents(extend.latents) if extend.latents else _encoded(ledger, request, new)
    if backward:
        return handed_back(files, latents, chain, new)
    assert latents.video is not None, "clips that are extended have pictures"
    if not kept:
        return Handover(video=latents.video, audio=latents.audio)
    frames = _shared(latents.video.shape[1], files)
    last = request.model_copy(update={"num_frames": frames})
    return handed_over(files, latents, last, chain, new)


def _encoded(ledger: ModelLedger, request: RenderRequest, new: RenderRequest) -> Latents:
    """Frames at the end of a clip, or at its start, and the sound of the same time."""
    extend, files = _extension(request), ledger.files
    assert extend.path is not None, "clips of runs are located before"
    backward, info = extend.direction == "backward", probe(extend.path)
    count, shared = request.chain.overlap, frames_to_go_on_from(request, files)
    if backward:
        frames = read_frames(extend.path, shared, files.factors.time)
    else:
        frames = read_last_frames(extend.path, shared)
    video = encode_frames(ledger, frames, (request.height, request.width))[0]
    if not request.audio:
        return Latents(video=video, audio=None)
    rate = files.audio_vae.latents_per_second
    start_s = 0.0 if backward else max(0.0, (info.num_frames - shared) / request.fps)
    sound = read_soundtrack(extend.path, start_s=start_s, duration_s=shared / request.fps)
    there = int(sound.waveform.shape[1] / sound.sample_rate_hz * rate)
    wanted = _behind(files, count, new) if backward else round(shared / request.fps * rate)
    return Latents(video=video, audio=encode_sound(ledger, sound, min(there, wanted))[0])


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
