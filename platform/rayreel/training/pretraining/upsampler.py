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
from rayreel.training.pretraining.part import Part, file_tensors, read_network, write_weights
from rayreel.types import seeded_generator
from rayreel.world.draw import draw
from rayreel.world.scene import Scene

# A first stage leaves its latents a little off, and so does this for what it learns from.
_NOISE = 0.1


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
        self.network: nn.Module = LatentUpsampler(UpsamplerConfig.model_validate(section))

    def losses(self, step: int, stretch: StretchSpec) -> Mapping[str, Tensor]:
        """How far upsampled latents are from those of larger frames."""
        found = scenes(Random(f"{self._seed}/{step}"), stretch.batch_size)
        small, large = (
            self._encoded(torch.stack([_frames(scene, size, stretch) for scene in found]))
            for size in (stretch.size // 2, stretch.size)
        )
        noise = torch.randn(small.shape, generator=seeded_generator(self._seed, f"small/{step}"))
        asked = self._statistics.un_normalize(small + _NOISE * noise)
        wrong = self._statistics.normalize(self.network(asked)) - large
        return {
            "loss": wrong.square().mean() + wrong.abs().mean(),
            "squared": wrong.square().mean(),
        }

    def write(self, storage: Storage) -> None:
        """Weights; raises ``StorageError``."""
        tensors = file_tensors(self.network, keys.UPSAMPLER)
        write_weights(storage, "upsampler.safetensors", tensors, self._section)

    @torch.no_grad()
    def _encoded(self, clips: Tensor) -> Tensor:
        encoded: Tensor = self._encoder(clips)
        return encoded


def _frames(scene: Scene, size: int, stretch: StretchSpec) -> Tensor:
    frames = draw(scene, width=size, height=size, num_frames=stretch.num_frames, fps=FPS)
    return pixels(frames)
