import pytest
from pydantic import ValidationError

from rayreel.config.sampling import Guidance, GuidanceBin

BINS = (GuidanceBin(up_to=0.9, cfg_scale=3), GuidanceBin(up_to=0.5, stg_scale=0, skip_step=1))
EVERYTHING = Guidance(
    method="legacy_apg",
    cfg_scale=4,
    eta=0.5,
    norm_threshold=5,
    momentum=-0.5,
    stg_scale=-0.5,
    stg_blocks=None,
    stg_skips=("self_attention", "cross_modal"),
    rescale_scale=0.7,
    modality_scale=3,
    skip_step=2,
    by_sigma=BINS,
)


@pytest.mark.parametrize("guidance", [Guidance(), EVERYTHING])
def test_guidance_comes_back_from_its_json(guidance):
    back = Guidance.model_validate(guidance.model_dump(mode="json"))
    assert back == guidance
    assert hash(back) == hash(guidance)


def test_bins_in_another_order_are_the_same_guidance():
    assert Guidance(by_sigma=BINS[::-1]) == Guidance(by_sigma=BINS)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"by_sigma": ({"up_to": 0.5}, {"up_to": 0.9}, {"up_to": 0.5})}, "bins 0 and 2"),
        ({"by_sigma": ({"up_to": 0.5, "by_sigma": ()},)}, "by_sigma.0.by_sigma"),
        ({"by_sigma": ({"up_to": 0.0},)}, "greater than 0"),
        ({"by_sigma": ({"up_to": 1.1},)}, "less than or equal to 1"),
        ({"stg_skips": ()}, "at least 1 item"),
        ({"stg_skips": ("text",)}, "cross_modal"),
    ],
)
def test_wrong_guidance_is_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        Guidance.model_validate(fields)
