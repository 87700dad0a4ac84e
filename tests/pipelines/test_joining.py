"""Chunks as one clip: every frame and sample once, in its place, and no click at a joint.

The decoder of these tests counts: a latent frame says which one of the clip it is, and so do the
frames that it is decoded to; what a sample says is its time, or which chunk it is of.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
import torch

from rayreel.media.mux import write_clip
from rayreel.pipelines.chain import FinishedChunk, MemoryStore
from rayreel.pipelines.chunks import is_backward, plan_chunks
from rayreel.pipelines.joining import FADE_S, join_chunks
from rayreel.pipelines.ledger import ModelLedger
from rayreel.pipelines.timeline import CONTEXT
from rayreel.types import Audio, Clip, ClipStream, Latents
from tests.media.samples import grey_levels, write_video
from tests.pipelines.small import small

RATE = 24000
LAST = 1000
"""Latent frame of the clip that a backward extension is rendered from."""


@dataclass
class CountingPipeline:
    """Decodes latents to numbers; keeps how many latent frames it decoded at once."""

    ledger: ModelLedger

    def __post_init__(self):
        self.windows: list[int] = []

    def decode(self, request, latents):
        del request
        audio = None if latents.audio is None else sounding(latents.audio)
        return ClipStream(frames=self._frames(latents.video), num_frames=0, fps=24, audio=audio)

    def _frames(self, video):
        if video is None:
            return
        numbers = video.flatten().int()
        assert numbers.diff().eq(1).all(), "windows are read without gaps"
        self.windows.append(len(numbers))
        last = numbers * 8
        yield picture(last[:1])
        for frame in last[1:]:
            yield picture(torch.arange(int(frame) - 7, int(frame) + 1))


def sounding(latent):
    """The first value of a latent, and its first slope from there on; it ends before its time."""
    value, slope, numbers = latent[..., 0]
    assert numbers.diff().eq(1).all(), "sounds are read without gaps"
    times = torch.arange((4 * len(numbers) - 3) * 240, dtype=torch.float64) / RATE
    return Audio(waveform=(value[0] + slope[0] * times).float().expand(2, -1), sample_rate_hz=RATE)


def picture(numbers):
    """Frames that say their number."""
    pixels = torch.stack([numbers // 256, numbers % 256, numbers * 0], dim=-1)
    return pixels.to(torch.uint8)[:, None, None]


def numbers(frames):
    return (frames[:, 0, 0, 0].int() * 256 + frames[:, 0, 0, 1].int()).tolist()


def first_latents(chunks, overlap, *, backward):
    """Which latent frame of the clip each chunk starts with."""
    firsts: list[int] = []
    stop = 0
    for chunk in chunks:
        count = (chunk.request.num_frames - 1) // 8 + 1
        if not backward:
            firsts.append(stop - overlap if firsts else 0)
        elif not firsts:
            firsts.append(LAST - count)
        else:
            # Its last ones are those behind the single one that the later chunk starts with.
            firsts.append(firsts[-1] + 1 - (count - overlap))
        stop = firsts[-1] + count
    return firsts


def first_sounds(chunks, overlap, *, backward):
    """The same for latent frames of sound."""
    firsts = [0]
    for chunk, later in pairwise(chunks):
        earlier = (later if backward else chunk).request
        shared = 8 * overlap + 1 if backward else 8 * (overlap - 1) + 1
        own = round((earlier.num_frames - shared) / earlier.fps * 25)
        firsts.append(firsts[-1] + (-own if backward else own))
    return firsts


def stored(request, make_sound=None):
    """All chunks of a request."""
    chunks, backward = plan_chunks(request, 8), is_backward(request)
    firsts = first_latents(chunks, request.chain.overlap, backward=backward)
    sounds = first_sounds(chunks, request.chain.overlap, backward=backward)
    store = MemoryStore()
    for chunk, first, number in zip(chunks, firsts, sounds, strict=True):
        count = (chunk.request.num_frames - 1) // 8 + 1
        video = torch.arange(first, first + count).float()[None, :, None, None]
        audio = torch.zeros(3, round(chunk.request.duration_s * 25), 1, dtype=torch.float64)
        audio[2, :, 0] = torch.arange(number, number + audio.shape[1])
        if make_sound:
            audio[0], audio[1] = make_sound(chunk)
        latents = Latents(video=video, audio=audio if request.audio else None)
        store.save(chunk.index, FinishedChunk(latents=latents, prompt=""))
    return store, list(zip(chunks, firsts, strict=True))


def asked(num_frames, chunk_frames, overlap, trim="exact", **fields):
    chain = {"chunk_frames": chunk_frames, "overlap": overlap, "trim": trim}
    return small(num_frames=num_frames, chain=chain, **fields)


def joined(ledger, request, make_sound=None):
    """The clip of a request, the pipeline that decoded it and the chunks."""
    pipeline = CountingPipeline(ledger)
    store, chunks = stored(request, make_sound)
    stream = join_chunks(pipeline, request, store)
    clip = stream.collect()
    assert len(clip.frames) == stream.num_frames
    return clip, pipeline, chunks


ROWS = [(33, 33, 2), (161, 33, 1), (121, 33, 2), (97, 33, 3), (121, 33, 2, "whole"), (97, 97, 4)]


@pytest.mark.parametrize("row", ROWS)
def test_frames_of_all_chunks_are_one_sequence(ledger, row):
    clip, _, chunks = joined(ledger, asked(*row, audio=False))
    expected = [8 * first + chunk.skip + i for chunk, first in chunks for i in range(chunk.keep)]
    assert numbers(clip.frames) == expected
    if len(row) == 3:
        assert expected == [*range(row[0])]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A clip of forty frames, and how it looks when it is read."""
    path = tmp_path_factory.mktemp("source") / "clip.mkv"
    frames = grey_levels(40, 16, 32)
    write_video(path, frames)
    return str(path), frames


@pytest.mark.parametrize("num_frames", [1, 16, 24, 45, 72])
@pytest.mark.parametrize("overlap", [1, 2])
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_frames_are_added_to_a_clip_that_stays_as_it_is(
    ledger, source, direction, overlap, num_frames
):
    path, theirs = source
    extend = {"path": path, "direction": direction}
    request = asked(num_frames, 33, overlap, extend=extend, audio=False)
    store, planned = stored(request)
    chunks, firsts = zip(*planned, strict=True)
    backward = direction == "backward"
    frames = join_chunks(Scaled(ledger), request, store).collect().frames
    assert len(frames) == 40 + num_frames
    old, new = (
        (frames[num_frames:], frames[:num_frames]) if backward else (frames[:40], frames[40:])
    )
    assert torch.equal(old, theirs)
    start = 8 * firsts[-1] + chunks[-1].skip if backward else chunks[0].skip
    assert numbers(new) == [*range(start, start + num_frames)]
    if backward:
        # The next one would be the first of the old frames.
        assert start + num_frames == 8 * (
            firsts[0] + (chunks[0].request.num_frames - 1) // 8 - overlap
        )


class Scaled(CountingPipeline):
    """At the size of the clip that is made longer."""

    def _frames(self, video):
        for frames in super()._frames(video):
            yield frames.expand(-1, 16, 32, -1)


def test_a_stretch_is_decoded_with_its_neighbours_and_no_more(ledger):
    _, pipeline, chunks = joined(ledger, asked(481, 81, 2, audio=False))
    most = max((chunk.request.num_frames - 1) // 8 + 1 for chunk, _ in chunks)
    assert len(pipeline.windows) == len(chunks)
    assert max(pipeline.windows) == most - 2 + 2 * CONTEXT


@pytest.mark.parametrize("fps", [12, 23.976, 24, 25, 29.97, 60])
@pytest.mark.parametrize("row", [(161, 33, 1), (121, 33, 2), (121, 33, 2, "whole"), (97, 33, 3)])
def test_sound_lasts_as_long_as_the_frames_to_the_sample(ledger, row, fps):
    clip, _, _ = joined(ledger, asked(*row, fps=fps))
    assert len(clip.frames) == row[0]
    assert clip.audio.waveform.shape == (2, round(row[0] * RATE / fps))


def clock(request):
    """Sound that says its time in the clip."""

    def make(chunk):
        shown = sum(keep for _, _, keep in before(request, chunk))
        return (shown - chunk.skip) / request.fps, 1.0

    return make


def before(request, chunk):
    chunks = plan_chunks(request, 8)
    return [(c.request, c.skip, c.keep) for c in chunks[: chunk.index]]


@pytest.mark.parametrize("fps", [23.976, 24, 60])
@pytest.mark.parametrize("row", ROWS)
def test_sound_stays_with_the_frames(ledger, row, fps):
    """Off by less than a sample at every joint, up to where the sound of the last chunk ends."""
    request = asked(*row, fps=fps)
    clip, _, _ = joined(ledger, request, clock(request))
    times = torch.arange(clip.audio.waveform.shape[1]) / RATE
    heard = times < request.duration_s - 0.07
    assert (clip.audio.waveform - times)[:, heard].abs().max() < 1 / RATE


def opposite(chunk):
    """The worst of joints: full scale on one side, and the opposite on the other."""
    return 1.0 - 2 * (chunk.index % 2), 0.0


@pytest.mark.parametrize("fps", [23.976, 24, 60])
@pytest.mark.parametrize("row", ROWS)
def test_joints_and_ends_do_not_click(ledger, row, fps):
    clip, _, chunks = joined(ledger, asked(*row, fps=fps), opposite)
    waveform = clip.audio.waveform[0]
    fade = round(FADE_S * RATE)
    assert waveform.diff().abs().max() < 1.01 * 2 / (fade + 1)
    starts = [sum(chunk.keep for chunk, _ in chunks[:i]) for i in range(1, len(chunks))]
    for index, start in enumerate(starts):
        joint = round(start * RATE / fps)
        assert waveform[joint - fade - 1] == 1 - 2 * (index % 2)
        assert waveform[joint] == 1 - 2 * ((index + 1) % 2)


def write_sounding(path, num_frames, sound, fps=24.0):
    frames = grey_levels(num_frames, 64, 64)
    audio = Audio(waveform=sound, sample_rate_hz=RATE)
    write_clip(path, Clip(frames=frames, fps=fps, audio=audio).stream())
    return str(path)


def tone(num_frames, fps=24.0):
    times = torch.arange(round(num_frames * RATE / fps)) / RATE
    return 0.5 * torch.sin(2 * torch.pi * 200 * times).expand(2, -1)


def sound_of(ledger, request):
    stream: Any = join_chunks(CountingPipeline(ledger), request, stored(request)[0])
    waveform = stream.audio.collect().waveform
    stream.close()
    return waveform


@pytest.mark.parametrize("seconds", [0.3, 40 / 24])
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_the_sound_of_a_clip_stays_in_its_place(ledger, tmp_path, direction, seconds):
    """It turns into what was made, which is silent here, where the frames do or where it ends."""
    kept = tone(40)[:, : round(seconds * RATE)]
    path = write_sounding(tmp_path / "clip.mp4", 40, kept)
    request = asked(48, 33, 2, extend={"path": path, "direction": direction})
    waveform = sound_of(ledger, request)
    assert waveform.shape == (2, 88 * RATE // 24)
    begin = 48 * RATE // 24 if direction == "backward" else 0
    # Without the fades, and what AAC does to the ends.
    inner = waveform[:, begin + 960 : begin + kept.shape[1] - 960]
    assert (inner - kept[:, 960:-960]).abs().max() < 0.05
    outside = [waveform[:, : max(0, begin - 240)], waveform[:, begin + 40 * RATE // 24 :]]
    assert torch.cat(outside, dim=1).count_nonzero() == 0
