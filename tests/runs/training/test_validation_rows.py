"""Rows of a training spec: where they go, with which seeds, and what is refused."""

import json

import pytest

from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.tiny import locate_model
from rayreel.config.request import DEFAULT_NEGATIVE_PROMPT
from rayreel.config.train import TrainSpec
from rayreel.errors import SpecError
from rayreel.runs.training.validation_rows import validation_requests

SMALL = {"width": 128, "height": 64, "num_frames": 9}
REFERENCE = {"path": "modes/harbour.mp4"}


@pytest.fixture(scope="module")
def files() -> ModelFiles:
    return ModelFiles(locate_model("tiny"))


@pytest.fixture
def requests(files, repository):
    """Resolved requests of some rows, by name."""

    def resolved(*rows, defaults=SMALL, seed=0, files=files, **kwargs):
        validation = {"rows": rows, "defaults": defaults}
        spec = TrainSpec.model_validate({"dataset": "d", "seed": seed, "validation": validation})
        return dict(validation_requests(spec, files, str(repository / "manifests"), **kwargs))

    return resolved


def test_a_prompt_alone_goes_to_the_guided_stage_of_the_model(requests, files):
    request = requests("a fox")["row-1"]
    assert (request.pipeline, request.steps) == ("one_stage", files.defaults.steps)
    assert request.negative_prompt == DEFAULT_NEGATIVE_PROMPT
    assert request.video_guidance.cfg_scale == 3


@pytest.mark.parametrize(
    ("fields", "pipeline"),
    [
        ({"images": [{"path": "demo-sunset.png"}]}, "one_stage"),
        (
            {"images": [{"path": "demo-sunset.png"}, {"path": "demo-sunset.png", "frame": 8}]},
            "one_stage",
        ),
        ({"extend": REFERENCE}, "one_stage"),
        ({"num_frames": 1}, "one_stage"),
        ({"references": [REFERENCE]}, "ic_lora"),
        ({"retake": REFERENCE | {"start_s": 0.4, "end_s": 0.7}}, "retake"),
        ({"soundtrack": {"path": "modes/bell.wav"}}, "audio_to_video"),
        ({"video": False}, "text_to_audio"),
        ({"pipeline": "keyframes", "images": [{"path": "demo-sunset.png"}]}, "keyframes"),
        ({"pipeline": "distilled"}, "distilled"),
    ],
)
def test_each_row_goes_to_a_pipeline_that_can_do_it(requests, fields, pipeline):
    assert requests({"prompt": "a fox", **fields})["row-1"].pipeline == pipeline


def test_defaults_hold_where_rows_say_nothing(requests):
    defaults = SMALL | {"pipeline": "two_stage", "steps": 3, "prompt": "a default"}
    first, second = requests({"seed": 5}, {"steps": 4}, defaults=defaults).values()
    assert (first.prompt, first.pipeline, first.steps) == ("a default", "two_stage", 3)
    assert second.steps == 4


def test_seed_zero_is_a_seed(requests):
    rows = requests({"prompt": "a fox", "seed": 0}, "a fox", defaults=SMALL)
    assert rows["row-1"].seed == 0
    assert rows["row-2"].seed != 0
    assert requests("a fox", defaults=SMALL | {"seed": 0})["row-1"].seed == 0


def test_a_row_keeps_its_seed_whatever_stands_beside_it(requests):
    alone, among = requests("a fox"), requests("a dog", "a fox")
    assert alone["row-1"].seed == among["row-2"].seed != among["row-1"].seed
    assert requests("a fox", seed=1)["row-1"].seed != alone["row-1"].seed


def test_all_faults_are_told_at_once_by_row_and_field(requests):
    with pytest.raises(SpecError) as caught:
        requests(
            {"prompt": "a fox", "num_frames": 10},
            "fine",
            {"prompt": "a fox", "images": [{"path": "no.png"}]},
            {"width": 64},
        )
    title, *lines = str(caught.value).splitlines()
    assert title == "validation.rows:"
    assert [line.split(": ")[:2] for line in lines] == [
        ["  row-1", "field 'num_frames'"],
        ["  row-3", "field 'images.0.path'"],
        ["  row-4", "field 'prompt'"],
    ]


def test_references_are_checked_against_the_scale_that_the_adapter_will_have(requests):
    row = {"prompt": "a fox", "references": [REFERENCE], "width": 192}
    assert requests(row, defaults=SMALL | {"height": 128})
    with pytest.raises(SpecError, match=r"192 is not a multiple of 128, .*reference scale 2"):
        requests(row, defaults=SMALL | {"height": 128}, reference_scales=(2, 1))


def test_distilled_steps_of_a_model_without_distilled_weights_are_told(requests, files, caplog):
    bare = ModelFiles(files.spec.model_copy(update={"distilled_lora": None}))
    requests({"prompt": "a fox", "pipeline": "distilled"}, "a dog", files=bare)
    (record,) = caplog.records
    assert "row-1: distilled takes the model as distilled already" in record.getMessage()


def test_fields_of_no_effect_are_told(requests, caplog):
    requests({"prompt": "a fox", "pipeline": "distilled", "steps": 4})
    assert "validation row-1: steps: no effect with pipeline distilled" in caplog.text


def test_no_rows_are_no_requests(requests):
    assert requests() == {}


def test_relative_paths_start_at_the_current_folder_if_nothing_else_is_said(
    files, repository, monkeypatch
):
    monkeypatch.chdir(repository)
    row = {"prompt": "a", "images": [{"path": "manifests/demo-sunset.png"}]}
    spec = TrainSpec.model_validate(
        json.loads(json.dumps({"dataset": "d", "validation": {"rows": [row], "defaults": SMALL}}))
    )
    ((_, request),) = validation_requests(spec, files)
    assert request.images[0].path == str(repository / "manifests" / "demo-sunset.png")
