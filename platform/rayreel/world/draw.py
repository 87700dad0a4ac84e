"""A scene as frames."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rayreel.world.motion import track
from rayreel.world.palette import BACKGROUND_RGB, RGB
from rayreel.world.scene import Scene, Thing
from rayreel.world.shapes import OUTLINES, REACH


def draw(scene: Scene, *, width: int, height: int, num_frames: int, fps: float) -> Tensor:
    """Frames of a scene: the same pixels for the same scene.

    Args:
        scene: What to draw.
        width: Pixels.
        height: Pixels.
        num_frames: Frames; the first one is at 0 s.
        fps: Frames per second.

    Returns:
        RGB ``uint8`` ``(num_frames, height, width, 3)``.
    """
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    # A line at a time is ten times as fast as a pixel at a time.
    frames[:] = np.tile(np.array(BACKGROUND_RGB[scene.background], np.uint8), (width, 1))
    times = np.arange(num_frames) / fps
    for thing in scene.things:
        _add(frames, thing, times)
    return torch.from_numpy(frames)


def draw_outlines(scene: Scene, *, width: int, height: int, num_frames: int, fps: float) -> Tensor:
    """What a scene's things cover, white on black; arguments and frames as of ``draw``."""
    frames = draw(scene, width=width, height=height, num_frames=num_frames, fps=fps)
    behind = torch.tensor(BACKGROUND_RGB[scene.background], dtype=torch.uint8)
    covered = (frames != behind).any(-1, keepdim=True)
    return covered.to(torch.uint8).mul(255).expand(-1, -1, -1, 3).contiguous()


def _add(frames: NDArray[np.uint8], thing: Thing, times: NDArray[np.float64]) -> None:
    """Draw a thing into frames, only where it is; edges of the frame are joined."""
    _, height, width, _ = frames.shape
    at = track(thing, times, aspect=width / height)
    radius = at.radius * min(width, height)
    reach = int(np.ceil(radius.max() * REACH[thing.shape])) + 1
    colour = np.array(RGB[thing.colour], np.float32)
    columns, x = _pixels(at.x * width, min(reach, width // 2), width)
    rows, y = _pixels(at.y * height, min(reach, height // 2), height)
    # In radii of each frame, as outlines are.
    scale = radius[:, None].astype(np.float32)
    distance = OUTLINES[thing.shape]((x / scale)[:, None, :], (y / scale)[:, :, None])
    cover = np.clip(np.float32(0.5) - distance * scale[:, :, None], 0, 1)[..., None]
    where = (np.arange(len(frames))[:, None, None], rows[:, :, None], columns[:, None, :])
    behind = frames[where].astype(np.float32)
    frames[where] = behind + cover * (colour - behind) + np.float32(0.5)


def _pixels(
    centres: NDArray[np.float64], reach: int, length: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Pixels about each centre along one axis, and how far from the centre their middles are."""
    first = np.floor(centres).astype(np.int64) - reach
    found = first[:, None] + np.arange(min(2 * reach + 1, length))
    offsets = found + 0.5 - centres[:, None]
    return found % length, offsets.astype(np.float32)
