"""Times our transformer against diffusers' in one process, so that the ratio holds on any machine.

    python jobs/bench.py manifests/bench/transformer.yaml

Prints one JSON line per case: seconds of the fastest of some calls, GFLOP/s, and the ratio. Needs
the `dev` extra, which has diffusers.
"""

import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch
import typer
from diffusers.models.transformers.transformer_ltx2 import LTX2VideoTransformer3DModel
from pydantic import Field
from torch.utils.flop_counter import FlopCounterMode

from rayreel.config.base import StrictModel
from rayreel.config.load import load_spec
from rayreel.config.model import TransformerConfig
from rayreel.config.presets import TINY_CONFIG
from rayreel.diffusion.patchifiers import audio_positions, video_positions
from rayreel.models.transformer import Transformer
from rayreel.types import AudioLatentShape, Modality, ScaleFactors, VideoLatentShape

_HEADS = 8
_CHANNELS = 128


class Case(StrictModel):
    """Sizes of one comparison."""

    layers: int = Field(description="transformer blocks")
    width: int = Field(description="of the video stream; the audio stream is half as wide")
    video_tokens: int
    audio_tokens: int
    text_tokens: int


class BenchSpec(StrictModel):
    """Comparisons to make."""

    repeats: int = Field(default=5, description="the fastest call counts")
    cases: tuple[Case, ...]


def main(spec: Path) -> None:
    """Run the comparisons of a spec.

    Example: python jobs/bench.py manifests/bench/transformer.yaml
    """
    bench = load_spec(spec, BenchSpec)
    for case in bench.cases:
        config = _config(case)
        ours, theirs = Transformer(config).eval(), _diffusers(config)
        video, audio = _streams(case, config)
        calls: dict[str, Callable[[], object]] = {
            "ours": lambda: ours(video, audio),  # noqa: B023 - called within this turn of the loop
            "diffusers": lambda: _call(theirs, video, audio),  # noqa: B023 - likewise
        }
        with torch.inference_mode():
            with FlopCounterMode(display=False) as counter:
                calls["ours"]()
            seconds = {name: _fastest(call, bench.repeats) for name, call in calls.items()}
        line = {
            **case.model_dump(),
            "seconds": round(seconds["ours"], 4),
            "gflop_per_s": round(counter.get_total_flops() / seconds["ours"] / 1e9, 1),
            "diffusers_seconds": round(seconds["diffusers"], 4),
            "speed_up": round(seconds["diffusers"] / seconds["ours"], 2),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "machine": platform.machine(),
        }
        print(json.dumps(line))


def _config(case: Case) -> TransformerConfig:
    head = case.width // _HEADS
    return TransformerConfig.model_validate(
        TINY_CONFIG["transformer"]
        | {
            "num_layers": case.layers,
            "num_attention_heads": _HEADS,
            "attention_head_dim": head,
            "audio_num_attention_heads": _HEADS,
            "audio_attention_head_dim": head // 2,
            "in_channels": _CHANNELS,
            "out_channels": _CHANNELS,
            "audio_in_channels": _CHANNELS,
            "audio_out_channels": _CHANNELS,
            "cross_attention_dim": case.width,
            "audio_cross_attention_dim": case.width // 2,
            "caption_channels": case.width,
        }
    )


def _diffusers(config: TransformerConfig) -> torch.nn.Module:
    model: torch.nn.Module = LTX2VideoTransformer3DModel(
        num_layers=config.num_layers,
        num_attention_heads=config.num_attention_heads,
        attention_head_dim=config.attention_head_dim,
        cross_attention_dim=config.cross_attention_dim,
        audio_num_attention_heads=config.audio_num_attention_heads,
        audio_attention_head_dim=config.audio_attention_head_dim,
        audio_cross_attention_dim=config.audio_cross_attention_dim,
        caption_channels=config.caption_channels,
        rope_type="split",
    )
    return model.eval()


def _streams(case: Case, config: TransformerConfig) -> tuple[Modality, Modality]:
    video_shape = VideoLatentShape(
        batch=1, channels=_CHANNELS, frames=case.video_tokens // 48, height=6, width=8
    )
    audio_shape = AudioLatentShape(batch=1, channels=8, frames=case.audio_tokens, bins=16)
    positions = (
        video_positions(video_shape, fps=24, factors=ScaleFactors()),
        audio_positions(audio_shape),
    )
    video, audio = (
        Modality(
            latent=torch.randn(1, at.shape[2], _CHANNELS),
            sigma=torch.full((1,), 0.7),
            timesteps=torch.full((1, at.shape[2], 1), 0.7),
            positions=at,
            context=torch.randn(1, case.text_tokens, config.caption_channels or 0),
        )
        for at in positions
    )
    return video, audio


def _call(model: torch.nn.Module, video: Modality, audio: Modality) -> object:
    return model(
        hidden_states=video.latent,
        audio_hidden_states=audio.latent,
        encoder_hidden_states=video.context,
        audio_encoder_hidden_states=audio.context,
        timestep=video.timesteps[..., 0] * 1000,
        audio_timestep=audio.timesteps[..., 0] * 1000,
        sigma=video.sigma * 1000,
        audio_sigma=audio.sigma * 1000,
        video_coords=video.positions,
        audio_coords=audio.positions,
        return_dict=False,
    )


def _fastest(call: Callable[[], object], repeats: int) -> float:
    call()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


if __name__ == "__main__":
    typer.run(main)
