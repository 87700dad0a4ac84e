"""Decoding streams: what it holds in memory, and what it leaves behind when it fails."""

import os
import subprocess
import sys
from typing import Any

import pytest
import torch

from rayreel.config.jobs import MemorySpec
from rayreel.data.ledger import Ledger
from rayreel.data.storage import Storage
from rayreel.models.tiling import TileSizeConfig
from rayreel.models.video_vae.fitting import auto_tiling
from rayreel.pipelines.decoding import decode
from rayreel.stages.base import ItemFailure, RenderItem
from rayreel.stages.decode import DecodeStage
from rayreel.types import Latents, seeded_generator
from tests.pipelines.small import DEVICE, small_resolved

MIB = 2**20

# Tiles of 32 frames are alike in both clips; half of the tiles of 80 frames would be cut short.
PEAKS = """
import resource
import sys
from pathlib import Path

import pytest
import torch

from rayreel.media.mux import write_clip
from rayreel.models.tiling import DimensionSizeConfig, TileSizeConfig
from rayreel.pipelines.decoding import decode
from rayreel.types import Latents
from tests.pipelines.small import small_resolved, tiny_ledger

torch.set_num_threads(1)
ledger = tiny_ledger()
whole = DimensionSizeConfig()
tiles = DimensionSizeConfig(tile_size=32, overlap=8)
tiling = TileSizeConfig(frames=tiles, height=whole, width=whole)
for frames in (121, 481):
    request = small_resolved(ledger.files, width=160, height=160, num_frames=frames)
    latents = Latents(video=torch.randn(16, (frames - 1) // 8 + 1, 5, 5), audio=None)
    write_clip(Path(sys.argv[1]), decode(ledger, request, latents, tiling=tiling))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def random_latents(frames: int = 9, height: int = 64, width: int = 128) -> Latents:
    shape = (16, (frames - 1) // 8 + 1, height // 32, width // 32)
    return Latents(video=torch.randn(shape, generator=seeded_generator(0, "latents")), audio=None)


def test_memory_does_not_grow_with_the_number_of_frames(tmp_path, repository):
    """The 360 frames that the second clip has more than the first would take 26 MiB."""
    # A fixed threshold returns every tensor's memory at once, so that the peak is that of the code.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(128 * 2**10)}
    command = [sys.executable, "-c", PEAKS, str(tmp_path / "a.mp4")]
    done = subprocess.run(
        command, cwd=repository, env=environment, capture_output=True, text=True, check=True
    )
    short, long = map(int, done.stdout.split())
    assert long - short < 8 * MIB


def test_chunks_are_as_many_frames_as_announced(ledger):
    request = small_resolved(ledger.files, num_frames=121)
    clip = decode(ledger, request, random_latents(121))
    chunks = list(clip.frames)
    assert sum(map(len, chunks)) == clip.num_frames == 121
    assert max(map(len, chunks)) <= 8


def test_whole_clips_can_be_decoded_in_one_tile(ledger):
    request = small_resolved(ledger.files, num_frames=121)
    latents: Any = random_latents(121)
    whole = decode(ledger, request, latents, tiling=TileSizeConfig.whole()).collect()
    with ledger.video_decoder() as decoder:
        decoded = decoder(latents.video[None])[0]
    levels = ((decoded + 1) * 127.5).clamp(0, 255).byte()
    assert torch.equal(whole.frames, levels.permute(1, 2, 3, 0))


def failing_after(calls: int, decoder: torch.nn.Module) -> Any:
    forward = decoder.forward
    left = iter(range(calls))

    def call(*args: Any, **kwargs: Any) -> Any:
        if next(left, None) is None:
            raise ZeroDivisionError
        return forward(*args, **kwargs)

    return call


def test_a_clip_that_fails_on_the_way_leaves_no_file(tmp_path, monkeypatch, ledger):
    stage = DecodeStage("tiny", DEVICE, MemorySpec(), str(tmp_path))
    stage.setup()
    with stage._models.video_decoder() as decoder:
        monkeypatch.setattr(decoder, "forward", failing_after(1, decoder))
    request = small_resolved(ledger.files, num_frames=121)
    item = RenderItem(item_id="half", request=request, latents=random_latents(121))
    (failed,) = stage([item])
    assert isinstance(failed, ItemFailure)
    assert failed.error == "ZeroDivisionError"
    assert not list((tmp_path / "videos").iterdir())
    assert not Ledger(Storage(str(tmp_path))).read()


def test_a_full_device_is_decoded_on_in_smaller_tiles(ledger, monkeypatch, caplog):
    request = small_resolved(ledger.files, num_frames=121, width=512, height=256)
    latents = random_latents(121, height=256, width=512)
    decode(ledger, request, latents).collect()
    assert not caplog.records
    monkeypatch.setattr("rayreel.pipelines.decoding.usable_memory", lambda _: 200 * MIB)
    tight = decode(ledger, request, latents).collect()
    assert "smaller than the usual ones: 0.20 GiB of cpu memory" in caplog.text
    tiles = auto_tiling(ledger.files.video_vae, (16, 8, 16), free_bytes=200 * MIB, itemsize=4)
    assert torch.equal(
        tight.frames, decode(ledger, request, latents, tiling=tiles).collect().frames
    )


def test_a_device_that_holds_no_tile_is_refused(ledger, monkeypatch):
    monkeypatch.setattr("rayreel.pipelines.decoding.usable_memory", lambda _: MIB)
    request = small_resolved(ledger.files, num_frames=121)
    with pytest.raises(MemoryError, match=r"the smallest tiles, .* need"):
        decode(ledger, request, random_latents(121)).collect()
