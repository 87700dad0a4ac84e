import pytest
import torch

from rayreel.config.sampling import Guidance
from rayreel.diffusion.guiders import (
    APGGuider,
    CFGStarGuider,
    LegacyAPGGuider,
    MultiModalGuider,
    guidance_at,
)

COND = torch.tensor([[1.0, 2, 3, 4]])
UNCOND = torch.tensor([[0.5, 2, 2.5, 4.5]])


def test_multimodal_worked_example():
    guidance = Guidance(cfg_scale=3, stg_scale=1, modality_scale=3, rescale_scale=0.7)
    combined = MultiModalGuider(guidance).combine(
        COND,
        uncond=UNCOND,
        perturbed=torch.tensor([[0.9, 2.1, 3.2, 3.8]]),
        isolated=torch.tensor([[1, 1.9, 3.1, 4]]),
    )
    expected = torch.tensor([[3.1007, 3.1007, 5.3154, 4.7248]])
    torch.testing.assert_close(combined, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("guider", "expected"),
    [
        (CFGStarGuider(3.0), [1.0244, 0.0976, 1.1220, -0.7805]),
        (APGGuider(scale=3, eta=0), [1.0, 0.0, 1.0, -1.0]),
        (APGGuider(scale=3, eta=1, norm_threshold=0.5), [0.5774, 0.0, 0.5774, -0.5774]),
    ],
)
def test_projected_worked_examples(guider, expected):
    delta = guider.delta(COND, UNCOND)
    torch.testing.assert_close(delta, torch.tensor([expected]), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "make",
    [
        lambda: CFGStarGuider(3.0),
        lambda: APGGuider(scale=3, eta=0.5, norm_threshold=1),
        lambda: LegacyAPGGuider(scale=3, eta=0.5, norm_threshold=1),
    ],
)
def test_batch_items_are_projected_on_their_own(make):
    cond, uncond = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    together = make().delta(cond, uncond)
    alone = [make().delta(cond[i : i + 1], uncond[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone))


def test_constant_guidance_holds_at_every_level():
    guidance = Guidance(cfg_scale=2)
    assert guidance_at(guidance, 0.3) is guidance


def test_level_above_all_bounds_takes_the_highest():
    bins = {1.0: Guidance(cfg_scale=5), 0.9: Guidance(cfg_scale=3), 0.5: Guidance()}
    assert [guidance_at(bins, s).cfg_scale for s in (1.2, 0.95, 0.9, 0.7, 0.2)] == [5, 5, 3, 3, 1]
