"""A model's files: facts from headers, and their identity."""

import json
import shutil
from typing import Any, get_args

import pytest

from rayreel.checkpoints.files import ModelFiles
from rayreel.config.conditions import AdapterSpec
from rayreel.config.jobs import ModelFile
from rayreel.errors import CheckpointError

FIELDS = get_args(ModelFile)


def identity(model, **changed) -> str:
    return ModelFiles(model.model_copy(update=changed)).fingerprint(FIELDS)


def test_facts_come_from_the_checkpoint_s_own_metadata(tiny_model):
    files = ModelFiles(tiny_model)
    assert files.factors == (8, 32, 32)
    assert (files.transformer.num_layers, files.audio_vae.latent_bins) == (4, 16)
    assert files.defaults.steps == 40


def test_a_small_transformer_perturbs_its_middle_block(tiny_model):
    assert ModelFiles(tiny_model).defaults.stg_block == 2


@pytest.mark.parametrize(("version", "steps"), [("2.0.0", 40), ("2.3.0", 30), ("2.5.0", 30)])
def test_sampling_defaults_follow_the_stated_version(tiny_model, rewritten, version, steps):
    checkpoint = rewritten(tiny_model.checkpoint, model_version=version)
    files = ModelFiles(tiny_model.model_copy(update={"checkpoint": str(checkpoint)}))
    assert files.defaults.steps == steps


def test_the_decoder_s_conditioning_shows_in_its_weights_not_in_a_default(tiny_model, rewritten):
    config = ModelFiles(tiny_model).transformer_file.config
    del config["vae"]["timestep_conditioning"]
    checkpoint = rewritten(tiny_model.checkpoint, config=json.dumps(config))
    files = ModelFiles(tiny_model.model_copy(update={"checkpoint": str(checkpoint)}))
    assert not files.video_vae.timestep_conditioning


def test_copies_at_other_paths_have_the_same_identity(tiny_model, tmp_path):
    copy = shutil.copy(tiny_model.checkpoint, tmp_path / "renamed.safetensors")
    gemma = shutil.copytree(tiny_model.gemma, tmp_path / "gemma")
    assert identity(tiny_model, checkpoint=str(copy), gemma=str(gemma)) == identity(tiny_model)


def test_every_file_and_every_strength_counts(tiny_model, rewritten):
    adapter = tiny_model.distilled_lora
    changes: list[dict[str, Any]] = [
        {},
        {"checkpoint": str(rewritten(tiny_model.checkpoint, model_version="2.0.1"))},
        {"upsampler": None},
        {"upsampler": str(rewritten(tiny_model.upsampler, note="another"))},
        {"distilled_lora": None},
        {"distilled_lora": AdapterSpec(path=adapter.path, strength=0.5)},
        {"loras": (adapter,)},
        {"loras": (adapter, adapter)},
        {"loras": (AdapterSpec(path=adapter.path, strength=0.5),)},
        {"quantization": "fp8_cast"},
    ]
    identities = [identity(tiny_model, **change) for change in changes]
    assert len(set(identities)) == len(changes)


def test_files_that_are_not_asked_for_do_not_count(tiny_model):
    bare = ModelFiles(tiny_model.model_copy(update={"upsampler": None, "distilled_lora": None}))
    fields: tuple[ModelFile, ...] = ("gemma", "transformer", "loras")
    assert bare.fingerprint(fields) == ModelFiles(tiny_model).fingerprint(fields)
    assert bare.fingerprint(fields) == bare.fingerprint(fields[::-1])


def test_a_set_has_one_identity_however_the_spec_names_its_files(tiny_model):
    path = tiny_model.checkpoint
    fields = dict.fromkeys(("transformer", "video_vae", "audio_vae"), path)
    assert identity(tiny_model, checkpoint=None, **fields) == identity(tiny_model)


def test_a_component_s_own_file_wins_over_the_checkpoint(tiny_model, rewritten):
    other = str(rewritten(tiny_model.checkpoint, model_version="2.5.0"))
    files = ModelFiles(tiny_model.model_copy(update={"video_vae": other}))
    assert str(files.video_vae_file.path) == other
    assert str(files.audio_vae_file.path) == tiny_model.checkpoint
    assert (files.defaults.steps, files.defaults.image_crf) == (40, 18)


def test_a_missing_component_names_the_field(tiny_model):
    fields = {"checkpoint": None, "transformer": tiny_model.checkpoint}
    files = ModelFiles(tiny_model.model_copy(update=fields))
    with pytest.raises(CheckpointError, match=r"names no video_vae; set model\.video_vae"):
        _ = files.video_vae
