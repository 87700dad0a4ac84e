"""Plans of long lists: rows that share a template, what is kept of each, and what it costs."""

import itertools
import json
import random
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.tiny import locate_model
from rayreel.config.jobs import RenderSpec
from rayreel.config.request import DEFAULT_NEGATIVE_PROMPT
from rayreel.data.hashing import canonical_json, content_hash
from rayreel.errors import SpecError
from rayreel.pipelines import pipeline_of
from rayreel.requests import templates
from rayreel.runs import requests
from rayreel.runs.requests import PlannedRow, RowPlan, plan_rows

SMALL = {"width": 128, "height": 64, "num_frames": 9}
SHAPES: tuple[dict[str, Any], ...] = (
    SMALL,
    {**SMALL, "fps": 23.976, "video_guidance": {"cfg_scale": 2}},
    {**SMALL, "pipeline": "distilled"},
    {**SMALL, "pipeline": "one_stage", "steps": 4},
    {"video": False, "seconds": 1.5},
)
SHAPES_ALONE = [{"prompt": "a fox", **shape} for shape in SHAPES]


@pytest.fixture(scope="module")
def files() -> ModelFiles:
    return ModelFiles(locate_model("tiny"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("lists")


@pytest.fixture(scope="module")
def planned(folder, files):
    """Plans rows with the tiny model."""

    def plan(rows: Iterable[dict[str, Any]], **spec) -> RowPlan:
        path = folder / "list.jsonl"
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        return plan_rows(RenderSpec.model_validate({"prompts": str(path), **spec}), files)

    return plan


def row(prompt="a fox", **fields) -> dict[str, Any]:
    return {"prompt": prompt, **SMALL, **fields}


def endless() -> Iterator[dict[str, Any]]:
    """Rows of a few shapes with prompts of their own, every third with a seed."""
    draw = random.Random(0)
    for index in itertools.count():
        words = " ".join(f"word{draw.randrange(5000)}" for _ in range(40))
        own = {"id": f"clip-{index}", "prompt": f"{words} café" if index % 50 == 0 else words}
        yield {**own, **draw.choice(SHAPES), **({"seed": index} if index % 3 == 0 else {})}


def identity(row: PlannedRow, files: ModelFiles, *, seeded: bool) -> tuple[str, int]:
    """Item and seed of a request without files, from the whole of it."""
    content = row.request.model_dump(mode="json")
    if not seeded:
        del content["seed"]
        digest = content_hash("seed", "5", canonical_json(content))
        content["seed"] = int(digest[:8], 16)
    weights = files.fingerprint(pipeline_of(row.request).traits.files)
    return content_hash(canonical_json(content), weights), content["seed"]


FAULTY_SEEDS: list[object] = [-1, 2**63, 1.5, "x", "", [], "-3"]
EQUAL_SEEDS: list[object] = [7, 7.0, "7", 1, True]
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
own_values = st.fixed_dictionaries(
    {"prompt": texts | st.sampled_from(["a fox", '"\\', "\u2028 null", "\0prompt"])},
    optional={
        "negative_prompt": st.text(st.characters(exclude_categories=["Cs"])),
        "seed": st.integers(0, 2**63 - 1) | st.sampled_from(EQUAL_SEEDS),
    },
)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(rows=st.lists(st.tuples(st.sampled_from(SHAPES), own_values), min_size=1, max_size=12))
def test_rows_of_a_template_are_what_they_are_alone(planned, files, rows):
    rows = [{**shape, **own} for shape, own in rows]
    together = list(planned(rows, seed=5))
    for number, (values, found) in enumerate(zip(rows, together, strict=True), start=1):
        (alone,) = planned([{"id": f"row-{number}", **values}], seed=5)
        assert vars(found) == {**vars(alone), "number": number}
        expected = identity(found, files, seeded="seed" in values)
        assert (found.item_id, found.request.seed) == expected


@pytest.mark.parametrize(
    "fields",
    [
        *({"prompt": prompt} for prompt in ("", " \n", "\u2003", 5, None, ["a"], {"a": 1}, False)),
        *({"negative_prompt": negative} for negative in (5, ["rain"], True)),
        *({"seed": seed} for seed in FAULTY_SEEDS),
        {"prompt": 5, "seed": -1, "negative_prompt": 5},
        {"promt": "a"},
    ],
    ids=str,
)
def test_a_faulty_row_is_told_the_same_after_a_right_one_like_it(planned, fields):
    right = row(seed=3, negative_prompt="rain")
    said = []
    for rows in ([right | fields], [right, right | fields]):
        with pytest.raises(SpecError) as caught:
            planned(rows)
        said.append(str(caught.value).replace(f"row {len(rows)}:", "row:"))
    assert said[0] == said[1]
    assert "row: field '" in said[0]


def test_values_that_are_equal_but_not_alike_are_checked_apart(planned):
    planned([row(steps=1)])
    with pytest.raises(SpecError, match="row 2: field 'scheduler'"):
        planned([row(), row(scheduler=1)])
    rows = planned([row(width=128), row(width=128.0), row(width="128")])
    assert rows.num_clips == 1


def test_the_job_s_values_hold_for_rows_of_a_template(planned):
    defaults = {"prompt": "snow", "negative_prompt": "rain", "seed": 3}
    rows = list(planned([SMALL, row(), row(seed=4, negative_prompt="")], defaults=defaults))
    found = [(r.request.prompt, r.request.negative_prompt, r.request.seed) for r in rows]
    assert found == [("snow", "rain", 3), ("a fox", "rain", 3), ("a fox", "", 4)]


def test_more_templates_than_are_kept_change_nothing(planned, monkeypatch):
    rows = [{**alone, "seed": seed} for seed in range(3) for alone in SHAPES_ALONE]
    before = list(planned(rows))
    monkeypatch.setattr(templates, "_MOST_TEMPLATES", 2)
    few = planned(rows)
    assert list(few) == before
    assert len(few.shapes()) == len(SHAPES)


def test_wanted_rows_are_those_of_the_whole_list(planned):
    plan = planned(itertools.islice(endless(), 60))
    rows = list(plan)
    assert [r.item_id for r in rows] == [item_id.decode() for item_id in plan.item_ids.tolist()]
    wanted = {r.item_id for r in rows[::7]}
    assert list(plan.rows(wanted.__contains__)) == rows[::7]
    assert list(plan.rows(lambda _: False)) == []
    assert len(plan) == 60


def test_a_row_is_asked_for_when_its_turn_comes(planned):
    plan = planned([row(), row("a wolf"), row()])
    seen: set[str] = set()
    found = []
    for planned_row in plan.rows(lambda item_id: item_id not in seen):
        seen.add(planned_row.item_id)
        found.append(planned_row.number)
    assert found == [1, 2]


@pytest.mark.parametrize("wanted", [None, lambda _: True])
@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([row("a fox"), row("a wolf"), row("a bear")], "bytes"),
        ([row("a fox"), row("a wood")], "row 2 was another one"),
        ([row("a fox"), row("    f!", width=1, seed=5)], "another one|bytes"),
        ([row("a fox")], "bytes"),
    ],
    ids=["longer", "another", "faulty", "shorter"],
)
def test_a_list_that_changed_is_not_gone_on_with(planned, folder, rows, said, wanted):
    plan = planned([row("a fox"), row("a wolf")])
    (folder / "list.jsonl").write_text("".join(f"{json.dumps(values)}\n" for values in rows))
    with pytest.raises(SpecError, match=f"changed since it was first read: .*({said})"):
        list(plan.rows(wanted))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: ["", *lines], "row 1 was another one"),
        (lambda lines: [lines[0], " " * len(lines[1])], "row 2 was there"),
    ],
)
def test_rows_that_moved_or_went_are_noticed(planned, folder, change, said):
    plan = planned([row("a fox"), row("a wolf")])
    lines = (folder / "list.jsonl").read_text().splitlines()
    text = "\n".join(change(lines))
    (folder / "list.jsonl").write_text(text.ljust(sum(map(len, lines)) + 2, "\n"))
    with pytest.raises(SpecError, match=said):
        list(plan)


def test_shapes_count_distinct_clips(planned):
    same = [row(seed=1, id="a"), row(seed=1, id="b"), row("a wolf", seed=1)]
    plan = planned([*same, row(width=192), row(pipeline="distilled", steps=3)])
    found = {(request.width, request.pipeline): clips for request, clips in plan.shapes()}
    assert found == {(128, "two_stage"): 2, (192, "two_stage"): 1, (128, "distilled"): 1}
    assert plan.num_clips == 4


def test_a_clip_counts_once_wherever_its_files_lie(planned, files, tmp_path):
    adapter = files.spec.distilled_lora.path
    copy = shutil.copy(adapter, tmp_path / "copy.safetensors")
    plan = planned([row(seed=1, loras=[{"path": str(path)}]) for path in (adapter, copy)])
    assert (len(plan), plan.num_clips) == (2, 1)
    assert [clips for _, clips in plan.shapes()] == [1]


def test_texts_are_counted_once(planned):
    rows = [row("a"), row("a", seed=2), row("b", negative_prompt="c"), row("c")]
    # The last has no negative prompt, as nothing is guided.
    distilled = row("d", pipeline="distilled", negative_prompt="e")
    assert planned([*rows, distilled]).num_texts == len({"a", "b", "c", "d", "the general one"})
    assert planned([row(negative_prompt=DEFAULT_NEGATIVE_PROMPT), row()]).num_texts == 2


def test_rows_used_again_and_faults_are_told_in_order(planned):
    rows = [row(id="a"), row(id="a", width=1), row(id="row-4"), row(width=1)]
    with pytest.raises(SpecError) as caught:
        planned(rows)
    _, *lines = str(caught.value).splitlines()
    assert [line.strip()[:23] for line in lines] == [
        "row 2: id 'a' was used ",
        "row 2: field 'width': 1",
        "row 4: id 'row-4' was u",
        "row 4: field 'width': 1",
    ]


def test_many_names_used_again_are_cut_but_counted(planned):
    with pytest.raises(SpecError) as caught:
        planned([row(id="a")] * 100 + [row(width=1)])
    _, *lines = str(caught.value).splitlines()
    assert len(lines) == 51
    assert lines[49].strip() == "row 51: id 'a' was used by row 50"
    assert lines[50].strip() == "and 50 more"


@pytest.mark.parametrize(("many", "shown"), [(3, True), (10, False)])
def test_long_lists_show_a_bar(planned, monkeypatch, capsys, many, shown):
    monkeypatch.setattr(requests, "_MANY_ROWS", many)
    assert len(planned([row(str(number)) for number in range(10)])) == 10
    assert ("checking rows" in capsys.readouterr().err) == shown


def test_a_long_list_takes_little_memory(planned, folder, files):
    planned(SHAPES_ALONE)
    sizes = []
    for count in (1_000, 20_000):
        with (folder / "long.jsonl").open("w") as file:
            file.writelines(
                f"{json.dumps(values)}\n" for values in itertools.islice(endless(), count)
            )
        tracemalloc.start()
        plan = plan_rows(RenderSpec(prompts=str(folder / "long.jsonl")), files)
        sizes.append(tracemalloc.get_traced_memory())
        tracemalloc.stop()
        assert len(plan) == count
    kept, peak = ((long - short) / 19_000 for short, long in zip(*sizes, strict=True))
    assert kept < 64
    assert peak < 250


_PLAN = """
import json, re, sys, time
import ray, ray.data, torch, transformers
from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.tiny import locate_model
from rayreel.config.jobs import RenderSpec
from rayreel.data.ledger import Ledger
from rayreel.data.storage import Storage
from rayreel.runs.left import Left
from rayreel.runs.requests import plan_rows

files = ModelFiles(locate_model("tiny"))
start = time.monotonic()
with open(sys.argv[1]) as file:
    for line in file:
        json.loads(line)
read_s = time.monotonic() - start
start = time.monotonic()
plan = plan_rows(RenderSpec(prompts=sys.argv[1]), files)
seconds = time.monotonic() - start
# Not ru_maxrss, which counts what the process was forked from.
(peak,) = re.findall(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())
memory_gib = int(peak) / 2**20

storage = Storage(sys.argv[2])
line = (
    '{"item_id":"%s","status":"done","attempt":1,"seconds":{"text":0.5,"stage1":12.25,"decode":1.5},'
    '"output":"videos/%s.mp4","sha256":"' + 64 * "a" + '","num_bytes":1234567,"num_frames":121,'
    '"seed":7,"batch":8,"worker":"node-17:123456","finished_at":"2026-01-02T12:00:00Z"}\\n'
)
names = [item_id.decode() for item_id in plan.item_ids[:-1000]]
for number in range(0, len(names), 200_000):
    lines = "".join(line % (name, name) for name in names[number : number + 200_000])
    storage.write_bytes(f"ledger/part-{number}.jsonl", lines.encode())
del names, lines
start = time.monotonic()
left = Left(plan, Ledger(storage).table(), retry="none", attempts=3)
first = next(left.rows())
resume_s = time.monotonic() - start
found = [len(plan), plan.num_clips, len(plan.shapes()), left.clips]
print(json.dumps([found, read_s, seconds, memory_gib, resume_s]))
"""


@pytest.mark.slow
@pytest.mark.alone
def test_a_million_rows_are_planned_and_resumed_in_a_few_times_what_reading_them_takes(tmp_path):
    path = tmp_path / "list.jsonl"
    with path.open("w") as file:
        file.writelines(f"{json.dumps(values)}\n" for values in itertools.islice(endless(), 10**6))
    command = [sys.executable, "-c", _PLAN, str(path), str(tmp_path / "run")]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found, read_s, plan_s, memory_gib, resume_s = json.loads(said.splitlines()[-1])
    assert found == [10**6, 10**6, len(SHAPES), 1000]
    assert memory_gib < 1, "of planning"
    # Reading is that of Python's json; 7 to 10 times that is what planning took where it was
    # measured, and 2.5 times what resuming takes where all but a thousand clips are finished.
    assert plan_s < 15 * read_s, (read_s, plan_s, resume_s)
    assert resume_s < 5 * read_s, (read_s, plan_s, resume_s)
