"""Noise levels of training, of given random draws."""

import pytest

from rayreel.training.timesteps import stretched_logit_normal
from tests.parity.vectors import Case, cases

OPTIONS = {"std": "std", "uniform_prob": "uniform_share", "eps": "eps"}
FILE = "common/timestep_samplers.safetensors"


@pytest.mark.parametrize("case", cases(FILE, "L*"))
def test_stretched_levels(case):
    draws, stated = Case(FILE, "shared").inputs, case.options
    options = {ours: stated[theirs] for theirs, ours in OPTIONS.items() if theirs in stated}
    levels = stretched_logit_normal(
        draws["normal"], draws["uniform"], draws["prob"], tokens=stated["seq_length"], **options
    )
    case.assert_close(levels, "sigma")
