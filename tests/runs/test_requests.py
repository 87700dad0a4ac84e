"""Prompt lists: what is refused, and what makes two rows the same clip."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save

from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.tiny import locate_model
from rayreel.config.conditions import AdapterSpec
from rayreel.config.jobs import RenderSpec
from rayreel.errors import SpecError
from rayreel.requests.spec import read_render_spec
from rayreel.runs.requests import PlannedRow, plan_rows

# Valid in every pipeline.
TARGET = "transformer_blocks.0.attn1.to_q"
SIZE = {"width": 128, "height": 64, "num_frames": 9}


@pytest.fixture(scope="session")
def files() -> ModelFiles:
    return ModelFiles(locate_model("tiny"))


@pytest.fixture
def planned(tmp_path, files):
    """Plans rows with the tiny model, or with a changed one."""

    def plan(*rows, model=None, files=files, name="list.jsonl", **spec) -> list[PlannedRow]:
        path = tmp_path / name
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
        if model:
            files = ModelFiles(files.spec.model_copy(update=model))
        job = RenderSpec.model_validate({"prompts": str(path), **spec})
        return list(plan_rows(job, files))

    return plan


@pytest.fixture
def refusal(planned):
    """Lines of what is said about rows."""

    def said(*rows, **kwargs) -> list[str]:
        with pytest.raises(SpecError) as caught:
            planned(*rows, **kwargs)
        _, *lines = str(caught.value).splitlines()
        return [line.strip() for line in lines]

    return said


@pytest.fixture
def image(tmp_path, repository) -> Path:
    return Path(shutil.copy(repository / "manifests" / "demo-sunset.png", tmp_path / "a.png"))


def row(**fields):
    return {"prompt": "a fox", **SIZE, **fields}


def with_image(path, **fields):
    return row(images=[{"path": str(path), **fields}])


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"num_frames": 120}, "'num_frames': 120 does not fit .* nearest are 113 and 121"),
        ({"width": 96}, "'width': 96 is not a multiple of 64, .*two_stage.*: 64 and 128"),
        ({"width": 100, "pipeline": "one_stage"}, "'width': 100 is not .* of 32, .*: 96 and 128"),
        ({"height": 96, "pipeline": "distilled"}, "'height': 96 is not a multiple of 64"),
        ({"prompt": "  "}, "'prompt': blank; expected at least one word, got '  '"),
        ({"prompt": None}, "'prompt': required"),
        ({"promt": "a"}, "'promt': unknown; nearest is 'prompt'"),
        ({"images": [{"path": "a", "frme": 1}]}, r"'images\.0\.frme': unknown; .* 'frame'"),
        ({"images": [{"path": "no.png"}]}, r"'images\.0\.path': cannot read .*/no\.png"),
        ({"images": [{"path": "x://no.png"}]}, r"'images\.0\.path': cannot read x://no\.png"),
        ({"images": [{"path": "."}]}, r"'images\.0\.path': cannot read"),
        ({"video_guidance": {"cfg": 2}}, r"'video_guidance\.cfg': unknown; .*'cfg_scale'"),
        ({"video_guidance": {"cfg_scale": -1}}, r"'video_guidance\.cfg_scale': should be .*, got"),
        ({"audio_guidance": {"rescale_scale": 2}}, r"'audio_guidance\.rescale_scale': .* got 2"),
        (
            {"video_guidance": {"stg_blocks": [1, 4]}},
            r".*stg_blocks': 4 is not a .* expected 0 to 3",
        ),
        (
            {"audio_guidance": {"stg_blocks": [9]}},
            r"'audio_guidance\.stg_blocks': 9 is not a block",
        ),
        ({"steps": "many"}, "'steps': should be a valid integer.*, got 'many'"),
        ({"pipeline": "turbo"}, "'pipeline': 'turbo' is unknown; .*nearest is 'two_stage'"),
    ],
)
def test_a_faulty_row_names_field_and_remedy(refusal, fields, fault):
    (line,) = refusal(row(**fields))
    assert re.match(f"row 1: field {fault}", line), line


@pytest.mark.parametrize(
    ("metadata", "tensors", "fault"),
    [
        ({}, {"a": (2, 2)}, "is not a LoRA"),
        ({}, {"x.lora_A.weight": (2, 2), "x.lora_B.weight": (2, 2)}, "changes none of this model"),
        (
            {"reference_downscale_factor": "two"},
            {f"diffusion_model.{TARGET}.lora_{ab}.weight": shape
             for ab, shape in (("A", (1, 128)), ("B", (128, 1)))},
            "'reference_downscale_factor' is 'two'; expected a positive whole number",
        ),
    ],
    ids=["no LoRA", "of another model", "scale"],
)  # fmt: skip
def test_an_adapter_of_a_row_is_looked_at_before_work_starts(
    refusal, tmp_path, metadata, tensors, fault
):
    path = tmp_path / "lora.safetensors"
    weights = {name: torch.zeros(shape) for name, shape in tensors.items()}
    path.write_bytes(save(weights, metadata or None))
    (line,) = refusal(row(loras=[{"path": str(path)}]))
    assert line.startswith("row 1: field 'loras.0.path':")
    assert fault in line


def test_adapters_are_local_files(refusal):
    (line,) = refusal(row(loras=[{"path": "s3://bucket/a.safetensors"}]))
    assert line.endswith("s3://bucket/a.safetensors is no local file, which adapters are read from")


def test_a_length_is_stated_once(refusal, planned):
    fields = {key: value for key, value in row().items() if key != "num_frames"}
    (line,) = refusal({**fields, "num_frames": 9, "seconds": 1})
    assert "num_frames says the length already" in line
    (one,) = planned({**fields, "seconds": 1}, defaults={"num_frames": 49})
    assert one.request.num_frames == 25
    (other,) = planned({**fields, "num_frames": 9}, defaults={"seconds": 2})
    assert other.request.num_frames == 9


def test_a_clip_to_extend_has_to_be_there(refusal, tmp_path):
    for run in (tmp_path, "nope://x"):
        (line,) = refusal(row(extend={"clip": "0a", "run": str(run)}))
        assert line.startswith("row 1: field 'extend.")
        assert str(run) in line


def test_an_image_past_the_end_names_the_last_frame(refusal, image):
    (line,) = refusal(with_image(image, frame=9))
    assert line == ("row 1: field 'images.0.frame': 9 is past the last of 9 frames; nearest is 8")


@pytest.mark.parametrize(
    ("pipeline", "field", "needed"),
    [
        ("two_stage", "upsampler", True),
        ("two_stage", "distilled_lora", True),
        ("distilled", "upsampler", True),
        ("distilled", "distilled_lora", False),
        ("one_stage", "upsampler", False),
    ],
)
def test_pipelines_need_their_files(planned, refusal, pipeline, field, needed):
    rows, model = [row(pipeline=pipeline)], {field: None}
    if needed:
        (line,) = refusal(*rows, model=model)
        assert line.startswith(f"row 1: field 'pipeline': {pipeline} needs model.{field}")
    else:
        assert len(planned(*rows, model=model)) == 1


def test_all_faulty_rows_are_in_one_error_with_their_numbers(refusal):
    lines = refusal(row(), row(num_frames=8, width=1), row(), row(prompt=""), row(sed=1))
    assert [line.split(":")[0] for line in lines] == ["row 2", "row 2", "row 4", "row 5"]


def test_endless_faults_are_cut_but_counted(refusal):
    lines = refusal(*[row(width=1)] * 60)
    assert len(lines) == 51
    assert lines[-1] == "and 10 more"


def test_rows_are_numbered_by_their_lines(tmp_path, files):
    path = tmp_path / "list.jsonl"
    path.write_text(f"{json.dumps(row())}\n\n\n{json.dumps(row(width=1))}\n", "utf-8")
    with pytest.raises(SpecError, match=r"\n  row 4: field 'width'"):
        plan_rows(RenderSpec(prompts=str(path)), files)


def test_an_empty_list_is_refused(planned):
    with pytest.raises(SpecError, match=r"list\.jsonl has no rows"):
        planned()


def test_an_id_can_be_used_once(refusal):
    lines = refusal(row(id="a"), row(id="b"), row(id="a"), row(id=7), row(id="7"))
    assert lines == ["row 3: id 'a' was used by row 1", "row 5: id '7' was used by row 4"]


def test_rows_are_named_by_id_or_number(planned):
    rows = planned(row(id="fox"), row(), row(id=7), row(id="../../etc/passwd"))
    assert [r.name for r in rows] == ["fox", "row-2", "7", "../../etc/passwd"]
    assert [r.number for r in rows] == [1, 2, 3, 4]


def test_names_are_no_part_of_the_identity(planned):
    rows = planned(row(id="fox"), row(id="../../etc/passwd"), row())
    assert len({r.item_id for r in rows}) == 1
    assert rows[0].item_id.isalnum()


def test_csv_cells_are_numbers_lists_and_text(tmp_path, files, image):
    fields = row(seed=7, fps="24", audio="false", images=[{"path": "a.png", "frame": 8}])
    cells = {k: json.dumps(v) if isinstance(v, list) else v for k, v in fields.items()}
    with (tmp_path / "list.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*cells, "steps"])
        writer.writeheader()
        writer.writerow(cells)
    (planned,) = plan_rows(RenderSpec(prompts=str(tmp_path / "list.csv")), files)
    request = planned.request
    assert (request.width, request.seed, request.fps, request.audio) == (128, 7, 24.0, False)
    assert (request.images[0].path, request.images[0].frame) == (str(image), 8)
    assert request.steps == files.defaults.steps


def test_lists_of_all_kinds_ask_for_the_same_clips(tmp_path, planned, files):
    guidance = {"cfg_scale": 2.0}
    rows = [row(seed=1, video_guidance=None), row(seed=None, video_guidance=guidance)]
    ids = [r.item_id for r in planned(*rows)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "list.parquet")
    spec = RenderSpec(prompts=str(tmp_path / "list.parquet"))
    assert [r.item_id for r in plan_rows(spec, files)] == ids


def test_defaults_hold_for_rows_that_do_not_set_them(planned):
    defaults = {"steps": 4, "seed": 3, "video_guidance": {"cfg_scale": 2}}
    first, second = planned(row(), row(steps=5, video_guidance={"stg_scale": 0}), defaults=defaults)
    assert (first.request.steps, second.request.steps) == (4, 5)
    assert (first.request.seed, second.request.seed) == (3, 3)
    assert first.request.video_guidance.cfg_scale == 2
    # Not merged field by field: the rest follows the generation.
    assert second.request.video_guidance.cfg_scale == 3


def test_a_prompt_can_be_a_default(planned):
    rows = planned({**SIZE, "seed": 1}, {**SIZE, "seed": 2}, defaults={"prompt": "a fox"})
    assert [r.request.prompt for r in rows] == ["a fox"] * 2


def test_requests_come_out_resolved(planned, files):
    (guided,), (distilled,) = planned(row()), planned(row(pipeline="distilled"))
    assert guided.request.steps == files.defaults.steps
    assert guided.request.video_guidance.stg_blocks == (files.defaults.stg_block,)
    assert guided.request.negative_prompt
    assert (distilled.request.steps, distilled.request.video_guidance) == (None, None)


def test_images_start_at_the_list(planned, image, tmp_path):
    (tmp_path / "lists").mkdir()
    (relative,) = planned(with_image("../a.png"), name="lists/list.jsonl")
    (absolute,) = planned(with_image(image))
    assert relative.request.images[0].path == f"{tmp_path}/lists/../a.png"
    assert relative.item_id == absolute.item_id


def test_fields_without_effect_are_said_once_with_their_rows(planned, caplog):
    distilled = [row(pipeline="distilled", steps=4, scheduler="ltx2", seed=i) for i in range(7)]
    planned(*distilled, row(audio=False, audio_guidance={"cfg_scale": 2}))
    first, second = [record.getMessage() for record in caplog.records]
    assert first.startswith("scheduler, steps: no effect with pipeline distilled, audio on")
    assert first.endswith("in row 1, 2, 3, 4, 5, 2 more")
    assert second.startswith("audio_guidance: no effect with pipeline two_stage, audio off")
    assert second.endswith("in row 8")


def test_defaults_without_effect_on_a_row_are_not_said(planned, caplog):
    planned(row(pipeline="distilled"), row(), defaults={"steps": 4})
    assert not caplog.records


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"id": "b"},
        {"fps": 24},
        {"fps": 24.0},
        {"pipeline": "two_stage"},
        {"images": []},
        {"steps": 40},
        {"video_guidance": {"cfg_scale": 3}},
    ],
)
def test_equal_rows_share_an_identity(planned, fields):
    first, second = planned(row(), row(**fields))
    assert first.item_id == second.item_id
    assert first.request == second.request


def test_fields_that_play_no_part_do_not_count(planned):
    plain = row(pipeline="distilled")
    first, second = planned(plain, {**plain, "steps": 3, "negative_prompt": "rain"})
    assert first.item_id == second.item_id


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "a wolf"},
        {"negative_prompt": ""},
        {"pipeline": "one_stage"},
        {"width": 192},
        {"height": 128},
        {"num_frames": 17},
        {"fps": 25},
        {"seed": 2},
        {"steps": 3},
        {"scheduler": "linear_quadratic"},
        {"audio": False},
        {"video_guidance": {"cfg_scale": 2}},
        {"audio_guidance": {"stg_blocks": [0]}},
        {"crf": 20},
    ],
)
def test_every_field_that_changes_the_clip_changes_the_identity(planned, fields):
    first, second = planned(row(seed=1), {**row(seed=1), **fields})
    assert first.item_id != second.item_id


def test_images_count_by_content(planned, image, tmp_path):
    copy = shutil.copy(image, tmp_path / "b.png")
    other = tmp_path / "c.png"
    other.write_bytes(image.read_bytes() + b"\0")
    paths = [image, copy, other]
    same, equal, changed = planned(*[{**with_image(path), "seed": 1} for path in paths])
    assert same.item_id == equal.item_id != changed.item_id


@pytest.mark.parametrize("change", [{"frame": 8}, {"strength": 0.5}, {"crf": 0}])
def test_what_is_done_with_an_image_counts(planned, image, change):
    first, second = planned(with_image(image), with_image(image, **change))
    assert first.item_id != second.item_id


def test_the_same_list_elsewhere_asks_for_the_same_clips(planned, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (here,), (there,) = planned(row()), planned(row(), name="elsewhere/other.jsonl")
    assert here.item_id == there.item_id


def test_a_row_without_a_seed_derives_it_from_its_content(planned):
    first, equal, other = planned(row(), row(id="b"), row(prompt="a wolf"))
    assert first.request.seed == equal.request.seed != other.request.seed


def test_the_job_s_seed_moves_rows_without_a_seed_only(planned):
    before, after = planned(row(), row(seed=5)), planned(row(), row(seed=5), seed=1)
    assert before[0].request.seed != after[0].request.seed
    assert before[0].item_id != after[0].item_id
    assert before[1] == after[1]


def test_a_derived_seed_that_is_written_down_is_the_same_clip(planned):
    (derived,) = planned(row())
    (written,) = planned(row(seed=derived.request.seed), seed=9)
    assert written.item_id == derived.item_id


def test_seeds_do_not_depend_on_place_or_company(planned):
    (alone,) = planned(row())
    *_, last = planned(row(prompt="a wolf"), row(seed=1), row())
    assert last.item_id == alone.item_id


def strengths(files, strength):
    return {"loras": (AdapterSpec(path=files.spec.distilled_lora.path, strength=strength),)}


@pytest.mark.parametrize("pipeline", ["one_stage", "two_stage", "distilled"])
def test_adapters_and_their_strength_count(planned, files, pipeline):
    models = [None, strengths(files, 1.0), strengths(files, 0.5)]
    ids = [planned(row(pipeline=pipeline), model=model)[0].item_id for model in models]
    assert len(set(ids)) == 3


@pytest.mark.parametrize(
    ("pipeline", "field", "counts"),
    [
        ("one_stage", "upsampler", False),
        ("one_stage", "distilled_lora", False),
        ("two_stage", "upsampler", True),
        ("two_stage", "distilled_lora", True),
        ("distilled", "upsampler", True),
        ("distilled", "distilled_lora", True),
    ],
)
def test_only_files_that_a_pipeline_uses_count(planned, files, tmp_path, pipeline, field, counts):
    other = tmp_path / "other.safetensors"
    # Never opened here as what it stands for: only its identity matters.
    shutil.copy(files.spec.checkpoint, other)
    changed = AdapterSpec(path=str(other)) if field == "distilled_lora" else str(other)
    (before,) = planned(row(pipeline=pipeline))
    (after,) = planned(row(pipeline=pipeline), model={field: changed})
    assert (before.item_id != after.item_id) == counts
    assert before.request == after.request


_PRINT_ROWS = """
import sys
from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.tiny import locate_model
from rayreel.runs.requests import plan_rows
from rayreel.requests.spec import read_render_spec
spec = read_render_spec(sys.argv[1])
for row in plan_rows(spec, ModelFiles(locate_model(spec.model))):
    print(row.item_id, row.request.seed)
"""


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory, repository):
    """What two processes print that start together with an empty cache, and the cache."""
    cache = tmp_path_factory.mktemp("cache")
    command = [sys.executable, "-c", _PRINT_ROWS, str(repository / "manifests" / "demo.yaml")]
    started = [
        subprocess.Popen(
            command,
            env=os.environ | {"XDG_CACHE_HOME": str(cache), "PYTHONHASHSEED": str(seed)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in (1, 2)
    ]
    printed = [process.communicate()[0].splitlines() for process in started]
    assert [process.returncode for process in started] == [0, 0]
    return printed, cache / "rayreel"


def test_identities_and_seeds_are_the_same_in_every_process(two_processes, repository, files):
    first, second = two_processes[0]
    here = plan_rows(read_render_spec(str(repository / "manifests" / "demo.yaml")), files)
    assert first == second == [f"{row.item_id} {row.request.seed}" for row in here]


def test_processes_that_need_the_tiny_model_together_write_it_once(two_processes):
    _, cache = two_processes
    (folder,) = cache.iterdir()
    assert {path.name for path in folder.iterdir()} >= {"gemma-3-tiny", "ltx-2-tiny.safetensors"}


def test_a_clip_too_small_for_the_decoder_is_refused(refusal):
    (fault,) = refusal(row(pipeline="one_stage", width=32))
    assert "'width': 32 is too small" in fault
    assert "nearest is 64" in fault


def test_a_sound_too_short_to_be_one_is_refused(refusal):
    (fault,) = refusal(row(num_frames=1, fps=60, video=False))
    assert "1 frames at 60 fps are too short for sound" in fault


def test_a_single_frame_is_a_picture_without_sound(planned):
    (planned_row,) = planned(row(num_frames=1))
    assert not planned_row.request.audio
