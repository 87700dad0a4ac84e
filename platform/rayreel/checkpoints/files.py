"""The files of one model: what a spec names, opened, with the facts that their headers state."""

from functools import cached_property
from pathlib import Path
from typing import get_args

from rayreel.checkpoints.fingerprint import fingerprint_file, fingerprint_folder
from rayreel.checkpoints.lora import Adapter
from rayreel.checkpoints.reader import WeightFile
from rayreel.checkpoints.text_encoder import TextEncoderFiles
from rayreel.config.conditions import AdapterSpec
from rayreel.config.jobs import ImageModelSpec, ModelFile, ModelSpec
from rayreel.config.model import (
    AudioVAEConfig,
    TextConfig,
    TransformerConfig,
    UpsamplerConfig,
    VideoVAEConfig,
    VocoderConfig,
)
from rayreel.config.presets import SamplingDefaults, sampling_defaults
from rayreel.data.hashing import content_hash
from rayreel.errors import CheckpointError
from rayreel.types import ScaleFactors

# Weights, configurations, tokenizers and chat templates.
_OF_IMAGE_MODELS = {".safetensors", ".json", ".jinja", ".txt"}


class ModelFiles:
    """Opened weight files of a model; reads headers, and tensors when they are asked for.

    Attributes:
        spec: Absolute paths.
        transformer_file: Transformer and connectors, and whatever else the checkpoint holds.
        upsampler_file: Latent upsampler, where the model has one.
        loras: Adapters of the transformer.
        distilled_lora: The one that makes the transformer a distilled one.
    """

    def __init__(self, spec: ModelSpec) -> None:
        """Open the files.

        Args:
            spec: Absolute paths.

        Raises:
            CheckpointError: If a file is missing or is not what it must be.
        """
        self.spec = spec
        self._opened: dict[str, WeightFile] = {}
        self._hashes: dict[Path, str] = {}
        self.transformer_file = self._component("transformer", "checkpoint")
        self.upsampler_file = self._open(spec.upsampler) if spec.upsampler else None
        self.loras = tuple(map(self.adapter, spec.loras))
        self.distilled_lora = self.adapter(spec.distilled_lora) if spec.distilled_lora else None

    @cached_property
    def text_encoder(self) -> TextEncoderFiles:
        """Language model, in a folder or a packed file; raises ``CheckpointError``."""
        return TextEncoderFiles(Path(self.spec.gemma))

    @cached_property
    def text_file(self) -> WeightFile:
        """Text projection and connectors; they may lie in different files of a set."""
        others = [self.spec.text_projection]
        if self.text_encoder.packed:
            others.append(self.spec.gemma)
        return self.transformer_file.joined(*(self._open(path) for path in others if path))

    @cached_property
    def video_vae_file(self) -> WeightFile:
        """Video VAE."""
        return self._component("video_vae", "checkpoint")

    @cached_property
    def audio_vae_file(self) -> WeightFile:
        """Audio VAE."""
        return self._component("audio_vae", "checkpoint")

    @cached_property
    def vocoder_file(self) -> WeightFile:
        """Vocoder."""
        return self._component("vocoder", "audio_vae", "checkpoint")

    @cached_property
    def transformer(self) -> TransformerConfig:
        """Architecture of the transformer."""
        return self.transformer_file.section("transformer", TransformerConfig)

    @cached_property
    def text(self) -> TextConfig:
        """Architecture of feature extractor and connectors."""
        return self.transformer_file.section("transformer", TextConfig)

    @cached_property
    def video_vae(self) -> VideoVAEConfig:
        """Architecture of the video VAE.

        Whether its decoder is conditioned on a timestep shows in its weights alone: files without
        the key exist that are not, although its default says so.
        """
        config = self.video_vae_file.section("vae", VideoVAEConfig)
        tables = ("vae.decoder.last_scale_shift_table", "decoder.last_scale_shift_table")
        conditioned = any(table in self.video_vae_file.names for table in tables)
        return config.model_copy(update={"timestep_conditioning": conditioned})

    @cached_property
    def audio_vae(self) -> AudioVAEConfig:
        """Architecture of the audio VAE."""
        return self.audio_vae_file.section("audio_vae", AudioVAEConfig)

    @cached_property
    def vocoder(self) -> VocoderConfig:
        """Architecture of the vocoder."""
        return self.vocoder_file.section("vocoder", VocoderConfig)

    @cached_property
    def upsampler(self) -> UpsamplerConfig:
        """Architecture of the upsampler.

        Raises:
            CheckpointError: If the model names no upsampler.
        """
        if self.upsampler_file is None:
            raise CheckpointError("the model names no upsampler, which this pipeline needs")
        return self.upsampler_file.section(None, UpsamplerConfig)

    @property
    def factors(self) -> ScaleFactors:
        """Pixels per latent position."""
        vae = self.video_vae
        return ScaleFactors(vae.time_factor, vae.space_factor, vae.space_factor)

    @property
    def defaults(self) -> SamplingDefaults:
        """Sampling defaults of the model's generation.

        A transformer with too few blocks for the generation's guidance block (the tiny one) takes
        its middle block. How images are compressed is what the VAE's own file was trained with.
        """
        row = sampling_defaults(self.transformer_file.model_version)
        crf = sampling_defaults(self.video_vae_file.model_version).image_crf
        layers = self.transformer.num_layers
        block = row.stg_block if row.stg_block < layers else layers // 2
        return row.model_copy(update={"stg_block": block, "image_crf": crf})

    def adapters(self, *, distilled: bool) -> tuple[Adapter, ...]:
        """Adapters of the transformer; the distilled one, if asked for and there, comes last."""
        last = (self.distilled_lora,) if distilled and self.distilled_lora else ()
        return (*self.loras, *last)

    def adapter(self, spec: AdapterSpec) -> Adapter:
        """An adapter of the transformer, opened; raises ``CheckpointError``.

        A file that took the place of an earlier one, as in the library, is another adapter.
        """
        if spec.path in self._opened and self._opened[spec.path].replaced:
            del self._opened[spec.path]
            self._hashes.pop(Path(spec.path), None)
        return Adapter(self._open(spec.path), spec.strength)

    def identity(self, adapter: AdapterSpec) -> str:
        """What tells an adapter from others: its weights and its strength."""
        return f"{self._hash(self.adapter(adapter).file.path)}*{adapter.strength!r}"

    def fingerprint(self, fields: tuple[ModelFile, ...]) -> str:
        """Identity of the weights behind some fields of the spec, strengths included."""
        return content_hash(*(f"{field}={self.fingerprints[field]}" for field in sorted(fields)))

    @cached_property
    def fingerprints(self) -> dict[ModelFile, str]:
        """Identity of the weights behind each field of the spec."""
        return {field: self._fingerprint(field) for field in get_args(ModelFile)}

    def _fingerprint(self, field: ModelFile) -> str:
        spec = self.spec
        match field:
            case "gemma":
                path = self.text_encoder.path
                packed = self.text_encoder.packed
                return self._hash(path) if packed else fingerprint_folder(path)
            case "loras":
                return ",".join(map(self.identity, spec.loras))
            case "distilled_lora":
                return self.identity(spec.distilled_lora) if spec.distilled_lora else ""
            case "quantization":
                return spec.quantization
            case "image_model":
                return self._image_model(spec.image_model) if spec.image_model else ""
        return ",".join(self._hash(part) for part in self._parts(field))

    def _image_model(self, spec: ImageModelSpec) -> str:
        """Weights of all parts of a folder of diffusers, what configures them, and the settings."""
        root = Path(spec.folder)
        if not root.is_dir():
            raise CheckpointError(f"image model {root}: not a folder")
        parts = [
            f"{path.relative_to(root)}={self._hash(path)}"
            if path.suffix == ".safetensors"
            else f"{path.relative_to(root)}={content_hash(path.read_bytes())}"
            for path in sorted(root.rglob("*"))
            if path.suffix in _OF_IMAGE_MODELS
        ]
        return content_hash(*parts, f"{spec.steps}*{spec.guidance!r}")

    def _parts(self, field: ModelFile) -> tuple[Path, ...]:
        """Files that a component is read from, wherever the spec names them."""
        silent = not self.transformer.has_audio
        match field:
            case "transformer":
                return self.transformer_file.parts
            case "text_projection":
                return self.text_file.parts
            case "video_vae":
                return self.video_vae_file.parts
            case "audio_vae":
                return () if silent else self.audio_vae_file.parts
            case "vocoder":
                return () if silent else self.vocoder_file.parts
        return self.upsampler_file.parts if self.upsampler_file else ()

    def _hash(self, path: Path) -> str:
        if path not in self._hashes:
            self._hashes[path] = fingerprint_file(path)
        return self._hashes[path]

    def _component(self, *fields: str) -> WeightFile:
        """The first file that the spec names for a component."""
        paths = [path for field in fields if (path := getattr(self.spec, field))]
        if not paths:
            raise CheckpointError(f"the model names no {fields[0]}; set model.{fields[0]}")
        return self._open(paths[0])

    def _open(self, path: str) -> WeightFile:
        """A file, opened once although several components may lie in it."""
        if path not in self._opened:
            self._opened[path] = WeightFile(Path(path))
        return self._opened[path]
