"""Which pipeline a request goes to where it names none."""

import pytest

from rayreel.pipelines import PIPELINE_CLASSES, pipeline_for
from rayreel.pipelines.choice import choose_pipeline
from tests.pipelines.small import small

VIDEO = {"path": "a.mp4"}
ENDS = [{"path": "a.png"}, {"path": "b.png", "frame": 8}]


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({}, "two_stage"),
        ({"images": ENDS[:1]}, "two_stage"),
        ({"images": ENDS[1:]}, "two_stage"),
        ({"images": ENDS}, "keyframes"),
        ({"images": [*ENDS, {"path": "c.png", "frame": 4}]}, "keyframes"),
        ({"images": ENDS, "chain": {"overlap": 3}}, "two_stage"),
        ({"images": ENDS, "extend": VIDEO}, "two_stage"),
        ({"references": [VIDEO]}, "ic_lora"),
        ({"references": [VIDEO], "images": ENDS}, "ic_lora"),
        ({"retake": {**VIDEO, "start_s": 0, "end_s": 1}}, "retake"),
        ({"soundtrack": {"path": "a.wav"}, "images": ENDS[:1]}, "audio_to_video"),
        ({"video": False}, "text_to_audio"),
        ({"num_frames": 1}, "image"),
        ({"num_frames": 1, "pipeline": "one_stage"}, "one_stage"),
        ({"references": [VIDEO], "pipeline": "distilled"}, "distilled"),
    ],
    ids=str,
)
def test_what_a_request_has_decides_its_pipeline(fields, name):
    chosen, reason = choose_pipeline(small(**fields), image_model=True)
    assert chosen == name
    assert reason


def test_a_single_frame_without_an_image_model_is_the_video_models():
    assert choose_pipeline(small(num_frames=1), image_model=False)[0] == "two_stage"


def test_a_request_alone_finds_its_pipeline(ledger):
    assert pipeline_for(small(video=False), ledger.files) is PIPELINE_CLASSES["text_to_audio"]
    with pytest.raises(ValueError, match="'turbo' is unknown; known: one_stage"):
        pipeline_for(small(pipeline="turbo"), ledger.files)
