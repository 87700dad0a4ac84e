"""What a weight file holds, told from its metadata and header."""

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from rayreel.checkpoints import lora_names
from rayreel.checkpoints.keys import COMPONENTS, LANGUAGE_MODEL, rename
from rayreel.checkpoints.kinds import is_packed_text_encoder, kinds
from rayreel.checkpoints.reader import WeightFile
from rayreel.config.model import (
    AudioVAEConfig,
    TextConfig,
    TransformerConfig,
    UpsamplerConfig,
    VideoVAEConfig,
    VocoderConfig,
)


def describe(path: Path) -> str:
    """A few lines for a person: version, components, parameters, dtypes, architecture.

    Args:
        path: Safetensors file of any kind; no tensor is read.

    Raises:
        CheckpointError: If it is not a safetensors file.
    """
    file = WeightFile(path)
    lines = [
        str(path),
        f"  kind           {_kind(file)}",
        f"  model version  {file.metadata.get('model_version', 'not stated')}",
        f"  size           {file.num_bytes / 2**20:.1f} MiB, {len(file.names)} tensors",
        *(f"  {line}" for line in _architecture(file)),
    ]
    for component, names in _components(file).items():
        lines.append(f"  {component:<33}{_size(file, names)}")
    return "\n".join(lines)


def _kind(file: WeightFile) -> str:
    found = kinds(file)
    if "lora" in found:
        return "LoRA"
    if "upsampler" in found:
        return "latent upsampler"
    if any(map(file.config.get, _SECTIONS)):
        return "LTX-2 checkpoint"
    if is_packed_text_encoder(file):
        return "packed text encoder"
    if any(rename(name, LANGUAGE_MODEL) for name in file.names):
        return "Gemma text encoder"
    return "unknown: its metadata has no config of this family"


def _components(file: WeightFile) -> dict[str, list[str]]:
    """Tensor names by component, in the order of the key tables; the rest last."""
    found: dict[str, list[str]] = {}
    rest = set(file.names)
    for component, rules in COMPONENTS.items():
        names = [name for name in file.names if rename(name, rules) is not None]
        if names:
            found[component] = names
        rest -= set(names)
    if rest:
        found["other tensors" if found else "tensors"] = sorted(rest)
    return found


def _size(file: WeightFile, names: list[str]) -> str:
    dtypes = Counter[str]()
    for name in names:
        dtypes[file.dtype(name)] += math.prod(file.shape(name))
    shares = ", ".join(f"{dtype} {count:,}" for dtype, count in dtypes.most_common())
    return f"{sum(dtypes.values()):>15,} parameters in {len(names)} tensors ({shares})"


def _architecture(file: WeightFile) -> list[str]:
    """What the config sections say, in a line or two each."""
    lines = [
        line for name, tell in _SECTIONS.items() if file.config.get(name) for line in tell(file)
    ]
    if "mid_channels" in file.config:
        lines.append(_tell_upsampler(file))
    parts = ((name, lora_names.split(name)) for name in file.names)
    if ranks := {file.shape(name)[0] for name, found in parts if found and found[1] == "down"}:
        lines.append(f"ranks          {', '.join(map(str, sorted(ranks)))}")
    return lines


def _tell_transformer(file: WeightFile) -> list[str]:
    net = file.section("transformer", TransformerConfig)
    text = file.section("transformer", TextConfig)
    audio = f"audio {net.audio_num_attention_heads} x {net.audio_attention_head_dim}"
    connectors = f"connectors of {text.video.num_layers} and {text.audio.num_layers} layers"
    return [
        f"transformer    {net.num_layers} blocks, video {net.num_attention_heads} x "
        f"{net.attention_head_dim}, {audio if net.has_audio else 'no audio'}, "
        f"{net.rope_type} rotary embedding"
        f"{', gated attention' if net.apply_gated_attention else ''}",
        f"text           features {text.feature_version}, "
        + (connectors if text.has_audio else f"connector of {text.video.num_layers} layers"),
    ]


def _tell_video_vae(file: WeightFile) -> list[str]:
    vae = file.section("vae", VideoVAEConfig)
    return [
        f"video VAE      {vae.latent_channels} channels, 1/{vae.space_factor} in space, "
        f"1/{vae.time_factor} in time"
    ]


def _tell_audio_vae(file: WeightFile) -> list[str]:
    vae = file.section("audio_vae", AudioVAEConfig)
    return [
        f"audio VAE      {vae.network.z_channels} channels x {vae.latent_bins} bins, "
        f"{vae.latents_per_second:g} latents per second"
    ]


def _tell_vocoder(file: WeightFile) -> list[str]:
    config = file.section("vocoder", VocoderConfig)
    extension = ", with bandwidth extension" if config.bwe else ""
    return [f"vocoder        {config.sample_rate_hz} Hz{extension}"]


def _tell_upsampler(file: WeightFile) -> str:
    upsampler = file.section(None, UpsamplerConfig)
    scales = [f"{upsampler.spatial_scale:g}x in space"] if upsampler.spatial_upsample else []
    scales += ["2x in time"] if upsampler.temporal_upsample else []
    return f"upsampler      {upsampler.in_channels} channels, {' and '.join(scales)}"


# A 2.5 file holds one component; the sections of the others are absent or null.
_SECTIONS: dict[str, Callable[[WeightFile], list[str]]] = {
    "transformer": _tell_transformer,
    "vae": _tell_video_vae,
    "audio_vae": _tell_audio_vae,
    "vocoder": _tell_vocoder,
}
