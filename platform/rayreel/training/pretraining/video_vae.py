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
from rayreel.training.pretraining.part import file_tensors, set_statistics, write_weights
from rayreel.types import seeded_generator

_NOISE = 0.2
_SMALL = 1e-3
# Squares tell where things are, however uncertain; absolute errors, later, where they end.
_ABSOLUTE = 0.25
# Of colours between -1 and 1, from where on a pixel stands out.
_APART = 0.1
# Clips whose latents say what is usual.
_MEASURED = 64


class VideoVAEPart:
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
        for module in self.network.modules():
            if isinstance(module, nn.Conv3d):
                # PyTorch's own are so small that little of a clip comes through at first.
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear")

    def losses(self, step: int, stretch: StretchSpec) -> Mapping[str, Tensor]:
        """How far decoded frames are from those that were encoded."""
        clips = footage(Random(f"{self._seed}/{step}"), stretch)
        latents = self.encoder(clips)
        noise = torch.randn(latents.shape, generator=seeded_generator(self._seed, f"vae/{step}"))
        wrong = self.decoder(latents + _NOISE * noise) - clips
        absolute, squared = wrong.abs(), wrong.square()
        error, size = _balanced(squared + _ABSOLUTE * absolute, clips), latents.square().mean()
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
        set_statistics((self.encoder, self.decoder), positions)


def _balanced(errors: Tensor, clips: Tensor) -> Tensor:
    """Errors where something stands out of a clip's usual colour, and elsewhere, as much of each.

    Things are small: counted by pixels, a decoder that paints backgrounds alone is nearly right,
    and stays with it for long.
    """
    usual = clips.flatten(2).median(dim=2).values[:, :, None, None, None]
    apart = (clips - usual).abs().amax(dim=1, keepdim=True) > _APART
    of_pixels = errors.mean(dim=1, keepdim=True)
    sums = ((of_pixels * part).sum() / part.sum().clamp(min=1) for part in (apart, ~apart))
    return torch.stack([*sums]).sum()
