"""The video VAE: frames to few numbers and back.

The decoder reads noisy latents, so that it forgives what a transformer gets slightly wrong, and the
encoder keeps its latents small, or it would drown the noise. This is a variational autoencoder
whose posterior has a fixed variance.

Reference:
    Kingma and Welling, Auto-Encoding Variational Bayes, 2013.
"""

from collections.abc import Mapping
from random import Random
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from rayreel.checkpoints import keys
from rayreel.config.model import VideoVAEConfig
from rayreel.config.pretrain import StretchSpec
from rayreel.data.storage import Storage
from rayreel.models.video_vae import VideoDecoder, VideoEncoder
from rayreel.training.pretraining.footage import footage
from rayreel.training.pretraining.linear import start_linear
from rayreel.training.pretraining.part import Part, file_tensors, set_statistics, write_weights
from rayreel.types import seeded_generator

_NOISE = 0.1
# Clips that the linear code is fitted to.
_BEGUN_WITH = 128
_SMALL = 1e-4
# Squares tell where things are, however uncertain; absolute errors, later, where they end.
_ABSOLUTE = 0.25
# Of colours between -1 and 1, from where on a pixel stands out.
_APART = 0.1
# Shares of what stands out, and of the rest, that weights are told by.
_LEAST = 1e-3
# Clips whose latents say what is usual.
_MEASURED = 64


class VideoVAEPart(Part):
    """Encoder and decoder, which learn together."""

    def __init__(self, section: Mapping[str, Any], seed: int) -> None:
        """Make them, with random weights.

        Args:
            section: ``vae`` of the architecture.
            seed: Decides weights, clips and noise.
        """
        self._seed, self._section = seed, section
        torch.manual_seed(seed)
        config = VideoVAEConfig.model_validate(section)
        self.encoder, self.decoder = VideoEncoder(config), VideoDecoder(config)
        self.network: nn.Module = nn.ModuleDict({"encoder": self.encoder, "decoder": self.decoder})

    def begin(self) -> None:
        """Both as a linear code; see ``start_linear``."""
        rng = Random(f"{self._seed}/start")
        clips = footage(rng, StretchSpec(steps=1, batch_size=_BEGUN_WITH))
        start_linear(self.encoder, self.decoder, clips, _NOISE)

    def losses(self, step: int, stretch: StretchSpec) -> Mapping[str, Tensor]:
        """How far decoded frames are from those that were encoded."""
        clips = footage(Random(f"{self._seed}/{step}"), stretch)
        latents = self.encoder(clips)
        noise = torch.randn(latents.shape, generator=seeded_generator(self._seed, f"vae/{step}"))
        wrong = self.decoder(latents + _NOISE * noise) - clips
        absolute, squared = wrong.abs(), wrong.square()
        errors = squared + _ABSOLUTE * absolute
        error, size = (errors * _weights(clips)).mean(), latents.square().mean()
        return {
            "loss": error + _SMALL * size,
            "absolute": absolute.mean(),
            "psnr": -10 * torch.log10(squared.mean() / 4),
            "latent_size": size.sqrt(),
        }

    @torch.no_grad()
    def write(self, storage: Storage) -> None:
        """Weights, with the statistics of latents of clips; raises ``StorageError``."""
        self._measure()
        parts = ((self.encoder, keys.VIDEO_ENCODER), (self.decoder, keys.VIDEO_DECODER))
        tensors: dict[str, Tensor] = {}
        for network, rules in parts:
            tensors |= file_tensors(network, rules)
        write_weights(storage, "video_vae.safetensors", tensors, {"vae": self._section})

    def _measure(self) -> None:
        rng, whole = Random(f"{self._seed}/statistics"), StretchSpec(steps=1)
        latents = torch.cat([self.encoder(footage(rng, whole)) for _ in range(_MEASURED)])
        positions = rearrange(latents, "b c f h w -> (b f h w) c")
        set_statistics((self.encoder, self.decoder), positions, alike=True)


def _weights(clips: Tensor) -> Tensor:
    """What errors count where something stands out of a clip's usual colour, and elsewhere.

    Things are small: counted by pixels they hardly matter, and counted as much as backgrounds they
    are painted wherever they might be. Between both, a share of ``s`` counts as ``s ** 0.5``.

    Args:
        clips: ``(B, 3, F, H, W)``.

    Returns:
        ``(B, 1, F, H, W)``, 1 in the mean.
    """
    usual = clips.flatten(2).median(dim=2).values[:, :, None, None, None]
    apart = (clips - usual).abs().amax(dim=1, keepdim=True) > _APART
    share = apart.float().mean().clamp(_LEAST, 1 - _LEAST)
    weights = torch.where(apart, share**-0.5, (1 - share) ** -0.5)
    return weights / weights.mean()
