"""A small Gemma 3 that is learned from scratch: its tokenizer, its architecture, its files."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from rayreel.models.text.gemma import Gemma
from rayreel.models.text.tiny import (
    CHARACTERS,
    CONFIG,
    TOKENIZER_CONFIG,
    VOCABULARY,
    gemma_files,
    make_tokenizer,
)

_SPACE = CHARACTERS[0]


def learn_tokenizer(texts: Iterable[str], size: int) -> Tokenizer:
    """A tokenizer whose tokens are what is frequent in texts.

    It reads capitals as small letters, and the first word as any other.

    Args:
        texts: Printable ASCII.
        size: Tokens of the vocabulary, at least those that spell any text.

    Raises:
        ValueError: If there are too few texts for so many tokens.
    """
    learner = Tokenizer(models.BPE())
    learner.normalizer, learner.pre_tokenizer = _normalizer(), _splitter()
    trainer = trainers.BpeTrainer(
        vocab_size=len(CHARACTERS) + size - len(VOCABULARY),
        initial_alphabet=CHARACTERS,
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    merges = [(a, b) for a, b in json.loads(learner.to_str())["model"]["merges"]]
    merged = dict.fromkeys(a + b for a, b in merges)
    tokens = [*VOCABULARY, *(token for token in merged if token not in VOCABULARY)]
    if len(tokens) != size:
        raise ValueError(f"texts that give {len(tokens)} tokens, expected {size}; give more texts")
    tokenizer = make_tokenizer({token: i for i, token in enumerate(tokens)}, merges)
    tokenizer.normalizer, tokenizer.pre_tokenizer = _normalizer(), _splitter()
    return tokenizer


def gemma_config(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """A Gemma folder's configuration for text alone.

    Args:
        architecture: What its language model has otherwise than the tiny one.
    """
    return CONFIG | {"text_config": CONFIG["text_config"] | architecture}


def learned_files(
    gemma: Gemma, config: Mapping[str, Any], tokenizer: Tokenizer, length: int
) -> dict[str, bytes]:
    """Files of a Gemma folder, with weights in bfloat16.

    Args:
        gemma: The language model; its head is tied to the embedding and not stored.
        config: Its architecture.
        tokenizer: Its tokenizer.
        length: Tokens that prompts are cut and filled up to.

    Returns:
        Contents by name.
    """
    weights = {
        f"language_model.{name}": tensor.detach().to(torch.bfloat16).contiguous()
        for name, tensor in gemma.state_dict().items()
    }
    return gemma_files(config, tokenizer, TOKENIZER_CONFIG | {"model_max_length": length}, weights)


def _normalizer() -> normalizers.Normalizer:
    return normalizers.Sequence(
        [
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"\s+"), _SPACE),
            normalizers.Prepend(_SPACE),
        ]
    )


def _splitter() -> pre_tokenizers.PreTokenizer:
    """Tokens end where words do."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(_SPACE, "merged_with_next"),
            pre_tokenizers.Split(Regex(rf"[^\w{_SPACE}]"), "isolated"),
        ]
    )
