"""What a request asks that its pipeline or its model cannot do, told by field."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.tiny import locate_model
from rayreel.config.request import RenderRequest
from rayreel.media.mux import write_clip
from rayreel.pipelines import PIPELINE_CLASSES
from rayreel.pipelines.choice import GENERAL
from rayreel.pipelines.faults import request_faults
from rayreel.types import Clip
from tests import layouts


@pytest.fixture(scope="session")
def found():
    """Faults of a request to the tiny model, by field."""
    files = ModelFiles(locate_model("tiny"))

    def faults(**fields: Any) -> dict[str, str]:
        request = RenderRequest.model_validate({"prompt": "a fox", "pipeline": GENERAL, **fields})
        return dict(request_faults(request, files))

    return faults


MODES = Path(__file__).parents[2] / "manifests/modes"
VIDEO = {"path": "a.mp4"}
# What each pipeline has to be asked for.
ASKED: dict[str, dict[str, Any]] = {
    "ic_lora": {"references": [{"path": str(MODES / "harbour.mp4")}]},
    "keyframes": {"images": [{"path": "a.png"}]},
    "audio_to_video": {"soundtrack": {"path": str(MODES / "bell.wav")}, "num_frames": 25},
    "retake": {"retake": {**VIDEO, "start_s": 1, "end_s": 2}},
    "text_to_audio": {"video": False},
}


@pytest.mark.parametrize("pipeline", [name for name in PIPELINE_CLASSES if name != "image"])
def test_defaults_fit_every_pipeline(found, pipeline):
    assert not found(pipeline=pipeline, **ASKED.get(pipeline, {}))


@pytest.mark.parametrize(
    ("frames", "nearest"), [(120, "113 and 121"), (122, "121 and 129"), (2, "1 and 9")]
)
def test_frames_that_are_not_8k_plus_1_name_both_neighbours(found, frames, nearest):
    fault = found(num_frames=frames)["num_frames"]
    assert fault.startswith(f"{frames} does not fit")
    assert fault.endswith(f"nearest are {nearest}")


@pytest.mark.parametrize("frames", [1, 9, 121])
def test_8k_plus_1_frames_fit(found, frames):
    assert not found(num_frames=frames)


@pytest.mark.parametrize(
    ("pipeline", "width", "multiple", "nearest"),
    [
        ("one_stage", 500, 32, "480 and 512"),
        ("two_stage", 480, 64, "448 and 512"),
        ("distilled", 480, 64, "448 and 512"),
        ("two_stage", 20, 64, "64"),
    ],
)
def test_sizes_name_the_nearest_multiples(found, pipeline, width, multiple, nearest):
    fault = found(pipeline=pipeline, width=width)["width"]
    assert f"{width} is not a multiple of {multiple}, which {pipeline} needs" in fault
    assert fault.endswith(f"nearest: {nearest}")


def test_one_stage_takes_multiples_of_32(found):
    assert not found(pipeline="one_stage", width=480, height=352)


def test_a_sound_has_no_size(found):
    assert not found(pipeline="text_to_audio", video=False, width=500, num_frames=100)


def test_all_misfits_are_named(found):
    images = [{"path": "a.png"}, {"path": "b.png", "frame": 120}]
    misfits = found(num_frames=120, width=500, height=300, images=images)
    assert misfits.keys() == {"num_frames", "width", "height", "images.1.frame"}


@pytest.mark.parametrize(
    ("fields", "field", "fault"),
    [
        ({"pipeline": "two_stages"}, "pipeline", "nearest is 'two_stage'"),
        ({"scheduler": "betta"}, "scheduler", "nearest is 'beta'"),
        ({"sampler": "res2s"}, "sampler", "nearest is 'res_2s'"),
        ({"video_guidance": {"method": "agp"}}, "video_guidance.method", "nearest is 'apg'"),
        ({"pipeline": "ic_lora"}, "references", "ic_lora needs it"),
        ({"references": [VIDEO]}, "references", "two_stage does not take it; these do: ic_lora"),
        ({"pipeline": "distilled", "sampler": "cfg_plus_plus"}, "sampler", "needs guidance"),
        ({"video": False}, "video", "two_stage makes a picture"),
        (
            {"pipeline": "audio_to_video", "audio": False, "soundtrack": {"path": "a.wav"}},
            "audio",
            "about sound",
        ),
        ({"num_frames": 1, "fps": 60}, "num_frames", "too short for sound"),
        (
            {"images": [{"path": "a.png", "frame": 8}, {"path": "b.png", "frame": 8}]},
            "images.1.frame",
            "8 is pinned by images.0 already",
        ),
        ({"pipeline": "retake", "sampler": "cfg_plus_plus"}, "retake", "retake needs it"),
        (
            {"pipeline": "high_quality", "stage2_sigmas": [0.9, 0.001, 0]},
            "stage2_sigmas",
            "no level before 0 for res_2s; expected more than 0.0011",
        ),
        (
            {"pipeline": "one_stage", "sampler": "res_2s", "sigmas": [1, 0.0005, 0]},
            "sigmas",
            "expected more than 0.0011",
        ),
        ({"chain": {"chunk_frames": 26}}, "chain.chunk_frames", "nearest are 25 and 33"),
        (
            {"num_frames": 33, "chain": {"chunk_frames": 9, "overlap": 2}},
            "chain.chunk_frames",
            "leave nothing new .* nearest is 17",
        ),
        (
            {"pipeline": "ic_lora", "references": [VIDEO], "chain": {"overlap": 3}},
            "chain",
            "does not render in chunks",
        ),
        (
            {"pipeline": "retake", "retake": {**VIDEO, "start_s": 6, "end_s": 7}},
            "retake.start_s",
            "behind the end of the video; expected less than 5.04",
        ),
        (
            {"pipeline": "retake", "retake": {**VIDEO, "start_s": 1, "end_s": 2}, "width": 100},
            "retake.path",
            "its width 100 is not a multiple of 32",
        ),
    ],
    ids=str,
)
def test_a_fault_names_field_and_remedy(found, fields, field, fault):
    (name, said), *_ = found(**fields).items()
    assert name == field
    assert re.search(fault, said), said


REFERENCE = {"path": str(MODES / "harbour.mp4")}
ADAPTER = {"path": str(MODES / "in-context-lora.safetensors")}
TRACK = {"path": str(MODES / "bell.wav")}


@pytest.mark.parametrize(
    ("fields", "field", "fault"),
    [
        (
            {"references": [REFERENCE], "loras": [ADAPTER], "width": 192},
            "width",
            "192 is not a multiple of 128, which the adapter's reference scale 2 needs; .* 256",
        ),
        ({"references": [TRACK]}, "references.0.path", "no video"),
        (
            {"references": [{**REFERENCE, "mask": TRACK["path"]}]},
            "references.0.mask",
            "no video",
        ),
    ],
    ids=str,
)
def test_references_that_cannot_be_followed_are_told_before_work_starts(
    found, fields, field, fault
):
    said = found(pipeline="ic_lora", num_frames=25, **{"height": 128, "width": 128, **fields})
    assert re.search(fault, said[field]), said


@pytest.mark.parametrize(
    ("frames", "nearest"), [(25, None), (1, None), (9, "nearest: 7|nearest: 10")]
)
def test_a_mask_has_a_frame_or_spreads_over_latent_frames(found, tmp_path, frames, nearest):
    mask = tmp_path / "mask.mp4"
    write_clip(mask, Clip(frames=torch.zeros(frames, 32, 32, 3, dtype=torch.uint8), fps=24))
    said = found(
        pipeline="ic_lora",
        num_frames=25,
        width=128,
        height=128,
        references=[{**REFERENCE, "mask": str(mask)}],
    )
    if nearest is None:
        assert not said
    else:
        assert re.search(nearest, said["references.0.mask"])


@pytest.mark.parametrize(
    ("fields", "field", "fault"),
    [
        ({"soundtrack": TRACK}, "soundtrack", "1.25 s of sound .* nearest num_frames is 25"),
        (
            {"soundtrack": {**TRACK, "duration_s": 0.5}, "num_frames": 25},
            "soundtrack",
            "nearest num_frames is 9",
        ),
        ({"soundtrack": {**TRACK, "start_s": 9}}, "soundtrack.path", "ends at 1.25 s"),
        (
            {"soundtrack": {"path": str(MODES / "left-half.png")}},
            "soundtrack.path",
            "left-half.png",
        ),
        ({"soundtrack": TRACK, "num_frames": 1}, "num_frames", "nearest is 9"),
    ],
    ids=str,
)
def test_soundtracks_that_do_not_last_are_told_before_work_starts(found, fields, field, fault):
    said = found(pipeline="audio_to_video", **fields)
    assert re.search(fault, said[field]), said


def test_a_model_without_an_audio_encoder_makes_sound_but_cannot_read_it(tmp_path):
    files = ModelFiles(layouts.without_audio_encoder(tmp_path))

    def said(**fields: Any) -> dict[str, str]:
        request = RenderRequest.model_validate({"prompt": "a fox", "num_frames": 25, **fields})
        return dict(request_faults(request, files))

    assert not said(pipeline="two_stage")
    fault = said(pipeline="audio_to_video", soundtrack=TRACK)["soundtrack"]
    assert "holds no whole audio encoder; without it sound cannot be read" in fault
