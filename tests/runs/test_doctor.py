"""What the doctor finds in sets of weight files, and what it says of their memory."""

import json
import shutil
from itertools import takewhile
from pathlib import Path
from typing import get_args

import pytest
import torch
import yaml
from safetensors.torch import save_file
from typer.testing import CliRunner

from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.tiny import tiny_spec, write_tiny
from rayreel.cli import app
from rayreel.config.conditions import AdapterSpec
from rayreel.config.jobs import ImageModelSpec, MemorySpec, ModelSetup
from rayreel.config.request import RenderRequest
from rayreel.pipelines.ledger import ComponentName
from rayreel.runs.needs import FUSED, PRECISIONS, stage_needs
from tests.checkpoints.published import shapes
from tests.official_files import write_official
from tests.pipelines.small import resolved

FLOAT32, BFLOAT16, FLOAT8 = PRECISIONS


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny(folder)
    return folder


@pytest.fixture
def copy(tiny, tmp_path):
    return Path(shutil.copytree(tiny, tmp_path / "set"))


def doctor(*arguments):
    return CliRunner().invoke(app, ["doctor", "--model", *map(str, arguments)])


def wrong(result) -> list[str]:
    """The lines under ``wrong:``."""
    lines = result.stdout.splitlines()
    rest = lines[lines.index("wrong:") + 1 :]
    return [line.strip() for line in takewhile(lambda line: line.startswith("  "), rest)]


def named(folder: Path, **changed) -> Path:
    """A model spec that names every file of a tiny set."""
    spec = tiny_spec(folder).model_copy(update=changed).model_dump(exclude_none=True)
    path = folder / "model.yaml"
    path.write_text(yaml.safe_dump({"model": spec}))
    return path


def foreign_lora(path: Path) -> Path:
    halves = {"lora_down": torch.zeros(4, 8), "lora_up": torch.zeros(8, 4)}
    save_file({f"lora_unet_mid_block.{half}.weight": t for half, t in halves.items()}, path)
    return path


def spoil_gemma(folder: Path) -> None:
    config = folder / "gemma-3-tiny" / "config.json"
    config.write_text(config.read_text().replace('"gemma3"', '"gemma2"'))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("spelling", ["folder", "spec", "tiny"])
def test_a_whole_set_is_well(tiny, tmp_path, spelling):
    shutil.copytree(tiny, tmp_path / "set")
    model = {"folder": tmp_path / "set", "spec": named(tmp_path / "set"), "tiny": "tiny"}[spelling]
    result = doctor(model)
    assert result.exit_code == 0
    assert "wrong:" not in result.stdout
    assert result.stdout.endswith("the set is complete and fits this machine\n")


@pytest.mark.parametrize("from_folder", [True, False])
def test_every_fault_of_a_set_is_one_line(copy, from_folder):
    lora = foreign_lora(copy / "foreign.safetensors")
    model = copy if from_folder else named(copy, loras=(AdapterSpec(path=str(lora)),))
    (copy / "ltx-2-tiny-spatial-upscaler-x2.safetensors").unlink()
    spoil_gemma(copy)
    truncate(copy / "ltx-2-tiny-distilled-lora.safetensors")
    result = doctor(model)
    assert result.exit_code == 2
    lines = wrong(result)
    for what in ("upsc|upsampler", "gemma2", "distilled-lora.safetensors is not a", "foreign"):
        assert [line for line in lines if any(part in line for part in what.split("|"))]
    assert "Traceback" not in result.stdout + result.stderr


@pytest.mark.parametrize("from_folder", [True, False])
def test_a_set_without_an_upsampler_cannot_serve_its_default_pipeline(copy, from_folder):
    (copy / "ltx-2-tiny-spatial-upscaler-x2.safetensors").unlink()
    result = doctor(copy if from_folder else named(copy, upsampler=None))
    assert result.exit_code == 2
    (line,) = wrong(result)
    assert line.startswith("upsampler: missing; pipeline two_stage")


def test_an_image_model_is_looked_at_too(copy, tmp_path):
    result = doctor(named(copy, image_model=ImageModelSpec(folder=str(tmp_path / "flux"))))
    assert result.exit_code == 2
    (line,) = wrong(result)
    assert "flux: not a folder on this machine" in line


def test_a_language_model_that_cannot_write_prompts_is_noted(copy):
    assert (
        "prompts cannot be enhanced: the text encoder has no chat template" in doctor(copy).stdout
    )


def test_it_can_serve_another_one(copy):
    (copy / "ltx-2-tiny-spatial-upscaler-x2.safetensors").unlink()
    assert doctor(copy, "--set", "defaults.pipeline=one_stage").exit_code == 0


def test_a_wrong_language_model_is_named_and_not_its_projection(copy):
    spoil_gemma(copy)
    result = doctor(copy)
    assert result.exit_code == 2
    (line,) = wrong(result)
    assert "gemma-3-tiny" in line
    assert "gemma2" in line


def test_other_faults_are_told_where_there_is_no_language_model(copy):
    lora = foreign_lora(copy / "foreign.safetensors")
    shutil.rmtree(copy / "gemma-3-tiny")
    missing, foreign = wrong(doctor(named(copy, loras=(AdapterSpec(path=str(lora)),))))
    assert missing.startswith("gemma: ")
    assert "foreign.safetensors changes none" in foreign


def test_a_checkpoint_without_a_config_is_one_line(copy):
    path = str(copy / "ltx-2-tiny-distilled-lora.safetensors")
    result = doctor(named(copy, checkpoint=path, distilled_lora=None))
    assert result.exit_code == 2
    assert "no config section 'transformer'" in (result.stdout + result.stderr)


@pytest.mark.parametrize("name", ["ltx-2-tiny", "ltx-2-tiny-spatial-upscaler-x2"])
def test_a_truncated_file_is_named(copy, name):
    truncate(copy / f"{name}.safetensors")
    result = doctor(named(copy))
    assert result.exit_code == 2
    assert [line for line in wrong(result) if f"{name}.safetensors is not a safetensors" in line]


def test_a_foreign_adapter_is_named(copy):
    foreign_lora(copy / "foreign.safetensors")
    (line,) = wrong(doctor(copy))
    assert "foreign.safetensors changes none of this model's weights" in line


def test_pieces_of_another_set_are_named(copy, tmp_path):
    other = write_tiny(tmp_path / "other", "2.3")
    result = doctor(named(copy, video_vae=other.checkpoint, vocoder=other.checkpoint))
    assert result.exit_code == 0  # of one width with each other
    spec = json.loads((copy / "gemma-3-tiny" / "config.json").read_text())
    spec["text_config"]["num_hidden_layers"] = 3
    (copy / "gemma-3-tiny" / "config.json").write_text(json.dumps(spec))
    assert "gemma-3-tiny" in wrong(doctor(named(copy)))[0]


def test_a_machine_that_is_too_small_is_told_apart(tiny, monkeypatch):
    monkeypatch.setattr("rayreel.runs.doctor.free_memory", lambda _: 2**20)
    result = doctor(tiny)
    assert result.exit_code == 1
    assert "needs" in result.stdout
    assert "0.000977 GiB are free" in result.stdout


def needs(files: ModelFiles, precision=BFLOAT16, **setup):
    request = RenderRequest(prompt="a fox")
    return stage_needs(ModelSetup(**setup), files, resolved(request, files), precision)


@pytest.mark.parametrize("generation", ["2.0", "2.3"])
def test_memory_of_the_published_sizes_is_that_of_their_weights(official, generation):
    """Tables are float32 in the file and stay so; all else takes two bytes."""
    files = official(generation)
    transformer = shapes(generation, "transformer")
    count = sum(map(_size, transformer.values()))
    tables = sum(_size(shape) for name, shape in transformer.items() if "scale_shift_table" in name)
    found = needs(files)
    assert found["stage1"].weights == 2 * (count + tables) + _connectors(generation)
    decoders = [*shapes(generation, "video decoder").values()]
    decoders += shapes(generation, "audio decoder").values()
    decoders += shapes(generation, "vocoder").values()
    assert found["decode"].weights == 2 * sum(map(_size, decoders))


@pytest.mark.parametrize(("generation", "projections"), [("2.0", 1), ("2.3", 2)])
def test_memory_of_the_text_stage_is_that_of_its_weights(official, generation, projections):
    """Gemma 3 12B has 11.77 billion parameters without its head and what sees pictures."""
    files = official(generation)
    rest = sum(map(_size, shapes(generation, "text projection").values()))
    weights = needs(files)["text"].weights
    assert len([n for n in files.text_file.names if "aggregate_embed.weight" in n]) == projections
    assert (weights - 2 * rest) / 2 == pytest.approx(11.766e9, rel=1e-4)


def test_float8_halves_the_blocks(official):
    whole, halved = (needs(official("2.3"), p)["stage1"].weights for p in (BFLOAT16, FLOAT8))
    connectors = _connectors("2.3")
    assert 0.5 < (halved - connectors) / (whole - connectors) < 0.55


def test_streamed_blocks_leave_the_device_free(official):
    files = official("2.0")
    offload = MemorySpec(transformer="offload", text_connectors="offload")
    streamed = needs(files, memory=offload)["stage1"]
    resident = needs(files)["stage1"]
    assert streamed.weights < resident.weights / 10
    assert streamed.host == resident.weights
    assert needs(files, memory=MemorySpec(transformer="disk"))["stage1"].host == 0


def test_stages_in_one_worker_add_up_what_stays(official):
    files = official("2.0")
    apart, together = needs(files, placement="split"), needs(files)
    assert FUSED not in apart
    # Without a distilled adapter, both denoising stages have the same transformer; texts are
    # encoded before, by others.
    total = sum(apart[name].weights for name in ("stage2", "decode"))
    assert together[FUSED].weights == total
    passing = needs(files, memory=dict.fromkeys(get_args(ComponentName), "per_call"))
    # The largest network of all is the transformer.
    assert passing[FUSED].weights == apart["stage1"].weights - _connectors("2.0")


def test_a_director_needs_the_language_model_where_clips_are_denoised(official):
    files = official("2.3")
    fields = {"prompt": "a fox", "num_frames": 241, "chain": {"chunk_frames": 121}}
    plain, directed = (
        stage_needs(
            ModelSetup(),
            files,
            resolved(RenderRequest.model_validate({**fields, "enhance": enhance}), files),
            BFLOAT16,
        )
        for enhance in (False, True)
    )
    for name in ("stage1", FUSED):
        assert directed[name].weights - plain[name].weights == plain["text"].weights


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """Sets of the published sizes, without their values."""
    made: dict[str, ModelFiles] = {}

    def files(generation: str) -> ModelFiles:
        if generation not in made:
            folder = tmp_path_factory.mktemp(f"official-{generation}")
            made[generation] = ModelFiles(write_official(folder, generation))
        return made[generation]

    return files


def _connectors(generation: str) -> int:
    """Bytes of the text connectors in bfloat16."""
    parts = ("video connector", "audio connector")
    return 2 * sum(_size(shape) for part in parts for shape in shapes(generation, part).values())


def _size(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel()
