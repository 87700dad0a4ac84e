"""Every spec and every prompt list of the repository is valid, and every field is documented."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pydantic import BaseModel

from rayreel.config.buckets import Bucket
from rayreel.config.encode import CaptionSpec, ColumnSpec, EncodeSpec
from rayreel.config.jobs import MemorySpec, ModelSpec, RenderSpec, StageName, StageSpec
from rayreel.config.load import load_spec, parse, read_mapping
from rayreel.config.pretrain import PartName
from rayreel.config.request import RequestFields
from rayreel.config.sampling import Guidance
from rayreel.config.serving import QueueSpec, ServeSpec
from rayreel.config.strategies import Condition
from rayreel.config.train import (
    AccelerationSpec,
    OptimizationSpec,
    TimestepSpec,
    TrainCheckpointSpec,
    TrainSpec,
    ValidationSpec,
)
from rayreel.data.buckets import choose_bucket
from rayreel.diffusion.guiders import GUIDERS
from rayreel.diffusion.samplers import SAMPLERS
from rayreel.diffusion.schedulers import SCHEDULERS
from rayreel.media.measures import MEASURES
from rayreel.pipelines import PIPELINE_CLASSES
from rayreel.pipelines.choice import GENERAL
from rayreel.requests.models import checked_model
from rayreel.requests.spec import (
    read_encode_spec,
    read_eval_spec,
    read_model,
    read_pretrain_spec,
    read_render_spec,
    read_serve_spec,
    read_train_spec,
)
from rayreel.runs.bench import BenchSpec
from rayreel.runs.encoding.opened import check
from rayreel.runs.evaluation.scenes import render_job, suite_rows, write_job
from rayreel.runs.opened import plan
from rayreel.runs.report.results import SCHEMA
from rayreel.runs.training.validation_rows import validation_requests
from rayreel.training.saving import weights_name

MANIFESTS = Path(__file__).parents[2] / "manifests"
BENCHES = sorted((MANIFESTS / "bench").glob("*.yaml"))
MODELS = sorted((MANIFESTS / "models").glob("*.yaml"))
# What starts clusters is checked by test_deployment.py, and the dashboard by the test of metrics.
CLUSTERS = sorted((MANIFESTS / "kuberay").glob("*.yaml"))
DATASET = MANIFESTS / "dataset.yaml"
TINY_TRAININGS = sorted(MANIFESTS.glob("train*.yaml"))
TRAININGS = sorted((MANIFESTS / "train").glob("*.yaml"))
SERVICES = sorted((MANIFESTS / "serving").glob("*.yaml"))
NANO = MANIFESTS / "nano"
PRETRAININGS = sorted(path for path in NANO.glob("*.yaml") if path.stem in get_args(PartName))
EVALS = sorted(NANO.glob("eval*.yaml"))
_LEARNED = ("train-half", "train-layout", "train", "distilled")
NANO_TRAININGS = sorted(NANO / f"{stem}.yaml" for stem in _LEARNED)
RENDERS = sorted(
    {*MANIFESTS.rglob("*.yaml"), *MANIFESTS.rglob("*.jsonl")}
    - {*BENCHES, *MODELS, *CLUSTERS, *TINY_TRAININGS, *TRAININGS, *SERVICES, DATASET}
    - {*PRETRAININGS, *EVALS, *NANO_TRAININGS, NANO / "architecture.yaml", NANO / "encode.yaml"}
)
# Names of the published files, and of the folder of both generations' text encoder.
PUBLISHED = {
    "gemma-3-12b-it-qat-q4_0-unquantized",
    *(
        f"ltx-2-19b-{kind}{fp8}.safetensors"
        for kind in ("dev", "distilled")
        for fp8 in ("", "-fp8")
    ),
    "ltx-2-19b-distilled-lora-384.safetensors",
    "ltx-2-spatial-upscaler-x2-1.0.safetensors",
    *(f"ltx-2.3-22b-{kind}.safetensors" for kind in ("dev", "distilled", "distilled-1.1")),
    *(f"ltx-2.3-22b-distilled-lora-384{version}.safetensors" for version in ("", "-1.1")),
    *(f"ltx-2.3-spatial-upscaler-x2-1.{minor}.safetensors" for minor in (0, 1)),
}


def name(path: Path) -> str:
    return str(path.relative_to(MANIFESTS))


@pytest.mark.parametrize("path", RENDERS, ids=name)
def test_render_jobs_are_valid(path):
    _, rows = plan(read_render_spec(str(path)))
    assert rows


@pytest.mark.parametrize("path", PRETRAININGS, ids=name)
def test_networks_learn_from_scratch_by_valid_specs(path):
    spec = read_pretrain_spec(str(path))
    assert spec.part == path.stem
    assert read_mapping(Path(spec.architecture))["transformer"]


@pytest.mark.parametrize("path", EVALS, ids=name)
def test_evaluations_ask_for_clips_that_models_can_make(path, tmp_path):
    spec = read_eval_spec(str(path), output=str(tmp_path), model="tiny").shortened(1)
    rows = suite_rows(spec)
    write_job(render_job(spec), rows)
    _, planned = plan(render_job(spec))
    assert [row.name for row in planned] == [row.name for row in rows]


def test_a_row_goes_to_every_pipeline_that_the_tiny_model_has():
    _, rows = plan(read_render_spec(str(MANIFESTS / "modes.yaml")))
    assert {row.request.pipeline for row in rows} == PIPELINE_CLASSES.keys() - {"image"}


@pytest.fixture
def demo_list(tmp_path):
    """What a run leaves of the demo's clips, as a list; the clips themselves are not there."""
    _, rows = plan(read_render_spec(str(MANIFESTS / "demo.yaml")))
    requests = [row.request for row in rows]
    records = [
        {
            **dict.fromkeys(SCHEMA.names),
            **{field: getattr(request, field) for field in ("width", "height", "num_frames")},
            "name": "a row",
            "output": "videos/clip.mp4",
            "prompt": request.prompt,
            "audio": True,
        }
        for request in requests
    ]
    pq.write_table(pa.Table.from_pylist(records, SCHEMA), tmp_path / "results.parquet")
    return tmp_path / "results.parquet"


def test_the_dataset_takes_every_clip_of_the_demo(demo_list):
    as_written = read_encode_spec(str(DATASET))
    demo = Path(read_render_spec(str(MANIFESTS / "demo.yaml")).output)
    assert Path(as_written.dataset).resolve() == MANIFESTS.parent / "runs" / "demo" / demo_list.name
    assert demo.parts[-2:] == ("runs", "demo")
    spec = read_encode_spec(str(DATASET), [f"dataset={demo_list}"])
    _, rows = check(spec)
    assert [(row.fault, row.name, [*row.media]) for row in rows] == [("", "a row", ["video"])] * 7
    assert all(row.caption for row in rows)
    sizes = pq.read_table(demo_list, columns=["width", "height", "num_frames"]).to_pylist()
    chosen = {choose_bucket(spec.buckets, **size) for size in sizes}
    assert chosen == {*spec.buckets}


def test_the_dataset_has_references_where_the_in_context_adapter_s_does(demo_list):
    changes = re.findall(r"--set (\S+)", (MANIFESTS / "train-ic-lora.yaml").read_text("utf-8"))
    _, rows = check(read_encode_spec(str(DATASET), [f"dataset={demo_list}", *changes]))
    assert {(row.fault, *sorted(row.media)) for row in rows} == {("", "reference_video", "video")}


@pytest.mark.parametrize("path", [*TINY_TRAININGS, *TRAININGS, *NANO_TRAININGS], ids=name)
def test_validation_of_trainings_is_valid(path):
    spec = read_train_spec(str(path), model="tiny")
    video = spec.strategy.streams().video
    scales = (1, 1) if video and video.has_reference else None
    files = checked_model("tiny")
    requests = validation_requests(spec, files, str(path.parent), reference_scales=scales)
    assert len(requests) == len(spec.validation.rows) > 0


@pytest.mark.parametrize("path", TINY_TRAININGS, ids=name)
def test_tiny_trainings_learn_from_the_demo(path):
    spec = read_train_spec(str(path))
    assert spec.model == "tiny"
    written_by = {str(Path("datasets", folder).absolute()) for folder in ("demo", "references")}
    assert spec.dataset in written_by


@pytest.mark.parametrize("path", NANO_TRAININGS, ids=name)
def test_trainings_of_the_recipe_learn_from_what_is_encoded_for_them(path):
    """What one reads of datasets and weights, commands before it in the manual have written."""
    recipe, _, _ = (
        (MANIFESTS / "README.md")
        .read_text("utf-8")
        .partition(f"rayreel train manifests/nano/{path.name}")
    )
    encoded = read_encode_spec(str(NANO / "encode.yaml"))
    outputs = {str(Path(one).absolute()) for one in re.findall(r" -o (datasets/\S+)", recipe)}
    outputs |= {encoded.output}
    (start,) = re.findall(r"-o (\S+start\.safetensors)", recipe)
    weights = {MANIFESTS.parent / start}
    for before in re.findall(r"rayreel train manifests/nano/(\S+)", recipe):
        earlier = read_train_spec(str(NANO / before))
        weights.add(Path(earlier.output, weights_name(earlier.optimization.steps)))
    spec = read_train_spec(str(path))
    assert spec.dataset in outputs
    assert isinstance(spec.model, ModelSpec)
    assert isinstance(encoded.model, ModelSpec)
    assert spec.model.gemma == encoded.model.gemma
    named = [spec.model.checkpoint, *([spec.start] if spec.start else [])]
    assert {Path(str(one)).resolve() for one in named} <= weights


@pytest.mark.parametrize("path", TRAININGS, ids=name)
def test_trainings_name_a_published_model(path):
    spec = read_train_spec(str(path), ["model.folder=/weights"])
    assert isinstance(spec.model, ModelSpec)
    assert Path(str(spec.model.checkpoint)).name in PUBLISHED
    assert path.stem == f"ltx-2.3-{Path(spec.output).name}"


@pytest.mark.parametrize("path", BENCHES, ids=name)
def test_benchmarks_are_valid(path):
    assert load_spec(path, BenchSpec).cases


@pytest.mark.parametrize("path", MODELS, ids=name)
def test_model_specs_name_published_files_in_one_folder(path):
    setup = read_model(str(path), ["model.folder=/weights"])
    assert isinstance(setup.model, ModelSpec)
    adapter = setup.model.distilled_lora
    files = [setup.model.checkpoint, setup.model.gemma, setup.model.upsampler]
    paths = [Path(file) for file in [*files, adapter and adapter.path] if file]
    assert {file.parent for file in paths} == {Path("/weights")}
    assert {file.name for file in paths} <= PUBLISHED
    pipeline = PIPELINE_CLASSES[setup.defaults.pipeline or GENERAL].traits
    assert all(getattr(setup.model, need) for need in pipeline.needs)
    assert {stage: setup.stage(stage).gpus for stage in setup.stages}.keys() == {
        *get_args(StageName)
    }


def test_every_file_is_of_a_kind_that_is_checked():
    files = {path for path in MANIFESTS.rglob("*") if path.is_file()}
    kinds = {path.suffix for path in files if path.parent != MANIFESTS / "grafana"}
    texts, media = {".yaml", ".jsonl", ".md"}, {".png", ".jpg", ".mp4", ".wav"}
    assert kinds <= texts | media | {".safetensors"}


def fields(kind: type[BaseModel], known: set[type]) -> Iterator[str]:
    """Fields by dotted name; those of a model that several fields hold once, at the first."""
    known.add(kind)
    for field, info in kind.model_fields.items():
        yield field
        for inner in set(models_in(info.annotation)) - known:
            yield from (f"{field}.{name}" for name in fields(inner, known))


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from models_in(part)


@pytest.fixture(scope="module")
def sections():
    """Text of the manual by heading."""
    _, *parts = re.split(r"^## (.*)\n", (MANIFESTS / "README.md").read_text("utf-8"), flags=re.M)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_the_manual_lists_every_field_of_a_row(sections):
    assert cells(sections["Prompt lists"]) == sorted(["id", *fields(RequestFields, set())])


def cells(section: str) -> list[str]:
    """Names in the first cells of a section's tables."""
    found = re.findall(r"^\| ([^|]*) \|", section, re.M)
    return sorted(field for cell in found for field in re.findall(r"`([^`]+)`", cell))


def test_the_manual_lists_every_column_of_a_dataset_list(sections):
    usual = [field.default for field in ColumnSpec.model_fields.values()]
    assert cells(sections["Dataset lists"]) == sorted([*usual, "media_path", "ref_media_path"])


def test_the_manual_lists_every_field_of_a_dataset_spec(sections):
    elsewhere: set[type] = {ModelSpec, MemorySpec, StageSpec, Bucket}
    assert cells(sections["Dataset specs"]) == sorted({*fields(EncodeSpec, elsewhere)})


def test_the_manual_lists_every_field_of_a_training_spec(sections):
    elsewhere: set[type] = {ModelSpec, RequestFields, Guidance}
    assert cells(sections["Training specs"]) == sorted({*fields(TrainSpec, elsewhere)})


def test_the_manual_lists_every_field_of_a_service(sections):
    elsewhere: set[type] = {ModelSpec, RequestFields, MemorySpec, StageSpec}
    listed = {*cells(sections["Service specs"])}
    parts = {"queue", "requests", "scaling", "uploads"}
    assert listed | parts == {*fields(ServeSpec, elsewhere)}


def test_the_example_of_a_service_is_one(sections):
    (example,) = re.findall(r"^```yaml\n(.*?)^```", sections["Service specs"], re.M | re.S)
    values = {**yaml.safe_load(example), "model": "tiny", "placement": "split"}
    assert parse(values, ServeSpec, where="the example").scaling.idle_s == 1800


@pytest.mark.parametrize("path", SERVICES, ids=name)
def test_services_are_valid(path):
    spec = read_serve_spec(str(path), ["model.folder=/weights"] if "ltx" in path.stem else [])
    assert spec.database_url.startswith("sqlite:///")


def test_the_manual_names_every_condition_of_a_training_spec(sections):
    kinds = {kind.model_fields["type"].default for kind in get_args(get_args(Condition)[0])}
    assert len(kinds) == 6
    assert kinds <= set(re.findall(r"`(\w+)`", sections["Training specs"]))


def test_the_example_of_a_training_spec_is_one(sections):
    (example,) = re.findall(r"^```yaml\n(.*?)^```", sections["Training specs"], re.M | re.S)
    values = {**yaml.safe_load(example), "model": "tiny"}
    assert parse(values, TrainSpec, where="the example").workers.bounds == (1, 4)


def test_the_example_of_a_dataset_spec_is_one(sections):
    (example,) = re.findall(r"^```yaml\n(.*?)^```", sections["Dataset specs"], re.M | re.S)
    values = {**yaml.safe_load(example), "model": "tiny"}
    assert parse(values, EncodeSpec, where="the example").filters.keys() <= MEASURES.keys()


@pytest.mark.parametrize(
    ("field", "choices"),
    [
        ("pipeline", PIPELINE_CLASSES),
        ("scheduler", SCHEDULERS),
        ("sampler", SAMPLERS),
        ("video_guidance.method", GUIDERS),
    ],
)
def test_the_manual_names_every_choice(sections, field, choices):
    (row,) = re.findall(rf"^\| `{re.escape(field)}` \|.*$", sections["Prompt lists"], re.M)
    assert choices.keys() <= set(re.findall(r"`([^`]+)`", row))


@pytest.mark.parametrize(
    ("heading", "kind"),
    [
        ("Specs", RenderSpec),
        ("Specs", StageSpec),
        ("Models", ModelSpec),
        ("Memory", MemorySpec),
    ],
)
def test_the_manual_names_every_field_of_a_spec(sections, heading, kind):
    assert kind.model_fields.keys() <= set(re.findall(r"\w+", sections[heading]))


@pytest.mark.parametrize(
    ("heading", "prefix", "kind"),
    [
        ("Specs", "", RenderSpec),
        ("Specs", "workers.", StageSpec),
        ("Dataset specs", "", EncodeSpec),
        ("Dataset specs", "captions.", CaptionSpec),
        ("Service specs", "", ServeSpec),
        ("Service specs", "queue.", QueueSpec),
        ("Training specs", "", TrainSpec),
        ("Training specs", "timesteps.", TimestepSpec),
        ("Training specs", "optimization.", OptimizationSpec),
        ("Training specs", "acceleration.", AccelerationSpec),
        ("Training specs", "checkpoints.", TrainCheckpointSpec),
        ("Training specs", "validation.", ValidationSpec),
    ],
)
def test_the_manual_states_the_defaults_of_a_spec(sections, heading, prefix, kind):
    stated = dict(re.findall(r"^\| `([\w.]+)` \| `([^`]+)` \|", sections[heading], re.M))
    said = {
        field: yaml.safe_load(stated[f"{prefix}{field}"])
        for field in kind.model_fields
        if f"{prefix}{field}" in stated
    }
    assert len(said) >= 3
    assert said == {field: kind.model_fields[field].default for field in said}


@pytest.mark.parametrize("path", sorted(MANIFESTS.glob("modes/*")), ids=name)
def test_files_of_rows_are_used_and_explained(path):
    assert f"`modes/{path.name}`" in (MANIFESTS / "README.md").read_text("utf-8")
    assert f'"modes/{path.name}"' in (MANIFESTS / "modes.jsonl").read_text("utf-8")
