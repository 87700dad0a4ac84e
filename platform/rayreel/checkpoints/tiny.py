"""A tiny model set in the official layout: the same files, the same loader, random weights."""

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from safetensors.torch import save
from torch import Tensor, nn

from rayreel.checkpoints import keys
from rayreel.config.conditions import AdapterSpec
from rayreel.config.jobs import ModelChoice, ModelSpec
from rayreel.config.model import (
    AudioVAEConfig,
    TextConfig,
    TransformerConfig,
    UpsamplerConfig,
    VideoVAEConfig,
    VocoderConfig,
)
from rayreel.config.presets import (
    TINY_CONFIG,
    TINY_CONFIG_2_3,
    TINY_UPSAMPLER_CONFIG,
    TINY_UPSAMPLER_CONFIG_2_3,
)
from rayreel.errors import CheckpointError
from rayreel.models.audio_vae import AudioDecoder, AudioEncoder
from rayreel.models.audio_vae.mel import mel_filterbank
from rayreel.models.text.processor import EmbeddingsProcessor
from rayreel.models.text.tiny import write_tiny_gemma
from rayreel.models.transformer import Transformer
from rayreel.models.upsampler import LatentUpsampler
from rayreel.models.video_vae import VideoDecoder, VideoEncoder
from rayreel.models.vocoder import BandwidthExtendedVocoder, make_vocoder
from rayreel.models.vocoder.bandwidth import CausalMel
from rayreel.types import seeded_generator

GenerationName = Literal["2.0", "2.3"]
Spreads = Mapping[str, tuple[float, int]]

_SEED = 0
_LORA_RANK = 4
# Part of the cached folder's name: another number whenever the weights change.
_EDITION = 2

_GEMMA = "gemma-3-tiny"


@dataclass(frozen=True)
class _Generation:
    """What the tiny sets of the generations differ in.

    Attributes:
        name: Start of the file names.
        version: ``model_version`` of the checkpoint.
        config: Architecture of the checkpoint.
        upsampler: Architecture of the upsampler.
        spreads: Blocks of the video decoder that spread channels over space or time: channels that
            become one position.
        gains: Factors of weights that would make too much of their input, by name.
    """

    name: str
    version: str
    config: dict[str, Any]
    upsampler: dict[str, Any]
    spreads: dict[int, int]
    gains: dict[str, float]

    @property
    def checkpoint(self) -> str:
        return f"{self.name}.safetensors"

    @property
    def upscaler(self) -> str:
        return f"{self.name}-spatial-upscaler-x2.safetensors"

    @property
    def lora(self) -> str:
        return f"{self.name}-distilled-lora.safetensors"


GENERATIONS: dict[GenerationName, _Generation] = {
    "2.0": _Generation(
        name="ltx-2-tiny",
        version="2.0.0",
        config=TINY_CONFIG,
        upsampler=TINY_UPSAMPLER_CONFIG,
        spreads={1: 8, 3: 8, 5: 8},
        gains={},
    ),
    "2.3": _Generation(
        name="ltx-2.3-tiny",
        version="2.3.0",
        config=TINY_CONFIG_2_3,
        upsampler=TINY_UPSAMPLER_CONFIG_2_3,
        spreads={1: 8, 3: 8, 5: 2, 7: 4},
        # Periodic activations add up to more than full level.
        gains={
            "vocoder.vocoder.conv_post.weight": 1 / 64,
            "vocoder.bwe_generator.conv_post.weight": 1 / 256,
        },
    ),
}


def tiny_spec(folder: Path, generation: GenerationName = "2.0") -> ModelSpec:
    """The files that ``write_tiny`` puts into a folder, as a model spec."""
    tiny = GENERATIONS[generation]
    return ModelSpec(
        checkpoint=str(folder / tiny.checkpoint),
        gemma=str(folder / _GEMMA),
        upsampler=str(folder / tiny.upscaler),
        distilled_lora=AdapterSpec(path=str(folder / tiny.lora)),
    )


def locate_model(model: ModelChoice) -> ModelSpec:
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


def write_tiny(folder: Path, generation: GenerationName = "2.0") -> ModelSpec:
    """Write the whole set: checkpoint, Gemma folder, upsampler and distilled LoRA.

    Args:
        folder: Made if it is not there; files of the same names are replaced. The bytes are the
            same each time.
        generation: Architecture of the networks.

    Returns:
        The files, as a spec names them.
    """
    tiny = GENERATIONS[generation]
    config = tiny.config
    folder.mkdir(parents=True, exist_ok=True)
    write_tiny_gemma(folder / _GEMMA, _SEED)
    gemma = json.loads((folder / _GEMMA / "config.json").read_text("utf-8"))["text_config"]
    text = TextConfig.model_validate(config["transformer"])
    vae = VideoVAEConfig.model_validate(config["vae"])
    audio = AudioVAEConfig.model_validate(config["audio_vae"])
    transformer = Transformer(TransformerConfig.model_validate(config["transformer"]))
    vocoder = make_vocoder(VocoderConfig.model_validate(config["vocoder"]))
    if isinstance(vocoder, BandwidthExtendedVocoder):
        _fill_bases(vocoder.mel_stft)
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
        (vocoder, keys.VOCODER),
    )
    # Layers of the video decoder that spread channels over space: gain, and channels per pixel.
    spreads = {
        f"vae.decoder.up_blocks.{block}.conv.conv.weight": (4.0, size)
        for block, size in tiny.spreads.items()
    }
    spreads["vae.decoder.conv_out.conv.weight"] = (0.6, 16)
    spreads |= {name: (gain, 1) for name, gain in tiny.gains.items()}
    tensors: dict[str, Tensor] = {}
    for module, rules in parts:
        tensors |= _weights(module, rules, spreads)
    _save(
        folder / tiny.checkpoint,
        tensors,
        {"config": json.dumps(config), "model_version": tiny.version, "format": "pt"},
    )
    upsampler = LatentUpsampler(UpsamplerConfig.model_validate(tiny.upsampler))
    _save(
        folder / tiny.upscaler,
        _weights(upsampler, keys.UPSAMPLER, {}),
        {"config": json.dumps(tiny.upsampler), "format": "pt"},
    )
    _save(folder / tiny.lora, _lora(transformer), {"format": "pt"})
    return tiny_spec(folder, generation)


def _fill_bases(mel: CausalMel) -> None:
    """Windowed Fourier bases and mel filters, which published files store."""
    n_fft = mel.stft_fn.forward_basis.shape[-1]
    window = torch.hann_window(n_fft, dtype=torch.float64)
    spectrum = torch.fft.rfft(torch.eye(n_fft, dtype=torch.float64)).T * window
    bases = torch.cat((spectrum.real, spectrum.imag))[:, None]
    mel.stft_fn.forward_basis = bases.float()
    mel.mel_basis = mel_filterbank(
        bins=mel.mel_basis.shape[0],
        frequencies=n_fft // 2 + 1,
        sample_rate_hz=16000,
        min_hz=0,
        max_hz=8000,
    ).T.float()


def _save(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    data = save(tensors, metadata)
    # With a header of our own: theirs has the metadata in an order that changes.
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:start]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)
    # Not save_file, whose files nobody but their owner can read.
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[start:])


def _weights(module: nn.Module, rules: keys.Rules, spreads: Spreads) -> dict[str, Tensor]:
    """Parameters drawn anew, buffers as the module made them, under the names of the file."""
    state = {keys.file_name(name, rules): buffer for name, buffer in module.named_buffers()}
    for name, parameter in module.named_parameters():
        key = keys.file_name(name, rules)
        state[key] = _draw(key, parameter.shape, spreads.get(key))
    return {
        key: tensor.to(torch.float32 if "scale_shift_table" in key else torch.bfloat16).contiguous()
        for key, tensor in state.items()
    }


def _draw(name: str, shape: torch.Size, spread: tuple[float, int] | None) -> Tensor:
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
    if spread:
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
