"""The networks of one model: built on demand, and held as long as the memory policy says."""

import copy
from collections.abc import Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import cache, partial
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor, nn

from rayreel.checkpoints import networks
from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.lora import Adapter, Fusion, exchange_adapters
from rayreel.checkpoints.networks import Network
from rayreel.checkpoints.text_generator import TextGeneratorFiles
from rayreel.checkpoints.tiny import locate_model
from rayreel.config.jobs import MemorySpec, ModelChoice
from rayreel.models.attention_backends import force_backend
from rayreel.models.audio_vae import AudioDecoder, AudioEncoder
from rayreel.models.statistics import PerChannelStatistics
from rayreel.models.text.connector import TextConnectors
from rayreel.models.text.encoder import TextEncoder
from rayreel.models.text.generation import TextGenerator
from rayreel.models.transformer import Transformer
from rayreel.models.upsampler import LatentUpsampler
from rayreel.models.video_vae import VideoDecoder, VideoEncoder
from rayreel.models.vocoder import BandwidthExtendedVocoder, Vocoder
from rayreel.pipelines.devices import Device, release_memory, supported_quantization
from rayreel.pipelines.holding import Holding, Resident, Source, Wanted, hold

M = TypeVar("M", bound=nn.Module)

ComponentName = Literal[
    "text_encoder",
    "text_connectors",
    "transformer",
    "video_encoder",
    "upsampler",
    "video_decoder",
    "audio_decoder",
    "enhancer",
]

Relief = Literal["tiles", "offload"]
"""A way to take less memory."""


class ModelLedger:
    """Networks of one model on one device.

    A network is lent for a ``with`` block; whether it is there before and after, and where, is the
    policy's choice. Views with other adapters share all networks but the transformer, and of that
    the weights that no adapter changes.

    Attributes:
        files: Where the weights come from.
        device: Where the networks compute.
        dtype: Of weights and activations.
        adapters: Of the transformer.
        audio_only: Whether the transformer is its audio stream alone.
    """

    def __init__(
        self,
        model: ModelChoice,
        device: Device,
        memory: MemorySpec | None = None,
    ) -> None:
        """Open the files; builds nothing yet.

        Args:
            model: Weight files, by absolute paths.
            device: Where the networks shall compute, in which dtype and with which kernels.
            memory: How long to hold them; by default all are kept.

        Raises:
            SpecError: If the kernels, or float8, are not available.
        """
        force_backend(device.attention)
        self.device = torch.device(device.name)
        spec = locate_model(model)
        held = supported_quantization(self.device, spec.quantization)
        self.files = ModelFiles(spec.model_copy(update={"quantization": held}))
        self.dtype = device.torch_dtype
        self._memory = memory or MemorySpec()
        self.adapters = self.files.adapters(distilled=False)
        self.audio_only = False
        # Shared by all views.
        self._holdings: dict[tuple[str, Any], Holding[Any]] = {}
        self._fusions: dict[tuple[Adapter, ...], Fusion] = {}
        self._exchange: dict[str, Fusion] = {}
        self._foreign_sets: list[tuple[Adapter, ...]] = []
        self._loads: list[str] = []
        self._reliefs: list[Relief] = []

    @property
    def memory(self) -> MemorySpec:
        """How long each component is held."""
        if "offload" not in self._reliefs:
            return self._memory
        # What is kept in the host's memory would not be out of the way of a CPU.
        hold = "disk" if self.device.type == "cpu" else "offload"
        held = dict.fromkeys(get_args(ComponentName), hold)
        return self._memory.model_copy(update=held)

    @property
    def small_tiles(self) -> bool:
        """Whether pictures are decoded in small tiles, however much memory there is."""
        return "tiles" in self._reliefs

    def relieve(self, *steps: Relief) -> Relief | None:
        """Get along with less of the device's memory from now on, in this process.

        Args:
            steps: In the order of what they cost: ``tiles`` decodes in small ones, ``offload`` lets
                go of all networks between uses, and brings large ones block by block.

        Returns:
            The first that had not been taken yet; ``None`` when there is none.
        """
        step = next((step for step in steps if step not in self._reliefs), None)
        if step:
            self._reliefs.append(step)
        if step == "offload":
            self._holdings.clear()
            self._exchange.clear()
        release_memory(self.device)
        return step

    @property
    def loads(self) -> tuple[str, ...]:
        """Classes of the networks that were built so far, by this ledger and its views."""
        return tuple(self._loads)

    def preload(self, *components: ComponentName) -> None:
        """Build what is kept anyway, so that the first request need not wait for it."""
        for component in components:
            if getattr(self.memory, component) == "resident":
                with getattr(self, component)():
                    pass

    def with_loras(self, *adapters: Adapter) -> "ModelLedger":
        """A view whose transformer has these adapters, and no others."""
        view = copy.copy(self)
        view.adapters = adapters
        return view

    @property
    def for_sound(self) -> "ModelLedger":
        """A view whose transformer makes sound alone: video weights are not read."""
        view = copy.copy(self)
        view.audio_only = True
        return view

    def text_encoder(self) -> AbstractContextManager[TextEncoder]:
        """Language model with the feature extractor of the checkpoint."""
        gemma, extractor = self.files.text_encoder, networks.feature_extractor(self.files)

        def outline() -> TextEncoder:
            return TextEncoder(gemma.tokenizer(), gemma.outline(), extractor.outline())

        def weights(device: torch.device, wanted: Wanted) -> dict[str, Tensor]:
            return {
                f"{part}.{name}": tensor
                for part, network in (("gemma", gemma), ("feature_extractor", extractor))
                for name, tensor in network.weights(
                    device, self.dtype, wanted=partial(_within, part, wanted)
                ).items()
            }

        source = Source(outline, weights, lambda encoder: encoder.gemma.model.layers)
        return self._lent("text_encoder", source)

    def text_connectors(self) -> AbstractContextManager[TextConnectors]:
        """Features of texts to contexts; the language model is not needed."""
        return self._lent("text_connectors", self._source(networks.text_connectors(self.files)))

    def enhancer(self) -> AbstractContextManager[TextGenerator]:
        """Language model that writes prompts; raises ``CheckpointError`` where it cannot.

        What of it the text encoder has on the device is not there twice.
        """
        network = TextGeneratorFiles(self.files.text_encoder).network()

        def weights(device: torch.device, wanted: Wanted) -> dict[str, Tensor]:
            there = self._encoder_weights()
            shared = {new: there[old] for new, old in network.names.items() if old in there}
            own = network.weights(
                device, self.dtype, wanted=lambda n: wanted(n) and n not in shared
            )
            return own | {name: tensor for name, tensor in shared.items() if wanted(name)}

        source = Source(network.outline, weights, lambda writer: writer.layers)
        return self._lent("enhancer", source)

    def transformer(self) -> AbstractContextManager[Transformer]:
        """The transformer with this view's adapters."""
        whole = networks.transformer(self.files)
        fusion = self._fusion(whole, self.adapters)
        exchanged = self.memory.transformer == "exchange"
        # The one transformer of all views makes sound as well.
        part = self.audio_only and not exchanged
        network = networks.audio_transformer(self.files) if part else whole

        def weights(device: torch.device, wanted: Wanted) -> dict[str, Tensor]:
            shared = self._shared_weights(whole, fusion)
            own = network.weights(
                device, self.dtype, fusion=fusion, wanted=lambda n: wanted(n) and n not in shared
            )
            found = {n: t for n, t in shared.items() if network.has(n) and wanted(n)}
            return own | found

        source = Source(network.outline, weights, lambda model: model.transformer_blocks)
        self._drop_foreign()
        if exchanged:
            return self._exchanged(network, source, fusion)
        return self._lent("transformer", source, self._variant)

    def audio_encoder(self) -> AbstractContextManager[AudioEncoder]:
        """Mel spectrograms to latents; held like the video encoder."""
        source = self._source(networks.audio_encoder(self.files))
        return self._lent("video_encoder", source, "audio")

    def video_encoder(self) -> AbstractContextManager[VideoEncoder]:
        """Pixels to latents."""
        return self._lent("video_encoder", self._source(networks.video_encoder(self.files)))

    def video_decoder(self) -> AbstractContextManager[VideoDecoder]:
        """Latents to pixels."""
        return self._lent("video_decoder", self._source(networks.video_decoder(self.files)))

    def upsampler(self) -> AbstractContextManager[LatentUpsampler]:
        """Latents to larger latents."""
        return self._lent("upsampler", self._source(networks.upsampler(self.files)))

    def audio_decoder(self) -> AbstractContextManager[AudioDecoder]:
        """Audio latents to mel spectrograms."""
        return self._lent("audio_decoder", self._source(networks.audio_decoder(self.files)))

    def vocoder(self) -> AbstractContextManager[Vocoder | BandwidthExtendedVocoder]:
        """Mel spectrograms to waveforms; held like the audio decoder."""
        source = self._source(networks.vocoder(self.files))
        return self._lent("audio_decoder", source, "vocoder")

    def video_statistics(self) -> AbstractContextManager[PerChannelStatistics]:
        """Statistics of the video latents; held like the upsampler, which needs them."""
        source = self._source(networks.video_statistics(self.files))
        return self._lent("upsampler", source, "statistics")

    @property
    def _variant(self) -> tuple[tuple[Adapter, ...], bool]:
        return _effective(self.adapters), self.audio_only

    def _source(self, network: Network[M]) -> Source[M]:
        def weights(device: torch.device, wanted: Wanted) -> dict[str, Tensor]:
            return network.weights(device, self.dtype, wanted=wanted)

        return Source(network.outline, weights)

    def _lent(
        self, component: ComponentName, source: Source[M], variant: Hashable = None
    ) -> AbstractContextManager[M]:
        key = component, variant
        if key not in self._holdings:
            counted = replace(source, outline=lambda: self._counted(source.outline()))
            self._holdings[key] = hold(getattr(self.memory, component), counted, self.device)
        return self._holdings[key].lent()

    def _counted(self, network: M) -> M:
        self._loads.append(type(network).__name__)
        return network

    @contextmanager
    def _exchanged(
        self, network: Network[Transformer], source: Source[Transformer], fusion: Fusion
    ) -> Iterator[Transformer]:
        """The one transformer of all views, with this view's adapters."""
        with self._lent("transformer", source) as model:
            fused = self._exchange.setdefault("fused", fusion)
            if fused is not fusion:
                assert self._holdings["transformer", None].users == 1, "another view computes"
                changed = fused.contributions.keys() | fusion.contributions.keys()
                exchange_adapters(model, network.stored(changed), fused, fusion)
                self._exchange["fused"] = fusion
            yield model

    def _drop_foreign(self) -> None:
        """Keep the adapters of few requests at a time: a list may name any number of them."""
        mine = self._foreign(_effective(self.adapters))
        if not mine:
            return
        # Whoever asks for a file that was replaced since gets another set.
        others = [
            those
            for those in self._foreign_sets
            if those != mine and not any(adapter.file.replaced for adapter in those)
        ]
        surplus = len(others) + 1 - self.memory.adapter_sets
        # Shared by all views, so it is changed in place.
        self._foreign_sets[:] = [*others[max(0, surplus) :], mine]
        kept = {(), *self._foreign_sets}
        for adapters in list(self._fusions):
            if self._foreign(adapters) not in kept:
                del self._fusions[adapters]
        for key, holding in list(self._holdings.items()):
            component, variant = key
            if component != "transformer" or variant is None or holding.users:
                continue
            if self._foreign(variant[0]) not in kept:
                del self._holdings[key]
                release_memory(self.device)

    def _foreign(self, adapters: Sequence[Adapter]) -> tuple[Adapter, ...]:
        """Adapters that are not the model's own."""
        own = {id(adapter.file) for adapter in self.files.adapters(distilled=True)}
        return tuple(a for a in adapters if id(a.file) not in own)

    def _encoder_weights(self) -> dict[str, Tensor]:
        """Weights of the language model that stays on the device, by name in its files."""
        holding = self._holdings.get(("text_encoder", None))
        if not isinstance(holding, Resident) or holding.network is None:
            return {}
        state = holding.network.gemma.state_dict()
        return {old: state[new] for new, old in self.files.text_encoder.names.items()}

    def _fusion(self, network: Network[Transformer], adapters: Sequence[Adapter]) -> Fusion:
        key = _effective(adapters)
        if key not in self._fusions:
            # Metal has no bfloat16 products that accumulate in float32.
            dtype = torch.float32 if self.device.type == "mps" else torch.bfloat16
            self._fusions[key] = Fusion(network.shapes, key, aggregate_dtype=dtype)
        return self._fusions[key]

    def _shared_weights(self, network: Network[Transformer], fusion: Fusion) -> dict[str, Tensor]:
        """Weights of another view's resident transformer that neither view's adapters change."""
        for (component, variant), holding in self._holdings.items():
            if component != "transformer" or variant == self._variant:
                continue
            if isinstance(holding, Resident) and holding.network is not None:
                theirs = self._fusion(network, variant[0])
                changed = fusion.contributions.keys() | theirs.contributions.keys()
                state = holding.network.state_dict()
                # A new scale comes with a changed weight.
                scales = {f"{name}_scale" for name in changed}
                return {n: t for n, t in state.items() if n not in changed | scales}
        return {}


def _effective(adapters: Sequence[Adapter]) -> tuple[Adapter, ...]:
    """Those that change anything."""
    return tuple(adapter for adapter in adapters if adapter.strength)


def _within(part: str, wanted: Wanted, name: str) -> bool:
    return wanted(f"{part}.{name}")


@cache
def ledger_for(model: ModelChoice, device: Device, memory: MemorySpec) -> ModelLedger:
    """The ledger of this process: stages that share a process share networks too."""
    return ModelLedger(model, device, memory)
