"""The command line: exit codes, what is printed, and where."""

import importlib.metadata
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.core import TyperArgument, TyperGroup, TyperOption
from typer.main import get_command
from typer.testing import CliRunner

from rayreel.checkpoints.tiny import locate_model
from rayreel.cli import app
from rayreel.config.jobs import ModelSpec

COMMANDS = (
    *("render", "plan", "submit", "attach", "stop", "view"),
    *("encode", "explain", "export", "import", "inspect"),
    *("train", "pretrain", "assemble", "eval", "convert", "report", "publish"),
    *("serve", "keys", "loadtest"),
    *("tiny", "world", "doctor"),
)
ROW = {"prompt": "a fox", "width": 128, "height": 64, "num_frames": 9}


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refusal(*arguments):
    """What is said on stderr when a command stops with exit code 2."""
    result = call(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("rayreel: ")
    assert "Traceback" not in result.stderr
    return result.stderr


@pytest.fixture(scope="session")
def tiny() -> ModelSpec:
    return locate_model("tiny")


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "list.jsonl"
    path.write_text(f"{json.dumps(ROW)}\n{json.dumps(ROW)}\n", "utf-8")
    return path


def test_a_dry_run_counts_rows_and_clips_and_writes_nothing(prompts, tmp_path):
    result = call("render", prompts, "--dry-run", "-o", tmp_path / "out")
    assert result.exit_code == 0
    assert result.stdout == "2 rows, 1 clips: all of them are valid\n"
    assert not (tmp_path / "out").exists()


def test_overrides_reach_the_rows(prompts):
    said = refusal("render", prompts, "--dry-run", "--set", "model.checkpoint=a.safetensors")
    assert "'model.gemma': required" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.yaml"], "nowhere.yaml does not exist"),
        (["nowhere.jsonl"], "cannot read"),
        (["nowhere.txt"], "expected a spec"),
    ],
)
def test_a_missing_or_unknown_file_is_one_line(arguments, message):
    said = refusal("render", *arguments)
    assert message in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("override", ["seed", "sed=1", "seed=[", "seed=-1", "stages.vae={}"])
def test_a_wrong_override_is_one_line(prompts, override):
    said = refusal("render", prompts, "--dry-run", "--set", override)
    assert len(said.splitlines()) == 1


def test_all_faulty_rows_are_said(prompts):
    faulty = [{**ROW, "width": 100}, ROW, {**ROW, "video_guidance": {"cfg_scale": -1}}]
    prompts.write_text("".join(f"{json.dumps(row)}\n" for row in faulty), "utf-8")
    first, second, third = refusal("render", prompts, "--dry-run").splitlines()
    assert first == f"rayreel: {prompts}:"
    assert "row 1: field 'width': 100 is not a multiple of 64" in second
    assert "row 3: field 'video_guidance.cfg_scale': should be greater" in third


def test_wrong_weights_are_found_before_anything_starts(prompts, tiny, tmp_path):
    model = {**tiny.model_dump(), "checkpoint": tiny.upsampler}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump({"prompts": "list.jsonl", "model": model}))
    said = refusal("render", tmp_path / "job.yaml", "-o", tmp_path / "out")
    assert "no config section 'transformer'" in said
    assert not (tmp_path / "out").exists()


def test_tiny_prints_the_files_as_a_spec_names_them(tmp_path, prompts, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call("tiny", "made")
    assert result.exit_code == 0
    model = yaml.safe_load(result.stdout)["model"]
    assert Path(model["checkpoint"]) == tmp_path / "made" / "ltx-2-tiny.safetensors"
    job = {"prompts": str(prompts), "model": model}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job), "utf-8")
    assert call("render", "job.yaml", "--dry-run").exit_code == 0


def test_tiny_does_not_list_what_else_the_folder_holds(tmp_path):
    (tmp_path / "letter.txt").touch()
    assert "letter" not in call("tiny", tmp_path).stdout


def test_tiny_says_where_it_cannot_write(tmp_path):
    (tmp_path / "file").touch()
    assert "cannot write the tiny model" in refusal("tiny", tmp_path / "file")


@pytest.mark.parametrize(
    ("field", "kind"),
    [
        ("checkpoint", "LTX-2 checkpoint"),
        ("upsampler", "latent upsampler"),
        ("distilled_lora", "LoRA"),
        ("gemma", "Gemma text encoder"),
    ],
)
def test_inspect_tells_what_a_file_is(tiny, field, kind):
    value = getattr(tiny, field)
    path = {"distilled_lora": tiny.distilled_lora.path, "gemma": f"{tiny.gemma}/model.safetensors"}
    result = call("inspect", path.get(field, value))
    assert result.exit_code == 0
    assert f"kind           {kind}\n" in result.stdout


def test_inspect_refuses_other_files(tmp_path, tiny):
    shutil.copy(tiny.gemma + "/config.json", tmp_path / "a.safetensors")
    assert "is not a safetensors file" in refusal("inspect", tmp_path / "a.safetensors")
    assert "does not exist" in refusal("inspect", tmp_path / "nowhere.safetensors")


def test_inspect_refuses_folders_that_are_no_dataset(tmp_path):
    assert "is not a dataset: it has no dataset.json" in refusal("inspect", tmp_path)


@pytest.mark.parametrize("arguments", [["render"], ["render", "a", "--frames", "9"], ["paint"]])
def test_a_mistyped_command_line_is_exit_code_2(arguments):
    result = call(*arguments)
    assert result.exit_code == 2
    assert "Usage: rayreel" in result.stderr


def test_version():
    result = call("--version")
    assert (result.exit_code, result.stdout) == (
        0,
        f"rayreel {importlib.metadata.version('rayreel')}\n",
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_help_ends_with_an_example_on_lines_of_its_own(command):
    lines = call(command, "--help").stdout.splitlines()
    examples = [line.strip() for line in lines[lines.index("  Example:") + 1 :]]
    assert examples
    assert all(line.startswith("rayreel ") for line in examples)
    assert any(line.startswith(f"rayreel {command} ") for line in examples)


def test_help_says_what_every_argument_and_option_is_for():
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    assert set(group.commands) == set(COMMANDS)
    keys = group.commands["keys"]
    assert isinstance(keys, TyperGroup)
    inner = {("keys", name): command for name, command in keys.commands.items()}
    for words, command in ({(name,): one for name, one in group.commands.items()} | inner).items():
        # Long ones take several lines.
        text = " ".join(call(*words, "--help").stdout.split())
        assert command.help
        for parameter in command.params:
            assert isinstance(parameter, TyperArgument | TyperOption)
            assert parameter.help
            assert parameter.help in text


def test_help_does_not_wait_for_torch_and_ray():
    code = (
        "import sys; from typer.testing import CliRunner; from rayreel.cli import app;"
        "CliRunner().invoke(app, ['--help']); CliRunner().invoke(app, ['render', '--help']);"
        "sys.exit(any(name in sys.modules for name in ('torch', 'ray', 'transformers')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("share", ["5 percent", "101%", "-0.1", "nan"])
def test_a_budget_that_is_no_share_is_refused(prompts, share):
    result = call("render", prompts, "--error-budget", share)
    assert result.exit_code == 2
    assert "is no share" in result.stderr


def test_a_job_is_not_submitted_with_an_output_of_this_machine():
    assert "expected an absolute path or a URI" in refusal("submit", "a.yaml", "-o", "runs/a")


def test_a_folder_without_a_run_is_not_shown(tmp_path):
    assert "has no index.html" in refusal("view", tmp_path)


@pytest.mark.parametrize("output", ["/proc/run", "nowhere://run"])
def test_an_output_that_cannot_be_written_is_refused(output, repository):
    said = refusal("render", repository / "manifests/demo.yaml", "-o", output)
    assert f"output {output} cannot be a run directory" in said
