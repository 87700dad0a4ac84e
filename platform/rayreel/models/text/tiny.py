"""A Gemma 3 folder in the official layout, small enough for tests and demonstrations on a CPU."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from tokenizers import Tokenizer, decoders, models, normalizers, processors
from torch import Tensor

from rayreel.models.text.tokenizer import BOS_ID
from rayreel.types import seeded_generator

# An id is a place in the vocabulary: special tokens first, <pad> at 0.
SPECIAL_TOKENS = [
    *("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"),
    *("<start_of_image>", "<end_of_image>", "<image_soft_token>"),
]
BYTE_TOKENS = [f"<0x{byte:02X}>" for byte in range(256)]
# Gemma writes a space as U+2581.
CHARACTERS = ["\N{LOWER ONE EIGHTH BLOCK}", *map(chr, range(ord("!"), ord("~") + 1))]
VOCABULARY = {token: i for i, token in enumerate([*SPECIAL_TOKENS, *BYTE_TOKENS, *CHARACTERS])}

CONFIG: dict[str, Any] = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "model_type": "gemma3",
    "torch_dtype": "bfloat16",
    "boi_token_index": VOCABULARY["<start_of_image>"],
    "eoi_token_index": VOCABULARY["<end_of_image>"],
    "image_token_index": VOCABULARY["<image_soft_token>"],
    "eos_token_id": [VOCABULARY["<eos>"], VOCABULARY["<end_of_turn>"]],
    "mm_tokens_per_image": 4,
    "text_config": {
        "model_type": "gemma3_text",
        "vocab_size": len(VOCABULARY),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "query_pre_attn_scalar": 16,
        "max_position_embeddings": 2048,
        "rope_theta": 1000000.0,
        "rope_local_base_freq": 10000.0,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        "sliding_window": 1024,
        "sliding_window_pattern": 2,
    },
    "vision_config": {
        "model_type": "siglip_vision_model",
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 7,
        "vision_use_head": False,
    },
}
TOKENIZER_CONFIG = {
    "tokenizer_class": "GemmaTokenizerFast",
    "processor_class": "Gemma3Processor",
    "add_bos_token": True,
    "add_eos_token": False,
    "bos_token": "<bos>",
    "eos_token": "<eos>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
    "image_token": "<image_soft_token>",
    "padding_side": "left",
    "clean_up_tokenization_spaces": False,
}
PROCESSOR_CONFIG = {"processor_class": "Gemma3Processor", "image_seq_length": 4}
PREPROCESSOR_CONFIG = {
    **PROCESSOR_CONFIG,
    "image_processor_type": "Gemma3ImageProcessor",
    "size": {"height": 28, "width": 28},
    "do_resize": True,
    "resample": 2,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


# Turns as Gemma writes them; like its own, it takes messages as lists of typed parts.
CHAT_TEMPLATE = """{{ bos_token }}{% for message in messages -%}
<start_of_turn>{{ message.role }}
{% for part in message.content -%}
{{ "<start_of_image>" if part.type == "image" else part.text | trim }}
{%- endfor %}<end_of_turn>
{% endfor %}{% if add_generation_prompt %}<start_of_turn>model
{% endif %}"""


def write_tiny_gemma(folder: Path, seed: int, *, chat: bool = False) -> None:
    """Write a Gemma 3 with random bfloat16 weights: configuration, weights and tokenizer.

    The tokenizer splits printable ASCII into characters and everything else into bytes, so it
    covers any text.

    Args:
        folder: Created if it does not exist; files of the same names are replaced.
        seed: Decides the weights: the same seed gives the same files.
        chat: Whether it has a chat template, as models have that follow instructions.
    """
    settings = TOKENIZER_CONFIG | ({"chat_template": CHAT_TEMPLATE} if chat else {})
    weights = {name: _draw(shape, seed=seed, name=name) for name, shape in _shapes().items()}
    files = gemma_files(CONFIG, make_tokenizer(VOCABULARY, []), settings, weights)
    files["processor_config.json"] = _json(PROCESSOR_CONFIG)
    files["preprocessor_config.json"] = _json(PREPROCESSOR_CONFIG)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        # Not save_file, whose files nobody but their owner can read.
        (folder / name).write_bytes(content)


def gemma_files(
    config: Mapping[str, Any],
    tokenizer: Tokenizer,
    settings: Mapping[str, Any],
    weights: Mapping[str, Tensor],
) -> dict[str, bytes]:
    """What a Gemma 3 folder holds for those who give it text.

    Args:
        config: Architecture, as ``CONFIG``.
        tokenizer: Of the vocabulary that the architecture is for.
        settings: Of the tokenizer, as ``TOKENIZER_CONFIG``.
        weights: By official name, in the dtype that they are kept in.

    Returns:
        Contents of the files by name.
    """
    return {
        "config.json": _json(config),
        "tokenizer_config.json": _json(settings),
        "tokenizer.json": tokenizer.to_str(pretty=True).encode(),
        "model.safetensors": save(dict(weights), {"format": "pt"}),
    }


def make_tokenizer(vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]]) -> Tokenizer:
    """A tokenizer as Gemma's, which covers any text: what it does not know, it splits into bytes.

    Args:
        vocabulary: Ids by token; begins as ``VOCABULARY``.
        merges: Pairs of tokens that become one, in order.
    """
    tokenizer = Tokenizer(
        models.BPE(
            vocab=dict(vocabulary),
            merges=list(merges),
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.add_special_tokens(SPECIAL_TOKENS)
    space = CHARACTERS[0]
    tokenizer.normalizer = normalizers.Replace(" ", space)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", BOS_ID)]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(space, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return tokenizer


def _json(content: Mapping[str, Any]) -> bytes:
    return f"{json.dumps(content, indent=2)}\n".encode()


def _shapes() -> dict[str, torch.Size]:
    """Shapes by official name, which is not what transformers 5 calls the weights in memory.

    The head is tied to the embedding and not stored.
    """
    # Those who only load the tiny model shall not wait for it.
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration  # noqa: PLC0415 - slow

    with torch.device("meta"):
        model = Gemma3ForConditionalGeneration(Gemma3Config.from_dict(CONFIG))
    official = {
        "model.language_model.": "language_model.model.",
        "model.vision_tower.": "vision_tower.vision_model.",
        "model.multi_modal_projector.": "multi_modal_projector.",
    }
    return {
        new + name.removeprefix(old): tensor.shape
        for old, new in official.items()
        for name, tensor in model.state_dict().items()
        if name.startswith(old)
    }


def _draw(shape: torch.Size, *, seed: int, name: str) -> Tensor:
    """Weights that keep the scale of the activations: a norm's are deviations from 1."""
    scale = 0.1 if len(shape) == 1 else 1 / math.sqrt(shape[1:].numel())
    drawn = torch.randn(shape, generator=seeded_generator(seed, name), device="cpu")
    return (drawn * scale).to(torch.bfloat16)
