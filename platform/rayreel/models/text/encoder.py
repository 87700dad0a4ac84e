"""Prompts to features: what the language model makes of a text, before any connector."""

from collections.abc import Sequence

from torch import nn

from rayreel.models.text.features import FeatureExtractor
from rayreel.models.text.gemma import Gemma
from rayreel.models.text.tokenizer import PromptTokenizer
from rayreel.types import TextFeatures


class TextEncoder(nn.Module):
    """Tokenizer, language model and feature extractor in a row."""

    def __init__(
        self, tokenizer: PromptTokenizer, gemma: Gemma, feature_extractor: FeatureExtractor
    ) -> None:
        """Join the parts.

        Args:
            tokenizer: Of the same Gemma folder as ``gemma``.
            gemma: The language model.
            feature_extractor: On the same device and in the same dtype as ``gemma``.
        """
        super().__init__()
        self.tokenizer = tokenizer
        self.gemma = gemma
        self.feature_extractor = feature_extractor

    def forward(self, prompts: Sequence[str]) -> list[TextFeatures]:
        """Features of prompts, in one batch; negative prompts are like any other.

        Prompts are padded to one length whatever is beside them, so none depends on the others but
        for the rounding of larger products.

        Args:
            prompts: At least one text; may be empty ones.

        Returns:
            One per prompt, in order, on the model's device.
        """
        input_ids, mask = (x.to(self.gemma.device) for x in self.tokenizer(prompts))
        videos, audios = self.feature_extractor(self.gemma(input_ids, mask), mask)
        found = []
        for row, valid in enumerate(mask.bool()):
            # Copies: a view would keep the padding of the whole batch.
            video = videos[row, valid]
            if audios is videos:
                audio = video
            else:
                audio = video[:, :0] if audios is None else audios[row, valid]
            found.append(TextFeatures(video=video, audio=audio, length=mask.shape[1]))
        return found
