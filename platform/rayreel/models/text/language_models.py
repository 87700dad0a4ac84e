"""The language models that prompts are read with, as transformers has them.

A module of its own because importing transformers takes seconds, which only those who encode text
or check its weights shall spend.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import (
    Gemma3Config,
    Gemma3ForCausalLM,
    Gemma3ForConditionalGeneration,
    Gemma3Processor,
    Gemma3TextConfig,
    Gemma3TextModel,
    Gemma4UnifiedConfig,
    Gemma4UnifiedTextConfig,
    Gemma4UnifiedTextModel,
    GemmaTokenizer,
)

from rayreel.errors import CheckpointError
from rayreel.models.text.gemma import Gemma, TextModel
from rayreel.models.text.generation import ChatProcessor, GenerativeModel, TiedHead

# Of the whole model, with the parts for other inputs than text.
GemmaConfig = Gemma3Config | Gemma4UnifiedConfig

_KINDS: dict[str, type[GemmaConfig]] = {
    config.model_type: config for config in (Gemma3Config, Gemma4UnifiedConfig)
}


def parse_config(values: Mapping[str, Any]) -> GemmaConfig:
    """Architecture as a Hugging Face ``config.json`` states it.

    Args:
        values: Its content, ``model_type`` included.

    Raises:
        ValueError: If it is not a Gemma that is known here.
    """
    model_type = values.get("model_type")
    if model_type not in _KINDS:
        raise ValueError(f"model_type={model_type!r}, expected one of {sorted(_KINDS)}")
    try:
        # A copy: from_dict fills in what it finds missing.
        return _KINDS[model_type].from_dict(copy.deepcopy(dict(values)))
    except (TypeError, ValueError, KeyError, StrictDataclassError) as error:
        raise ValueError(f"not a configuration of {model_type}: {error}") from error


def make_gemma(config: GemmaConfig) -> Gemma:
    """Build a language model, perhaps on the meta device.

    Buffers that weight files do not hold are real even then.
    """
    text = config.text_config
    if isinstance(text, Gemma4UnifiedTextConfig):
        model: TextModel = Gemma4UnifiedTextModel(text)
    else:
        assert isinstance(text, Gemma3TextConfig), "parse_config makes no others"
        model = Gemma3TextModel(text)
    _restore_buffers(model)
    return Gemma(model, placeholder_ids=_placeholder_ids(config))


def make_generative(config: Gemma3Config, *, sees: bool, tied: bool) -> GenerativeModel:
    """Build a language model with its head, perhaps on the meta device; buffers as above.

    Args:
        config: Architecture.
        sees: Whether with the vision tower and its projector.
        tied: Whether the head has the embedding's weight and none of its own.
    """
    assert isinstance(config.text_config, Gemma3TextConfig), "parse_config makes no others"
    model: GenerativeModel
    if sees:
        model = Gemma3ForConditionalGeneration(config)
        _restore_buffers(model.model.language_model)
        with torch.device("cpu"):
            embeddings = model.model.vision_tower.embeddings
            embeddings.position_ids = torch.arange(embeddings.num_positions)[None]
    else:
        model = Gemma3ForCausalLM(config.text_config)
        _restore_buffers(model.model)
    if tied:
        embedding = model.get_input_embeddings()
        assert isinstance(embedding, nn.Embedding), "tokens go into both"
        model.lm_head = TiedHead(embedding)
    return model


def read_processor(folder: Path, chat_template: str, *, sees: bool) -> ChatProcessor:
    """What makes a chat to a language model's input.

    Nothing is downloaded, and no code of the folder runs.

    Args:
        folder: Tokenizer and, where it ``sees``, the settings for images.
        chat_template: Jinja.
        sees: Whether chats may have images.

    Raises:
        CheckpointError: If files are missing or broken.
    """
    kind: Any = Gemma3Processor if sees else GemmaTokenizer
    try:
        processor: ChatProcessor = kind.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, chat_template=chat_template
        )
    except Exception as error:  # the library has no narrower class for broken files
        raise CheckpointError(
            f"text encoder {folder}: its tokenizer or processor cannot be read: {error}"
        ) from error
    return processor


def _restore_buffers(model: Any) -> None:  # noqa: ANN401 - alike in both, but not by type
    """Make the two kinds of buffers that no weights would ever take off the meta device."""
    with torch.device("cpu"):
        model.rotary_emb = type(model.rotary_emb)(model.config)
        model.embed_tokens.embed_scale = torch.tensor(model.embed_tokens.scalar_embed_scale)


def _placeholder_ids(config: GemmaConfig) -> tuple[int, ...]:
    """Tokens that stand for an image, a video or a sound.

    Gemma 3 has some too, but embeds them when they are typed.
    """
    if isinstance(config, Gemma3Config):
        return ()
    ids = (config.image_token_id, config.video_token_id, config.audio_token_id)
    return tuple(i for i in ids if i is not None)
