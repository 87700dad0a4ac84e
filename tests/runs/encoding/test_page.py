"""The page of a dataset: what became of its list, and samples decoded beside their sources."""

import json
import math
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor

from rayreel.config.encode import EncodeSpec
from rayreel.data.columns import SampleInfo, SampleRow
from rayreel.data.dataset import DatasetInfo, read_info
from rayreel.data.reader import LatentDataset
from rayreel.data.samples import Picture
from rayreel.data.storage import Storage
from rayreel.errors import RayreelError, SpecError
from rayreel.media.frames import read_frames
from rayreel.media.framing import center_crop, resize_and_crop
from rayreel.media.image import load_image
from rayreel.pipelines.devices import Device
from rayreel.pipelines.encoding import encode_pictures, encode_sounds, read_picture
from rayreel.pipelines.ledger import ModelLedger
from rayreel.runs.encoding.report import inspect_dataset, write_page
from rayreel.runs.encoding.report.changes import changed_parts
from rayreel.runs.encoding.report.decoded import CheckedClip, check_clips
from rayreel.runs.encoding.report.framed import source_frames
from rayreel.runs.encoding.report.numbers import Numbers, read_numbers
from rayreel.runs.encoding.report.picks import pick
from rayreel.runs.encoding.results import SCHEMA
from rayreel.runs.encoding.rows import ClipRow
from rayreel.runs.encoding.samples import Decisions
from rayreel.runs.report.results import ResultsTable
from rayreel.stages.scan import hash_file, scan_file
from tests.data.encoded import encoded, row
from tests.media.samples import write_video
from tests.pipelines.media import picture

NASTY = "</script><img src=x onerror=alert(1)> \"two\" & 'one' {{ run }} <!-- é 狐"


class Page(HTMLParser):
    """Tags with their attributes, and words."""

    def __init__(self, storage: Storage) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.within: dict[str, list[str]] = {"del": [], "ins": []}
        self.feed(storage.read_text("index.html"))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words += data
        if self.tags and self.tags[-1][0] in self.within:
            self.within[self.tags[-1][0]].append(data)

    def handle_endtag(self, tag):
        self.tags.append((f"/{tag}", {}))

    @property
    def links(self) -> list[str]:
        """Whatever a browser fetches or may go to."""
        found = [attrs.get(name) for _, attrs in self.tags for name in ("src", "href", "poster")]
        return [link for link in found if link]


def line(number: int, **values: Any) -> dict[str, Any]:
    """A line of ``results.parquet``: a sample unless told otherwise."""
    return {
        "row": number,
        "name": f"clip {number}",
        "scene": 0,
        "status": "done",
        "kind": "video",
        "source": f"clips/{number}.mp4",
        "bucket": "96x64x9",
        "fps": 24.0,
        "all_reasons": [],
        "caption": "A fox.",
        "caption_original": "A fox.",
        "caption_changes": [],
        "caption_by": "list",
        "measure_duration_s": 1.0,
        "measure_black": 0.0,
        **values,
    }


def refused(number: int, status: str = "dropped", *rules: str, **values: Any) -> dict[str, Any]:
    reasons = [f"{rule}: {rule} is 1; expected at most 0.9" for rule in rules]
    first = {"rule": rules[0], "reason": reasons[0]}
    others = {"status": status, "all_reasons": reasons, "bucket": None, "caption": None}
    return line(number, **first, **others, **values)


def written(folder: Path | str, lines: list[dict[str, Any]]) -> Storage:
    """A folder with results alone."""
    storage = Storage(folder)
    with (
        storage.local_staging("results.parquet") as staged,
        ResultsTable(staged, SCHEMA) as table,
    ):
        table.add(lines)
    return storage


def numbers(storage: Storage) -> Numbers:
    return read_numbers(Path(storage.join("results.parquet")))


def page(
    storage: Storage, info: DatasetInfo | None = None, clips: tuple[CheckedClip, ...] = ()
) -> Page:
    write_page(storage, title="Foxes", summary="all said", info=info, clips=clips)
    return Page(storage)


def test_clips_are_counted_by_what_became_of_them_and_by_rule(tmp_path):
    lines = [line(1), line(2), refused(3, "dropped", "black", "frozen")]
    lines += [refused(4, "dropped", "frozen"), refused(5, "failed", "unreadable")]
    found = numbers(written(tmp_path, lines))
    assert found.statuses == {"done": 2, "dropped": 2, "failed": 1}
    assert found.buckets == {"96x64x9": 2}
    counts = {rule: (c.decided, c.against, c.alone) for (_, rule), c in found.rules.items()}
    assert counts == {"black": (1, 1, 0), "frozen": (1, 2, 1), "unreadable": (1, 1, 1)}


def test_every_value_of_a_measure_is_in_its_distribution(tmp_path):
    lines = [line(n, measure_duration_s=0.1 * 1.01**n, measure_black=None) for n in range(700)]
    lines.append(refused(700, "dropped", "black", measure_duration_s=None, measure_black=0.25))
    found = numbers(written(tmp_path, lines))
    seconds, black = found.measures["duration_s"], found.measures["black"]
    assert (seconds.done.sum(), seconds.others.sum()) == (700, 0)
    assert (black.done.sum(), black.others.sum()) == (0, 1)
    assert np.diff(seconds.edges)[-1] > 10 * np.diff(seconds.edges)[0], "values spread wide"
    assert "width" not in found.measures, "no clip has one"


def test_lengths_are_those_of_samples_that_are_videos(tmp_path):
    still = {"kind": "image", "bucket": "96x64x1", "fps": 1.0}
    sound = {"kind": "audio", "bucket": None, "fps": None}
    lines = [line(1), line(2, **still), line(3, **sound), refused(4, "dropped", "black")]
    seconds = numbers(written(tmp_path, lines)).seconds
    assert seconds is not None
    assert seconds.done.tolist() == [1]
    assert seconds.edges.mean() == 9 / 24


def test_lists_of_a_large_dataset_stay_short_and_tell_how_many_more_there_are(tmp_path):
    lines = [refused(n // 2, "failed", "unreadable", scene=n % 2) for n in range(20_001)]
    storage = written(tmp_path, lines)
    found = numbers(storage)
    assert (found.rows, found.clips) == (10_001, 20_001), "scenes are of one row"
    assert len(found.failed) == 300
    shown = page(storage)
    assert "And 19,701 more" in shown.words
    assert shown.words.count("unreadable is 1") == 300


def test_changes_of_captions_are_marked_and_captions_are_no_markup(tmp_path):
    before, after = f"In this video,  {NASTY}", NASTY
    changed = {"caption_original": before, "caption": after, "caption_changes": ["opening removed"]}
    shown = page(written(tmp_path, [line(1, **changed), line(2, name=NASTY, source=NASTY)]))
    assert "".join(shown.within["del"]).split() == ["In", "this", "video,"]
    assert shown.within["ins"] == []
    assert NASTY in shown.words
    assert not [attrs for tag, attrs in shown.tags if tag == "img"]


def test_reasons_and_facts_of_clips_are_no_markup(tmp_path):
    clip = CheckedClip(
        name=NASTY, caption=NASTY, path="inspect/000000.wav", fault=NASTY, facts=(("note", NASTY),)
    )
    said = {"name": NASTY, "source": NASTY, "reason": NASTY}
    lines = [{**refused(1, "failed", "unreadable"), **said, "all_reasons": []}]
    lines += [{**refused(2, "dropped", "black", "width"), "all_reasons": [NASTY, NASTY]}]
    shown = page(written(tmp_path, lines), clips=(clip,))
    assert shown.words.count(NASTY) >= 8
    assert not [attrs for tag, attrs in shown.tags if tag == "img"]


@pytest.mark.parametrize(
    ("before", "after"),
    [("a  b c", "a b c"), ("", "x"), ("This image shows a cat", "sks a cat"), ("a " * 3000, "a")],
)
def test_parts_make_up_both_texts(before, after):
    old, new = changed_parts(before, after)
    assert before.startswith("".join(part.text for part in old).removesuffix("…"))
    assert "".join(part.text for part in new) == after
    assert {part.kind for part in old} <= {"same", "cut"}
    assert {part.kind for part in new} <= {"same", "new"}


def test_a_page_needs_nothing_but_files_of_the_dataset(tmp_path):
    info = encoded(tmp_path, [[row(0), row(1, kind="all"), row(2, kind="sound")]])
    shown = page(written(tmp_path, [line(1), refused(2, "dropped", "black")]), info)
    assert [link for link in shown.links if link.startswith("#")] == ["#dropped"]
    others = {link for link in shown.links if not link.startswith("#")}
    assert others == {"results.parquet", "dataset.json"}
    assert {"Samples by bucket", "Video latents by channel"} <= set(shown.words.split("\n"))


def test_a_stopped_job_and_an_imported_dataset_have_pages_too(tmp_path):
    stopped = page(written(tmp_path / "stopped", [line(1)]))
    assert "results.parquet" in stopped.links
    imported = page(
        Storage(tmp_path / "imported"), encoded(tmp_path / "imported", [[row(0), row(1)]])
    )
    assert "failed" not in imported.words


def test_a_page_of_an_object_store_reads_its_results_there(tmp_path):
    uri = f"memory://{tmp_path.name}"
    storage = written(uri, [line(1), refused(2, "dropped", "black")])
    assert "black is 1" in page(storage, encoded(uri, [[row(0)]])).words


@pytest.mark.parametrize("content", [b"no table", None])
def test_results_that_are_none_are_refused(tmp_path, content):
    if content is None:
        pq.write_table(pa.table({"row": [1]}), tmp_path / "results.parquet")
    else:
        (tmp_path / "results.parquet").write_bytes(content)
    with pytest.raises(RayreelError, match=r"results\.parquet (cannot be read|is not what)"):
        page(Storage(tmp_path))


def test_samples_are_picked_evenly_over_the_buckets(tmp_path):
    kinds = ["video"] * 20 + ["image"] * 3 + ["sound"] * 2
    rows = [row(number, kind=kind) for number, kind in enumerate(kinds)]
    encoded(tmp_path, [rows[:7], rows[7:21], rows[21:]])
    dataset, storage = LatentDataset(tmp_path), Storage(tmp_path)
    picked = pick(dataset, storage, 12)
    counts = {kind: sum(kinds[number] == kind for number in picked) for kind in set(kinds)}
    assert counts == {"video": 7, "image": 3, "sound": 2}, "small ones leave their shares"
    assert picked == sorted(set(picked)) == pick(dataset, storage, 12)
    assert pick(dataset, storage, 100) == list(range(25))


@dataclass(frozen=True)
class Made:
    """A dataset of a clip, an image, and what else is asked for; made by the tiny model."""

    folder: Path
    clip: Path
    still: Path

    @property
    def spec(self) -> EncodeSpec:
        return EncodeSpec(dataset="list.jsonl", output=str(self.folder))

    def write(self, ledger: ModelLedger, **tensors: Tensor) -> None:
        rows = []
        for number, (path, bucket) in enumerate(
            ((self.clip, "96x64x9"), (self.still, "64x64x1")), start=1
        ):
            size = read_frames(path, count=1).shape[1:3]
            crop = (0, 16) if size == (64, 96) and bucket == "64x64x1" else (0, 0)
            medium = picture(path, bucket=bucket, crop=crop)
            (latents,) = encode_pictures(ledger, [read_picture(path, medium)], tiled=False)
            info = SampleInfo(
                sample_id=f"../{number}",
                row=number,
                name=path.stem,
                source=str(path),
                content=hash_file(path),
                fps=24.0,
                bucket=medium.bucket,
                caption="A fox.",
            )
            own = {"video_latents": latents.bfloat16(), **(tensors if number == 1 else {})}
            rows.append(SampleRow(info=info, tensors=own))
        encoded(self.folder, [rows])
        values = {"spec": self.spec.model_dump(mode="json")}
        (self.folder / "run.json").write_text(json.dumps(values))


@pytest.fixture(scope="module")
def ledger() -> ModelLedger:
    return ModelLedger("tiny", Device("cpu", "float32", reason="as tested"))


@pytest.fixture
def made(tmp_path, ledger) -> Made:
    noise = torch.Generator().manual_seed(1)
    frames = torch.randint(0, 256, (9, 64, 96, 3), generator=noise, dtype=torch.uint8)
    dataset = Made(tmp_path / "data", tmp_path / "fox.mkv", tmp_path / "still.png")
    write_video(dataset.clip, frames)
    Image.fromarray(frames[0].numpy()).save(dataset.still)
    dataset.write(ledger)
    return dataset


def checked(made: Made, ledger: ModelLedger, spec: EncodeSpec | None = None) -> list[CheckedClip]:
    storage = Storage(made.folder)
    return check_clips(LatentDataset(made.folder), ledger, storage, spec=spec or made.spec)


def test_the_source_is_on_the_left_of_what_was_decoded(made, ledger):
    _, still = checked(made, ledger)
    source, decoded = load_image(made.folder / still.path).split(64, dim=1)
    assert (source == load_image(made.still)[:, 16:80]).all()
    error = ((source.double() - decoded.double()) / 255).square().mean().item()
    assert still.psnr_db == pytest.approx(-10 * math.log10(error))


def test_a_clip_is_shown_with_its_frames_and_its_thumb(made, ledger):
    clip, _ = checked(made, ledger)
    assert read_frames(made.folder / clip.path, count=99).shape == (9, 64, 192, 3)
    assert load_image(made.folder / str(clip.thumb)).shape == (64, 192, 3)
    assert clip.is_compared
    assert "ltx-2-tiny" in clip.decoded_by


@pytest.mark.parametrize(("change", "said"), [("gone", "fox.mkv"), ("other", "has changed")])
def test_a_source_that_is_gone_costs_its_comparison(made, ledger, change, said):
    if change == "gone":
        made.clip.unlink()
    else:
        write_video(made.clip, torch.zeros(9, 64, 96, 3, dtype=torch.uint8))
    clip, still = checked(made, ledger)
    assert said in clip.fault
    assert not clip.is_compared
    assert read_frames(made.folder / clip.path, count=99).shape == (9, 64, 96, 3)
    assert still.is_compared


def test_sounds_references_and_masks_are_shown(made, ledger):
    (sound,) = encode_sounds(ledger, [torch.zeros(2, 8000)])
    reference = LatentDataset(made.folder)[1].video_latents
    mask = torch.tensor([[[1.0, 0, 0], [0, 0, 0]]] * 2)
    made.write(ledger, audio_latents=sound, reference_latents=reference, video_mask=mask)
    clip, _ = checked(made, ledger)
    assert load_image(made.folder / str(clip.reference)).shape == (64, 64, 3)
    painted = load_image(made.folder / str(clip.mask)).float()
    plain = read_frames(made.folder / clip.path, count=9)[4, :, 96:].float()
    half_blue = (plain + torch.tensor([40.0, 110.0, 255.0])) / 2
    assert (painted - half_blue)[:32, :32].abs().mean() < 8
    assert (painted - plain)[32:].abs().mean() < 8, "as it is"
    assert ("duration", "0.00 s, with sound") in clip.facts


def test_frames_are_cropped_as_the_job_cropped_them(made):
    buckets = ["64x64x9", "32x64x9", "96x32x9"]
    values = {"dataset": "x", "buckets": buckets, "crop": "random"}
    scan = scan_file(made.clip, hash_file(made.clip), None)
    listed = ClipRow(number=1, name="fox", caption="", media={"video": str(made.clip)})
    # Every writing gives the file another identity, and with it another crop: one in 33 is central.
    for seed in range(99):
        spec = EncodeSpec.model_validate({**values, "seed": seed})
        (candidate,) = Decisions(spec).of(listed, {str(made.clip): scan})
        medium = candidate.media["video"]
        assert isinstance(medium, Picture)
        if medium.crop != center_crop(96, 64, medium.bucket.width, medium.bucket.height):
            break
    else:
        pytest.fail("all crops are central")
    info = SampleInfo(
        sample_id="1",
        row=1,
        name="fox",
        source=str(made.clip),
        content=scan.content,
        fps=24.0,
        bucket=medium.bucket,
    )
    expected = resize_and_crop(
        read_frames(made.clip, count=9),
        height=medium.bucket.height,
        width=medium.bucket.width,
        crop=medium.crop,
    )
    levels = expected.movedim(0, -1).add(1).mul(127.5)
    assert (source_frames(info, spec) - levels).abs().max() <= 0.51
    assert (source_frames(info, None) - levels).abs().max() > 50, "crops matter here"


def test_inspecting_writes_a_page_that_shows_what_it_wrote(made):
    stale = made.folder / "inspect" / "999999.mp4"
    stale.parent.mkdir()
    stale.touch()
    path = Path(inspect_dataset(str(made.folder)))
    shown = Page(Storage(made.folder))
    files = {link for link in shown.links if link.startswith("inspect/")}
    assert files == {f"inspect/{file.name}" for file in stale.parent.iterdir()}
    assert len(files) == 3
    assert path == made.folder / "index.html"


def test_a_dataset_that_does_not_say_its_model_needs_one_to_be_named(made):
    (made.folder / "run.json").unlink()
    with pytest.raises(SpecError, match="does not say what encoded"):
        inspect_dataset(str(made.folder))
    assert inspect_dataset(str(made.folder), model="tiny", count=1).endswith("index.html")


def test_latents_of_another_model_are_refused(tmp_path, ledger):
    encoded(tmp_path, [[row(0)]])
    storage = Storage(tmp_path)
    with pytest.raises(SpecError, match="have 4 channels, those of the model 16"):
        check_clips(LatentDataset(tmp_path), ledger, storage, spec=None)
    assert read_info(storage).num_samples == 1
