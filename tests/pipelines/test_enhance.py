"""Prompts that the text encoder writes: detailed ideas, a film's next piece, and why not."""

import copy
from contextlib import nullcontext
from typing import Any
from uuid import uuid4

import pytest
import torch
from safetensors.torch import load_file, save_file

from rayreel.checkpoints.tiny import locate_model
from rayreel.config.jobs import MemorySpec
from rayreel.data.storage import Storage
from rayreel.data.store import RecordStore
from rayreel.models.text import generation
from rayreel.models.text.tiny import BYTE_TOKENS, VOCABULARY, write_tiny_gemma
from rayreel.pipelines import OneStage
from rayreel.pipelines.enhance import clean, direct, enhance, instruction, visual_anchor
from rayreel.pipelines.ledger import ModelLedger
from tests.pipelines.small import DEVICE, small

GOAL = "A red kite is flying. A boy holds it! He runs to the sea. The sun sets."
SEED = 1


@pytest.fixture(autouse=True)
def _short_answers(monkeypatch):
    monkeypatch.setattr(generation, "SAMPLING", {**generation.SAMPLING, "max_new_tokens": 32})


def write_gemma(folder):
    """A tiny Gemma that answers with characters: random weights prefer the many tokens of bytes."""
    write_tiny_gemma(folder, seed=0, chat=True)
    weights = load_file(folder / "model.safetensors")
    weights["language_model.model.embed_tokens.weight"][[VOCABULARY[b] for b in BYTE_TOKENS]] = 0
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def gemma(tmp_path_factory):
    return write_gemma(tmp_path_factory.mktemp("gemma-3-it"))


@pytest.fixture(scope="module")
def blind_gemma(tmp_path_factory):
    folder = write_gemma(tmp_path_factory.mktemp("gemma-3-text"))
    (folder / "preprocessor_config.json").unlink()
    return folder


def ledger_of(gemma, **memory):
    spec = locate_model("tiny").model_copy(update={"gemma": str(gemma)})
    return ModelLedger(spec, DEVICE, MemorySpec(**memory))


def picture(level=0):
    return torch.full((40, 60, 3), level, dtype=torch.uint8)


class Writer:
    """A language model that always answers the same, and keeps what it was asked."""

    def __init__(self, answer):
        self.answer = answer
        self.asked: list[dict[str, Any]] = []

    def __call__(self, system, user, **options):
        self.asked.append({"system": system, "user": user, **options})
        return self.answer


def with_writer(ledger, writer):
    view = copy.copy(ledger)
    view.enhancer = lambda: nullcontext(writer)
    return view


def told(ledger, prompt="A fox.", seed=SEED, **options):
    return enhance(ledger, prompt, seed=seed, **options)


def directed(ledger, **options):
    told: Any = {"goal": GOAL, "previous": "He leans back.", "seconds": 4.0, "seed": SEED}
    return direct(ledger, **told | options)


def test_the_same_seed_writes_the_same_prompt_and_another_one_another(gemma):
    ledger = ledger_of(gemma)
    first = told(ledger)
    assert told(ledger) == first
    assert told(ledger, seed=SEED + 1) != first
    assert first.note is None
    assert first.prompt[0].isalpha()


@pytest.mark.parametrize("ask", [told, directed])
def test_the_image_counts(gemma, ask):
    ledger = ledger_of(gemma, enhancer="resident")
    prompts = {ask(ledger, image=image).prompt for image in (picture(0), picture(255), None)}
    assert len(prompts) == 3


@pytest.mark.parametrize("policy", ["resident", "offload", "disk"])
def test_a_prompt_does_not_depend_on_how_the_writer_is_held(gemma, policy):
    expected = told(ledger_of(gemma), image=picture())
    ledger = ledger_of(gemma, enhancer=policy)
    assert [told(ledger, image=picture()) for _ in range(2)] == [expected] * 2
    assert ledger.loads == ("TextGenerator",) * (2 if policy == "disk" else 1)


def test_the_writer_is_kept_over_calls_only_where_it_is_lent_around_them(gemma):
    ledger = ledger_of(gemma)
    with ledger.enhancer():
        told(ledger)
        told(ledger, "A cat.")
    assert ledger.loads == ("TextGenerator",)
    told(ledger)
    assert ledger.loads == ("TextGenerator",) * 2


def test_a_request_is_rendered_from_what_was_written_for_it(gemma):
    """Again and again, although writer and encoder share their weights."""
    ledger = ledger_of(gemma)
    request = small(pipeline="one_stage", prompt="A fox.", enhance=True)
    first, second = (OneStage(ledger)(request).frames for _ in range(2))
    assert torch.equal(first, second)
    written = enhance(ledger, "A fox.", seed=1)
    assert written.note is None
    same = OneStage(ledger)(small(pipeline="one_stage", prompt=written.prompt))
    assert torch.equal(same.frames, first)
    assert not torch.equal(OneStage(ledger)(small(pipeline="one_stage")).frames, first)


@pytest.mark.parametrize("ask", [told, directed])
def test_what_is_in_the_store_is_not_written_again(gemma, ask):
    store = RecordStore(Storage(f"memory://{uuid4().hex}"))
    first = ask(ledger_of(gemma), image=picture(), store=store)
    ledger = ledger_of(gemma)
    assert ask(ledger, image=picture(), store=store) == first
    assert ledger.loads == ()


def test_every_input_has_a_place_of_its_own_in_the_store(ledger, gemma, tmp_path):
    store, writer = RecordStore(Storage(tmp_path)), Writer("A fox.")
    view = with_writer(ledger_of(gemma), writer)
    turned = picture().movedim(0, 1)
    for _ in range(2):
        for options in ({}, {"seed": 2}, {"prompt": "B"}, {"image": picture()}, {"image": turned}):
            told(view, store=store, **options)
        for options in ({}, {"seconds": 5.0}, {"previous": "B"}, {"goal": "B"}):
            directed(view, store=store, **options)
    assert len(writer.asked) == 9


def test_another_model_or_template_writes_again(gemma, tmp_path):
    store, writer = RecordStore(Storage(tmp_path / "store")), Writer("A fox.")
    write_tiny_gemma(tmp_path / "other", seed=1, chat=True)
    write_tiny_gemma(tmp_path / "spoken", seed=0, chat=True)
    (tmp_path / "spoken" / "chat_template.jinja").write_text("{{ messages }}")
    for folder in (gemma, tmp_path / "other", tmp_path / "spoken"):
        told(with_writer(ledger_of(folder), writer), store=store)
    assert len(writer.asked) == 3


def test_a_model_that_cannot_write_leaves_the_prompt_and_says_why(ledger):
    loads = ledger.loads
    plain, next_piece = told(ledger), directed(ledger)
    assert plain.prompt == "A fox."
    assert next_piece.prompt == GOAL
    assert plain.note == next_piece.note
    assert "no chat template" in str(plain.note)
    assert ledger.loads == loads


@pytest.mark.parametrize("ask", [told, directed])
def test_a_model_that_cannot_see_writes_without_the_image_and_says_so(blind_gemma, ask):
    ledger = ledger_of(blind_gemma, enhancer="resident")
    seen = ask(ledger, image=picture())
    assert seen.prompt == ask(ledger).prompt
    assert str(seen.note).startswith("written without the image: the text encoder has no")
    assert ask(ledger).note is None


@pytest.mark.parametrize("answer", ["", " \n", "12 - 34."])
def test_an_answer_without_words_leaves_the_prompt(gemma, answer):
    view = with_writer(ledger_of(gemma), Writer(answer))
    assert (told(view).prompt, directed(view).prompt) == ("A fox.", GOAL)
    assert told(view).note == directed(view).note == "the language model's answer has no words"


def test_the_idea_is_sent_with_the_instruction_for_what_is_given(gemma):
    writer = Writer("A fox.")
    view = with_writer(ledger_of(gemma), writer)
    told(view, "a fox")
    told(view, "a fox", image=torch.zeros(600, 300, 3, dtype=torch.uint8))
    text, image = writer.asked
    assert (text["system"], image["system"]) == (
        instruction("text_to_video"),
        instruction("image_to_video"),
    )
    assert (text["user"], image["user"]) == (
        "user prompt: a fox",
        "User Raw Input Prompt: a fox.",
    )
    assert text["image"] is None
    assert (image["image"].shape, image["image"].dtype) == ((896, 448, 3), torch.uint8)


def test_the_director_is_told_the_goal_the_last_piece_and_what_to_do(gemma):
    writer = Writer("A kite.")
    directed(with_writer(ledger_of(gemma), writer), seconds=3.84)
    (asked,) = writer.asked
    lines = str(asked["user"]).split("\n")
    assert asked["system"] == instruction("director")
    assert lines[:4] == [
        "Visual anchor: A red kite is flying. A boy holds it!",
        f"Goal of the film: {GOAL}",
        "Previous piece: He leans back.",
        "Write what happens in the next 3.84 seconds.",
    ]
    for line, word in zip(lines[4:], ("anchor", "action", "goal"), strict=True):
        assert word in line


@pytest.mark.parametrize(
    ("goal", "anchor"),
    [
        (GOAL, "A red kite is flying. A boy holds it!"),
        ("One sentence", "One sentence"),
        ("  Who? \n\nThe boy.  And then.", "Who? The boy."),
        ("A clip of 2.5 seconds, and. no more", "A clip of 2.5 seconds, and. no more"),
    ],
)
def test_the_anchor_is_the_first_two_sentences(goal, anchor):
    assert visual_anchor(goal) == anchor


@pytest.mark.parametrize(
    ("answer", "prompt"),
    [
        ("It\u2019s \u2018so\u2019, 5\u2032", "It's 'so', 5'"),
        ("He says \u201cHello\u201d", 'He says "Hello"'),
        ("A\u2014b\u2013c\u2212d", "A-b-c-d"),
        ("A\u00a0fox", "A fox"),
        ("**1. A fox", "A fox"),
        ("\n\nÉtude\n", "Étude"),
        ("12 - 34.", ""),
        ("", ""),
    ],
)
def test_answers_are_cleaned(answer, prompt):
    assert clean(answer) == prompt


IDEAS = {
    "text_to_video": (
        *("every element", "concrete", "gender", "no one who was not asked for"),
        *("present progressive", "natural movement", "order", "words of time"),
        *("sound", "crunching", "quotation marks", "language", "accent", "style"),
        *("no smell", "plain, mild", "point-of-view", "do not invent camera", "no time stamps"),
        *("no dialogue", "change as little", "english", "no heading", "markdown"),
        *("first character is a letter", "unsafe", "no questions"),
    ),
    "image_to_video": (
        *("look at the image", "be brief", "only what changes", "cut to another", "request counts"),
        *("transition", "present progressive", "tempo", "never gathered at the end"),
        *("may write a short line", "quotation marks", "style", "camera movement that nobody"),
        *("time stamps", "smell", "feels", "one paragraph", "first character is a letter"),
    ),
    "director": (
        *("film director", "cinematographer", "without a seam", "goal", "look at it closely"),
        *("action that follows, not the still", "drifted", "keep identity", "camera", "light"),
        *("heard", "one single paragraph"),
    ),
}


@pytest.mark.parametrize("name", IDEAS)
def test_an_instruction_has_all_its_rules_and_an_example(name):
    text = " ".join(instruction(name).split()).lower()
    assert [idea for idea in IDEAS[name] if idea not in text] == []
    rules, _, example = text.partition(" example ")
    assert 50 < len(example.split()) < len(rules.split())
