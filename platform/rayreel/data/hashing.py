"""Identity by content: one text per value, one hash per text."""

import hashlib
import json


def canonical_json(value: object) -> str:
    """The one JSON text of a value: equal values have equal texts, whoever wrote them.

    Keys are sorted, there is no white space, what is not ASCII is escaped, and whole floats are
    written as integers, so 24 and 24.0 are equal.

    Args:
        value: What JSON can hold; tuples count as lists.

    Raises:
        ValueError: If a number is infinite or not a number.
        TypeError: If the value holds what JSON cannot, such as keys that are not strings.
    """
    return json.dumps(_normalized(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def content_hash(*parts: str | bytes) -> str:
    """128-bit BLAKE2b of some parts, as 32 hexadecimal digits.

    Where one part ends and the next begins counts: ``("ab", "c")`` and ``("a", "bc")`` differ.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()


def _normalized(value: object) -> object:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list | tuple):
        return [_normalized(item) for item in value]
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"key {key!r} is not a string")
        return {key: _normalized(item) for key, item in value.items()}
    return value
