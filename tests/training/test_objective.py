"""The loss of predicted velocities."""

from dataclasses import replace

import pytest
import torch

from rayreel.config.strategies import TextToVideo
from rayreel.training.objective import losses
from tests.training.samples import FRAME, TOKENS, example, flexible, sample, together

SHOWN = TextToVideo(first_frame=1)
PREFIXES = [{"type": "prefix", "length": 1}], [{"type": "prefix", "length": 2}]


def found(batch, error=0.0):
    """Losses where every prediction is off by ``error``."""
    video, audio = (stream and stream.target + error for stream in (batch.video, batch.audio))
    return losses(video, audio, batch)


@pytest.mark.parametrize("frames", [0, 1, 2])
def test_a_constant_error_costs_its_square_whatever_share_counts(frames):
    shown = [{"type": "prefix", "length": frames}] if frames else []
    result = found(example(flexible(video=shown, audio=shown)), error=0.5)
    torch.testing.assert_close(result.video, torch.tensor([0.25]))
    torch.testing.assert_close(result.audio, torch.tensor([0.25]))
    torch.testing.assert_close(result.total, torch.tensor([0.5]))


def test_predictions_of_what_is_shown_do_not_count():
    batch = example(SHOWN)
    prediction = batch.video.target.clone()
    prediction[:, :FRAME] = 1e3
    assert losses(prediction, batch.audio.target, batch).total == 0
    prediction[:, FRAME] = 1e3
    assert losses(prediction, batch.audio.target, batch).total > 0


def test_predictions_of_references_have_no_gradient():
    strategy = flexible(video=[{"type": "reference"}])
    batch = example(strategy, sample(reference_latents=sample().video_latents))
    prediction = torch.zeros_like(batch.video.noisy, requires_grad=True)
    total = losses(prediction, None, batch).total.sum()
    (gradient,) = torch.autograd.grad(total, prediction)
    assert (gradient[:, :TOKENS] != 0).all()
    assert (gradient[:, TOKENS:] == 0).all()


def test_each_sample_has_a_loss_of_its_own():
    examples = [example(flexible(video=shown), sample(seed=n)) for n, shown in enumerate(PREFIXES)]
    both = together(examples)
    result = losses(torch.zeros_like(both.video.noisy), None, both)
    assert result.audio is None
    for number, one in enumerate(examples):
        alone = losses(torch.zeros_like(one.video.noisy), None, one).total
        torch.testing.assert_close(result.total[number : number + 1], alone)


def test_a_sample_that_is_shown_as_a_whole_costs_nothing():
    batch = example(flexible(video=[{"type": "prefix", "length": 3}]))
    assert found(batch, error=1).video == 0


def test_losses_are_float32_where_predictions_are_not():
    batch = example(TextToVideo())
    half = losses(batch.video.target.bfloat16(), batch.audio.target.bfloat16(), batch)
    assert half.total.dtype == torch.float32
    assert 0 < half.total < 1e-4


def test_context_has_no_loss():
    batch = example(TextToVideo())
    batch = replace(batch, audio=replace(batch.audio, target=None))
    result = found(replace(batch, audio=None), error=1)
    assert result.audio is None
    assert losses(batch.video.target + 1, batch.audio.noisy, batch).audio is None


def test_what_is_learned_needs_a_prediction():
    batch = example(TextToVideo())
    with pytest.raises(ValueError, match="no prediction"):
        losses(None, batch.audio.target, batch)
