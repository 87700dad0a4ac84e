"""Lists of generated clips for encode jobs: files with sound, all of them different."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F

from rayreel.config.buckets import Bucket
from rayreel.media.mux import write_clip
from rayreel.types import Audio, Clip

_FPS = 25.0
_RATE_HZ = 48000
_CAPTION = (40, 400)
_LETTERS = "abcdefghijklmnopqrstuvwxyz     "


def write_clips(folder: Path, sources: Sequence[Bucket], clips: int) -> Path:
    """Write clips, and a list of them.

    Args:
        folder: Where to; it may be missing.
        sources: Sizes that clips have by turns.
        clips: How many.

    Returns:
        The list; each clip has a caption of its own, of 40 to 400 letters.
    """
    folder.mkdir(parents=True, exist_ok=True)
    random = Random(0)
    rows = []
    for index in range(clips):
        name = f"{index:05}.mp4"
        write_clip(folder / name, _clip(sources[index % len(sources)], index))
        letters = "".join(random.choices(_LETTERS, k=random.randint(*_CAPTION)))
        rows.append({"video": name, "caption": f"Take {index}: {letters}."})
    path = folder / "list.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    return path


def _clip(size: Bucket, index: int) -> Clip:
    """Soft colours that turn into others, and a tone."""
    generator = torch.Generator().manual_seed(index)
    spots = torch.rand(2, 3, 9, 16, generator=generator)
    first, last = F.interpolate(255 * spots, (size.height, size.width), mode="bilinear")
    share = torch.linspace(0, 1, size.num_frames)[:, None, None, None]
    frames = torch.lerp(first, last, share).to(torch.uint8).permute(0, 2, 3, 1)
    time_s = torch.arange(round(size.num_frames / _FPS * _RATE_HZ)) / _RATE_HZ
    tone = 0.3 * torch.sin(2 * math.pi * (110 + index % 1000) * time_s)
    audio = Audio(waveform=torch.stack([tone, tone]), sample_rate_hz=_RATE_HZ)
    return Clip(frames=frames.contiguous(), fps=_FPS, audio=audio)
