"""Cleans captions: white space, the openings that language models like to write, trigger words."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_BEGINNINGS = (
    *("This video", "The video", "This clip", "The clip", "The animation"),
    *("This image", "The image", "This picture", "The picture"),
)
_VERBS = ("shows", "depicts", "features", "captures", "highlights", "introduces", "presents")

DEFAULT_PREFIXES: tuple[str, ...] = (
    *("In the video,", "In this video,", "In this video clip,", "In the clip,", "Caption:"),
    *(f"{beginning} {verb}" for beginning in _BEGINNINGS for verb in _VERBS),
)
"""Openings that say nothing of what is seen; those of the LTX-2 trainer."""


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A caption and what was done to it.

    Attributes:
        caption: Empty if nothing is left.
        changes: What was changed, in order and in words; empty if nothing was.
    """

    caption: str
    changes: tuple[str, ...] = ()


def clean_caption(
    text: str, prefixes: Sequence[str] = DEFAULT_PREFIXES, trigger: str = ""
) -> Cleaned:
    """Clean a caption.

    White space becomes single spaces. Then openings are removed, whatever their case, for as long
    as the rest has one: "In this video, the video shows a cat" becomes "a cat". Last, the trigger
    is put in front, as ``add_trigger`` does. Cleaning twice is the same as cleaning once.

    Args:
        text: Any.
        prefixes: Openings; each ends where a word ends.
        trigger: Word or ID token, or nothing.
    """
    changes = []
    caption = " ".join(text.split())
    if caption != text:
        changes.append("white space made single spaces")
    opening = _opening(prefixes)
    while found := opening.match(caption):
        changes.append(f"opening {found[1]!r} removed")
        caption = caption[found.end() :]
    triggered = add_trigger(caption, trigger)
    return Cleaned(triggered.caption, (*changes, *triggered.changes))


def add_trigger(caption: str, trigger: str) -> Cleaned:
    """Put a trigger in front of a caption that does not start with it.

    Args:
        caption: Otherwise stays as it is.
        trigger: Word or ID token; white space around it does not count, and empty ones do nothing.
    """
    front = trigger.strip()
    if not front or f"{caption} ".startswith(f"{front} "):
        return Cleaned(caption)
    return Cleaned(f"{front} {caption}".rstrip(), (f"trigger {front!r} put in front",))


def _opening(prefixes: Sequence[str]) -> re.Pattern[str]:
    """What matches any of some prefixes, the longest first, with the space after it."""
    known = {" ".join(prefix.split()) for prefix in prefixes} - {""}
    longest_first = sorted(known, key=lambda prefix: (-len(prefix), prefix))
    if not longest_first:
        return re.compile(r"(?!)")
    # After a letter, a word has to end: "The image features" is no opening of "... featureless".
    words = "|".join(
        re.escape(prefix) + (r"(?!\w)" if prefix[-1].isalnum() else "") for prefix in longest_first
    )
    return re.compile(rf"({words})\s*", re.IGNORECASE)
