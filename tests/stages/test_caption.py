"""The caption pass: asked once, several at a time, and a clip without a caption costs itself."""

import logging
from pathlib import Path

import pytest
from PIL import Image

from rayreel.config.encode import CaptionSpec, LocalCaptioner, OpenAICaptioner
from rayreel.data.storage import Storage
from rayreel.data.store import RecordStore
from rayreel.errors import CheckpointError, SpecError
from rayreel.logs import log_context
from rayreel.stages.base import ItemFailure, run_stage
from rayreel.stages.caption import REQUESTS, CaptionItem, CaptionStage, read_caption
from tests.captions_server import CAPTION, captions_server, completion, failure
from tests.media.samples import grey_levels, write_video
from tests.pipelines.small import DEVICE
from tests.pipelines.test_enhance import write_gemma


def served(url: str, **fields) -> CaptionSpec:
    choice = OpenAICaptioner(url=url, model="tiny", max_retries=0)
    return CaptionSpec(captioner=choice, **fields)


def stage(spec: CaptionSpec, folder: Path) -> CaptionStage:
    made = CaptionStage(spec, DEVICE, str(folder / "store"))
    made.setup()
    return made


def items(folder: Path, *names: str) -> list[CaptionItem]:
    """Images, by their names."""
    for name in names:
        Image.new("RGB", (8, 8)).save(folder / f"{name}.png")
    return [
        CaptionItem(item_id=name, source=str(folder / f"{name}.png"), content=name, kind="image")
        for name in names
    ]


def test_captions_are_filled_in_with_who_wrote_them(tmp_path):
    with captions_server() as server:
        done = run_stage(stage(served(server.url), tmp_path), items(tmp_path, "a", "b"))
    assert [item.item_id for item in done] == ["a", "b"]
    for item in done:
        assert isinstance(item, CaptionItem)
        assert (item.caption, item.caption_by, item.caption_note) == (CAPTION, "tiny", None)


def test_a_caption_is_asked_for_once(tmp_path):
    with captions_server() as server:
        spec = served(server.url)
        first = stage(spec, tmp_path)(items(tmp_path, "a", "b"))
        again = stage(spec, tmp_path)(items(tmp_path, "a", "b"))
        assert again == first
        assert len(server.requests) == 2
        stage(spec, tmp_path)(items(tmp_path, "c", "a"))
    assert len(server.requests) == 3


def test_what_is_in_the_store_needs_no_captioner(tmp_path):
    with captions_server() as server:
        spec = served(server.url)
        first = stage(spec, tmp_path)(items(tmp_path, "a"))
    kept = stage(spec, tmp_path)
    assert kept(items(tmp_path, "a")) == first
    assert kept._captioner is None
    records = RecordStore(Storage(tmp_path / "store"))
    assert records.known(["a"])
    assert [read_caption(records, item) for item in items(tmp_path, "a")] == first


def test_new_captions_are_one_part_with_the_answer_as_text(tmp_path):
    with captions_server() as server:
        stage(served(server.url), tmp_path)(items(tmp_path, "a", "b"))
    records = RecordStore(Storage(tmp_path / "store"))
    assert len(list((tmp_path / "store" / "records").iterdir())) == 1
    record = records.get("a")
    assert record is not None
    assert (record.kind, record.text, record.tensors) == ("caption", CAPTION, b"")
    assert record.made_by == {"captioner": "tiny"}


def test_each_scene_of_a_video_has_a_caption_of_its_own(tmp_path):
    write_video(tmp_path / "grey.mkv", grey_levels(24))
    scenes = [
        CaptionItem(
            item_id=str(start),
            source=str(tmp_path / "grey.mkv"),
            content="grey",
            kind="video",
            start=start,
            num_frames=12,
            fps=24.0,
        )
        for start in (0, 12)
    ]
    with captions_server() as server:
        done = stage(served(server.url), tmp_path)(scenes)
    assert not any(isinstance(item, ItemFailure) for item in done)
    assert len(server.requests) == 2


def test_several_clips_are_asked_about_at_the_same_time(tmp_path):
    with captions_server(delay_s=0.3) as server:
        stage(served(server.url), tmp_path)(items(tmp_path, *"abcdef"))
    assert server.most == REQUESTS


def test_an_image_that_cannot_be_read_costs_itself(tmp_path):
    good, bad = items(tmp_path, "a", "b")
    Path(bad.source).write_bytes(b"no image")
    with captions_server() as server:
        done, failed = stage(served(server.url), tmp_path)([good, bad])
        assert isinstance(done, CaptionItem)
        assert isinstance(failed, ItemFailure)
        assert (failed.stage, failed.error, failed.retryable) == ("caption", "MediaError", False)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("response", "error", "retryable"),
    [
        (failure(429), "RetryableError", True),
        (failure(500), "RetryableError", True),
        (failure(400), "ItemError", False),
        (completion(""), "ItemError", False),
        (completion(None, refusal="no"), "ItemError", False),
    ],
)
def test_only_what_may_go_otherwise_is_tried_again(tmp_path, response, error, retryable):
    with captions_server(response) as server:
        spec = served(server.url)
        (failed,) = stage(spec, tmp_path)(items(tmp_path, "a"))
        assert isinstance(failed, ItemFailure)
        assert (failed.error, failed.retryable) == (error, retryable)
        assert len(server.requests) == 1
        (done,) = stage(spec, tmp_path)(items(tmp_path, "a"))
    assert isinstance(done, CaptionItem)


def test_a_wrong_key_stops_the_job_at_once_and_what_was_answered_stays(tmp_path):
    with captions_server(completion("A fox."), failure(401)) as server:
        spec = served(server.url)
        made = stage(spec, tmp_path)
        made(items(tmp_path, "a"))
        server.first[:] = [failure(401)] * 100
        with pytest.raises(SpecError, match="status 401"):
            made(items(tmp_path, *map(str, range(50))))
        assert len(server.requests) < 1 + 50
    assert isinstance(stage(spec, tmp_path)(items(tmp_path, "a"))[0], CaptionItem)


def test_answers_before_a_refusal_of_all_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("rayreel.stages.caption.REQUESTS", 1)
    with captions_server(completion("A fox."), failure(401)) as server:
        spec = served(server.url)
        with pytest.raises(SpecError):
            stage(spec, tmp_path)(items(tmp_path, "a", "b"))
        server.requests.clear()
        stage(spec, tmp_path)(items(tmp_path, "a"))
    assert server.requests == []


def test_a_caption_that_was_cut_says_so_now_and_from_the_store(tmp_path):
    with captions_server(completion("A fox", finish="length")) as server:
        spec = served(server.url, max_tokens=3)
        for _ in range(2):
            (done,) = stage(spec, tmp_path)(items(tmp_path, "a"))
            assert isinstance(done, CaptionItem)
            assert "captions.max_tokens=3" in str(done.caption_note)


def test_the_key_is_in_no_line_of_the_log(tmp_path, monkeypatch, caplog):
    key = "sk-0123456789abcdef"
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with caplog.at_level(logging.DEBUG), captions_server(failure(400, f"wrong {key}")) as server:
        stage(served(server.url), tmp_path)(items(tmp_path, "a", "b"))
        assert server.requests[0][0]["authorization"] == f"Bearer {key}"
    assert "wrong ***" in caplog.text
    assert key not in caplog.text


def test_threads_log_as_part_of_the_run(tmp_path, caplog):
    from rayreel.logs import _with_context  # noqa: PLC0415

    caplog.handler.addFilter(_with_context)
    with log_context(run="r1"), captions_server(failure(400)) as server:
        stage(served(server.url), tmp_path)(items(tmp_path, "a"))
    caplog.handler.removeFilter(_with_context)
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert getattr(warning, "run", None) == "r1"


def test_a_local_model_loads_with_the_first_clip_that_has_no_caption(tmp_path):
    (tmp_path / "gemma").mkdir()
    folder = write_gemma(tmp_path / "gemma")
    spec = CaptionSpec(captioner=LocalCaptioner(folder=str(folder)), max_tokens=8)
    made, again = stage(spec, tmp_path), stage(spec, tmp_path)
    before = made.loads
    first = made(items(tmp_path, "a", "b"))
    assert (before, made.loads) == ((), ("Gemma3ForConditionalGeneration",))
    assert again(items(tmp_path, "a", "b")) == first
    assert again.loads == ()


def test_a_local_model_that_is_not_there_stops_the_job(tmp_path):
    spec = CaptionSpec(captioner=LocalCaptioner(folder=str(tmp_path / "nowhere")))
    with pytest.raises(CheckpointError, match="is not a folder"):
        stage(spec, tmp_path)(items(tmp_path, "a"))
