"""Prompts of long clips: one for each chunk, by a director that sees where the last one ended."""

from uuid import uuid4

import pytest
import torch

from rayreel.data.storage import Storage
from rayreel.data.store import RecordStore
from rayreel.media.image import fit_long_side
from rayreel.media.mux import write_clip
from rayreel.media.video import read_clip
from rayreel.models.text import generation
from rayreel.models.video_vae import to_rgb
from rayreel.pipelines import OneStage
from rayreel.pipelines.chain import MemoryStore, render_chain
from rayreel.pipelines.enhance import instruction
from rayreel.pipelines.resolve import resolve
from rayreel.pipelines.sources import read_sources
from rayreel.pipelines.texts import TextStore
from rayreel.types import Clip
from tests.media.samples import grey_levels
from tests.pipelines.small import small
from tests.pipelines.test_enhance import Writer, ledger_of, with_writer, write_gemma

THREE_CHUNKS = {"num_frames": 33, "chain": {"chunk_frames": 17}}


@pytest.fixture(autouse=True)
def _short_answers(monkeypatch):
    monkeypatch.setattr(generation, "SAMPLING", {**generation.SAMPLING, "max_new_tokens": 24})


@pytest.fixture(scope="module")
def gemma(tmp_path_factory):
    return write_gemma(tmp_path_factory.mktemp("gemma-3-it"))


def rendered(ledger, store=None, texts=None, **fields):
    size = {"width": 64, "height": 64, "pipeline": "one_stage", "audio": False, "steps": 1}
    asked = small(**{**size, **THREE_CHUNKS, "enhance": True, **fields})
    request = resolve(read_sources(asked, ledger.files).request, ledger.files, OneStage)
    return list(render_chain(OneStage(ledger), request, store or MemoryStore(), texts))


def assert_seen(asked, frame):
    """The frame at the size that writers look at, in whole levels."""
    assert asked["image"].dtype == torch.uint8
    assert (asked["image"].float() - fit_long_side(frame, 896)).abs().max() < 1


class Numbered(Writer):
    """Answers with a new prompt each time."""

    def __call__(self, system, user, **options):
        super().__call__(system, user, **options)
        return f"Prompt {len(self.asked)}."


def test_every_chunk_has_a_prompt_of_its_own_and_the_same_one_every_time(gemma):
    first = [chunk.prompt for chunk in rendered(ledger_of(gemma))]
    assert len({*first, "A fox."}) == 4
    assert [chunk.prompt for chunk in rendered(ledger_of(gemma))] == first


def test_a_chain_that_goes_on_keeps_its_prompts_and_writes_the_others(gemma):
    whole = rendered(ledger_of(gemma))
    store = MemoryStore({index: whole[index] for index in range(2)})
    again = rendered(ledger_of(gemma), store)
    assert [chunk.prompt for chunk in again] == [chunk.prompt for chunk in whole]
    assert torch.equal(again[2].latents.video, whole[2].latents.video)


def test_prompts_are_looked_for_in_the_store_first(gemma):
    records = RecordStore(Storage(f"memory://{uuid4().hex}"))
    first, second = ledger_of(gemma), ledger_of(gemma)
    chunks, again = (
        rendered(ledger, texts=TextStore(records, ledger.files)) for ledger in (first, second)
    )
    for chunk, same in zip(chunks, again, strict=True):
        assert chunk.prompt == same.prompt
        assert torch.equal(chunk.latents.video, same.latents.video)
    assert {"TextGenerator", "TextEncoder"} <= set(first.loads)
    assert {"TextGenerator", "TextEncoder"}.isdisjoint(second.loads)


def test_the_director_is_told_the_goal_the_last_prompt_and_the_seconds(gemma):
    writer = Numbered("")
    chunks = rendered(with_writer(ledger_of(gemma), writer))
    assert [chunk.prompt for chunk in chunks] == ["Prompt 1.", "Prompt 2.", "Prompt 3."]
    systems = [asked["system"] for asked in writer.asked]
    assert systems == [instruction("text_to_video"), *[instruction("director")] * 2]
    for number, asked in enumerate(writer.asked[1:], start=1):
        lines = asked["user"].split("\n")
        # What the first chunk was written out to is the goal of the film.
        assert lines[1:3] == ["Goal of the film: Prompt 1.", f"Previous piece: Prompt {number}."]
        assert lines[3] == "Write what happens in the next 0.33 seconds."


def test_the_director_sees_the_last_frame_of_the_chunk_before(gemma):
    writer = Numbered("")
    ledger = with_writer(ledger_of(gemma), writer)
    chunks = rendered(ledger)
    for chunk, asked in zip(chunks, writer.asked[1:], strict=False):
        with ledger.video_decoder() as decoder, torch.inference_mode():
            last = to_rgb(decoder(chunk.latents.video[None, :, -2:]))[0, -1]
        assert_seen(asked, last)


@pytest.mark.parametrize(("direction", "level"), [("forward", 39), ("backward", 0)])
def test_an_extension_is_directed_from_the_frame_that_it_goes_on_from(
    gemma, tmp_path, direction, level
):
    path = tmp_path / "clip.mp4"
    write_clip(path, Clip(frames=grey_levels(40, 64, 64), fps=24), crf=0)
    writer = Numbered("")
    ledger = with_writer(ledger_of(gemma), writer)
    extend = {"path": str(path), "direction": direction}
    rendered(ledger, extend=extend, num_frames=30, chain={"chunk_frames": 33})
    asked, more = writer.asked
    assert asked["system"] == instruction("director")
    assert_seen(asked, read_clip(path).frames[level])
    when = {"forward": "in the next", "backward": "seconds before that piece"}[direction]
    for message in (asked["user"], more["user"]):
        # The row's own goal: the first chunk is no beginning.
        assert "Goal of the film: A fox." in message
        assert when in message


def test_without_a_writer_all_chunks_have_the_prompt_and_say_why(ledger):
    chunks = rendered(ledger)
    assert {chunk.prompt for chunk in chunks} == {"A fox."}
    assert all("no chat template" in str(chunk.note) for chunk in chunks)


def test_texts_are_encoded_alone_and_what_the_last_chunk_said_is_not_encoded_again(ledger):
    asked = []
    with ledger.text_encoder() as encoder:
        handle = encoder.register_forward_pre_hook(lambda _, texts: asked.append(texts[0]))
        rendered(ledger, enhance=False, negative_prompt="dull")
        handle.remove()
    assert all(len(texts) == 1 for texts in asked)
    texts = [text.partition(",")[0] for (text,) in asked]
    assert sorted(texts) == ["A fox.", "dull", "dull"]
