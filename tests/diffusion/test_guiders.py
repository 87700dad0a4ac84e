import re

import pytest
import torch

from rayreel.config.sampling import Guidance, GuidanceBin
from rayreel.diffusion.guiders import (
    GUIDERS,
    APGGuider,
    CFGGuider,
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


FALLING = (
    GuidanceBin(up_to=0.9, cfg_scale=3),
    GuidanceBin(up_to=0.5, cfg_scale=1, modality_scale=2, skip_step=1),
)


def scales(guidance, levels):
    return [guidance_at(guidance, level).cfg_scale for level in levels]


def test_constant_guidance_holds_at_every_level():
    guidance = Guidance(cfg_scale=2)
    assert guidance_at(guidance, 0.3) is guidance


def test_the_guidance_itself_holds_above_all_bins():
    guidance = Guidance(cfg_scale=7, by_sigma=FALLING)
    assert scales(guidance, (1.2, 0.95, 0.9, 0.7, 0.5, 0.2)) == [7, 7, 3, 3, 1, 1]


def test_a_bin_up_to_one_holds_above_one_too():
    bins = (GuidanceBin(up_to=1, cfg_scale=5), *FALLING)
    levels = (1.2, 1.0, 0.95, 0.9, 0.7, 0.5, 0.2)
    assert scales(Guidance(by_sigma=bins), levels) == [5, 5, 5, 3, 3, 1, 1]


def test_a_bin_holds_at_its_end_as_schedules_spell_it():
    guidance = Guidance(cfg_scale=7, by_sigma=(GuidanceBin(up_to=0.725, cfg_scale=3),))
    level = torch.tensor(0.725).item()
    assert level > 0.725
    assert guidance_at(guidance, level).cfg_scale == 3


def test_a_bin_changes_what_it_sets():
    guidance = Guidance(cfg_scale=7, stg_scale=1, method="apg", eta=0.5, by_sigma=FALLING)
    low = guidance.model_copy(
        update={"cfg_scale": 1, "modality_scale": 2, "skip_step": 1, "by_sigma": ()}
    )
    assert guidance_at(guidance, 0.4) == low


def test_a_run_needs_what_any_of_its_levels_needs():
    guidance = Guidance(by_sigma=(GuidanceBin(up_to=0.5, cfg_scale=3, stg_scale=1),))
    run = MultiModalGuider(guidance)
    assert (run.needs_uncond, run.needs_perturbed, run.needs_isolated) == (True, True, False)
    assert not run.at(0.8).needs_uncond
    assert not run.at(0.8).needs_perturbed
    assert run.at(0.5).needs_uncond


def test_guidance_that_its_bins_hide_needs_nothing():
    guidance = Guidance(cfg_scale=7, by_sigma=(GuidanceBin(up_to=1, cfg_scale=1),))
    assert not MultiModalGuider(guidance).needs_uncond


@pytest.mark.parametrize(
    ("method", "guider"),
    [
        ("cfg", CFGGuider(3.0)),
        ("cfg_star", CFGStarGuider(3.0)),
        ("apg", APGGuider(scale=3, eta=0.5, norm_threshold=1)),
        ("legacy_apg", LegacyAPGGuider(scale=3, eta=0.5, norm_threshold=1, momentum=0.6)),
    ],
)
def test_the_method_names_the_push_from_the_negative_prompt(method, guider):
    guidance = Guidance(method=method, cfg_scale=3, eta=0.5, norm_threshold=1, momentum=0.6)
    combined = MultiModalGuider(guidance)
    for cond in (COND, 0.9 * COND):
        expected = cond + guider.delta(cond, UNCOND)
        torch.testing.assert_close(combined.combine(cond, uncond=UNCOND), expected)


def test_every_method_is_off_at_its_own_scale():
    off = {"cfg": 1, "cfg_star": 1, "apg": 1, "legacy_apg": 0}
    assert off.keys() == GUIDERS.keys()
    for method, scale in off.items():
        assert not GUIDERS[method](Guidance(cfg_scale=scale)).enabled
        assert GUIDERS[method](Guidance(cfg_scale=1 - scale)).enabled


def test_momentum_is_kept_where_the_scale_changes():
    bins = (GuidanceBin(up_to=0.5, cfg_scale=3),)
    guidance = Guidance(method="legacy_apg", momentum=0.6, cfg_scale=2, by_sigma=bins)
    run = MultiModalGuider(guidance)
    run.at(0.9).combine(COND, uncond=UNCOND)
    combined = run.at(0.4).combine(COND, uncond=UNCOND)
    torch.testing.assert_close(combined, COND + 3 * 1.6 * (COND - UNCOND))


def test_unknown_method_names_the_nearest():
    with pytest.raises(ValueError, match="'cfgstar' is unknown; nearest is 'cfg_star'"):
        MultiModalGuider(Guidance(method="cfgstar"))


def test_the_description_of_the_method_names_every_known_one():
    described = str(Guidance.model_fields["method"].description)
    named = re.findall(r"\w+", described.partition(":")[2])
    assert set(named) - {"or"} == GUIDERS.keys()
