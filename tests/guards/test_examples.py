"""The README's Python examples are run, and its tables of modes, columns and measures are whole."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from rayreel.config.encode import ColumnSpec
from rayreel.diffusion.guiders import GUIDERS
from rayreel.diffusion.schedulers import SCHEDULERS
from rayreel.media.container import probe
from rayreel.media.measures import MEASURES
from rayreel.pipelines import PIPELINE_CLASSES
from tests.data.encoded import encoded, row

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
# The first one renders, two read a dataset, and the others add a name each.
# That of a service is run by tests/serving/system, which have one.
FIRST, READS, RAY_READS, _CLIENT, *ADDITIONS = re.findall(
    r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL
)
REGISTRIES: dict[str, dict[str, Any]] = {
    "SCHEDULERS": SCHEDULERS,
    "GUIDERS": GUIDERS,
    "PIPELINE_CLASSES": PIPELINE_CLASSES,
    "MEASURES": MEASURES,
}


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """Names of a reader's session after the first example, which ran in a folder of its own."""
    folder = tmp_path_factory.mktemp("session")
    known = {name: dict(registry) for name, registry in REGISTRIES.items()}
    names: dict[str, Any] = {"printed": [], "folder": folder}
    names["print"] = names["printed"].append
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(FIRST, names)
        yield names
    for name, registry in REGISTRIES.items():
        registry.clear()
        registry.update(known[name])


def is_small_clip(clip) -> bool:
    return bool(clip.frames.shape == (9, 64, 128, 3) and clip.frames.float().std() > 1)


def test_the_first_example_renders_reports_and_is_cancelled(session):
    assert is_small_clip(session["clip"])
    assert probe(str(session["folder"] / "fox.mp4")).num_frames == 9
    steps = [f"stage1: step {n} of 2" for n in (1, 2)] + [
        f"stage2: step {n} of 3" for n in (1, 2, 3)
    ]
    assert session["printed"][:-1] == steps
    assert "as asked" in str(session["printed"][-1])


@pytest.mark.parametrize(("example", "registry"), [*zip(ADDITIONS, REGISTRIES, strict=True)])
def test_an_example_adds_a_name_that_its_result_is_made_with(session, example, registry):
    known = {*REGISTRIES[registry]}
    session.pop("clip", None)
    exec(example, session)
    if registry == "MEASURES":
        assert 0 < session["printed"][-1] < 1
    else:
        assert is_small_clip(session["clip"])
    (name,) = REGISTRIES[registry].keys() - known
    del REGISTRIES[registry][name]
    with pytest.raises((KeyError, ValueError), match=name):
        exec(ast.unparse(ast.parse(example).body[-1]), session)


def test_an_example_registers_with_one_line():
    for example, registry in zip(ADDITIONS, REGISTRIES, strict=True):
        assert len(re.findall(rf"^{registry}\[", example, re.MULTILINE)) == 1
        assert len(re.findall(r"^(?:class|def) ", example, re.MULTILINE)) == 1


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """A reader's session beside the dataset that the examples name; what it prints."""
    encoded(tmp_path / "datasets" / "demo", [[row(0), row(1, kind="image")], [row(2)]])
    monkeypatch.chdir(tmp_path)
    printed: list[tuple[Any, ...]] = []
    # Ray's workers are sent functions of the main module by value.
    return {"__name__": "__main__", "print": lambda *values: printed.append(values)}, printed


def test_the_example_reads_every_sample_in_pytorch(dataset):
    session, printed = dataset
    exec(READS, session)
    (caption, shape, _), *others = printed
    assert (caption, tuple(shape)) == ("A fox, number 0.", (4, 2, 2, 3))
    assert sorted(others) == [("clip 0", 24.0), ("clip 1", 1.0), ("clip 2", 24.0)]
    assert sorted(map(sorted, session["batches"])) == [[0, 2], [1]]
    assert session["latents"].shape[1:] in {(4, 2, 2, 3), (4, 1, 2, 2)}


@pytest.mark.ray
def test_the_example_reads_every_sample_in_ray_data(ray_cluster, dataset):
    session, printed = dataset
    exec(RAY_READS, session)
    names, largest = zip(*sorted(printed), strict=True)
    assert names == ("clip 0", "clip 1", "clip 2")
    assert all(0 < value < 10 for value in largest)


def names_in_table(heading: str, cell: str) -> set[str]:
    """Names in some cells of the tables under a heading."""
    (section,) = re.findall(rf"^##+ {heading}\n(.*?)^#", README, re.MULTILINE | re.DOTALL)
    cells = re.findall(cell, section, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


def test_the_table_of_modes_names_every_pipeline():
    last = names_in_table("Every way to generate", r"\| ([^|]*) \|$")
    assert last == PIPELINE_CLASSES.keys()


def test_the_table_of_measures_names_every_measure():
    assert names_in_table("Filters", r"^\| ([^|]*) \|") == MEASURES.keys()


def test_the_table_of_columns_names_every_column():
    usual = {field.default for field in ColumnSpec.model_fields.values()}
    assert names_in_table("Encoding a dataset", r"^\| ([^|]*) \|") >= usual
