"""Media files made on the spot."""

import wave
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from av.video.stream import VideoStream
from torch import Tensor


def grey_levels(num_frames: int, height: int = 16, width: int = 32) -> Tensor:
    """Frames whose number is their brightness."""
    levels = torch.arange(num_frames, dtype=torch.uint8)
    return levels[:, None, None, None].expand(num_frames, height, width, 3).contiguous()


def write_video(
    path: Path,
    frames: Tensor,
    *,
    codec: str = "ffv1",
    pix_fmt: str = "bgr0",
    setup: Callable[[VideoStream], None] | None = None,
    times: Sequence[int] | None = None,
) -> None:
    """RGB ``uint8`` ``(F, H, W, 3)`` at 24 frames per second; lossless unless told otherwise.

    ``times``: when each frame is shown, in 24ths of a second; by default one after the other.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=24)
        assert isinstance(stream, VideoStream)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        if setup:
            setup(stream)
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels.numpy(), format="rgb24")
            frame.pts, frame.time_base = times[index] if times else index, Fraction(1, 24)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_wav(path: Path, samples: np.ndarray, rate: int = 8000) -> None:
    """Integer samples ``(samples, channels)``."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(samples.dtype.itemsize)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
