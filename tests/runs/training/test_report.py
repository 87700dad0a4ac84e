"""The page of a training run: whatever the run has so far, and what it says of it."""

import json
import re
from dataclasses import asdict
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from typer.testing import CliRunner

from rayreel.cli import app
from rayreel.data.storage import Storage
from rayreel.errors import SpecError
from rayreel.runs.training.report import write_report
from rayreel.runs.training.report_plots import loss_plot, other_plots, smoothed
from rayreel.training.tracking import MetricLog
from rayreel.training.validation import ValidationResult, write_results
from tests.training.tracking.lines import line, spec

NASTY = "</script><img src=x onerror=alert(1)> \"two\" & 'one' {{ spec }}"


def make_run(output: Path | str, *, steps: int = 3, total: int = 2000) -> Storage:
    storage = Storage(output)
    values = spec(output).model_dump(mode="json")
    values["optimization"]["steps"] = total
    facts = {"spec": values, "versions": {"rayreel": "0.1.0"}}
    storage.write_bytes("run.json", json.dumps(facts).encode())
    metrics = MetricLog(storage)
    for step in range(1, steps + 1):
        metrics.log(line(step))
    metrics.close("finished")
    return storage


def result(name: str, step: int, *, error: str | None = None, prompt: str = "A fox."):
    file = None if error else f"validation/step-{step:08d}/{name}.mp4"
    return ValidationResult(name=name, prompt=prompt, seed=7, file=file, error=error, seconds=1.25)


def page_of(storage: Storage) -> str:
    write_report(storage.uri)
    return storage.read_text("index.html")


def test_page_has_curves_numbers_and_spec(tmp_path):
    page = page_of(make_run(tmp_path / "foxes"))
    titles = re.findall(r"<h2[^>]*>([^<]+)</h2>", page)
    assert {"Loss", "Loss by noise level", "Norm of the gradients", "Tokens per second"} < {*titles}
    assert "adapter of rank 32 for the tiny model, strategy text_to_video" in page
    assert "learning_rate: 0.0001" in page


@pytest.mark.parametrize(
    ("steps", "total", "held", "said"),
    [
        (0, 9, False, "step 0 of 9: it has not begun to train"),
        (0, 9, True, "step 0 of 9: it is starting"),
        (3, 9, False, "stopped: step 3 of 9 at 2023-11-14 22:13:23 UTC"),
        (3, 9, True, "training: step 3 of 9 at 2023-11-14 22:13:23 UTC, 3 s to go"),
        (9, 9, True, "finished: step 9 of 9"),
    ],
)
def test_page_says_how_far_a_run_is(tmp_path, steps, total, held, said):
    storage = make_run(tmp_path, steps=steps, total=total)
    if held:
        storage.write_bytes("driver.json", b"{}")
    assert said in page_of(storage)


def test_run_without_steps_has_nothing_to_plot(tmp_path):
    page = page_of(make_run(tmp_path, steps=0))
    assert "<svg" not in page
    assert "No step is done yet" in page


def test_clips_are_in_rows_by_step(tmp_path):
    storage = make_run(tmp_path)
    for step in (0, 250):
        write_results(storage, step, [result("fox", step), result("owl", step)])
    page = page_of(storage)
    assert re.findall(r'<video[^>]+src="([^"]+)"', page) == [
        f"validation/step-00000{step}/{name}.mp4"
        for name in ("fox", "owl")
        for step in ("000", 250)
    ]


def test_sound_and_stills_have_players_of_their_own(tmp_path):
    storage = make_run(tmp_path)
    both = [result("waves", 0), result("leaf", 0)]
    files = ["validation/step-00000000/waves.wav", "validation/step-00000000/leaf.png"]
    values = [{**asdict(one), "file": file} for one, file in zip(both, files, strict=True)]
    write_results(storage, 0, [ValidationResult(**value) for value in values])
    page = page_of(storage)
    assert f'<audio controls preload="none" src="{files[0]}">' in page
    assert f'<img loading="lazy" src="{files[1]}"' in page


def test_failed_clips_say_why(tmp_path):
    storage = make_run(tmp_path)
    write_results(storage, 250, [result("fox", 250, error="OutOfMemoryError: 12 GiB")])
    page = page_of(storage)
    assert '<a class="bad" href="#clips">1 clip failed</a>' in page
    assert "OutOfMemoryError: 12 GiB" in page
    assert "<video" not in page


def test_row_that_came_later_leaves_a_gap(tmp_path):
    storage = make_run(tmp_path)
    write_results(storage, 0, [result("fox", 0)])
    write_results(storage, 250, [result("fox", 250), result("owl", 250)])
    assert page_of(storage).count("not among the rows of this step") == 1


def test_texts_are_no_markup(tmp_path):
    storage = make_run(tmp_path)
    write_results(storage, 0, [result("fox", 0, prompt=NASTY), result("owl", 0, error=NASTY)])
    page = page_of(storage)
    assert "onerror=alert(1)&gt;" in page
    assert "<img src=x" not in page


def test_last_weights_are_listed_with_their_sizes(tmp_path):
    storage = make_run(tmp_path)
    for step in range(1, 15):
        storage.write_bytes(f"weights/step-{step:08d}.safetensors", bytes(1500))
    page = page_of(storage)
    assert page.count('<a href="weights/') == 12
    assert "1.5 kB" in page
    assert "And 2 of earlier steps." in page


def test_run_in_an_object_store_has_its_page_there(s3_server):
    uri = f"{s3_server.url}/{uuid4().hex}"
    make_run(uri)
    assert write_report(uri) == f"{uri}/index.html"
    assert b"<svg" in Storage(uri).read_bytes("index.html")


def test_other_directories_are_refused(tmp_path):
    with pytest.raises(SpecError, match="is no training run; expected a directory with the run"):
        write_report(str(tmp_path))
    Storage(tmp_path).write_bytes("run.json", b'{"spec": {"prompts": "a.csv"}}')
    with pytest.raises(SpecError, match="is no training run"):
        write_report(str(tmp_path))


def test_command_prints_the_page(tmp_path):
    make_run(tmp_path)
    found = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert (found.exit_code, found.stdout.strip()) == (0, str(tmp_path / "index.html"))


def test_curves_do_not_grow_with_the_run():
    short, long = (
        len(loss_plot([line(step) for step in range(1, steps)])) for steps in (4000, 16000)
    )
    assert long < 1.2 * short


def test_what_was_not_measured_is_not_plotted(tmp_path):
    lines = [line(1, utilisation=None, sigma_loss={}, grad_norm=None)]
    plots = other_plots(lines, spec(tmp_path))
    assert not {"Loss by noise level", "Utilisation, % of what matrix products reach"} & {*plots}


def test_smoothing_keeps_constants_and_fills_gaps():
    values = np.full(200, 2.0)
    values[50:60] = np.nan
    assert smoothed(values) == pytest.approx(values[0])


def test_smoothing_follows_the_mean():
    noisy = 1 + np.tile([-0.5, 0.5], 200)
    assert np.abs(smoothed(noisy)[20:-20] - 1).max() < 0.02
