"""Eval specs: what is wrong is told by field."""

import pytest
import yaml

from rayreel.config.evaluate import EvalSpec, RenderedSuite
from rayreel.errors import CheckpointError, SpecError
from rayreel.requests.spec import read_eval_spec

ONE = {"type": "rendered", "name": "one", "clips": 4}


def refusal(tmp_path, *suites, **fields):
    path = tmp_path / "eval.yaml"
    path.write_text(yaml.safe_dump({"suites": list(suites), **fields}))
    with pytest.raises(SpecError) as caught:
        read_eval_spec(str(path))
    return str(caught.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clips": 0}, "field 'suites.0.clips': should be greater than or equal to 1"),
        ({"clip": 3}, "field 'suites.0.clip': unknown; nearest is 'clips'"),
        ({"name": "One thing"}, "field 'suites.0.name': expected small letters, digits"),
        ({"type": "judged"}, "'suites.0': 'type' should be one of 'rendered', 'reconstructed'"),
        ({"given": ["frame"]}, "field 'suites.0.given.0': should be 'first_frame', 'last_frame'"),
        ({"request": {"step": 3}}, "field 'suites.0.request.step': unknown; nearest is 'steps'"),
        ({"request": {"prompt": "a fox"}}, "request.prompt is that of the scene"),
        ({"request": {"video": False}}, "expected clips with a picture"),
        ({"request": {"num_frames": 1}}, "expected clips that move"),
        (
            {"given": ["last_frame"], "request": {"images": [{"path": "a.png"}]}},
            "given last_frame and request.images exclude each other",
        ),
        (
            {"given": ["reference"], "request": {"seconds": 2}},
            "needs the length in request.num_frames, not in seconds",
        ),
    ],
)
def test_a_wrong_suite_is_refused_by_field(tmp_path, changes, message):
    assert message in refusal(tmp_path, ONE | changes)


def test_a_spec_as_a_whole_is_refused_by_field(tmp_path):
    assert "two suites are called 'one'" in refusal(tmp_path, ONE, ONE)
    assert "field 'suites'" in refusal(tmp_path)
    assert "field 'bounds.psnr'" in refusal(tmp_path, ONE, bounds={"psnr": 3})
    assert "field 'prompts': unknown" in refusal(tmp_path, ONE, prompts="a.jsonl")


def test_a_model_is_asked_the_usual_things(tmp_path):
    spec = read_eval_spec("tiny", ["seed=3"], str(tmp_path))
    assert (spec.model, spec.seed, spec.output) == ("tiny", 3, str(tmp_path))
    assert spec.suites == EvalSpec().suites
    (tmp_path / "model.yaml").write_text("model: tiny\ndefaults: {steps: 3}\noutput: elsewhere\n")
    spec = read_eval_spec(str(tmp_path / "model.yaml"))
    assert spec.defaults.steps == 3
    assert spec.output.endswith("runs/eval")


def test_what_is_neither_a_spec_nor_a_model_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no transformer"):
        read_eval_spec(str(tmp_path))
    with pytest.raises(SpecError, match=r"nowhere\.yaml does not exist"):
        read_eval_spec("nowhere.yaml")
    with pytest.raises(SpecError, match="expected 'tiny', a folder of weight files"):
        read_eval_spec("nowhere")
    with pytest.raises(SpecError, match="tiny has no suites"):
        read_eval_spec("tiny", model="tiny")


def test_files_of_suites_start_at_the_spec(tmp_path):
    request = {"loras": [{"path": "pink.safetensors"}], "soundtrack": {"path": "/a/b.wav"}}
    (tmp_path / "eval.yaml").write_text(yaml.safe_dump({"suites": [{**ONE, "request": request}]}))
    (suite,) = read_eval_spec(str(tmp_path / "eval.yaml")).suites
    assert isinstance(suite, RenderedSuite)
    assert suite.request.loras[0].path == str(tmp_path / "pink.safetensors")
    assert suite.request.model_dump(exclude_unset=True).keys() == {"loras", "soundtrack"}


def test_a_quick_look_takes_the_first_clips_of_each_suite():
    spec = EvalSpec().shortened(60)
    assert [suite.clips for suite in spec.suites] == [60, 60, 50]
