"""Long clips of the tiny model: nothing is seen of a joint, and nothing grows with the chunks."""

import os
import subprocess
import sys
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from rayreel.conditioning.keyframes import Keyframe
from rayreel.errors import MediaError
from rayreel.media.mux import write_clip
from rayreel.media.video import read_clip, read_last_frames
from rayreel.models.tiling import TileSizeConfig
from rayreel.pipelines import PIPELINE_CLASSES, Distilled, OneStage, TwoStage, conditions, phases
from rayreel.pipelines.chain import FinishedChunk, MemoryStore, render_chain
from rayreel.pipelines.chunks import is_backward, plan_chunks, shared_sound, source_handover
from rayreel.pipelines.decoding import decode
from rayreel.pipelines.inputs import EncodedRequest, Handover, encode_frames
from rayreel.pipelines.joining import join_chunks, neighbours
from rayreel.pipelines.resolve import resolve
from rayreel.pipelines.sources import read_sources
from rayreel.pipelines.states import video_target
from rayreel.pipelines.timeline import backward_stretches, decode_stretches, forward_stretches
from rayreel.types import Latents
from tests.memory_tracker import MemoryTracker
from tests.pipelines.small import PIPELINE_NAMES, small

CHUNK = 33
FRAMES = {1: 161, 2: 129, 3: 97}
"""Of five chunks, by the latent frames that each hands on."""


class Chained:
    """A long clip and the chunks that it is made of."""

    def __init__(self, ledger, name, **fields):
        kind: Any = PIPELINE_CLASSES[name]
        size = {"width": 64, "height": 64, "pipeline": name}
        request = read_sources(small(**size, **fields), ledger.files).request
        self.request = resolve(request, ledger.files, kind)
        self.pipeline = kind(ledger)
        self.chunks = plan_chunks(self.request, 8)
        self.store = MemoryStore()
        for _ in render_chain(self.pipeline, self.request, self.store):
            pass
        self.clip = join_chunks(self.pipeline, self.request, self.store).collect()

    @property
    def latents(self) -> Any:
        return [self.store[chunk.index].latents for chunk in self.chunks]

    @property
    def joints(self):
        """Frames of the clip that a chunk ends with."""
        return [sum(c.keep for c in self.chunks[: i + 1]) - 1 for i in range(len(self.chunks) - 1)]


@pytest.fixture(scope="module")
def chained(ledger):
    """Clips of five chunks, each made once."""

    @cache
    def render(name, overlap):
        chain = {"chunk_frames": CHUNK, "overlap": overlap}
        return Chained(ledger, name, num_frames=FRAMES[overlap], chain=chain)

    return render


def differences(frames):
    """How far each frame is from the one before it, in mean levels."""
    return frames.float().diff(dim=0).abs().mean(dim=(1, 2, 3))


@pytest.mark.parametrize("overlap", FRAMES)
@pytest.mark.parametrize("name", PIPELINE_NAMES)
def test_frames_go_on_over_joints_as_within_chunks(chained, name, overlap):
    clip = chained(name, overlap)
    assert len(clip.joints) == 4
    steps = differences(clip.clip.frames)
    within = torch.ones_like(steps, dtype=torch.bool)
    within[clip.joints] = False
    assert steps[clip.joints].max() <= steps[within].max()


@pytest.mark.parametrize("name", ["one_stage", "two_stage"])
def test_chunks_that_nothing_is_handed_to_do_not_fit_together(chained, name):
    """The measure of the test above does tell the difference."""
    clip = chained(name, 2)
    alone = [clip.pipeline(chunk.request).frames for chunk in clip.chunks]
    joints = [
        differences(torch.stack([last[-1], new[chunk.skip]]))
        for chunk, (last, new) in zip(clip.chunks[1:], pairwise(alone), strict=True)
    ]
    assert max(joints) > differences(clip.clip.frames).max()


@pytest.mark.parametrize("overlap", FRAMES)
@pytest.mark.parametrize("name", PIPELINE_NAMES)
def test_a_chunk_starts_with_what_the_last_one_ends_with(chained, name, overlap):
    clip = chained(name, overlap)
    files = clip.pipeline.ledger.files
    for chunk, last, new in zip(clip.chunks, clip.latents, clip.latents[1:], strict=False):
        assert torch.equal(new.video[:, :overlap], last.video[:, -overlap:])
        count = shared_sound(files, clip.request.chain, chunk.request, backward=False)
        assert abs(count - (8 * (overlap - 1) + 1) / 24 * 25) < 1
        assert torch.equal(new.audio[:, :count], last.audio[:, -count:])
        assert not torch.equal(new.video[:, overlap:], last.video[:, overlap:])


def as_one(clip):
    """The frames of a chain by one decoder call, and by one for each stretch: no tiles at all."""

    def alone(request, latents):
        return decode(clip.pipeline.ledger, request, latents, tiling=TileSizeConfig.whole())

    overlap, backward = clip.request.chain.overlap, is_backward(clip.request)
    beside = neighbours(clip.request)
    order = backward_stretches if backward else forward_stretches
    stretches = order(clip.chunks, overlap, 8, beside)
    own = [clip.latents[s.chunk.index].video[:, s.start : s.stop] for s in stretches]
    parts = [part for part in (beside.before, *own, beside.after) if part is not None]
    whole = alone(clip.request, Latents(video=torch.cat(parts, dim=1), audio=None))
    frames = decode_stretches(alone, stretches, clip.store, 8, beside)
    return whole.collect().frames, torch.cat(list(frames))


@pytest.mark.parametrize("overlap", FRAMES)
@pytest.mark.parametrize("name", PIPELINE_NAMES)
def test_frames_are_those_of_one_sequence_of_latents(chained, name, overlap):
    """Differs by one level in at most two percent of all values."""
    whole, parts = as_one(chained(name, overlap))
    assert len(parts) == FRAMES[overlap]
    difference = (whole.int() - parts.int()).abs()
    assert difference.max() <= 1
    assert difference.float().mean() < 0.02


@pytest.mark.parametrize(("fps", "overlap"), [(23.976, 2), (25, 1), (60, 1)])
def test_frames_and_sound_are_as_long_as_asked(ledger, fps, overlap):
    """At 60 frames a second, a single frame is too short for any sound to be handed on."""
    chain = {"chunk_frames": 25, "overlap": overlap}
    clip: Any = Chained(ledger, "distilled", num_frames=57, fps=fps, chain=chain).clip
    assert clip.frames.shape == (57, 64, 64, 3)
    assert clip.audio.waveform.shape == (2, round(57 * 24000 / fps))


def test_a_silent_chain_has_no_sound(ledger):
    clip = Chained(ledger, "one_stage", num_frames=33, audio=False, chain={"chunk_frames": 25})
    assert clip.clip.audio is None
    assert len(clip.clip.frames) == 33


@pytest.mark.parametrize("kind", [TwoStage, Distilled])
def test_the_first_stage_is_given_smaller_latents(ledger, kind):
    """Half of both sides: the mean of four."""
    pipeline = kind(ledger)
    request = resolve(small(num_frames=33, audio=False), ledger.files, kind)
    video = torch.randn(16, 2, 2, 4)
    (encoded,) = phases.encode(ledger, [request])
    encoded = EncodedRequest(
        request=request,
        context=encoded.context,
        negative=encoded.negative,
        handover=Handover(video=video, audio=None),
    )
    first: Any = pipeline.generate([encoded])[0].video
    assert torch.allclose(first[:, :2], F.avg_pool2d(video, 2), atol=1e-6)
    second: Any = pipeline.refine([encoded], [Latents(video=first, audio=None)])[0].video
    assert torch.equal(second[:, :2], video)


@pytest.fixture(scope="module")
def source(ledger, tmp_path_factory):
    """A clip with its file and its latents."""
    folder = tmp_path_factory.mktemp("source")
    request = small(width=64, height=64, num_frames=33, pipeline="one_stage", seed=9)
    pipeline = OneStage(ledger)
    resolved = resolve(request, ledger.files, OneStage)
    (latents,) = pipeline.generate(phases.encode(ledger, [resolved]))
    write_clip(folder / "clip.mp4", pipeline.decode(resolved, latents), crf=0)
    tensors: Any = {"video": latents.video, "audio": latents.audio}
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(tensors, folder / "clip.safetensors")
    return str(folder / "clip.mp4"), str(folder / "clip.safetensors"), tensors


def extended(ledger, source, direction, *, kept, name="distilled", **fields):
    path, latents, _ = source
    extend = {"path": path, "direction": direction, "latents": latents if kept else None}
    chain = {"chunk_frames": CHUNK, **fields.pop("chain", {})}
    return Chained(ledger, name, extend=extend, chain=chain, **{"num_frames": 40, **fields})


@pytest.mark.parametrize("kept", [True, False], ids=["latents", "frames"])
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_clip_that_is_made_longer_stays_as_it_is(ledger, source, direction, kept):
    clip = extended(ledger, source, direction, kept=kept).clip
    theirs = read_clip(source[0]).frames
    assert clip.frames.shape == (73, 64, 64, 3)
    old = clip.frames[40:] if direction == "backward" else clip.frames[:33]
    assert torch.equal(old, theirs)
    assert clip.audio.waveform.shape == (2, 73000)
    new = clip.frames[:40] if direction == "backward" else clip.frames[33:]
    assert differences(new).min() > 0


@pytest.mark.parametrize("name", PIPELINE_NAMES)
def test_a_clip_goes_on_from_the_latents_that_were_kept_of_it(ledger, source, name):
    first = extended(ledger, source, "forward", kept=True, name=name).latents[0]
    kept = source[2]
    assert torch.equal(first.video[:, :2], kept["video"][:, -2:])
    assert torch.equal(first.audio[:, :9], kept["audio"][:, -9:])


def test_a_clip_without_latents_goes_on_from_its_frames(ledger, source):
    first = extended(ledger, source, "forward", kept=False).latents[0]
    frames = encode_frames(ledger, read_last_frames(source[0], 9), (64, 64))[0]
    assert torch.equal(first.video[:, :2], frames)
    assert not torch.equal(first.video[:, :2], source[2]["video"][:, -2:])


@pytest.mark.parametrize("overlap", [1, 2])
@pytest.mark.parametrize("name", PIPELINE_NAMES)
def test_backward_a_chunk_ends_with_what_the_later_one_starts_with(ledger, source, name, overlap):
    clip = extended(ledger, source, "backward", kept=True, name=name, chain={"overlap": overlap})
    assert len(clip.chunks) == (3 if overlap == 2 else 2)
    kept = source[2]
    later = [Latents(video=kept["video"], audio=kept["audio"]), *clip.latents]
    for chunk, known, new in zip(clip.chunks, later, clip.latents, strict=False):
        assert torch.equal(new.video[:, -overlap:], known.video[:, 1 : overlap + 1])
        count = shared_sound(
            clip.pipeline.ledger.files, clip.request.chain, chunk.request, backward=True
        )
        assert count in {9, 10} if overlap == 1 else count in {17, 18}
        assert torch.equal(new.audio[:, -count:], known.audio[:, :count])


def test_backward_the_single_first_frame_is_pinned_where_it_belongs(ledger, source):
    clip = extended(ledger, source, "backward", kept=True, name="one_stage")
    chunk = clip.chunks[0]
    handover = source_handover(ledger, clip.request, chunk.request)
    context: Any = None
    encoded = EncodedRequest(
        request=chunk.request, context=context, negative=None, handover=handover
    )
    items = conditions.pinned(ledger, encoded, video_target(ledger, chunk.request, 1))
    (pinned,) = [item for item in items if isinstance(item, Keyframe)]
    assert pinned.frame_index == chunk.skip + chunk.keep
    assert torch.equal(pinned.latent[0], source[2]["video"][:, :1])


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_frames_that_are_added_are_those_of_one_sequence_too(ledger, source, direction):
    """With the clip's own latents in view, which its run kept."""
    whole, parts = as_one(extended(ledger, source, direction, kept=True, name="two_stage"))
    assert len(parts) == 40
    first = {"forward": 33, "backward": len(whole) - 40 - 33}[direction]
    assert (whole[first : first + 40].int() - parts.int()).abs().max() <= 1


def test_a_silent_clip_stays_silent(ledger, source, tmp_path):
    clip = read_clip(source[0], sound=False)
    write_clip(tmp_path / "silent.mp4", clip)
    longer = extended(ledger, (str(tmp_path / "silent.mp4"), None, {}), "forward", kept=False)
    assert longer.clip.audio is None
    assert len(longer.clip.frames) == 73


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("seconds", [0.02, 0.5, 1.3])
def test_sound_may_end_before_the_clip_does(ledger, source, tmp_path, direction, seconds):
    clip: Any = read_clip(source[0])
    sound = clip.audio.waveform[:, : round(seconds * clip.audio.sample_rate_hz)]
    short = type(clip.audio)(waveform=sound, sample_rate_hz=clip.audio.sample_rate_hz)
    path = tmp_path / "short.mp4"
    write_clip(path, type(clip)(frames=clip.frames, fps=clip.fps, audio=short))
    longer = extended(ledger, (str(path), None, {}), direction, kept=False, num_frames=8)
    assert longer.clip.audio.waveform.shape == (2, 41000)


@pytest.mark.parametrize(("direction", "least"), [("forward", 33), ("backward", 41)])
def test_a_clip_that_is_too_short_to_go_on_from_is_refused(ledger, source, direction, least):
    chain = {"overlap": 5, "chunk_frames": 65}
    if direction == "forward":
        assert len(extended(ledger, source, direction, kept=False, chain=chain).clip.frames) == 73
        chain["overlap"], least = 6, 41
    with pytest.raises(MediaError, match=f"33 frames; expected at least {least} to hand"):
        extended(ledger, source, direction, kept=False, chain=chain)


@pytest.mark.parametrize("name", ["one_stage", "two_stage"])
def test_the_fifth_chunk_holds_no_more_tensors_than_the_second(ledger, name, chained):
    clip = chained(name, 2)
    live, peaks = [], []
    with torch.no_grad(), MemoryTracker() as tracker:
        for _ in render_chain(clip.pipeline, clip.request, NoStore()):
            live.append(tracker.live)
            peaks.append(tracker.peak)
            tracker.peak = tracker.live
    assert live[4] == live[1] > 0
    assert peaks[4] == peaks[1] > live[1]


PEAKS = """
import resource

import torch

from rayreel.pipelines import OneStage
from rayreel.pipelines.chain import render_chain
from rayreel.pipelines.joining import join_chunks
from tests.pipelines.small import small_resolved, tiny_ledger
from tests.pipelines.test_chain import NoStore, RandomStore

def peak():
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)

def request(frames):
    size = {"width": 128, "height": 128, "num_frames": frames, "chain": {"chunk_frames": 57}}
    return small_resolved(ledger.files, pipeline="one_stage", **size)

torch.set_num_threads(1)
ledger = tiny_ledger()
pipeline = OneStage(ledger)
for _ in render_chain(pipeline, request(249), NoStore()):
    peak()
for frames in (201, 393):
    clip = join_chunks(pipeline, request(frames), RandomStore())
    for stream in (clip.audio.chunks, clip.frames):
        while next(stream, None) is not None:
            pass
    peak()
"""


class NoStore:
    """Forgets what it is given."""

    def load(self, index):
        del index

    def save(self, index, chunk):
        del index, chunk


class RandomStore(NoStore):
    """Has every chunk of 57 frames of 128x128."""

    def load(self, index):
        latents = Latents(video=torch.randn(16, 8, 4, 4), audio=torch.randn(2, 59, 16))
        return FinishedChunk(latents=latents, prompt=str(index))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_chunks(repository):
    """The 192 frames that the second clip has more than the first would take 9 MiB."""
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(128 * 2**10)}
    command = [sys.executable, "-c", PEAKS]
    done = subprocess.run(
        command, cwd=repository, env=environment, capture_output=True, text=True, check=True
    )
    *rendered, short, long = map(int, done.stdout.split())
    assert len(rendered) == 5
    assert rendered[4] - rendered[1] < 2 * 2**20
    assert long - short < 3 * 2**20
