"""What is measured of scenes, and how those that look alike are found."""

import numpy as np
import pytest
import torch

from rayreel.media.footage import Footage, examine
from rayreel.media.measures import MEASURES, Excerpt, excerpts, measured, perceptual_hash
from tests.media.samples import write_video, write_wav


def footage(thumbs, **changes):
    thumbs = np.asarray(thumbs, np.uint8)
    facts = {"width": 64, "height": 36, "fps": 10.0, "duration_s": len(thumbs) / 10}
    return Footage(
        **{"kind": "video", "num_frames": len(thumbs), "thumbs": thumbs, **facts} | changes
    )


def noise(num_frames, seed=0):
    return np.random.default_rng(seed).integers(30, 256, (num_frames, 32, 32), np.uint8)


def look(seed):
    """A picture ``(1, H, W, 3)`` with soft shapes."""
    small = torch.rand(1, 3, 9, 16, generator=torch.Generator().manual_seed(seed))
    large = torch.nn.functional.interpolate(small, (144, 256), mode="bicubic").clamp(0, 1)
    return (large * 255).byte().movedim(1, -1)


def distance(one, other):
    return (int(one, 16) ^ int(other, 16)).bit_count()


def test_scenes_are_measured_one_by_one():
    dark = np.zeros((10, 32, 32))
    loudness = np.array([0.5] * 20 + [0.0] * 40, np.float32)
    film = footage(np.concatenate([noise(20), dark]), cuts=(0, 20), loudness=loudness, sound_s=2.5)
    first, second = map(measured, excerpts(film))
    assert first.keys() == MEASURES.keys()
    assert (first["num_frames"], first["duration_s"], first["fps"]) == (20, 2.0, 10)
    assert (first["black"], first["frozen"], first["silence"]) == (0, 0, 0.5)
    assert (second["black"], second["frozen"], second["silence"]) == (1, 1, 1)
    assert first["audio_mismatch_s"] == second["audio_mismatch_s"] == 0.5
    assert (first["has_audio"], first["width"], first["height"]) == (1, 64, 36)


def test_the_first_scenes_end_where_the_next_would_begin():
    film = footage(noise(30), cuts=(0, 7, 20))
    assert [(part.start, part.num_frames) for part in excerpts(film)] == [(0, 7), (7, 13), (20, 10)]
    assert [(part.start, part.num_frames) for part in excerpts(film, 2)] == [(0, 7), (7, 13)]


def test_frozen_frames_may_differ_by_the_noise_of_a_codec(tmp_path):
    still = look(1).expand(12, -1, -1, -1)
    moving = still.clone()
    for index in range(12):
        moving[index, 10:20, 20 * index : 20 * index + 10] = 255
    for name, frames, share in (("still", still, 1), ("moving", moving, 0)):
        path = tmp_path / f"{name}.mp4"
        write_video(path, frames, codec="libx264", pix_fmt="yuv420p")
        assert measured(excerpts(examine(path))[0])["frozen"] == share


def test_slow_motion_is_not_frozen():
    steps = np.arange(41)[:, None, None] // 2
    film = footage(np.broadcast_to(100 + steps, (41, 32, 32)))
    assert measured(excerpts(film)[0])["frozen"] == 0.75
    still = footage(np.broadcast_to(100 + steps % 2, (41, 32, 32)))
    assert measured(excerpts(still)[0])["frozen"] == 1


def test_almost_black_frames_are_black():
    thumbs = np.full((4, 32, 32), 10)
    thumbs[1, :2, :2] = 255
    thumbs[2, :8] = 255
    thumbs[3] = 40
    assert MEASURES["black"](Excerpt(footage=footage(thumbs), num_frames=4)) == 0.5


def test_time_without_sound_is_silent():
    film = footage(noise(20))
    assert measured(excerpts(film)[0])["silence"] == 1
    assert measured(excerpts(film)[0])["has_audio"] == 0
    assert measured(excerpts(film)[0])["audio_mismatch_s"] == 0
    short = footage(noise(20), loudness=np.full(10, 0.5, np.float32), sound_s=0.5)
    assert measured(excerpts(short)[0])["silence"] == 0.75


def test_sound_alone_is_measured_too(tmp_path):
    samples = np.zeros((16000, 1), np.int16)
    samples[:4000] = 8000
    write_wav(tmp_path / "a.wav", samples)
    (scene,) = excerpts(examine(tmp_path / "a.wav"))
    measures = measured(scene)
    assert (scene.start, scene.num_frames, measures["duration_s"]) == (0, 0, 2)
    assert (measures["silence"], measures["has_audio"], measures["frozen"]) == (0.75, 1, 0)
    assert perceptual_hash(scene.thumbs) == ""


@pytest.mark.parametrize("num_frames", [1, 2, 3, 4, 100])
def test_a_hash_has_256_bits_however_short_the_scene(num_frames):
    found = perceptual_hash(noise(num_frames))
    assert len(found) == 64
    assert distance(found, perceptual_hash(noise(num_frames))) == 0


def test_hashes_tell_what_looks_alike(tmp_path):
    frames = torch.stack([look(seed).expand(8, -1, -1, -1) for seed in (1, 2)])
    write_video(tmp_path / "a.mkv", frames[0])
    write_video(tmp_path / "b.mp4", frames[0, :, ::2, ::2], codec="libx264", pix_fmt="yuv420p")
    write_video(tmp_path / "c.mkv", frames[1])
    a, b, c = (
        perceptual_hash(examine(tmp_path / name).thumbs) for name in ("a.mkv", "b.mp4", "c.mkv")
    )
    assert distance(a, b) <= 16
    assert distance(a, c) > 64
