"""One block of the dual-stream transformer.

Letters: B batch, T tokens, L text tokens, D width of a stream, R modulation rows.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeInputs:
    """What the exchange between the streams reads of one of them.

    Attributes:
        modulation: ``(B, T, 4, D)``.
        gate: ``(B, 1, 1, D)``, from the noise level of the other stream.
        rope: Table over time alone.
    """

    modulation: Tensor
    gate: Tensor
    rope: RotaryTable


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamInputs:
    """What the blocks and the output head read of one stream, besides its hidden states.

    Attributes:
        embedded_timesteps: ``(B, T, D)``, for the head.
        modulation: ``(B, T, R, D)``.
        prompt_modulation: ``(B, 1, 2, D)``, or zeros ``(2, D)`` where the text is not modulated by
            the noise level.
        context: Text ``(B, L, D)``.
        context_mask: ``None``, or an additive bias ``(B, 1, 1, L)``.
        attention_mask: ``None``, or an additive bias ``(B, 1, T, T)``.
        rope: Table of the self-attention.
        exchange: ``None`` without the other stream.
        enabled: ``False`` leaves the hidden states as they are; the other stream still reads them.
    """

    embedded_timesteps: Tensor
    modulation: Tensor
    prompt_modulation: Tensor
    context: Tensor
    context_mask: Tensor | None
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

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
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
        if xv is not None and video is not None and video.enabled:
            table, prompt_table = self.scale_shift_table, self.prompt_scale_shift_table
            query, gate = self._modulated(xv, video, table, first=0)
            mask, rope = video.attention_mask, video.rope
            xv = xv + gate * self.attn1(query, mask=mask, rope=rope, keep=keep.video_self)
            query, text, gate = self._text_inputs(xv, video, table, prompt_table)
            xv = xv + gate * self.attn2(query, text, mask=video.context_mask)
        if xa is not None and audio is not None and audio.enabled:
            table, prompt_table = self.audio_scale_shift_table, self.audio_prompt_scale_shift_table
            query, gate = self._modulated(xa, audio, table, first=0)
            mask, rope = audio.attention_mask, audio.rope
            xa = xa + gate * self.audio_attn1(query, mask=mask, rope=rope, keep=keep.audio_self)
            query, text, gate = self._text_inputs(xa, audio, table, prompt_table)
            xa = xa + gate * self.audio_attn2(query, text, mask=audio.context_mask)

        if xv is not None and video is not None and xa is not None and audio is not None:
            # Both directions read the states from before the exchange.
            v, a = video.exchange, audio.exchange
            assert v is not None
            assert a is not None
            table = self.scale_shift_table_a2v_ca_video
            v_reads, v_gives, v_gate = self._exchange_inputs(xv, v, table)
            table = self.scale_shift_table_a2v_ca_audio
            a_gives, a_reads, a_gate = self._exchange_inputs(xa, a, table)
            if video.enabled and keep.audio_to_video is not False:
                heard = self.audio_to_video_attn(v_reads, a_gives, rope=v.rope, context_rope=a.rope)
                xv = xv + heard * (v_gate * keep.audio_to_video)
            if audio.enabled and keep.video_to_audio is not False:
                seen = self.video_to_audio_attn(a_reads, v_gives, rope=a.rope, context_rope=v.rope)
                xa = xa + seen * (a_gate * keep.video_to_audio)

        if xv is not None and video is not None and video.enabled:
            hidden, gate = self._modulated(xv, video, self.scale_shift_table, first=3)
            xv = xv + gate * self.ff(hidden)
        if xa is not None and audio is not None and audio.enabled:
            hidden, gate = self._modulated(xa, audio, self.audio_scale_shift_table, first=3)
            xa = xa + gate * self.audio_ff(hidden)
        return xv, xa

    def _modulated(
        self, x: Tensor, stream: StreamInputs, table: Tensor, *, first: int
    ) -> tuple[Tensor, Tensor]:
        """Normalised and modulated input of a step, and the gate of its result."""
        step = slice(first, first + 3)
        shift, scale, gate = rows(table[step], stream.modulation[:, :, step])
        return modulate(rms_norm(x, self.eps), scale, shift), gate

    def _text_inputs(
        self, x: Tensor, stream: StreamInputs, table: Tensor, prompt_table: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Query input, text and gate of a text attention; 2.0 modulates none of them."""
        if prompt_table is None:
            return rms_norm(x, self.eps), stream.context, x.new_ones(1)
        query, gate = self._modulated(x, stream, table, first=6)
        shift, scale = rows(prompt_table, stream.prompt_modulation)
        return query, modulate(stream.context, scale, shift), gate

    def _exchange_inputs(
        self, x: Tensor, stream: ExchangeInputs, table: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What audio-to-video and video-to-audio take, and the gate of what the stream receives."""
        scale_a2v, shift_a2v, scale_v2a, shift_v2a = rows(table[:4], stream.modulation)
        (gate,) = rows(table[4:], stream.gate)
        normed = rms_norm(x, self.eps)
        return modulate(normed, scale_a2v, shift_a2v), modulate(normed, scale_v2a, shift_v2a), gate
