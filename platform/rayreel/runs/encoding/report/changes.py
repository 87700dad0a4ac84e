"""What changed from one text to another, word by word."""

import difflib
import re
from typing import Literal, NamedTuple

_LONGEST = 2000
_WORDS = re.compile(r"\s+|\S+")


class Part(NamedTuple):
    """A part of a text.

    Attributes:
        kind: ``cut`` is in the text before alone, ``new`` in the one after.
        text: Of the part.
    """

    kind: Literal["same", "cut", "new"]
    text: str


def changed_parts(before: str, after: str) -> tuple[list[Part], list[Part]]:
    """Both texts in parts, the beginnings of long ones.

    Args:
        before: Text.
        after: What became of it.
    """
    old, new = _words(before), _words(after)
    before_parts: list[Part] = []
    after_parts: list[Part] = []
    # Words that come often are words nonetheless.
    matcher = difflib.SequenceMatcher(a=old, b=new, autojunk=False)
    for kind, old_start, old_end, new_start, new_end in matcher.get_opcodes():
        cut, added = "".join(old[old_start:old_end]), "".join(new[new_start:new_end])
        if kind == "equal":
            before_parts.append(Part("same", cut))
            after_parts.append(Part("same", added))
            continue
        before_parts += [Part("cut", cut)] if cut else []
        after_parts += [Part("new", added)] if added else []
    return before_parts, after_parts


def _words(text: str) -> list[str]:
    words: list[str] = _WORDS.findall(text[:_LONGEST])
    return words if len(text) <= _LONGEST else [*words, "…"]
