"""What golden cases do not show: errors, and what items mean for a whole run."""

from dataclasses import replace

import pytest
import torch

from rayreel.conditioning.attention import AttentionStrength
from rayreel.conditioning.keyframes import GeneratedKeyframes, Keyframe, generated_keyframes
from rayreel.conditioning.masks import TemporalRegion
from rayreel.conditioning.references import ReferenceVideo
from rayreel.conditioning.replacement import LatentReplacement
from rayreel.diffusion.loop import denoise
from rayreel.diffusion.noisers import add_noise
from rayreel.diffusion.protocols import Denoised
from rayreel.diffusion.schedulers import DISTILLED_SIGMAS
from rayreel.diffusion.states import VideoTarget, clear_conditioning
from rayreel.diffusion.steppers import Euler
from rayreel.errors import ItemError
from rayreel.types import VideoLatentShape

TARGET = VideoTarget(
    shape=VideoLatentShape(batch=1, channels=3, frames=2, height=1, width=2), fps=24
)
IMAGE = torch.full((1, 3, 1, 1, 2), 5.0)


def empty_state():
    return TARGET.initial_state(torch.zeros(TARGET.shape.to_tuple()))


def rendered(state):
    def halving(video, audio, sigma, step_index):
        return Denoised(x0=video.latent / 2), None

    noise = torch.randn(state.latent.shape, generator=torch.Generator().manual_seed(0))
    noised = add_noise(state, noise, 1.0)
    sigmas = torch.tensor(DISTILLED_SIGMAS)
    final, _ = denoise(sigmas, (noised, None), halving, (Euler(), Euler()))
    assert final is not None
    return TARGET.unpatchify(clear_conditioning(final, TARGET).latent)


def test_image_of_full_strength_is_in_the_result():
    state = LatentReplacement(latent=IMAGE).apply(empty_state(), TARGET)
    assert torch.equal(rendered(state)[:, :, :1], IMAGE)


def test_image_of_no_strength_changes_nothing():
    state = LatentReplacement(latent=IMAGE, strength=0).apply(empty_state(), TARGET)
    assert torch.equal(rendered(state), rendered(empty_state()))


def test_state_given_to_an_item_is_left_alone():
    state = empty_state()
    LatentReplacement(latent=IMAGE).apply(state, TARGET)
    TemporalRegion(0.0, 0.01).apply(state, TARGET)
    assert not state.clean_latent.any()
    assert state.denoise_mask.all()


@pytest.mark.parametrize("latent_index", [-1, 2])
def test_replacement_must_fit_in_time(latent_index):
    with pytest.raises(ItemError, match="do not fit a target of 2 latent frames"):
        LatentReplacement(latent=IMAGE, latent_index=latent_index).apply(empty_state(), TARGET)


def test_replacement_must_lie_on_the_grid():
    with pytest.raises(ItemError, match="encode them at the target's resolution"):
        LatentReplacement(latent=IMAGE[..., :1]).apply(empty_state(), TARGET)


def test_keyframe_before_the_clip_is_rejected():
    with pytest.raises(ItemError, match="frame_index=-1"):
        Keyframe(latent=IMAGE, frame_index=-1).apply(empty_state(), TARGET)


@pytest.mark.parametrize("frame_indices", [[3, 3], [-1], [9]])
def test_slots_must_increase_within_the_clip(frame_indices):
    with pytest.raises(ItemError, match="from 0 to 8"):
        GeneratedKeyframes(frame_indices=frame_indices).apply(empty_state(), TARGET)


def test_seed_of_slots_must_fit_their_number():
    with pytest.raises(ItemError, match="the slots are"):
        GeneratedKeyframes(frame_indices=[2, 4], latent=IMAGE).apply(empty_state(), TARGET)


def test_slots_come_in_one_item():
    state = GeneratedKeyframes(frame_indices=[2]).apply(empty_state(), TARGET)
    with pytest.raises(ValueError, match="already"):
        GeneratedKeyframes(frame_indices=[4]).apply(state, TARGET)


def test_slots_are_gone_once_conditioning_is_cleared():
    state = GeneratedKeyframes(frame_indices=[2], latent=IMAGE).apply(empty_state(), TARGET)
    assert torch.equal(generated_keyframes(state, TARGET), IMAGE)
    with pytest.raises(ValueError, match="cleared"):
        generated_keyframes(clear_conditioning(state, TARGET), TARGET)


def test_reference_of_half_the_frame_rate_ends_its_spans_with_the_target():
    video = replace(TARGET.shape, frames=2)
    item = ReferenceVideo(latent=torch.zeros(video.to_tuple()), temporal_scale=2)
    spans = item.apply(empty_state(), TARGET).positions[0, 0, [4, 6]]
    torch.testing.assert_close(spans * 24, torch.tensor([[0.0, 1.0], [1.0, 17.0]]))


def test_weak_reference_is_attended_weakly():
    item = AttentionStrength(ReferenceVideo(latent=IMAGE[..., :1]), 0.5)
    mask = item.apply(empty_state(), TARGET).attention_mask
    assert mask is not None
    assert mask[0, :, -1].tolist() == mask[0, -1].tolist() == [0.5, 0.5, 0.5, 0.5, 1.0]
    assert mask[0, :4, :4].all()
