"""The latent upsampler: latents of scenes at half size to those of the same scenes at full size."""

from collections.abc import Mapping
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from rayreel.checkpoints import keys
from rayreel.config.model import UpsamplerConfig, VideoVAEConfig
from rayreel.config.pretrain import StretchSpec
from rayreel.data.storage import Storage
from rayreel.models.upsampler import LatentUpsampler
from rayreel.models.video_vae import VideoEncoder
from rayreel.training.pretraining.footage import FPS, pixels, scenes
from rayreel.training.pretraining.linear_upsampler import fit_upsampler, is_linear
from rayreel.training.pretraining.part import Part, file_tensors, read_network, write_weights
from rayreel.types import seeded_generator
from rayreel.world.draw import draw
from rayreel.world.scene import Scene

# A first stage leaves its latents a little off, and so does this for what it learns from.
_NOISE = 0.1
# Clips that a linear map is fitted to.
_FITTED_TO = 512


class UpsamplerPart(Part):
    """A latent upsampler beside the encoder of a trained video VAE."""

    def __init__(self, section: Mapping[str, Any], video_vae: str, seed: int) -> None:
        """Make it, with random weights.

        Args:
            section: ``upsampler`` of the architecture.
            video_vae: Weight file of the VAE.
            seed: Decides weights, clips and noise.

        Raises:
            CheckpointError: If the VAE's file does not fit.
        """
        self._seed, self._section = seed, section
        self._encoder = read_network(
            video_vae, "vae", VideoVAEConfig, VideoEncoder, keys.VIDEO_ENCODER
        )
        self._statistics = self._encoder.per_channel_statistics
        torch.manual_seed(seed)
        self._config = UpsamplerConfig.model_validate(section)
        self.network: nn.Module = LatentUpsampler(self._config)

    def begin(self) -> None:
        """Without residual blocks, as a linear map; see ``fit_upsampler``."""
        if not is_linear(self._config):
            return
        assert isinstance(self.network, LatentUpsampler)
        whole = StretchSpec(steps=1)
        pairs = [self._pair(f"fit/{number}", whole) for number in range(_FITTED_TO)]
        small, large = map(torch.cat, zip(*pairs, strict=True))
        fit_upsampler(self.network, small, self._statistics.un_normalize(large))

    def losses(self, step: int, stretch: StretchSpec) -> Mapping[str, Tensor]:
        """How far upsampled latents are from those of larger frames."""
        asked, large = self._pair(str(step), stretch)
        wrong = self._statistics.normalize(self.network(asked)) - large
        return {
            "loss": wrong.square().mean() + wrong.abs().mean(),
            "squared": wrong.square().mean(),
        }

    def write(self, storage: Storage) -> None:
        """Weights; raises ``StorageError``."""
        tensors = file_tensors(self.network, keys.UPSAMPLER)
        write_weights(storage, "upsampler.safetensors", tensors, self._section)

    def _pair(self, name: str, stretch: StretchSpec) -> tuple[Tensor, Tensor]:
        """Latents of some scenes to make larger, un-normalised, and those of the larger ones."""
        found = scenes(Random(f"{self._seed}/{name}"), stretch.batch_size)
        small, large = (
            self._encoded(torch.stack([_frames(scene, size, stretch) for scene in found]))
            for size in (stretch.size // 2, stretch.size)
        )
        noise = torch.randn(small.shape, generator=seeded_generator(self._seed, f"small/{name}"))
        return self._statistics.un_normalize(small + _NOISE * noise), large

    @torch.no_grad()
    def _encoded(self, clips: Tensor) -> Tensor:
        encoded: Tensor = self._encoder(clips)
        return encoded


def _frames(scene: Scene, size: int, stretch: StretchSpec) -> Tensor:
    frames = draw(scene, width=size, height=size, num_frames=stretch.num_frames, fps=FPS)
    return pixels(frames)
