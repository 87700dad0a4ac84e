"""Frames of a sample's source as they were when it was encoded."""

import torch
from torch import Tensor

from rayreel.config.encode import EncodeSpec
from rayreel.data.columns import SampleInfo
from rayreel.data.samples import Picture, Scan, Scene
from rayreel.data.sources import local_copy
from rayreel.errors import MediaError
from rayreel.media.frames import read_frames
from rayreel.pipelines.encoding import read_picture
from rayreel.runs.encoding.rows import ClipRow
from rayreel.runs.encoding.samples import Decisions
from rayreel.stages.scan import hash_file


def source_frames(info: SampleInfo, spec: EncodeSpec | None) -> Tensor:
    """What was encoded of a sample's picture.

    Args:
        info: Of a sample with a picture.
        spec: Of the job that encoded it, which says how pictures were cropped; without one, in
            the middle.

    Returns:
        RGB ``uint8`` ``(F, H, W, 3)``.

    Raises:
        MediaError: If the source cannot be read, or is not the file any more that was encoded.
    """
    with local_copy(info.source) as path:
        try:
            content = hash_file(path)
        except OSError as error:
            raise MediaError(f"cannot read {info.source}: {error.strerror}") from error
        if content != info.content:
            raise MediaError(f"{info.source} has changed since it was encoded")
        height, width = read_frames(path, start=info.start_frame, count=1).shape[1:3]
        picture = _picture(info, spec, width=width, height=height)
        pixels = read_picture(path, picture)
    # Rounded, as they were levels before: what a decoder makes is cut off.
    levels = pixels.add_(1).mul_(127.5).round_().to(torch.uint8)
    return levels.movedim(0, -1).contiguous()


def _picture(info: SampleInfo, spec: EncodeSpec | None, *, width: int, height: int) -> Picture:
    """The part of the source that the job chose: decided again, for the one bucket."""
    bucket = info.bucket
    assert bucket, "it has a picture"
    framing = {"crop": spec.crop, "seed": spec.seed} if spec else {}
    again = EncodeSpec.model_validate({"dataset": info.source, "buckets": [bucket], **framing})
    scan = Scan(
        content=info.content,
        kind="image" if bucket.num_frames == 1 else "video",
        width=width,
        height=height,
        num_frames=info.start_frame + bucket.num_frames,
        fps=info.fps or 1.0,
        scenes=(Scene(start=info.start_frame, num_frames=bucket.num_frames),),
    )
    row = ClipRow(number=info.row, name=info.name, caption="", media={"video": info.source})
    (candidate,) = Decisions(again).of(row, {info.source: scan})
    picture = candidate.media["video"]
    assert isinstance(picture, Picture), "it is what a video is encoded as"
    return picture
