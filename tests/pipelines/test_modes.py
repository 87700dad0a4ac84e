"""What each mode keeps as it is, and what it makes anew."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save

from rayreel.conditioning.attention import AttentionStrength
from rayreel.conditioning.replacement import LatentReplacement
from rayreel.config.conditions import AdapterSpec
from rayreel.diffusion.samplers import SAMPLERS
from rayreel.diffusion.schedulers import DISTILLED_SIGMAS, SCHEDULERS, LTX2Scheduler
from rayreel.diffusion.watch import CancelToken, Watch
from rayreel.errors import Cancelled, ItemError
from rayreel.media.audio import read_audio
from rayreel.media.mux import write_clip
from rayreel.media.video import read_clip
from rayreel.models.audio_vae import resample, to_stereo
from rayreel.pipelines import PIPELINE_CLASSES, conditions, phases
from rayreel.pipelines.inputs import encodable, encode_frames, encode_sound
from rayreel.pipelines.sources import read_sources
from rayreel.pipelines.states import audio_target, video_target
from rayreel.types import Audio, Clip
from tests.pipelines.small import pinned, small, small_resolved

HARBOUR = {"width": 128, "height": 64, "num_frames": 25}


@pytest.fixture(scope="module")
def modes(tmp_path_factory, repository) -> Path:
    """The files that the rows of ``manifests/modes.jsonl`` name."""
    return Path(shutil.copytree(repository / "manifests/modes", tmp_path_factory.mktemp("m") / "m"))


def resolved(ledger, **fields):
    """A request as a job would plan it."""
    request = read_sources(small(**fields), ledger.files).request
    return small_resolved(ledger.files, **request.model_dump(exclude_unset=True))


def through(ledger, **fields):
    """A request's latents after each of its stages, and its clip before it is written."""
    request = resolved(ledger, **fields)
    pipeline = PIPELINE_CLASSES[fields["pipeline"]](ledger)
    batch = phases.encode(ledger, [request])
    first = pipeline.generate(batch)
    second = pipeline.refine(batch, first)
    return first[0], second[0], pipeline.decode(request, second[0]).collect()


def bell_of(modes, *, start_s=0.0, max_duration_s=None) -> Audio:
    sound = read_audio(modes / "bell.wav", start_s=start_s, max_duration_s=max_duration_s)
    assert sound is not None
    return sound


def retaken(ledger, modes, **fields):
    retake = {"path": str(modes / "harbour.mp4"), "start_s": 0.4, "end_s": 0.6, **fields}
    source = read_clip(modes / "harbour.mp4")
    return source, through(ledger, pipeline="retake", retake=retake, **HARBOUR)


def test_a_retake_keeps_frames_and_samples_outside_its_stretch(ledger, modes):
    source, (_, _, clip) = retaken(ledger, modes)
    # Latent frames that overlap 0.4 to 0.6 s: frames 9 to 16 at 24 fps.
    assert torch.equal(clip.frames[:9], source.frames[:9])
    assert torch.equal(clip.frames[17:], source.frames[17:])
    new = (clip.frames[9:17].int() - source.frames[9:17].int()).abs().float()
    assert (new.mean((1, 2, 3)) > 1).all()
    rate, ours, theirs = clip.audio.sample_rate_hz, clip.audio.waveform, source.audio.waveform
    assert ours.shape == theirs.shape
    # Latent frames of sound reach one latent frame, 40 ms, beyond the stretch at most.
    start, end = int(0.36 * rate), int(0.64 * rate)
    assert torch.equal(ours[:, :start], theirs[:, :start])
    assert torch.equal(ours[:, end:], theirs[:, end:])
    assert not torch.equal(ours[:, start:end], theirs[:, start:end])


def test_latents_outside_the_stretch_of_a_retake_are_those_of_the_video(ledger, modes):
    source, (latents, _, _) = retaken(ledger, modes)
    encoded = encode_frames(ledger, source.frames, (64, 128))[0]
    same = (latents.video == encoded).all(dim=(0, 2, 3))
    assert same.tolist() == [True, True, False, True]


@pytest.mark.parametrize("kept", ["video", "audio"])
def test_a_retake_of_one_stream_keeps_the_other(ledger, modes, kept):
    source, (_, _, clip) = retaken(ledger, modes, **{kept: False})
    frames = torch.equal(clip.frames, source.frames)
    sound = torch.equal(clip.audio.waveform, source.audio.waveform)
    assert (frames, sound) == (kept == "video", kept == "audio")


def test_a_stretch_past_the_end_of_the_sound_changes_no_sample(ledger, modes):
    source, (_, _, clip) = retaken(ledger, modes, start_s=1.02, end_s=1.04)
    assert torch.equal(clip.audio.waveform, source.audio.waveform)
    assert not torch.equal(clip.frames[-1], source.frames[-1])


def test_sound_is_made_where_the_video_has_none_any_more(ledger, modes, tmp_path):
    source = read_clip(modes / "harbour.mp4")
    assert source.audio is not None
    short = Audio(waveform=source.audio.waveform[:, :6000], sample_rate_hz=24000)
    write_clip(tmp_path / "short.mp4", replace(source, audio=short))
    _, (_, _, clip) = retaken(
        ledger, modes, path=str(tmp_path / "short.mp4"), start_s=0.6, end_s=0.8
    )
    made = clip.audio.waveform
    assert made.shape[1] > 0.8 * 24000
    assert made[:, int(0.65 * 24000) : int(0.75 * 24000)].std() > 0.001
    assert made[:, 6000 : int(0.5 * 24000)].std() == 0


def test_a_guided_retake_follows_the_prompt_and_steps(ledger, modes):
    plain, guided = (retaken(ledger, modes, guided=guided)[1][2] for guided in (False, True))
    assert not torch.equal(plain.frames, guided.frames)
    request = resolved(ledger, retake={"path": str(modes / "harbour.mp4"), "start_s": 0, "end_s": 1,
                                       "guided": True}, pipeline="retake")  # fmt: skip
    assert request.steps == 2
    assert request.video_guidance is not None


def test_a_silent_video_gets_sound_in_a_retake_if_it_is_asked_for(ledger, modes, tmp_path):
    silent = tmp_path / "silent.mp4"
    write_clip(silent, read_clip(modes / "harbour.mp4", sound=False))
    retake = {"path": str(silent), "start_s": 0.4, "end_s": 0.6}
    _, _, clip = through(ledger, pipeline="retake", retake=retake, **HARBOUR)
    assert clip.audio.waveform.std() > 0
    sourced = read_sources(small(retake={**retake, "audio": False}), ledger.files)
    assert not sourced.request.audio
    assert sourced.notes == ["the clip is silent, since its video is"]


def test_a_soundtrack_is_kept_to_the_sample_and_its_latents_to_the_bit(ledger, modes):
    track = {"path": str(modes / "bell.wav"), "start_s": 0.1}
    first, second, clip = through(ledger, pipeline="audio_to_video", soundtrack=track)
    source = bell_of(modes, start_s=0.1, max_duration_s=9 / 24)
    assert torch.equal(clip.audio.waveform, source.waveform)
    assert clip.audio.sample_rate_hz == source.sample_rate_hz
    tokens = audio_target(ledger, small()).tokens
    encoded = encode_sound(ledger, source, tokens)[0]
    assert torch.equal(first.audio, encoded)
    assert torch.equal(second.audio, encoded)


def test_another_soundtrack_makes_another_picture(ledger, modes):
    clips = [
        through(ledger, pipeline="audio_to_video",
                soundtrack={"path": str(modes / "bell.wav"), "start_s": start})[2]
        for start in (0.0, 0.5)
    ]  # fmt: skip
    assert not torch.equal(clips[0].frames, clips[1].frames)


def test_sound_alone_reads_no_weight_of_the_picture(ledger):
    request = resolved(ledger, pipeline="text_to_audio", video=False)
    clip: Any = PIPELINE_CLASSES["text_to_audio"](ledger)(request)
    assert clip.frames.shape == (0, 0, 0, 3)
    assert clip.audio.waveform.std() > 0
    with ledger.for_sound.transformer() as alone, ledger.transformer() as both:
        ours, theirs = alone.state_dict(), both.state_dict()
    assert ours.keys() < theirs.keys()
    assert all("audio" in name for name in ours)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("name", ["one_stage", "two_stage", "high_quality", "distilled"])
def test_an_image_of_strength_1_is_in_the_finished_latents_to_the_bit(ledger, picture, name):
    _, latents, _ = through(ledger, pipeline=name, images=(pinned(picture),))
    (item,) = conditions.pinned(
        ledger,
        phases.encode(ledger, [resolved(ledger, images=(pinned(picture),))])[0],
        video_target(ledger, small(), 1),
    )
    assert isinstance(item, LatentReplacement)
    assert torch.equal(latents.video[:, :1], item.latent[0])


def test_keyframes_guide_both_stages_and_replace_nothing(ledger, picture):
    images = (pinned(picture), pinned(picture, 8))
    free, guided = (
        through(ledger, pipeline=name, images=chosen)
        for name, chosen in (("two_stage", ()), ("keyframes", images))
    )
    items: Any = conditions.keyframes(
        ledger,
        phases.encode(ledger, [resolved(ledger, pipeline="keyframes", images=images)])[0],
        video_target(ledger, small(), 2),
    )
    assert not torch.equal(guided[0].video[:, :1], items[0].latent[0])
    assert not torch.equal(guided[0].video, free[0].video)
    # Keyframe interpolation takes the sound of the second stage.
    assert not torch.equal(guided[0].audio, guided[1].audio)
    assert torch.equal(free[0].audio, free[1].audio)


@pytest.fixture(scope="module")
def in_context(modes):
    return AdapterSpec(path=str(modes / "in-context-lora.safetensors"))


def follow(ledger, modes, in_context, *, loras=None, **reference):
    fields: dict[str, Any] = {
        "references": [{"path": str(modes / "harbour.mp4"), **reference}],
        "loras": [in_context] if loras is None else loras,
        "width": 256,
        "height": 128,
    }
    return through(ledger, pipeline="ic_lora", **fields)


def test_references_steer_the_first_stage(ledger, modes, in_context):
    usual = follow(ledger, modes, in_context)[0].video
    for other in (
        follow(ledger, modes, in_context, strength=0.3),
        follow(ledger, modes, in_context, attention=0.3),
        follow(ledger, modes, in_context, mask=str(modes / "left-half.png")),
        follow(ledger, modes, in_context, loras=[in_context.model_copy(update={"strength": 0.1})]),
    ):
        assert not torch.equal(other[0].video, usual)


def test_the_second_stage_has_neither_references_nor_their_adapter(ledger, modes, in_context):
    request = resolved(
        ledger, pipeline="ic_lora", references=[{"path": str(modes / "harbour.mp4")}],
        loras=[in_context], width=256, height=128,
    )  # fmt: skip
    pipeline: Any = PIPELINE_CLASSES["ic_lora"](ledger)
    first, second = pipeline.first_weights(request), pipeline.second_weights(request)
    distilled = ledger.files.distilled_lora.name
    assert [a.name for a in first.adapters] == ["in-context-lora", distilled]
    assert [a.name for a in second.adapters] == [distilled]
    assert pipeline.first_phase(request).video is conditions.references
    assert pipeline.second_phase(request).video is conditions.pinned


def test_the_adapter_says_how_much_smaller_references_are(ledger, modes, in_context):
    request = resolved(
        ledger, pipeline="ic_lora", width=256, height=128,
        references=[{"path": str(modes / "harbour.mp4")}],
    )  # fmt: skip
    view = ledger.with_loras(ledger.files.adapter(in_context))
    encoded = phases.encode(ledger, [request])[0]
    for chosen, size in ((view, (1, 2)), (ledger, (2, 4))):
        items: Any = conditions.references(chosen, encoded, video_target(ledger, request, 2))
        (item,) = items
        assert tuple(item.latent.shape[3:]) == size
        assert item.downscale_factor == 4 // size[1]


def test_adapters_that_disagree_about_the_scale_are_refused(ledger, modes, in_context, tmp_path):
    other = tmp_path / "other.safetensors"
    with safe_open(in_context.path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    other.write_bytes(save(tensors, {"reference_downscale_factor": "1"}))
    with pytest.raises(ItemError, match="disagree about the scales"):
        follow(ledger, modes, in_context, loras=[in_context, AdapterSpec(path=str(other))])


def test_a_mask_weighs_reference_tokens_where_it_is_white(ledger, modes, in_context):
    request = resolved(
        ledger, pipeline="ic_lora", width=256, height=128, loras=[in_context],
        references=[{"path": str(modes / "harbour.mp4"), "attention": 0.5,
                     "mask": str(modes / "left-half.png")}],
    )  # fmt: skip
    encoded = phases.encode(ledger, [request])[0]
    (item,) = conditions.references(ledger, encoded, video_target(ledger, request, 2))
    assert isinstance(item, AttentionStrength)
    weights = item.strength
    assert isinstance(weights, torch.Tensor)
    assert weights.reshape(-1, 2, 4)[0].tolist() == [[0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0]]


def test_high_quality_takes_second_order_steps_for_its_number_of_tokens(ledger):
    request = resolved(ledger, pipeline="high_quality", steps=15, width=1920, height=1088,
                       num_frames=121)  # fmt: skip
    pipeline: Any = PIPELINE_CLASSES["high_quality"](ledger)
    first, second = pipeline.first_phase(request), pipeline.second_phase(request)
    torch.testing.assert_close(first.sigmas, LTX2Scheduler(tokens=8160).sigmas(15))
    assert (first.sampler, second.sampler) == ("res_2s", "res_2s")
    strengths = [
        weights(request).adapters[-1].strength
        for weights in (pipeline.first_weights, pipeline.second_weights)
    ]
    assert strengths == [0.25, 0.5]
    assert resolved(ledger, pipeline="high_quality", steps=None).steps == 15
    assert (request.video_guidance.stg_scale, request.video_guidance.rescale_scale) == (0, 0.45)
    assert (request.audio_guidance.stg_scale, request.audio_guidance.rescale_scale) == (0, 1)


def test_explicit_noise_levels_replace_steps_and_scheduler(ledger):
    request = resolved(ledger, sigmas=(1.0, 0.5, 0.0), stage2_sigmas=(0.6, 0.0), steps=9)
    pipeline: Any = PIPELINE_CLASSES["two_stage"](ledger)
    assert pipeline.first_phase(request).sigmas.tolist() == [1, 0.5, 0]
    assert pipeline.second_phase(request).sigmas.tolist() == pytest.approx([0.6, 0])
    assert request.steps is None
    distilled: Any = PIPELINE_CLASSES["distilled"](ledger)
    usual = distilled.first_phase(resolved(ledger, pipeline="distilled"))
    assert usual.sigmas.tolist() == pytest.approx(DISTILLED_SIGMAS)


@pytest.mark.parametrize("field", ["sampler", "scheduler"])
def test_every_sampler_and_scheduler_makes_a_clip_of_its_own(ledger, field):
    names = {"sampler": list(SAMPLERS), "scheduler": list(SCHEDULERS)}[field]
    videos = [
        through(ledger, pipeline="one_stage", steps=3, **{field: name})[0].video for name in names
    ]
    for index, video in enumerate(videos):
        assert video.isfinite().all()
        assert not any(torch.equal(video, other) for other in videos[:index])


@pytest.mark.parametrize("name", [name for name in PIPELINE_CLASSES if name != "image"])
def test_every_pipeline_reports_its_steps_and_can_be_cancelled(ledger, modes, picture, name):
    asked: dict[str, Any] = {
        "ic_lora": {"references": [{"path": str(modes / "harbour.mp4")}]},
        "keyframes": {"images": (pinned(picture),)},
        "audio_to_video": {"soundtrack": {"path": str(modes / "bell.wav")}},
        "retake": {"retake": {"path": str(modes / "harbour.mp4"), "start_s": 0, "end_s": 1}},
        "text_to_audio": {"video": False},
    }
    steps: list[tuple[str, int, int]] = []
    watch = Watch(on_step=lambda *step: steps.append(step))
    request = small(pipeline=name, **asked.get(name, {}))
    PIPELINE_CLASSES[name](ledger, watch)(request)
    phases_seen = dict.fromkeys(phase for phase, _, _ in steps)
    for phase in phases_seen:
        mine = [(index, count) for seen, index, count in steps if seen == phase]
        assert mine == [(index, mine[0][1]) for index in range(mine[0][1])]
    assert len(phases_seen) == PIPELINE_CLASSES[name].traits.stages
    steps.clear()
    token = CancelToken()

    def stop(*step):
        steps.append(step)
        token.cancel()

    stopping = Watch(on_step=stop, token=token)
    with pytest.raises(Cancelled):
        PIPELINE_CLASSES[name](ledger, stopping)(request)
    assert len(steps) == 1


def test_sound_of_any_kind_serves_as_a_soundtrack(ledger, modes):
    bell = bell_of(modes)
    mono = Audio(waveform=resample(bell.waveform[:1], 24000, 8000), sample_rate_hz=8000)
    stereo = Audio(waveform=to_stereo(mono.waveform), sample_rate_hz=8000)
    assert torch.equal(encode_sound(ledger, mono, 20), encode_sound(ledger, stereo, 20))


@pytest.mark.parametrize(("rate", "written"), [(192000, 96000), (10000, 11025), (44100, 44100)])
def test_sound_is_brought_to_a_rate_that_can_be_written(rate, written):
    sound = Audio(waveform=torch.zeros(2, rate), sample_rate_hz=rate)
    made = encodable(sound)
    assert made.sample_rate_hz == written
    assert made.waveform.shape == (2, written)


def test_a_mask_is_cut_to_the_frames_of_its_reference(ledger, modes, tmp_path):
    """White from frame 25 on, which a clip of 25 frames does not reach."""
    frames = torch.zeros(49, 32, 32, 3, dtype=torch.uint8)
    frames[25:] = 255
    write_clip(tmp_path / "mask.mp4", Clip(frames=frames, fps=24), crf=0)
    request = resolved(
        ledger, pipeline="ic_lora", width=256, height=128, num_frames=25,
        references=[{"path": str(modes / "harbour.mp4"), "mask": str(tmp_path / "mask.mp4")}],
    )  # fmt: skip
    encoded = phases.encode(ledger, [request])[0]
    (item,) = conditions.references(ledger, encoded, video_target(ledger, request, 2))
    assert isinstance(item, AttentionStrength)
    assert isinstance(item.strength, torch.Tensor)
    assert item.strength.max() < 0.02


def test_the_adapter_says_how_many_frames_a_reference_leaves_out(
    ledger, modes, in_context, tmp_path
):
    other = tmp_path / "every-second.safetensors"
    with safe_open(in_context.path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    other.write_bytes(save(tensors, {"reference_temporal_scale_factor": "2"}))
    view = ledger.with_loras(ledger.files.adapter(AdapterSpec(path=str(other))))
    request = resolved(
        ledger, pipeline="ic_lora", width=256, height=128, num_frames=25,
        references=[{"path": str(modes / "harbour.mp4")}],
    )  # fmt: skip
    encoded = phases.encode(ledger, [request])[0]
    items: Any = conditions.references(view, encoded, video_target(ledger, request, 2))
    (item,) = items
    source = read_clip(modes / "harbour.mp4", sound=False).frames
    # The first frame, then 1, 3, 5 ...: 13 of 25, of which 9 make whole latent frames.
    kept = torch.cat([source[:1], source[1::2]])[:9]
    assert torch.equal(item.latent, encode_frames(ledger, kept, (64, 128)))
    assert item.temporal_scale == 2
