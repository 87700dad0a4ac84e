"""The frames of a file, with their sound."""

from itertools import islice
from pathlib import Path

import numpy as np
import torch

from rayreel.errors import MediaError
from rayreel.media.audio import read_audio
from rayreel.media.container import open_media, video_stream
from rayreel.types import Clip


def read_clip(path: Path, *, max_frames: int | None = None) -> Clip:
    """Read a video and its sound.

    Args:
        path: A media file.
        max_frames: Frames to read at most; ``None`` for all.

    Returns:
        Frames at the file's own size and rate; sound at its own rate and with its own channels, no
        longer than the frames.

    Raises:
        MediaError: If the file cannot be read, or has no video.
    """
    with open_media(path) as container:
        stream, rate = video_stream(container, path)
        stream.thread_type = "AUTO"
        decoded = islice(container.decode(stream), max_frames)
        frames = [frame.to_ndarray(format="rgb24") for frame in decoded]
    if not frames:
        raise MediaError(f"the video of {path} has no frames")
    return Clip(
        frames=torch.from_numpy(np.stack(frames)),
        fps=float(rate),
        audio=read_audio(path, max_duration_s=float(len(frames) / rate)),
    )
