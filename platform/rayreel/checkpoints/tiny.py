"""A tiny model set in the official layout: the same files, the same loader, random weights."""

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import torch
from safetensors.torch import save
from torch import Tensor, nn

from rayreel.checkpoints import keys
from rayreel.config.jobs import AdapterSpec, ModelSpec
from rayreel.config.model import (
    AudioVAEConfig,
    TextConfig,
    TransformerConfig,
    UpsamplerConfig,
    VideoVAEConfig,
    VocoderConfig,
)
from rayreel.config.presets import TINY_CONFIG, TINY_UPSAMPLER_CONFIG
from rayreel.errors import CheckpointError
from rayreel.models.audio_vae import AudioDecoder, AudioEncoder
from rayreel.models.text.processor import EmbeddingsProcessor
from rayreel.models.text.tiny import write_tiny_gemma
from rayreel.models.transformer import Transformer
from rayreel.models.upsampler import LatentUpsampler
from rayreel.models.video_vae import VideoDecoder, VideoEncoder
from rayreel.models.vocoder import make_vocoder
from rayreel.types import seeded_generator

_SEED = 0
_LORA_RANK = 4
# Part of the cached folder's name: another number whenever the weights change.
_EDITION = 2

# Layers of the video decoder that spread channels over space: gain, and channels per pixel.
_SPREADS = {
    **{f"vae.decoder.up_blocks.{block}.conv.conv.weight": (4, 8) for block in (1, 3, 5)},
    "vae.decoder.conv_out.conv.weight": (0.6, 16),
}

_CHECKPOINT = "ltx-2-tiny.safetensors"
_GEMMA = "gemma-3-tiny"
_UPSAMPLER = "ltx-2-tiny-spatial-upscaler-x2.safetensors"
_LORA = "ltx-2-tiny-distilled-lora.safetensors"


def tiny_spec(folder: Path) -> ModelSpec:
    """The files that ``write_tiny`` puts into a folder, as a model spec."""
    return ModelSpec(
        checkpoint=str(folder / _CHECKPOINT),
        gemma=str(folder / _GEMMA),
        upsampler=str(folder / _UPSAMPLER),
        distilled_lora=AdapterSpec(path=str(folder / _LORA)),
    )


def locate_model(model: Literal["tiny"] | ModelSpec) -> ModelSpec:
    """Weight files of a model; the tiny one is written to the user's cache when first needed.

    Processes may race: each writes a folder of its own, and the first to rename it wins.

    Raises:
        CheckpointError: If the cache cannot be written.
    """
    if isinstance(model, ModelSpec):
        return model
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rayreel"
    folder = cache / f"tiny-{_EDITION}"
    try:
        _write_once(folder)
    except OSError as error:
        raise CheckpointError(
            f"cannot write the tiny model to {folder}: {error}; XDG_CACHE_HOME names another cache"
        ) from error
    return tiny_spec(folder)


def _write_once(folder: Path) -> None:
    if folder.is_dir():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="tiny-", dir=folder.parent) as temporary:
        # In a folder of the usual permissions, which a temporary one has not.
        fresh = Path(temporary) / folder.name
        write_tiny(fresh)
        try:
            fresh.rename(folder)
        except OSError:
            # Another process was faster, with the same bytes.
            if not folder.is_dir():
                raise


def write_tiny(folder: Path) -> ModelSpec:
    """Write the whole set: checkpoint, Gemma folder, upsampler and distilled LoRA.

    Args:
        folder: Made if it is not there; files of the same names are replaced. The bytes are the
            same each time.

    Returns:
        The files, as a spec names them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_tiny_gemma(folder / _GEMMA, _SEED)
    gemma = json.loads((folder / _GEMMA / "config.json").read_text("utf-8"))["text_config"]
    text = TextConfig.model_validate(TINY_CONFIG["transformer"])
    vae = VideoVAEConfig.model_validate(TINY_CONFIG["vae"])
    audio = AudioVAEConfig.model_validate(TINY_CONFIG["audio_vae"])
    transformer = Transformer(TransformerConfig.model_validate(TINY_CONFIG["transformer"]))
    parts: Iterable[tuple[nn.Module, keys.Rules]] = (
        (transformer, keys.TRANSFORMER),
        (
            EmbeddingsProcessor(
                text,
                hidden_size=gemma["hidden_size"],
                num_hidden_states=gemma["num_hidden_layers"] + 1,
            ),
            keys.TEXT,
        ),
        (VideoEncoder(vae), keys.VIDEO_ENCODER),
        (VideoDecoder(vae), keys.VIDEO_DECODER),
        (AudioEncoder(audio), keys.AUDIO_ENCODER),
        (AudioDecoder(audio), keys.AUDIO_DECODER),
        (make_vocoder(VocoderConfig.model_validate(TINY_CONFIG["vocoder"])), keys.VOCODER),
    )
    tensors: dict[str, Tensor] = {}
    for module, rules in parts:
        tensors |= _weights(module, rules)
    _save(
        folder / _CHECKPOINT,
        tensors,
        {"config": json.dumps(TINY_CONFIG), "model_version": "2.0.0", "format": "pt"},
    )
    upsampler = LatentUpsampler(UpsamplerConfig.model_validate(TINY_UPSAMPLER_CONFIG))
    _save(
        folder / _UPSAMPLER,
        _weights(upsampler, keys.UPSAMPLER),
        {"config": json.dumps(TINY_UPSAMPLER_CONFIG), "format": "pt"},
    )
    _save(folder / _LORA, _lora(transformer), {"format": "pt"})
    return tiny_spec(folder)


def _save(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    data = save(tensors, metadata)
    # With a header of our own: theirs has the metadata in an order that changes.
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:start]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)
    # Not save_file, whose files nobody but their owner can read.
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[start:])


def _weights(module: nn.Module, rules: keys.Rules) -> dict[str, Tensor]:
    """Parameters drawn anew, buffers as the module made them, under the names of the file."""
    state = {keys.file_name(name, rules): buffer for name, buffer in module.named_buffers()}
    for name, parameter in module.named_parameters():
        key = keys.file_name(name, rules)
        state[key] = _draw(key, parameter.shape)
    return {
        key: tensor.to(torch.float32 if "scale_shift_table" in key else torch.bfloat16).contiguous()
        for key, tensor in state.items()
    }


def _draw(name: str, shape: torch.Size) -> Tensor:
    """Values that keep signals at unit size: fan-in scaled weights, norms near 1, small biases."""
    noise = torch.randn(shape, generator=seeded_generator(_SEED, name))
    if "norm" in name and name.endswith("weight"):
        return 1 + 0.05 * noise
    if len(shape) < 2:
        return 0.02 * noise
    if "scale_shift_table" in name:
        return noise / 4
    # Transposed convolutions keep their input width first, and each output sees k / stride taps.
    fan_in = shape[0] * 2 if ".ups." in name else math.prod(shape[1:])
    noise = noise / math.sqrt(fan_in)
    if spread := _SPREADS.get(name):
        # Neighbouring pixels come from neighbouring channels: equal ones make patches, not noise.
        gain, size = spread
        return gain * noise[::size].repeat_interleave(size, dim=0)
    return noise


def _lora(transformer: nn.Module) -> dict[str, Tensor]:
    tensors = {}
    for name, module in transformer.named_modules():
        if isinstance(module, nn.Linear) and name.endswith(("to_q", "to_k", "to_v", "to_out.0")):
            shapes = {
                "lora_A": (_LORA_RANK, module.in_features),
                "lora_B": (module.out_features, _LORA_RANK),
            }
            for half, shape in shapes.items():
                key = f"diffusion_model.{name}.{half}.weight"
                noise = torch.randn(shape, generator=seeded_generator(_SEED, key))
                tensors[key] = (noise / (2 * math.sqrt(shape[1]))).to(torch.bfloat16)
    return tensors
