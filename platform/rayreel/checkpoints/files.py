"""The files of one model: what a spec names, opened, with the facts that their headers state."""

from functools import cached_property
from pathlib import Path

from rayreel.checkpoints.fingerprint import fingerprint_file, fingerprint_folder
from rayreel.checkpoints.lora import Adapter
from rayreel.checkpoints.reader import WeightFile
from rayreel.config.jobs import AdapterSpec, ModelSpec
from rayreel.config.model import AudioVAEConfig, TransformerConfig, VideoVAEConfig
from rayreel.config.presets import SamplingDefaults, sampling_defaults
from rayreel.data.hashing import content_hash
from rayreel.types import ScaleFactors


class ModelFiles:
    """Opened weight files of a model; reads headers, and tensors when they are asked for."""

    def __init__(self, spec: ModelSpec) -> None:
        """Open the files.

        Args:
            spec: Absolute paths.

        Raises:
            CheckpointError: If a file is missing or is not what it must be.
        """
        self.spec = spec
        self.checkpoint = WeightFile(Path(spec.checkpoint))
        self.gemma = Path(spec.gemma)
        self.upsampler = WeightFile(Path(spec.upsampler)) if spec.upsampler else None
        self.loras = tuple(_adapter(lora) for lora in spec.loras)
        self.distilled_lora = _adapter(spec.distilled_lora) if spec.distilled_lora else None

    @cached_property
    def transformer(self) -> TransformerConfig:
        """Architecture of the transformer."""
        return self.checkpoint.section("transformer", TransformerConfig)

    @cached_property
    def video_vae(self) -> VideoVAEConfig:
        """Architecture of the video VAE.

        Whether its decoder is conditioned on a timestep shows in its weights alone: files without
        the key exist that are not, although its default says so.
        """
        config = self.checkpoint.section("vae", VideoVAEConfig)
        conditioned = "vae.decoder.last_scale_shift_table" in self.checkpoint.names
        return config.model_copy(update={"timestep_conditioning": conditioned})

    @cached_property
    def audio_vae(self) -> AudioVAEConfig:
        """Architecture of the audio VAE."""
        return self.checkpoint.section("audio_vae", AudioVAEConfig)

    @property
    def factors(self) -> ScaleFactors:
        """Pixels per latent position."""
        vae = self.video_vae
        return ScaleFactors(vae.time_factor, vae.space_factor, vae.space_factor)

    @property
    def defaults(self) -> SamplingDefaults:
        """Sampling defaults of the checkpoint's generation.

        A transformer with too few blocks for the generation's guidance block (the tiny one) takes
        its middle block.
        """
        row = sampling_defaults(self.checkpoint.model_version)
        layers = self.transformer.num_layers
        if row.stg_block < layers:
            return row
        return row.model_copy(update={"stg_block": layers // 2})

    def adapters(self, *, distilled: bool) -> tuple[Adapter, ...]:
        """Adapters of the transformer; the distilled one, if asked for and there, comes last."""
        last = (self.distilled_lora,) if distilled and self.distilled_lora else ()
        return (*self.loras, *last)

    def fingerprint(self, fields: tuple[str, ...]) -> str:
        """Identity of the files behind some fields of the spec, strengths included."""
        return content_hash(*(f"{field}={self.fingerprints[field]}" for field in sorted(fields)))

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Identity of the files behind each field of the spec."""
        spec = self.spec
        return {
            "checkpoint": fingerprint_file(self.checkpoint.path),
            "gemma": fingerprint_folder(self.gemma),
            "upsampler": fingerprint_file(self.upsampler.path) if self.upsampler else "",
            "loras": ",".join(_identity(lora) for lora in spec.loras),
            "distilled_lora": _identity(spec.distilled_lora) if spec.distilled_lora else "",
        }


def _adapter(spec: AdapterSpec) -> Adapter:
    return Adapter(WeightFile(Path(spec.path)), spec.strength)


def _identity(spec: AdapterSpec) -> str:
    return f"{fingerprint_file(Path(spec.path))}*{spec.strength!r}"
