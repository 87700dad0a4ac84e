from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from rayreel.media.joining import crossfaded


def overlapping(waveform: Tensor, lengths: list[int], fade: int) -> Iterator[Tensor]:
    start = 0
    for length in lengths:
        yield waveform[:, start : start + length]
        start += length - fade


@pytest.mark.parametrize("fade", [0, 1, 5])
@pytest.mark.parametrize("lengths", [[20], [20, 30, 11], [5, 5, 5], [40, 5, 9]])
def test_pieces_of_one_sound_give_that_sound(lengths, fade):
    total = sum(lengths) - fade * (len(lengths) - 1)
    waveform = torch.rand(2, total, generator=torch.Generator().manual_seed(0))
    joined = list(crossfaded(overlapping(waveform, lengths, fade), fade))
    assert torch.equal(torch.cat(joined, dim=1), waveform)
    assert all(part.shape[1] for part in joined)


def test_the_overlap_goes_linearly_from_one_piece_to_the_next():
    pieces = [torch.zeros(1, 5), torch.ones(1, 6)]
    joined = torch.cat(list(crossfaded(pieces, 3)), dim=1)
    assert joined[0].tolist() == [0, 0, 0.25, 0.5, 0.75, 1, 1, 1]


def test_only_the_overlap_is_held_back():
    read = []

    def watched() -> Iterator[Tensor]:
        for _ in range(10):
            read.append(100)
            yield torch.zeros(2, 100)

    given = 0
    for part in crossfaded(watched(), 10):
        given += part.shape[1]
        pending = sum(read) - 10 * (len(read) - 1) - given
        assert pending in (0, 10)
        assert part.shape[1] <= 90
    assert given == 10 * 100 - 9 * 10


def test_a_piece_that_is_shorter_than_the_fade_is_an_error():
    with pytest.raises(ValueError, match="piece 1 has 4 samples, fewer than the 5"):
        list(crossfaded([torch.zeros(2, 9), torch.zeros(2, 4)], 5))
    with pytest.raises(ValueError, match="fade=-1"):
        list(crossfaded([torch.zeros(2, 9)], -1))


def test_no_pieces_give_nothing():
    assert list(crossfaded([], 5)) == []
