"""Prompts that the text encoder writes itself: a rough idea in detail, or a film's next piece."""

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

import torch
from torch import Tensor

from rayreel.checkpoints.text_generator import TextGeneratorFiles
from rayreel.data.hashing import canonical_json, content_hash
from rayreel.data.store import Record, RecordStore
from rayreel.media.image import fit_long_side
from rayreel.models.text.generation import SAMPLING
from rayreel.pipelines.ledger import ModelLedger

InstructionName = Literal["text_to_video", "image_to_video", "director"]

_IMAGE_LONG_SIDE = 896

_PLAIN = str.maketrans(
    {
        **dict.fromkeys(
            "\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}\N{PRIME}", "'"
        ),
        **dict.fromkeys("\N{LEFT DOUBLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}", '"'),
        **dict.fromkeys("\N{EM DASH}\N{EN DASH}\N{MINUS SIGN}", "-"),
        "\N{NO-BREAK SPACE}": " ",
    }
)

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Enhanced:
    """A prompt and how it came about.

    Attributes:
        prompt: What to render.
        note: Why the prompt is as it was, or what the writer could not look at; ``None`` where all
            went as asked.
    """

    prompt: str
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """What is asked of the writer, and what to render if it cannot answer."""

    instruction: InstructionName
    message: str
    image: Tensor | None
    seed: int
    otherwise: str


def enhance(
    ledger: ModelLedger,
    prompt: str,
    *,
    seed: int,
    image: Tensor | None = None,
    store: RecordStore | None = None,
) -> Enhanced:
    """Write a short idea out in detail.

    The writer is held as ``memory.enhancer`` says; whoever has many prompts keeps it over all of
    them with a ``with ledger.enhancer():`` around the calls.

    Args:
        ledger: For the language model.
        prompt: The idea.
        seed: Of the answer: the same one gives the same text.
        image: First frame of the clip, RGB ``uint8`` ``(H, W, 3)``.
        store: Where answers are kept and looked for first.
    """
    writer = TextGeneratorFiles(ledger.files.text_encoder)
    seen = None if writer.cannot_see else image
    request = _Request(
        instruction="text_to_video" if seen is None else "image_to_video",
        message=f"user prompt: {prompt}" if seen is None else f"User Raw Input Prompt: {prompt}.",
        image=seen,
        seed=seed,
        otherwise=prompt,
    )
    return _written(ledger, writer, request, store, unseen=image is not seen)


def direct(
    ledger: ModelLedger,
    *,
    goal: str,
    previous: str,
    seconds: float,
    seed: int,
    image: Tensor | None = None,
    backward: bool = False,
    store: RecordStore | None = None,
) -> Enhanced:
    """Write the prompt of the next piece of an endless clip; the goal where that fails.

    Args:
        ledger: For the language model.
        goal: What the whole clip is about.
        previous: Prompt of the piece before.
        seconds: Length of the piece.
        seed: Of the answer: the same one gives the same text.
        image: Last frame of the piece before, RGB ``uint8`` ``(H, W, 3)``.
        backward: Whether the piece comes before the previous one, whose first frame is the image.
        store: Where answers are kept and looked for first.
    """
    writer = TextGeneratorFiles(ledger.files.text_encoder)
    seen = None if writer.cannot_see else image
    request = _Request(
        instruction="director",
        message=_director_message(goal, previous, seconds, backward=backward),
        image=seen,
        seed=seed,
        otherwise=goal,
    )
    return _written(ledger, writer, request, store, unseen=image is not seen)


def visual_anchor(goal: str) -> str:
    """The first two sentences of a goal, which every piece opens with."""
    return " ".join(_SENTENCE_END.split(goal.strip())[:2])


def clean(answer: str) -> str:
    """An answer with plain punctuation, from its first letter on; empty where it has no letter."""
    plain = answer.translate(_PLAIN)
    start = next((i for i, character in enumerate(plain) if character.isalpha()), len(plain))
    return plain[start:].rstrip()


@cache
def instruction(name: InstructionName) -> str:
    """What the writer is told to do."""
    text = files("rayreel.models.text") / "instructions" / f"{name}.md"
    return text.read_text(encoding="utf-8")


def _director_message(goal: str, previous: str, seconds: float, *, backward: bool) -> str:
    asked = (
        f"Write what happens in the {seconds:g} seconds before that piece, up to its start."
        if backward
        else f"Write what happens in the next {seconds:g} seconds."
    )
    return "\n".join(
        [
            f"Visual anchor: {visual_anchor(goal)}",
            f"Goal of the film: {goal}",
            f"Previous piece: {previous}",
            asked,
            "1. Open with the visual anchor, in the same words or nearly so.",
            "2. Go on at once with a new, dynamic action; nothing stands still, nothing repeats.",
            "3. Let that action bring the goal of the film closer.",
        ]
    )


def _written(
    ledger: ModelLedger,
    writer: TextGeneratorFiles,
    request: _Request,
    store: RecordStore | None,
    *,
    unseen: bool,
) -> Enhanced:
    if writer.cannot_write:
        return Enhanced(prompt=request.otherwise, note=writer.cannot_write)
    prompt = clean(_answer(ledger, writer, request, store))
    if not prompt:
        return Enhanced(prompt=request.otherwise, note="the language model's answer has no words")
    note = f"written without the image: {writer.cannot_see}" if unseen else None
    return Enhanced(prompt=prompt, note=note)


def _answer(
    ledger: ModelLedger,
    writer: TextGeneratorFiles,
    request: _Request,
    store: RecordStore | None,
) -> str:
    """What the language model says, or said when it was asked the same."""
    if store is None:
        return _generated(ledger, request)
    key = content_hash(
        request.instruction,
        instruction(request.instruction),
        request.message,
        str(request.seed),
        ledger.files.fingerprint(("gemma",)),
        # Perhaps in a file that is not part of the fingerprint.
        writer.chat_template,
        canonical_json(dict(SAMPLING)),
        *_content(request.image),
    )
    record = store.get(key)
    if record is None:
        answer = _generated(ledger, request)
        record = Record(key=key, kind=f"prompt/{request.instruction}", text=answer)
        store.put(record)
    assert record.text is not None, "such keys are those of texts"
    return record.text


def _generated(ledger: ModelLedger, request: _Request) -> str:
    image = request.image
    if image is not None:
        image = fit_long_side(image, _IMAGE_LONG_SIDE).round().to(torch.uint8)
    with ledger.enhancer() as generator:
        answer: str = generator(
            instruction(request.instruction), request.message, seed=request.seed, image=image
        )
    return answer


def _content(image: Tensor | None) -> tuple[str | bytes, ...]:
    """What tells images apart."""
    if image is None:
        return ()
    return str(tuple(image.shape)), image.cpu().contiguous().numpy().tobytes()
