"""Chunks of long clips in the run directory, and the stages that leave and find them there."""

import hashlib
import json
from typing import Any
from uuid import uuid4

import pytest
import torch
from safetensors.torch import load_file

from rayreel.config.conditions import Extension
from rayreel.config.jobs import MemorySpec
from rayreel.data.ledger import Ledger
from rayreel.data.storage import Storage
from rayreel.pipelines import PIPELINE_CLASSES
from rayreel.pipelines.chain import FinishedChunk
from rayreel.pipelines.chunks import ClipEnd, plan_chunks
from rayreel.pipelines.ledger import ledger_for
from rayreel.stages.base import ItemFailure, RenderItem, run_stage
from rayreel.stages.chunks import StoredChunks, chunk_name, latents_at
from rayreel.types import Latents
from tests.pipelines.small import DEVICE, small, small_resolved
from tests.stages.conftest import stages_in

MEMORY = MemorySpec()
LONG = {"width": 64, "height": 64, "num_frames": 57, "chain": {"chunk_frames": 25}}


@pytest.fixture(params=["folder", "memory"])
def storage(request, tmp_path):
    return Storage(tmp_path if request.param == "folder" else f"memory://{uuid4().hex}")


def chunk(reaches=(), **fields):
    latents = Latents(video=torch.randn(4, 3, 2, 2), audio=torch.randn(2, 9, 4))
    return FinishedChunk(**{"latents": latents, "prompt": "A fox.", "reaches": reaches, **fields})


@pytest.mark.parametrize("note", [None, "written without the image"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_chunk_comes_back_as_it_was_saved(storage, dtype, note):
    store = StoredChunks(storage, Ledger(storage), "clip")
    # A view of a larger tensor, as pipelines return them.
    video = torch.randn(2, 4, 3, 2, 2).to(dtype)[1].movedim(0, 1)
    saved = chunk(("start", "end"), latents=Latents(video=video, audio=None), note=note)
    store.save(0, saved)
    loaded: Any = store.load(0)
    assert torch.equal(loaded.latents.video, video)
    assert loaded.latents.audio is None
    assert (loaded.prompt, loaded.note) == ("A fox.", note)
    assert loaded.reaches == ("start", "end")


def test_a_chunk_that_is_not_there_is_none(storage):
    store = StoredChunks(storage, Ledger(storage), "clip")
    store.save(0, chunk())
    assert store.load(1) is None
    assert StoredChunks(storage, Ledger(storage), "other").load(0) is None


def test_the_line_of_a_chunk_says_what_is_in_its_file(storage):
    StoredChunks(storage, Ledger(storage), "clip", attempt=2).save(3, chunk())
    (entry,) = Ledger(storage).read().values()
    assert (entry.item_id, entry.attempt, entry.status) == ("clip-0003", 2, "done")
    data = storage.read_bytes(str(entry.output))
    assert entry.sha256 == hashlib.sha256(data).hexdigest()
    assert entry.num_bytes == len(data)


class CrashError(Exception):
    """Where a process died."""


class CrashingLedger(Ledger):
    """Dies before it writes."""

    def append(self, entry):
        del entry
        raise CrashError


class CrashingStorage(Storage):
    """The same."""

    def create_bytes(self, name, data):
        del name, data
        raise CrashError


def test_a_line_is_written_when_its_file_is_there(tmp_path):
    storage = Storage(tmp_path)
    with pytest.raises(CrashError):
        StoredChunks(storage, CrashingLedger(storage), "clip").save(0, chunk())
    assert storage.exists(chunk_name("clip", 0))
    with pytest.raises(CrashError):
        StoredChunks(CrashingStorage(tmp_path), Ledger(storage), "clip").save(1, chunk())
    assert not Ledger(storage).read()


def cut_off(storage: Storage) -> bytes:
    """A chunk of a try that died before it wrote the line."""
    StoredChunks(storage, Ledger(storage), "other").save(0, chunk())
    data = storage.read_bytes(chunk_name("other", 0))
    storage.write_bytes(chunk_name("clip", 0), data)
    return data


def test_a_chunk_without_a_line_is_taken_over_with_a_line(storage):
    data = cut_off(storage)
    for _ in range(2):
        assert StoredChunks(storage, Ledger(storage), "clip", attempt=2).load(0) is not None
    entry: Any = Ledger(storage).find("clip-0000")
    assert (entry.attempt, entry.output) == (2, chunk_name("clip", 0))
    assert (entry.sha256, entry.num_bytes) == (hashlib.sha256(data).hexdigest(), len(data))


def test_a_chunk_without_a_line_is_replaced_by_one_that_is_saved(storage):
    data = cut_off(storage)
    StoredChunks(storage, Ledger(storage), "clip").save(0, chunk())
    there = storage.read_bytes(chunk_name("clip", 0))
    assert there != data
    entry: Any = Ledger(storage).find("clip-0000")
    assert entry.sha256 == hashlib.sha256(there).hexdigest()


@pytest.mark.parametrize("compacted", [False, True])
def test_a_chunk_with_a_line_stays(storage, compacted):
    StoredChunks(storage, Ledger(storage), "clip").save(0, chunk())
    data, before = storage.read_bytes(chunk_name("clip", 0)), Ledger(storage).read()
    if compacted:
        Ledger(storage).compact()
    StoredChunks(storage, Ledger(storage), "clip", attempt=2).save(0, chunk())
    assert storage.read_bytes(chunk_name("clip", 0)) == data
    assert Ledger(storage).read() == before


@pytest.mark.parametrize(
    ("reaches", "start", "end"),
    [
        ([("start", "end")], 0, 0),
        ([("start",), (), ("end",)], 0, 2),
        ([(), (), ("end",)], None, 2),
        ([(), (), ("start",)], 2, None),
        ([("start",), ()], 0, None),
        ([], None, None),
    ],
    ids=["plain", "chain", "forward", "backward", "cut-off", "none"],
)
def test_latents_of_an_end_lie_where_a_chunk_reaches_it(storage, reaches, start, end):
    store = StoredChunks(storage, Ledger(storage), "clip")
    for index, ends in enumerate(reaches):
        store.save(index, chunk(ends))
    found = [latents_at(storage, "clip", "start"), latents_at(storage, "clip", "end")]
    names = [None if i is None else chunk_name("clip", i) for i in (start, end)]
    assert found == [name and storage.join(name) for name in names]


@pytest.fixture(scope="module")
def stages(folder):
    return stages_in(folder, keep_latents=True)


def rendered(stages, name, **fields):
    files = ledger_for("tiny", DEVICE, MEMORY).files
    results: Any = [RenderItem(item_id=name, request=small_resolved(files, **{**LONG, **fields}))]
    for stage in stages:
        results = run_stage(stage, results)
    return results[0]


@pytest.mark.parametrize("name", ["one_stage", "distilled"])
def test_stages_give_the_long_clip_of_the_pipeline(stages, folder, name):
    done = rendered(stages, name, pipeline=name)
    clip = PIPELINE_CLASSES[name](ledger_for("tiny", DEVICE, MEMORY))(small(pipeline=name, **LONG))
    assert done.output.sha256 == hashlib.sha256(clip.frames.numpy().data).hexdigest()
    assert done.latents is None
    lines = [entry for entry in Ledger(Storage(folder)).read() if entry.startswith(name)]
    assert sorted(lines) == [name, *(f"{name}-{index:04d}" for index in range(3))]


def test_a_second_try_renders_the_chunks_that_are_missing(stages, folder):
    first = rendered(stages, "again", pipeline="distilled")
    chunks = [folder / chunk_name("again", index) for index in range(3)]
    before = [path.read_bytes() for path in chunks]
    times = [path.stat().st_mtime_ns for path in chunks]
    chunks[2].unlink()
    second = rendered(stages, "again", pipeline="distilled")
    assert second.output.sha256 == first.output.sha256
    assert [path.read_bytes() for path in chunks] == before
    assert [path.stat().st_mtime_ns for path in chunks[:2]] == times[:2]


def test_a_chain_that_fails_keeps_the_chunks_before(stages, folder, tmp_path):
    images = [{"path": str(tmp_path / "missing.png"), "frame": 50}]
    failed = rendered(stages, "blind", pipeline="distilled", images=images)
    assert isinstance(failed, ItemFailure)
    assert (failed.stage, failed.error) == ("stage1", "MediaError")
    there = [(folder / chunk_name("blind", index)).exists() for index in range(3)]
    assert there == [True, True, False]
    assert "blind" not in Ledger(Storage(folder)).read()


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("num_frames", [17, 57])
def test_clips_of_a_run_are_made_longer_from_their_latents(stages, folder, num_frames, direction):
    storage = Storage(folder)
    first = rendered(stages, f"first{num_frames}", pipeline="one_stage", num_frames=num_frames)
    end: ClipEnd = "end" if direction == "forward" else "start"
    latents = latents_at(storage, first.item_id, end)
    path = str(folder / first.output.path)
    extend = Extension(path=path, latents=latents, direction=direction)
    name, chain = f"{direction}{num_frames}", {"chunk_frames": 33}
    fields = {"num_frames": 32, "extend": extend, "chain": chain}
    longer = rendered(stages, name, pipeline="one_stage", **fields)
    assert longer.output.path == f"videos/{name}.mp4"
    assert latents is not None
    kept, new = (load_file(path)["video"] for path in (latents, folder / chunk_name(name, 0)))
    if direction == "forward":
        assert torch.equal(new[:, :2], kept[:, -2:])
    else:
        assert torch.equal(new[:, -2:], kept[:, 1:3])
    # And so on: the last of two chunks reaches the new end.
    reaching = str(folder / chunk_name(name, 1))
    assert latents_at(storage, name, end) == reaching
    # Where more are asked for than it has, frames have to do.
    there = load_file(reaching)["video"].shape[1]
    assert latents_at(storage, name, end, least=there) == reaching
    assert latents_at(storage, name, end, least=there + 1) is None


def test_prompts_that_a_chain_could_not_write_are_noted_once(stages, folder):
    done = rendered(stages, "plain", pipeline="distilled", enhance=True)
    (note,) = done.notes
    assert "no chat template" in note
    assert done.prompts == ()
    request = small_resolved(ledger_for("tiny", DEVICE, MEMORY).files, **LONG)
    assert len(plan_chunks(request, 8)) == 3
    for index in range(3):
        data = (folder / chunk_name("plain", index)).read_bytes()
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        assert json.loads(header["__metadata__"]["chunk"])["note"] == note
