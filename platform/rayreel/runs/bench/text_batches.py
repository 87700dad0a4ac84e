"""Captions to features: batches of texts of like length against other ways."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from random import Random

import torch
from torch import Tensor

from rayreel.pipelines import phases
from rayreel.pipelines.ledger import ModelLedger
from rayreel.runs.bench.networks import Line
from rayreel.runs.bench.pipeline import CPU
from rayreel.runs.bench.spec import TextBatchesCase
from rayreel.runs.bench.timing import Race, difference, race, threads

_LETTERS = "abcdefghijklmnopqrstuvwxyz     "


def compare_text_batches(case: TextBatchesCase, seconds: float) -> list[Line]:
    """Seconds of a text: against one at a time, and against batches in the order of the list.

    With the one thread of an actor; the encoder is in memory.

    Raises:
        ValueError: If the ways do not agree.
    """
    ledger = ModelLedger("tiny", CPU)
    texts = captions(case)
    by_length = sorted(texts, key=lambda text: (len(text), text))

    def encoded(texts: Sequence[str], size: int) -> dict[str, Tensor]:
        return {
            text: one.video
            for start in range(0, len(texts), size)
            for batch in (texts[start : start + size],)
            for text, one in zip(batch, phases.features(ledger, batch), strict=True)
        }

    def ours() -> dict[str, Tensor]:
        return encoded(by_length, case.batch)

    lines: list[Line] = []
    with threads(1):
        expected = _joined(ours(), texts)
        for baseline, size in (("one at a time", 1), ("batches in any order", case.batch)):
            theirs = partial(encoded, texts, size)
            found = difference(_joined(theirs(), texts), expected)
            both = race(ours, theirs, seconds)
            each = Race(both.ours / len(texts), both.theirs / len(texts))
            lines.append({"threads": 1, "difference": found, **each.line(baseline)})
    return lines


def _joined(features: Mapping[str, Tensor], texts: Sequence[str]) -> Tensor:
    return torch.cat([features[text] for text in texts])


def captions(case: TextBatchesCase) -> list[str]:
    """Different texts whose lengths are spread evenly by their logarithm, in no order.

    The tiny model has a token for each letter.
    """
    random = Random(0)
    bounds = math.log(case.shortest), math.log(case.longest)
    lengths = [round(math.exp(random.uniform(*bounds))) for _ in range(case.texts)]
    # White space around a text is dropped.
    return ["a" + "".join(random.choices(_LETTERS, k=length - 2)) + "z" for length in lengths]
