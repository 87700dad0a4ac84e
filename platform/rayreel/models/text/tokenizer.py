"""Prompts to token ids of a fixed length. Letters: B prompts, L tokens."""

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from rayreel.errors import CheckpointError

PAD_ID = 0
BOS_ID = 2

PROMPT_TOKENS = 1024
"""The length that published networks are trained with, and the most of any.

Registers fill what a prompt leaves free, so another length conditions differently.
"""


class PromptTokenizer:
    """Gemma's tokenizer, with the padding that the connectors expect.

    Reads ``tokenizer.json`` itself: transformers 5 takes only the vocabulary from the file and
    brings its own rules for splitting text.
    """

    def __init__(
        self, source: Path, text: str | None = None, *, length: int = PROMPT_TOKENS
    ) -> None:
        """Read the tokenizer of a text encoder.

        Args:
            source: Folder that holds ``tokenizer.json``, or the packed file that ``text`` is from.
            text: Content of ``tokenizer.json``, where it is not a file of its own.
            length: Tokens of every encoded prompt; a multiple of the connectors' registers.

        Raises:
            CheckpointError: If the file is missing or is not a tokenizer.
        """
        if text is None:
            folder, source = source, source / "tokenizer.json"
            if not source.is_file():
                raise CheckpointError(f"text encoder {folder} has no tokenizer.json")
            text = source.read_text(encoding="utf-8")
        try:
            self._tokenizer = Tokenizer.from_str(text)
        except Exception as error:  # the library has no narrower class for a broken file
            raise CheckpointError(f"tokenizer of {source} is not one: {error}") from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.length = length

    def __call__(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Encode prompts, padded on the left.

        Args:
            prompts: Any text; surrounding white space is dropped. An empty one is a lone BOS.

        Returns:
            Token ids and mask (1 for BOS and text, 0 for padding), both int64 ``(B, length)``.
        """
        input_ids = torch.full((len(prompts), self.length), PAD_ID)
        mask = torch.zeros_like(input_ids)
        for row, prompt in enumerate(prompts):
            ids = self._ids(prompt)
            input_ids[row, -len(ids) :] = torch.tensor(ids)
            mask[row, -len(ids) :] = 1
        return input_ids, mask

    def _ids(self, prompt: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(prompt.strip()).ids
        if ids[:1] != [BOS_ID]:
            ids = [BOS_ID, *ids]
        return ids[: self.length]
