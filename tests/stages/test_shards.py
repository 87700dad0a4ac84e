"""The shards pass: finished samples in the store become files, and lines of the ledger."""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.tiny import locate_model
from rayreel.config.buckets import Bucket
from rayreel.data.columns import SampleInfo
from rayreel.data.dataset import SHARDS, ShardInfo
from rayreel.data.ledger import Ledger
from rayreel.data.samples import Mask
from rayreel.data.shards import OpenShard
from rayreel.data.storage import Storage
from rayreel.data.store import FOLDER, RecordStore
from rayreel.errors import StorageError
from rayreel.pipelines.latents import LatentStore
from rayreel.pipelines.texts import TextStore
from rayreel.stages import shards
from rayreel.stages.base import ItemFailure
from rayreel.stages.shards import ShardItem, ShardSample, ShardStage
from rayreel.types import TextFeatures
from tests.pipelines.media import picture, sound

FILES = ModelFiles(locate_model("tiny"))
CLIP, TRACK = picture(Path("a.mkv")), sound(Path("a.wav"))
MASK = Mask(source="m", content="m", of=CLIP)


def stores(folder: Path) -> tuple[LatentStore, TextStore]:
    records = RecordStore(Storage(folder / "store"))
    return LatentStore(records, FILES, tiled=False), TextStore(records, FILES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with what a clip, its sound and two texts were encoded to."""
    latents, texts = stores(tmp_path)
    made = torch.Generator().manual_seed(0)
    clip, wave = torch.randn(4, 2, 2, 3, generator=made), torch.randn(8, 26, 16, generator=made)
    latents.put({CLIP: clip, TRACK: wave, MASK: torch.ones(2, 2, 3)}, {TRACK: "it was quiet"})
    both, own = torch.randn(3, 12, generator=made), torch.randn(3, 6, generator=made)
    texts.put(
        {
            "A fox.": TextFeatures(video=both, audio=both, length=1024),
            "A cat.": TextFeatures(video=both, audio=own, length=1024),
        }
    )
    return tmp_path


def sample(folder: Path, name: str = "fox", text: str | None = "A fox.", **media) -> ShardSample:
    latents, _ = stores(folder)
    media = media or {"video_latents": CLIP, "audio_latents": TRACK, "video_mask": MASK}
    info = SampleInfo(
        sample_id=f"id-{name}",
        row=1,
        name=name,
        source="a.mkv",
        content="a",
        fps=24.0,
        bucket=Bucket(width=96, height=64, num_frames=9),
        notes=("odd", "it was quiet"),
        measures={"black": 0.5},
    )
    return ShardSample(info=info, latents={k: latents.key(m) for k, m in media.items()}, text=text)


def item(*samples: ShardSample, name: str = "one", attempt: int = 1) -> ShardItem:
    return ShardItem(item_id=name, samples=samples, measures=("black",), attempt=attempt)


def stage_in(folder: Path) -> ShardStage:
    out = str(folder / "out")
    stage: ShardStage = pickle.loads(
        pickle.dumps(ShardStage("tiny", str(folder / "store"), out, tiled=False))
    )
    stage.setup()
    return stage


def written(folder: Path, *items: ShardItem) -> list[ShardItem]:
    """Items with their shards."""
    results = stage_in(folder)(items)
    done = [one for one in results if isinstance(one, ShardItem)]
    assert len(done) == len(items), results
    return done


def read(folder: Path, done: ShardItem) -> list[Any]:
    """Samples of a shard."""
    output = done.output
    assert output is not None
    info = ShardInfo(
        name=output.path,
        samples=len(done.samples),
        num_bytes=output.num_bytes,
        sha256=output.sha256,
    )
    opened = OpenShard(Storage(folder / "out"), info)
    return [opened.sample(index) for index in range(info.samples)]


def test_a_shard_has_what_the_store_has_of_its_samples(folder):
    (done,) = written(folder, item(sample(folder), sample(folder, "cat", "A cat.")))
    fox, cat = read(folder, done)
    latents, texts = stores(folder)
    kept = latents.read([latents.key(CLIP), latents.key(TRACK)])
    assert torch.equal(fox.video_latents, kept[latents.key(CLIP)].tensor)
    assert torch.equal(fox.audio_latents, kept[latents.key(TRACK)].tensor)
    assert torch.equal(fox.video_mask, torch.ones(2, 2, 3))
    assert (fox.info.name, fox.info.measures, cat.info.name) == ("fox", {"black": 0.5}, "cat")
    assert [one.dtype for one in (fox.video_latents, fox.audio_latents, fox.video_mask)] == [
        *(torch.bfloat16, torch.float32, torch.float32),
    ]
    features = texts.get("A cat.")
    assert features is not None
    assert torch.equal(cat.text.audio, features.audio.bfloat16())


def test_texts_are_bfloat16_and_one_tensor_where_streams_share_it(folder):
    (done,) = written(folder, item(sample(folder), sample(folder, "cat", "A cat.")))
    fox, cat = read(folder, done)
    for one in (fox, cat):
        assert (one.text.video.dtype, one.text.audio.dtype) == (torch.bfloat16, torch.bfloat16)
        assert one.text.length == one.info.text_length == 1024
    assert fox.text.audio is fox.text.video
    assert cat.text.video.shape != cat.text.audio.shape


def test_a_sample_need_not_have_a_text(folder):
    (done,) = written(folder, item(sample(folder, text=None)))
    (found,) = read(folder, done)
    assert (found.text, found.info.text_length) == (None, None)


def test_what_was_amiss_with_a_file_reaches_the_sample_once(folder):
    (done,) = written(folder, item(sample(folder)))
    assert read(folder, done)[0].info.notes == ("odd", "it was quiet")
    one = sample(folder)
    plain = replace(one, info=one.info.model_copy(update={"notes": ()}))
    (done,) = written(folder, item(plain, name="two"))
    assert read(folder, done)[0].info.notes == ("it was quiet",)


def test_a_shard_that_is_written_again_has_the_same_bytes(folder):
    samples = sample(folder), sample(folder, "cat", "A cat.")
    (first,) = written(folder, item(*samples))
    file = folder / "out" / SHARDS / "one.parquet"
    content, time = file.read_bytes(), file.stat().st_mtime_ns
    (again,) = written(folder, item(*samples, attempt=2))
    assert file.read_bytes() == content
    assert file.stat().st_mtime_ns != time
    assert again.output == first.output


def test_the_ledger_tells_of_shards_that_are_there(folder):
    (done,) = written(folder, item(sample(folder)))
    entry = Ledger(Storage(folder / "out")).read()["one"]
    assert (entry.status, entry.attempt, entry.output) == ("done", 1, "shards/one.parquet")
    assert entry.num_frames == 9
    assert entry.num_bytes == (folder / "out" / "shards" / "one.parquet").stat().st_size
    assert "shards" in entry.seconds
    assert item(sample(folder)).finished(entry) == done


def test_a_line_is_written_after_its_file(folder, monkeypatch):
    seen = []

    def append(ledger, entry):
        seen.append((folder / "out" / entry.output).is_file())
        raise StorageError("gone")

    monkeypatch.setattr(Ledger, "append", append)
    with pytest.raises(StorageError):
        stage_in(folder)([item(sample(folder))])
    assert seen == [True]


LATER = replace(TRACK, start_s=5.0)


@pytest.mark.parametrize(
    ("text", "media", "what"),
    [(None, {"audio_latents": LATER}, "audio_latents"), ("A hen.", {}, "text")],
)
def test_a_record_that_is_missing_costs_its_shard_and_no_other(folder, text, media, what):
    lacking = sample(folder, "hen", text, **media)
    bad, good = stage_in(folder)([item(sample(folder), lacking), item(sample(folder), name="two")])
    assert isinstance(bad, ItemFailure)
    assert bad.message.startswith(f"the store has no {what} of hen any more; run the job again")
    assert isinstance(good, ShardItem)
    assert [file.name for file in (folder / "out" / SHARDS).iterdir()] == ["two.parquet"]
    assert set(Ledger(Storage(folder / "out")).read()) == {"two"}


def test_a_damaged_part_of_the_store_says_which(folder):
    one = sample(folder)
    for part in (folder / "store" / FOLDER).iterdir():
        part.write_bytes(b"PAR1 damaged PAR1")
    (bad,) = stage_in(folder)([item(one)])
    assert isinstance(bad, ItemFailure)
    assert str(folder / "store" / FOLDER) in bad.message
    assert "move it away" in bad.message


def test_a_worker_tells_that_it_is_alive_for_every_sample(folder, monkeypatch):
    told = []
    monkeypatch.setattr(shards, "alive", lambda: told.append(True))
    written(folder, item(*(sample(folder, f"{number}") for number in range(3))))
    assert len(told) == 3
