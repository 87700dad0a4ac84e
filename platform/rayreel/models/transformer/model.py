"""Dual-stream diffusion transformer: video and audio tokens, with text, to velocities.

One class builds every published generation; a checkpoint's configuration says which parts exist.

Letters: B batch, T tokens, L text tokens, C token channels, D width of a stream, R modulation rows.
"""

from collections import OrderedDict
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rayreel.config.model import TransformerConfig
from rayreel.models.rope import RotaryTable, rotary_table
from rayreel.models.transformer.adaln import AdaLNSingle, modulate, of_tokens
from rayreel.models.transformer.block import Block, ExchangeInputs, StreamInputs
from rayreel.models.transformer.masks import context_bias, strength_bias
from rayreel.models.transformer.perturbations import Perturbations, block_keeps
from rayreel.models.transformer.text import TextMemory
from rayreel.types import Modality


class _Parts(NamedTuple):
    """The parts of one stream, under names that both streams share."""

    name: str
    caption_projection: nn.Module | None
    adaln: AdaLNSingle
    prompt_adaln: AdaLNSingle | None
    exchange: tuple[AdaLNSingle, AdaLNSingle] | None
    width: int
    heads: int
    max_pos: tuple[float, ...]


class Transformer(nn.Module):
    """Predicts the velocities of video and audio together, or of one of them alone.

    A network of one stream has the parts of that stream, under the same names.

    Reference:
        LTX-2; parameter names and numerics follow Lightricks/LTX-2.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        video, audio = config.video_width, config.audio_width
        num_rows = 9 if config.cross_attention_adaln else 6

        self.keyframes_abs_pos_embedding = None
        self.caption_projection = self.audio_caption_projection = None
        self.prompt_adaln_single = self.audio_prompt_adaln_single = None
        # Width of the text where it is not yet that of a stream.
        captions = None if config.caption_proj_before_connector else config.caption_channels
        has_prompt_adaln = config.cross_attention_adaln and config.use_prompt_adaln_single

        if config.has_video:
            self.patchify_proj = nn.Linear(config.in_channels, video)
            if config.use_keyframes_abs_pos_embedding:
                self.keyframes_abs_pos_embedding = nn.Parameter(torch.zeros(1, video))
            if captions is not None:
                self.caption_projection = _caption_projection(captions, video)
            self.adaln_single = AdaLNSingle(video, num_rows)
            if has_prompt_adaln:
                self.prompt_adaln_single = AdaLNSingle(video, 2)
            self.scale_shift_table = nn.Parameter(torch.zeros(2, video))
            self.proj_out = nn.Linear(video, config.out_channels)
        if config.has_audio:
            self.audio_patchify_proj = nn.Linear(config.audio_in_channels, audio)
            if captions is not None:
                self.audio_caption_projection = _caption_projection(captions, audio)
            self.audio_adaln_single = AdaLNSingle(audio, num_rows)
            if has_prompt_adaln:
                self.audio_prompt_adaln_single = AdaLNSingle(audio, 2)
            self.audio_scale_shift_table = nn.Parameter(torch.zeros(2, audio))
            self.audio_proj_out = nn.Linear(audio, config.audio_out_channels)
        if config.has_exchange:
            self.av_ca_video_scale_shift_adaln_single = AdaLNSingle(video, 4)
            self.av_ca_audio_scale_shift_adaln_single = AdaLNSingle(audio, 4)
            self.av_ca_a2v_gate_adaln_single = AdaLNSingle(video, 1)
            self.av_ca_v2a_gate_adaln_single = AdaLNSingle(audio, 1)
        self.transformer_blocks = nn.ModuleList(
            Block(config, index) for index in range(config.num_layers)
        )

    def forward(
        self,
        video: Modality | None,
        audio: Modality | None,
        perturbations: Perturbations | None = None,
        memory: TextMemory | None = None,
    ) -> tuple[Tensor | None, Tensor | None]:
        """Velocities, from noise to data reversed: ``noise - clean``.

        Args:
            video: Video stream, or ``None`` to run audio alone.
            audio: Audio stream, or ``None`` to run video alone.
            perturbations: Attention to skip, one sequence per sample; ``None`` skips nothing.
            memory: Of earlier steps with the same text. The result is the same without; where the
                noise level modulates the text, there is nothing to keep.

        Returns:
            Video ``(B, T, C)`` and audio ``(B, T, C)`` in the dtype of the latents; ``None`` for a
            stream that was not given.

        Raises:
            ValueError: If both streams are ``None``, the network lacks one of them, or
                perturbations do not fit the batch.
        """
        given = video or audio
        if given is None:
            raise ValueError("the transformer needs a video stream, an audio stream or both")
        for name, stream, there in (
            ("video", video, self.config.has_video),
            ("audio", audio, self.config.has_audio),
        ):
            if stream is not None and not there:
                raise ValueError(
                    f"got a stream of {name}, but the transformer is {self.config.streams}-only"
                )
        keeps = block_keeps(perturbations, len(self.transformer_blocks), like=given.latent)

        xv: Tensor | None = None
        xa: Tensor | None = None
        video_inputs = audio_inputs = None
        if video is not None:
            xv = self._embed_video(video)
            video_inputs = self._inputs(video, audio, self._video_parts, memory)
        if audio is not None:
            xa = self.audio_patchify_proj(audio.latent)
            audio_inputs = self._inputs(audio, video, self._audio_parts, memory)

        for block, keep in zip(self.transformer_blocks, keeps, strict=True):
            xv, xa = block(xv, xa, video_inputs, audio_inputs, keep)

        if xv is not None and video_inputs is not None:
            xv = self.proj_out(self._normalised(xv, video_inputs, self.scale_shift_table))
        if xa is not None and audio_inputs is not None:
            xa = self.audio_proj_out(
                self._normalised(xa, audio_inputs, self.audio_scale_shift_table)
            )
        return xv, xa

    @property
    def _video_parts(self) -> _Parts:
        return _Parts(
            name="video",
            caption_projection=self.caption_projection,
            adaln=self.adaln_single,
            prompt_adaln=self.prompt_adaln_single,
            exchange=(self.av_ca_video_scale_shift_adaln_single, self.av_ca_a2v_gate_adaln_single)
            if self.config.has_exchange
            else None,
            width=self.config.video_width,
            heads=self.config.num_attention_heads,
            max_pos=self.config.positional_embedding_max_pos,
        )

    @property
    def _audio_parts(self) -> _Parts:
        return _Parts(
            name="audio",
            caption_projection=self.audio_caption_projection,
            adaln=self.audio_adaln_single,
            prompt_adaln=self.audio_prompt_adaln_single,
            exchange=(self.av_ca_audio_scale_shift_adaln_single, self.av_ca_v2a_gate_adaln_single)
            if self.config.has_exchange
            else None,
            width=self.config.audio_width,
            heads=self.config.audio_num_attention_heads,
            max_pos=self.config.audio_positional_embedding_max_pos,
        )

    def _embed_video(self, video: Modality) -> Tensor:
        """Tokens at the width of the stream; those that hold a single pixel frame are marked."""
        x: Tensor = self.patchify_proj(video.latent)
        if self.keyframes_abs_pos_embedding is not None and video.keyframes_mask is not None:
            marked = (video.keyframes_mask > 0).to(x.dtype)
            x = x + marked * self.keyframes_abs_pos_embedding.to(x.dtype)
        return x

    def _inputs(
        self, own: Modality, other: Modality | None, parts: _Parts, memory: TextMemory | None
    ) -> StreamInputs:
        """All that stays the same from block to block."""
        dtype = own.latent.dtype
        scale = self.config.timestep_scale_multiplier
        modulation, embedded_timesteps = parts.adaln(_levels(own) * scale, dtype)
        prompt_modulation = own.latent.new_zeros(2, parts.width)
        if parts.prompt_adaln is not None:
            prompt_modulation, _ = parts.prompt_adaln(own.sigma[:, None] * scale, dtype)
            memory = None
        return StreamInputs(
            name=parts.name,
            embedded_timesteps=embedded_timesteps,
            modulation=modulation,
            level=_level_of_tokens(own),
            prompt_modulation=prompt_modulation,
            context=_projected(own.context, parts, memory),
            context_mask=context_bias(own.context_mask, dtype),
            memory=memory,
            attention_mask=strength_bias(own.attention_mask, dtype),
            rope=self._rotary(own.positions, parts.width, parts.heads, parts.max_pos, dtype),
            exchange=None if other is None else self._exchange_inputs(own, other, parts),
            enabled=own.enabled,
        )

    def _exchange_inputs(self, own: Modality, other: Modality, parts: _Parts) -> ExchangeInputs:
        """Scale and shift follow the noise of each token, the gate that of the other stream."""
        assert parts.exchange is not None
        config, dtype = self.config, own.latent.dtype
        adaln, gate_adaln = parts.exchange
        modulation, _ = adaln(_levels(own) * config.timestep_scale_multiplier, dtype)
        other_level = other.sigma[:, None] * config.av_ca_timestep_scale_multiplier
        gate, _ = gate_adaln(other_level, dtype)
        # Both streams must turn alike at the same second, so they share width and extent.
        max_pos = max(
            config.positional_embedding_max_pos[0], config.audio_positional_embedding_max_pos[0]
        )
        width = config.audio_cross_attention_dim
        rope = self._rotary(own.positions[:, :1], width, parts.heads, (max_pos,), dtype)
        level = _level_of_tokens(own)
        return ExchangeInputs(modulation=modulation, level=level, gate=gate, rope=rope)

    def _rotary(
        self,
        positions: Tensor,
        width: int,
        heads: int,
        max_pos: tuple[float, ...],
        dtype: torch.dtype,
    ) -> RotaryTable:
        return rotary_table(
            positions,
            dim=width,
            heads=heads,
            max_pos=max_pos,
            theta=self.config.positional_embedding_theta,
            layout=self.config.rope_type,
            float64_frequencies=self.config.float64_frequencies,
            dtype=dtype,
        )

    def _normalised(self, x: Tensor, stream: StreamInputs, table: Tensor) -> Tensor:
        """Input of the output projection; unlike the blocks it subtracts the mean."""
        normed = F.layer_norm(x, x.shape[-1:], eps=self.config.norm_eps)
        shift, scale = (
            of_tokens(row + stream.embedded_timesteps, stream.level) for row in table.to(x.dtype)
        )
        return modulate(normed, scale, shift)


def _projected(context: Tensor, parts: _Parts, memory: TextMemory | None) -> Tensor:
    """Text at the width of its stream."""
    projection = parts.caption_projection
    if projection is None:
        return context
    if memory is None:
        return projection(context)
    (projected,) = memory.recall((f"{parts.name} text", 0), lambda: (projection(context),))
    return projected


def _levels(stream: Modality) -> Tensor:
    """Noise levels to modulate by: of each sample and token, or all that occur as ``(1, N)``."""
    return stream.timesteps.squeeze(-1) if stream.levels is None else stream.levels[None]


def _level_of_tokens(stream: Modality) -> Tensor | None:
    """Which of the noise levels each token is at, ``(B, T)``."""
    if stream.levels is None:
        return None
    return torch.bucketize(stream.timesteps.squeeze(-1), stream.levels)


def _caption_projection(in_channels: int, width: int) -> nn.Module:
    """Text ``(B, L, in_channels)`` to the width of a stream (2.0 only)."""
    return nn.Sequential(
        OrderedDict(
            linear_1=nn.Linear(in_channels, width),
            act=nn.GELU(approximate="tanh"),
            linear_2=nn.Linear(width, width),
        )
    )
