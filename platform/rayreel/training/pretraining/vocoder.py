"""The vocoder: mel spectrograms to sound.

Mel frames of a steady tone are all alike, so what a convolutional vocoder plays for them repeats
with every frame. The tones of the world are overtones of the rate of the frames, and each of them
begins anew in every frame: a vocoder can play them without a seam, and is told where their waves
are.
"""

from collections.abc import Mapping
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from rayreel.checkpoints import keys
from rayreel.config.model import AudioVAEConfig, VocoderConfig
from rayreel.config.pretrain import StretchSpec
from rayreel.data.storage import Storage
from rayreel.models.audio_vae import AudioDecoder, AudioEncoder, resample
from rayreel.models.vocoder import Vocoder
from rayreel.training.pretraining.part import Part, file_tensors, read_network, write_weights
from rayreel.training.pretraining.sounds import RATE_HZ, Sounds, begin_at_silence, sounds
from rayreel.training.pretraining.spectra import click_distance, spectral_distance
from rayreel.types import seeded_generator

# Where a wave of a click begins cannot be read from a mel spectrogram, so that only those of tones
# are compared sample by sample.
_TONES_RATE_HZ = 4000
_WAVES = 20.0
# Steps until spectra count fully: to those, silence is better than a tone that is not yet right.
_ALOUD = 1000
# Of the latents, in standard deviations: what a transformer makes is not exact either.
_NOISE = 0.1


class VocoderPart(Part):
    """A vocoder, which learns from sounds and, if there is one, from what an audio VAE decodes."""

    def __init__(
        self, architecture: Mapping[str, Any], seed: int, audio_vae: str | None = None
    ) -> None:
        """Make it, with random weights.

        Args:
            architecture: With the sections ``audio_vae`` and ``vocoder``.
            seed: Decides weights, sounds and noise.
            audio_vae: Weight file of an audio VAE, whose spectrograms are half of those that it
                learns from.

        Raises:
            CheckpointError: If the file is not that of the audio VAE of the architecture.
        """
        self._seed, self._section = seed, architecture["vocoder"]
        self._config = AudioVAEConfig.model_validate(architecture["audio_vae"])
        torch.manual_seed(seed)
        network = Vocoder(VocoderConfig.model_validate(self._section))
        begin_at_silence(network.conv_pre)
        self.network: nn.Module = network
        self._audio_vae = _AudioVAE(audio_vae) if audio_vae else None

    def losses(self, step: int, stretch: StretchSpec) -> Mapping[str, Tensor]:
        """How far what it plays is from sounds."""
        batch = sounds(Random(f"{self._seed}/{step}"), stretch, self._config)
        made = self.network(self._heard(batch, step))
        waves = resample(made - batch.waveform, RATE_HZ, _TONES_RATE_HZ).abs().mean()
        spectra = spectral_distance(made, batch.waveform)
        clicks = click_distance(made, batch.waveform, RATE_HZ)
        loss = _WAVES * waves + min(1.0, step / _ALOUD) * spectra + clicks
        return {"loss": loss, "waves": waves, "spectra": spectra, "clicks": clicks}

    def _heard(self, batch: Sounds, step: int) -> Tensor:
        """Spectrograms, the second half of them through the audio VAE if there is one."""
        if self._audio_vae is None:
            return batch.mel
        half = len(batch.mel) // 2
        generator = seeded_generator(self._seed, f"vocoder/{step}")
        decoded = self._audio_vae.decoded(batch.recorded[half:], generator)
        return torch.cat([batch.mel[:half], decoded])

    def write(self, storage: Storage) -> None:
        """Weights; raises ``StorageError``."""
        tensors = file_tensors(self.network, keys.VOCODER)
        write_weights(storage, "vocoder.safetensors", tensors, {"vocoder": self._section})


class _AudioVAE:
    """Spectrograms through an audio VAE that has learnt already."""

    def __init__(self, path: str) -> None:
        self._encoder, self._decoder = (
            read_network(path, "audio_vae", AudioVAEConfig, make, rules)
            for make, rules in (
                (AudioEncoder, keys.AUDIO_ENCODER),
                (AudioDecoder, keys.AUDIO_DECODER),
            )
        )

    @torch.no_grad()
    def decoded(self, mel: Tensor, generator: torch.Generator) -> Tensor:
        latents = self._encoder(mel)
        noise = torch.randn(latents.shape, generator=generator)
        decoded: Tensor = self._decoder(latents + _NOISE * noise)
        return decoded
