"""A network that learns from scratch: it gets better, goes on exactly, and is read as any other."""

from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from rayreel.checkpoints import keys
from rayreel.cli import app
from rayreel.config.model import VideoVAEConfig
from rayreel.config.presets import TINY_CONFIG, TINY_UPSAMPLER_CONFIG
from rayreel.data.storage import Storage
from rayreel.models.video_vae import VideoDecoder, VideoEncoder
from rayreel.training.pretraining.part import read_network
from rayreel.training.pretraining.video_vae import VideoVAEPart
from rayreel.training.tracking import read_metrics

STEPS = 4
STRETCHES = [
    {"steps": 2, "batch_size": 2, "size": 64, "num_frames": 1},
    {"steps": 2, "batch_size": 1, "size": 64, "num_frames": 1},
]


def write_spec(folder: Path, **fields) -> Path:
    architecture = {**TINY_CONFIG, "upsampler": TINY_UPSAMPLER_CONFIG}
    (folder / "architecture.yaml").write_text(yaml.safe_dump(architecture))
    spec = {
        "part": "video_vae",
        "architecture": "architecture.yaml",
        "stretches": STRETCHES,
        "optimization": {"learning_rate": 1e-3, "ema": 0.5},
        "checkpoint_interval": 3,
        **fields,
    }
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec))
    return folder / "spec.yaml"


def pretrain(spec: Path, output: Path, *options: str):
    command = ["pretrain", str(spec), "-o", str(output), *options]
    return CliRunner().invoke(app, command)


@pytest.fixture(scope="module", autouse=True)
def few_clips():
    """Weights that begin as those of a linear code, of fewer clips than is good."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rayreel.training.pretraining.video_vae._BEGUN_WITH", 1)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Output of a run that nothing stopped."""
    folder = tmp_path_factory.mktemp("pretrain")
    result = pretrain(write_spec(folder), folder / "run")
    assert result.exit_code == 0, result.output
    return folder / "run"


def test_every_step_is_told(run):
    lines = read_metrics(Storage(str(run)))
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert {"loss", "psnr", "learning_rate", "grad_norm", "seconds"} <= lines[0].keys()


def test_both_halves_are_read_from_its_file(run):
    path = str(run / "video_vae.safetensors")
    encoder = read_network(path, "vae", VideoVAEConfig, VideoEncoder, keys.VIDEO_ENCODER)
    decoder = read_network(path, "vae", VideoVAEConfig, VideoDecoder, keys.VIDEO_DECODER)
    clip = torch.zeros(1, 3, 9, 64, 64)
    assert decoder(encoder(clip)).shape == clip.shape
    assert encoder.per_channel_statistics.get_buffer("std-of-means").min() > 0


def test_a_run_that_goes_on_learns_what_one_learns_that_was_never_stopped(run, tmp_path):
    spec = write_spec(tmp_path)
    # As if it had been killed after the fourth step, with the checkpoint of the third.
    assert pretrain(spec, tmp_path / "run").exit_code == 0
    (tmp_path / "run" / "video_vae.safetensors").unlink()
    assert pretrain(spec, tmp_path / "run").exit_code == 0
    name = "video_vae.safetensors"
    again, whole = load_file(tmp_path / "run" / name), load_file(run / name)
    assert again.keys() == whole.keys()
    assert all(torch.equal(again[key], whole[key]) for key in whole)


def test_a_section_that_is_missing_or_wrong_is_named(tmp_path):
    spec = write_spec(tmp_path)
    for sections, said in (
        ({"upsampler": {}}, "has no section vae; it has upsampler"),
        ({"vae": {"latent_channels": "many"}}, "latent_channels"),
    ):
        (tmp_path / "architecture.yaml").write_text(yaml.safe_dump(sections))
        result = pretrain(spec, tmp_path / "run")
        assert result.exit_code == 2
        assert said in result.stderr


def test_a_directory_of_another_spec_is_left_alone(run, tmp_path):
    result = pretrain(write_spec(tmp_path, seed=1), run)
    assert result.exit_code == 2
    assert "is one of another spec" in result.stderr


def test_a_video_vae_may_stay_the_linear_code_that_it_begins_as(tmp_path):
    output = tmp_path / "run"
    result = pretrain(write_spec(tmp_path, stretches=[], optimization={}), output)
    assert result.stdout.startswith("video_vae is fitted")
    begun = VideoVAEPart(TINY_CONFIG["vae"], seed=0)
    begun.begin()
    wanted = begun.encoder.conv_out.conv.weight.to(torch.bfloat16)
    written = load_file(output / "video_vae.safetensors")["vae.encoder.conv_out.conv.weight"]
    torch.testing.assert_close(written, wanted, atol=0, rtol=0)


def test_an_upsampler_learns_from_a_trained_vae(run, tmp_path):
    inputs = {"video_vae": str(run / "video_vae.safetensors")}
    stretches = [{"steps": 2, "size": 64, "num_frames": 9}]
    spec = write_spec(tmp_path, part="upsampler", inputs=inputs, stretches=stretches)
    result = pretrain(spec, tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert load_file(tmp_path / "run" / "upsampler.safetensors")


def test_an_upsampler_without_residual_blocks_may_be_fitted(run, tmp_path, monkeypatch):
    monkeypatch.setattr("rayreel.training.pretraining.upsampler._FITTED_TO", 2)
    inputs = {"video_vae": str(run / "video_vae.safetensors")}
    values = {"part": "upsampler", "inputs": inputs, "stretches": [], "optimization": {}}
    spec = write_spec(tmp_path, **values)
    refused = pretrain(spec, tmp_path / "run")
    assert refused.exit_code == 2
    assert "num_blocks_per_stage 0, is fitted without steps" in refused.stderr
    plain = {"mid_channels": 96, "num_blocks_per_stage": 0, "rational_resampler": False}
    section = {**TINY_UPSAMPLER_CONFIG, **plain}
    (tmp_path / "architecture.yaml").write_text(yaml.safe_dump({"upsampler": section}))
    fitted = pretrain(spec, tmp_path / "run")
    assert fitted.stdout.startswith("upsampler is fitted"), fitted.stderr
    written = load_file(tmp_path / "run" / "upsampler.safetensors")
    assert written["upsampler.0.weight"].any()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"part": "transformer"}, "part"),
        ({"stretches": []}, "optimization has no effect without stretches"),
        ({"part": "audio_vae", "stretches": []}, "learns step by step; expected stretches"),
        ({"stretches": [{"steps": 1, "num_frames": 8}]}, "8k + 1"),
        ({"part": "upsampler"}, "inputs.video_vae"),
        ({"inputs": {"audio_vae": "a.safetensors"}}, "inputs.audio_vae is not read"),
        ({"optimization": {"steps": 9}}, "optimization.steps is that of the stretches"),
    ],
)
def test_a_wrong_spec_is_refused_by_its_field(tmp_path, fields, said):
    result = pretrain(write_spec(tmp_path, **fields), tmp_path / "run")
    assert result.exit_code == 2
    assert said in result.stderr
