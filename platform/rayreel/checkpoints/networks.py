"""Which class, which architecture and which weights make each network of a model."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from rayreel.checkpoints import keys
from rayreel.checkpoints.builder import outline
from rayreel.checkpoints.compatibility import piece_faults
from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.lora import Adapter, Fusion
from rayreel.checkpoints.quantization import QuantizationName, cast_weight, meta_tensors, quantize
from rayreel.checkpoints.reader import WeightFile
from rayreel.errors import CheckpointError
from rayreel.models.audio_vae import AudioDecoder, AudioEncoder
from rayreel.models.statistics import PerChannelStatistics
from rayreel.models.text.connector import TextConnectors
from rayreel.models.text.features import FeatureExtractor
from rayreel.models.text.processor import EmbeddingsProcessor
from rayreel.models.transformer import Transformer
from rayreel.models.upsampler import LatentUpsampler
from rayreel.models.video_vae import VideoDecoder, VideoEncoder
from rayreel.models.vocoder import BandwidthExtendedVocoder, Vocoder, make_vocoder

M = TypeVar("M", bound=nn.Module)

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Network(Generic[M]):
    """A network that can be built.

    Attributes:
        make: Constructs it, without weights.
        file: Holds the weights.
        rules: Where in the file they lie.
        quantization: How the weights of linear layers are held.
        part: Names of a network that is a part of what lies there; ``None`` takes all of it.
    """

    make: Callable[[], M]
    file: WeightFile
    rules: keys.Rules
    quantization: QuantizationName = "auto"
    part: frozenset[str] | None = None

    @cached_property
    def names(self) -> dict[str, str]:
        """Names in the file by name in the network; raises ``CheckpointError`` if there is none."""
        names = keys.component_names(self.file, self.rules)
        return {new: old for new, old in names.items() if self.has(new)}

    def has(self, name: str) -> bool:
        """Whether a tensor is of the network, or of the part of it that this one is."""
        if self.part is None or name in self.part:
            return True
        # Beside a weight lie its scales.
        layer, _, own = name.rpartition(".")
        return own.endswith("_scale") and f"{layer}.weight" in self.part

    @property
    def header(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and dtype, in safetensors' spelling, of what the file has of the network."""
        file = self.file
        return {new: (file.shape(old), file.dtype(old)) for new, old in self.names.items()}

    @property
    def shapes(self) -> Shapes:
        """Shapes of the file's weights."""
        return {name: shape for name, (shape, _) in self.header.items()}

    def outline(self) -> M:
        """The network on the meta device, from headers alone.

        Raises:
            CheckpointError: If it does not fit the file's names and shapes.
        """
        tensors = quantize(meta_tensors(self.header), self.quantization)
        return outline(self.make, tensors, source=str(self.file.path))

    def weights(
        self,
        device: torch.device,
        dtype: torch.dtype,
        *,
        fusion: Fusion | None = None,
        wanted: Callable[[str], bool] = lambda _: True,
    ) -> dict[str, Tensor]:
        """Weights as the network computes with them.

        They are prepared on the device, layer by layer, so that it need not hold any of them twice.

        Args:
            device: Where they go.
            dtype: Of weights that are not kept in one of their own.
            fusion: Adapters to fuse.
            wanted: Which are read, by name in the network.
        """
        layers: dict[str, list[str]] = {}
        for name in self.names:
            if wanted(name):
                layers.setdefault(name.rpartition(".")[0], []).append(name)
        prepared: dict[str, Tensor] = {}
        for layer in layers.values():
            stored = {name: self.file.tensor(self.names[name]).to(device) for name in layer}
            tensors = quantize(stored, self.quantization)
            if fusion:
                tensors = fusion.apply(tensors)
            prepared |= {name: cast_weight(name, t, dtype) for name, t in tensors.items()}
        return prepared

    def stored(self, wanted: Collection[str]) -> dict[str, Tensor]:
        """Mapped weights and what else their layers have, after quantisation, without adapters."""
        layers = {name.rpartition(".")[0] for name in wanted}
        return quantize(
            {
                name: self.file.tensor(old)
                for name, old in self.names.items()
                if name.rpartition(".")[0] in layers
            },
            self.quantization,
        )


def transformer(files: ModelFiles) -> Network[Transformer]:
    """Tokens to velocities."""
    config = files.transformer
    return Network(
        lambda: Transformer(config),
        files.transformer_file,
        keys.TRANSFORMER,
        files.spec.quantization,
    )


def audio_transformer(files: ModelFiles) -> Network[Transformer]:
    """The audio stream of the transformer alone."""
    config = files.transformer.audio_only()
    with torch.device("meta"):
        part = frozenset(Transformer(config).state_dict())
    return replace(transformer(files), make=lambda: Transformer(config), part=part)


def embeddings_processor(files: ModelFiles) -> Network[EmbeddingsProcessor]:
    """Hidden states of the language model to text contexts."""
    config, encoder = files.text, files.text_encoder

    def make() -> EmbeddingsProcessor:
        return EmbeddingsProcessor(
            config,
            hidden_size=encoder.hidden_size,
            num_hidden_states=encoder.num_hidden_states,
        )

    rules = keys.TEXT if config.has_audio else keys.VIDEO_TEXT
    return Network(make, files.text_file, rules)


def feature_extractor(files: ModelFiles) -> Network[FeatureExtractor]:
    """Hidden states of the language model to features: the half of the above that stores hold."""
    config, encoder = files.text, files.text_encoder

    def make() -> FeatureExtractor:
        return FeatureExtractor(
            config,
            hidden_size=encoder.hidden_size,
            num_hidden_states=encoder.num_hidden_states,
        )

    rules = keys.FEATURES if config.has_audio else keys.VIDEO_FEATURES
    return Network(make, files.text_file, rules)


def text_connectors(files: ModelFiles) -> Network[TextConnectors]:
    """Features of prompts to text contexts: the other half."""
    config = files.text
    return Network(lambda: TextConnectors(config), files.text_file, keys.CONNECTORS)


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


def audio_encoder(files: ModelFiles) -> Network[AudioEncoder]:
    """Mel spectrograms to audio latents."""
    config = files.audio_vae
    return Network(lambda: AudioEncoder(config), files.audio_vae_file, keys.AUDIO_ENCODER)


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


def all_networks(files: ModelFiles) -> dict[str, Callable[[], Network[Any]]]:
    """Networks that a model has, by name, as far as its files state it; none is made yet."""
    found: dict[str, Callable[[ModelFiles], Network[Any]]] = {
        "transformer": transformer,
        "text projection": embeddings_processor,
        "video encoder": video_encoder,
        "video decoder": video_decoder,
    }
    if files.transformer.has_audio:
        found |= {"audio decoder": audio_decoder, "vocoder": vocoder}
    if files.upsampler_file:
        found["upsampler"] = upsampler
    return {name: partial(make, files) for name, make in found.items()}


def check_networks(files: ModelFiles) -> None:
    """Compare every network and adapter of a model with its files, from headers only.

    Raises:
        CheckpointError: If weights are missing, unexpected or misshapen, or files do not belong
            together; all of it is named.
    """
    if faults := network_faults(files):
        raise CheckpointError("\n".join(faults))


def network_faults(files: ModelFiles) -> list[str]:
    """What is wrong with a model's networks and adapters, and what does not belong together."""
    found = _caught(partial(_check_text_encoder, files))
    found = found or _caught(partial(_refuse_misfits, files))
    made = all_networks(files)
    if found:
        # It is the language model that does not fit its projection, rather than the other way.
        del made["text projection"]
    for make in made.values():
        found += _caught(partial(_outline, make))
    for adapter in files.adapters(distilled=True):
        if adapter.strength != 0:
            found += _caught(partial(_check_adapter, files, adapter))
    return list(dict.fromkeys(found))


def _caught(check: Callable[[], None]) -> list[str]:
    try:
        check()
    except CheckpointError as error:
        return [str(error)]
    return []


def misfits(files: ModelFiles) -> list[str]:
    """Files that do not belong together, a line each."""
    audio = files.transformer.has_audio
    return piece_faults(
        transformer=files.transformer_file,
        text_encoder=files.text_encoder,
        text_projection=files.text_file,
        video_vae=files.video_vae_file,
        audio_vae=files.audio_vae_file if audio else None,
        vocoder=files.vocoder_file if audio else None,
        upsampler=files.upsampler_file,
    )


def _check_text_encoder(files: ModelFiles) -> None:
    files.text_encoder.check()


def _refuse_misfits(files: ModelFiles) -> None:
    if found := misfits(files):
        raise CheckpointError("\n".join(found))


def _outline(make: Callable[[], Network[Any]]) -> None:
    make().outline()


def _check_adapter(files: ModelFiles, adapter: Adapter) -> None:
    adapter.targets(transformer(files).shapes)
