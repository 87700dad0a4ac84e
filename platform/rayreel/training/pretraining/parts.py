"""Which network a spec means."""

from collections.abc import Mapping
from typing import Any

from rayreel.config.base import Architecture
from rayreel.config.load import parse
from rayreel.config.model import (
    AudioVAEConfig,
    TextConfig,
    UpsamplerConfig,
    VideoVAEConfig,
    VocoderConfig,
)
from rayreel.config.pretrain import PartName, PretrainSpec
from rayreel.errors import SpecError
from rayreel.training.pretraining.audio_vae import AudioVAEPart
from rayreel.training.pretraining.linear_upsampler import is_linear
from rayreel.training.pretraining.part import Part
from rayreel.training.pretraining.text import TextPart
from rayreel.training.pretraining.upsampler import UpsamplerPart
from rayreel.training.pretraining.video_vae import VideoVAEPart
from rayreel.training.pretraining.vocoder import VocoderPart

_SECTIONS: dict[PartName, dict[str, type[Architecture]]] = {
    "text": {"gemma": Architecture, "transformer": TextConfig},
    "video_vae": {"vae": VideoVAEConfig},
    "audio_vae": {"audio_vae": AudioVAEConfig},
    "vocoder": {"audio_vae": AudioVAEConfig, "vocoder": VocoderConfig},
    "upsampler": {"upsampler": UpsamplerConfig},
}


def make_part(spec: PretrainSpec, architecture: Mapping[str, Any]) -> Part:
    """The network of a spec, with random weights.

    Args:
        spec: Of the run.
        architecture: All sections, as the metadata of a checkpoint has them.

    Raises:
        SpecError: If a section that it needs is missing or wrong.
        CheckpointError: If weights that it builds on do not fit.
    """
    for name, kind in _SECTIONS[spec.part].items():
        if name not in architecture:
            raise SpecError(
                f"{spec.architecture} has no section {name}; it has {', '.join(architecture)}"
            )
        parse(architecture[name], kind, where=f"{spec.architecture}: {name}")
    match spec.part:
        case "text":
            return TextPart(architecture, spec.seed)
        case "video_vae":
            return VideoVAEPart(architecture["vae"], spec.seed)
        case "audio_vae":
            return AudioVAEPart(architecture["audio_vae"], spec.seed)
        case "vocoder":
            return VocoderPart(architecture, spec.seed, spec.inputs.get("audio_vae"))
        case "upsampler":
            config = UpsamplerConfig.model_validate(architecture["upsampler"])
            if not spec.stretches and not is_linear(config):
                raise SpecError(
                    f"{spec.architecture}: upsampler: only one that doubles height and width, with "
                    "num_blocks_per_stage 0, is fitted without steps; set it so, or give stretches"
                )
            return UpsamplerPart(architecture["upsampler"], spec.inputs["video_vae"], spec.seed)
