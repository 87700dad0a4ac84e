"""The connector: a transformer over text features, with learned rows in place of padding.

Letters: B prompts, L tokens, C width, R registers.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rayreel.config.model import ConnectorConfig, TextConfig
from rayreel.models.attention import Attention
from rayreel.models.feed_forward import FeedForward
from rayreel.models.norms import rms_norm
from rayreel.models.rope import RotaryTable, rotary_table
from rayreel.types import TextContext, TextFeatures

# The published files set no base for the connectors' rotary frequencies.
ROPE_THETA = 10000.0


class TextConnectors(nn.Module):
    """One connector per stream: from features of prompts to what the transformer attends to."""

    def __init__(self, config: TextConfig) -> None:
        """Build the connectors.

        Args:
            config: Section ``transformer`` of a checkpoint.
        """
        super().__init__()
        self.video_connector = Connector(config.video)
        self.audio_connector = Connector(config.audio) if config.has_audio else None

    def forward(self, features: Sequence[TextFeatures]) -> list[TextContext]:
        """Embed prompts in one batch.

        Args:
            features: At least one, all of one length L, on the connectors' device and in their
                dtype.

        Returns:
            One unbatched context ``(L, C)`` per prompt. Without an audio stream the audio context
            has width 0, so that contexts are alike for whoever passes them on.
        """
        length = features[0].length
        video, mask = padded([one.video for one in features], length)
        audio, _ = padded([one.audio for one in features], length)
        videos = self.video_connector(video, mask)
        audios = audio if self.audio_connector is None else self.audio_connector(audio, mask)
        return [TextContext(video=v, audio=a) for v, a in zip(videos, audios, strict=True)]


class Connector(nn.Module):
    """Mixes the tokens of a prompt and fills up its length, so that the result needs no mask."""

    def __init__(self, config: ConnectorConfig) -> None:
        super().__init__()
        self.config = config
        self.learnable_registers = nn.Parameter(torch.zeros(config.num_registers, config.width))
        self.transformer_1d_blocks = nn.ModuleList(
            ConnectorBlock(config) for _ in range(config.num_layers)
        )

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """Text embeddings as the stream attends to them.

        Args:
            features: ``(B, L, C)``; L is a multiple of R.
            mask: ``(B, L)``: 1 for valid tokens, 0 for padding on either side.

        Returns:
            ``(B, L, C)``: valid tokens first, every row meant to be attended to.

        Raises:
            ValueError: If L is not a multiple of R.
        """
        config = self.config
        hidden = replace_padding(features, mask, self.learnable_registers)
        positions = torch.arange(hidden.shape[1], device=hidden.device, dtype=torch.float32)
        rope = rotary_table(
            positions[None, None],
            dim=config.width,
            heads=config.num_attention_heads,
            max_pos=(config.max_pos,),
            theta=ROPE_THETA,
            layout=config.rope_type,
            float64_frequencies=config.float64_frequencies,
            dtype=hidden.dtype,
        )
        for block in self.transformer_1d_blocks:
            hidden = block(hidden, rope)
        return rms_norm(hidden, config.norm_eps)


class ConnectorBlock(nn.Module):
    """Self-attention and a feed-forward step, each on the normalised residual."""

    def __init__(self, config: ConnectorConfig) -> None:
        super().__init__()
        self.eps = config.norm_eps
        self.attn1 = Attention(
            config.width,
            config.width,
            heads=config.num_attention_heads,
            head_dim=config.attention_head_dim,
            eps=config.norm_eps,
            gated=config.gated,
        )
        self.ff = FeedForward(config.width, bias=config.ff_bias)

    def forward(self, hidden: Tensor, rope: RotaryTable) -> Tensor:
        """``(B, L, C)`` to the same shape."""
        hidden = hidden + self.attn1(rms_norm(hidden, self.eps), rope=rope)
        return hidden + self.ff(rms_norm(hidden, self.eps))


def padded(rows: Sequence[Tensor], length: int) -> tuple[Tensor, Tensor]:
    """Features of several prompts as one batch, with zeros before the tokens of each.

    Args:
        rows: ``(T, C)`` of each prompt.
        length: L, at least every T.

    Returns:
        ``(B, L, C)``, and the mask ``(B, L)``: 1 for tokens, 0 for padding.
    """
    batch = rows[0].new_zeros(len(rows), length, rows[0].shape[1])
    mask = torch.zeros(batch.shape[:2], dtype=torch.int64, device=batch.device)
    for index, row in enumerate(rows):
        batch[index, length - len(row) :] = row
        mask[index, length - len(row) :] = 1
    return batch, mask


def replace_padding(features: Tensor, mask: Tensor, registers: Tensor) -> Tensor:
    """Move valid rows to the front, in order, and fill the rest with registers.

    Row p of the rest is register ``p % R``: its position in the sequence counts, not its place
    among the padding.

    Args:
        features: ``(B, L, C)``.
        mask: ``(B, L)``: 1 for valid rows, 0 for padding.
        registers: ``(R, C)``.

    Returns:
        ``(B, L, C)`` in the dtype of ``features``.

    Raises:
        ValueError: If L is not a multiple of R.
    """
    length, num_registers = features.shape[1], len(registers)
    if length % num_registers:
        raise ValueError(
            f"{length} text tokens cannot be filled with {num_registers} registers; "
            f"pad prompts to a multiple of {num_registers}"
        )
    order = mask.argsort(dim=1, descending=True, stable=True)
    front = features.gather(1, order.unsqueeze(-1).expand_as(features))
    num_valid = mask.sum(dim=1, keepdim=True)
    is_text = torch.arange(length, device=mask.device) < num_valid
    fill = registers.repeat(length // num_registers, 1)
    return torch.where(is_text.unsqueeze(-1), front, fill.to(features.dtype))
