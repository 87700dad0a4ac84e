"""Specs from YAML: what is read, and the sentences that say what is wrong."""

from pathlib import Path

import pytest

from rayreel.config.jobs import ModelSpec, RenderSpec
from rayreel.config.load import load_spec, parse
from rayreel.errors import SpecError

FILES = {"checkpoint": "a.safetensors", "gemma": "gemma"}


@pytest.fixture
def spec_file(tmp_path: Path) -> Path:
    file = tmp_path / "job.yaml"
    file.write_text("prompts: list.jsonl\nseed: 3\nworkers: {replicas: 2}\n", "utf-8")
    return file


def refusal(**fields) -> str:
    """What is said about a spec with these fields."""
    with pytest.raises(SpecError) as caught:
        parse({"prompts": "list.jsonl", **fields}, RenderSpec, where="job.yaml")
    return str(caught.value)


def test_a_spec_is_read_with_its_defaults(spec_file):
    spec = load_spec(spec_file, RenderSpec)
    assert (spec.prompts, spec.seed, spec.workers.replicas) == ("list.jsonl", 3, 2)
    assert (spec.model, spec.placement, spec.workers.batch_size) == ("tiny", "fused", "auto")


@pytest.mark.parametrize(
    ("fields", "field", "near"),
    [
        ({"sed": 1}, "sed", "seed"),
        ({"model": {**FILES, "checkpont": "b"}}, "model.checkpont", "checkpoint"),
        ({"model": {**FILES, "loras": [{"pth": "b"}]}}, "model.loras.0.pth", "path"),
        ({"workers": {"replica": 2}}, "workers.replica", "replicas"),
        ({"stages": {"decode": {"devise": "cpu"}}}, "stages.decode.devise", "device"),
        ({"defaults": {"num_frame": 9}}, "defaults.num_frame", "num_frames"),
        ({"defaults": {"video_guidance": {"cfg": 2}}}, "defaults.video_guidance.cfg", "cfg_scale"),
    ],
)
def test_an_unknown_field_names_the_nearest_one(fields, field, near):
    assert f"job.yaml: field {field!r}: unknown; nearest is {near!r}" in refusal(**fields)


def test_a_field_that_is_near_to_none_lists_the_known_ones():
    assert "field 'workers.zzz': unknown; known: replicas, max_replicas, " in refusal(
        workers={"zzz": 1}
    )


@pytest.mark.parametrize(
    ("fields", "field", "sentence"),
    [
        ({"model": "big"}, "model", "should be 'tiny' or should be a mapping of fields, got 'big'"),
        ({"model": {"checkpoint": "a"}}, "model.gemma", "required"),
        ({"model": FILES | {"gemma": 3}}, "model.gemma", "should be a valid string, got 3"),
        ({"seed": -1}, "seed", "should be greater than or equal to 0, got -1"),
        ({"placement": "any"}, "placement", "should be 'fused', 'split' or 'auto', got 'any'"),
        ({"workers": 3}, "workers", "should be a mapping of fields, got 3"),
        ({"stages": [1]}, "stages", "should be a mapping, got a list"),
        (
            {"stages": {"vae": {}}},
            "stages.vae",
            "should be 'text', 'stage1', 'stage2' or 'decode', got 'vae'",
        ),
        ({"defaults": {"images": {}}}, "defaults.images", "should be a list, got a mapping"),
        (
            {"defaults": {"prompt": " "}},
            "defaults.prompt",
            "blank; expected at least one word, got ' '",
        ),
    ],
)
def test_a_wrong_value_is_one_sentence(fields, field, sentence):
    assert refusal(**fields) == f"job.yaml: field {field!r}: {sentence}"


@pytest.mark.parametrize("strength", [".nan", ".inf"])
def test_an_adapter_has_a_finite_strength(spec_file, strength):
    overrides = [f"model.distilled_lora={{path: a, strength: {strength}}}"]
    with pytest.raises(SpecError, match=r"'model.distilled_lora.strength': .* finite"):
        load_spec(spec_file, RenderSpec, overrides)


def test_all_faults_are_said_at_once():
    said = refusal(sed=1, model={"checkpoint": 3}, workers={"replicas": 0})
    assert len(said.splitlines()) == 4
    assert all(line.startswith("job.yaml: field '") for line in said.splitlines())


def test_a_long_value_is_cut_short():
    said = refusal(placement="long " * 1000)
    assert len(said) < 200


def test_overrides_win_over_the_file_and_leave_the_rest(spec_file):
    overrides = ["seed=9", "workers.batch_size=4", "model.checkpoint=a", "model.gemma=b"]
    spec = load_spec(spec_file, RenderSpec, overrides)
    assert (spec.seed, spec.workers.replicas, spec.workers.batch_size) == (9, 2, 4)
    assert spec.model == ModelSpec(checkpoint="a", gemma="b")


def test_the_last_override_of_a_field_wins(spec_file):
    assert load_spec(spec_file, RenderSpec, ["seed=1", "seed=2"]).seed == 2


def test_override_values_are_yaml(spec_file):
    overrides = ["defaults={steps: 4, audio: no}", "stages.decode.device=cpu", "output=a=b"]
    spec = load_spec(spec_file, RenderSpec, overrides)
    assert (spec.defaults.steps, spec.defaults.audio) == (4, False)
    assert (spec.stage("decode").device, spec.stage("decode").replicas) == ("cpu", 2)
    assert spec.output == "a=b"


@pytest.mark.parametrize("text", ["seed", "=3", "workers.=3", ".seed=3", "workers..replicas=3"])
def test_an_override_needs_a_key_and_a_value(spec_file, text):
    with pytest.raises(SpecError, match="expected key=value"):
        load_spec(spec_file, RenderSpec, [text])


def test_an_override_that_is_not_yaml_is_named_in_one_line(spec_file):
    with pytest.raises(SpecError, match=r"--set 'seed=\[1': the value is not YAML") as caught:
        load_spec(spec_file, RenderSpec, ["seed=[1"])
    assert "\n" not in str(caught.value)


def test_a_misspelt_override_names_the_nearest_field(spec_file):
    with pytest.raises(SpecError, match=r"'defaults\.step': unknown; nearest is 'steps'"):
        load_spec(spec_file, RenderSpec, ["defaults.step=4"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [", "not readable YAML"),
        (b"\xff\xfe\x00", "not readable YAML"),
        (b"- prompts", "expected a mapping of fields, got list"),
        (b"", "expected a mapping of fields, got NoneType"),
    ],
)
def test_a_file_that_is_no_spec_is_refused(tmp_path, content, message):
    (tmp_path / "job.yaml").write_bytes(content)
    with pytest.raises(SpecError, match=message):
        load_spec(tmp_path / "job.yaml", RenderSpec)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SpecError, match=r"nowhere\.yaml does not exist"):
        load_spec(tmp_path / "nowhere.yaml", RenderSpec)


def test_a_folder_is_no_spec(tmp_path):
    with pytest.raises(SpecError, match="not readable YAML"):
        load_spec(tmp_path, RenderSpec)
