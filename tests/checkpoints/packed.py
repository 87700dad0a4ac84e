"""A tiny Gemma 4 in one packed file, as transformers of generation 2.5 are read with."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import Gemma4UnifiedConfig, Gemma4UnifiedTextModel

from rayreel.checkpoints.text_encoder import TextEncoderFiles
from rayreel.models.text.gemma import Gemma
from rayreel.models.text.tiny import VOCABULARY

HIDDEN_SIZE = 16
NUM_HIDDEN_STATES = 3
CONFIG: dict[str, Any] = {
    "model_type": "gemma4_unified",
    "gemma_version": "gemma4-tiny-v1",
    "image_token_id": VOCABULARY["<image_soft_token>"],
    "audio_token_id": VOCABULARY["<start_of_image>"],
    "video_token_id": VOCABULARY["<end_of_image>"],
    "text_config": {
        "model_type": "gemma4_unified_text",
        "vocab_size": len(VOCABULARY),
        "hidden_size": HIDDEN_SIZE,
        "intermediate_size": 32,
        "num_hidden_layers": NUM_HIDDEN_STATES - 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "num_global_key_value_heads": 1,
        "head_dim": 8,
        "global_head_dim": 16,
        "attention_k_eq_v": True,
        "sliding_window": 1024,
        "layer_types": ["sliding_attention", "full_attention"],
    },
}
OTHERS = ("vision_model.pos_norm.weight", "audio_projector.embedding_projection.weight")


def write_packed(
    path: Path,
    tokenizer_json: str,
    *,
    config: dict[str, Any] = CONFIG,
    prefix: str = "model.",
    tensors: dict[str, Tensor | None] | None = None,
) -> Path:
    """Write it, with random bfloat16 weights.

    Args:
        path: The file.
        tokenizer_json: Content of its tokenizer.
        config: Content of its configuration; the weights are always those of ``CONFIG``.
        prefix: Of the language model's weights.
        tensors: Further or other tensors by name; ``None`` takes one away.
    """
    torch.manual_seed(0)
    text_config = Gemma4UnifiedConfig.from_dict(json.loads(json.dumps(CONFIG))).text_config
    model = Gemma4UnifiedTextModel(text_config).bfloat16()  # type: ignore[arg-type]
    noise = {name: torch.rand_like(weight) for name, weight in model.state_dict().items()}
    text = torch.frombuffer(bytearray(tokenizer_json, "utf-8"), dtype=torch.uint8)
    everything = {
        **{prefix + name: weight for name, weight in noise.items()},
        **{name: torch.ones(1) for name in OTHERS},
        "text_embedding_projection.video_aggregate_embed.bias": torch.ones(1),
        "tokenizer_json": text,
        "hf_asset__tokenizer_config.json": text[:4].clone(),
        **(tensors or {}),
    }
    kept = {name: tensor for name, tensor in everything.items() if tensor is not None}
    save_file(kept, path, {"gemma_config": json.dumps(config), "format": "pt"})
    return path


def loaded(files: TextEncoderFiles, *, device: torch.device, dtype: torch.dtype) -> Gemma:
    """The language model of a text encoder with its weights."""
    gemma = files.outline()
    gemma.load_state_dict(files.weights(device, dtype), assign=True)
    return gemma.requires_grad_(False).eval().to(device)
