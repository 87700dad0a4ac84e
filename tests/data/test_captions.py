import pytest

from rayreel.data.captions import DEFAULT_PREFIXES, Cleaned, add_trigger, clean_caption


@pytest.mark.parametrize("prefix", DEFAULT_PREFIXES)
def test_every_opening_is_removed_whatever_its_case(prefix):
    for opening in (prefix, prefix.lower(), prefix.upper()):
        assert clean_caption(f"{opening} a cat.").caption == "a cat."


def test_openings_are_those_of_the_trainer():
    assert len(DEFAULT_PREFIXES) == 5 + 63
    assert DEFAULT_PREFIXES[5:7] == ("This video shows", "This video depicts")
    assert DEFAULT_PREFIXES[-1] == "The picture presents"


def test_openings_are_removed_as_often_as_they_come():
    assert clean_caption("Caption: In this video, the video shows a cat.") == Cleaned(
        "a cat.",
        (
            "opening 'Caption:' removed",
            "opening 'In this video,' removed",
            "opening 'the video shows' removed",
        ),
    )


@pytest.mark.parametrize(
    "text", ["A cat.", "The video showsman bows.", "He looks into the camera. This video shows it."]
)
def test_what_only_looks_like_an_opening_stays(text):
    assert clean_caption(text) == Cleaned(text)


def test_white_space_becomes_single_spaces():
    assert clean_caption(" A cat\n\n\ton\u00a0a  mat. ") == Cleaned(
        "A cat on a mat.", ("white space made single spaces",)
    )


def test_openings_are_found_across_white_space():
    assert clean_caption("This  video\nshows a cat.").caption == "a cat."


def test_the_trigger_comes_in_front_of_what_is_clean():
    assert clean_caption("This video shows a cat.", trigger=" mytok ") == Cleaned(
        "mytok a cat.",
        ("opening 'This video shows' removed", "trigger 'mytok' put in front"),
    )


def test_cleaning_twice_is_cleaning_once():
    once = clean_caption("In the clip, a cat.", trigger="my tok")
    assert once.caption == "my tok a cat."
    assert clean_caption(once.caption, trigger="my tok") == Cleaned(once.caption)
    assert clean_caption("my tokens", trigger="my tok").caption == "my tok my tokens"


def test_own_openings_replace_the_usual_ones():
    assert clean_caption("Footage (raw): This video shows a cat.", ["footage (RAW):"]).caption == (
        "This video shows a cat."
    )
    assert clean_caption("This video shows a cat.", []) == Cleaned("This video shows a cat.")
    assert clean_caption("a", ["", " "]) == Cleaned("a")


def test_nothing_is_left_of_an_opening_alone():
    assert clean_caption("Caption:").caption == ""
    assert clean_caption("Caption:", trigger="mytok").caption == "mytok"


def test_a_trigger_alone_leaves_the_caption_as_it_is():
    assert add_trigger("This video\nshows it.", "mytok").caption == "mytok This video\nshows it."
    assert add_trigger("This video\nshows it.", " ") == Cleaned("This video\nshows it.")
