"""The stages of a render job one after the other, without Ray."""

import hashlib
from dataclasses import replace

import pytest

from rayreel.checkpoints.tiny import locate_model
from rayreel.config.jobs import ImageModelSpec, MemorySpec
from rayreel.data.ledger import Ledger
from rayreel.data.storage import Storage
from rayreel.media.audio import read_audio
from rayreel.media.image import load_image
from rayreel.pipelines import PIPELINE_CLASSES
from rayreel.pipelines.ledger import ledger_for
from rayreel.stages.base import ItemFailure, RenderItem, run_stage
from tests.pipelines.flux import write_tiny_flux
from tests.pipelines.small import DEVICE, PIPELINE_NAMES, pinned, small, small_resolved
from tests.stages.conftest import stages_in

MEMORY = MemorySpec()


@pytest.fixture(scope="module")
def stages(folder):
    return stages_in(folder)


def item(name, **fields):
    files = ledger_for("tiny", DEVICE, MEMORY).files
    return RenderItem(item_id=name, request=small_resolved(files, **fields))


def chained(stages, results):
    for stage in stages:
        results = run_stage(stage, results)
    return results


@pytest.mark.parametrize("name", PIPELINE_NAMES)
def test_stages_give_the_clip_of_the_pipeline(stages, folder, name):
    (done,) = chained(stages, [item(name, pipeline=name)])
    clip = PIPELINE_CLASSES[name](ledger_for("tiny", DEVICE, MEMORY))(small(pipeline=name))
    assert done.output.sha256 == hashlib.sha256(clip.frames.numpy().data).hexdigest()
    assert (folder / done.output.path).stat().st_size == done.output.num_bytes
    assert [stage for stage, _ in done.seconds] == ["stage1", "stage2", "decode"]


def test_a_finished_item_carries_no_tensors(stages):
    (done,) = chained(stages, [item("light", pipeline="distilled")])
    assert done.latents is None


def test_a_missing_image_costs_its_item_alone(stages, folder, tmp_path):
    images = (pinned(tmp_path / "missing.png"),)
    batch = [item("blind", images=images), item("quick", pipeline="distilled"), item("seeing")]
    failed, quick, seeing = chained(stages, batch)
    assert isinstance(failed, ItemFailure)
    assert (failed.stage, failed.error) == ("stage1", "MediaError")
    assert "missing.png" in failed.message
    entries = Ledger(Storage(folder)).read()
    assert "blind" not in entries
    for done in (quick, seeing):
        assert entries[done.item_id].sha256 == done.output.sha256


@pytest.fixture(scope="module")
def ready(stages):
    """An item that is only to be decoded."""

    def named(name):
        return chained(stages[:-1], [item(name, pipeline="distilled")])

    return named


@pytest.mark.parametrize("compacted", [False, True])
def test_an_item_that_is_seen_twice_is_written_once(stages, folder, ready, compacted):
    name = f"again-{compacted}"
    todo = ready(name)
    (once,) = chained(stages[-1:], todo)
    path, entry = folder / once.output.path, Ledger(Storage(folder)).find(name)
    written = path.stat().st_mtime_ns
    if compacted:
        Ledger(Storage(folder)).compact()
    (twice,) = chained(stages[-1:], [replace(todo[0], attempt=2)])
    assert twice.output == once.output
    assert twice.latents is None
    assert path.stat().st_mtime_ns == written
    assert Ledger(Storage(folder)).find(name) == entry


def test_a_clip_without_a_line_is_written_again(stages, folder, ready):
    todo, path = ready("cut-off"), folder / "videos" / "cut-off.mp4"
    path.write_bytes(b"of a try that was killed before it wrote its line")
    (done,) = chained(stages[-1:], todo)
    assert path.stat().st_size == done.output.num_bytes
    assert Ledger(Storage(folder)).read()["cut-off"].sha256 == done.output.sha256


def test_of_two_that_replace_a_clip_the_first_line_counts(stages, folder, ready, monkeypatch):
    """The line of the other appears after both have seen that there is none."""
    todo = ready("race")
    (folder / "videos" / "race.mp4").write_bytes(b"")
    (other,) = chained(stages[-1:], ready("other"))
    faster = Ledger(Storage(folder)).read()["other"].model_copy(update={"item_id": "race"})
    find, asked = Ledger.find, []

    def late(self, item_id):
        asked.append(item_id)
        found = find(self, item_id)
        if len(asked) == 1:
            assert self.append(faster)
        return found

    monkeypatch.setattr(Ledger, "find", late)
    (done,) = chained(stages[-1:], todo)
    assert done.output == other.output
    assert Ledger(Storage(folder)).read()["race"] == faster


def test_a_single_frame_of_an_image_model_becomes_a_picture(folder, tmp_path):
    """Beside clips of the video model, which it passes by."""
    spec = locate_model("tiny").model_copy(
        update={"image_model": ImageModelSpec(folder=str(write_tiny_flux(tmp_path)), steps=1)}
    )
    stages = stages_in(folder, model=spec)
    files = ledger_for(spec, DEVICE, MEMORY).files
    fields = {"width": 64, "height": 64, "num_frames": 1}
    still = RenderItem(
        item_id="still", request=small_resolved(files, pipeline="image", audio=False, **fields)
    )
    picture, clip = chained(stages, [still, item("beside", pipeline="one_stage")])
    assert picture.output.path == "images/still.png"
    assert load_image(folder / picture.output.path).shape == (64, 64, 3)
    assert clip.output.path == "videos/beside.mp4"
    assert Ledger(Storage(folder)).read()["still"].num_frames == 1


@pytest.mark.parametrize("name", ["wav", "m4a"])
def test_sound_alone_becomes_a_sound_file(stages, folder, name):
    request = {"pipeline": "text_to_audio", "video": False, "audio_format": name}
    (done,) = chained(stages, [item(f"sound-{name}", **request)])
    assert done.output.path == f"sounds/sound-{name}.{name}"
    heard = read_audio(folder / done.output.path)
    assert heard is not None
    assert heard.waveform.std() > 0
    assert Ledger(Storage(folder)).read()[f"sound-{name}"].num_frames == 0
