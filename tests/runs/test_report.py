"""What a run leaves to look at: the table, the gallery's data, the report, the list of failures."""

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.tiny import locate_model
from rayreel.config.jobs import RenderSpec
from rayreel.data.ledger import FailureRecord, Ledger, LedgerEntry
from rayreel.data.storage import Storage
from rayreel.requests.spec import read_render_spec
from rayreel.runs.report import gallery, results, write_report
from rayreel.runs.report.plots import make_plots
from rayreel.runs.report.statistics import Statistics
from rayreel.runs.requests import PlannedRow, RowPlan, plan_rows

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
SMALL = {"width": 64, "height": 64, "num_frames": 9}
NASTY = "</script><img src=x onerror=alert(1)> \"two\" & 'one' \u2028 ]]> {{ run }} <!-- é 狐"
CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")
def files() -> ModelFiles:
    return ModelFiles(locate_model("tiny"))


def row(name: str, **fields) -> dict[str, Any]:
    return {"id": name, "prompt": f"A picture of {name}.", **SMALL, **fields}


def done(planned: PlannedRow, number: int, **changes) -> LedgerEntry:
    values = {
        "item_id": planned.item_id,
        "status": "done",
        "attempt": 1,
        "seconds": {"text": 0.5, "stage1": 12.25 + number, "decode": 2.0},
        "output": f"videos/{planned.item_id}.mp4",
        "sha256": "ab" * 32,
        "num_bytes": 1000,
        "batch": 2,
        "worker": "node-1:42",
        "finished_at": NOON + timedelta(seconds=10 * number),
    }
    return LedgerEntry.model_validate(values | changes)


def failed(planned: PlannedRow, message: str, **changes) -> LedgerEntry:
    return LedgerEntry(
        item_id=planned.item_id,
        status="failed",
        attempt=3,
        error=FailureRecord(stage="stage1", error="MediaError", message=message),
        worker="node-1:42",
        finished_at=NOON,
        **changes,
    )


@dataclass
class Run:
    """A run directory, and what was planned for it."""

    folder: Path
    plan: RowPlan

    def write(self, summary: str = "all said", **options) -> None:
        storage = Storage(self.folder)
        table = Ledger(storage).table()
        write_report(storage, self.plan, table, title="a run", summary=summary, **options)

    def append(self, *entries: LedgerEntry) -> None:
        for entry in entries:
            Ledger(Storage(self.folder)).append(entry)

    @property
    def results(self) -> dict[str, dict[str, Any]]:
        rows = pq.read_table(self.folder / "results.parquet").to_pylist()
        return {row["name"]: row for row in rows}

    def data(self, kind: str) -> list[Any]:
        """Rows of all data files of the gallery, in order."""
        rows = []
        for number, file in enumerate(sorted((self.folder / "gallery").glob(f"{kind}-*.js")), 1):
            call = re.fullmatch(r'rayreel\("(\w+)",(\d+),(.*)\);\n', file.read_text(), re.DOTALL)
            assert call, file.name
            assert (call[1], int(call[2])) == (kind, number)
            rows += json.loads(call[3])
        return rows

    def page(self, name: str) -> "Page":
        return Page((self.folder / name).read_text())


class Page(HTMLParser):
    """Tags, links and words of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.scripts: list[str] = []
        self.words = ""
        self._script = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self._script = tag == "script"
        if self._script:
            self.scripts.append("")
        self.tags.append(tag)
        self.words += " " * (tag in ("td", "dd"))
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):  # noqa: ARG002 - the parser's
        self._script = False

    def handle_data(self, data):
        if self._script:
            self.scripts[-1] += data
        else:
            self.words += data


def plan_of(path: Path, rows: Sequence[dict[str, Any]], files: ModelFiles) -> RowPlan:
    path.write_text("".join(f"{json.dumps(fields)}\n" for fields in rows))
    return plan_rows(RenderSpec(prompts=str(path)), files)


@pytest.fixture
def make_run(tmp_path, files):
    def make(*rows: dict[str, Any]) -> Run:
        return Run(tmp_path / "run", plan_of(tmp_path / "list.jsonl", rows, files))

    return make


@pytest.fixture
def run(make_run) -> Run:
    """Two rows of one clip, one that failed, one whose turn never came, and a sound."""
    found: Run = make_run(
        row("fox", seed=1),
        row("broken", seed=5, prompt=f"a fox {NASTY}"),
        row("fox-again", seed=1, prompt="A picture of fox."),
        row("left"),
        {"id": "rain", "prompt": "Rain.", "video": False, "seconds": 1.5},
    )
    fox, broken, _, _, rain = found.plan
    found.append(
        done(fox, 0, attempt=2, memory="batch 2", notes=("a note",), prompts=("A written fox.",)),
        failed(broken, "no such <file>"),
        done(rain, 1, output=f"videos/{rain.item_id}.wav", num_frames=0, batch=None),
    )
    found.write()
    return found


def test_results_say_what_became_of_every_row(run):
    assert {name: line["status"] for name, line in run.results.items()} == {
        "fox": "done", "broken": "failed", "fox-again": "done", "left": "left", "rain": "done",
    }  # fmt: skip
    fox, broken, left = (run.results[name] for name in ("fox", "broken", "left"))
    assert (fox["batch"], fox["memory"], fox["seconds"]) == (2, "batch 2", 14.75)
    assert (broken["error_stage"], broken["error"], broken["output"]) == (
        "stage1", "MediaError", None,
    )  # fmt: skip
    assert (left["attempt"], left["seconds"], left["num_frames"]) == (None, None, 9)
    assert run.results["rain"]["num_frames"] == 0


def test_rows_are_written_in_groups_and_in_order(make_run, monkeypatch):
    monkeypatch.setattr(results, "_ROW_GROUP", 4)
    run = make_run(*(row(f"clip-{number}") for number in range(10)))
    monkeypatch.setattr("rayreel.runs.report.outcomes._AT_ONCE", 3)
    run.write()
    file = pq.ParquetFile(run.folder / "results.parquet")
    assert file.metadata.num_row_groups > 1
    assert list(run.results) == [f"clip-{number}" for number in range(10)]


def test_a_clip_has_one_card_with_the_names_of_its_rows(run):
    names = [clip["names"] for clip in run.data("clips")]
    assert names == ["fox, fox-again", "broken", "left", "rain"]
    assert [line[0] for line in run.data("index")] == names


def test_a_card_names_the_first_of_many_rows(make_run):
    run = make_run(*(row(f"r{number}", prompt="same", seed=1) for number in range(13)))
    run.write()
    (clip,) = run.data("clips")
    assert clip["names"] == f"{', '.join(f'r{number}' for number in range(10))} and 3 more"


def test_cards_have_what_a_reader_asks_for(run):
    fox, broken, _, rain = run.data("clips")
    facts = dict(fox["facts"])
    assert facts["video"] == "64\N{MULTIPLICATION SIGN}64, 9 frames at 24 fps, with sound"
    assert (facts["seed"], facts["attempt"], facts["note"]) == ("1", "2", "a note")
    assert facts["seconds"] == "text 0.5, stage1 12.2, decode 2.0"
    assert facts["pipeline"] == "two_stage: it is the general one"
    assert (facts["batch"], facts["memory"]) == ("2 together", "batch 2")
    assert fox["written"] == ["A written fox."]
    assert broken["error"] == ["stage1", "MediaError", "no such <file>"]
    assert dict(rain["facts"])["sound"] == "1.50 s"


def test_the_index_holds_what_is_searched_in_short(make_run):
    run = make_run(row("long", prompt="word  \n " * 100))
    run.append(failed(next(iter(run.plan)), "x" * 500))
    run.write()
    ((name, prompt, status, pipeline, path, kind, error, *size),) = run.data("index")
    assert prompt == f"{' '.join(['word'] * 24)}…"
    assert (name, status, pipeline, path, kind) == ("long", "failed", "two_stage", None, "video")
    assert error.startswith("stage1: MediaError: xxx")
    assert (len(error), size) == (121, [64, 64])


def test_data_files_are_cut_where_the_page_expects_it(make_run, monkeypatch):
    monkeypatch.setattr(gallery, "CLIPS_PER_FILE", 2)
    monkeypatch.setattr(gallery, "CLIPS_PER_INDEX", 4)
    run = make_run(*(row(f"clip-{number}") for number in range(9)))
    run.append(done(list(run.plan)[4], 0))
    run.write()
    names = [f"clip-{number}" for number in range(9)]
    assert [line[0] for line in run.data("index")] == names
    assert [clip["names"] for clip in run.data("clips")] == names
    numbers = json.loads(run.page("index.html").scripts[0])
    assert numbers == {
        "page": 60, "clips": 2, "index": 4, "counts": [[0, 0, 4], [1, 0, 3], [0, 0, 1]],
    }  # fmt: skip


def test_data_files_of_a_longer_run_before_are_removed(run):
    old = run.folder / "gallery/clips-0009.js"
    old.write_text("")
    run.write()
    assert not old.exists()
    assert {file.name for file in old.parent.iterdir()} == {"clips-0001.js", "index-0001.js"}


def test_prompts_are_text_wherever_they_stand(run):
    page = run.page("index.html")
    assert NASTY in page.words
    assert page.tags.count("img") == 0
    assert len(page.scripts) == 2
    assert run.data("clips")[1]["prompt"] == f"a fox {NASTY}"
    for file in (run.folder / "gallery").iterdir():
        assert b"<" not in file.read_bytes()
        assert file.read_bytes().isascii()


def test_titles_and_summaries_are_text_too(run):
    run.write(summary=NASTY, comparison=NASTY)
    for name in ("index.html", "report.html"):
        assert NASTY in run.page(name).words
        assert "img" not in run.page(name).tags


def test_texts_that_no_file_can_hold_are_shown_as_far_as_they_go(make_run):
    run = make_run(row("a\ud800b"))
    run.append(failed(next(iter(run.plan)), "no"))
    run.write()
    assert run.results["a?b"]["prompt"] == "A picture of a?b."
    assert "A picture of a?b." in run.page("index.html").words
    assert json.loads((run.folder / "failed.jsonl").read_text())["id"] == "a\ud800b"


def test_pages_need_nothing_from_elsewhere(run):
    for name in ("index.html", "report.html"):
        page = run.page(name)
        assert page.links
        for link in page.links:
            assert re.match(r"#|videos/|(index|report)\.html|results\.parquet|failed\.jsonl", link)
        assert "@import" not in (run.folder / name).read_text()


def test_a_page_without_javascript_lists_the_first_clips(run):
    page = run.page("index.html")
    fox, rain = (run.results[name]["output"] for name in ("fox", "rain"))
    assert [link for link in page.links if link.startswith("videos/")] == [fox, rain]
    assert "these are the first 4 of 4 clips" in page.words
    assert "no such <file>" in page.words


def test_gallery_and_report_are_linked(run):
    assert {"report.html", "results.parquet", "failed.jsonl"} <= set(run.page("index.html").links)
    assert {"index.html", "index.html#status=failed"} <= set(run.page("report.html").links)


def test_the_report_counts(run):
    words = " ".join(run.page("report.html").words.split())
    for said in ("rows 5", "clips 4", "done 2", "failed 1", "left 1", "attempts 6"):
        assert f"{said} " in words
    assert "stage1 MediaError 1 no such <file> broken" in words
    assert "stage1 2 12.75 13.20 26" in words, "p50, p95 and sum"
    assert "batch 2 1" in words


def test_the_report_shows_the_comparison_as_it_is(run):
    run.write(comparison="planned   actual\n     31       30")
    assert "planned   actual\n     31       30" in run.page("report.html").words


def test_the_slowest_clips_come_first(make_run):
    run = make_run(*(row(f"clip-{number}") for number in range(15)))
    run.append(*(done(planned, number) for number, planned in enumerate(run.plan)))
    run.write()
    words = run.page("report.html").words
    slow = re.findall(r"clip-\d+", words[words.index("Slowest") :])
    assert slow == [f"clip-{number}" for number in range(14, 4, -1)]


def test_there_is_a_plot_of_everything_that_is_known(run):
    page = run.page("report.html")
    assert page.tags.count("svg") == 4
    for title in ("Clips finished per minute", "Seconds per stage", "stage1: MediaError"):
        assert title in page.words


def test_a_run_that_finished_nothing_has_a_report(make_run):
    run = make_run(row("left"))
    run.write()
    page = run.page("report.html")
    assert "No clip was finished" in page.words
    assert "svg" not in page.tags


def test_throughput_of_days_stays_small_and_plots_take_the_page_s_colours():
    found = Statistics()
    found.finished_at.extend(NOON.timestamp() + 37.0 * number for number in range(10_000))
    found.stage_seconds = {"text": found.finished_at[:0], "a $x_1$ stage": found.finished_at[:9]}
    del found.stage_seconds["text"]
    plots = make_plots(found)
    assert set(plots) == {"Clips finished per minute", "Seconds per stage"}
    assert all("currentColor" in svg and len(svg) < 60_000 for svg in plots.values())
    assert "hours since 2026-01-02 12:00 UTC" in plots["Clips finished per minute"]
    assert "a $x_1$ stage" in plots["Seconds per stage"]


def test_failed_rows_ask_for_the_same_clips(run, files):
    again = list(plan_rows(RenderSpec(prompts=str(run.folder / "failed.jsonl")), files))
    assert [(one.name, one.item_id) for one in again] == [
        ("broken", run.results["broken"]["item_id"])
    ]


def test_without_failures_there_is_no_list_of_them(run):
    _, broken, *_ = run.plan
    run.append(done(broken, 3))
    run.write()
    assert not (run.folder / "failed.jsonl").exists()
    assert "failed.jsonl" not in run.page("index.html").links


def round_trip(plan: RowPlan, folder: Path, files: ModelFiles, **spec) -> None:
    """Let all rows of a plan fail, and plan what that leaves."""
    run = Run(folder / "run", plan)
    run.append(*{one.item_id: failed(one, "no") for one in plan}.values())
    run.write()
    list_of_failed = str(run.folder / "failed.jsonl")
    again = list(plan_rows(RenderSpec.model_validate({"prompts": list_of_failed, **spec}), files))
    assert [one.name for one in again] == [one.name for one in plan]
    for before, after in zip(plan, again, strict=True):
        assert after.request == before.request, before.name
        assert after.item_id == before.item_id, before.name


def test_every_mode_comes_back_from_the_list_of_failures(repository, tmp_path, caplog):
    spec = read_render_spec(str(repository / "manifests/modes.yaml"), output=str(tmp_path / "run"))
    files = ModelFiles(locate_model(spec.model))
    round_trip(plan_rows(spec, files), tmp_path, files)
    assert not [said for said in caplog.messages if "no effect" in said]


def test_a_finished_clip_that_is_made_longer_is_named_by_its_files(repository, files, tmp_path):
    first = Run(tmp_path / "first", plan_of(tmp_path / "list.jsonl", [row("boats")], files))
    (boats,) = first.plan
    entry = done(boats, 0)
    first.append(entry)
    clip = first.folder / str(entry.output)
    clip.parent.mkdir()
    shutil.copy(repository / "manifests/modes/harbour.mp4", clip)
    extend = {"clip": boats.item_id, "run": str(first.folder), "direction": "backward"}
    rows = [{"prompt": "Fog lifts.", "seconds": 1, "extend": extend}]
    round_trip(plan_of(tmp_path / "more.jsonl", rows, files), tmp_path, files)
    (line,) = map(json.loads, (tmp_path / "run/failed.jsonl").read_text().splitlines())
    assert line["extend"] == {"path": str(clip), "direction": "backward"}


OTHER_DEFAULTS = {
    "steps": 7,
    "crf": 1,
    "seconds": 5,
    "audio": True,
    "scheduler": "beta",
    "sampler": "res_2s",
    "negative_prompt": "snow",
    "seed": 12,
    "fps": 50,
    "images": [{"path": "none.png"}],
}


@pytest.mark.parametrize("other", [{}, {"seed": 9, "defaults": OTHER_DEFAULTS}])
def test_rows_come_back_whatever_the_defaults_were_and_are(files, tmp_path, other):
    rows = [
        row("plain"),
        row("seeded", seed=2**62),
        row("distilled", pipeline="distilled"),
        row("negative", negative_prompt=""),
        row("fps", fps=23.976, steps=5, audio=False),
        row("guided", video_guidance={"cfg_scale": 2.5}, sigmas=[1, 0.7000000000000001, 0]),
    ]
    path = tmp_path / "list.jsonl"
    path.write_text("".join(f"{json.dumps(fields)}\n" for fields in rows))
    job = {"prompts": str(path), "seed": 3, "defaults": {"negative_prompt": "rain", "crf": 30}}
    round_trip(plan_rows(RenderSpec.model_validate(job), files), tmp_path, files, **other)


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.parametrize(
    ("address", "cards"),
    [
        ("", ["fox, fox-again", "broken", "left", "rain"]),
        ("#status=failed&q=FOX", ["broken"]),
        ("#q=rain", ["rain"]),
        ("#q=mediaerror+broken", ["broken"]),
        ("#status=left", ["left"]),
        ("#q=nobody", []),
        ("#status=done&page=2", []),
    ],
)
def test_a_browser_shows_the_clips_that_the_address_asks_for(run, tmp_path, address, cards):
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--disable-dev-shm-usage", f"--user-data-dir={tmp_path / 'browser'}"]
    command += ["--virtual-time-budget=5000", f"file://{run.folder}/index.html{address}"]
    said = subprocess.run(command, capture_output=True, timeout=120, check=True)
    shown = said.stdout.decode().partition("<noscript>")[0]
    page = Page(shown)
    assert re.findall("<h2>(.*?)</h2>", shown) == cards
    assert page.tags.count("img") == 0, "a prompt is no markup"
    if "broken" in cards:
        assert f"a fox {NASTY}".replace("\u2028", " ") in page.words.replace("\u2028", " ")
