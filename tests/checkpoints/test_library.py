"""Adapters by name: in rows, in model specs, and where names come from."""

import json

import pytest
from safetensors.torch import load_file

from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.library import adapter_names, add_adapter, library_folder, named_adapter
from rayreel.checkpoints.tiny import locate_model
from rayreel.config.jobs import ModelSpec, RenderSpec
from rayreel.errors import SpecError
from rayreel.requests.spec import read_render_spec
from rayreel.runs.requests import plan_rows

ROW = {"prompt": "a fox", "width": 64, "height": 64, "num_frames": 9, "pipeline": "one_stage"}


@pytest.fixture(autouse=True)
def library(tmp_path, monkeypatch):
    folder = tmp_path / "library"
    monkeypatch.setenv("RAYREEL_ADAPTERS", str(folder))
    return folder


@pytest.fixture(scope="module")
def files() -> ModelFiles:
    return ModelFiles(locate_model("tiny"))


@pytest.fixture
def style(files, library):
    """An adapter that the library has."""
    assert files.distilled_lora
    return add_adapter("style-a", files.distilled_lora.file.path)


@pytest.fixture
def planned(tmp_path, files):
    def plan(*loras):
        path = tmp_path / "list.jsonl"
        path.write_text(json.dumps(ROW | {"loras": loras}))
        return next(iter(plan_rows(RenderSpec(prompts=str(path)), files))).request

    return plan


def test_a_name_means_the_file_of_that_name(style, library):
    assert style == library / "style-a.safetensors"
    assert named_adapter("style-a") == str(style)
    assert adapter_names() == ["style-a"]


@pytest.mark.parametrize(
    "path", ["a.safetensors", "./style-a", "s3://bucket/style-a", "/x/style-a", "~/a"]
)
def test_paths_stay_as_they_are(style, path):
    assert named_adapter(path) == path


def test_an_unknown_name_is_refused_with_the_nearest_one(style, library):
    with pytest.raises(SpecError, match=r"'stlye' is no adapter .*nearest is 'style-a'.* \./stlye"):
        named_adapter("stlye")


def test_an_empty_library_says_so():
    with pytest.raises(SpecError, match="it has none yet"):
        named_adapter("style")


def test_the_library_is_in_the_users_own_data_by_default(monkeypatch, tmp_path):
    monkeypatch.delenv("RAYREEL_ADAPTERS")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert library_folder() == tmp_path / "rayreel" / "adapters"
    monkeypatch.delenv("XDG_DATA_HOME")
    assert library_folder().parts[-4:] == (".local", "share", "rayreel", "adapters")


def test_a_row_takes_an_adapter_by_name(planned, style):
    assert planned({"path": "style-a", "strength": 0.5}).loras[0].path == str(style)
    assert planned({"path": str(style), "strength": 0.5}) == planned(
        {"path": "style-a", "strength": 0.5}
    )


def test_a_row_with_an_unknown_name_is_refused_by_field(planned, style):
    with pytest.raises(SpecError, match=r"row 1: field 'loras\.1\.path': 'style-b' .* 'style-a'"):
        planned({"path": "style-a"}, {"path": "style-b"})


def test_a_model_spec_takes_adapters_by_name(tmp_path, style):
    model = {"checkpoint": "a.safetensors", "gemma": "g", "loras": [{"path": "style-a"}]}
    spec = tmp_path / "job.yaml"
    spec.write_text(json.dumps({"prompts": "list.jsonl", "model": model}))
    found = read_render_spec(str(spec)).model
    assert isinstance(found, ModelSpec)
    assert found.loras[0].path == str(style)
    with pytest.raises(SpecError, match="'unknown' is no adapter"):
        read_render_spec(str(spec), ["model.distilled_lora={path: unknown}"])


def test_adding_a_name_again_replaces_its_file(style, library, tmp_path):
    other = tmp_path / "other.safetensors"
    other.write_bytes(style.read_bytes()[:100])
    add_adapter("style-a", other)
    assert style.read_bytes() == other.read_bytes()
    assert [path.name for path in library.iterdir()] == ["style-a.safetensors"]


def test_what_is_added_is_the_same_adapter(files, style):
    assert load_file(style).keys() == set(files.distilled_lora.file.names)


@pytest.mark.parametrize("name", ["a/b", "a.b", "", "ü", "x" * 101])
def test_a_name_that_could_be_a_path_is_refused(style, name):
    with pytest.raises(SpecError, match="expected 1 to 100 letters, digits, '-' and '_'"):
        add_adapter(name, style)


def test_a_library_that_cannot_be_written_is_named(style, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RAYREEL_ADAPTERS", str(tmp_path / "file" / "library"))
    with pytest.raises(SpecError, match="RAYREEL_ADAPTERS names another library"):
        add_adapter("style-a", style)
