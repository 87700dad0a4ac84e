"""Near-duplicates are found as if every clip were compared with every one before."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayreel.runs.encoding.near import NearDuplicates

ZERO = "0" * 64


def flipped(value: int, bits: frozenset[int]) -> int:
    for bit in bits:
        value ^= 1 << bit
    return value


# A few clips, each some bits away from another: distances around every limit come up.
bits = st.frozensets(st.integers(0, 255), max_size=70)
changes = st.lists(st.tuples(st.integers(0, 100), bits), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(changes, st.integers(0, 64))
def test_exactly_those_within_the_distance_are_found(changes, distance):
    near, values = NearDuplicates(distance), [0]
    kept: list[tuple[int, int]] = []
    for number, (parent, changed) in enumerate(changes):
        value = flipped(values[parent % len(values)], changed)
        values.append(value)
        close = [n for n, other in kept if (value ^ other).bit_count() <= distance]
        said = near.nearest(f"{value:064x}", (f"{number}", 0), f"clip {number}")
        assert said.startswith(f"nearly the same as clip {close[0]}:") if close else said == ""
        if not close:
            kept.append((number, value))


@pytest.mark.parametrize("distance", [0, 1, 2, 5, 24, 64])
def test_bits_that_are_spread_as_evenly_as_can_be_hide_nothing(distance):
    for others in (distance, distance + 1):
        near = NearDuplicates(distance)
        near.nearest(ZERO, ("a", 0), "fox")
        spread = flipped(0, frozenset(256 * bit // others for bit in range(others)))
        found = near.nearest(f"{spread:064x}", ("b", 0), "cat")
        assert bool(found) == (others <= distance)


def test_the_distance_is_told():
    near = NearDuplicates(3)
    assert near.nearest(ZERO, ("a", 0), "fox") == ""
    assert near.nearest(f"{7:064x}", ("b", 0), "cat") == (
        "nearly the same as fox: 3 of 256 bits differ"
    )
    assert near.nearest(f"{15:064x}", ("c", 0), "dog") == ""


def test_the_same_clip_under_another_caption_is_not_meant():
    near = NearDuplicates(0)
    assert [near.nearest(ZERO, ("a", 0), name) for name in ("fox", "again")] == ["", ""]
    assert near.nearest(ZERO, ("a", 24), "later") != ""
