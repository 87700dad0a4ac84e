"""The text encoder: a language model, the projection of its states, and a connector per stream.

They learn together to tell what a caption says. Whoever attends to what the connectors make of it
finds shape, size and motion at the colour that they belong to.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rayreel.checkpoints import keys
from rayreel.config.model import TextConfig
from rayreel.config.pretrain import StretchSpec
from rayreel.config.request import DEFAULT_NEGATIVE_PROMPT
from rayreel.data.storage import Storage
from rayreel.models.text.language_models import make_gemma, parse_config
from rayreel.models.text.learned import gemma_config, learn_tokenizer, learned_files
from rayreel.models.text.processor import EmbeddingsProcessor
from rayreel.models.text.tokenizer import PromptTokenizer
from rayreel.pipelines.enhance import InstructionName, instruction
from rayreel.training.pretraining.meaning import Meaning, classes, understood
from rayreel.training.pretraining.part import Part, write_weights
from rayreel.training.pretraining.reader import Reader, meanings, misread
from rayreel.training.pretraining.wording import captions, learnt
from rayreel.types import TextContext

FOLDER = "gemma"
WEIGHTS = "text.safetensors"
UNDERSTOOD = "understood.json"
"""Shares of what captions of held-out combinations say, by stream and by what it is of."""

LENGTH = 128
"""Tokens of a prompt: as many as the connectors have registers."""

# Texts that say which tokens are frequent.
_TOKENISED = 5000
_MEASURED = 1000
# Texts that are read in one pass.
_TOGETHER = 64
_STREAMS = ("video", "audio")


class TextPart(Part):
    """Language model, feature extractor and connectors, which learn together."""

    def __init__(self, architecture: Mapping[str, Any], seed: int) -> None:
        """Make them, with random weights.

        Args:
            architecture: Its sections ``gemma`` and ``transformer``.
            seed: Decides weights and texts.
        """
        self._seed, self._section = seed, architecture["transformer"]
        self._config = gemma_config(architecture["gemma"])
        self.learned = learn_tokenizer(_frequent(seed), self._config["text_config"]["vocab_size"])
        self.tokenizer = PromptTokenizer(Path(FOLDER), self.learned.to_str(), length=LENGTH)
        torch.manual_seed(seed)
        config = TextConfig.model_validate(self._section)
        self.gemma = make_gemma(parse_config(self._config))
        self.processor = EmbeddingsProcessor(
            config,
            hidden_size=self.gemma.hidden_size,
            num_hidden_states=self.gemma.num_hidden_states,
        )
        # Of about the scale of the tokens that they stand beside.
        for name, weight in self.processor.named_parameters():
            if name.endswith("learnable_registers"):
                nn.init.uniform_(weight, -1, 1)
        self.readers = nn.ModuleDict(
            {"video": Reader(config.video.width), "audio": Reader(config.audio.width)}
        )
        self.network: nn.Module = nn.ModuleDict(
            {"gemma": self.gemma, "processor": self.processor, "readers": self.readers}
        )

    def embed(self, texts: Sequence[str]) -> TextContext:
        """What a transformer attends to.

        Args:
            texts: At least one.

        Returns:
            Batched ``(B, LENGTH, C)`` per stream. Padding that all texts have is left out until the
            connectors: it changes nothing there, and is most of what there is to compute.
        """
        input_ids, mask = self.tokenizer(texts)
        start = LENGTH - int(mask.sum(dim=1).max())
        states = self.gemma(input_ids[:, start:], mask[:, start:], start=start)
        video, audio = self.processor.feature_extractor(states, mask[:, start:])
        for_video, for_audio = self.processor.video_connector, self.processor.audio_connector
        assert audio is not None, "there is an audio stream"
        assert for_audio is not None, "there is an audio stream"
        return TextContext(
            video=for_video(F.pad(video, (0, 0, start, 0)), mask),
            audio=for_audio(F.pad(audio, (0, 0, start, 0)), mask),
        )

    def losses(self, step: int, stretch: StretchSpec) -> Mapping[str, Tensor]:
        """How far what is read from each stream is from what captions say."""
        rng = Random(f"{self._seed}/{step}")
        texts, said = zip(*(learnt(rng) for _ in range(stretch.batch_size)), strict=True)
        scores, wanted = self._scores(texts), classes(said)
        losses = {stream: misread(scores[stream], wanted) for stream in _STREAMS}
        right = {
            f"{stream}_right": torch.tensor(_share_right(said, meanings(scores[stream])))
            for stream in _STREAMS
        }
        return {"loss": torch.stack(list(losses.values())).sum(), **losses, **right}

    @torch.no_grad()
    def read(self, texts: Sequence[str]) -> dict[str, list[Meaning]]:
        """What is read from each stream, by its name; as long as the readers are there."""
        found: dict[str, list[Meaning]] = {stream: [] for stream in _STREAMS}
        for first in range(0, len(texts), _TOGETHER):
            scores = self._scores(texts[first : first + _TOGETHER])
            for stream in _STREAMS:
                found[stream] += meanings(scores[stream])
        return found

    def write(self, storage: Storage) -> None:
        """Leave the folder of the language model, the rest, and how much is understood with them.

        Args:
            storage: The run directory.

        Raises:
            StorageError: If it does not answer.
        """
        files = learned_files(self.gemma, self._config, self.learned, LENGTH)
        for name, content in files.items():
            storage.write_bytes(f"{FOLDER}/{name}", content)
        tensors = {
            keys.file_name(name, keys.TEXT): tensor
            for name, tensor in self.processor.state_dict().items()
        }
        write_weights(storage, WEIGHTS, tensors, {"transformer": self._section})
        texts, said = zip(*captions(_MEASURED, self._seed, "held-out"), strict=True)
        found = {stream: understood(said, read) for stream, read in self.read(texts).items()}
        storage.write_bytes(UNDERSTOOD, json.dumps(found, indent=2).encode())

    def _scores(self, texts: Sequence[str]) -> dict[str, dict[str, Tensor]]:
        context = self.embed(texts)
        return {stream: self.readers[stream](getattr(context, stream)) for stream in _STREAMS}


def _frequent(seed: int) -> list[str]:
    """Texts that tell which tokens are frequent: of the world, and in ordinary sentences."""
    rng = Random(f"{seed}/tokenizer")
    texts = [learnt(rng)[0] for _ in range(_TOKENISED)]
    names: tuple[InstructionName, ...] = get_args(InstructionName)
    return [*texts, DEFAULT_NEGATIVE_PROMPT, *map(instruction, names)]


def _share_right(said: Sequence[Meaning], read: Sequence[Meaning]) -> float:
    """Captions that are understood in full."""
    pairs = zip(said, read, strict=True)
    return sum(
        set(a.things) == set(b.things) and (a.background, a.sounds) == (b.background, b.sounds)
        for a, b in pairs
    ) / len(said)
