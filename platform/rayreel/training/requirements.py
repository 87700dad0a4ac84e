"""What a strategy needs of a dataset: found wanting before any work starts."""

import logging
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rayreel.config.strategies import Streams, StreamSpec
from rayreel.errors import SpecError
from rayreel.training.shapes import LatentSize, Sizes

log = logging.getLogger(__name__)

COLUMNS = ("name", "parts", "fps", "reference_fps")
"""That are looked at here, beside sizes."""

_REMEDIES = {
    "video_latents": "encode clips with pictures, or train on sound alone",
    "audio_latents": "encode clips with sound and without skip: [audio], or train on pictures "
    "alone: strategy.audio: false (of a flexible strategy, leave audio out)",
    "reference_latents": "encode a list with a column reference_video, or train without references",
    "reference_audio_latents": "encode a list with a column reference_audio, or train without "
    "references",
    "video_mask": "encode a list with a column video_mask, or train without the condition mask",
    "audio_mask": "encode a list with a column audio_mask, or train without the condition mask",
    "text": "encode clips with captions, without skip: [text]",
}


def check_parts(uri: str, table: pa.Table, streams: Streams) -> None:
    """Whether every sample has the tensors that a strategy reads.

    Args:
        uri: Of the dataset.
        table: Columns of all samples, at least one.
        streams: Of the strategy.

    Raises:
        SpecError: Naming the tensor, how many samples lack it, and what can be done.
    """
    parts = table["parts"].combine_chunks()
    owners, named = pc.list_parent_indices(parts).to_numpy(), pc.list_flatten(parts)

    def having(part: str) -> NDArray[np.bool_]:
        found = np.zeros(len(table), dtype=np.bool_)
        found[owners[pc.equal(named, part).to_numpy(zero_copy_only=False)]] = True
        return found

    has = {part: having(part) for part in sorted(pc.unique(named).to_pylist())}
    none = np.zeros(len(table), dtype=np.bool_)
    both = has.get("text_video", none) & has.get("text_audio", none)
    texts = has.get("text", none) | both
    for part in _needed(streams):
        lacking = ~(texts if part == "text" else has.get(part, none))
        if lacking.any():
            there = ", ".join(f"{one} ({found.sum()})" for one, found in has.items())
            raise SpecError(
                f"{uri}: {lacking.sum()} of {len(table)} samples have no {part}, which the "
                f"strategy needs, such as {str(table['name'][lacking.argmax()])!r}; there are "
                f"{there or 'no tensors'}. To go on, {_REMEDIES[part]}"
            )


def check_lengths(uri: str, named: Mapping[Sizes, str], streams: Streams) -> None:
    """Whether prefix and suffix leave something to learn.

    Args:
        uri: Of the dataset.
        named: Name of a sample of each size.
        streams: Of the strategy.

    Raises:
        SpecError: Naming the shortest sample.
    """
    if streams.video:
        frames = {sizes.video[0]: name for sizes, name in named.items() if sizes.video}
        _check_shown(uri, "video", streams.video, frames, "latent frames")
    if streams.audio:
        steps = {sizes.audio: name for sizes, name in named.items() if sizes.audio}
        _check_shown(uri, "audio", streams.audio, steps, "steps of sound")


def reference_scales(uri: str, named: Mapping[Sizes, str]) -> tuple[int, int]:
    """Target pixels per reference pixel, and target frames per reference frame.

    A reference of a single frame fits any number of frames, as it lies at the start; without
    references, both are 1.

    Args:
        uri: Of the dataset.
        named: Name of a sample of each size.

    Raises:
        SpecError: If they are no whole numbers, or not the same for all samples.
    """
    space: dict[int, str] = {}
    time: dict[int, str] = {}
    for sizes, name in named.items():
        if sizes.video is None or sizes.reference is None:
            continue
        scales = _scales(sizes.video, sizes.reference)
        if scales is None:
            raise SpecError(
                f"{uri}: the latents of sample {name!r} are {_written(sizes.video)} (frames, "
                f"height, width) and those of its reference {_written(sizes.reference)}; expected "
                "height and width to be the same whole number of times as large, and frames after "
                "the first one a whole number of times as many. Encode references with "
                "reference.downscale and reference.stride"
            )
        space.setdefault(scales[0], name)
        if sizes.reference[0] > 1:
            time.setdefault(scales[1], name)
    for what, found in (("pixels", space), ("frames", time)):
        if len(found) > 1:
            listed = ", ".join(f"{scale} ({name!r})" for scale, name in sorted(found.items()))
            raise SpecError(
                f"{uri}: not all targets have the same number of {what} for one of their "
                f"references: {listed}; an adapter learns one. Encode all of them with one "
                "reference.downscale and reference.stride"
            )
    return next(iter(space), 1), next(iter(time), 1)


def compare_rates(uri: str, table: pa.Table, scale: int) -> None:
    """Warn of references that play at a rate of their own.

    Args:
        uri: Of the dataset.
        table: Columns of all samples.
        scale: Target frames per reference frame.
    """
    fps, own = (
        pc.fill_null(table[name], np.nan).to_numpy() / by
        for name, by in (("fps", scale), ("reference_fps", 1))
    )
    # Of a single frame, none is known or looked at.
    moving = pc.fill_null(table["reference_frames"], 0).to_numpy() > 1
    other = moving & (np.abs(fps - own) > fps / 100)
    if other.any():
        first = int(other.argmax())
        log.warning(
            "%s: %d references play at another rate than their targets, such as that of %r with %g "
            "frames per second instead of %g; they are placed in time as if they did not, as they "
            "are when clips are generated",
            *(uri, other.sum(), str(table["name"][first]), own[first], fps[first]),
        )


def _needed(streams: Streams) -> Iterator[str]:
    if streams.video:
        yield "video_latents"
        if streams.video.has_reference:
            yield "reference_latents"
        if streams.video.has_mask:
            yield "video_mask"
    if streams.audio:
        yield "audio_latents"
        if streams.audio.has_reference:
            yield "reference_audio_latents"
        if streams.audio.has_mask:
            yield "audio_mask"
    yield "text"


def _check_shown(
    uri: str, stream: str, spec: StreamSpec, lengths: Mapping[int, str], unit: str
) -> None:
    shown = sum(
        max((one.length for one in spec.conditions if one.type == kind), default=0)
        for kind in ("prefix", "suffix")
    )
    shortest = min(lengths)
    if shown and shortest <= shown:
        advice = f"show {shortest - 1} at most" if shortest > 1 else "show none"
        raise SpecError(
            f"{uri}: prefix and suffix of strategy.{stream} show {shown} {unit}, so nothing is "
            f"left to learn of samples such as {lengths[shortest]!r}, which have {shortest}; "
            f"{advice}, or encode longer clips"
        )


def _scales(video: LatentSize, reference: LatentSize) -> tuple[int, int] | None:
    """Space and time; ``None`` if they are no whole numbers."""
    (frames, height, width), (its_frames, its_height, its_width) = video, reference
    space, rest = divmod(height, its_height)
    if rest or width != space * its_width:
        return None
    if its_frames == 1:
        return space, 1
    time, rest = divmod(frames - 1, its_frames - 1)
    return None if rest or not time else (space, time)


def _written(size: LatentSize) -> str:
    return "x".join(map(str, size))
