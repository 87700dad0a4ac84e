"""A request gives the same clip alone and in a batch, up to the rounding of larger products.

Measured with four requests on two CPU cores in float32: 128 x 64 x 9 with 2 steps and
256 x 192 x 25 with 8 steps agree alike. Latents of magnitude 6 differ by at most 1.4e-6, waveforms
by 1.8e-6, and 0.012 % of the pixels by one of 256 levels; all frames of ``one_stage`` are equal.
"""

from typing import Any

import pytest
import torch

from rayreel.pipelines import PIPELINE_CLASSES, decoding, phases
from tests.pipelines.small import PIPELINE_NAMES, pinned, small_resolved

PROMPTS = ("A fox.", "Boats rock in a quiet harbour, gulls calling.", "Storm!", "A wheat field")
NEGATIVE = "blurry"
TOLERANCE = 1e-4
SHARE_OF_PIXELS = 1e-3


@pytest.fixture(scope="module")
def encoded_together(ledger):
    texts = [*PROMPTS, NEGATIVE]
    features = phases.features(ledger, texts)
    return dict(zip(texts, phases.contexts(ledger, features), strict=True))


@pytest.fixture(scope="module")
def encoded_alone(ledger):
    return {
        text: phases.contexts(ledger, phases.features(ledger, [text]))[0]
        for text in (*PROMPTS, NEGATIVE)
    }


def four(ledger, picture, pipeline_name):
    """Requests of one batch key, as different as that allows."""
    rows = []
    for seed, (prompt, strength) in enumerate(zip(PROMPTS, (0.3, 0.6, 0.9, 1.0), strict=True)):
        first = [pinned(picture, strength=strength)] * (seed % 2)
        later = [pinned(picture, frame=8, strength=strength)]
        fields = {"prompt": prompt, "negative_prompt": NEGATIVE, "pipeline": pipeline_name}
        rows.append(small_resolved(ledger.files, seed=seed, images=tuple(first + later), **fields))
    return rows


def rendered(ledger, requests, contexts):
    """Latents of requests in one batch."""
    pipeline = PIPELINE_CLASSES[requests[0].pipeline](ledger)
    batch = phases.encode(ledger, requests, contexts)
    return pipeline.refine(batch, pipeline.generate(batch))


def assert_near(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=TOLERANCE)


def test_prompts_encoded_in_one_batch_equal_single_ones(encoded_together, encoded_alone):
    for text, together in encoded_together.items():
        alone = encoded_alone[text]
        assert_near(together.video, alone.video)
        assert_near(together.audio, alone.audio)


@pytest.mark.parametrize("pipeline_name", PIPELINE_NAMES)
def test_a_batch_gives_the_clips_of_single_requests(
    ledger, picture, pipeline_name, encoded_together, encoded_alone
):
    requests = four(ledger, picture, pipeline_name)
    assert len({phases.batch_key(request) for request in requests}) == 1
    batch = rendered(ledger, requests, encoded_together)
    for request, together in zip(requests, batch, strict=True):
        (alone,) = rendered(ledger, [request], encoded_alone)
        assert_near(together.video, alone.video)
        assert_near(together.audio, alone.audio)
        clips: list[Any] = [
            decoding.decode(ledger, request, one).collect() for one in (together, alone)
        ]
        difference = (clips[0].frames.int() - clips[1].frames.int()).abs()
        assert difference.max() <= 1
        assert (difference.amax(-1) > 0).float().mean() <= SHARE_OF_PIXELS
        assert_near(clips[0].audio.waveform, clips[1].audio.waveform)


def test_requests_of_a_batch_give_different_clips(ledger, picture, encoded_together):
    requests = four(ledger, picture, "one_stage")
    videos = [latents.video for latents in rendered(ledger, requests, encoded_together)]
    for index, video in enumerate(videos):
        assert all((video - other).abs().max() > 0.1 for other in videos[:index])


def key(ledger, **fields):
    return phases.batch_key(small_resolved(ledger.files, **fields))


@pytest.mark.parametrize(
    "other",
    [
        {"pipeline": "distilled"},
        {"num_frames": 17},
        {"width": 64},
        {"audio": False},
        {"fps": 16},
        {"steps": 3},
        {"video_guidance": {"cfg_scale": 2.0}},
        {"images": [{"path": "a.png", "frame": 8}]},
    ],
    ids=str,
)
def test_requests_that_cannot_share_a_batch_have_another_key(ledger, other):
    assert key(ledger) != key(ledger, **other)


def test_silent_requests_of_other_rates_have_another_key(ledger):
    """Positions are in seconds."""
    assert key(ledger, audio=False) != key(ledger, audio=False, fps=8)


@pytest.mark.parametrize(
    "other",
    [
        {"prompt": "A boat."},
        {"seed": 2},
        {"negative_prompt": "dull"},
        {"images": [{"path": "a.png"}]},
        {"crf": 0},
    ],
    ids=str,
)
def test_requests_that_may_share_a_batch_have_one_key(ledger, other):
    assert key(ledger) == key(ledger, **other)
