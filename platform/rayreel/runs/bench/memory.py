"""Memory of a process, measured in one that does nothing else. Needs Linux."""

import gc
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from rayreel.config.request import RenderRequest
from rayreel.models.tiling import TileSizeConfig
from rayreel.models.video_vae import VideoDecoder, tiled_decode, to_rgb
from rayreel.pipelines import TwoStage
from rayreel.pipelines.devices import Device
from rayreel.pipelines.ledger import ModelLedger
from rayreel.runs.bench.networks import Line, video_vae_config
from rayreel.runs.bench.spec import DecodeMemoryCase, RenderMemoryCase

P = ParamSpec("P")
R = TypeVar("R")

_STATUS = Path("/proc/self/status")


def measure_decode(case: DecodeMemoryCase) -> list[Line]:
    """Peaks above what the network itself takes, for each number of frames."""
    return [
        {
            "frames": frames,
            **{
                f"{way}_peak_mib": in_own_process(_decode_peak, case, frames, way == "tiled")
                for way in ("tiled", "untiled")
            },
        }
        for frames in case.video_frames
    ]


def measure_renders(case: RenderMemoryCase) -> Line:
    """Memory after the first renders and after the last."""
    before, after = in_own_process(_render_sizes, case)
    return {"warm_mib": before, "end_mib": after, "growth": round(after / before - 1, 4)}


def in_own_process(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """What a function of a module gives in a process that has done nothing before."""
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args, **kwargs).result()


@torch.inference_mode()
def _decode_peak(case: DecodeMemoryCase, frames: int, in_tiles: bool) -> int:
    config = video_vae_config("2.0", case.base_channels)
    decoder = VideoDecoder(config).eval()

    def decode(latent_frames: int) -> Iterable[Tensor]:
        latent = torch.randn(1, config.latent_channels, latent_frames, case.height, case.width)
        return tiled_decode(decoder, latent, TileSizeConfig()) if in_tiles else [decoder(latent)]

    def consume(chunks: Iterable[Tensor]) -> None:
        for chunk in chunks:
            to_rgb(chunk)

    consume(decode(1))
    before = _status_mib("VmRSS")
    consume(decode((frames - 1) // config.time_factor + 1))
    return _status_mib("VmHWM") - before


def _render_sizes(case: RenderMemoryCase) -> tuple[int, int]:
    pipeline = TwoStage(ModelLedger("tiny", Device("cpu", "float32", reason="as measured")))
    request = RenderRequest(
        prompt="rain on a tin roof", width=128, height=64, num_frames=17, steps=2, seed=0
    )
    sizes = []
    for _ in range(case.renders):
        pipeline(request)
        gc.collect()
        sizes.append(_status_mib("VmRSS"))
    return sizes[case.warm_up - 1], sizes[-1]


def _status_mib(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB$", _STATUS.read_text("ascii"), re.MULTILINE)
    assert found
    return int(found[1]) // 1024
