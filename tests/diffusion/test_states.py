import pytest
import torch

from rayreel.diffusion.states import AudioTarget, VideoTarget, frozen
from rayreel.types import AudioLatentShape, ScaleFactors, VideoLatentShape

VIDEO = VideoTarget(
    shape=VideoLatentShape(batch=2, channels=3, frames=4, height=2, width=3), fps=24
)
AUDIO = AudioTarget(shape=AudioLatentShape(batch=2, channels=2, frames=5, bins=4))


def test_first_latent_frame_spans_one_pixel_frame():
    positions = VIDEO.initial_state(torch.zeros(VIDEO.shape.to_tuple())).positions
    frames = positions[0, 0, :: VIDEO.tokens_per_frame] * 24
    torch.testing.assert_close(frames, torch.tensor([[0.0, 1], [1, 9], [9, 17], [17, 25]]))
    assert positions[0, 2, :3].tolist() == [[0, 32], [32, 64], [64, 96]]


def test_audio_positions_are_those_of_the_front_end():
    positions = AUDIO.initial_state(torch.zeros(AUDIO.shape.to_tuple())).positions
    expected = torch.tensor([[0, 0.01], [0.01, 0.05], [0.05, 0.09]])
    torch.testing.assert_close(positions[1, 0, :3], expected)


@pytest.mark.parametrize("target", [VIDEO, AUDIO])
def test_initial_state_holds_the_latent(target):
    latent = torch.randn(target.shape.to_tuple()).bfloat16()
    state = target.initial_state(latent)
    assert torch.equal(target.unpatchify(state.latent), latent)
    assert state.latent.dtype == torch.bfloat16
    assert state.denoise_mask.dtype == state.positions.dtype == torch.float32


@pytest.mark.parametrize("target", [VIDEO, AUDIO])
def test_latent_of_another_shape_is_rejected(target):
    with pytest.raises(ValueError, match="the target is"):
        target.initial_state(torch.zeros(1, *target.shape.to_tuple()[1:]))


def test_frozen_stream_generates_nothing():
    assert not frozen(AUDIO.initial_state(torch.zeros(AUDIO.shape.to_tuple()))).denoise_mask.any()


def test_positions_follow_the_scale_factors():
    target = VideoTarget(shape=VIDEO.shape, fps=24, factors=ScaleFactors(4, 16, 16))
    positions = target.initial_state(torch.zeros(target.shape.to_tuple())).positions
    assert positions[0, 1, -1].tolist() == [16, 32]
    torch.testing.assert_close(positions[0, 0, -1] * 24, torch.tensor([9.0, 13.0]))
