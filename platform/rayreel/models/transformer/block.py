"""One block of the dual-stream transformer.

Letters: B batch, T tokens, L text tokens, N noise levels, D width of a stream, R modulation rows.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rayreel.config.model import TransformerConfig
from rayreel.models.attention import Attention
from rayreel.models.feed_forward import FeedForward
from rayreel.models.norms import rms_norm
from rayreel.models.rope import RotaryTable
from rayreel.models.transformer.adaln import modulate, rows
from rayreel.models.transformer.perturbations import BlockKeep
from rayreel.models.transformer.text import TextMemory, attend, keys_values

# First of the rows (shift, scale, gate) of a step in the main tables, and of the rows (scale,
# shift) of a direction in the tables of the exchange.
SELF, FEED_FORWARD, TEXT = 0, 3, 6
AUDIO_TO_VIDEO, VIDEO_TO_AUDIO = 0, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeInputs:
    """What the exchange between the streams reads of one of them.

    Attributes:
        modulation: ``(B, N, 4, D)``.
        level: As in ``StreamInputs``.
        gate: ``(B, 1, 1, D)``, from the noise level of the other stream.
        rope: Table over time alone.
    """

    modulation: Tensor
    level: Tensor | None
    gate: Tensor
    rope: RotaryTable


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamInputs:
    """What the blocks and the output head read of one stream, besides its hidden states.

    Attributes:
        name: Of the stream, in the memory.
        embedded_timesteps: ``(B, N, D)``, for the head.
        modulation: ``(B, N, R, D)``.
        level: ``None`` where N is 1 or T, or ``(B, T)``: which of the levels, then with a B of 1,
            each token is at.
        prompt_modulation: ``(B, 1, 2, D)``, or zeros ``(2, D)`` where the text is not modulated by
            the noise level.
        context: Text ``(B, L, D)``.
        context_mask: ``None``, or an additive bias ``(B, 1, 1, L)``.
        memory: What earlier steps made of the text; ``None`` where it may not be the same.
        attention_mask: ``None``, or an additive bias ``(B, 1, T, T)``.
        rope: Table of the self-attention.
        exchange: ``None`` without the other stream.
        enabled: ``False`` leaves the hidden states as they are; the other stream still reads them.
    """

    name: str
    embedded_timesteps: Tensor
    modulation: Tensor
    level: Tensor | None
    prompt_modulation: Tensor
    context: Tensor
    context_mask: Tensor | None
    memory: TextMemory | None
    attention_mask: Tensor | None
    rope: RotaryTable
    exchange: ExchangeInputs | None
    enabled: bool


class Block(nn.Module):
    """Self-attention, text attention, exchange between the streams, feed-forward.

    It has the parts of the streams that its network has.

    Main tables hold (shift, scale, gate) of self-attention, of feed-forward and, from 2.3 on, of
    text attention; prompt tables (shift, scale). Exchange tables hold the reverse: (scale, shift)
    of the stream in audio-to-video, then in video-to-audio, then the gate of what it receives.
    """

    def __init__(self, config: TransformerConfig, index: int) -> None:
        """Make the layers.

        Args:
            config: Of the network.
            index: Place of the block in it.
        """
        super().__init__()
        self.index = index
        self.eps = config.norm_eps
        video, audio = config.video_width, config.audio_width
        wide, narrow = config.attention_head_dim, config.audio_attention_head_dim
        num_rows = 9 if config.cross_attention_adaln else 6

        def attention(query_dim: int, context_dim: int, head_dim: int, heads: int) -> Attention:
            return Attention(
                query_dim,
                context_dim,
                heads=heads,
                head_dim=head_dim,
                eps=config.norm_eps,
                gated=config.apply_gated_attention,
            )

        def table(count: int, width: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(count, width))

        self.prompt_scale_shift_table = self.audio_prompt_scale_shift_table = None
        if config.has_video:
            heads = config.num_attention_heads
            self.attn1 = attention(video, video, wide, heads)
            self.attn2 = attention(video, config.cross_attention_dim, wide, heads)
            self.ff = FeedForward(video, bias=config.ff_bias)
            self.scale_shift_table = table(num_rows, video)
            if config.cross_attention_adaln:
                self.prompt_scale_shift_table = table(2, video)
        if config.has_audio:
            heads = config.audio_num_attention_heads
            self.audio_attn1 = attention(audio, audio, narrow, heads)
            self.audio_attn2 = attention(audio, config.audio_cross_attention_dim, narrow, heads)
            self.audio_ff = FeedForward(audio, bias=config.audio_ff_bias)
            self.audio_scale_shift_table = table(num_rows, audio)
            if config.cross_attention_adaln:
                self.audio_prompt_scale_shift_table = table(2, audio)
        if config.has_exchange:
            # Both directions have the heads of the audio stream.
            heads = config.audio_num_attention_heads
            self.audio_to_video_attn = attention(video, audio, narrow, heads)
            self.video_to_audio_attn = attention(audio, video, narrow, heads)
            self.scale_shift_table_a2v_ca_video = table(5, video)
            self.scale_shift_table_a2v_ca_audio = table(5, audio)

    def forward(
        self,
        xv: Tensor | None,
        xa: Tensor | None,
        video: StreamInputs | None,
        audio: StreamInputs | None,
        keep: BlockKeep,
    ) -> tuple[Tensor | None, Tensor | None]:
        """Hidden states of both streams, one block further.

        Args:
            xv: Video ``(B, T, D)``; ``None`` together with ``video``.
            xa: Audio ``(B, T, D)``; ``None`` together with ``audio``.
            video: What else the block reads of the video stream.
            audio: What else the block reads of the audio stream.
            keep: Attention that is not skipped.

        Returns:
            Both, like ``xv`` and ``xa``.
        """
        # Without names, so that what a step reads and gives is freed before the largest, the last.
        if xv is not None and video is not None and video.enabled:
            table, prompt_table = self.scale_shift_table, self.prompt_scale_shift_table
            xv = xv + self.attn1(
                self._modulated(xv, video, table, SELF),
                mask=video.attention_mask,
                rope=video.rope,
                keep=keep.video_self,
            ) * _gate(video, table, SELF)
            xv = xv + attend(
                self.attn2,
                self._text_queries(xv, video, table),
                *self._text(self.attn2, video, prompt_table),
                video.context_mask,
            ) * _gate(video, table, TEXT)
        if xa is not None and audio is not None and audio.enabled:
            table, prompt_table = self.audio_scale_shift_table, self.audio_prompt_scale_shift_table
            xa = xa + self.audio_attn1(
                self._modulated(xa, audio, table, SELF),
                mask=audio.attention_mask,
                rope=audio.rope,
                keep=keep.audio_self,
            ) * _gate(audio, table, SELF)
            xa = xa + attend(
                self.audio_attn2,
                self._text_queries(xa, audio, table),
                *self._text(self.audio_attn2, audio, prompt_table),
                audio.context_mask,
            ) * _gate(audio, table, TEXT)

        if xv is not None and video is not None and xa is not None and audio is not None:
            # Both directions read the states from before the exchange.
            v_normed, a_normed = rms_norm(xv, self.eps), rms_norm(xa, self.eps)
            v, a = video.exchange, audio.exchange
            assert v is not None
            assert a is not None
            v_table = self.scale_shift_table_a2v_ca_video
            a_table = self.scale_shift_table_a2v_ca_audio
            if video.enabled and keep.audio_to_video is not False:
                xv = xv + self.audio_to_video_attn(
                    _exchanged(v_normed, v, v_table, AUDIO_TO_VIDEO),
                    _exchanged(a_normed, a, a_table, AUDIO_TO_VIDEO),
                    rope=v.rope,
                    context_rope=a.rope,
                ) * (_exchange_gate(v, v_table) * keep.audio_to_video)
            if audio.enabled and keep.video_to_audio is not False:
                xa = xa + self.video_to_audio_attn(
                    _exchanged(a_normed, a, a_table, VIDEO_TO_AUDIO),
                    _exchanged(v_normed, v, v_table, VIDEO_TO_AUDIO),
                    rope=a.rope,
                    context_rope=v.rope,
                ) * (_exchange_gate(a, a_table) * keep.video_to_audio)
            del v_normed, a_normed

        if xv is not None and video is not None and video.enabled:
            table = self.scale_shift_table
            result = self.ff(self._modulated(xv, video, table, FEED_FORWARD))
            xv = xv + result * _gate(video, table, FEED_FORWARD)
        if xa is not None and audio is not None and audio.enabled:
            table = self.audio_scale_shift_table
            result = self.audio_ff(self._modulated(xa, audio, table, FEED_FORWARD))
            xa = xa + result * _gate(audio, table, FEED_FORWARD)
        return xv, xa

    def _modulated(self, x: Tensor, stream: StreamInputs, table: Tensor, step: int) -> Tensor:
        """What a step reads."""
        shift, scale = rows(table, stream.modulation, slice(step, step + 2), stream.level)
        return modulate(rms_norm(x, self.eps), scale, shift)

    def _text_queries(self, x: Tensor, stream: StreamInputs, table: Tensor) -> Tensor:
        """What a stream asks of the text; 2.0 does not modulate it."""
        if len(table) > TEXT:
            return self._modulated(x, stream, table, TEXT)
        return rms_norm(x, self.eps)

    def _text(
        self, attention: Attention, stream: StreamInputs, prompt_table: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Keys and values of the text, which 2.0 does not modulate either."""

        def make() -> tuple[Tensor, Tensor]:
            context = stream.context
            if prompt_table is not None:
                shift, scale = rows(prompt_table, stream.prompt_modulation)
                context = modulate(context, scale, shift)
            return keys_values(attention, context)

        if stream.memory is None:
            return make()
        keys, values = stream.memory.recall((stream.name, self.index), make)
        return keys, values


def _gate(stream: StreamInputs, table: Tensor, step: int) -> Tensor | int:
    """Factor of what a step gives; 2.0 has none for text."""
    if step >= len(table):
        return 1
    (gate,) = rows(table, stream.modulation, slice(step + 2, step + 3), stream.level)
    return gate


def _exchanged(normed: Tensor, stream: ExchangeInputs, table: Tensor, step: int) -> Tensor:
    """What one direction of the exchange reads of a stream."""
    scale, shift = rows(table[:4], stream.modulation, slice(step, step + 2), stream.level)
    return modulate(normed, scale, shift)


def _exchange_gate(stream: ExchangeInputs, table: Tensor) -> Tensor:
    """Factor of what a stream receives."""
    (gate,) = rows(table[4:], stream.gate)
    return gate
