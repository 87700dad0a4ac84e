"""Cuts between scenes, as PySceneDetect finds them in frames that we decode."""

from fractions import Fraction

import numpy as np
import pytest
import scenedetect
import torch

from rayreel.config.encode import SceneSpec
from rayreel.media.footage import examine
from rayreel.media.scenes import CutFinder
from tests.media.samples import write_video

COLOURS = [(200, 40, 40), (40, 200, 60), (30, 60, 220), (220, 220, 60)]


def scene(colour, num_frames, size=(36, 64)):
    """A drifting pattern, so that frames of a scene differ."""
    steps = torch.arange(size[1])[None, :] + torch.arange(num_frames)[:, None]
    waves = (20 * torch.sin(steps / 5))[:, None, :, None]
    return (torch.tensor(colour) + waves).expand(-1, *size, -1).clamp(0, 255).byte()


def cuts(frames, **spec):
    finder = CutFinder(SceneSpec(**spec), Fraction(24))
    for frame in frames:
        finder.show(frame.numpy())
    return finder.cuts()


@pytest.mark.parametrize("detector", ["content", "adaptive", "histogram"])
def test_cuts_are_where_the_picture_changes(detector):
    lengths = (20, 31, 17, 25)
    frames = torch.cat([scene(*pair) for pair in zip(COLOURS, lengths, strict=True)])
    assert cuts(frames, detector=detector) == (0, 20, 51, 68)


def test_fades_cut_in_the_middle_of_the_dark():
    dark = torch.zeros(10, 36, 64, 3, dtype=torch.uint8)
    frames = torch.cat([scene(COLOURS[0], 30), dark, scene(COLOURS[1], 30)])
    assert cuts(frames, detector="threshold") == (0, 35)
    assert cuts(frames[:35], detector="threshold") == (0,)


@pytest.mark.parametrize("detector", ["content", "adaptive", "threshold", "histogram"])
def test_one_scene_has_no_cuts(detector):
    assert cuts(scene(COLOURS[0], 40), detector=detector) == (0,)


@pytest.mark.parametrize(
    ("min_frames", "found"), [(1, (0, 20, 51, 56)), (8, (0, 20, 51)), (15, (0, 20))]
)
def test_a_short_scene_joins_its_neighbour(min_frames, found):
    lengths = (20, 31, 5, 4)
    frames = torch.cat([scene(*pair) for pair in zip(COLOURS, lengths, strict=True)])
    starts = cuts(frames, min_frames=min_frames)
    assert starts == found
    assert all(np.diff([*starts, len(frames)]) >= min_frames)


def test_a_threshold_says_how_much_has_to_change():
    frames = torch.cat([scene((100, 100, 100), 20), scene((130, 130, 130), 20)])
    assert cuts(frames) == (0,)
    assert cuts(frames, threshold=5) == (0, 20)
    assert cuts(frames, detector="adaptive", threshold=200) == (0,)


@pytest.mark.parametrize("size", [(36, 64), (540, 960), (900, 500)])
def test_cuts_of_a_file_are_those_that_scenedetect_finds_itself(tmp_path, size):
    path = tmp_path / "a.mp4"
    frames = torch.cat([scene(colour, 18, size) for colour in COLOURS[:3]])
    write_video(path, frames, codec="libx264", pix_fmt="yuv420p")
    theirs = scenedetect.detect(str(path), scenedetect.ContentDetector())
    ours = examine(path, SceneSpec()).cuts
    assert ours == tuple(start.frame_num for start, _ in theirs) == (0, 18, 36)
