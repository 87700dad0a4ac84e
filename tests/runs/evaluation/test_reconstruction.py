"""Drawn clips through the autoencoders of the tiny model, which have learnt nothing."""

import json

import pytest
from typer.testing import CliRunner

from rayreel.cli import app
from rayreel.media.video import read_clip
from tests.runs.evaluation.drawn import write_spec

SUITE = {"type": "reconstructed", "name": "again", "clips": 2, "width": 64, "height": 64}


def call(path, output, *options):
    return CliRunner().invoke(app, ["eval", str(path), "-o", str(output), *options])


@pytest.fixture(scope="module")
def reconstructed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reconstructed")
    path, output = write_spec(folder, SUITE), folder / "run"
    return path, output, call(path, output)


def test_likeness_and_attributes_are_those_of_noise(reconstructed):
    _, output, said = reconstructed
    assert said.exit_code == 0, said.output
    (suite,) = json.loads((output / "evaluation.json").read_text())["suites"]
    assert suite["attributes"]["right"]["right"] == 0
    assert suite["attributes"].keys() >= {"size", "background", "reference"}
    assert 0 < suite["numbers"]["psnr_db"]["mean"] < 15
    assert suite["numbers"]["ssim"]["mean"] < 0.5
    assert suite["numbers"]["mel_l1"]["mean"] > 0.5


def test_the_source_is_beside_what_became_of_it(reconstructed):
    _, output, said = reconstructed
    lines = [json.loads(line) for line in (output / "evaluation.jsonl").read_text().splitlines()]
    for line in lines:
        clip = read_clip(output / line["path"])
        assert clip.frames.shape == (25, 64, 128, 3)
        assert clip.audio
    assert "<span>drawn</span><span>decoded</span>" in (output / "evaluation.html").read_text()
    assert "reconstructing: 100%" in said.stderr


def test_a_second_call_adds_what_is_missing_and_removes_what_is_not_asked_for(reconstructed):
    path, output, _ = reconstructed
    assert "(nothing new)" in call(path, output).stdout
    assert "(1 judged in" in call(path, output, "--set", "seed=1", "--clips", "1").stdout
    assert len(list((output / "reconstructed").iterdir())) == 1
