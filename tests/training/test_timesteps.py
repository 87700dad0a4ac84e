"""How noise levels are spread over [0, 1]."""

import pytest
import torch

from rayreel.config.train import TimestepSpec
from rayreel.training.timesteps import logit_normal, sigma_sampler, stretched_logit_normal

# Median of 2.0, q005, q999, and 10/25/50/75/90 % stretched, without uniform levels.
TABLE = {
    1024: (0.7211, 0.164407, 0.982710, (0.3097, 0.4937, 0.6803, 0.8200, 0.9027)),
    1536: (0.7565, 0.191164, 0.985565, (0.3422, 0.5307, 0.7116, 0.8408, 0.9149)),
    2048: (0.7886, 0.221123, 0.987954, (0.3751, 0.5661, 0.7401, 0.8590, 0.9254)),
    4032: (0.8836, 0.366162, 0.994043, (0.4970, 0.6823, 0.8241, 0.9093, 0.9533)),
    4096: (0.8859, 0.371497, 0.994178, (0.5005, 0.6854, 0.8262, 0.9105, 0.9539)),
    8192: (0.9712, 0.719275, 0.998651, (0.6589, 0.8076, 0.9016, 0.9515, 0.9756)),
    126: (0.6521, 0.124843, 0.976308, (0.2554, 0.4271, 0.6193, 0.7769, 0.8764)),
}
SHARES = torch.tensor((0.1, 0.25, 0.5, 0.75, 0.9))
DECILES = torch.linspace(0.1, 0.9, 9)


def draws(count=400_000, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(count, generator=generator),
        torch.rand(count, generator=generator),
        torch.rand(count, generator=generator),
    )


def drawn(count=3000, length=4096, **spec):
    """What a sampler draws one by one, for samples of one length."""
    sampler, generator = sigma_sampler(TimestepSpec(**spec)), torch.Generator().manual_seed(0)
    return torch.tensor([sampler(length, generator) for _ in range(count)])


def close(actual, expected, tolerance):
    torch.testing.assert_close(actual, torch.as_tensor(expected), rtol=0, atol=tolerance)


@pytest.mark.parametrize("tokens", TABLE)
def test_levels_of_2_0_have_the_stated_quantiles(tokens):
    median, low, high, _ = TABLE[tokens]
    levels = logit_normal(torch.tensor((0.0, -2.5758, 3.0902)), tokens=tokens)
    close(levels[0], median, 5.1e-5)
    close(levels[1:], (low, high), 1e-6)


@pytest.mark.parametrize("tokens", TABLE)
def test_stretched_levels_have_the_stated_quantiles(tokens):
    expected = TABLE[tokens][3]
    normal = torch.special.ndtri(SHARES)
    never = torch.ones_like(normal)
    close(stretched_logit_normal(normal, never, never, tokens=tokens), expected, 1.5e-4)


@pytest.mark.parametrize("tokens", [1024, 4096])
def test_drawn_levels_are_spread_as_stated(tokens):
    normal, uniform, choice = draws()
    exact = torch.special.ndtri(DECILES)
    old = logit_normal(normal, tokens=tokens)
    close(old.quantile(DECILES), logit_normal(exact, tokens=tokens), 0.005)
    new = stretched_logit_normal(normal, uniform, choice, tokens=tokens, uniform_share=0)
    never = torch.ones_like(exact)
    expected = stretched_logit_normal(exact, never, never, tokens=tokens)
    close(new.quantile(DECILES), expected, 0.005)


def test_a_tenth_of_stretched_levels_is_uniform():
    normal, uniform, choice = draws()
    mixed = stretched_logit_normal(normal, uniform, choice, tokens=4096)
    pure = stretched_logit_normal(normal, uniform, choice, tokens=4096, uniform_share=0)
    other = mixed != pure
    close(other.float().mean(), 0.1, 0.005)
    assert torch.equal(mixed[other], (0.999 * uniform + 0.001)[other])


def test_stretched_levels_reach_exactly_one_and_never_leave_the_range():
    normal, uniform, choice = draws()
    levels = stretched_logit_normal(normal, uniform, choice, tokens=1024, uniform_share=0)
    assert levels.max() == 1
    close((levels == 1).float().mean(), 0.001, 0.0002)
    assert levels.min() >= 0


def test_a_level_below_the_least_is_mirrored():
    low = torch.tensor((-2.5758,))
    never = torch.ones(1)
    level = stretched_logit_normal(low, never, never, tokens=1024, eps=0.05)
    close(level, (0.1,), 1e-6)


def test_samplers_draw_as_their_functions():
    close(drawn().median(), 0.8262, 0.02)
    close(drawn(stretched=False).median(), 0.8859, 0.02)
    close(drawn(stretched=False, std=2).quantile(0.9), 0.9902, 0.005)
    close(drawn(uniform_share=1).mean(), 0.5, 0.02)
    assert 0.2 <= drawn(uniform_share=1, eps=0.2).min() < 0.21
    close(drawn(std=2, uniform_share=0).quantile(0.1), 0.3464, 0.03)


@pytest.mark.parametrize("stretched", [True, False])
def test_short_samples_can_have_the_levels_of_long_ones(stretched):
    short = drawn(length=64, stretched=stretched)
    as_long = drawn(length=64, stretched=stretched, tokens=4096)
    assert torch.equal(as_long, drawn(length=4096, stretched=stretched))
    assert short.median() < as_long.median() - 0.15


def test_uniform_levels_stay_in_their_range():
    levels = drawn(sampler="uniform", min=0.2, max=0.6)
    close(levels.quantile(torch.tensor((0.0, 0.5, 1.0))), (0.2, 0.4, 0.6), 0.02)
    assert levels.min() >= 0.2
    assert levels.max() <= 0.6


def test_given_levels_are_drawn_equally_often_and_no_others():
    levels, counts = drawn(sampler="levels", levels=(1.0, 0.725, 0.25)).unique(return_counts=True)
    close(levels, (0.25, 0.725, 1.0), 1e-7)
    close(counts / 3000, (1 / 3,) * 3, 0.03)
