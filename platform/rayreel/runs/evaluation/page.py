"""An evaluation to look at: tables, and the clips with what was asked for and what was seen."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from rayreel.data.storage import Storage
from rayreel.runs.evaluation.judged import JudgedClip, Seen
from rayreel.runs.evaluation.summary import (
    ATTRIBUTES,
    NUMBERS,
    SuiteSummary,
    interval_text,
    number_text,
)
from rayreel.runs.report.pages import render_page

PAGE = "evaluation.html"

# A browser opens a file for each.
_MOST_WRONG, _MOST_RIGHT = 48, 12
_WORDS = ("size", "colour", "shape", "motion")


class _Table(NamedTuple):
    """Cells by row, and what the columns are."""

    columns: list[str]
    rows: list[list[str]]


def markdown_tables(suites: Sequence[SuiteSummary]) -> str:
    """Shares with their intervals, then what was measured, as tables for a README."""
    return "\n".join(_markdown(table) for table in _tables(suites))


def write_page(
    storage: Storage,
    suites: Sequence[SuiteSummary],
    clips: Iterable[JudgedClip],
    *,
    title: str,
    rendered: bool,
) -> str:
    """Write the page.

    Args:
        storage: The run directory.
        suites: What each came to.
        clips: Of all suites.
        title: Heading.
        rendered: Whether the run has a gallery.

    Returns:
        Its path or URI.

    Raises:
        StorageError: If the storage does not answer.
    """
    lines = list(clips)
    page = render_page(
        "evaluation.html.j2",
        title=title,
        clips=len(lines),
        rendered=rendered,
        tables=_tables(suites),
        suites=[
            {
                "summary": suite,
                "values": _values(suite),
                **_shown([line for line in lines if line.suite == suite.name]),
            }
            for suite in suites
        ],
    )
    storage.write_bytes(PAGE, page)
    return storage.join(PAGE)


def _tables(suites: Sequence[SuiteSummary]) -> list[_Table]:
    shares = _table(
        suites,
        {key: name for key, name in ATTRIBUTES.items() if any(key in s.attributes for s in suites)},
        lambda suite, key: interval_text(suite.attributes[key]) if key in suite.attributes else "",
    )
    numbers = _table(
        [suite for suite in suites if suite.numbers],
        {key: name for key, (name, *_) in NUMBERS.items() if any(key in s.numbers for s in suites)},
        lambda suite, key: number_text(key, suite.numbers[key]) if key in suite.numbers else "",
    )
    return [table for table in (shares, numbers) if table.rows]


def _table(
    suites: Sequence[SuiteSummary],
    columns: dict[str, str],
    cell: Callable[[SuiteSummary, str], str],
) -> _Table:
    return _Table(
        ["suite", "clips", *columns.values()],
        [[s.name, str(s.judged), *(cell(s, key) for key in columns)] for s in suites],
    )


def _markdown(table: _Table) -> str:
    lines = [table.columns, ["---"] * len(table.columns), *table.rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _values(suite: SuiteSummary) -> list[_Table]:
    """For each attribute, how often each of its values was right."""
    return [
        _Table(
            [ATTRIBUTES[attribute], "things", "right", "seen instead"],
            [
                [value, str(one.of), interval_text(one), _counted(suite, attribute, value)]
                for value, one in shares.items()
            ],
        )
        for attribute, shares in suite.values.items()
    ]


def _counted(suite: SuiteSummary, attribute: str, value: str) -> str:
    counts = suite.instead[attribute].get(value, {})
    return ", ".join(f"{seen} {count}" for seen, count in counts.items())


def _shown(clips: Sequence[JudgedClip]) -> dict[str, Any]:
    """The clips of a suite that the page shows: those that are wrong first."""
    order = sorted(
        clips,
        key=lambda clip: (
            not clip.fault,
            clip.verdicts.get("right", False),
            -len(_wrong(clip)),
            clip.numbers.get("psnr_db", 0),
            clip.name,
        ),
    )
    faulty = [clip for clip in order if clip.fault]
    wrong = [clip for clip in order if _wrong(clip)]
    right = [clip for clip in order if not clip.fault and not _wrong(clip)]
    shown = [*[*faulty, *wrong][:_MOST_WRONG], *right[:_MOST_RIGHT]]
    return {"shown": [_card(clip) for clip in shown], "wrong": len(wrong), "right": len(right)}


def _wrong(clip: JudgedClip) -> list[str]:
    """Attributes that are not as they were asked for."""
    return [name for name in ATTRIBUTES if name != "right" and clip.verdicts.get(name) is False]


def _card(clip: JudgedClip) -> dict[str, Any]:
    wrong = _wrong(clip)
    return {
        "clip": clip,
        "wrong": [ATTRIBUTES[name] for name in wrong],
        "asked": [*_asked(clip)],
        "seen": [_said(seen) for seen in clip.seen],
        "numbers": [
            (name, f"{clip.numbers[key]:.{decimals}f} {unit}".rstrip())
            for key, (name, unit, decimals) in NUMBERS.items()
            if key in clip.numbers
        ],
    }


def _asked(clip: JudgedClip) -> Iterator[list[tuple[str, bool]]]:
    """Each thing that was asked for in words, and whether each of them is wrong."""
    for place, thing in enumerate(clip.asked.things):
        verdicts = clip.things[place] if clip.things else {}
        names = [name for name in _WORDS if name != "size" or "size" in verdicts]
        yield [(str(getattr(thing, name)), verdicts.get(name) is False) for name in names]
    if "background" in clip.verdicts:
        yield [(f"before {clip.asked.background}", not clip.verdicts["background"])]


def _said(seen: Seen) -> str:
    things = " and ".join(
        " ".join(one[name] or f"no {name}" for name in _WORDS) for one in seen.things
    )
    tones = ", ".join(seen.tones) or "none"
    said = f"{things or 'nothing'}, before {seen.background}; tones: {tones}"
    for name, times in (("bounces", seen.bounces_s), ("clicks", seen.clicks_s)):
        if times:
            said += f"; {name} at {', '.join(f'{time:.2f}' for time in sorted(times))} s"
    return said
