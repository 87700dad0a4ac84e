"""The manifest of all modes, rendered by a job: what comes out, and what has not changed."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from rayreel.config.jobs import StageSpec
from rayreel.config.request import RenderRequest
from rayreel.media.audio import read_audio
from rayreel.media.container import probe
from rayreel.media.image import load_image
from rayreel.media.video import read_clip
from rayreel.models.video_vae import to_rgb
from rayreel.pipelines.devices import choose_device
from rayreel.pipelines.inputs import encode_image
from rayreel.pipelines.ledger import ModelLedger
from rayreel.pipelines.states import video_target
from rayreel.requests.spec import read_render_spec
from rayreel.runs.requests import PlannedRow, plan_rows
from tests.runs.conftest import Job

pytestmark = pytest.mark.ray

FPS = 24
SOURCE_FRAMES = 25


@dataclass(frozen=True)
class Modes:
    """The job, what was planned, and what came of it."""

    job: Job
    ledger: ModelLedger
    rows: dict[str, PlannedRow]
    exit_code: int

    def request(self, name: str) -> RenderRequest:
        return self.rows[name].request

    def file(self, name: str) -> Path:
        return self.job.output / str(self.job.results[name]["output"])

    def latents(self, name: str) -> dict[str, Tensor]:
        item_id = self.rows[name].item_id
        return load_file(self.job.output / f"latents/{item_id}-0000.safetensors")


@pytest.fixture(scope="module")
def modes(ray_cluster, repository, tmp_path_factory) -> Modes:
    folder = tmp_path_factory.mktemp("modes")
    for name in ("modes.yaml", "modes.jsonl", "demo-sunset.png"):
        shutil.copy(repository / "manifests" / name, folder / name)
    shutil.copytree(repository / "manifests/modes", folder / "modes")
    job = Job(folder / "modes.yaml", folder / "run")
    said = job.render()
    ledger = ModelLedger("tiny", choose_device(StageSpec()))
    rows = plan_rows(read_render_spec(str(job.spec), output=str(job.output)), ledger.files)
    return Modes(job, ledger, {row.name: row for row in rows}, said.exit_code)


def names(repository: Path) -> list[str]:
    lines = (repository / "manifests/modes.jsonl").read_text().splitlines()
    return [json.loads(line)["id"] for line in lines]


def added(request: RenderRequest) -> int:
    """Frames of the clip that a row's file has beside those that the row makes."""
    return SOURCE_FRAMES if request.extend else 0


def test_every_mode_is_rendered(modes, repository):
    assert modes.exit_code == 0
    results = modes.job.results
    assert list(results) == names(repository)
    assert {result["status"] for result in results.values()} == {"done"}


def test_clips_have_their_frames_and_seconds_and_samples(modes):
    for name, row in modes.rows.items():
        request, file = row.request, modes.file(name)
        if file.suffix != ".mp4":
            continue
        info, frames = probe(file), request.num_frames + added(request)
        assert (info.width, info.height, info.num_frames) == (request.width, request.height, frames)
        assert info.fps == pytest.approx(FPS)
        assert info.has_audio == request.audio
        if request.audio:
            sound = read_audio(file)
            assert sound is not None
            expected = round(frames / FPS * sound.sample_rate_hz)
            missing = expected - sound.waveform.shape[1]
            # A clip of one piece ends up to 1.5 latent frames of sound before its last frame.
            whole = bool(request.extend or request.chain.chunk_frames)
            assert 0 <= missing <= (1 if whole else 0.06 * sound.sample_rate_hz), name


def test_sounds_alone_last_as_long_as_asked(modes):
    for name in ("sound-alone", "sound-alone-m4a"):
        sound = read_audio(modes.file(name))
        assert sound is not None
        assert 1.44 < sound.waveform.shape[1] / sound.sample_rate_hz <= 1.5
        assert sound.waveform.std() > 0
    assert [modes.file(name).suffix for name in ("sound-alone", "sound-alone-m4a")] == [
        ".wav",
        ".m4a",
    ]


def test_single_frames_are_images(modes):
    for name in ("one-frame", "one-frame-of-image"):
        assert load_image(modes.file(name)).shape == (64, 128, 3)
        assert modes.job.results[name]["notes"] == [
            "a single frame of the video model: the spec names no image_model"
        ]


@pytest.mark.parametrize(
    "name", [f"image-{p}" for p in ("one_stage", "two_stage", "high_quality", "distilled")]
)
def test_pinned_frames_are_the_decoded_image(modes, name):
    request, latents = modes.request(name), modes.latents(name)["video"]
    target = video_target(modes.ledger, request, 1)
    pinned = encode_image(modes.ledger, request.images[0], target)
    assert torch.equal(latents[:, :1], pinned[0])
    with modes.ledger.video_decoder() as decoder:
        # The first frame is decoded with those that follow in view.
        reference = to_rgb(decoder(torch.cat([pinned, latents[None, :, 1:]], dim=2)))[0, 0]
    shown = read_clip(modes.file(name), max_frames=1, sound=False).frames[0]
    # What H.264 costs: 2 to 3 of 255 levels on average were measured.
    assert (shown.float() - reference.float()).abs().mean() < 5


def test_a_soundtrack_is_heard_as_it_was(modes):
    heard = read_audio(modes.file("sound-to-video"))
    track = modes.request("sound-to-video").soundtrack
    assert heard is not None
    assert track is not None
    source = read_audio(Path(track.path), start_s=0.1, max_duration_s=SOURCE_FRAMES / FPS)
    assert source is not None
    assert heard.waveform.shape == source.waveform.shape
    # What AAC costs.
    error = (heard.waveform - source.waveform).square().mean().sqrt()
    assert error < 0.05 * source.waveform.square().mean().sqrt()
    assert modes.request("sound-of-one-second").num_frames == SOURCE_FRAMES


@pytest.mark.parametrize("name", ["retake", "retake-picture", "retake-guided"])
def test_frames_outside_a_retake_are_those_of_the_video(modes, name):
    request = modes.request(name)
    source, clip = (
        read_clip(p, sound=False).frames.float() for p in (_path(request), modes.file(name))
    )
    assert request.retake is not None
    start, end = request.retake.start_s * FPS, request.retake.end_s * FPS
    outside = [i for i in range(SOURCE_FRAMES) if i < start - 8 or i > end + 8]
    inside = [i for i in range(SOURCE_FRAMES) if start + 1 < i < end - 1]
    assert outside
    difference = (clip - source).abs().mean((1, 2, 3))
    # What a second H.264 costs, against another picture.
    assert difference[outside].max() < 5 < difference[inside].min()


def _path(request: RenderRequest) -> Path:
    source = request.retake or request.extend
    assert source is not None
    assert source.path is not None
    return Path(source.path)


def test_an_extension_shows_the_clip_and_then_what_follows_it(modes):
    for name, first in (("extend-forward", 0), ("extend-backward", 24)):
        request = modes.request(name)
        source = read_clip(_path(request), sound=False).frames.float()
        clip = read_clip(modes.file(name), sound=False).frames.float()
        there = clip[first : first + SOURCE_FRAMES]
        assert (there - source).abs().mean((1, 2, 3)).max() < 5
        assert modes.job.results[name]["notes"] == [
            "goes on from encoded frames: there are no latents of the clip"
        ]


def test_results_say_why_a_row_went_to_its_pipeline(modes):
    said = {
        name: (result["pipeline"], result["pipeline_reason"])
        for name, result in modes.job.results.items()
    }
    assert said["video-to-video"] == ("ic_lora", "it has reference videos")
    assert said["keyframes"] == ("keyframes", "it has images at its first and last frame")
    assert said["sound-to-video"] == ("audio_to_video", "it has a soundtrack")
    assert said["sound-alone"] == ("text_to_audio", "it has no picture")
    assert said["retake"] == ("retake", "it retakes a stretch of a video")
    assert said["silent"] == ("two_stage", "it is the general one")
    assert said["image-distilled"] == ("distilled", "it is named")


def test_prompts_that_cannot_be_enhanced_are_used_as_they_are_and_say_so(modes):
    for name in ("enhanced", "chain-directed"):
        result = modes.job.results[name]
        assert result["written_prompts"] == []
        (note,) = result["notes"]
        assert "no chat template" in note


def test_a_finished_clip_is_extended_by_its_id(modes, tmp_path):
    """From latents that the run kept, and so without any note."""
    clips = {name: modes.rows[name].item_id for name in ("text-two_stage", "extend-forward")}
    rows = [
        {"id": f"{name}-{way}", "prompt": "And then.", "seconds": 1,
         "extend": {"clip": clip, "run": str(modes.job.output), "direction": way}}
        for name, clip in clips.items()
        for way in ("forward", "backward")
    ]  # fmt: skip
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    job = Job(tmp_path / "list.jsonl", tmp_path / "run")
    assert job.render("--set", "defaults.steps=2").exit_code == 0
    notes = {name: result["notes"] for name, result in job.results.items()}
    assert notes["text-two_stage-forward"] == notes["text-two_stage-backward"] == []
    assert notes["extend-forward-forward"] == []
    # Its start is that of a file.
    assert len(notes["extend-forward-backward"]) == 1
    for name, result in job.results.items():
        longer = probe(job.output / result["output"]).num_frames
        assert longer == 24 + probe(modes.file(name.rpartition("-")[0])).num_frames


def test_a_rerun_has_nothing_left(modes):
    again = modes.job.render()
    assert again.exit_code == 0
    assert "nothing was left" in again.stdout
