"""Which class, which architecture and which weights make each network of a model."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import nn
from transformers import Gemma3TextModel

from rayreel.checkpoints import keys
from rayreel.checkpoints.builder import Shape, build, check_fit, construct
from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.lora import Adapter, fuse
from rayreel.checkpoints.reader import WeightFile
from rayreel.models.audio_vae import AudioDecoder
from rayreel.models.statistics import PerChannelStatistics
from rayreel.models.text.gemma import gemma_config
from rayreel.models.text.processor import EmbeddingsProcessor
from rayreel.models.text.tokenizer import PromptTokenizer
from rayreel.models.transformer import Transformer
from rayreel.models.upsampler import LatentUpsampler
from rayreel.models.video_vae import VideoDecoder, VideoEncoder
from rayreel.models.vocoder import BandwidthExtendedVocoder, Vocoder, make_vocoder

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Network(Generic[M]):
    """A network that can be built.

    Attributes:
        make: Constructs it, without weights.
        file: Holds the weights.
        rules: Where in the file they lie.
    """

    make: Callable[[], M]
    file: WeightFile
    rules: keys.Rules

    def build(
        self, device: torch.device, dtype: torch.dtype, adapters: tuple[Adapter, ...] = ()
    ) -> M:
        """The network with weights and adapters; raises ``CheckpointError`` if they do not fit."""
        tensors = keys.component_tensors(self.file, self.rules)
        if adapters:
            tensors = fuse(tensors, adapters)
        return build(self.make, tensors, device=device, dtype=dtype, source=str(self.file.path))

    def check(self) -> None:
        """Compare names and shapes with the file's header; raises ``CheckpointError``."""
        model = construct(self.make, source=str(self.file.path))
        names = keys.component_names(self.file, self.rules)
        given = {new: self.file.shape(old) for new, old in names.items()}
        check_fit(model, given, source=str(self.file.path))


def transformer(files: ModelFiles) -> Network[Transformer]:
    """Tokens to velocities."""
    config = files.transformer
    return Network(lambda: Transformer(config), files.transformer_file, keys.TRANSFORMER)


def embeddings_processor(files: ModelFiles) -> Network[EmbeddingsProcessor]:
    """Hidden states of the language model to text contexts."""
    config = files.text
    gemma = gemma_config(files.gemma)

    def make() -> EmbeddingsProcessor:
        return EmbeddingsProcessor(
            config,
            hidden_size=gemma.hidden_size,
            num_hidden_states=gemma.num_hidden_layers + 1,
        )

    return Network(make, files.text_file, keys.TEXT)


def video_encoder(files: ModelFiles) -> Network[VideoEncoder]:
    """Pixels to latents."""
    config = files.video_vae
    return Network(lambda: VideoEncoder(config), files.video_vae_file, keys.VIDEO_ENCODER)


def video_decoder(files: ModelFiles) -> Network[VideoDecoder]:
    """Latents to pixels."""
    config = files.video_vae
    return Network(lambda: VideoDecoder(config), files.video_vae_file, keys.VIDEO_DECODER)


def video_statistics(files: ModelFiles) -> Network[PerChannelStatistics]:
    """Statistics of the video latents."""
    channels = files.video_vae.latent_channels
    return Network(
        lambda: PerChannelStatistics(channels), files.video_vae_file, keys.VIDEO_STATISTICS
    )


def audio_decoder(files: ModelFiles) -> Network[AudioDecoder]:
    """Audio latents to mel spectrograms."""
    config = files.audio_vae
    return Network(lambda: AudioDecoder(config), files.audio_vae_file, keys.AUDIO_DECODER)


def vocoder(files: ModelFiles) -> Network[Vocoder | BandwidthExtendedVocoder]:
    """Mel spectrograms to waveforms."""
    config = files.vocoder
    return Network(lambda: make_vocoder(config), files.vocoder_file, keys.VOCODER)


def upsampler(files: ModelFiles) -> Network[LatentUpsampler]:
    """Latents to larger latents.

    Raises:
        CheckpointError: If the model names no upsampler.
    """
    config = files.upsampler
    assert files.upsampler_file is not None, "its architecture was read from it"
    return Network(lambda: LatentUpsampler(config), files.upsampler_file, keys.UPSAMPLER)


def check_networks(files: ModelFiles) -> None:
    """Compare every network and adapter of a model with its files, from headers only.

    Raises:
        CheckpointError: If weights are missing, unexpected or misshapen.
    """
    _check_gemma(files.gemma)
    all_of_them: tuple[Callable[[ModelFiles], Network[Any]], ...] = (
        transformer,
        embeddings_processor,
        video_encoder,
        video_decoder,
        audio_decoder,
        vocoder,
    )
    for network in all_of_them:
        network(files).check()
    if files.upsampler_file:
        upsampler(files).check()
    names = keys.component_names(files.transformer_file, keys.TRANSFORMER)
    shapes = {new: files.transformer_file.shape(old) for new, old in names.items()}
    for adapter in files.adapters(distilled=True):
        if adapter.strength != 0:
            adapter.targets(shapes)


def _check_gemma(folder: Path) -> None:
    config = gemma_config(folder)
    PromptTokenizer(folder)
    given: dict[str, Shape] = {}
    for path in folder.glob("*.safetensors"):
        file = WeightFile(path)
        given |= {
            new: file.shape(old)
            for old in file.names
            if (new := keys.rename(old, keys.LANGUAGE_MODEL)) is not None
        }
    model = construct(lambda: Gemma3TextModel(config), source=str(folder))
    check_fit(model, given, source=str(folder))
