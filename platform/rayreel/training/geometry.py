"""What latents of a model stand for: pixels and seconds."""

from dataclasses import dataclass, field

from torch import Tensor

from rayreel.checkpoints.files import ModelFiles
from rayreel.diffusion.states import AudioTarget, VideoTarget
from rayreel.types import AudioLatentShape, ScaleFactors, VideoLatentShape


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """Where a model's tokens lie in space and time; the defaults are those of published models.

    Attributes:
        factors: Pixels per latent position.
        sample_rate_hz: Rate of the waveform behind the mel spectrogram.
        hop_length: Samples per mel frame.
        downsample: Mel frames per latent frame.
    """

    factors: ScaleFactors = field(default_factory=ScaleFactors)
    sample_rate_hz: int = 16000
    hop_length: int = 160
    downsample: int = 4

    @classmethod
    def of(cls, files: ModelFiles) -> "Geometry":
        """That of a model; what it says of a stream that it lacks does not matter.

        Raises:
            CheckpointError: If its files do not state it.
        """
        factors = files.factors if files.transformer.has_video else ScaleFactors()
        if not files.transformer.has_audio:
            return cls(factors=factors)
        config = files.audio_vae
        return cls(
            factors=factors,
            sample_rate_hz=config.sample_rate_hz,
            hop_length=config.preprocessing.stft.hop_length,
            downsample=config.downsample,
        )

    def video_target(self, latent: Tensor, fps: float) -> VideoTarget:
        """What a picture's latent ``(C, F, H, W)`` is to a model that generates it."""
        channels, frames, height, width = latent.shape
        shape = VideoLatentShape(
            batch=1, channels=channels, frames=frames, height=height, width=width
        )
        return VideoTarget(shape=shape, fps=fps, factors=self.factors)

    def audio_target(self, latent: Tensor) -> AudioTarget:
        """What a sound's latent ``(C, T, D)`` is to a model that generates it."""
        channels, frames, bins = latent.shape
        return AudioTarget(
            shape=AudioLatentShape(batch=1, channels=channels, frames=frames, bins=bins),
            sample_rate_hz=self.sample_rate_hz,
            hop_length=self.hop_length,
            downsample=self.downsample,
        )
