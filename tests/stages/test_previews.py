"""Pictures while clips are denoised: learned from clips before, with no say in the result."""

import io

import pytest
import torch
from PIL import Image

from rayreel.config.jobs import MemorySpec
from rayreel.media.video import read_clip
from rayreel.stages import life, previews
from rayreel.stages.base import RenderItem
from rayreel.stages.decode import DecodeStage
from rayreel.stages.denoise import GenerateStage, RefineStage
from tests.pipelines.small import DEVICE, small_resolved, tiny_ledger

FILES = tiny_ledger().files


@pytest.fixture(autouse=True)
def signs():
    """Signs of life that have pictures."""
    heard = []
    life.listen(lambda sign: heard.append(sign) if sign.pictures else None)
    yield heard
    life.listen(lambda _: None)


@pytest.fixture
def every_step(monkeypatch):
    monkeypatch.setattr(previews, "_EVERY_S", 0.0)


def item(seed, **fields):
    size = {"width": 192, "height": 128, "num_frames": 9} | fields
    request = small_resolved(FILES, seed=seed, pipeline="one_stage", **size)
    return RenderItem(item_id=f"item-{seed}", request=request)


def ready(stage):
    stage.setup()
    return stage


def generator(folder, *, shows=True):
    return ready(
        GenerateStage("tiny", DEVICE, MemorySpec(), str(folder), str(folder), previews=shows)
    )


def decoder(folder, *, learns=True):
    store = str(folder) if learns else None
    return ready(DecodeStage("tiny", DEVICE, MemorySpec(), str(folder), previews=store))


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A service directory in which three clips were decoded."""
    folder = tmp_path_factory.mktemp("service")
    decode, generate = decoder(folder), generator(folder)
    done = decode(generate([item(seed) for seed in range(3)]))
    assert all(isinstance(one, RenderItem) for one in done)
    # Sums are written with the first clip, and then not for a minute.
    decode._teacher.file.write(decode._teacher._sums)
    return folder


def known(folder):
    sums = previews.ProjectionFile(str(folder), FILES).read()
    assert sums is not None
    return sums


def test_a_preview_looks_like_the_clip(taught):
    (made,) = generator(taught)([item(9)])
    (done,) = decoder(taught, learns=False)([made])
    projection = known(taught).solved()
    preview = projection(made.latents.video[:, 1]).float()
    frames = read_clip(taught / done.output.path).frames[1:9].float()
    cells = frames.mean(0).reshape(4, 32, 6, 32, 3).mean((1, 3))
    both = torch.stack((preview.flatten(), cells.flatten()))
    assert torch.corrcoef(both)[0, 1] > 0.5


def test_each_item_of_a_batch_is_shown(taught, signs, every_step):
    generator(taught)([item(4), item(5)])
    # Steps that are done, as signs of life count them.
    assert [(sign.phase, sign.step, sign.steps) for sign in signs] == [
        ("stage1", 0, 2),
        ("stage1", 1, 2),
    ]
    for sign in signs:
        assert [name for name, _ in sign.pictures] == ["item-4", "item-5"]
        for _, data in sign.pictures:
            picture = Image.open(io.BytesIO(data))
            assert (picture.format, picture.size) == ("WEBP", (132, 88))
            assert len(data) < 5000


def test_a_second_stage_is_shown_too(taught, signs, every_step):
    request = small_resolved(FILES, seed=1, pipeline="two_stage")
    store = str(taught)
    refine = ready(RefineStage("tiny", DEVICE, MemorySpec(), store, previews=True))
    refine(generator(taught, shows=False)([RenderItem(item_id="item-1", request=request)]))
    assert {sign.phase for sign in signs} == {"stage2"}


def test_pictures_come_once_in_a_while(taught, signs, monkeypatch):
    monkeypatch.setattr(previews, "_EVERY_S", 3600.0)
    generate = generator(taught)
    for _ in range(2):
        generate([item(4, num_frames=1, width=64, height=64, steps=8)])
    assert [sign.step for sign in signs] == [0, 0]


def test_clips_are_the_same_to_the_bit(taught, signs, every_step):
    (shown,) = generator(taught)([item(6)])
    assert signs
    (alone,) = generator(taught, shows=False)([item(6)])
    assert torch.equal(shown.latents.video, alone.latents.video)
    assert torch.equal(shown.latents.audio, alone.latents.audio)


def test_a_fresh_service_shows_nothing_and_goes_on(tmp_path, signs, every_step):
    (made,) = generator(tmp_path)([item(1)])
    assert made.latents is not None
    assert not signs


def test_a_file_that_cannot_be_read_is_told_and_stops_nothing(tmp_path, signs, every_step, caplog):
    generate = generator(tmp_path)
    file = previews.ProjectionFile(str(tmp_path), FILES)
    file._storage.write_bytes(file._name, b"torn")
    (made,) = generate([item(1)])
    assert made.latents is not None
    assert "no previews for now" in caplog.text
    assert not signs


def test_who_learns_goes_on_from_what_is_there(taught):
    file = previews.ProjectionFile(str(taught), FILES)
    before = known(taught)
    teacher = previews.Teacher(file, FILES)
    colours = teacher.watch(torch.zeros(len(before.latents) - 1, 1, 1, 1))
    colours.see(torch.zeros(1, 32, 32, 3, dtype=torch.uint8))
    teacher.learn(colours)
    assert known(taught).latents[-1, -1] == before.latents[-1, -1] + 1


def test_a_render_job_learns_nothing(tmp_path):
    made = item(1, num_frames=1, width=64, height=64)
    decoder(tmp_path, learns=False)(generator(tmp_path, shows=False)([made]))
    assert not (tmp_path / "previews").exists()


def test_clips_without_a_picture_teach_nothing(tmp_path):
    request = small_resolved(FILES, pipeline="text_to_audio", video=False)
    sound = RenderItem(item_id="sound", request=request)
    (done,) = decoder(tmp_path)(generator(tmp_path)([sound]))
    assert done.output is not None
    assert not (tmp_path / "previews").exists()
