"""The tiny set: official layout, the same bytes each time, written once."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.networks import check_networks
from rayreel.checkpoints.tiny import locate_model, tiny_spec, write_tiny
from rayreel.errors import CheckpointError
from rayreel.models.vocoder import decode_audio
from rayreel.pipelines.devices import Device
from rayreel.pipelines.ledger import ModelLedger
from rayreel.types import seeded_generator

# Of the published monolithic file; connectors lie inside the transformer.
PREFIXES = {
    "model.diffusion_model.transformer_blocks.",
    "model.diffusion_model.video_embeddings_connector.",
    "model.diffusion_model.audio_embeddings_connector.",
    "text_embedding_projection.",
    "vae.encoder.",
    "vae.decoder.",
    "vae.per_channel_statistics.",
    "audio_vae.encoder.",
    "audio_vae.decoder.",
    "audio_vae.per_channel_statistics.",
    "vocoder.",
}
ROOTS = {"model", "text_embedding_projection", "vae", "audio_vae", "vocoder"}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "rayreel"


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def header(path: str | None) -> tuple[set[str], dict[str, str]]:
    assert path is not None
    with safe_open(path, "pt") as file:
        return set(file.keys()), file.metadata()


def test_the_bytes_are_the_same_each_time(tiny_folder, tmp_path):
    write_tiny(tmp_path)
    assert contents(tmp_path) == contents(tiny_folder)


def test_writing_again_replaces_the_files_and_leaves_others(tiny_folder, tmp_path):
    (tmp_path / "ltx-2-tiny.safetensors").write_bytes(b"damaged")
    (tmp_path / "notes.txt").write_text("mine", "utf-8")
    assert write_tiny(tmp_path) == tiny_spec(tmp_path)
    assert contents(tmp_path) == {**contents(tiny_folder), "notes.txt": b"mine"}


def test_the_checkpoint_has_the_official_layout(tiny_model):
    names, metadata = header(tiny_model.checkpoint)
    assert {name.split(".")[0] for name in names} == ROOTS
    assert all(any(name.startswith(prefix) for name in names) for prefix in PREFIXES)
    assert {"config", "model_version"} <= metadata.keys()


def test_the_other_files_have_the_official_layout(tiny_model):
    upsampler, _ = header(tiny_model.upsampler)
    assert {"initial_conv.weight", "upsampler.conv.weight", "final_conv.bias"} <= upsampler
    lora, _ = header(tiny_model.distilled_lora.path)
    assert all(name.startswith("diffusion_model.") for name in lora)
    assert {name.split(".", 1)[1].rsplit(".", 2)[1] for name in lora} == {"lora_A", "lora_B"}
    gemma, _ = header(f"{tiny_model.gemma}/model.safetensors")
    roots = {"language_model", "vision_tower", "multi_modal_projector"}
    assert {name.split(".")[0] for name in gemma} == roots


def test_the_set_loads_through_the_official_loader(tiny_model):
    check_networks(ModelFiles(tiny_model))


def test_permissions_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_tiny(tmp_path / "tiny")
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path.is_file()}
    assert modes == {0o640}


def test_the_cached_folder_can_be_read_like_any_other(cache):
    folder = Path(locate_model("tiny").gemma).parent
    (cache / "other").mkdir()
    assert folder.stat().st_mode == (cache / "other").stat().st_mode


def test_the_set_is_written_to_the_cache_once(cache):
    first = Path(locate_model("tiny").gemma).parent / "ltx-2-tiny.safetensors"
    written = first.stat().st_mtime_ns
    assert locate_model("tiny").checkpoint == str(first)
    assert first.stat().st_mtime_ns == written
    assert first.is_relative_to(cache)


def test_a_race_leaves_one_whole_set(cache, tiny_folder):
    with ThreadPoolExecutor(3) as racers:
        located = list(racers.map(locate_model, ["tiny"] * 3))
    assert located[1:] == located[:1] * 2
    (folder,) = cache.iterdir()
    assert contents(folder) == contents(tiny_folder)


def test_an_interrupted_write_leaves_nothing(cache, monkeypatch):
    def fail(folder: Path) -> None:
        folder.mkdir()
        (folder / "half").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr("rayreel.checkpoints.tiny.write_tiny", fail)
    with pytest.raises(KeyboardInterrupt):
        locate_model("tiny")
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(CheckpointError, match=r"cannot write the tiny model .* XDG_CACHE_HOME"):
        locate_model("tiny")


def test_named_weight_files_are_taken_as_they_are(tiny_model):
    assert locate_model(tiny_model) is tiny_model


def test_the_cached_set_is_what_would_be_written_now(tiny_folder):
    """Fails where the weights have changed and the edition in the folder's name has not."""
    cached = Path(locate_model("tiny").gemma).parent
    assert contents(cached) == contents(tiny_folder)


def test_the_set_of_2_3_has_its_architecture_and_is_not_too_loud(tmp_path):
    files = ModelFiles(write_tiny(tmp_path, "2.3"))
    check_networks(files)
    assert files.transformer.apply_gated_attention
    assert files.text.feature_version == "v2"
    assert (files.vocoder.sample_rate_hz, files.defaults.steps) == (48000, 30)
    ledger = ModelLedger(files.spec, Device("cpu", "float32", "for tests"))
    latent = torch.randn(1, 2, 26, 16, generator=seeded_generator(0, "sound"))
    with torch.inference_mode(), ledger.audio_decoder() as decoder, ledger.vocoder() as vocoder:
        waveform = decode_audio(decoder, vocoder, latent)
    assert 0.01 < waveform.square().mean().sqrt() < 0.3
