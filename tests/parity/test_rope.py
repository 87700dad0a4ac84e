"""Rotary tables and their application against the golden vectors."""

from typing import Any

import pytest
import torch

from rayreel.config.model import TransformerConfig
from rayreel.models.rope import RotaryTable, apply_rotary, rotary_table
from tests.parity.vectors import cases

FILE = "common/rope.safetensors"
DEFAULTS: dict[str, Any] = {
    "theta": TransformerConfig.model_fields["positional_embedding_theta"].default,
    "max_pos": TransformerConfig.model_fields["positional_embedding_max_pos"].default,
    "frequencies_precision": "float64",
}


@pytest.mark.parametrize("case", cases(FILE))
def test_table(case):
    options = DEFAULTS | case.options
    table = rotary_table(
        case.inputs["positions"],
        dim=options["dim"],
        heads=options["heads"],
        max_pos=options["max_pos"],
        theta=options["theta"],
        layout=options["rope_type"],
        float64_frequencies=options["frequencies_precision"] == "float64",
    )
    case.assert_close(table.cos, "cos")
    case.assert_close(table.sin, "sin")


@pytest.mark.parametrize("case", cases(FILE, "apply_*"))
def test_rotation(case):
    table = RotaryTable(case.out["cos"], case.out["sin"], case.options["rope_type"])
    case.assert_close(apply_rotary(case.inputs["x"], table), "y")


@pytest.mark.parametrize("layout", ["split", "interleaved"])
def test_worked_example(layout):
    bounds = [[0.041666668, 0.375], [32, 64], [32, 64]]
    table = rotary_table(
        torch.tensor(bounds)[None, :, None],
        dim=16,
        heads=2,
        max_pos=(20, 2048, 2048),
        theta=10000.0,
        layout=layout,
        float64_frequencies=True,
    )
    rotated = apply_rotary(torch.arange(16.0).view(1, 1, 16), table).flatten()
    expected = {
        "split": [0, 1, 6.062225, 7.201726, 4, 5, -1.802615, -2.476920],
        "interleaved": [0, 1, 2, 3, 5.128199, -3.834263, 7.422420, -5.468791],
    }
    torch.testing.assert_close(
        rotated[:8], torch.tensor(expected[layout], dtype=torch.float32), rtol=1e-5, atol=1e-5
    )
