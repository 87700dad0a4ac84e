"""One MP4 from frames and sound: H.264 and AAC, the same bytes for the same clip."""

from collections.abc import Iterable, Iterator
from contextlib import closing
from fractions import Fraction
from heapq import merge
from itertools import chain
from pathlib import Path

import av
import torch
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from av.video.stream import VideoStream
from torch import Tensor

from rayreel.errors import MediaError
from rayreel.media.container import create_mp4
from rayreel.media.sound import AnyPacket, as_stream, encode_aac, pcm_blocks
from rayreel.media.yuv import rgb_to_i420
from rayreel.types import Clip, ClipStream, SoundStream

# Without cpu-independent, the rates that x264 gives to blocks differ from run to run.
X264_OPTIONS = {"preset": "veryfast", "x264-params": "cpu-independent=1"}


def write_clip(path: str | Path, clip: Clip | ClipStream, *, crf: int = 19) -> None:
    """Write a clip as MP4 (H.264, BT.709 limited range; AAC stereo) that plays while it downloads.

    The file has exactly the clip's frames at exactly its frame rate. Sound that is longer than the
    frames is cut to their duration; shorter sound stays as it is. Frames and sound of a stream are
    read in step, as they are encoded, and how they are cut into chunks does not change the file;
    however writing ends, the stream is closed.

    Args:
        path: Local file to write; its folder exists.
        clip: Frames on any device, with even height and width; sound, if any, in stereo.
        crf: Constant rate factor of x264: 0 is lossless, 51 the worst.

    Raises:
        MediaError: If the clip cannot be encoded.
        OSError: If the file cannot be written.
        ValueError: If the frames are no uint8 RGB or a chunk of sound no float stereo, or either is
            not as long as the stream announces.
    """
    stream = clip.stream() if isinstance(clip, Clip) else clip
    with closing(stream):
        first = next(stream.frames, torch.empty(0, 0, 0, 3, dtype=torch.uint8))
        _check_frames(path, first)
        sound = None if stream.audio is None else as_stream(path, stream.audio)
        _write(path, stream, sound, first, crf)


def _write(
    path: str | Path, clip: ClipStream, sound: SoundStream | None, first: Tensor, crf: int
) -> None:
    rate = frame_rate(clip.fps)
    with create_mp4(
        path, kind="mp4", sample_rate_hz=sound.sample_rate_hz if sound else None
    ) as output:
        video = output.add_stream("libx264", rate=rate, options=X264_OPTIONS | {"crf": str(crf)})
        video.height, video.width = first.shape[1:3]
        tracks = [_encode_video(video, _frames(clip, chain([first], clip.frames)), rate)]
        if sound:
            audio = output.add_stream("aac", rate=sound.sample_rate_hz, layout="stereo")
            keep = round(clip.num_frames / rate * sound.sample_rate_hz)
            tracks.append(encode_aac(audio, pcm_blocks(path, sound, keep=keep)))
        for packet in merge(*tracks, key=_decoding_time):
            output.mux(packet)


def frame_rate(fps: float) -> Fraction:
    """Exact frame rate that a float stands for, such as 30000/1001 for 29.97002997.

    Raises:
        MediaError: If ``fps`` is not a positive number.
    """
    # 1001 is the denominator of the NTSC rates, the only common ones that floats cannot hold.
    if not 1 / 1001 <= fps < float("inf"):
        raise MediaError(f"fps={fps} is not a frame rate")
    return Fraction(fps).limit_denominator(1001)


def _check_frames(path: str | Path, chunk: Tensor) -> None:
    if chunk.dtype != torch.uint8 or chunk.dim() != 4 or chunk.shape[-1] != 3:
        raise ValueError(
            f"frames must be uint8 (F, H, W, 3), not {chunk.dtype} {tuple(chunk.shape)}"
        )
    frames, height, width, _ = chunk.shape
    if frames == 0 or height == 0 or width == 0 or height % 2 or width % 2:
        raise MediaError(
            f"cannot encode {path}: {frames} frames of {width}x{height}; H.264 in yuv420p needs at "
            "least one frame, and an even width and height"
        )


def _frames(stream: ClipStream, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
    """Single frames, checked to be alike and as many as announced."""
    count = 0
    size: torch.Size | None = None
    for chunk in chunks:
        size = size or chunk.shape[1:]
        if chunk.dtype != torch.uint8 or chunk.shape[1:] != size:
            raise ValueError(
                f"frames from {count} on are {chunk.dtype} {tuple(chunk.shape[1:])}; all must be "
                f"torch.uint8 {tuple(size)}, like the first"
            )
        count += len(chunk)
        if count > stream.num_frames:
            break
        yield from chunk
    if count != stream.num_frames:
        raise ValueError(
            f"the stream announced {stream.num_frames} frames and gave {count}"
            f"{' or more' if count > stream.num_frames else ''}"
        )


def _encode_video(
    stream: VideoStream, frames: Iterable[Tensor], rate: Fraction
) -> Iterator[AnyPacket]:
    stream.pix_fmt = "yuv420p"
    # x264's output depends on its thread count.
    stream.thread_count = 1
    stream.codec_context.color_range = ColorRange.MPEG
    stream.codec_context.colorspace = Colorspace.ITU709
    stream.codec_context.color_primaries = ColorPrimaries.BT709
    stream.codec_context.color_trc = ColorTrc.BT709
    for index, pixels in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(rgb_to_i420(pixels).cpu().numpy(), format="yuv420p")
        frame.color_range, frame.colorspace = ColorRange.MPEG, Colorspace.ITU709
        # The stream's own time base changes when the header is written.
        frame.pts, frame.time_base = index, 1 / rate
        yield from stream.encode(frame)
    yield from stream.encode()


def _decoding_time(packet: AnyPacket) -> Fraction:
    assert packet.dts is not None, "encoders set it"
    return packet.dts * packet.time_base
