"""From the hidden states of the language model to the embeddings of both streams.

Where encoding and denoising are apart, the halves are ``TextEncoder`` and ``TextConnectors``.

Letters: B prompts, L tokens, D width of a hidden state, S hidden states, C width of a stream's
embeddings.
"""

from torch import Tensor, nn

from rayreel.config.model import TextConfig
from rayreel.models.text.connector import Connector
from rayreel.models.text.features import FeatureExtractor
from rayreel.types import TextContext


class EmbeddingsProcessor(nn.Module):
    """The text weights of a checkpoint: feature extractor and one connector per stream."""

    def __init__(self, config: TextConfig, *, hidden_size: int, num_hidden_states: int) -> None:
        """Build for one language model.

        Args:
            config: Section ``transformer`` of a checkpoint.
            hidden_size: Width D of the language model.
            num_hidden_states: Its number S of hidden states.
        """
        super().__init__()
        self.feature_extractor = FeatureExtractor(
            config, hidden_size=hidden_size, num_hidden_states=num_hidden_states
        )
        self.video_connector = Connector(config.video)
        self.audio_connector = Connector(config.audio) if config.has_audio else None

    def forward(self, states: Tensor, mask: Tensor) -> TextContext:
        """Embed prompts.

        Args:
            states: Hidden states ``(B, L, D, S)``.
            mask: ``(B, L)``: 1 for valid tokens, at least one per prompt; 0 for padding.

        Returns:
            Batched ``(B, L, C)`` per stream, in the dtype of ``states``. Without an audio stream
            the audio context has width 0, so that contexts are alike for whoever passes them on.
        """
        video, audio = self.feature_extractor(states, mask)
        return TextContext(
            video=self.video_connector(video, mask),
            audio=video[..., :0]
            if self.audio_connector is None
            else self.audio_connector(audio, mask),
        )
