"""The text encoder's files: a folder as Hugging Face keeps it, or one packed file."""

import json
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rayreel.checkpoints import keys
from rayreel.checkpoints.builder import outline
from rayreel.checkpoints.quantization import cast_weight, meta_tensors
from rayreel.checkpoints.reader import WeightFile
from rayreel.errors import CheckpointError
from rayreel.models.text.gemma import Gemma
from rayreel.models.text.tokenizer import PROMPT_TOKENS, PromptTokenizer

if TYPE_CHECKING:
    from rayreel.models.text.language_models import GemmaConfig

GEMMA_3 = "gemma3"
GEMMA_4 = "gemma4_unified"

# The language model's weights, and what may lie beside them; the last rule keeps the name of
# anything else, so that it is told as unexpected.
_INNER = "model."
_LAYOUTS: dict[str, keys.Rules] = {
    GEMMA_3: (
        ("language_model.model.", _INNER),
        ("language_model.lm_head.", None),
        ("vision_tower.", None),
        ("multi_modal_projector.", None),
        ("", ""),
    ),
    GEMMA_4: (
        ("model.language_model.", _INNER),
        ("model.vision_embedder.", None),
        ("model.embed_vision.", None),
        ("model.embed_audio.", None),
        ("model.", _INNER),
        ("lm_head.", None),
        ("vision_model.", None),
        ("multi_modal_projector.", None),
        ("audio_projector.", None),
        ("text_embedding_projection.", None),
        ("tokenizer_json", None),
        ("hf_asset__", None),
        ("", ""),
    ),
}


class TextEncoderFiles:
    """An opened text encoder: its configuration and headers; weights when they are asked for.

    Attributes:
        path: Folder with ``config.json``, ``tokenizer.json`` and the weights in one safetensors
            file or in shards; or one safetensors file with all of it inside.
        file: All tensors, those of other inputs than text included.
        values: Content of ``config.json``.
    """

    def __init__(self, path: Path) -> None:
        """Open it; which language model it holds is not judged here.

        Raises:
            CheckpointError: If files are missing or broken.
        """
        self.path = path
        if path.is_dir():
            config = path / "config.json"
            self.values = json_object(_read(config), str(config))
            self.file = WeightFile(_weights_of(path))
        else:
            self.file = WeightFile(path)
            text = self.file.metadata.get("gemma_config")
            if text is None:
                raise CheckpointError(
                    f"{path} is not a packed text encoder: its metadata has no 'gemma_config'"
                )
            self.values = json_object(text, f"{path}: metadata 'gemma_config'")

    @property
    def packed(self) -> bool:
        """Whether it is one file, which holds the projection of the text features too."""
        return self.file.path == self.path

    @property
    def model_type(self) -> str:
        """The kind of language model, in Hugging Face's spelling; empty where none is stated."""
        return str(self.values.get("model_type", ""))

    @property
    def gemma_version(self) -> str | None:
        """Version that transformers name as the one they were trained with."""
        version = self.values.get("gemma_version")
        return None if version is None else str(version)

    @cached_property
    def config(self) -> "GemmaConfig":
        """Architecture of the language model; raises ``CheckpointError`` if it is not known."""
        from rayreel.models.text.language_models import parse_config  # noqa: PLC0415 - slow

        try:
            return parse_config(self.values)
        except ValueError as error:
            raise CheckpointError(f"text encoder {self.path}: {error}") from error

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states."""
        return int(self._text.hidden_size)

    @property
    def num_hidden_states(self) -> int:
        """Hidden states per token: the embedding and the output of every layer."""
        return int(self._text.num_hidden_layers) + 1

    @cached_property
    def prompt_tokens(self) -> int:
        """Tokens that prompts are cut and filled up to.

        Published folders name no limit or a higher one; that of a small model is the length that
        its networks are trained with. Packed files are published ones.

        Raises:
            CheckpointError: If the tokenizer's settings are broken.
        """
        settings = self.path / "tokenizer_config.json"
        if self.packed or not settings.is_file():
            return PROMPT_TOKENS
        most = json_object(_read(settings), str(settings)).get("model_max_length")
        if most is None:
            return PROMPT_TOKENS
        if isinstance(most, bool) or not isinstance(most, int | float) or not most >= 1:
            raise CheckpointError(
                f"{settings}: model_max_length={most!r}, expected a number of tokens from 1 on, "
                f"such as {PROMPT_TOKENS}"
            )
        return int(min(PROMPT_TOKENS, most))

    def tokenizer(self, *, length: int | None = None) -> PromptTokenizer:
        """The tokenizer; raises ``CheckpointError`` if there is none.

        Args:
            length: Tokens of every encoded prompt; by default those that prompts have.
        """
        length = length or self.prompt_tokens
        if not self.packed:
            return PromptTokenizer(self.path, length=length)
        try:
            return PromptTokenizer(self.path, self.tokenizer_json.decode(), length=length)
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{self.path}: tensor 'tokenizer_json' is not text") from error

    @property
    def tokenizer_json(self) -> bytes:
        """The tokenizer's own file; raises ``CheckpointError`` if there is none."""
        if not self.packed:
            return _read(self.path / "tokenizer.json").encode()
        if "tokenizer_json" not in self.file.names:
            raise CheckpointError(f"{self.path} has no tensor 'tokenizer_json'")
        # Bytes of a text file, whatever integers a tool declares them to be.
        return self.file.tensor("tokenizer_json").numpy().tobytes()

    def check(self) -> None:
        """Compare the weights with the configuration by names and shapes, and try the tokenizer.

        Raises:
            CheckpointError: If something is missing, unexpected or misshapen.
        """
        self.outline()
        self.tokenizer()

    @property
    def header(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and dtype, in safetensors' spelling, of the language model's weights."""
        return {
            new: (self.file.shape(old), self.file.dtype(old)) for new, old in self.names.items()
        }

    def outline(self) -> Gemma:
        """The language model on the meta device; buffers that no file holds are real, on the CPU.

        Raises:
            CheckpointError: If weights are missing, unexpected or misshapen.
        """
        return outline(self._make, meta_tensors(self.header), source=str(self.path))

    def weights(
        self,
        device: torch.device,
        dtype: torch.dtype,
        *,
        wanted: Callable[[str], bool] = lambda _: True,
    ) -> dict[str, Tensor]:
        """Weights of the language model, mapped from the files where nothing has to be cast.

        Args:
            device: Where they go.
            dtype: What they are cast to.
            wanted: Which are read, by name in the network.
        """
        return {
            new: cast_weight(new, self.file.tensor(old).to(device), dtype)
            for new, old in self.names.items()
            if wanted(new)
        }

    def _make(self) -> Gemma:
        from rayreel.models.text.language_models import make_gemma  # noqa: PLC0415 - slow

        return make_gemma(self.config)

    @property
    def _text(self) -> Any:  # noqa: ANN401 - transformers declares it as a dict too
        return self.config.text_config

    @cached_property
    def names(self) -> dict[str, str]:
        """Names in the files by name in the network; raises ``CheckpointError`` as ``config``."""
        # Of models that are known, without the slow import.
        kind = self.model_type if self.model_type in _LAYOUTS else self.config.model_type
        rules = _LAYOUTS[kind]
        return {new: old for old in self.file.names if (new := keys.rename(old, rules))}


def _weights_of(folder: Path) -> Path:
    """The weights of a folder: one file, or the index of a sharded one."""
    names = ("model.safetensors", "model.safetensors.index.json")
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(f"text encoder {folder} has neither {' nor '.join(names)}")


def _read(file: Path) -> str:
    if not file.is_file():
        raise CheckpointError(f"text encoder {file.parent} has no {file.name}")
    return file.read_text(encoding="utf-8")


def json_object(text: str, source: str) -> dict[str, Any]:
    """A JSON object; raises ``CheckpointError``, which names the source, if it is none."""
    try:
        values = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"{source} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{source} is not a JSON object")
    return values
