"""Verdicts of many clips as shares with their confidence intervals, by suite and attribute."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scipy.stats import binomtest

from rayreel.runs.evaluation.judged import JudgedClip

ATTRIBUTES = {
    "right": "right",
    "colour": "colour",
    "shape": "shape",
    "motion": "motion",
    "size": "size",
    "count": "count",
    "background": "background",
    "pitch": "pitch",
    "synchrony": "in step",
    "first_frame": "first frame",
    "last_frame": "last frame",
    "reference": "reference",
}
"""What is judged, in the order of tables, and how a person reads it."""

NUMBERS = {
    "psnr_db": ("PSNR", "dB", 1),
    "ssim": ("SSIM", "", 3),
    "mel_l1": ("mel error", "", 3),
    "synchrony_ms": ("bounce to click", "ms", 0),
    "distance": ("distance", "", 3),
    "first_frame_psnr_db": ("first frame", "dB", 1),
    "first_frame_things_psnr_db": ("its things", "dB", 1),
    "last_frame_psnr_db": ("last frame", "dB", 1),
    "last_frame_things_psnr_db": ("its things", "dB", 1),
}
"""What is measured, in the order of tables: name, unit and decimals."""

CONFIDENCE = 0.95

_VALUES = ("motion", "shape", "colour", "size")


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """How many of some clips are right, with the Wilson interval of their share.

    Attributes:
        right: Clips that are.
        of: Clips that were judged by it, at least one.
        share: The quotient.
        low: Least share that is likely.
        high: Greatest share that is likely.

    Reference:
        Wilson 1927, Probable inference, the law of succession, and statistical inference.
    """

    right: int
    of: int
    share: float
    low: float
    high: float


def share(right: int, of: int) -> Share:
    """A share with its interval, which holds in 95 of 100 cases.

    Args:
        right: How many.
        of: Of how many, at least one.
    """
    interval = binomtest(right, of).proportion_ci(CONFIDENCE, method="wilson")
    return Share(
        right=right, of=of, share=right / of, low=float(interval.low), high=float(interval.high)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """What was measured of some clips.

    Attributes:
        of: Clips that it could be measured of.
        mean: Over them.
        median: Of them.
        worst: The one furthest on the wrong side.
    """

    of: int
    mean: float
    median: float
    worst: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteSummary:
    """What became of a suite.

    Attributes:
        name: Of the suite.
        clips: That it asks for.
        judged: That there were.
        attributes: Shares of clips, by attribute.
        values: Shares of things for which a motion, shape, colour or size that was asked for was
            seen, by attribute and value.
        instead: How often something else was seen where a value was asked for, of scenes of one
            thing alone: by attribute, value, and what was seen.
        numbers: By name.
    """

    name: str
    clips: int
    judged: int
    attributes: dict[str, Share]
    values: dict[str, dict[str, Share]]
    instead: dict[str, dict[str, dict[str, int]]]
    numbers: dict[str, Number]

    @property
    def failed(self) -> int:
        """Clips that could not be made or read."""
        return self.clips - self.judged


def summarise(name: str, clips: Sequence[JudgedClip]) -> SuiteSummary:
    """Count the verdicts of a suite.

    Args:
        name: Of the suite.
        clips: All of it; those that could not be made count in no share.
    """
    judged = [clip for clip in clips if not clip.fault]
    return SuiteSummary(
        name=name,
        clips=len(clips),
        judged=len(judged),
        attributes=_attributes(judged),
        values=_values(judged),
        instead={attribute: _instead(attribute, judged) for attribute in _VALUES},
        numbers=_numbers(judged),
    )


def as_json(summaries: Iterable[SuiteSummary]) -> list[dict[str, Any]]:
    """The summaries as JSON can hold them."""
    return [{**asdict(one), "failed": one.failed} for one in summaries]


def interval_text(one: Share) -> str:
    """A share for a person, such as ``97 % (93-99)``."""
    low, high = (f"{100 * value:.0f}" for value in (one.low, one.high))
    return f"{100 * one.share:.0f} % ({low}-{high})"


def number_text(name: str, one: Number) -> str:
    """A measured mean, or for what may be far off now and then a median, for a person."""
    _, unit, decimals = NUMBERS[name]
    value = one.median if name == "synchrony_ms" else one.mean
    return f"{value:.{decimals}f} {unit}".rstrip()


def _attributes(clips: Sequence[JudgedClip]) -> dict[str, Share]:
    found = {}
    for name in ATTRIBUTES:
        verdicts = [clip.verdicts[name] for clip in clips if name in clip.verdicts]
        if verdicts:
            found[name] = share(sum(verdicts), len(verdicts))
    return found


def _values(clips: Sequence[JudgedClip]) -> dict[str, dict[str, Share]]:
    found: dict[str, dict[str, Share]] = {}
    for attribute in _VALUES:
        right, of = Counter[str](), Counter[str]()
        for clip in clips:
            for thing, verdicts in zip(clip.asked.things, clip.things, strict=True):
                if attribute in verdicts:
                    value = str(getattr(thing, attribute))
                    of[value] += 1
                    right[value] += verdicts[attribute]
        if of:
            found[attribute] = {value: share(right[value], of[value]) for value in sorted(of)}
    return found


def _instead(attribute: str, clips: Sequence[JudgedClip]) -> dict[str, dict[str, int]]:
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for clip in clips:
        if len(clip.asked.things) == 1 and clip.things[0].get(attribute) is False:
            # A clip of several parts is wrong if one of them is.
            wanted = str(getattr(clip.asked.things[0], attribute))
            seen = (part.things[0][attribute] if part.things else "nothing" for part in clip.seen)
            found[wanted][next((one or "none" for one in seen if one != wanted), "none")] += 1
    return {value: dict(counts.most_common()) for value, counts in sorted(found.items())}


def _numbers(clips: Sequence[JudgedClip]) -> dict[str, Number]:
    found = {}
    for name in NUMBERS:
        if values := [clip.numbers[name] for clip in clips if name in clip.numbers]:
            # Of likeness, the least is the worst; of errors, the greatest.
            worst = min(values) if name.endswith(("psnr_db", "ssim")) else max(values)
            found[name] = Number(
                of=len(values),
                mean=statistics.fmean(values),
                median=statistics.median(values),
                worst=worst,
            )
    return found
