"""Gemma 3 and Gemma 4 as text encoders: the hidden states of all layers.

Letters: B prompts, L tokens, D width, S hidden states.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import Tensor, nn

from rayreel.errors import CheckpointError
from rayreel.models.text.tokenizer import PAD_ID

if TYPE_CHECKING:
    from transformers import Gemma3TextConfig, Gemma3TextModel, Gemma4UnifiedTextModel

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

    def forward(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        """Hidden states of all layers; the last one has passed the final norm.

        Args:
            input_ids: Int64 ``(B, L)``.
            mask: Int64 ``(B, L)``: 1 for tokens, 0 for padding.

        Returns:
            ``(B, L, D, S)`` in the model's dtype; rows of padding hold arbitrary values.
        """
        output = self.model(
            input_ids=self._readable(input_ids),
            attention_mask=mask,
            output_hidden_states=True,
            use_cache=False,
        )
        return torch.stack(output.hidden_states, dim=-1)

    def _readable(self, input_ids: Tensor) -> Tensor:
        placeholders = input_ids.new_tensor(self.placeholder_ids)
        return input_ids.masked_fill(torch.isin(input_ids, placeholders), PAD_ID)


PREFIX = r"^language_model\.model\."
OTHER_WEIGHTS = [r"^vision_tower\.", r"^multi_modal_projector\.", r"^language_model\.lm_head\."]


def load_gemma(
    folder: Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.bfloat16,
) -> Gemma:
    """Load the language model of a Gemma 3 folder in the official layout, offline.

    Args:
        folder: Holds ``config.json`` and the safetensors file or files.
        device: Where the weights go.
        dtype: What the weights are cast to.

    Returns:
        The model in evaluation mode, without gradients.

    Raises:
        CheckpointError: If the folder holds something else, or its weights do not fit its config.
    """
    from transformers import Gemma3TextModel  # noqa: PLC0415 - slow

    class _TextModel(Gemma3TextModel):  # type: ignore[no-untyped-call]  # the subclass hook
        """The language model, told which other weights its folder may hold."""

        _keys_to_ignore_on_load_unexpected = OTHER_WEIGHTS

    config = gemma_config(folder)
    try:
        # Declared to return the model alone.
        loaded: Any = _TextModel.from_pretrained(
            folder,
            config=config,
            key_mapping={PREFIX: ""},
            device_map={"": device},
            dtype=dtype,
            ignore_mismatched_sizes=True,  # reported below, together with what is missing
            local_files_only=True,
            output_loading_info=True,
            use_safetensors=True,
        )
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"Gemma folder {folder}: cannot load the weights: {error}") from error
    model, info = loaded
    _check_loaded(info, folder)
    return Gemma(model.requires_grad_(False).eval())


def gemma_config(folder: Path) -> "Gemma3TextConfig":
    """Architecture of the language model of a Gemma 3 folder.

    Raises:
        CheckpointError: If the folder holds something else.
    """
    from transformers import Gemma3Config, Gemma3TextConfig  # noqa: PLC0415 - slow

    file = folder / "config.json"
    if not file.is_file():
        raise CheckpointError(f"Gemma folder {folder} has no config.json")
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{file} is not JSON: {error}") from error
    model_type = values.get("model_type") if isinstance(values, dict) else None
    if model_type != Gemma3Config.model_type:
        raise CheckpointError(
            f"Gemma folder {folder}: config.json has model_type={model_type!r}, "
            f"expected {Gemma3Config.model_type!r}"
        )
    try:
        config = Gemma3Config.from_dict(values).text_config
    except (TypeError, ValueError, StrictDataclassError) as error:
        raise CheckpointError(f"{file} is not a Gemma 3 configuration: {error}") from error
    assert isinstance(config, Gemma3TextConfig)
    return config


def _check_loaded(info: dict[str, Any], folder: Path) -> None:
    """Refuse what transformers only reports: it fills absent weights with random values."""
    lines = []
    for kind in ("missing", "unexpected", "mismatched"):
        if names := sorted(map(str, info[f"{kind}_keys"])):
            lines.append(f"  {kind} ({len(names)}): {', '.join(names[:8])}")
    if lines:
        raise CheckpointError(
            "\n".join([f"Gemma folder {folder}: the weights do not fit config.json:", *lines])
        )
