"""A model without an audio stream, from file to clip."""

import json

import pytest

from rayreel.checkpoints.inspect import describe
from rayreel.checkpoints.networks import check_networks
from rayreel.config.jobs import RenderSpec
from rayreel.errors import SpecError
from rayreel.pipelines import TwoStage
from rayreel.pipelines.ledger import ModelLedger
from rayreel.runs.requests import plan_rows
from tests import layouts
from tests.pipelines.small import DEVICE, small


@pytest.fixture(scope="module")
def silent(tmp_path_factory) -> ModelLedger:
    return ModelLedger(layouts.video_only(tmp_path_factory.mktemp("silent")), DEVICE)


def test_it_renders_a_clip_without_sound(silent):
    check_networks(silent.files)
    clip = TwoStage(silent)(small(audio=False))
    assert clip.audio is None
    assert clip.frames.shape == (9, 64, 128, 3)
    assert clip.frames.float().std() > 1
    assert "Vocoder" not in silent.loads


def test_a_row_that_asks_for_sound_is_refused(silent, tmp_path):
    rows = [{"prompt": "a fox", "audio": True}, {"prompt": "a fox", "audio": False}]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    spec = RenderSpec(prompts=str(tmp_path / "list.jsonl"), model=silent.files.spec)
    with pytest.raises(
        SpecError, match="row 1: field 'audio': this model makes pictures alone"
    ) as e:
        plan_rows(spec, silent.files)
    assert "row 2" not in str(e.value)


def test_its_file_is_told_apart(silent):
    said = describe(silent.files.transformer_file.path)
    assert "video 4 x 32, no audio" in said
    assert "connector of 2 layers" in said
