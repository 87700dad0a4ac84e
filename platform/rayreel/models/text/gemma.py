"""Gemma 3 and Gemma 4 as text encoders: the hidden states of all layers.

Letters: B prompts, L tokens, D width, S hidden states.
"""

from typing import TYPE_CHECKING, Union

import torch
from torch import Tensor, nn

from rayreel.models.text.tokenizer import PAD_ID

if TYPE_CHECKING:
    from transformers import Gemma3TextModel, Gemma4UnifiedTextModel

TextModel = Union["Gemma3TextModel", "Gemma4UnifiedTextModel"]


class Gemma(nn.Module):
    """The inner language model, without a head."""

    def __init__(self, model: TextModel, placeholder_ids: tuple[int, ...] = ()) -> None:
        """Wrap a model.

        Args:
            model: The language model.
            placeholder_ids: Tokens that it reads as padding: they stand for other inputs than
                text, but a prompt can hold them literally.
        """
        super().__init__()
        self.model = model
        self.placeholder_ids = placeholder_ids

    @property
    def hidden_size(self) -> int:
        """Width D of the hidden states."""
        return self.model.config.hidden_size

    @property
    def num_hidden_states(self) -> int:
        """Hidden states S per token: the embedding and the output of every layer."""
        return self.model.config.num_hidden_layers + 1

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    def forward(self, input_ids: Tensor, mask: Tensor, *, start: int = 0) -> Tensor:
        """Hidden states of all layers; the last one has passed the final norm.

        Args:
            input_ids: Int64 ``(B, L)``.
            mask: Int64 ``(B, L)``: 1 for tokens, 0 for padding.
            start: Position of the first column, where columns of padding before it were left out.

        Returns:
            ``(B, L, D, S)`` in the model's dtype; rows of padding hold arbitrary values.
        """
        output = self.model(
            input_ids=self._readable(input_ids),
            attention_mask=mask,
            position_ids=torch.arange(start, start + mask.shape[1], device=mask.device)[None],
            output_hidden_states=True,
            use_cache=False,
        )
        return torch.stack(output.hidden_states, dim=-1)

    def _readable(self, input_ids: Tensor) -> Tensor:
        placeholders = input_ids.new_tensor(self.placeholder_ids)
        return input_ids.masked_fill(torch.isin(input_ids, placeholders), PAD_ID)
