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

        Padding that all of them share is not computed. Tokens keep the positions that they have
        behind all of it, so none depends on the others but for the rounding of other products.

        Args:
            prompts: At least one text; may be empty ones.

        Returns:
            One per prompt, in order, on the model's device.
        """
        input_ids, mask = self.tokenizer(prompts)
        length = mask.shape[1]
        start = length - int(mask.sum(dim=1).max())
        input_ids, mask = (x[:, start:].to(self.gemma.device) for x in (input_ids, mask))
        states = self.gemma(input_ids, mask, start=start)
        videos, audios = self.feature_extractor(states, mask)
        found = []
        for row, valid in enumerate(mask.bool()):
            # Copies: a view would keep the padding of the whole batch.
            video = videos[row, valid]
            if audios is videos:
                audio = video
            else:
                audio = video[:, :0] if audios is None else audios[row, valid]
            found.append(TextFeatures(video=video, audio=audio, length=length))
        return found
