"""Decoding long sound in tiles along time.

A tile reads more than it gives: what its ends changed is dropped, and what is left equals the
result of the whole.

Letters: B batch, C channels, L latent frames, F bins.
"""

import logging
import math
from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

from rayreel.config.model import VocoderConfig
from rayreel.models.audio_vae.decoder import AudioDecoder
from rayreel.models.audio_vae.tiled import Reach, decoder_reach, sees_everything
from rayreel.models.vocoder.activation import RATIO, TAPS
from rayreel.models.vocoder.bandwidth import BandwidthExtendedVocoder
from rayreel.models.vocoder.generator import Vocoder

log = logging.getLogger(__name__)

# First and last convolution of a generator, both of kernel 7.
_OUTER_REACH = 3
# Up and down by two around an activation, with filters of 12 taps.
_SNAKE_REACH = (TAPS - RATIO) // 2


class VocoderTiming(NamedTuple):
    """How a vocoder maps mel frames to samples.

    Attributes:
        samples: Per mel frame.
        reach: Mel frames at the ends of a tile whose samples change if it is cut.
        alignment: Mel frames that tiles may start at a multiple of.
    """

    samples: int
    reach: Reach
    alignment: int


def tiled_audio_decode(
    decoder: AudioDecoder,
    vocoder: Vocoder | BandwidthExtendedVocoder,
    latent_BCLF: Tensor,
    tile_frames: int,
) -> Iterator[Tensor]:
    """Decode tile by tile; a decoder with attention makes its spectrogram as a whole.

    Args:
        decoder: Latent to mel spectrogram.
        vocoder: Mel spectrogram to waveform.
        latent_BCLF: Normalised latent.
        tile_frames: Latent frames whose sound a tile gives.

    Yields:
        Float32 waveforms ``(B, 2, samples)`` that make up the whole along time.
    """
    config, timing = decoder.config, vocoder_timing(vocoder)
    latent = latent_BCLF.to(decoder.dtype)
    mel = None
    if sees_everything(config.network):
        log.warning("the audio decoder has attention: its spectrogram is made as a whole")
        mel = decoder(latent)
    total = config.downsample * latent.shape[2]
    if config.network.causality_axis != "none":
        total -= config.downsample - 1
    step = math.lcm(config.downsample, timing.alignment)
    step *= max(1, config.downsample * tile_frames // step)
    for start in range(0, total, step):
        end = min(start + step, total)
        first = max(0, start - timing.reach.start) // timing.alignment * timing.alignment
        last = min(total, end + timing.reach.end)
        part = _decode(decoder, latent, first, last) if mel is None else mel[:, :, first:last]
        waveform = vocoder(part.to(vocoder.dtype)).float()
        yield waveform[..., (start - first) * timing.samples : (end - first) * timing.samples]


def _decode(decoder: AudioDecoder, latent: Tensor, first: int, last: int) -> Tensor:
    """Mel frames from ``first`` to ``last`` of what a latent is decoded to."""
    factor, reach = decoder.config.downsample, decoder_reach(decoder.config)
    # Frame j of what latents from l on give is frame ``factor * l + j`` of the whole.
    begin = max(0, (first - reach.start) // factor)
    # The last latent frame may stand for a single mel frame.
    end = -(-(last + factor - 1 + reach.end) // factor)
    mel = decoder(latent[:, :, begin:end])
    return mel[:, :, first - factor * begin : last - factor * begin]


def vocoder_timing(vocoder: Vocoder | BandwidthExtendedVocoder) -> VocoderTiming:
    """What the architecture of a vocoder says about its tiles."""
    if isinstance(vocoder, Vocoder):
        samples = math.prod(vocoder.config.upsample_rates)
        frames = -(-_generator_reach(vocoder.config, 0) // samples)
        return VocoderTiming(samples, Reach(frames, frames), alignment=1)
    low, bwe = vocoder.vocoder.config, vocoder.config
    low_samples, low_reach = math.prod(low.upsample_rates), _generator_reach(low, 0)
    # Its spectrogram looks back by a window. The interpolation beside it sees far less.
    hop = bwe.hop_length
    seen = (low_reach + bwe.win_size - hop, low_reach)
    samples = low_samples * bwe.output_sampling_rate // bwe.input_sampling_rate
    reach = Reach(*(-(-_generator_reach(bwe, -(-one // hop)) // samples) for one in seen))
    # Tiles start where a hop does.
    return VocoderTiming(samples, reach, alignment=hop // math.gcd(hop, low_samples))


def _generator_reach(config: VocoderConfig.Generator, frames: int) -> int:
    """Samples at one end that change if ``frames`` there are changed and nothing is beyond them."""
    snake = _SNAKE_REACH if config.resblock == "AMP1" else 0
    reach = frames + _OUTER_REACH
    for rate, kernel in zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True):
        reach = rate * (reach - 1) + kernel - (kernel - rate) // 2
        reach += max(
            sum(2 * snake + (size - 1) * dilation // 2 + (size - 1) // 2 for dilation in dilations)
            for size, dilations in zip(
                config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True
            )
        )
    return reach + snake + _OUTER_REACH
