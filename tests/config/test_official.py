"""Specs of the LTX-2 trainer in our words: what is carried over, and what is said of the rest."""

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from rayreel.cli import app
from rayreel.config.load import parse
from rayreel.config.official import convert, is_official
from rayreel.config.train import TrainSpec
from rayreel.errors import SpecError

# Of the first releases.
OLD = yaml.safe_load("""
model: {model_path: /w/ltx-2.safetensors, text_encoder_path: /w/gemma, load_checkpoint: null}
lora: {rank: 32, alpha: 32, dropout: 0.1, target_modules: [to_v, to_k, to_q, to_out.0]}
training_strategy: {name: text_to_video, first_frame_conditioning_p: 0.5, with_audio: true}
optimization: {learning_rate: 1e-4, steps: 2000, batch_size: 1, scheduler_type: linear,
               enable_gradient_checkpointing: true, max_grad_norm: -1}
acceleration: {mixed_precision_mode: bf16, quantization: int8-quanto}
data: {preprocessed_data_root: /d/foxes/.precomputed}
validation: {prompts: [a fox, a bear], images: [/d/fox.png, /d/bear.png],
             video_dims: [576, 576, 89], frame_rate: 25.0, inference_steps: 30, interval: 250,
             videos_per_prompt: 1, guidance_scale: 3.0, stg_mode: stg_v}
checkpoints: {interval: 250, keep_last_n: -1}
wandb: {enabled: true, project: foxes, tags: [lora]}
seed: 7
output_dir: /o/foxes
""")
# Of the newest ones.
NEW = yaml.safe_load("""
model: {model_path: /w/ltx-2.5-transformer.safetensors, text_encoder_path: /w/gemma4.safetensors,
        video_vae_path: /w/video-vae.safetensors, audio_vae_path: /w/audio-vae.safetensors,
        training_mode: lora}
lora: {rank: 32, alpha: 16, target_modules: [attn1.to_k, ff.net.2]}
training_strategy:
  name: flexible
  video: {is_generated: true, latents_dir: latents, conditions: [
    {type: first_frame, probability: 0.2}, {type: prefix, temporal_boundary: 8},
    {type: suffix, temporal_boundary: 3}, {type: spatial_crop, spatial_region: [0, 0, 288, 576]},
    {type: mask, mask_dir: video_masks}, {type: reference, latents_dir: reference_latents}]}
  audio: {is_generated: false, latents_dir: audio_latents}
optimization: {batch_size: 2, gradient_accumulation_steps: 4, scheduler_type: step,
               scheduler_params: {gamma: 0.5}}
data: {preprocessed_data_root: /d/bears, num_dataloader_workers: 4}
flow_matching: {timestep_sampling_params: {uniform_prob: 0.3}}
validation: {samples: [{prompt: a bear}], video_cfg_scale: 2.0}
""")


def converted(base=OLD, **sections):
    """A file with some fields of its sections changed, in our words."""
    values = dict(base)
    for name, section in sections.items():
        inner = base.get(name)
        whole = isinstance(section, dict) and isinstance(inner, dict)
        values[name] = {**inner, **section} if whole else section
    return convert(values, where="theirs.yaml")


def spec(*args, **sections):
    return parse(converted(*args, **sections).values, TrainSpec, where="converted")


def refusal(*args, **sections) -> str:
    with pytest.raises(SpecError) as caught:
        converted(*args, **sections)
    return str(caught.value)


def notes(*args, **sections) -> str:
    return "\n".join(converted(*args, **sections).notes)


def test_a_file_of_the_first_releases_is_carried_over():
    found = spec()
    assert (found.model.checkpoint, found.model.gemma) == ("/w/ltx-2.safetensors", "/w/gemma")
    assert (found.lora.rank, found.lora.alpha, found.lora.dropout) == (32, None, 0.1)
    assert found.lora.targets == "attention"
    strategy = found.strategy.streams()
    assert strategy.shared_sigma
    assert strategy.video.conditions[0].probability == 0.5
    assert strategy.audio.generated
    how = found.optimization
    assert (how.learning_rate, how.steps, how.batch_size, how.max_grad_norm) == (1e-4, 2000, 1, 0)
    assert (found.acceleration.dtype, found.acceleration.quantization) == ("bfloat16", "int8")
    assert found.acceleration.checkpoint_activations
    assert (found.checkpoints.interval, found.checkpoints.keep_last) == (250, 0)
    assert (found.tracking.wandb.project, found.tracking.wandb.tags) == ("foxes", ("lora",))
    assert (found.seed, found.output) == (7, "/o/foxes")


def test_guidance_of_the_first_releases_has_their_defaults():
    defaults = spec().validation.defaults
    assert (defaults.width, defaults.num_frames, defaults.fps) == (576, 89, 25)
    assert defaults.pipeline == "one_stage"
    video, audio = defaults.video_guidance, defaults.audio_guidance
    assert (video.cfg_scale, video.stg_scale, video.stg_blocks) == (3, 1, (29,))
    assert (video.rescale_scale, video.modality_scale) == (0, 1)
    assert (audio.cfg_scale, audio.stg_scale) == (3, 0)
    assert "worst quality" in defaults.negative_prompt


def test_images_of_prompts_pin_their_first_frames():
    rows = spec().validation.rows
    assert [row.prompt for row in rows] == ["a fox", "a bear"]
    assert [(row.images[0].path, row.images[0].frame) for row in rows] == [
        ("/d/fox.png", 0),
        ("/d/bear.png", 0),
    ]


def test_a_file_of_the_newest_releases_is_carried_over():
    found = spec(NEW)
    assert found.model.video_vae == "/w/video-vae.safetensors"
    assert found.model.audio_vae == "/w/audio-vae.safetensors"
    assert (found.lora.alpha, found.lora.targets) == (16, ("attn1.to_k", "ff.net.2"))
    how = found.optimization
    assert (how.batch_size, how.micro_batch, how.learning_rate) == (8, 2, 5e-4)
    assert (how.schedule, how.schedule_params) == ("step", {"gamma": 0.5})
    assert (found.timesteps.sampler, found.timesteps.uniform_share) == ("shifted_logit_normal", 0.3)
    assert (found.data.loaders, found.checkpoints.interval) == (4, None)
    guidance = found.validation.defaults.video_guidance
    assert (guidance.cfg_scale, guidance.stg_blocks, guidance.rescale_scale) == (2, (28,), 0.7)
    assert found.validation.interval == 100


def test_every_condition_of_the_flexible_strategy_is_carried_over():
    streams = spec(NEW).strategy.streams()
    assert not streams.shared_sigma
    assert not streams.audio.generated
    said = [one.model_dump(exclude={"probability"}) for one in streams.video.conditions]
    assert said == [
        {"type": "first_frame"},
        {"type": "prefix", "length": 8},
        {"type": "suffix", "length": 3},
        {"type": "spatial_crop", "region": (0, 0, 288, 576)},
        {"type": "mask"},
        {"type": "reference", "frame": 0},
    ]
    assert streams.video.conditions[0].probability == 0.2


def test_video_to_video_is_in_context():
    old = {**OLD, "training_strategy": {"name": "video_to_video"}}
    strategy = {"first_frame_conditioning_p": 0.2}
    shown = {"reference_videos": ["/d/a.mp4", "/d/b.mp4"], "reference_downscale_factor": 2}
    found = spec(old, training_strategy=strategy, validation=shown)
    assert (found.strategy.name, found.strategy.first_frame) == ("ic_lora", 0.2)
    assert [row.references[0].path for row in found.validation.rows] == ["/d/a.mp4", "/d/b.mp4"]
    assert {(row.width, row.height) for row in found.validation.rows} == {(512, 512)}


def test_full_fine_tuning_has_no_adapter():
    found = converted(OLD, model={"training_mode": "full"}, acceleration={"quantization": None})
    assert found.values["mode"] == "full"
    assert "lora" not in found.values
    assert any(note.startswith("lora: ") for note in found.notes)


C = {
    "image": {"type": "first_frame", "image_or_video": "/d/a.png"},
    "film": {"type": "first_frame", "image_or_video": "/d/a.mp4"},
    "reference": {"type": "reference", "video": "/d/a.mp4", "downscale_factor": 2},
    "voice": {"type": "reference", "audio": "/d/a.wav"},
    "sound": {"type": "audio_to_video", "audio": "/d/a.wav"},
    "foley": {"type": "video_to_audio", "video": "/d/a.mp4"},
    "prefix": {"type": "prefix", "video": "/d/a.mp4", "num_frames": 57},
    "suffix": {"type": "suffix", "video": "/d/a.mp4", "num_frames": 64},
    "seconds": {"type": "prefix", "video": "/d/a.mp4", "duration": 1.0},
    "long": {"type": "suffix", "video": "/d/a.mp4", "num_frames": 136},
    "crop": {"type": "spatial_crop", "video": "/d/a.mp4", "spatial_region": [0, 0, 64, 64]},
    "mask": {"type": "mask", "video": "/d/a.mp4", "mask": "/d/a.png"},
}


def sample(*names, **fields):
    return {"samples": [{"prompt": "a", "conditions": [C[name] for name in names], **fields}]}


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("image", {"images": [{"path": "/d/a.png"}]}),
        (
            "reference",
            {
                "references": [{"path": "/d/a.mp4"}],
                "pipeline": "ic_lora",
                "width": 1024,
                "height": 512,
            },
        ),
        (
            "sound",
            {
                "soundtrack": {"path": "/d/a.wav"},
                "pipeline": "audio_to_video",
                "video": True,
                "audio": True,
                "width": 960,
                "height": 512,
            },
        ),
        (
            "foley",
            {
                "retake": {
                    "path": "/d/a.mp4",
                    "start_s": 0.0,
                    "end_s": 89 / 24,
                    "video": False,
                    "guided": True,
                },
                "pipeline": "retake",
                "video": True,
                "audio": True,
            },
        ),
        (
            "prefix",
            {"extend": {"path": "/d/a.mp4"}, "chain": {"overlap": 8}, "num_frames": 32},
        ),
        (
            "suffix",
            {
                "extend": {"path": "/d/a.mp4", "direction": "backward"},
                "chain": {"overlap": 8},
                "num_frames": 25,
            },
        ),
        ("seconds", {"extend": {"path": "/d/a.mp4"}, "chain": {"overlap": 4}, "num_frames": 64}),
        *((name, {}) for name in ("film", "voice", "crop", "mask")),
    ],
)
def test_a_condition_of_a_sample_becomes_fields_of_a_row(name, row):
    found = converted(NEW, validation=sample(name))
    assert found.values["validation"]["rows"] == [{"prompt": "a", **row}]
    told = any(note.startswith("validation.samples.0.conditions.0: ") for note in found.notes)
    assert told == (name not in {"image", "reference", "sound"})


def test_a_sample_has_a_size_and_a_seed_of_its_own():
    (row,) = spec(NEW, validation=sample("image", video_dims=[64, 96, 9], seed=0)).validation.rows
    assert (row.width, row.height, row.num_frames, row.seed) == (64, 96, 9, 0)


def test_sizes_that_two_stages_cannot_have_are_told():
    said = notes(NEW, validation=sample("sound", video_dims=[96, 64, 9]))
    assert "96x64 of row 0 is 128x64, as pipeline audio_to_video takes multiples of 64" in said
    assert "rows 0 go to pipeline audio_to_video, whose second stage needs model.upsampler" in said


def test_sound_alone_has_its_pipeline():
    defaults = spec(NEW, validation={"generate_video": False}).validation.defaults
    assert (defaults.pipeline, defaults.video) == ("text_to_audio", False)
    assert defaults.video_guidance is None


def test_without_an_interval_there_are_no_clips():
    found = converted(validation={"interval": None})
    assert "validation" not in found.values
    assert any("2 prompts are left out" in note for note in found.notes)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"lora": {"alpha": 16}}, "lora.alpha: 16 / 32 is folded"),
        ({"optimization": {"gradient_accumulation_steps": 3}}, "1 samples x 3 passes"),
        ({"optimization": {"optimizer_type": "adamw8bit"}}, "torchao's"),
        ({"acceleration": {"quantization": "int2-quanto"}}, "int2-quanto is int8"),
        ({"acceleration": {"quantization": "fp8uz-quanto"}}, "fp8uz-quanto is fp8"),
        ({"acceleration": {"mixed_precision_mode": "fp16"}}, "without scaling the loss"),
        ({"acceleration": {"mixed_precision_mode": None}}, "what suits the device"),
        ({"acceleration": {"load_text_encoder_in_8bit": True}}, "load_text_encoder_in_8bit: "),
        ({"acceleration": {"offload_optimizer_during_validation": True}}, "validation.where"),
        ({"data": {"num_dataloader_workers": 0}}, "one thread"),
        ({"model": {"load_checkpoint": "/o/run/checkpoints"}}, "name the file of its last step"),
        ({"model": {"load_checkpoint": "/o/a.safetensors"}}, "steps are counted from 0"),
        ({"checkpoints": {"no_resume": True}}, "name another one"),
        ({"checkpoints": {"save_training_state": False}}, "off; checkpoints are whole"),
        ({"training_strategy": {"audio_latents_dir": "voices"}}, "call voices so before it"),
        ({"validation": {"videos_per_prompt": 3}}, "one clip of each prompt"),
        ({"validation": sample("reference")}, "validation.images, prompts: not read"),
        ({"validation": sample("long")}, "of its 17 latent frames, 16 are handed on"),
        (
            {"hub": {"push_to_hub": True, "hub_model_id": "me/fox"}},
            "`rayreel publish /o/foxes hf://me/fox`",
        ),
        ({}, "`rayreel import /d/foxes/.precomputed -o "),
        ({}, "multiply by their number"),
        ({}, "timesteps.stretched: false"),
    ],
)
def test_what_becomes_another_thing_is_told(sections, said):
    assert said in notes(**sections)


def test_conditions_of_a_clean_stream_are_told_and_left_out():
    frozen = {"is_generated": False, "latents_dir": "audio_latents"}
    shown = {**frozen, "conditions": [{"type": "prefix", "temporal_boundary": 2}]}
    video = {"is_generated": True, "latents_dir": "latents"}
    found = converted(NEW, training_strategy={"video": video, "audio": shown})
    assert found.values["strategy"]["audio"] == {"generated": False}
    assert any("audio.conditions.0: prefix of a clean stream" in note for note in found.notes)


def test_video_to_video_needs_an_adapter_and_references():
    old = {**OLD, "training_strategy": {"name": "video_to_video"}}
    assert "needs validation.reference_videos" in refusal(old)
    full = {"training_mode": "full"}
    said = refusal(old, model=full, acceleration={"quantization": None})
    assert "video_to_video needs model.training_mode lora" in said


TWICE = [{"type": "reference", "latents_dir": name} for name in ("reference_latents", "depth")]


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"optimization": {"step": 3}}, "'optimization.step': unknown; nearest is 'steps'"),
        ({"optimizer": {}}, "'optimizer': unknown; nearest is 'optimization'"),
        ({"optimization": {"scheduler_type": "cosin"}}, "'optimization.scheduler_type': should be"),
        ({"model": {"model_path": "https://a/b"}}, "'model.model_path': is a URL"),
        ({"model": {"text_encoder_path": None}}, "'model.text_encoder_path': required here"),
        ({"lora": None}, "training_mode lora needs a lora block"),
        ({"lora": {"rank": 1}}, "'lora.rank': should be greater than or equal to 2, got 1"),
        ({"model": {"training_mode": "full"}}, "quantization int8-quanto is of adapters"),
        ({"hub": {"push_to_hub": True}}, "needs hub_model_id"),
        (
            {"training_strategy": {"name": "video_to_video"}},
            "'training_strategy.with_audio': unknown; known: name, first_frame_conditioning_p, ",
        ),
        ({"training_strategy": {"name": "t2v"}}, "name' should be one of 'text_to_video', "),
        ({"validation": {"video_cfg_scale": 3}}, "guidance_scale and video_cfg_scale are the same"),
        ({"validation": {"audio_stg_scale": 3}}, "stg_mode and audio_stg_scale are the same"),
        ({"validation": {"images": ["a.png"]}}, "1 images for 2 prompts"),
        ({"validation": {"video_dims": [570, 576, 88]}}, "nearest is [576, 576, 89]"),
        ({"validation": {"guidance_scale": 0.5}}, "greater than or equal to 1, got 0.5"),
        ({"validation": {"generate_audio": False, "generate_video": False}}, "neither video nor"),
        ({"validation": sample("sound", "foley")}, "exclude each other"),
        ({"validation": sample("foley", "image")}, "first_frame conditions video, which is given"),
        (
            {"validation": {"samples": [{"prompt": "a", "conditions": [{"type": "mask"}]}]}},
            "mask: expected video or audio and mask; got none",
        ),
        (
            {"flow_matching": {"timestep_sampling_params": {"sdt": 1}}},
            "sdt unknown to shifted_logit_normal; known: eps, std, uniform_prob",
        ),
        ({"flow_matching": {"timestep_sampling_params": {"std": -1}}}, "timesteps.std"),
    ],
)
def test_what_the_trainer_refuses_is_refused(sections, said):
    assert said in refusal(**sections)


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        (TWICE, "samples have one reference of video"),
        ([{"type": "prefix"}], "prefix: expected temporal_boundary beside type and probability"),
        ([{"type": "first_frame", "mask_dir": "a"}], "expected none beside type and probability"),
    ],
)
def test_conditions_that_cannot_be_trained_are_refused(conditions, said):
    video = {"is_generated": True, "latents_dir": "latents", "conditions": conditions}
    assert said in refusal(NEW, training_strategy={"video": video})


@pytest.mark.parametrize(
    ("kind", "frames", "said"),
    [("prefix", 56, "of 8 and 1; nearest: 49 and 57"), ("suffix", 3, "of 8; nearest: 8")],
)
def test_frames_of_a_prefix_or_suffix_name_the_nearest(kind, frames, said):
    shown = {"type": kind, "video": "/d/a.mp4", "num_frames": frames}
    assert said in refusal(validation={"samples": [{"prompt": "a", "conditions": [shown]}]})


def test_specs_of_both_trainers_are_told_apart():
    assert is_official(OLD)
    assert is_official(NEW)
    assert is_official({"model": {"model_path": "/w/a"}})
    assert not is_official({"dataset": "datasets/demo", "model": "tiny"})
    assert not is_official(converted().values)


def test_the_command_writes_a_spec_and_prints_the_notes(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("theirs.yaml").write_text(yaml.safe_dump(OLD), "utf-8")
    command = ["convert", "theirs.yaml", "-o", "train.yaml", "--dataset", "s3://bucket/foxes"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == "train.yaml"
    assert "rayreel import /d/foxes/.precomputed -o s3://bucket/foxes" in result.stdout
    text = Path("train.yaml").read_text("utf-8")
    assert parse(yaml.safe_load(text), TrainSpec, where="train.yaml").dataset == "s3://bucket/foxes"
    assert "# optimization.batch_size: " in text
    again = CliRunner().invoke(app, command)
    assert (again.exit_code, "train.yaml exists already" in again.stderr) == (2, True)


def test_relative_paths_start_where_the_command_does(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = {"preprocessed_data_root": "clips/.precomputed"}
    found = spec(model={"model_path": "a.safetensors"}, data=data)
    assert found.model.checkpoint == str(tmp_path / "a.safetensors")
    assert found.dataset == str(tmp_path / "datasets" / "clips")
