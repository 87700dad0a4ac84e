"""What each pipeline makes, and what it loads for it."""

from typing import Any

import pytest
import torch

from rayreel.config.jobs import ModelSpec
from rayreel.pipelines import PIPELINE_CLASSES, Distilled, OneStage, TwoStage, phases
from rayreel.pipelines.ledger import ModelLedger
from tests.pipelines.small import (
    DEVICE,
    PIPELINE_NAMES,
    distilled,
    small,
    small_resolved,
    tiny_ledger,
)

# Classes of what a request of two stages with sound is made with; the transformer in two versions.
NETWORKS = [
    "AudioDecoder",
    "LatentUpsampler",
    "PerChannelStatistics",
    "TextConnectors",
    "TextEncoder",
    "Transformer",
    "Transformer",
    "VideoDecoder",
    "Vocoder",
]


@pytest.fixture
def fresh():
    """The tiny model with nothing loaded."""
    return tiny_ledger()


@pytest.mark.parametrize("name", PIPELINE_NAMES)
def test_a_clip_has_the_size_that_was_asked_for(ledger, name):
    clip = PIPELINE_CLASSES[name](ledger)(small(pipeline=name, num_frames=17, fps=12))
    assert clip.frames.shape == (17, 64, 128, 3)
    assert clip.frames.dtype == torch.uint8
    assert clip.fps == 12


@pytest.mark.parametrize("name", PIPELINE_NAMES)
def test_a_request_without_audio_gives_a_silent_clip(ledger, name):
    assert PIPELINE_CLASSES[name](ledger)(small(pipeline=name, audio=False)).audio is None


@pytest.mark.parametrize(("num_frames", "fps", "frames"), [(9, 24, 9), (17, 16, 27), (9, 18, 12)])
def test_sound_covers_the_clip(ledger, num_frames, fps, frames):
    """25 latent frames a second, rounded half to even: 12.5 gives 12.

    Each but the first is four frames of the spectrogram, and each of these 10 ms of sound.
    """
    request = small(pipeline="distilled", num_frames=num_frames, fps=fps)
    audio: Any = Distilled(ledger)(request).audio
    assert audio.sample_rate_hz == 24000
    assert audio.waveform.shape == (2, (4 * frames - 3) * 240)


def test_a_request_needs_a_seed(ledger):
    with pytest.raises(ValueError, match="seed"):
        OneStage(ledger)(small(seed=None))


def both_stages(ledger, name) -> Any:
    """Latents of a request after each stage."""
    pipeline = PIPELINE_CLASSES[name](ledger)
    batch = phases.encode(ledger, [small_resolved(ledger.files, pipeline=name)])
    (first,) = pipeline.generate(batch)
    (second,) = pipeline.refine(batch, [first])
    return first, second


def test_two_stages_keep_the_sound_of_the_first(ledger):
    first, second = both_stages(ledger, "two_stage")
    assert torch.equal(second.audio, first.audio)
    assert second.video.shape[-2:] == (2 * first.video.shape[-2], 2 * first.video.shape[-1])


def test_distilled_refines_the_sound_too(ledger):
    first, second = both_stages(ledger, "distilled")
    assert (second.audio - first.audio).abs().max() > 0.01


def test_every_network_is_loaded_once(fresh):
    for _ in range(2):
        TwoStage(fresh)(small())
    assert sorted(fresh.loads) == NETWORKS


def test_a_silent_clip_of_one_stage_loads_no_more_than_it_needs(fresh):
    OneStage(fresh)(small(pipeline="one_stage", audio=False))
    assert sorted(fresh.loads) == ["TextConnectors", "TextEncoder", "Transformer", "VideoDecoder"]


def test_without_a_distilled_adapter_both_stages_share_the_transformer(ledger):
    spec: ModelSpec = ledger.files.spec.model_copy(update={"distilled_lora": None})
    shared = ModelLedger(spec, DEVICE)
    with shared.transformer() as base, distilled(shared).transformer() as same:
        assert same is base
    assert shared.loads == ("Transformer",)


def test_each_text_is_encoded_once(ledger):
    texts: list[str] = []

    known: Any = {"b": object()}
    rows = [small_resolved(ledger.files, prompt=p, negative_prompt="dull") for p in "aab"]
    with ledger.text_encoder() as encoder:
        handle = encoder.register_forward_pre_hook(lambda _, given: texts.extend(*given))
        encoded = phases.encode(ledger, rows, known)
        handle.remove()
    assert texts == ["a", "dull"]
    assert encoded[0].context is encoded[1].context
    assert encoded[2].context is known["b"]
