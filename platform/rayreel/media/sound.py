"""Sound as files hold it: 16-bit samples, WAV, and AAC whose bytes do not depend on the chunks."""

import wave
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, TypeAlias

import av
import numpy as np
import torch
from av.audio.stream import AudioStream
from av.packet import Packet
from numpy.typing import NDArray
from torch import Tensor

from rayreel.errors import MediaError
from rayreel.media.container import create_mp4
from rayreel.types import Audio, SoundStream

BLOCK_SAMPLES = 1024
"""Samples that are encoded at once: a frame of AAC."""

WAV_HEADER_BYTES = 44

AAC_RATES_HZ = (
    *(96000, 88200, 64000, 48000, 44100, 32000, 24000),
    *(22050, 16000, 12000, 11025, 8000, 7350),
)
"""Sampling rates that AAC can be written with."""

# PyAV's packets are generic for type checkers only.
AnyPacket: TypeAlias = "Packet[Any]"


def write_sound(
    path: str | Path,
    audio: Audio | SoundStream,
    *,
    format: Literal["wav", "m4a"],  # noqa: A002 - the word for it, as in PyAV and Pillow
) -> None:
    """Write a sound alone: the same bytes for the same sound, and exactly its samples.

    However writing ends, a stream is closed. How it is cut into chunks does not change the file.

    Args:
        path: Local file to write; its folder exists.
        audio: Sound in stereo, on any device. Samples outside [-1, 1] are clipped.
        format: ``wav`` holds 16-bit samples; ``m4a`` AAC, in a file that plays while it downloads.

    Raises:
        MediaError: If the sound cannot be encoded.
        OSError: If the file cannot be written.
        ValueError: If chunks are no float stereo, or not as long as the stream announces.
    """
    stream = as_stream(path, audio)
    with closing(stream.chunks):
        blocks = pcm_blocks(path, stream)
        if format == "wav":
            _write_wav(path, blocks, stream)
            return
        rate = stream.sample_rate_hz
        with create_mp4(path, kind="ipod", sample_rate_hz=rate) as output:
            for packet in encode_aac(output.add_stream("aac", rate=rate, layout="stereo"), blocks):
                output.mux(packet)


def as_stream(path: str | Path, audio: Audio | SoundStream) -> SoundStream:
    """A sound that is to be encoded, as a stream.

    Raises:
        MediaError: If it has no samples, or a whole sound is not in stereo or not finite.
    """
    if isinstance(audio, Audio):
        shape = tuple(audio.waveform.shape)
        if len(shape) != 2 or shape[0] != 2 or shape[1] == 0:
            raise MediaError(
                f"cannot encode {path}: audio must be stereo (2, samples), not {shape}"
            )
        _check_finite(path, audio.waveform)
        return audio.stream()
    if audio.num_samples < 1:
        audio.chunks.close()
        raise MediaError(f"cannot encode {path}: audio of {audio.num_samples} samples")
    return audio


def pcm_blocks(
    path: str | Path, sound: SoundStream, *, keep: int | None = None
) -> Generator[NDArray[np.int16], None, None]:
    """16-bit samples of a sound, read no sooner than they are needed.

    Args:
        path: File that they are for; errors name it.
        sound: Where they come from.
        keep: Samples to return at most; what follows is read, checked and left out.

    Yields:
        ``(1024, 2)``; the last block may be shorter.

    Raises:
        MediaError: If a sample is not a finite number.
        ValueError: If chunks are no float stereo, or not as long as the stream announces.
    """
    keep = sound.num_samples if keep is None else keep
    count = 0
    rest = np.zeros((0, 2), np.int16)
    for chunk in sound.chunks:
        if not chunk.is_floating_point() or chunk.dim() != 2 or chunk.shape[0] != 2:
            raise ValueError(
                f"sound from sample {count} on is {chunk.dtype} {tuple(chunk.shape)}; it must be "
                "floating point (2, samples)"
            )
        _check_finite(path, chunk)
        rest = np.concatenate([rest, _to_pcm(chunk[:, : max(keep - count, 0)])])
        count += chunk.shape[1]
        if count > sound.num_samples:
            break
        whole = len(rest) // BLOCK_SAMPLES * BLOCK_SAMPLES
        yield from rest[:whole].reshape(-1, BLOCK_SAMPLES, 2)
        rest = rest[whole:]
    if count != sound.num_samples:
        raise ValueError(
            f"the stream announced {sound.num_samples} samples and gave {count}"
            f"{' or more' if count > sound.num_samples else ''}"
        )
    if len(rest):
        yield rest


def encode_aac(stream: AudioStream, blocks: Iterable[NDArray[np.int16]]) -> Iterator[AnyPacket]:
    """Encode blocks of 16-bit stereo ``(samples, 2)`` as they are asked for."""
    position = 0
    for block in blocks:
        interleaved = np.ascontiguousarray(block).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(interleaved, format="s16", layout="stereo")
        frame.sample_rate = stream.rate
        frame.pts, frame.time_base = position, Fraction(1, stream.rate)
        position += len(block)
        yield from stream.encode(frame)
    yield from stream.encode()


def _write_wav(path: str | Path, blocks: Iterable[NDArray[np.int16]], sound: SoundStream) -> None:
    num_bytes = WAV_HEADER_BYTES + 4 * sound.num_samples
    if num_bytes >= 2**32:
        raise MediaError(
            f"cannot encode {path}: {sound.num_samples} samples take {num_bytes} bytes and WAV "
            "holds less than 4 GiB; m4a does"
        )
    with Path(path).open("wb") as raw, wave.open(raw, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(sound.sample_rate_hz)
        file.setnframes(sound.num_samples)
        for block in blocks:
            file.writeframesraw(block.astype("<i2", copy=False).tobytes())


def _check_finite(path: str | Path, waveform: Tensor) -> None:
    if not waveform.isfinite().all():
        raise MediaError(f"cannot encode {path}: audio has samples that are not finite numbers")


def _to_pcm(waveform: Tensor) -> NDArray[np.int16]:
    """``(2, samples)`` to ``(samples, 2)``."""
    scaled = waveform.detach().cpu().float().clamp(-1, 1) * 32767
    return scaled.to(torch.int16).T.numpy()
