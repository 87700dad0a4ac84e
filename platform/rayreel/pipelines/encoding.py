"""Media to what a dataset holds of them: pixels and sound to latents, masks to their size.

Letters: B batch, C channels, F frames, H height, W width, N samples, T latent steps of sound.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial
from pathlib import Path
from pickle import UnpicklingError

import torch
import torch.nn.functional as F
from torch import Tensor

from rayreel.checkpoints.files import ModelFiles
from rayreel.config.model import AudioVAEConfig
from rayreel.data.samples import Mask, Medium, Picture, Sound
from rayreel.errors import MediaError
from rayreel.media.audio import read_audio
from rayreel.media.frames import iterate_frames
from rayreel.media.framing import resize_each
from rayreel.media.image import is_still
from rayreel.models.audio_vae import log_mel, resample, to_stereo
from rayreel.models.audio_vae.tiled import encode_mel, latent_frames
from rayreel.models.tiling import Axis, Grid, Slices, Span, TilePlan, blend, trapezoid
from rayreel.models.video_vae import VideoEncoder
from rayreel.models.video_vae.encoder import latent_shape
from rayreel.pipelines.ledger import ModelLedger
from rayreel.types import Audio, ScaleFactors

TILE_PIXELS = 512
OVERLAP_PIXELS = 128
"""Tiles that large pictures are encoded in for training, and what neighbours share."""

# Durations are quotients: less than this short of a whole sample is a rounding error.
_SAMPLE_SLACK = 1e-6

Read = tuple[Tensor, str | None]
"""What was read, and what was amiss with it."""


def read_medium(path: Path, medium: Medium, files: ModelFiles) -> Read:
    """Read what is to be encoded, or a mask at its final size.

    Args:
        path: Local copy of the medium's source.
        medium: A part of it.
        files: The model that it is for.

    Returns:
        As of the function for its kind below, on the CPU.

    Raises:
        MediaError: If the file is not what it must be.
    """
    match medium:
        case Picture():
            return read_picture(path, medium), None
        case Sound():
            return read_sound(path, medium, files.audio_vae)
        case Mask(of=Picture()):
            return read_video_mask(path, medium, files.factors), None
        case Mask():
            return read_audio_mask(path, medium, files.audio_vae)


def read_picture(path: Path, picture: Picture) -> Tensor:
    """Frames as the video encoder takes them.

    Args:
        path: Local copy of the source.
        picture: Which frames, their size, and what of it is kept.

    Returns:
        Float32 ``(3, F, H, W)`` in [-1, 1] of the bucket's size.

    Raises:
        MediaError: If the file cannot be read, or has fewer frames.
    """
    height, width, count = picture.bucket.height, picture.bucket.width, picture.bucket.num_frames
    pixels = torch.empty(3, count, height, width)
    # One by one: frames at their own size would take many times the memory of the result.
    frames = _frames(path, picture, picture.source, start=picture.start)
    resized = resize_each(frames, height=height, width=width, crop=picture.crop)
    # Torch would start its threads for every frame, and have them wait for the next one.
    filled = pixels.numpy()
    for index, frame in enumerate(resized):
        filled[:, index] = frame.numpy()
    return pixels


def read_sound(path: Path, sound: Sound, config: AudioVAEConfig) -> Read:
    """A stretch of sound as the audio encoder takes it: in stereo, at its rate.

    Args:
        path: Local copy of the source.
        sound: The stretch; what the file lacks of it is silence, with a note.
        config: Of the audio VAE.

    Returns:
        Float32 ``(2, N)``. Stretches of one duration give as many mel frames, whatever the rates
        of their files.

    Raises:
        MediaError: If the file cannot be read or has no sound, or the stretch is too short.
    """
    rate, stft = config.sample_rate_hz, config.preprocessing.stft
    samples = num_samples(sound.duration_s, rate)
    if samples <= stft.filter_length // 2:
        raise MediaError(
            f"{sound.duration_s:g} s of the sound of {sound.source} are too short to encode; "
            f"expected more than {stft.filter_length / 2 / rate:g} s"
        )
    audio, note = _stretch(path, sound.source, sound)
    waveform = resample(to_stereo(audio.waveform), audio.sample_rate_hz, rate)
    if waveform.shape[1] // stft.hop_length != samples // stft.hop_length:
        # Rounding once at either rate can make a sample of difference, and so a frame.
        waveform = F.pad(waveform, (0, samples - waveform.shape[1]))
    return waveform, note


def read_video_mask(path: Path, mask: Mask, factors: ScaleFactors) -> Tensor:
    """What of a picture is kept, by latent position.

    The mask is brought to the size of the picture without a crop: it shows what is left of the
    picture after that.

    Args:
        path: Local copy of an image, which stands for all frames, or of a video.
        mask: Of a picture.
        factors: Pixels per latent position.

    Returns:
        Float32 ``(F, H, W)``: 1 where white, 0 where black.

    Raises:
        MediaError: If the file cannot be read, or has fewer frames than the picture.
    """
    picture = mask.of
    assert isinstance(picture, Picture), "its caller tells them apart"
    bucket, still = picture.bucket, is_still(path)
    resize = partial(F.interpolate, size=(bucket.height, bucket.width))
    if still:
        resize = partial(resize, mode="bilinear", antialias=True)
    frames = (
        iterate_frames(path, count=1)
        if still
        else _frames(path, picture, mask.source, start=mask.start)
    )
    means = [F.avg_pool2d(resize(_brightness(frame)), factors[1:])[0] for frame in frames]
    whole = torch.cat(means).expand(bucket.num_frames, -1, -1)
    return in_latent_frames(whole, factors.time)


def in_latent_frames(means: Tensor, time_factor: int) -> Tensor:
    """A mask of pixel frames as one of latent frames.

    Groups are of consecutive frames from the first one on, the last filled up with black: so the
    published tools make them, although the first latent frame stands for one pixel frame alone.

    Args:
        means: ``(F, H, W)`` in [0, 1] by latent position, of 8k + 1 frames.
        time_factor: Pixel frames per latent frame.

    Returns:
        Float32 ``(k + 1, H, W)`` of 0 and 1.
    """
    latents = (len(means) - 1) // time_factor + 1
    filled = F.pad(means, (0, 0, 0, 0, 0, latents * time_factor - len(means)))
    groups = filled.reshape(latents, time_factor, *means.shape[1:])
    return (groups.amax(dim=1) > 0.5).float()


def read_audio_mask(path: Path, mask: Mask, config: AudioVAEConfig) -> Read:
    """What of a sound is kept, by latent step.

    Args:
        path: Local copy of a sound, of which the same stretch counts; or, if the source is called
            ``.pt``, of a tensor, alone or in a dictionary, that stands for the whole stretch.
        mask: Of a sound.
        config: Of the audio VAE.

    Returns:
        Float32 ``(T,)``: 1 where values are more than a half.

    Raises:
        MediaError: If the file cannot be read or has no values.
    """
    sound = mask.of
    assert isinstance(sound, Sound), "its caller tells them apart"
    note = None
    if mask.source.endswith(".pt"):
        values = _saved_values(path, mask.source)
    else:
        audio, note = _stretch(path, mask.source, sound)
        values = audio.waveform.abs().mean(dim=0)
    steps = sound_steps(config, sound.duration_s)
    nearest = F.interpolate(values[None, None], size=steps, mode="nearest")[0, 0]
    return (nearest > 0.5).float(), note


def num_samples(duration_s: float, rate_hz: int) -> int:
    """Whole samples of a duration."""
    return int(duration_s * rate_hz + _SAMPLE_SLACK)


def sound_steps(config: AudioVAEConfig, duration_s: float) -> int:
    """Latent steps T that a stretch of sound is encoded to."""
    samples = num_samples(duration_s, config.sample_rate_hz)
    return latent_frames(config, 1 + samples // config.preprocessing.stft.hop_length)


@torch.inference_mode()
def encode_pictures(
    ledger: ModelLedger, pixels: Sequence[Tensor], *, tiled: bool, fill: float = 1
) -> list[Tensor]:
    """Encode pictures, those of one size in one batch.

    Args:
        ledger: For the video encoder.
        pixels: ``(3, F, H, W)`` in [-1, 1] each.
        tiled: Whether those with a side of more than 512 pixels are encoded in tiles.
        fill: Batches are filled up to so many times their size, since the last bits of a result
            depend on the shape of its batch: so a part of one gives what the whole one gives.

    Returns:
        Latents ``(C, F, H, W)`` on the CPU, in the ledger's dtype and in order.

    Raises:
        ValueError: If a size does not fit the encoder.
    """
    with ledger.video_encoder() as encoder:

        def encode(batch: Tensor) -> Tensor:
            video = batch.to(ledger.device, ledger.dtype)
            latents: Tensor = _encode_in_tiles(encoder, video) if tiled else encoder(video)
            return latents

        return _by_shape(pixels, encode, fill)


@torch.inference_mode()
def encode_sounds(
    ledger: ModelLedger, waveforms: Sequence[Tensor], *, fill: float = 1
) -> list[Tensor]:
    """Encode sounds, those of as many mel frames in one batch.

    Args:
        ledger: For the audio encoder; computes in float32, as the published tools encode sound.
        waveforms: Float32 ``(2, N)`` in [-1, 1] each, at the encoder's rate.
        fill: As for pictures.

    Returns:
        Float32 latents ``(C, T, bins)`` on the CPU, in order.

    Raises:
        ValueError: If the ledger computes in another dtype, or a waveform is too short.
    """
    if ledger.dtype != torch.float32:
        raise ValueError(f"sound is encoded in float32; this ledger computes in {ledger.dtype}")
    config = ledger.files.audio_vae
    mels = [log_mel(waveform.to(ledger.device), config) for waveform in waveforms]
    with ledger.audio_encoder() as encoder:
        return _by_shape(mels, lambda batch: encode_mel(encoder, batch), fill)


def training_tiles(grid: Grid, factors: ScaleFactors) -> TilePlan:
    """The tiles that large pictures are encoded in for training.

    Unlike those of ``encode_plan`` all have the same size: the last one is moved back to the edge,
    and only its first positions blend with the tile before.

    Args:
        grid: Latent frames, height and width.
        factors: Pixels per latent position.
    """
    frames, height, width = grid
    pixel_frames = (frames - 1) * factors.time + 1
    whole = Span(source=slice(0, pixel_frames), target=slice(0, frames), mask=torch.ones(frames))
    return TilePlan(
        time=Axis((whole,)),
        height=_tiles(height, factors.height),
        width=_tiles(width, factors.width),
    )


def _tiles(extent: int, factor: int) -> Axis:
    size, overlap = TILE_PIXELS // factor, OVERLAP_PIXELS // factor
    last = max(0, extent - size)
    spans = []
    for start in (*range(0, last, size - overlap), last):
        end = min(start + size, extent)
        left, right = (overlap if start else 0), (overlap if end < extent else 0)
        span = Span(
            source=slice(start * factor, end * factor),
            target=slice(start, end),
            mask=trapezoid(end - start, left, right),
        )
        spans.append(span)
    return Axis(tuple(spans))


def _encode_in_tiles(encoder: VideoEncoder, video: Tensor) -> Tensor:
    shape = latent_shape(video, encoder.factors, encoder.latent_channels)
    plan = training_tiles((shape.frames, shape.height, shape.width), encoder.factors)

    def encode(tile: Slices) -> Tensor:
        latents: Tensor = encoder(video[:, :, *tile])
        return latents

    return torch.cat(list(blend(plan, encode)), dim=2)


def _by_shape(
    inputs: Sequence[Tensor], encode: Callable[[Tensor], Tensor], fill: float
) -> list[Tensor]:
    """Results in order, of inputs of one shape from one call."""
    shapes: dict[Hashable, list[int]] = {}
    for index, one in enumerate(inputs):
        shapes.setdefault(one.shape, []).append(index)
    results: dict[int, Tensor] = {}
    for indices in shapes.values():
        batch = [inputs[index] for index in indices]
        nothing = torch.zeros_like(batch[0])
        batch += [nothing] * (round(fill * len(batch)) - len(batch))
        encoded = encode(torch.stack(batch)).cpu()
        # Copies: a view would keep the whole batch.
        results |= {index: encoded[place].clone() for place, index in enumerate(indices)}
    return [results[index] for index in range(len(inputs))]


def _frames(path: Path, picture: Picture, source: str, *, start: int) -> Iterator[Tensor]:
    """As many frames of a file as a picture has; raises ``MediaError`` where there are fewer."""
    expected, found = picture.bucket.num_frames, 0
    for frame in iterate_frames(path, start=start, count=expected, stride=picture.stride):
        yield frame
        found += 1
    if found < expected:
        stride = f", one of {picture.stride}," if picture.stride > 1 else ""
        raise MediaError(
            f"{source} has {found} frames{stride} from frame {start} on; expected {expected}"
        )


def _stretch(path: Path, source: str, sound: Sound) -> tuple[Audio, str | None]:
    """Exactly the samples of a stretch, filled up with silence."""
    audio = read_audio(path, start_s=sound.start_s, max_duration_s=sound.duration_s)
    if audio is None:
        raise MediaError(f"{source} has no sound")
    if not audio.waveform.isfinite().all():
        raise MediaError(f"the sound of {source} has samples that are not finite numbers")
    rate = audio.sample_rate_hz
    lacking = num_samples(sound.duration_s, rate) - audio.waveform.shape[1]
    # Reading rounds to the nearest sample, so there can be one too many.
    audio = Audio(waveform=F.pad(audio.waveform, (0, lacking)), sample_rate_hz=rate)
    if lacking <= 0:
        return audio, None
    # Without the source: what is found by its content may lie elsewhere too.
    return audio, f"its sound lacks the last {lacking / rate:.3g} s: silence"


def _saved_values(path: Path, source: str) -> Tensor:
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    # What is raised for files that are none, or hold more than tensors.
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        raise MediaError(f"cannot read the mask {source}: {error}") from error
    if isinstance(saved, dict):
        saved = saved.get("mask", next(iter(saved.values()), None))
    if not isinstance(saved, Tensor) or not saved.numel():
        raise MediaError(f"the mask {source} holds no tensor with values")
    return saved.flatten().float()


def _brightness(frame: Tensor) -> Tensor:
    """RGB ``uint8`` ``(H, W, 3)`` to float32 ``(1, 1, H, W)`` in [0, 1]."""
    return frame.float().mean(dim=-1)[None, None] / 255
