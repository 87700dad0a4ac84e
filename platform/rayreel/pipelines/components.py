"""The networks of one model, each loaded when it is first asked for."""

import logging
import time
from collections.abc import Callable
from functools import cache, cached_property
from typing import Literal, TypeVar

import torch
from torch import nn

from rayreel.checkpoints import keys
from rayreel.checkpoints.builder import build
from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.keys import component_tensors
from rayreel.checkpoints.lora import Adapter, fuse
from rayreel.checkpoints.reader import WeightFile
from rayreel.checkpoints.tiny import locate_model
from rayreel.config.jobs import ModelSpec
from rayreel.config.model import TextConfig, UpsamplerConfig, VocoderConfig
from rayreel.models.audio_vae import AudioDecoder
from rayreel.models.text.encoder import TextEncoder
from rayreel.models.text.gemma import load_gemma
from rayreel.models.text.processor import EmbeddingsProcessor
from rayreel.models.text.tokenizer import PromptTokenizer
from rayreel.models.transformer import Transformer
from rayreel.models.upsampler import LatentUpsampler
from rayreel.models.video_vae import PerChannelStatistics, VideoDecoder, VideoEncoder
from rayreel.models.vocoder import BandwidthExtendedVocoder, Vocoder, make_vocoder
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
        tokenizer = PromptTokenizer(self.files.gemma)
        gemma = load_gemma(self.files.gemma, device=self.device, dtype=self.dtype)
        config = self.files.checkpoint.section("transformer", TextConfig)
        processor = self._load(
            lambda: EmbeddingsProcessor(
                config, hidden_size=gemma.hidden_size, num_hidden_states=gemma.num_hidden_states
            ),
            self.files.checkpoint,
            keys.TEXT,
        )
        return TextEncoder(tokenizer, gemma, processor)

    @cached_property
    def transformer(self) -> Transformer:
        """The checkpoint's transformer with the model's adapters."""
        return self._transformer(distilled=False)

    @cached_property
    def distilled_transformer(self) -> Transformer:
        """The transformer with the distilled adapter too; the same one where the model names none."""
        if self.files.distilled_lora is None:
            return self.transformer
        return self._transformer(distilled=True)

    @cached_property
    def video_encoder(self) -> VideoEncoder:
        """Pixels to latents."""
        config = self.files.video_vae
        return self._load(lambda: VideoEncoder(config), self.files.checkpoint, keys.VIDEO_ENCODER)

    @cached_property
    def video_decoder(self) -> VideoDecoder:
        """Latents to pixels."""
        config = self.files.video_vae
        return self._load(lambda: VideoDecoder(config), self.files.checkpoint, keys.VIDEO_DECODER)

    @cached_property
    def video_statistics(self) -> PerChannelStatistics:
        """Statistics of the video latents, for the upsampler."""
        channels = self.files.video_vae.latent_channels
        return self._load(
            lambda: PerChannelStatistics(channels), self.files.checkpoint, keys.VIDEO_STATISTICS
        )

    @cached_property
    def upsampler(self) -> LatentUpsampler:
        """Latents to larger latents; the model must name one."""
        assert self.files.upsampler is not None, "requests that need an upsampler are checked for it"
        config = self.files.upsampler.section(None, UpsamplerConfig)
        return self._load(lambda: LatentUpsampler(config), self.files.upsampler, keys.UPSAMPLER)

    @cached_property
    def audio_decoder(self) -> AudioDecoder:
        """Audio latents to mel spectrograms."""
        config = self.files.audio_vae
        return self._load(lambda: AudioDecoder(config), self.files.checkpoint, keys.AUDIO_DECODER)

    @cached_property
    def vocoder(self) -> Vocoder | BandwidthExtendedVocoder:
        """Mel spectrograms to waveforms."""
        config = self.files.checkpoint.section("vocoder", VocoderConfig)
        return self._load(lambda: make_vocoder(config), self.files.checkpoint, keys.VOCODER)

    def _transformer(self, *, distilled: bool) -> Transformer:
        config = self.files.transformer
        return self._load(
            lambda: Transformer(config),
            self.files.checkpoint,
            keys.TRANSFORMER,
            adapters=self.files.adapters(distilled=distilled),
        )

    def _load(
        self,
        make: Callable[[], M],
        file: WeightFile,
        rules: keys.Rules,
        adapters: tuple[Adapter, ...] = (),
    ) -> M:
        start = time.perf_counter()
        tensors = component_tensors(file, rules)
        if adapters:
            tensors = fuse(tensors, adapters)
        model = build(make, tensors, device=self.device, dtype=self.dtype, source=str(file.path))
        self.num_loads += 1
        log.info("loaded %s in %.1f s", type(model).__name__, time.perf_counter() - start)
        return model


@cache
def components_for(model: Literal["tiny"] | ModelSpec, device: Device) -> Components:
    """The components of this process: stages that share a process share networks too."""
    return Components(model, device)
