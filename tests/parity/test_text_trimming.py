"""Hidden states without the padding that a batch shares are those that the vectors have with it."""

import pytest

from tests.parity.test_text import GEMMA, GEMMA_4, expected_states, gemma, storing
from tests.parity.vectors import cases

CASES = [
    *(cases(GEMMA, "left_pad*") + cases(GEMMA, "prompt*")),
    *storing(GEMMA_4, "hidden_states"),
]


@pytest.mark.parametrize("case", CASES)
def test_tokens_keep_their_positions_where_padding_is_left_out(case):
    """Among them are layers whose window is shorter than the texts."""
    mask = case.inputs["attention_mask"]
    start = mask.shape[1] - int(mask.sum(dim=1).max())
    ids, kept = case.inputs["input_ids"][:, start:], mask[:, start:]
    states = gemma(case.folder)(ids, kept, start=start)
    expected = expected_states(case)[:, start:]
    case.assert_close(states[kept.bool()], expected[kept.bool()])
