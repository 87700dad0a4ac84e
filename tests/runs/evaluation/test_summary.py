"""Shares and their intervals."""

import pytest

from rayreel.runs.evaluation.judged import JudgedClip, Seen
from rayreel.runs.evaluation.page import markdown_tables
from rayreel.runs.evaluation.summary import interval_text, share, summarise
from tests.world.test_measure import alone, still


def clip(name: str, *, fault: str = "", numbers=None, **verdicts) -> JudgedClip:
    scene = alone(still(motion="bounce"))
    things = () if fault else ({"motion": verdicts.get("motion", True)},)
    return JudgedClip(
        key=name,
        suite="one",
        name=name,
        prompt="a red ball",
        asked=scene,
        path=None if fault else f"videos/{name}.mp4",
        fault=fault,
        verdicts=verdicts,
        things=things,
        numbers=numbers or {},
    )


# The last two are in Newcombe 1998, Statistics in Medicine 17, table I.
@pytest.mark.parametrize(
    ("right", "of", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
        (15, 148, 0.0624, 0.1605),
        (81, 263, 0.2553, 0.3662),
    ],
)
def test_intervals_are_wilson_s(right, of, low, high):
    found = share(right, of)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)
    assert found.share == right / of


def test_a_share_is_of_the_clips_that_it_was_asked_of():
    clips = [
        clip("a", right=True, motion=True, size=True),
        clip("b", right=False, motion=False),
        clip("c", fault="no file"),
    ]
    found = summarise("one", clips)
    assert (found.clips, found.judged, found.failed) == (3, 2, 1)
    assert {name: (one.right, one.of) for name, one in found.attributes.items()} == {
        "right": (1, 2),
        "motion": (1, 2),
        "size": (1, 1),
    }
    assert found.values["motion"]["bounce"].of == 2


def test_what_was_seen_instead_is_counted():
    def wrong(name, motion):
        seen = Seen(
            background="black",
            things=({"motion": motion},) if motion != "nothing" else (),
            tones=(),
            bounces_s=(),
            clicks_s=(),
        )
        return clip(name, motion=False).model_copy(update={"seen": (seen,)})

    found = summarise(
        "one", [*(wrong(f"{n}", "up") for n in range(2)), wrong("a", None), wrong("b", "nothing")]
    )
    assert found.instead["motion"] == {"bounce": {"up": 2, "none": 1, "nothing": 1}}


def test_numbers_have_their_mean_and_their_worst():
    clips = [
        clip("a", numbers={"psnr_db": 30.0, "synchrony_ms": 10.0}),
        clip("b", numbers={"psnr_db": 20.0, "synchrony_ms": 40.0}),
        clip("c"),
    ]
    found = summarise("one", clips).numbers
    assert (found["psnr_db"].mean, found["psnr_db"].worst, found["psnr_db"].of) == (25, 20, 2)
    assert found["synchrony_ms"].worst == 40


def test_a_suite_of_which_nothing_was_made_has_no_shares():
    found = summarise("one", [clip("a", fault="no file")])
    assert (found.attributes, found.numbers) == ({}, {})
    assert markdown_tables([found]) == "| suite | clips |\n| --- | --- |\n| one | 0 |\n"


def test_tables_have_a_line_for_each_suite():
    one = summarise("one", [clip(f"{n}", right=n > 0, pitch=True) for n in range(10)])
    two = summarise("two", [clip("a", right=True, numbers={"psnr_db": 31.26, "ssim": 0.91234})])
    first, second = markdown_tables([one, two]).split("\n\n")
    assert first.splitlines() == [
        "| suite | clips | right | pitch |",
        "| --- | --- | --- | --- |",
        "| one | 10 | 90 % (60-98) | 100 % (72-100) |",
        "| two | 1 | 100 % (21-100) |  |",
    ]
    assert second.splitlines()[2:] == ["| two | 1 | 31.3 dB | 0.912 |"]
    assert interval_text(one.attributes["right"]) == "90 % (60-98)"
