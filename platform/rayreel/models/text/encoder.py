"""Prompts to text embeddings, from end to end."""

from collections.abc import Sequence

from torch import nn

from rayreel.models.text.gemma import Gemma
from rayreel.models.text.processor import EmbeddingsProcessor
from rayreel.models.text.tokenizer import PromptTokenizer
from rayreel.types import TextContext


class TextEncoder(nn.Module):
    """Tokenizer, language model and embeddings processor in a row."""

    def __init__(
        self, tokenizer: PromptTokenizer, gemma: Gemma, processor: EmbeddingsProcessor
    ) -> None:
        """Join the parts.

        Args:
            tokenizer: Of the same Gemma folder as ``gemma``.
            gemma: The language model.
            processor: On the same device and in the same dtype as ``gemma``.
        """
        super().__init__()
        self.tokenizer = tokenizer
        self.gemma = gemma
        self.processor = processor

    def forward(self, prompts: Sequence[str]) -> list[TextContext]:
        """Embed prompts in one batch; negative prompts are embedded like any other.

        Args:
            prompts: At least one text; may be empty ones.

        Returns:
            One unbatched context ``(L, C)`` per prompt, on the model's device.
        """
        input_ids, mask = (x.to(self.gemma.device) for x in self.tokenizer(prompts))
        context = self.processor(self.gemma(input_ids, mask), mask)
        return [
            TextContext(video=video, audio=audio)
            for video, audio in zip(context.video, context.audio, strict=True)
        ]
