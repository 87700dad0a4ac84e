"""Gemma as a writer: one answer to one message. Letters: H height, W width."""

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Union

import torch
import torch.nn.functional as F
from jinja2 import TemplateError
from torch import Tensor, nn

from rayreel.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import (
        Gemma3ForCausalLM,
        Gemma3ForConditionalGeneration,
        Gemma3Processor,
        GemmaTokenizer,
    )

GenerativeModel = Union["Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"]
ChatProcessor = Union["Gemma3Processor", "GemmaTokenizer"]

SAMPLING = MappingProxyType(
    {"do_sample": True, "temperature": 0.7, "top_k": 50, "top_p": 1.0, "max_new_tokens": 512}
)
"""How tokens are drawn, in the words of transformers' ``generate``."""

# Of tokens in front of the answer.
_LENGTH_MULTIPLE = 8

_END_OF_TURN = "<end_of_turn>"


class TiedHead(nn.Module):
    """Logits from the embedding's own weight, which stays the only copy wherever it is moved."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        # In a tuple, or it would be a second child with the same weight under another name.
        self._embedding = (embedding,)

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits ``(..., vocabulary)`` for hidden states ``(..., width)``."""
        return F.linear(hidden, self._embedding[0].weight)


class TextGenerator(nn.Module):
    """A language model with its head and its chat template.

    Attributes:
        model: The model, with a vision tower or without.
    """

    def __init__(self, model: GenerativeModel, processor: ChatProcessor) -> None:
        """Join the parts.

        Args:
            model: The model.
            processor: Makes its input; that of a model with a vision tower takes images too.
        """
        super().__init__()
        self.model = model
        # Their stubs know too little of what comes out.
        self._processor: Any = processor
        self._tokenizer: Any = getattr(processor, "tokenizer", processor)

    @property
    def layers(self) -> nn.ModuleList:
        """Blocks of the language model, which can be brought to a device one by one."""
        decoder: Any = self.model.get_decoder()  # type: ignore[no-untyped-call]
        return decoder.layers

    @torch.inference_mode()
    def forward(self, system: str, user: str, *, seed: int, image: Tensor | None = None) -> str:
        """The answer to a message, as the model wrote it.

        The same arguments give the same answer on the same hardware; the generators of the process
        are left as they were.

        Args:
            system: Instruction.
            user: Message. Control tokens in it, which could end its turn, are taken out.
            seed: Of the tokens that are drawn.
            image: RGB ``uint8`` ``(H, W, 3)`` in front of the message, for models that see.

        Raises:
            CheckpointError: If the chat template does not take such a message.
        """
        inputs = self.inputs(system, user, image)
        device = inputs["input_ids"].device
        # Manual seeding reaches every generator, but only CUDA's and the CPU's are drawn from by
        # anyone else.
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            model: Any = self.model
            output = model.generate(
                **inputs,
                **SAMPLING,
                eos_token_id=self._stop_ids,
                pad_token_id=self._tokenizer.pad_token_id,
            )
        answer = output[0, inputs["input_ids"].shape[1] :]
        return self._tokenizer.decode(answer, skip_special_tokens=True)

    def inputs(self, system: str, user: str, image: Tensor | None = None) -> dict[str, Tensor]:
        """What the model reads: tensors of one row, on its device, padded on the left.

        Args:
            system: Instruction.
            user: Message.
            image: RGB ``uint8`` ``(H, W, 3)``.

        Raises:
            CheckpointError: If the chat template does not take such a message.
        """
        parts: list[dict[str, Any]] = [{"type": "text", "text": self._without_control(user)}]
        if image is not None:
            parts.insert(0, {"type": "image", "image": image.movedim(-1, 0)})
        chat = [
            {"role": "system", "content": [{"type": "text", "text": system}]},
            {"role": "user", "content": parts},
        ]
        try:
            inputs = self._processor.apply_chat_template(
                chat,
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
            )
        except TemplateError as error:
            raise CheckpointError(
                f"the chat template refuses to write a prompt: {error}"
            ) from error
        missing = -inputs["input_ids"].shape[1] % _LENGTH_MULTIPLE
        embedding: Any = self.model.get_input_embeddings()
        weight = embedding.weight
        fill = {"input_ids": self._tokenizer.pad_token_id}
        return {
            name: tensor.to(weight.device, weight.dtype)
            if name == "pixel_values"
            else F.pad(tensor, (missing, 0), value=fill.get(name, 0)).to(weight.device)
            for name, tensor in inputs.items()
        }

    @property
    def _stop_ids(self) -> list[int]:
        """Tokens that end an answer."""
        control = self._tokenizer.added_tokens_encoder
        return sorted({self._tokenizer.eos_token_id, control[_END_OF_TURN]})

    def _without_control(self, text: str) -> str:
        for token in self._tokenizer.added_tokens_decoder.values():
            if token.special:
                text = text.replace(token.content, " ")
        return text
