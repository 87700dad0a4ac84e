"""Files that belong together have no faults; each kind of misfit is told in one line."""

import json

import pytest
import torch
from safetensors.torch import save_file

from rayreel.checkpoints.compatibility import (
    piece_faults,
    text_encoder_fault,
    text_encoder_warning,
)
from rayreel.checkpoints.reader import WeightFile
from rayreel.checkpoints.text_encoder import TextEncoderFiles
from rayreel.config.presets import TINY_CONFIG, TINY_UPSAMPLER_CONFIG
from rayreel.errors import CheckpointError
from rayreel.models.text.tiny import write_tiny_gemma
from tests.checkpoints.packed import CONFIG, write_packed

PROJECTION = "text_embedding_projection.aggregate_embed.weight"
VIDEO_PROJECTION, AUDIO_PROJECTION = (
    f"text_embedding_projection.{stream}_aggregate_embed.weight" for stream in ("video", "audio")
)
SEPARATE_PROJECTIONS = {
    "caption_proj_before_connector": True,
    "caption_projection_first_linear": False,
    "caption_proj_input_norm": False,
    "caption_projection_second_linear": False,
    "cross_attention_dim": 64,
}
VIDEO_ONLY = dict.fromkeys(("use_audio_video_cross_attention", "share_ff", "av_cross_ada_norm"))
OFFICIAL = "gemma4-12b-ltx-v1"


def section(name, **changes):
    return {name: TINY_CONFIG[name] | changes}


def source(version):
    return {"gemma_source_checkpoint": json.dumps({"gemma_version": version})}


@pytest.fixture
def write(tmp_path):
    """Writes a weight file of some metadata, with tensors of some shapes."""

    def write(name, config, shapes=None, **metadata):
        tensors = {key: torch.zeros(shape) for key, shape in (shapes or {}).items()}
        path = tmp_path / f"{name}.safetensors"
        save_file(tensors, path, {"config": json.dumps(config), **metadata})
        return WeightFile(path)

    return write


@pytest.fixture(scope="module")
def gemma_3(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gemma") / "gemma-3"
    write_tiny_gemma(folder, seed=0)
    return TextEncoderFiles(folder)


@pytest.fixture
def gemma_4(tmp_path):
    """Makes a packed text encoder that states another version, or none."""

    def gemma_4(version):
        path = write_packed(
            tmp_path / "gemma-4.safetensors", "{}", config=CONFIG | {"gemma_version": version}
        )
        return TextEncoderFiles(path)

    return gemma_4


@pytest.fixture
def fitting(write, gemma_3):
    """One file for each piece, all of which fit."""
    return {
        "transformer": write("dit", section("transformer")),
        "text_encoder": gemma_3,
        "text_projection": write("projection", {}, {PROJECTION: (64, 320)}),
        "video_vae": write("vae", section("vae")),
        "audio_vae": write("audio", section("audio_vae")),
        "vocoder": write("vocoder", {}, {"vocoder.conv_pre.weight": (4, 128, 7)}),
        "upsampler": write("upsampler", TINY_UPSAMPLER_CONFIG),
    }


def test_files_that_belong_together_have_no_faults(fitting):
    assert piece_faults(**fitting) == []


def test_pieces_that_are_not_there_have_no_faults(fitting):
    alone = dict.fromkeys(fitting) | {"transformer": fitting["transformer"]}
    assert piece_faults(**alone) == []


def test_latents_of_the_vae_are_the_transformer_s(fitting, write):
    fitting["video_vae"] = write("vae", section("vae", latent_channels=12))
    fitting["upsampler"] = write("upsampler", TINY_UPSAMPLER_CONFIG | {"in_channels": 12})
    assert piece_faults(**fitting) == [
        "vae.safetensors: 12 latent channels, but dit.safetensors needs 16"
    ]


def test_latents_of_the_upsampler_are_the_vae_s(fitting, write):
    fitting["upsampler"] = write("upsampler", TINY_UPSAMPLER_CONFIG | {"in_channels": 12})
    assert piece_faults(**fitting) == [
        "upsampler.safetensors: 12 latent channels, but vae.safetensors needs 16"
    ]
    assert piece_faults(**fitting | {"video_vae": None}) == [
        "upsampler.safetensors: 12 latent channels, but dit.safetensors needs 16"
    ]


def test_latents_of_the_audio_vae_are_the_transformer_s(fitting, write):
    fitting["transformer"] = write("dit", section("transformer", audio_in_channels=128))
    assert piece_faults(**fitting) == [
        "audio.safetensors: 32 values per audio latent (channels x bins), "
        "but dit.safetensors needs 128"
    ]


@pytest.mark.parametrize("name", ["vocoder.conv_pre.weight", "vocoder.vocoder.conv_pre.weight"])
def test_spectrograms_of_the_audio_vae_are_the_vocoder_s(fitting, write, name):
    fitting["vocoder"] = write("vocoder", {}, {name: (4, 160, 7)})
    assert piece_faults(**fitting) == [
        "vocoder.safetensors: 160 mel rows as its input (channels x bins), "
        "but audio.safetensors needs 128"
    ]


def test_connectors_are_as_wide_as_the_captions(fitting, write):
    fitting["transformer"] = write("dit", section("transformer", caption_channels=48))
    fitting["text_projection"] = None
    assert piece_faults(**fitting) == [
        "dit.safetensors: 64 channels from its video connector, but dit.safetensors needs 48",
        "dit.safetensors: 64 channels from its audio connector, but dit.safetensors needs 48",
    ]


def test_connectors_without_caption_projection_are_as_wide_as_the_attention(fitting, write):
    config = section("transformer", **SEPARATE_PROJECTIONS, audio_cross_attention_dim=32)
    fitting["transformer"] = write("dit", config)
    assert piece_faults(**fitting) == [
        "dit.safetensors: 64 channels from its audio connector, but dit.safetensors needs 32"
    ]


def test_the_projection_takes_all_hidden_states(fitting, write):
    fitting["text_projection"] = write("projection", {}, {PROJECTION: (64, 188160)})
    assert piece_faults(**fitting) == [
        "gemma-3 (folder): 64 channels x 5 hidden states = 320 values per token, "
        f"but projection.safetensors needs 188160 ({PROJECTION})"
    ]


def test_projections_are_as_wide_as_their_connectors(fitting, write):
    fitting["transformer"] = write("dit", section("transformer", **SEPARATE_PROJECTIONS))
    shapes = {VIDEO_PROJECTION: (64, 320), AUDIO_PROJECTION: (32, 320)}
    joined = fitting["transformer"].joined(write("projection", {}, shapes))
    assert piece_faults(**fitting | {"text_projection": joined}) == [
        f"projection.safetensors: 32 channels from {AUDIO_PROJECTION}, but dit.safetensors needs 64"
    ]


def test_a_video_only_transformer_needs_nothing_of_the_audio_files(fitting, write):
    config = section("transformer", **SEPARATE_PROJECTIONS, **VIDEO_ONLY, audio_in_channels=1)
    shapes = {VIDEO_PROJECTION: (64, 320), AUDIO_PROJECTION: (8, 320)}
    fitting["transformer"] = write("dit", config)
    fitting["text_projection"] = write("projection", {}, shapes)
    assert piece_faults(**fitting) == []


def test_prompts_that_registers_cannot_fill_are_told(fitting, tmp_path):
    write_tiny_gemma(tmp_path / "short", seed=0)
    limit(tmp_path / "short", 128)
    assert piece_faults(**fitting | {"text_encoder": TextEncoderFiles(tmp_path / "short")}) == []
    limit(tmp_path / "short", 100)
    [fault] = piece_faults(**fitting | {"text_encoder": TextEncoderFiles(tmp_path / "short")})
    assert fault.startswith("short (folder): prompts of 100 tokens (model_max_length in ")
    assert fault.endswith(" needs a multiple of 128")


def limit(folder, tokens):
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_max_length": tokens}))


def test_a_text_encoder_of_another_generation_is_told_once(fitting, gemma_4):
    [fault] = piece_faults(**fitting | {"text_encoder": gemma_4("v1")})
    assert fault.startswith("gemma-4.safetensors: model_type 'gemma4_unified', ")


@pytest.mark.parametrize("version", ["2.0.0", "2.3.0", "unknown"])
def test_before_2_4_transformers_need_gemma_3(write, gemma_3, gemma_4, version):
    dit = write("ltx-2-19b-dev", {}, model_version=version)
    assert text_encoder_fault(dit, gemma_3) is None
    assert text_encoder_fault(dit, gemma_4(None)) == (
        "gemma-4.safetensors: model_type 'gemma4_unified', but ltx-2-19b-dev.safetensors needs "
        "Gemma 3 (google/gemma-3-12b-it-qat-q4_0-unquantized)"
    )


def test_a_language_model_of_no_known_kind_is_a_fault_too(write, tmp_path):
    write_tiny_gemma(tmp_path / "gemma-x", seed=0)
    (tmp_path / "gemma-x" / "config.json").write_text('{"model_type": "gemma2"}')
    dit = write("ltx-2-19b-dev", {})
    assert text_encoder_fault(dit, TextEncoderFiles(tmp_path / "gemma-x")) == (
        "gemma-x (folder): model_type 'gemma2', but ltx-2-19b-dev.safetensors needs "
        "Gemma 3 (google/gemma-3-12b-it-qat-q4_0-unquantized)"
    )


def test_a_transformer_that_names_a_version_needs_that_one(write, gemma_3, gemma_4):
    dit = write("dit", {}, model_version="2.5.0", **source(OFFICIAL))
    assert text_encoder_fault(dit, gemma_4(OFFICIAL)) is None
    assert text_encoder_fault(dit, gemma_4("v0")) == (
        "gemma-4.safetensors: model_type 'gemma4_unified' with gemma_version 'v0', but "
        f"dit.safetensors needs gemma_version '{OFFICIAL}' "
        "(gemma4-12b-with-proj-ltx-2.5-bf16.safetensors)"
    )
    assert text_encoder_fault(dit, gemma_3) == (
        "gemma-3 (folder): model_type 'gemma3' with no gemma_version, but "
        f"dit.safetensors needs gemma_version '{OFFICIAL}' "
        "(gemma4-12b-with-proj-ltx-2.5-bf16.safetensors)"
    )


def test_a_transformer_that_names_no_version_fits_none_that_has_one(write, gemma_4):
    dit = write("dit", {}, model_version="2.5.0")
    assert text_encoder_fault(dit, gemma_4("v1")) == (
        "gemma-4.safetensors: gemma_version 'v1', but dit.safetensors needs one without, "
        "as its metadata has no gemma_source_checkpoint"
    )


def test_a_2_5_transformer_never_fits_gemma_3(write, gemma_3):
    dit = write("dit", {}, model_version="2.5.0")
    assert text_encoder_fault(dit, gemma_3) == (
        "gemma-3 (folder): model_type 'gemma3', but dit.safetensors needs "
        "Gemma 4 (gemma4-12b-with-proj-ltx-2.5-bf16.safetensors)"
    )


def test_a_pair_that_names_no_version_is_only_doubted(write, gemma_4):
    dit, unversioned = write("dit", {}, model_version="2.5.0"), gemma_4(None)
    assert text_encoder_fault(dit, unversioned) is None
    assert text_encoder_warning(dit, unversioned) == (
        "gemma-4.safetensors: has no gemma_version and dit.safetensors names none "
        "(gemma_source_checkpoint), so whether they belong together cannot be told"
    )


def test_a_pair_that_is_known_to_fit_is_not_doubted(write, gemma_3, gemma_4):
    old = write("old", {}, model_version="2.3.0")
    new = write("new", {}, model_version="2.5.0", **source("v1"))
    assert text_encoder_warning(old, gemma_3) is None
    assert text_encoder_warning(new, gemma_4("v1")) is None


@pytest.mark.parametrize("text", ["v1", '"v1"', "{"])
def test_a_source_that_is_no_json_object_is_a_checkpoint_error(write, gemma_3, text):
    dit = write("dit", {}, gemma_source_checkpoint=text)
    with pytest.raises(CheckpointError, match=r"dit.*'gemma_source_checkpoint' is not a JSON"):
        text_encoder_fault(dit, gemma_3)
