"""Prompts to features: what the language model makes of a text, before any connector."""

from collections.abc import Sequence

from torch import Tensor, nn

from rayreel.models.text.features import FeatureExtractor
from rayreel.models.text.gemma import Gemma
from rayreel.models.text.tokenizer import PromptTokenizer
from rayreel.types import TextFeatures

# Steps of a half and of a third, by turns: few, so that texts of a batch share them.
_LENGTHS = tuple(step << power for power in range(4, 20) for step in (2, 3))


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
        """Features of prompts; negative prompts are like any other.

        Most of the padding is left out: a prompt is computed with those that need about as many
        tokens, in one of a few lengths that follows from itself alone. Tokens keep the positions
        that they have behind all of the padding. So the result does not depend on what is beside a
        prompt, down to the last bit where products do not depend on their number of rows.

        Args:
            prompts: At least one text; may be empty ones.

        Returns:
            One per prompt, in order, on the model's device.
        """
        input_ids, mask = self.tokenizer(prompts)
        lengths = [_padded(int(count), mask.shape[1]) for count in mask.sum(dim=1)]
        found: dict[int, TextFeatures] = {}
        for length in sorted(set(lengths)):
            rows = [row for row, own in enumerate(lengths) if own == length]
            part = self._encode(input_ids[rows], mask[rows], start=mask.shape[1] - length)
            found |= zip(rows, part, strict=True)
        return [found[row] for row in range(len(prompts))]

    def _encode(self, input_ids: Tensor, mask: Tensor, *, start: int) -> list[TextFeatures]:
        """Features of prompts that have nothing but padding before a column."""
        whole = mask.shape[1]
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
            found.append(TextFeatures(video=video, audio=audio, length=whole))
        return found


def _padded(tokens: int, most: int) -> int:
    """The least of some lengths that so many tokens fit into; they grow by half at most."""
    return min(most, next(length for length in _LENGTHS if length >= min(tokens, most)))
