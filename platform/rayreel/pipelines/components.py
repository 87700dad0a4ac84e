"""The networks of one model, each loaded when it is first asked for."""

import logging
import time
from functools import cache, cached_property
from typing import Literal, TypeVar

import torch
from torch import nn

from rayreel.checkpoints import networks
from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.lora import Adapter
from rayreel.checkpoints.networks import Network
from rayreel.checkpoints.tiny import locate_model
from rayreel.config.jobs import ModelSpec
from rayreel.models.audio_vae import AudioDecoder
from rayreel.models.statistics import PerChannelStatistics
from rayreel.models.text.encoder import TextEncoder
from rayreel.models.text.gemma import load_gemma
from rayreel.models.text.tokenizer import PromptTokenizer
from rayreel.models.transformer import Transformer
from rayreel.models.upsampler import LatentUpsampler
from rayreel.models.video_vae import VideoDecoder, VideoEncoder
from rayreel.models.vocoder import BandwidthExtendedVocoder, Vocoder
from rayreel.pipelines.devices import Device

log = logging.getLogger(__name__)

M = TypeVar("M", bound=nn.Module)


class Components:
    """Networks of one model on one device.

    Attributes:
        files: Where the weights come from.
        device: Where the networks are.
        dtype: Of weights and activations.
        num_loads: Networks loaded so far; each is loaded at most once.
    """

    def __init__(self, model: Literal["tiny"] | ModelSpec, device: Device) -> None:
        """Open the files; loads nothing yet.

        Args:
            model: Weight files, by absolute paths.
            device: Where the networks shall be, and in which dtype.
        """
        self.files = ModelFiles(locate_model(model))
        self.device = torch.device(device.name)
        self.dtype = device.torch_dtype
        self.num_loads = 0

    @cached_property
    def text_encoder(self) -> TextEncoder:
        """Gemma with the projection and connectors of the checkpoint."""
        return TextEncoder(
            PromptTokenizer(self.files.gemma),
            load_gemma(self.files.gemma, device=self.device, dtype=self.dtype),
            self._load(networks.embeddings_processor(self.files)),
        )

    @cached_property
    def transformer(self) -> Transformer:
        """The checkpoint's transformer with the model's adapters."""
        return self._load(
            networks.transformer(self.files), adapters=self.files.adapters(distilled=False)
        )

    @cached_property
    def distilled_transformer(self) -> Transformer:
        """The transformer with the distilled adapter too; the same one where the model has none."""
        if self.files.distilled_lora is None:
            return self.transformer
        return self._load(
            networks.transformer(self.files), adapters=self.files.adapters(distilled=True)
        )

    @cached_property
    def video_encoder(self) -> VideoEncoder:
        """Pixels to latents."""
        return self._load(networks.video_encoder(self.files))

    @cached_property
    def video_decoder(self) -> VideoDecoder:
        """Latents to pixels."""
        return self._load(networks.video_decoder(self.files))

    @cached_property
    def video_statistics(self) -> PerChannelStatistics:
        """Statistics of the video latents, for the upsampler."""
        return self._load(networks.video_statistics(self.files))

    @cached_property
    def upsampler(self) -> LatentUpsampler:
        """Latents to larger latents."""
        return self._load(networks.upsampler(self.files))

    @cached_property
    def audio_decoder(self) -> AudioDecoder:
        """Audio latents to mel spectrograms."""
        return self._load(networks.audio_decoder(self.files))

    @cached_property
    def vocoder(self) -> Vocoder | BandwidthExtendedVocoder:
        """Mel spectrograms to waveforms."""
        return self._load(networks.vocoder(self.files))

    def _load(self, network: Network[M], adapters: tuple[Adapter, ...] = ()) -> M:
        start = time.perf_counter()
        model = network.build(self.device, self.dtype, adapters)
        self.num_loads += 1
        log.info("loaded %s in %.1f s", type(model).__name__, time.perf_counter() - start)
        return model


@cache
def components_for(model: Literal["tiny"] | ModelSpec, device: Device) -> Components:
    """The components of this process: stages that share a process share networks too."""
    return Components(model, device)
