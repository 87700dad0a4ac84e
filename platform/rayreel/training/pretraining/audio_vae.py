"""The audio VAE: mel spectrograms to few numbers and back.

As of the video VAE, the decoder reads noisy latents and the encoder keeps its latents small.
"""

import math
from collections.abc import Mapping
from random import Random
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from rayreel.checkpoints import keys
from rayreel.config.model import AudioVAEConfig
from rayreel.config.pretrain import StretchSpec
from rayreel.data.storage import Storage
from rayreel.models.audio_vae import AudioDecoder, AudioEncoder
from rayreel.training.pretraining.part import Part, file_tensors, set_statistics, write_weights
from rayreel.training.pretraining.sounds import QUIET, begin_at_silence, sounds
from rayreel.types import seeded_generator

_NOISE = 0.2
_SMALL = 1e-3
# Sounds whose latents say what is usual.
_MEASURED = StretchSpec(steps=1, batch_size=256)

_DB = 20 / math.log(10)


class AudioVAEPart(Part):
    """Encoder and decoder, which learn together."""

    def __init__(self, section: Mapping[str, Any], seed: int) -> None:
        """Make them, with random weights.

        Args:
            section: ``audio_vae`` of the architecture.
            seed: Decides weights, sounds and noise.
        """
        self._seed, self._section = seed, section
        torch.manual_seed(seed)
        self._config = AudioVAEConfig.model_validate(section)
        self.encoder, self.decoder = AudioEncoder(self._config), AudioDecoder(self._config)
        begin_at_silence(self.encoder.conv_in.conv)
        last = self.decoder.conv_out.conv
        assert last.bias is not None, "it has one"
        nn.init.constant_(last.bias, QUIET)
        self.network: nn.Module = nn.ModuleDict({"encoder": self.encoder, "decoder": self.decoder})

    def losses(self, step: int, stretch: StretchSpec) -> Mapping[str, Tensor]:
        """How far decoded spectrograms are from those of the sounds without the hiss."""
        batch = sounds(Random(f"{self._seed}/{step}"), stretch, self._config)
        latents = self.encoder(batch.recorded)
        noise = torch.randn(
            latents.shape, generator=seeded_generator(self._seed, f"audio_vae/{step}")
        )
        decoded = self.decoder(latents + _NOISE * noise)
        audible = batch.mel > QUIET
        wrong = decoded - batch.mel.clamp(min=QUIET)
        # Silence may be as silent as it likes.
        wrong = torch.where(audible, wrong, wrong.relu())
        absolute, size = wrong.abs().mean(), latents.square().mean()
        return {
            "loss": absolute + wrong.square().mean() + _SMALL * size,
            "absolute": absolute,
            "audible_db": _DB * wrong[audible].abs().mean(),
            "latent_size": size.sqrt(),
        }

    @torch.no_grad()
    def write(self, storage: Storage) -> None:
        """Weights, with the statistics of latents of sounds; raises ``StorageError``."""
        self._measure()
        parts = ((self.encoder, keys.AUDIO_ENCODER), (self.decoder, keys.AUDIO_DECODER))
        tensors: dict[str, Tensor] = {}
        for network, rules in parts:
            tensors |= file_tensors(network, rules)
        write_weights(storage, "audio_vae.safetensors", tensors, {"audio_vae": self._section})

    def _measure(self) -> None:
        batch = sounds(Random(f"{self._seed}/statistics"), _MEASURED, self._config)
        latents = torch.cat([self.encoder(one[None]) for one in batch.recorded])
        tokens = rearrange(latents, "b c l f -> (b l) (c f)")
        set_statistics((self.encoder, self.decoder), tokens)
