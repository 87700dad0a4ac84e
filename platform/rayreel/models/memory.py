"""How much memory the networks need while they compute, besides their weights.

The numbers count the tensors that are alive at the worst moment of a forward pass without
gradients. They leave out the inputs, what kernels allocate inside, and what the allocator rounds up
to or keeps: leave a fifth of the device free. Attention is taken to store no scores.
"""

import functools
import math

import torch

from rayreel.config.model import (
    AudioVAEConfig,
    TextConfig,
    TransformerConfig,
    UpsamplerConfig,
    VocoderConfig,
)
from rayreel.models.feed_forward import CHUNK
from rayreel.models.upsampler import RATIOS
from rayreel.models.vocoder.activation import RATIO
from rayreel.models.vocoder.generator import Generator
from rayreel.types import VideoLatentShape

FLOAT32_BYTES = 4


def transformer_bytes(
    config: TransformerConfig,
    *,
    batch: int,
    video_tokens: int,
    audio_tokens: int,
    text_tokens: int,
    itemsize: int,
    per_token: bool,
) -> int:
    """Peak of the transformer; the number of its blocks does not matter.

    Args:
        config: Its architecture.
        batch: Samples of a forward pass: requests times guidance passes.
        video_tokens: Per sample; 0 without video.
        audio_tokens: Per sample; 0 without audio.
        text_tokens: Per sample.
        itemsize: Bytes of an element of the hidden states.
        per_token: Whether each token is modulated by itself: its noise level is not that of all
            tokens, nor one of the few that ``Modality.levels`` states.
    """
    video_tokens, audio_tokens = batch * video_tokens, batch * audio_tokens
    video, audio = video_tokens * config.video_width, audio_tokens * config.audio_width
    states, largest = video + audio, max(video, audio)
    # Held from the first block to the last: rotary tables, texts, and per token the embedded noise
    # levels and the rows that they modulate it with.
    held = states
    modulation = 1 + (9 if config.cross_attention_adaln else 6)
    if video and audio:
        # The exchange has tables and modulation of its own.
        held += (video_tokens + audio_tokens) * config.audio_cross_attention_dim
        modulation += 4
    if video:
        held += batch * text_tokens * config.video_width
    if audio:
        held += batch * text_tokens * config.audio_width
    if per_token:
        held += modulation * states
    # Input, queries, keys, values and result.
    attention = states + 5 * largest
    # Besides what the block began with: input, and both sides of the activation, four times as
    # wide, of all tokens or of a chunk of them.
    width = config.video_width if video >= audio else config.audio_width
    feed_forward = 2 * states + min(9 * largest, 2 * largest + 8 * CHUNK * width)
    return (held + max(attention, feed_forward)) * itemsize


def text_encoder_bytes(
    config: TextConfig,
    *,
    hidden_size: int,
    num_hidden_states: int,
    prompts: int,
    text_tokens: int,
    itemsize: int,
) -> int:
    """Peak of the text encoder, which is where the states of all its layers are normalised.

    Args:
        config: Of the checkpoint.
        hidden_size: Width of the language model.
        num_hidden_states: States per token: the embedding and every layer's.
        prompts: That are encoded at once.
        text_tokens: Per prompt, padding included.
        itemsize: Bytes of an element of the hidden states.
    """
    states = prompts * text_tokens * hidden_size * num_hidden_states
    # Version 1 divides in float32; version 2 keeps the dtype. Both hold the states as they came,
    # normalised, and with the padding cleared.
    width = max(itemsize, FLOAT32_BYTES) if config.feature_version == "v1" else itemsize
    return states * 3 * width


def text_connectors_bytes(
    config: TextConfig, *, prompts: int, text_tokens: int, itemsize: int
) -> int:
    """Peak of the text connectors, which is in a feed-forward step of the wider one.

    Args:
        config: Of the checkpoint.
        prompts: That are embedded at once.
        text_tokens: Per prompt, padding included.
        itemsize: Bytes of an element of the features.
    """
    tokens = prompts * text_tokens
    audio = config.audio.width if config.has_audio else 0
    # Padded features of both streams.
    held = tokens * (config.video.width + audio)
    width = max(config.video.width, audio)
    # Two states, both sides of the activation, and the result; of all tokens or of a chunk.
    inside = tokens * 2 * width + min(tokens * 9 * width, tokens * width + 8 * CHUNK * width)
    return (held + inside) * itemsize


def audio_decoder_bytes(
    audio: AudioVAEConfig, vocoder: VocoderConfig, *, latent_frames: int, itemsize: int
) -> int:
    """Peak of the audio decoder or of the vocoder after it, whichever is higher, for one clip.

    Args:
        audio: Architecture of the decoder.
        vocoder: Architecture of the vocoder.
        latent_frames: Of the audio latent.
        itemsize: Bytes of an element of the weights.
    """
    mel_frames = latent_frames * audio.downsample
    widths = [audio.network.ch * multiplier for multiplier in audio.network.ch_mult[:2]]
    # The highest resolution: its input, normalised, activated and padded, and a result. The norms
    # compute in float32.
    per_position = 3 * max(widths) + widths[0]
    decoder = mel_frames * audio.mel_bins * per_position * max(itemsize, FLOAT32_BYTES)
    if vocoder.bwe is None:
        return max(decoder, _generator_bytes(vocoder.generator, mel_frames, itemsize))
    bwe_frames = mel_frames * math.prod(vocoder.generator.upsample_rates) // vocoder.bwe.hop_length
    stages = ((vocoder.generator, mel_frames), (vocoder.bwe, bwe_frames))
    return max(decoder, *(_widened_generator_bytes(*stage, itemsize) for stage in stages))


def upsampler_bytes(config: UpsamplerConfig, latent: VideoLatentShape, *, itemsize: int) -> int:
    """Peak of the latent upsampler, which takes a whole clip at once.

    Args:
        config: Its architecture.
        latent: Of its input.
        itemsize: Bytes of an element of the weights.
    """
    small = latent.batch * latent.tokens
    frames = 2 * latent.frames - 1 if config.temporal_upsample else latent.frames
    enlarge = reduce = 1
    if config.spatial_upsample:
        enlarge, reduce = RATIOS[config.spatial_scale]
    rows, columns = (-(-size * enlarge // reduce) for size in (latent.height, latent.width))
    large = latent.batch * frames * rows * columns
    # A residual block at the larger size: three inputs (of the stack, of the block, of its second
    # half), the convolution and its norm.
    blocks = 5 * large
    # The shuffle before that, from channels to positions, and its input as two layouts.
    time = 2 if config.temporal_upsample else 1
    shuffle = 2 * small * (time * enlarge**2 + 1)
    return max(blocks, shuffle) * config.mid_channels * itemsize


def _generator_bytes(config: VocoderConfig.Generator, frames: int, itemsize: int) -> int:
    """Peak of a generator without its weights: the stage with the most samples times channels."""
    channels, samples, largest = config.upsample_initial_channel, frames, 0
    for rate in config.upsample_rates:
        channels, samples = channels // 2, samples * rate
        largest = max(largest, channels * samples)
    blocks = len(config.resblock_kernel_sizes)
    if config.resblock == "1":
        # Input of the stage, and results of its blocks: each by itself, then stacked.
        return largest * itemsize * (1 + 2 * blocks)
    # In the last block: input of the stage, results of the others, input of the activation and of
    # the pair of convolutions that it is in, and three tensors inside it at twice the rate.
    return largest * itemsize * (blocks + 2 + 3 * RATIO)


def _widened_generator_bytes(config: VocoderConfig.Generator, frames: int, itemsize: int) -> int:
    """Peak of a generator that computes in float32, whatever its weights are stored in."""
    widened = _generator_weights(config) if itemsize < FLOAT32_BYTES else 0
    return _generator_bytes(config, frames, FLOAT32_BYTES) + widened * FLOAT32_BYTES


@functools.cache
def _generator_weights(config: VocoderConfig.Generator) -> int:
    """Elements of all weights; building the network takes a second, even without its memory."""
    with torch.device("meta"):
        return sum(weight.numel() for weight in Generator(config).parameters())
