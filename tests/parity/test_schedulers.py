import json

import pytest
import torch

from rayreel.diffusion.schedulers import (
    DISTILLED_SIGMAS,
    STAGE_2_SIGMAS,
    BetaScheduler,
    LinearQuadraticScheduler,
    LTX2Scheduler,
)
from tests.parity.vectors import INDEX, entries

FILE = "common/schedulers.json"
CONSTANTS = {
    "DISTILLED_SIGMA_VALUES": DISTILLED_SIGMAS,
    "STAGE_2_DISTILLED_SIGMA_VALUES": STAGE_2_SIGMAS,
}


def assert_sigmas(actual, expected):
    tolerance = INDEX[FILE]["tolerance"]
    torch.testing.assert_close(
        actual, torch.tensor(expected), rtol=tolerance["rtol"], atol=tolerance["atol"]
    )


def parameters(section):
    return [
        pytest.param(entry, id=json.dumps({k: v for k, v in entry.items() if k != "sigmas"}))
        for entry in entries(FILE, section)
    ]


@pytest.mark.parametrize("entry", parameters("LTX2Scheduler"))
def test_token_shifted_sigmas(entry):
    options = {k: entry[k] for k in ("max_shift", "base_shift", "terminal") if k in entry}
    if not entry.get("stretch", True):
        options["terminal"] = None
    if entry["tokens"] is not None:
        options["tokens"] = entry["tokens"]
    assert_sigmas(LTX2Scheduler(**options).sigmas(entry["steps"]), entry["sigmas"])


@pytest.mark.parametrize("entry", parameters("LinearQuadraticScheduler"))
def test_linear_quadratic_sigmas(entry):
    names = {"threshold_noise": "threshold", "linear_steps": "linear_steps"}
    options = {ours: entry[theirs] for theirs, ours in names.items() if theirs in entry}
    sigmas = LinearQuadraticScheduler(**options).sigmas(entry["steps"])
    assert_sigmas(sigmas, entry["sigmas"])


@pytest.mark.parametrize("entry", parameters("BetaScheduler"))
def test_beta_sigmas(entry):
    names = {"alpha": "alpha", "beta": "beta", "shift": "shift", "timesteps_length": "table_size"}
    options = {ours: entry[theirs] for theirs, ours in names.items() if theirs in entry}
    assert_sigmas(BetaScheduler(**options).sigmas(entry["steps"]), entry["sigmas"])


@pytest.mark.parametrize(
    ("name", "expected"),
    [entry for entry in dict(entries(FILE, "constants")).items() if entry[0] in CONSTANTS],
)
def test_fixed_sigmas(name, expected):
    assert list(CONSTANTS[name]) == expected
