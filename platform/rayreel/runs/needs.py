"""How much memory each stage of a render job needs, told from headers and sizes alone."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from rayreel.checkpoints import networks
from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.quantization import QuantizationName, stored_bytes
from rayreel.config.jobs import ModelSetup, StageName
from rayreel.config.request import RenderRequest
from rayreel.models.memory import (
    audio_decoder_bytes,
    text_connectors_bytes,
    text_encoder_bytes,
    transformer_bytes,
    upsampler_bytes,
)
from rayreel.models.tiling import TileSizeConfig
from rayreel.models.video_vae.fitting import tiled_decode_bytes
from rayreel.pipelines import pipeline_of
from rayreel.pipelines.chunks import is_chained
from rayreel.types import AudioLatentShape, VideoLatentShape

Header = Mapping[str, tuple[tuple[int, ...], str]]

# Names of weights that belong to a block which can be streamed.
_BLOCK = re.compile(r"(?:transformer_blocks|model\.layers)\.(\d+)\.")
# Blocks that are on the device at a time: one computes, one is fetched, and one more is made ready
# where they come from files.
_STREAMED = {"offload": 2, "disk": 3}
# Predictions of a guided step that run as one batch: prompt, negative prompt, perturbed, isolated.
_PASSES = 4


@dataclass(frozen=True)
class Precision:
    """A way to hold weights and to compute.

    Attributes:
        name: For people.
        dtype: Of activations, and of weights that are not kept in one of their own.
        quantization: Of the transformer.
    """

    name: str
    dtype: torch.dtype
    quantization: QuantizationName


PRECISIONS = (
    Precision("float32", torch.float32, "none"),
    Precision("bfloat16", torch.bfloat16, "none"),
    Precision("float8 blocks", torch.bfloat16, "fp8_cast"),
)


@dataclass(frozen=True)
class Need:
    """Memory of one stage, in bytes.

    Attributes:
        weights: On the device, at most.
        activations: On the device, at most.
        host: In the host's memory, for weights that are kept there between uses.
    """

    weights: int
    activations: int
    host: int

    @property
    def device(self) -> int:
        """All that the device must have."""
        return self.weights + self.activations


FUSED = "all in one worker"


def stage_needs(
    setup: ModelSetup, files: ModelFiles, request: RenderRequest, precision: Precision
) -> dict[str, Need]:
    """What each stage that a request goes through needs, were it alone on its device.

    Args:
        setup: Memory policy, placement and batch sizes.
        files: The model; only headers are read.
        request: A resolved request.
        precision: How weights are held.

    Returns:
        By stage, in order; where all of them but the text share a worker, what that one needs as
        ``FUSED``.
    """
    sizes = _Sizes(setup, files, request, precision)
    stages: dict[str, list[_Part]] = {"text": sizes.text(), "stage1": sizes.stage1()}
    if pipeline_of(request).traits.stages > 1:
        stages["stage2"] = sizes.stage2()
    stages["decode"] = sizes.decode()
    if setup.placement == "fused":
        # Texts are encoded by workers of their own, before the others start.
        shared = [part for name, parts in stages.items() if name != "text" for part in parts]
        stages[FUSED] = shared
    return {name: _need(setup, parts) for name, parts in stages.items()}


@dataclass(frozen=True)
class _Part:
    """A network of a stage: its weights, and what it needs beside them, in bytes.

    Attributes:
        name: Stages that name the same network share it.
        component: Whose memory policy holds.
        weights: All of them.
        activations: While it computes.
        blocks: Of each block that can be streamed.
    """

    name: str
    component: str
    weights: int
    activations: int
    blocks: tuple[int, ...]

    def streamed(self, policy: str) -> int:
        """Weights on the device while blocks come and go."""
        return self.weights - sum(self.blocks) + _STREAMED[policy] * max(self.blocks)


def _need(setup: ModelSetup, parts: Iterable[_Part]) -> Need:
    """Resident weights add up; of the others, and of activations, what is in use counts."""
    resident, passing, host, activations = 0, 0, 0, 0
    seen = set()
    for part in parts:
        policy = getattr(setup.memory, part.component)
        activations = max(activations, part.activations)
        if part.name in seen:
            continue
        seen.add(part.name)
        if policy in {"resident", "exchange"}:
            resident += part.weights
        else:
            streams = part.blocks and policy in _STREAMED
            passing = max(passing, part.streamed(policy) if streams else part.weights)
        if policy == "offload":
            host += part.weights
    return Need(resident + passing, activations, host)


@dataclass(frozen=True)
class _Sizes:
    """Networks of every stage for one request."""

    setup: ModelSetup
    files: ModelFiles
    request: RenderRequest
    precision: Precision

    def text(self) -> list[_Part]:
        """Language model and projection."""
        encoder = self.files.text_encoder
        activations = text_encoder_bytes(
            self.files.text,
            hidden_size=encoder.hidden_size,
            num_hidden_states=encoder.num_hidden_states,
            prompts=self.setup.stage("text").least_batch,
            text_tokens=self.files.text_encoder.prompt_tokens,
            itemsize=self._itemsize,
        )
        projection = networks.feature_extractor(self.files).header
        header = {**encoder.header, **projection}
        return [self._part("text_encoder", "text_encoder", header, activations)]

    def stage1(self) -> list[_Part]:
        """Connectors and transformer; and the video encoder, where images are pinned."""
        kind = pipeline_of(self.request)
        guided, scale = kind.guided(self.request), kind.traits.stages
        # What a director writes on the way is encoded on the way.
        directed = self.request.enhance and is_chained(self.request)
        return [
            *(self.text() if directed else ()),
            self._connectors("stage1"),
            self._transformer(scale, _PASSES if guided else 1, "stage1"),
            *self._encoder(),
        ]

    def stage2(self) -> list[_Part]:
        """Connectors; upsampler, then the transformer at full size without guidance."""
        small = self._latent(2)
        upsampler = networks.upsampler(self.files).header
        activations = upsampler_bytes(self.files.upsampler, small, itemsize=self._itemsize)
        return [
            self._connectors("stage2"),
            self._transformer(1, 1, "stage2"),
            self._part("upsampler", "upsampler", upsampler, activations),
            *self._encoder(),
        ]

    def decode(self) -> list[_Part]:
        """Video decoder in tiles; audio decoder and vocoder."""
        files, request, shape = self.files, self.request, self._latent(1)
        tiling = TileSizeConfig.from_long_side(
            request.height, request.width, factor=files.factors.height
        )
        grid = (shape.frames, shape.height, shape.width)
        activations = tiled_decode_bytes(files.video_vae, grid, tiling, self._itemsize)
        header = networks.video_decoder(files).header
        parts = [self._part("video_decoder", "video_decoder", header, activations)]
        if request.audio:
            activations = audio_decoder_bytes(
                files.audio_vae,
                files.vocoder,
                latent_frames=self._audio_frames,
                itemsize=self._itemsize,
            )
            for name, header in (
                ("audio_decoder", networks.audio_decoder(files).header),
                ("vocoder", networks.vocoder(files).header),
            ):
                parts.append(self._part(name, "audio_decoder", header, activations))
        return parts

    def _connectors(self, stage: StageName) -> _Part:
        texts = 2 if self.request.negative_prompt is not None else 1
        activations = text_connectors_bytes(
            self.files.text,
            prompts=texts * self.setup.stage(stage).least_batch,
            text_tokens=self.files.text_encoder.prompt_tokens,
            itemsize=self._itemsize,
        )
        header = networks.text_connectors(self.files).header
        return self._part("text_connectors", "text_connectors", header, activations)

    def _transformer(self, downscale: int, passes: int, stage: StageName) -> _Part:
        activations = transformer_bytes(
            self.files.transformer,
            batch=passes * self.setup.stage(stage).least_batch,
            video_tokens=self._latent(downscale).tokens,
            audio_tokens=self._audio_frames if self.request.audio else 0,
            text_tokens=self.files.text_encoder.prompt_tokens,
            itemsize=self._itemsize,
            per_token=False,
        )
        # A set of adapters makes a transformer of its own, unless one takes them in turn.
        distilled = stage == "stage2" or not pipeline_of(self.request).guided(self.request)
        own = (
            distilled and self.files.distilled_lora and self.setup.memory.transformer != "exchange"
        )
        return self._part(
            "distilled transformer" if own else "transformer",
            "transformer",
            networks.transformer(self.files).header,
            activations,
            self.precision.quantization,
        )

    def _encoder(self) -> list[_Part]:
        if not self.request.images:
            return []
        # One frame at a time, which is little beside the decoder.
        header = networks.video_encoder(self.files).header
        return [self._part("video_encoder", "video_encoder", header, 0)]

    def _part(
        self,
        name: str,
        component: str,
        header: Header,
        activations: int,
        quantization: QuantizationName = "none",
    ) -> _Part:
        def size(names: Iterable[str]) -> int:
            part = {name: header[name] for name in names}
            return stored_bytes(part, quantization, self.precision.dtype)

        indices = {name: found[1] for name in header if (found := _BLOCK.match(name))}
        blocks = {
            index: [name for name, own in indices.items() if own == index]
            for index in Counter(indices.values())
        }
        sizes = tuple(map(size, blocks.values()))
        return _Part(name, component, size(header), activations, sizes)

    def _latent(self, downscale: int) -> VideoLatentShape:
        return VideoLatentShape.from_pixels(
            frames=self.request.num_frames,
            height=self.request.height // downscale,
            width=self.request.width // downscale,
            channels=self.files.video_vae.latent_channels,
            factors=self.files.factors,
        )

    @property
    def _audio_frames(self) -> int:
        audio = self.files.audio_vae
        return AudioLatentShape.from_duration(
            self.request.duration_s,
            channels=audio.network.z_channels,
            bins=audio.latent_bins,
            latents_per_second=audio.latents_per_second,
        ).frames

    @property
    def _itemsize(self) -> int:
        return self.precision.dtype.itemsize
