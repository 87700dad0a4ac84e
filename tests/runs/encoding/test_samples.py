"""Decisions about clips: what becomes a sample, of what size and sound, and why not."""

from dataclasses import replace

import pytest

from rayreel.config.buckets import Bucket
from rayreel.data.samples import Mask, Picture, Sound
from rayreel.media.framing import crop_surplus
from rayreel.runs.encoding.samples import Decisions
from tests.runs.encoding.clips import decided, row, scene, sound, spec, video

WIDE = "96x64x17"


def rules(found) -> list[str]:
    return [finding.rule for finding in found.findings]


def kept(job, one, **scans):
    """The only candidate of a row, which is kept."""
    (found,) = decided(job, one, **scans)
    assert (found.status, found.findings) == ("kept", ())
    return found


def picture(found, column="video") -> Picture:
    medium = found.media[column]
    assert isinstance(medium, Picture)
    return medium


def seconds(found, column="audio") -> tuple[float, float]:
    medium = found.media[column]
    assert isinstance(medium, Sound)
    return medium.start_s, medium.duration_s


@pytest.mark.parametrize(
    ("facts", "bucket"),
    [
        ({}, WIDE),
        ({"width": 640, "height": 1080}, "64x96x17"),
        ({"num_frames": 12}, "64x64x9"),
    ],
)
def test_clips_get_the_bucket_that_fits_best(facts, bucket):
    found = kept(spec(), row(), video=video(**facts))
    assert str(found.bucket) == str(picture(found).bucket) == bucket


def test_a_clip_that_is_too_short_for_every_bucket_is_dropped():
    (found,) = decided(spec(), row(), video=video(num_frames=8))
    assert (found.status, found.media, found.bucket) == ("dropped", {}, None)
    assert [(f.rule, f.reason) for f in found.findings] == [
        ("bucket", "8 frames; the shortest bucket has 9")
    ]


def test_no_clip_is_enlarged_where_none_shall_be():
    job = spec(buckets="128x128x9;64x64x9", enlarge=False)
    sizes = {(200, 200): "128x128x9", (127, 200): "64x64x9", (64, 64): "64x64x9"}
    for (width, height), bucket in sizes.items():
        assert str(kept(job, row(), video=video(width=width, height=height)).bucket) == bucket
    (found,) = decided(job, row(), video=video(width=80, height=60))
    assert [finding.reason for finding in found.findings] == [
        "80x60 pixels; every bucket is larger, and enlarge is false"
    ]


@pytest.mark.parametrize(
    ("limits", "value", "said"),
    [
        ({"max": 0.5}, 0.51, "black is 0.51; expected at most 0.5"),
        ({"min": 0.5}, 0.49, "black is 0.49; expected at least 0.5"),
        ({"min": 0.25, "max": 0.5}, 0, "black is 0; expected 0.25 to 0.5"),
        ({"min": 0.25, "max": 0.5}, 0.25, ""),
        ({"min": 0.25, "max": 0.5}, 0.5, ""),
    ],
)
def test_filters_keep_what_is_within_their_limits(limits, value, said):
    clip = video(scenes=[scene(black=value)])
    (found,) = decided(spec(filters={"black": limits}), row(), video=clip)
    assert [finding.reason for finding in found.findings] == [said] * bool(said)
    assert found.status == ("dropped" if said else "kept")


def test_all_that_is_against_a_clip_is_told():
    job = spec(filters={"black": {"max": 0}, "frozen": {"max": 0}, "fps": {"min": 1}})
    clip = video(scenes=[scene(num_frames=3, black=1, frozen=1, fps=24)])
    (found,) = decided(job, row(), video=clip)
    assert rules(found) == ["black", "frozen", "bucket"]


def test_every_scene_is_a_candidate_of_its_own():
    clip = video(scenes=[scene(0, 20), scene(20, 5), scene(25, 10)], num_frames=35)
    first, second, third = decided(spec(), row(), video=clip)
    assert [one.index for one in (first, second, third)] == [0, 1, 2]
    assert [one.status for one in (first, second, third)] == ["kept", "dropped", "kept"]
    assert (picture(third).start, str(third.bucket)) == (25, "64x64x9")
    assert seconds(first) == (0, 17 / 24)
    assert seconds(third) == (25 / 24, 9 / 24)


def test_a_centre_crop_is_in_the_middle():
    found = kept(spec(buckets="64x64x9"), row(), video=video(width=1920, height=1080))
    assert picture(found).crop == (0, 24)


def test_random_crops_depend_on_clip_and_seed_alone():
    job = spec(buckets="64x64x9", crop="random", seed=1)
    facts = {"width": 1920, "height": 1000}

    def crop(job=job, number=1, start=0, **fields):
        clip = video(**{**facts, **fields}, scenes=[scene(start)])
        return picture(kept(job, row(number), video=clip)).crop

    assert crop() == crop(number=9) == crop(fps=12.0)
    other = [crop(content="d"), crop(start=1), crop(job.model_copy(update={"seed": 2}))]
    assert len({crop(), *other}) == 4
    down, right = crop_surplus(1920, 1000, 64, 64)
    crops = [crop(content=f"{number}") for number in range(300)]
    assert {top for top, _ in crops} == set(range(down + 1))
    assert {left for _, left in crops} == set(range(right + 1))


def test_images_are_clips_of_one_frame_without_a_note():
    still = video(kind="image", num_frames=1, fps=1.0, sound_s=None)
    found = kept(spec(buckets=f"{WIDE};96x64x1"), row(), video=still)
    assert (str(found.bucket), picture(found).fps, set(found.media)) == ("96x64x1", 1, {"video"})
    assert found.notes == ()


@pytest.mark.parametrize(("fps", "length"), [(24.0, 17 / 24), (25.0, 17 / 25), (12.5, 17 / 12.5)])
def test_the_sound_of_a_video_is_as_long_as_its_frames(fps, length):
    found = kept(spec(), row(), video=video(fps=fps, sound_s=0.1))
    assert seconds(found) == pytest.approx((0, length), abs=1e-12)
    assert found.media["audio"].content == found.media["video"].content


def test_a_silent_video_has_a_note_and_so_has_an_unusual_one():
    found = kept(spec(), row(), video=video(sound_s=None, notes=("odd",)))
    assert (set(found.media), found.notes) == ({"video"}, ("odd", "it has no sound"))


@pytest.mark.parametrize(("there", "length"), [(3.0, 17 / 25), (0.5, 0.5)])
def test_sound_of_its_own_wins_and_is_as_long_as_the_longest_bucket_at_25(there, length):
    one = row(audio="track.wav")
    found = kept(spec(), one, video=video(fps=50.0), audio=sound(seconds=there))
    assert found.media["audio"].source == "track.wav"
    assert seconds(found) == (0, length)


def test_sound_of_its_own_goes_along_with_the_scenes():
    clip = video(scenes=[scene(0, 24), scene(24, 24), scene(48, 24)], num_frames=72)
    found = decided(spec(), row(audio="a.wav"), video=clip, audio=sound(seconds=1.5))
    assert [seconds(one) for one in found[:2]] == [(0, 17 / 25), (1, 0.5)]
    assert [(f.rule, f.reason) for f in found[2].findings] == [
        ("audio", "audio has 1.50 s; the scene starts at 2.00 s")
    ]


@pytest.mark.parametrize(
    ("durations", "there", "length"),
    [((), 3.2, 3.2), ((2, 4, 8), 3.2, 2), ((8, 2, 4), 4, 4), ((2, 4, 8), 60, 8)],
)
def test_sound_alone_is_cut_to_the_longest_duration_that_fits(durations, there, length):
    one = row(video=None, audio="track.wav")
    found = kept(spec(audio_durations=durations), one, audio=sound(seconds=there))
    assert (seconds(found), found.bucket, set(found.media)) == ((0, length), None, {"audio"})


def test_sound_that_is_too_short_for_every_duration_is_dropped():
    one = row(video=None, audio="track.wav", reference_audio="r.wav")
    job = spec(audio_durations=(4, 2))
    (found,) = decided(job, one, audio=sound(seconds=1.5), reference_audio=sound(seconds=1.0))
    assert [(f.rule, f.reason) for f in found.findings] == [
        ("audio_durations", "audio has 1.50 s; the shortest duration is 2 s"),
        ("audio_durations", "reference_audio has 1.00 s; the shortest duration is 2 s"),
    ]


@pytest.mark.parametrize(
    ("media", "scans", "said"),
    [
        ({"video": "a.wav"}, {"video": sound()}, "a.wav has no picture, only sound"),
        (
            {"audio": "b.mp4"},
            {"video": video(), "audio": video(sound_s=None)},
            "b.mp4 has no sound",
        ),
        (
            {"reference_video": "c.wav"},
            {"video": video(), "reference_video": sound()},
            "c.wav has no picture",
        ),
        (
            {"reference_audio": "d.mp4"},
            {"video": video(), "reference_audio": video(sound_s=0.0)},
            "d.mp4 has no sound",
        ),
        ({}, {"video": "cannot read clip.mp4: no such file"}, "cannot read clip.mp4: no such file"),
    ],
)
def test_files_that_lack_what_their_column_asks_for_fail(media, scans, said):
    (found,) = decided(spec(), row(**media), **scans)
    assert (found.status, rules(found), found.scan) == ("failed", ["unreadable"], None)
    assert found.findings[0].reason.startswith(said)


def test_a_faulty_row_fails_with_all_that_is_wrong_and_each_once():
    one = row(fault="field 'x'", video="clip.mp4", video_mask="clip.mp4")
    (found,) = decided(spec(), one, video="no such file")
    assert (found.status, found.findings[0].reason) == ("failed", "field 'x'; no such file")


def reference(**fields):
    return spec(buckets="128x64x17", reference=fields)


def test_a_reference_has_a_bucket_and_crop_of_its_own():
    one = row(reference_video="r.mp4")
    scans = {"video": video(), "reference_video": video("r", width=64, height=128, fps=30.0)}
    found = picture(kept(spec(), one, **scans), "reference_video")
    assert (str(found.bucket), found.source, found.content) == ("64x96x17", "r.mp4", "r")
    assert (found.fps, found.stride, found.crop) == (30, 1, (16, 0))


def test_a_reference_can_be_smaller_and_slower_than_its_target():
    one, job = row(reference_video="r.mp4"), reference(downscale=2, stride=2)
    found = picture(kept(job, one, video=video(), reference_video=video()), "reference_video")
    assert found.bucket == Bucket(width=64, height=32, num_frames=9)
    assert (found.fps, found.stride) == (12, 2)


@pytest.mark.parametrize(("frames", "status"), [(17, "dropped"), (36, "dropped"), (37, "kept")])
def test_a_reference_starts_where_its_target_does(frames, status):
    clip = video(scenes=[scene(20, 24)], num_frames=44)
    one = row(reference_video="r.mp4")
    (found,) = decided(reference(), one, video=clip, reference_video=video(num_frames=frames))
    assert found.status == status
    if status == "kept":
        assert picture(found, "reference_video").start == 20
    else:
        reason = f"its reference has {frames} frames, too few from 20 on"
        assert [(f.rule, f.reason) for f in found.findings] == [("reference", reason)]


@pytest.mark.parametrize(("frames", "status"), [(32, "dropped"), (33, "kept")])
def test_a_slower_reference_needs_more_frames(frames, status):
    one, job = row(reference_video="r.mp4"), reference(stride=2)
    job = job.model_copy(update={"buckets": (Bucket.model_validate("96x64x33"),)})
    scans = {"video": video(num_frames=40), "reference_video": video(num_frames=frames)}
    assert decided(job, one, **scans)[0].status == status


def test_masks_are_of_what_they_belong_to():
    clip = video(scenes=[scene(3, 20)])
    one = row(video_mask="m.mp4", audio_mask="m.wav")
    masks = {"video_mask": video("m", kind="file"), "audio_mask": video("n", kind="file")}
    found = kept(spec(), one, video=clip, **masks)
    assert found.media["video_mask"] == Mask(
        source="m.mp4", content="m", start=3, of=found.media["video"]
    )
    assert found.media["audio_mask"] == Mask(source="m.wav", content="n", of=found.media["audio"])


@pytest.mark.parametrize(
    ("media", "scans", "note"),
    [
        (
            {"audio_mask": "m"},
            {"video": video(sound_s=None), "audio_mask": video(kind="file")},
            "its audio_mask is left out: the clip has no sound",
        ),
        (
            {"video": None, "audio": "a", "video_mask": "m"},
            {"audio": sound(), "video_mask": video(kind="file")},
            "its video_mask is left out: the clip has no picture",
        ),
        (
            {"video": None, "audio": "a", "reference_video": "r"},
            {"audio": sound(), "reference_video": video()},
            "its reference_video is left out: the clip has no picture",
        ),
    ],
)
def test_parts_without_anything_that_they_belong_to_are_told(media, scans, note):
    found = kept(spec(), row(**media), **scans)
    assert note in found.notes
    assert not found.media.keys() & {"video_mask", "audio_mask", "reference_video"}


def test_skipped_sound_is_neither_encoded_nor_missed():
    found = kept(spec(skip=("audio",)), row(), video=video(sound_s=None))
    assert (set(found.media), found.notes) == ({"video"}, ())


def looks(number: int, phash: int, **fields):
    return row(number), video(f"c{number}", scenes=[scene(phash=f"{phash:064x}", **fields)])


def test_near_duplicates_of_what_is_kept_are_dropped():
    job = spec(duplicate_distance=2, filters={"black": {"max": 0.5}})
    decisions = Decisions(job)
    clips = [
        looks(1, 0, black=1),
        looks(2, 1, black=0),
        looks(3, 2, black=0),
        looks(4, 2, black=1),
        looks(5, 0xFF, black=0),
    ]
    found = [next(decisions.of(one, {"clip.mp4": scan})) for one, scan in clips]
    assert [rules(one) for one in found] == [["black"], [], ["near_duplicate"], ["black"], []]
    assert found[2].findings[0].reason == "nearly the same as row 2: 2 of 256 bits differ"


def test_without_a_distance_nothing_is_a_near_duplicate():
    decisions = Decisions(spec())
    clips = [looks(1, 0), looks(2, 0)]
    found = [next(decisions.of(one, {"clip.mp4": scan})) for one, scan in clips]
    assert [one.status for one in found] == ["kept", "kept"]


def test_names_of_rows_do_not_decide():
    one, clip = row(1), video()
    other = replace(one, name="another", number=5, caption="")
    assert kept(spec(), one, video=clip).media == kept(spec(), other, video=clip).media


def test_sound_goes_along_with_a_picture_that_comes_late():
    (candidate,) = decided(spec(), row(), video=video(late_s=0.25))
    sound_of = candidate.media["audio"]
    assert isinstance(sound_of, Sound)
    assert sound_of.start_s == 0.25


def test_a_frame_is_too_short_for_sound_at_high_rates():
    (candidate,) = decided(spec(buckets="96x64x1"), row(), video=video(fps=50.0))
    assert "audio" not in candidate.media
    assert candidate.notes == ("0.020 s are too short for its sound",)
