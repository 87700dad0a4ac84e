"""Clips as files: a list that encode reads, the same for the same seed, and kept when run again."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from rayreel.cli import app
from rayreel.config.request import DEFAULT_NEGATIVE_PROMPT
from rayreel.media.image import load_image
from rayreel.media.video import read_clip
from rayreel.requests.spec import read_encode_spec
from rayreel.runs.encoding.rows import ClipList
from rayreel.world.dataset import Format, Mixture, make_clip, write_clips
from rayreel.world.scene import Scene, is_held_out

SMALL = Format(width=64, height=32, num_frames=9)


def rows_of(manifest):
    return [json.loads(line) for line in manifest.read_text("utf-8").splitlines()]


def test_clips_are_written_with_their_captions_and_scenes(tmp_path):
    manifest = write_clips(tmp_path, 3, Mixture(seed=1, form=SMALL))
    rows = rows_of(manifest)
    assert len({row["id"] for row in rows}) == 3
    for row in rows:
        clip = read_clip(tmp_path / row["media_path"])
        drawn = make_clip(Scene.model_validate(row["scene"]), SMALL)
        assert clip.audio
        assert drawn.audio
        assert clip.frames.shape == (9, 32, 64, 3)
        assert (clip.frames.float() - drawn.frames.float()).abs().mean() < 8
        assert clip.audio.sample_rate_hz == 24000
        both = torch.stack([clip.audio.waveform.sum(0), drawn.audio.waveform.sum(0)])
        assert torch.corrcoef(both)[0, 1] > 0.95
        assert row["caption"]


def test_the_same_seed_writes_the_same_bytes(tmp_path):
    one, other = (write_clips(tmp_path / name, 4, Mixture(form=SMALL)) for name in "ab")
    assert one.read_bytes() == other.read_bytes()
    for row in rows_of(one):
        first, second = (tmp_path / name / row["media_path"] for name in "ab")
        assert first.read_bytes() == second.read_bytes()


def test_a_share_of_captions_says_nothing_and_the_clips_stay_the_same(tmp_path):
    said, some = (
        rows_of(write_clips(tmp_path / str(share), 8, Mixture(form=SMALL, wordless=share)))
        for share in (0, 0.5)
    )
    assert {row["caption"] == DEFAULT_NEGATIVE_PROMPT for row in some} == {True, False}
    assert DEFAULT_NEGATIVE_PROMPT not in {row["caption"] for row in said}
    assert [row["media_path"] for row in some] == [row["media_path"] for row in said]


def test_a_share_of_captions_is_put_as_people_may_and_the_clips_stay_the_same(tmp_path):
    plain, some = (
        rows_of(write_clips(tmp_path / str(share), 12, Mixture(form=SMALL, loosely=share)))
        for share in (0, 0.5)
    )
    same = [one["caption"] == other["caption"] for one, other in zip(plain, some, strict=True)]
    assert {*same} == {True, False}
    assert [row["media_path"] for row in some] == [row["media_path"] for row in plain]


def test_a_share_of_clips_is_half_as_large(tmp_path):
    rows = rows_of(write_clips(tmp_path, 8, Mixture(form=SMALL, halved=0.5)))
    sizes = {read_clip(tmp_path / row["media_path"]).frames.shape[1:3] for row in rows}
    assert sizes == {(SMALL.height, SMALL.width), (SMALL.height // 2, SMALL.width // 2)}


def test_last_frames_are_references_and_are_made_for_clips_that_are_there(tmp_path):
    write_clips(tmp_path, 2, Mixture(form=SMALL))
    for row in rows_of(write_clips(tmp_path, 2, Mixture(form=SMALL, reference="last-frame"))):
        last = read_clip(tmp_path / row["media_path"]).frames[-1]
        image = load_image(tmp_path / row["reference_video"])
        assert (image.float() - last.float()).abs().mean() < 8


def test_outlines_are_references_that_move_as_their_clip_does(tmp_path):
    for row in rows_of(write_clips(tmp_path, 2, Mixture(form=SMALL, reference="outlines"))):
        clip = read_clip(tmp_path / row["media_path"]).frames.float()
        lines = read_clip(tmp_path / row["reference_video"]).frames.float()
        assert lines.shape == clip.shape
        white = lines.mean(-1) > 127
        behind = clip[0].flatten(0, 1).median(0).values
        covered = (clip - behind).abs().amax(-1) > 60
        assert 0 < white.float().mean() < 0.6
        assert (white == covered).float().mean() > 0.95


def test_clips_that_are_there_are_kept_and_others_made(tmp_path):
    first = rows_of(write_clips(tmp_path, 2, Mixture(form=SMALL)))
    written = [(tmp_path / row["media_path"]).stat().st_mtime_ns for row in first]
    (tmp_path / "clips" / "~half.mp4").write_bytes(b"half")
    done: list[int] = []
    more = rows_of(write_clips(tmp_path, 4, Mixture(form=SMALL), done=lambda: done.append(1)))
    assert more[:2] == first
    assert len(done) == 4
    assert [(tmp_path / row["media_path"]).stat().st_mtime_ns for row in first] == written


def test_clips_of_another_seed_size_or_split_are_other_files(tmp_path):
    first = {row["media_path"] for row in rows_of(write_clips(tmp_path, 2, Mixture(form=SMALL)))}
    for values in ({"seed": 1}, {"split": "held-out"}, {"new": True}):
        rows = rows_of(write_clips(tmp_path, 2, Mixture(form=SMALL, **values)))
        assert not first & {row["media_path"] for row in rows}
    longer = write_clips(tmp_path, 2, Mixture(form=Format(width=64, height=32, num_frames=17)))
    assert not first & {row["media_path"] for row in rows_of(longer)}


@pytest.mark.parametrize("values", [{"width": 63}, {"height": 0}, {"num_frames": 0}])
def test_sizes_that_no_file_can_have_are_refused(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        Format(**values)


def test_the_command_makes_what_encode_reads(tmp_path):
    out = tmp_path / "world"
    arguments = ["world", "-n", "3", "-o", str(out), "--split", "held-out", "--frames", "9"]
    result = CliRunner().invoke(app, arguments)
    assert (result.exit_code, result.stdout) == (
        0,
        f"3 clips in {out / 'clips.jsonl'}\n{out / 'contact.jpg'}\n",
    )
    with Image.open(out / "contact.jpg") as sheet:
        assert sheet.format == "JPEG"
    for row in rows_of(out / "clips.jsonl"):
        things = Scene.model_validate(row["scene"]).things
        assert all(is_held_out(it.colour, it.shape, it.motion) for it in things)
    spec = read_encode_spec(str(out / "clips.jsonl"), ["buckets=128x128x9"], None, None)
    listed = [*ClipList(spec)]
    assert [row.caption for row in listed] == [
        row["caption"] for row in rows_of(out / "clips.jsonl")
    ]
    assert all(Path(row.media["video"]).is_file() for row in listed)


def test_the_command_tells_what_is_wrong(tmp_path):
    odd = CliRunner().invoke(app, ["world", "-o", str(tmp_path), "--width", "65"])
    assert odd.exit_code == 2
    assert odd.stderr.endswith("rayreel: width=65 is no even number; nearest are 64, 66\n")
    (tmp_path / "file").touch()
    blocked = CliRunner().invoke(app, ["world", "-o", str(tmp_path / "file")])
    assert blocked.exit_code == 2
    assert "cannot write clips to" in blocked.stderr


def test_a_size_without_an_even_half_is_refused_where_halves_are_wanted():
    form = Format(width=66, height=64)
    assert Mixture(form=form).form_of("clip") == form
    with pytest.raises(ValueError, match=r"width=66 has no even half.*nearest are 64, 68"):
        Mixture(form=form, halved=0.5)
