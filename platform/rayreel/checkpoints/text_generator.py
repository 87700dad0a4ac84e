"""A text encoder's files as those of a model that writes text."""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

from rayreel.checkpoints import keys
from rayreel.checkpoints.networks import Network
from rayreel.checkpoints.text_encoder import GEMMA_3, TextEncoderFiles, json_object
from rayreel.errors import CheckpointError
from rayreel.models.text.generation import TextGenerator

_VISION = ("vision_tower.", "multi_modal_projector.")
_HEADS = ("language_model.lm_head.", "lm_head.")


class TextGeneratorFiles:
    """What a text encoder can do beside encoding, told from its headers and small files alone.

    Attributes:
        encoder: Its files.
    """

    def __init__(self, encoder: TextEncoderFiles) -> None:
        self.encoder = encoder

    @cached_property
    def cannot_write(self) -> str | None:
        """Why it cannot write text, in one sentence; ``None`` where it can."""
        if self.encoder.packed or self.encoder.model_type != GEMMA_3:
            packed = "packed " if self.encoder.packed else ""
            return (
                f"the text encoder is a {packed}{self.encoder.model_type or 'unknown model'}, "
                "which only encodes; a folder of Gemma 3 can write too"
            )
        if not self.chat_template:
            return "the text encoder has no chat template: it is not trained to follow instructions"
        if not self._tied and not any(self._has(head) for head in _HEADS):
            return "the text encoder has no head: its weights end with the last hidden state"
        return None

    @cached_property
    def cannot_see(self) -> str | None:
        """Why it cannot look at images, in one sentence; ``None`` where it can."""
        if self.cannot_write:
            return self.cannot_write
        if missing := [part for part in _VISION if not self._has(part)]:
            return f"the text encoder has no weights {' and '.join(f'{m}*' for m in missing)}"
        if not any("image_mean" in settings for settings in self._image_settings()):
            return "the text encoder has no preprocessor_config.json, which is for images"
        return None

    @cached_property
    def chat_template(self) -> str:
        """Jinja that makes a chat one text; empty where there is none.

        Raises:
            CheckpointError: If a file that may hold it is broken.
        """
        own = self.encoder.path / "chat_template.jinja"
        if own.is_file():
            return own.read_text(encoding="utf-8")
        for name in ("chat_template.json", "tokenizer_config.json"):
            template = self._json(name).get("chat_template")
            if isinstance(template, list):
                # Several by name; those that are not the default are for tools and the like.
                named = {entry["name"]: entry["template"] for entry in template}
                template = named.get("default")
            if template:
                return str(template)
        return ""

    def network(self) -> Network[TextGenerator]:
        """The model that writes, with a vision tower where it can see.

        Raises:
            CheckpointError: If it cannot write.
        """
        if self.cannot_write:
            raise CheckpointError(f"{self.encoder.path}: {self.cannot_write}")
        return Network(self._make, self.encoder.file, self._rules)

    def _make(self) -> TextGenerator:
        from transformers import Gemma3Config  # noqa: PLC0415 - slow

        from rayreel.models.text.language_models import (  # noqa: PLC0415 - slow
            make_generative,
            read_processor,
        )

        config, sees = self.encoder.config, self.cannot_see is None
        assert isinstance(config, Gemma3Config), "others cannot write"
        model = make_generative(config, sees=sees, tied=self._tied)
        return TextGenerator(
            model, read_processor(self.encoder.path, self.chat_template, sees=sees)
        )

    @property
    def _rules(self) -> keys.Rules:
        """Where the weights lie; the last rule keeps the name of what nothing is known about."""
        heads = tuple((head, None if self._tied else "model.lm_head.") for head in _HEADS)
        if self.cannot_see:
            blind = tuple((part, None) for part in _VISION)
            return (("language_model.model.", "model.model."), *heads, *blind, ("", ""))
        return (
            ("language_model.model.", "model.model.language_model."),
            ("vision_tower.vision_model.", "model.model.vision_tower."),
            ("multi_modal_projector.", "model.model.multi_modal_projector."),
            *heads,
            ("", ""),
        )

    @property
    def _tied(self) -> bool:
        return bool(self.encoder.values.get("tie_word_embeddings", True))

    def _has(self, prefix: str) -> bool:
        return any(name.startswith(prefix) for name in self.encoder.file.names)

    def _image_settings(self) -> Iterator[dict[str, Any]]:
        yield self._json("preprocessor_config.json")
        yield self._json("processor_config.json").get("image_processor", {})

    def _json(self, name: str) -> dict[str, Any]:
        """Content of a file of the folder; empty where there is no such file."""
        file = self.encoder.path / name
        return json_object(file.read_text("utf-8"), str(file)) if file.is_file() else {}
