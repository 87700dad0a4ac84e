"""Encoding long sound in tiles along time, and how far the networks see.

A tile reads more than it gives: what its ends changed is dropped, and what is left equals the
result of the whole. The numbers are positions at the ends of a tile that its being cut changes.

Letters: B batch, S stereo channels, T mel frames, M mel bins.
"""

import logging
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from rayreel.config.model import AudioNetworkConfig, AudioVAEConfig
from rayreel.models.audio_vae.encoder import AudioEncoder

log = logging.getLogger(__name__)

TILE_FRAMES = 500
"""Latent frames of a tile, 20 s in published models: clips up to this length are never cut."""


class Reach(NamedTuple):
    """Positions at the start and at the end of a tile that differ from those of the whole."""

    start: int
    end: int


def sees_everything(config: AudioNetworkConfig) -> bool:
    """Whether the network attends to all positions, so that no part can be computed alone."""
    resolutions = (config.resolution // 2**level for level in range(len(config.ch_mult)))
    attends = any(resolution in config.attn_resolutions for resolution in resolutions)
    return config.mid_block_add_attention or attends


def decoder_reach(config: AudioVAEConfig) -> Reach:
    """Mel frames that change if the latent is cut."""
    net = config.network
    reach = _after_convs(Reach(0, 0), 1 + _MIDDLE_CONVS, net)
    for level in reversed(range(len(net.ch_mult))):
        reach = _after_convs(reach, 2 * (net.num_res_blocks + 1), net)
        if level:
            start, end = _after_convs(Reach(2 * reach.start, 2 * reach.end), 1, net)
            # Of a causal result the first frame is left out.
            reach = Reach(start - 1 if _is_causal(net) else start, end)
    return _after_convs(reach, 1, net)


def encoder_reach(config: AudioVAEConfig) -> Reach:
    """Latent frames that change if the spectrogram is cut."""
    net = config.network
    reach = _after_convs(Reach(0, 0), 1, net)
    for level in range(len(net.ch_mult)):
        reach = _after_convs(reach, 2 * net.num_res_blocks, net)
        if level < len(net.ch_mult) - 1:
            # Three frames to one, two apart: padded at the start if causal, else at the end.
            start, end = reach
            causal = _is_causal(net)
            reach = Reach((start + (3 if causal else 1)) // 2, 0 if causal else (end + 2) // 2)
    return _after_convs(reach, _MIDDLE_CONVS + 1, net)


_MIDDLE_CONVS = 4


def _is_causal(config: AudioNetworkConfig) -> bool:
    return config.causality_axis == "height"


def _after_convs(reach: Reach, num_convs: int, config: AudioNetworkConfig) -> Reach:
    start, end = (2, 0) if _is_causal(config) else (1, 1)
    return Reach(reach.start + num_convs * start, reach.end + num_convs * end)


def encode_mel(encoder: AudioEncoder, mel_BSTM: Tensor) -> Tensor:
    """Encode a spectrogram, a long one in tiles; arguments and result as of the encoder."""
    if latent_frames(encoder.config, mel_BSTM.shape[2]) <= TILE_FRAMES:
        return encoder(mel_BSTM)
    if sees_everything(encoder.config.network):
        log.warning("the audio encoder has attention: long sound is encoded as a whole")
        return encoder(mel_BSTM)
    return torch.cat(list(tiled_audio_encode(encoder, mel_BSTM, TILE_FRAMES)), dim=2)


def tiled_audio_encode(
    encoder: AudioEncoder, mel_BSTM: Tensor, tile_frames: int
) -> Iterator[Tensor]:
    """Encode tile by tile.

    Args:
        encoder: Without attention.
        mel_BSTM: As the encoder takes it.
        tile_frames: Latent frames that a tile gives.

    Yields:
        Latents ``(B, C, frames, bins)`` that make up the whole along time.
    """
    factor, reach = encoder.config.downsample, encoder_reach(encoder.config)
    total = latent_frames(encoder.config, mel_BSTM.shape[2])
    # The last frame of a causal latent stands for its first mel frame alone.
    unused = factor - 1 if _is_causal(encoder.config.network) else 0
    for start in range(0, total, tile_frames):
        end = min(start + tile_frames, total)
        first, last = max(0, start - reach.start), min(total, end + reach.end)
        stop = mel_BSTM.shape[2] if last == total else factor * last - unused
        latent = encoder(mel_BSTM[:, :, factor * first : stop])
        yield latent[:, :, start - first : end - first]


def latent_frames(config: AudioVAEConfig, mel_frames: int) -> int:
    """Length of the latent of a spectrogram."""
    if _is_causal(config.network):
        return -(-mel_frames // config.downsample)
    return mel_frames // config.downsample
