"""Captions of samples: from the list, else from a captioner, and cleaned."""

from dataclasses import replace
from uuid import uuid4

import pytest

from rayreel.config.encode import CaptionSpec
from rayreel.data.storage import Storage
from rayreel.data.store import Record, RecordStore
from rayreel.pipelines.captioners import KIND
from rayreel.runs.encoding.captions import (
    Caption,
    captions_of,
    cleaned,
    unwritten_captions,
)
from rayreel.runs.encoding.samples import Candidate
from rayreel.stages.caption import CaptionItem
from tests.runs.encoding.clips import Passing, failure, row, scene, sound, video

SERVER = {"type": "openai", "url": "http://localhost:1/v1", "model": "seer"}
WRITING = CaptionSpec.model_validate({"captioner": SERVER, "trigger": "tok"})


@pytest.fixture
def records():
    return RecordStore(Storage(f"memory://{uuid4().hex}"))


def candidate(caption: str = "", content: str = "c", start: int = 0) -> Candidate:
    clip = video(content, scenes=[scene(start)])
    return Candidate(row=row(caption=caption), scan=clip, scene=clip.scenes[0])


class Writing(Passing):
    """Writes captions from the content."""

    def through(self, name, items, batches):
        self.results = {
            one.item_id: replace(
                one, caption=f"A {one.content}.", caption_by="seer", caption_note="dark"
            )
            for one in items
        }
        return super().through(name, items, batches)


@pytest.mark.parametrize(
    ("fields", "written", "text", "changes"),
    [
        ({}, " This video shows a cat. ", "a cat.", 2),
        ({}, "A cat.", "A cat.", 0),
        ({"trigger": "tok"}, "In this video, a cat.", "tok a cat.", 2),
        ({"prefixes": ["behold"]}, "Behold this video shows it.", "this video shows it.", 1),
        ({"prefixes": []}, "This video shows it.", "This video shows it.", 0),
        ({"clean": False}, " This video shows it. ", " This video shows it. ", 0),
        ({"clean": False, "trigger": "tok"}, "It.", "tok It.", 1),
    ],
)
def test_captions_are_cleaned_as_the_spec_says(fields, written, text, changes):
    found = cleaned(written, CaptionSpec.model_validate(fields))
    assert (found.text, found.original, found.by) == (text, written, "list")
    assert len(found.changes) == changes


def test_captions_of_the_list_need_no_captioner(records):
    asked = Passing()
    found = captions_of([candidate("A fox."), candidate("A cat.")], CaptionSpec(), records, asked)
    assert [one.text for one in found if isinstance(one, Caption)] == ["A fox.", "A cat."]
    assert asked.asked == []


def test_what_the_list_does_not_say_is_written_once_for_each_clip(records):
    clips = [candidate(), candidate("A fox."), candidate(), candidate(start=24), candidate("", "d")]
    asked = Writing()
    found = captions_of(clips, WRITING, records, asked)
    ((name, items),) = asked.asked
    assert name == "caption"
    assert [(one.content, one.start) for one in items if isinstance(one, CaptionItem)] == [
        ("c", 0),
        ("c", 24),
        ("d", 0),
    ]
    assert [one.text for one in found if isinstance(one, Caption)] == [
        *("tok A c.", "tok A fox.", "tok A c.", "tok A c.", "tok A d."),
    ]
    first, second = found[:2]
    assert isinstance(first, Caption)
    assert isinstance(second, Caption)
    assert (first.original, first.by, first.note) == ("A c.", "seer", "dark")
    assert (second.by, second.note) == ("list", "")


def test_an_item_tells_a_captioner_where_to_look(records):
    clip = sound("s")
    heard = Candidate(row=row(video=None, audio="a.wav"), scan=clip, scene=clip.scenes[0])
    heard = replace(heard, row=replace(heard.row, caption=""))
    asked = Writing()
    captions_of([heard, candidate(start=3)], WRITING, records, asked)
    track, seen = asked.asked[0][1]
    assert isinstance(track, CaptionItem)
    assert isinstance(seen, CaptionItem)
    assert (track.source, track.kind, track.num_frames) == ("a.wav", "audio", 0)
    assert (seen.source, seen.kind, seen.start, seen.num_frames, seen.fps) == (
        *("clip.mp4", "video", 3, 24, 24.0),
    )


def test_captions_that_are_in_the_store_are_not_asked_for_again(records):
    asked = Writing()
    captions_of([candidate()], WRITING, records, asked)
    (item,) = asked.asked[0][1]
    assert unwritten_captions([candidate(), candidate("A fox.")], WRITING, records) == 1
    made_by = {"captioner": "seer", "note": "dim"}
    records.put(Record(key=item.item_id, kind=KIND, text="In this video, a hen.", made_by=made_by))
    again = Writing()
    (found,) = captions_of([candidate()], WRITING, records, again)
    assert [items for _, items in again.asked] in ([], [[]])
    assert isinstance(found, Caption)
    assert (found.text, found.by, found.note) == ("tok a hen.", "seer", "dim")
    assert unwritten_captions([candidate(), candidate("A fox.")], WRITING, records) == 0
    assert unwritten_captions([candidate()], CaptionSpec(), records) == 0


def test_a_clip_whose_caption_could_not_be_written_says_why(records):
    asked = Writing()
    captions_of([candidate()], WRITING, records, asked)
    (item,) = asked.asked[0][1]
    refusing = Passing({item.item_id: failure(item.item_id, "the captioner refuses")})
    found = captions_of([candidate(), candidate("A fox.")], WRITING, records, refusing)
    assert found[0] == "the captioner refuses"
    assert isinstance(found[1], Caption)


def test_a_clip_without_a_caption_says_what_to_do(records):
    (found,) = captions_of([candidate()], CaptionSpec(), records, Passing())
    assert found == "it has no caption; add one to the list, or set captions.captioner"


def test_a_caption_of_which_cleaning_leaves_nothing_is_none(records):
    (found,) = captions_of([candidate("This video shows")], CaptionSpec(), records, Passing())
    assert found == "nothing is left of its caption 'This video shows' once it is cleaned"
    trigger = CaptionSpec(trigger="tok")
    (found,) = captions_of([candidate("This video shows")], trigger, records, Passing())
    assert isinstance(found, Caption)
    assert found.text == "tok"
