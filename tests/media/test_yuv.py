import pytest
import torch

from rayreel.media.yuv import rgb_to_i420


def planes(colour: tuple[int, int, int]) -> list[int]:
    frame = torch.tensor(colour, dtype=torch.uint8).expand(4, 6, 3)
    flat = rgb_to_i420(frame).flatten()
    parts = flat.split([24, 6, 6])
    assert all(len(part.unique()) == 1 for part in parts)
    return [int(part[0]) for part in parts]


@pytest.mark.parametrize(
    ("colour", "expected"),
    [
        ((255, 255, 255), [235, 128, 128]),
        ((0, 0, 0), [16, 128, 128]),
        ((127, 127, 127), [125, 128, 128]),
        ((255, 0, 0), [62, 102, 240]),
    ],
)
def test_known_colours(colour, expected):
    assert planes(colour) == expected


def test_greys_have_no_tint():
    assert {tuple(planes((level,) * 3)[1:]) for level in range(256)} == {(128, 128)}


def test_chroma_is_the_mean_of_four_pixels():
    frame = torch.zeros(2, 2, 3, dtype=torch.uint8)
    frame[0, 0] = torch.tensor([255, 0, 0], dtype=torch.uint8)
    luma, chroma = rgb_to_i420(frame).flatten().split([4, 2])
    assert luma.tolist() == [62, 16, 16, 16]
    # A quarter of red's distance from neutral: 128 - 25.67 / 4 and 128 + 112 / 4, truncated.
    assert chroma.tolist() == [121, 156]
