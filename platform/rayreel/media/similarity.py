"""How much two clips, or two pictures, are alike."""

import math
import re
import tempfile
from pathlib import Path

import av
from av.filter.context import FilterContext
from torch import Tensor

_ALL = re.compile(r"\bAll:(\S+)")


def psnr_db(frames: Tensor, others: Tensor) -> float:
    """Peak signal to noise ratio over all pixels; infinite if they are the same.

    Args:
        frames: ``uint8`` of any shape.
        others: ``uint8`` of the same shape.

    Raises:
        ValueError: If the shapes differ.
    """
    _check(frames, others)
    mean = float((frames.int() - others.int()).square().double().mean()) / 255**2
    return 10 * math.log10(1 / mean) if mean else math.inf


def ssim(frames: Tensor, others: Tensor) -> float:
    """Structural similarity, up to 1: the mean over frames and colours, as ffmpeg measures it.

    Args:
        frames: RGB ``uint8`` ``(F, H, W, 3)``, at least 8 pixels high and wide.
        others: RGB ``uint8`` of the same shape.

    Raises:
        ValueError: If the shapes differ.

    Reference:
        Wang, Bovik, Sheikh and Simoncelli 2004, Image quality assessment: from error visibility to
        structural similarity.
    """
    _check(frames, others)
    height, width = frames.shape[1:3]
    with tempfile.TemporaryDirectory() as folder:
        # Older releases of PyAV do not show what filters write to frames.
        path = Path(folder) / "ssim.txt"
        graph = av.filter.Graph()
        size = f"video_size={width}x{height}:pix_fmt=gbrp:time_base=1/25"
        sources = [graph.add("buffer", size) for _ in range(2)]
        measure, sink = graph.add("ssim", f"stats_file={path}"), graph.add("buffersink")
        for place, source in enumerate(sources):
            source.link_to(measure, 0, place)
        measure.link_to(sink)
        graph.configure()
        for index, pair in enumerate(zip(frames, others, strict=True)):
            for source, frame in zip(sources, pair, strict=True):
                source.push(_planes(frame, index))
            _drain(sink)
        for source in sources:
            source.push(None)
        _drain(sink)
        # The file is whole when the filter is gone.
        del graph, sources, source, measure, sink
        found = [float(value) for value in _ALL.findall(path.read_text("ascii"))]
    assert len(found) == len(frames), "a line for each frame"
    return sum(found) / len(found)


def _check(frames: Tensor, others: Tensor) -> None:
    if frames.shape != others.shape:
        raise ValueError(
            f"expected frames of one shape, got {(*frames.shape,)}, {(*others.shape,)}"
        )


def _planes(frame: Tensor, index: int) -> av.VideoFrame:
    planes = av.VideoFrame.from_ndarray(frame.cpu().numpy(), format="rgb24").reformat(format="gbrp")
    planes.pts = index
    return planes


def _drain(sink: FilterContext) -> None:
    try:
        while True:
            sink.pull()
    except (av.BlockingIOError, av.EOFError):
        return
