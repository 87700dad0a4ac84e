"""The README's Python examples are run, and its table of modes is whole."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from rayreel.diffusion.guiders import GUIDERS
from rayreel.diffusion.schedulers import SCHEDULERS
from rayreel.media.container import probe
from rayreel.pipelines import PIPELINE_CLASSES

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
REGISTRIES: dict[str, dict[str, Any]] = {
    "SCHEDULERS": SCHEDULERS,
    "GUIDERS": GUIDERS,
    "PIPELINE_CLASSES": PIPELINE_CLASSES,
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
        exec(EXAMPLES[0], names)
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


@pytest.mark.parametrize(("number", "registry"), [*enumerate(REGISTRIES, start=1)])
def test_an_example_adds_a_name_that_its_clip_is_made_with(session, number, registry):
    known = {*REGISTRIES[registry]}
    session.pop("clip", None)
    exec(EXAMPLES[number], session)
    assert is_small_clip(session["clip"])
    (name,) = REGISTRIES[registry].keys() - known
    del REGISTRIES[registry][name]
    with pytest.raises((KeyError, ValueError), match=name):
        exec(ast.unparse(ast.parse(EXAMPLES[number]).body[-1]), session)


def test_every_example_is_run():
    assert len(EXAMPLES) == 1 + len(REGISTRIES)


def test_an_example_registers_with_one_line():
    for example, registry in zip(EXAMPLES[1:], REGISTRIES, strict=True):
        assert len(re.findall(rf"^{registry}\[", example, re.MULTILINE)) == 1
        assert len(re.findall(r"^class ", example, re.MULTILINE)) == 1


def test_the_table_of_modes_names_every_pipeline():
    (section,) = re.findall(r"^## Every way to generate\n(.*?)^#", README, re.MULTILINE | re.DOTALL)
    cells = re.findall(r"\| ([^|]*) \|$", section, re.MULTILINE)
    assert {
        name for cell in cells for name in re.findall(r"`(\w+)`", cell)
    } == PIPELINE_CLASSES.keys()
