import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayreel.data.hashing import canonical_json, content_hash

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)


@given(JSON)
def test_canonical_json_keeps_the_value(value):
    assert json.loads(canonical_json(value)) == value


@given(JSON)
def test_canonical_json_of_what_it_says_is_itself(value):
    text = canonical_json(value)
    assert canonical_json(json.loads(text)) == text


def test_order_and_spelling_of_numbers_do_not_count():
    ours = canonical_json({"b": [1, 24.0], "a": -0.0})
    assert ours == canonical_json({"a": 0, "b": (1.0, 24)}) == '{"a":0,"b":[1,24]}'


def test_different_values_have_different_texts():
    texts = [canonical_json(value) for value in (1, 1.5, "1", True, None, [1], {"1": 1}, "é")]
    assert len(set(texts)) == len(texts)
    assert all(text.isascii() for text in texts)


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {"a": -float("inf")}])
def test_numbers_that_json_lacks_are_refused(value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(value)


@pytest.mark.parametrize("value", [{1: "a"}, {"a": {2}}, [b"bytes"]])
def test_values_that_json_lacks_are_refused(value):
    with pytest.raises(TypeError, match=r"not a string|not JSON serializable"):
        canonical_json(value)


def test_hash_is_128_bits_and_stable():
    assert content_hash("a", b"b") == content_hash(b"a", "b")
    assert len(bytes.fromhex(content_hash())) == 16


def test_hash_counts_where_parts_end():
    hashes = {
        content_hash("ab", "c"),
        content_hash("a", "bc"),
        content_hash("abc"),
        content_hash("abc", ""),
    }
    assert len(hashes) == 4
