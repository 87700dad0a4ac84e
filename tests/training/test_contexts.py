"""Texts are read once, as long as there is memory for what came of them."""

import pytest
import torch
from torch import nn

from rayreel.training.contexts import Contexts
from rayreel.training.example import Batch
from rayreel.types import TextContext, TextFeatures


class Reader(nn.Module):
    """Connectors that count: the context of a text is what is in it, doubled."""

    def __init__(self):
        super().__init__()
        self.read: list[float] = []

    def forward(self, features):
        self.read += [float(one.video[0, 0]) for one in features]
        return [TextContext(video=2 * one.video, audio=2 * one.audio) for one in features]


def batch(*samples: int) -> Batch:
    texts = (
        TextFeatures(video=torch.full((1, 4), 1.0 * n), audio=torch.ones(1, 2), length=4)
        for n in samples
    )
    return Batch(video=None, audio=None, texts=tuple(texts), samples=samples)


@pytest.fixture
def reader():
    return Reader()


def test_a_text_is_read_once_and_given_in_the_order_of_the_samples(reader):
    contexts = Contexts(reader, torch.float32)
    contexts.of(batch(1, 2))
    found = contexts.of(batch(3, 2, 1))
    assert [float(one.video[0, 0]) for one in found] == [6, 4, 2]
    assert reader.read == [1, 2, 3]


def test_the_oldest_make_room_when_memory_is_used_up(reader):
    # Each takes 24 bytes.
    contexts = Contexts(reader, torch.float32, most_bytes=50)
    for sample in (1, 2, 3, 2, 1):
        contexts.of(batch(sample))
    assert reader.read == [1, 2, 3, 1]


def test_a_batch_that_does_not_fit_is_whole_nonetheless(reader):
    found = Contexts(reader, torch.float32, most_bytes=0).of(batch(1, 2, 1))
    assert [float(one.video[0, 0]) for one in found] == [2, 4, 2]


def test_contexts_are_in_the_dtype_that_is_computed_in(reader):
    text = batch(1)
    assert Contexts(reader, torch.bfloat16).of(text)[0].video.dtype == torch.bfloat16
