"""Long clips, chunk after chunk: each goes on from the latents of the one before."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from rayreel.checkpoints.text_generator import TextGeneratorFiles
from rayreel.config.request import RenderRequest
from rayreel.media.image import load_image
from rayreel.media.video import read_last_frames, stream_frames
from rayreel.models.video_vae import to_rgb
from rayreel.pipelines.chunks import (
    Chunk,
    ClipEnd,
    handed_back,
    handed_over,
    is_backward,
    plan_chunks,
    source_handover,
)
from rayreel.pipelines.enhance import Enhanced, direct, enhance
from rayreel.pipelines.inputs import EncodedRequest, Handover
from rayreel.pipelines.ledger import ModelLedger
from rayreel.pipelines.phases import contexts, encode, features, texts_of
from rayreel.pipelines.texts import TextStore
from rayreel.types import Latents, TextContext

# Latent frames that are decoded to see the frame at the end of a chunk.
_SEEN = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedChunk:
    """A chunk that was rendered.

    Attributes:
        latents: Of the whole chunk, at full size, on the CPU.
        prompt: What it was rendered from.
        note: What happened to the prompt, if anything.
        reaches: Ends of the clip that the latents reach to the frame.
    """

    latents: Latents
    prompt: str
    note: str | None = None
    reaches: tuple[ClipEnd, ...] = ()


class ChunkStore(Protocol):
    """Keeps the chunks of one clip: a chain that died goes on after the last one that is there."""

    def load(self, index: int) -> FinishedChunk | None:
        """A chunk, or ``None`` if it is not finished."""

    def save(self, index: int, chunk: FinishedChunk) -> None:
        """Keep a chunk."""


class MemoryStore(dict[int, FinishedChunk]):
    """Chunks in memory, for a clip that is rendered in one go."""

    def load(self, index: int) -> FinishedChunk | None:
        """A chunk, or ``None`` if it is not finished."""
        return self.get(index)

    def save(self, index: int, chunk: FinishedChunk) -> None:
        """Keep a chunk."""
        self[index] = chunk


class ChunkPipeline(Protocol):
    """What a chain asks of the pipeline that renders its chunks."""

    ledger: ModelLedger

    def generate(self, batch: Sequence[EncodedRequest]) -> list[Latents]:
        """From noise to latents."""

    def refine(self, batch: Sequence[EncodedRequest], latents: Sequence[Latents]) -> list[Latents]:
        """To finer latents."""


def render_chain(
    pipeline: ChunkPipeline,
    request: RenderRequest,
    store: ChunkStore,
    texts: TextStore | None = None,
) -> Iterator[FinishedChunk]:
    """Render what is missing of a chained request's chunks into a store.

    What is held does not grow with the number of chunks.

    Args:
        pipeline: Renders single chunks.
        request: Resolved.
        store: Of this clip.
        texts: Where texts are kept, encoded, and in its records those that were written.

    Yields:
        Every chunk in the order of rendering, when it is in the store.
    """
    files = pipeline.ledger.files
    known: dict[str, TextContext] = {}
    handover: Handover | None = None
    goal, last = request.prompt, None
    for chunk, after in _neighbours(plan_chunks(request, files.factors.time)):
        done = store.load(chunk.index)
        if done is None:
            if chunk.index == 0 and request.extend:
                handover = source_handover(pipeline.ledger, request, chunk.request)
            written = _prompt(pipeline.ledger, request, chunk, goal, last, texts)
            asked = chunk.request.model_copy(update={"prompt": written.prompt})
            known = _contexts(pipeline.ledger, asked, known, texts)
            (encoded,) = encode(pipeline.ledger, [asked], known)
            batch = [replace(encoded, handover=handover)]
            latents = pipeline.refine(batch, pipeline.generate(batch))[0]
            done = FinishedChunk(
                latents=_packed(on_cpu(latents)),
                prompt=written.prompt,
                note=written.note,
                reaches=chunk.reaches,
            )
            store.save(chunk.index, done)
        if chunk.index == 0 and request.enhance and not request.extend:
            # What the first chunk was written out to is what the others must stay true to.
            goal = done.prompt
        yield done
        last = done
        if after:
            handover = _handover(request, pipeline.ledger, done.latents, chunk, after)


def on_cpu(latents: Latents) -> Latents:
    """The same latents in the host's memory."""
    return Latents(
        video=None if latents.video is None else latents.video.cpu(),
        audio=None if latents.audio is None else latents.audio.cpu(),
    )


def _packed(latents: Latents) -> Latents:
    """The same latents, laid out as in a file.

    What a chain goes on from after a crash comes from there, and other layouts are rounded
    otherwise.
    """
    return Latents(
        video=None if latents.video is None else latents.video.contiguous(),
        audio=None if latents.audio is None else latents.audio.contiguous(),
    )


def _neighbours(chunks: Sequence[Chunk]) -> list[tuple[Chunk, Chunk | None]]:
    return list(zip(chunks, [*chunks[1:], None], strict=True))


def _handover(
    request: RenderRequest, ledger: ModelLedger, latents: Latents, chunk: Chunk, after: Chunk
) -> Handover:
    if is_backward(request):
        return handed_back(ledger.files, latents, request.chain, after.request)
    return handed_over(ledger.files, latents, chunk.request, request.chain, after.request)


def _contexts(
    ledger: ModelLedger,
    request: RenderRequest,
    known: Mapping[str, TextContext],
    store: TextStore | None,
) -> dict[str, TextContext]:
    """The texts of a chunk by what they say: the next one mostly says the same.

    Each is encoded alone. A chain that goes on after a crash has other texts to encode together
    than one that nothing stopped, and in another batch they would be rounded otherwise.
    """
    return {
        text: known[text] if text in known else contexts(ledger, features(ledger, [text], store))[0]
        for text in texts_of([request])
    }


def _prompt(
    ledger: ModelLedger,
    request: RenderRequest,
    chunk: Chunk,
    goal: str,
    last: FinishedChunk | None,
    texts: TextStore | None,
) -> Enhanced:
    """The prompt of a chunk: the request's, or one that is written for it."""
    if not request.enhance:
        return Enhanced(prompt=request.prompt)
    seed, store = chunk.request.seed or 0, texts.records if texts else None
    if last is None and not request.extend:
        return enhance(ledger, goal, seed=seed, image=first_image(request), store=store)
    return direct(
        ledger,
        goal=goal,
        previous=last.prompt if last else goal,
        seconds=round(chunk.keep / request.fps, 2),
        seed=seed,
        image=_neighbour(ledger, request, last),
        backward=is_backward(request),
        store=store,
    )


def first_image(request: RenderRequest) -> Tensor | None:
    """The image that a clip starts with, RGB ``uint8`` ``(H, W, 3)``; raises ``MediaError``."""
    first = next((image for image in request.images if image.frame == 0), None)
    return None if first is None else load_image(first.path)


@torch.inference_mode()
def _neighbour(
    ledger: ModelLedger, request: RenderRequest, last: FinishedChunk | None
) -> Tensor | None:
    """The frame that a chunk goes on from, for a writer that can look at it."""
    if TextGeneratorFiles(ledger.files.text_encoder).cannot_see:
        return None
    backward = is_backward(request)
    if last is None:
        assert request.extend is not None, "other first chunks go on from nothing"
        path = str(request.extend.path)
        return next(stream_frames(path, stop=1))[0] if backward else read_last_frames(path, 1)[0]
    assert last.latents.video is not None, "chains have pictures"
    seen = slice(_SEEN) if backward else slice(-_SEEN, None)
    latent = last.latents.video[None, :, seen].to(ledger.device, ledger.dtype)
    with ledger.video_decoder() as decoder:
        return to_rgb(decoder(latent))[0, 0 if backward else -1].cpu()
