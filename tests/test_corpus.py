"""The corpus is what it says: tests that use it rely on that."""

import filecmp
import itertools

import av
import imagehash
import numpy as np
import pytest
import torch
from PIL import Image

from rayreel.config.encode import EncodeSpec
from rayreel.config.load import parse
from rayreel.data.manifest import Manifest
from rayreel.errors import MediaError
from rayreel.media.container import probe
from rayreel.media.image import is_still, load_image
from rayreel.media.video import read_clip
from rayreel.runs.encoding.rows import ClipList
from rayreel.runs.encoding.samples import Decisions
from rayreel.stages.scan import hash_file, scan_file
from tests.corpus import CUT_FRAME, corpus_spec_values, too_short, write_corpus


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("corpus")


@pytest.fixture(scope="module")
def clips(folder):
    return write_corpus(folder)


def frames_of(clip):
    if is_still(clip.path):
        return load_image(clip.path)[None]
    return read_clip(clip.path, sound=False).frames


def scanned(path):
    try:
        content = hash_file(path) if path.exists() else ""
        return scan_file(path, content, None)
    except MediaError as error:
        return str(error)


def readable(clips):
    return [clip for clip in clips if clip.num_frames]


def test_the_same_bytes_are_written_again(folder, clips, tmp_path):
    write_corpus(tmp_path)
    names = [path.name for path in folder.iterdir()]
    assert len(names) > 44
    assert filecmp.cmpfiles(folder, tmp_path, names, shallow=False) == (names, [], [])


def test_the_list_has_a_row_for_each_entry(folder, clips):
    rows = [row.values for row in Manifest(folder / "list.jsonl")]
    assert [(row["id"], folder / row["video"], row.get("caption")) for row in rows] == [
        (clip.name, clip.path, clip.caption) for clip in clips
    ]
    assert len({clip.name for clip in clips}) == len(clips)
    assert {clip.expect for clip in clips} == {"done", "dropped", "failed"}
    assert all((clip.expect == "done") == (not clip.why) for clip in clips)


def test_files_hold_the_pictures_and_sound_that_entries_tell(clips):
    for clip in readable(clips):
        told = (clip.num_frames, clip.height, clip.width)
        assert (clip.name, *frames_of(clip).shape[:3]) == (clip.name, *told)
        assert clip.sound == (not is_still(clip.path) and probe(clip.path).has_audio), clip.name


def test_no_picture_is_read_where_none_is_told(clips):
    for clip in clips:
        if not clip.num_frames and clip.why != "HDR":
            with pytest.raises(MediaError, match=clip.path.name):
                read_clip(clip.path)


def test_high_dynamic_range_is_noted_in_the_file(folder, clips):
    for name, transfer in (("pq.mp4", 16), ("hlg.mp4", 18)):
        with av.open(str(folder / name)) as container:
            frame = next(container.decode(video=0))
        assert (frame.color_trc, frame.format.name) == (transfer, "yuv420p10le")


def test_only_what_is_meant_to_be_alike_is(clips):
    hashes = {}
    for clip in readable(clips):
        frames = frames_of(clip)
        some = (frames[round(at * (len(frames) - 1) / 3)].numpy() for at in range(4))
        hashes[clip.name] = np.stack([imagehash.phash(Image.fromarray(one)).hash for one in some])
    pairs = itertools.combinations(hashes, 2)
    distances = {pair: int((hashes[pair[0]] != hashes[pair[1]]).sum()) for pair in pairs}
    most = corpus_spec_values(clips[0].path, clips[0].path)["duplicate_distance"]
    alike = {pair for pair, distance in distances.items() if distance <= 2 * most}
    again = {("wide", "wide_again"), ("hevc", "hevc_again")}
    assert alike == {*again, ("a", "a_copy"), ("large", "large_worse")}
    assert all(distances[pair] <= most / 2 for pair in alike)


def test_only_what_is_meant_to_stand_still_does(clips):
    still = {
        clip.name
        for clip in readable(clips)
        if clip.num_frames > 1 and (frames := frames_of(clip))[1:].equal(frames[:-1])
    }
    assert still == {"black", "frozen"}


def test_the_scene_changes_where_it_is_told(folder, clips):
    frames = read_clip(folder / "hard_cut.mp4").frames.float()
    changes = (frames[1:] - frames[:-1]).abs().mean((1, 2, 3))
    assert int(changes.argmax()) + 1 == CUT_FRAME
    assert changes.max() > 3 * torch.quantile(changes, 0.9)


def test_one_bucket_more_or_less_decides_on_the_shortest(folder, clips, tmp_path):
    """Any picture is long enough for one frame."""
    for stills, least in ((True, 1), (False, 9)):
        values = corpus_spec_values(folder, tmp_path, stills=stills)
        buckets = parse(values, EncodeSpec, where="test").buckets
        assert min(bucket.num_frames for bucket in buckets) == least
    assert {"short", "one_frame", "still_png"} < too_short(clips)
    assert not {"nine_frames", "wide", "black"} & too_short(clips)


def test_files_are_judged_as_entries_tell(folder, clips, tmp_path):
    """Captions, and samples that are the same but for their name, come later."""
    spec = parse(corpus_spec_values(folder, tmp_path), EncodeSpec, where="test")
    decisions = Decisions(spec)
    for row, clip in zip(ClipList(spec), clips, strict=True):
        (candidate,) = decisions.of(row, {row.media["video"]: scanned(clip.path)})
        told = " ".join(f"{finding.rule}: {finding.reason}" for finding in candidate.findings)
        if clip.why in ("caption", "duplicate"):
            assert (candidate.status, told) == ("kept", ""), clip.name
        else:
            assert (candidate.status == "kept") == (clip.expect == "done"), (clip.name, told)
            assert clip.why in told
