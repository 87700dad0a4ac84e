import pytest
import torch

from rayreel.diffusion.noisers import GaussianNoise, add_noise, standardise
from rayreel.types import LatentState, seeded_generator


def generators(*seeds):
    return [seeded_generator(seed, "video") for seed in seeds]


def test_noise_does_not_depend_on_the_batch():
    together = GaussianNoise(generators(1, 2))(torch.empty(2, 5, 3))
    alone = GaussianNoise(generators(2))(torch.empty(1, 5, 3))
    assert torch.equal(together[1:], alone)


def test_draws_go_on():
    noise, like = GaussianNoise(generators(1)), torch.empty(1, 5, 3)
    assert not torch.equal(noise(like), noise(like))


def test_each_request_needs_a_generator():
    with pytest.raises(ValueError, match="1 generators for a batch of 2"):
        GaussianNoise(generators(1))(torch.empty(2, 5, 3))


def test_standardised_draws_have_mean_zero_and_deviation_one():
    noise = GaussianNoise(generators(1, 2), standardised=True)(torch.empty(2, 5, 3))
    torch.testing.assert_close(noise.mean((1, 2)), torch.zeros(2), rtol=0, atol=1e-6)
    torch.testing.assert_close(noise.std((1, 2)), torch.ones(2))
    torch.testing.assert_close(standardise(noise), noise)


@pytest.mark.parametrize(("mask", "expected"), [(1.0, -0.89125), (0.2, 0.62175), (0.0, 1.0)])
def test_partly_kept_tokens_mix_clean_content_and_noised_latent(mask, expected):
    state = LatentState(
        latent=torch.full((1, 1, 1), 0.2),
        clean_latent=torch.ones(1, 1, 1),
        denoise_mask=torch.full((1, 1, 1), mask),
        positions=torch.empty(0),
    )
    noised = add_noise(state, -torch.ones(1, 1, 1), 0.909375)
    assert noised.latent.item() == pytest.approx(expected, abs=1e-6)


def test_noised_latent_keeps_its_dtype():
    state = LatentState(
        latent=torch.zeros(1, 2, 3, dtype=torch.bfloat16),
        clean_latent=torch.zeros(1, 2, 3, dtype=torch.bfloat16),
        denoise_mask=torch.ones(1, 2, 1),
        positions=torch.empty(0),
    )
    assert add_noise(state, torch.ones(1, 2, 3), 1.0).latent.dtype == torch.bfloat16
