import math

import pytest
import torch
from torch.optim import AdamW

from rayreel.checkpoints import networks
from rayreel.checkpoints.builder import build
from rayreel.data.storage import Storage
from rayreel.errors import CheckpointError
from rayreel.training.pretraining import audio_vae
from rayreel.training.pretraining.audio_vae import AudioVAEPart
from rayreel.training.pretraining.spectra import click_distance, spectral_distance
from rayreel.training.pretraining.vocoder import VocoderPart
from tests.training.pretraining.sound_runs import ARCHITECTURE, STRETCH, files_of, learn, spec_of


def tone(hertz, phase=0.0):
    angle = 2 * math.pi * hertz * torch.arange(6000) / 24000
    return 0.2 * ((angle + phase).sin() * torch.hann_window(6000)).expand(1, 2, -1)


def test_phases_make_no_difference_but_pitch_level_and_buzz_do():
    wanted = tone(2000)
    assert spectral_distance(wanted, wanted) == 0
    near = spectral_distance(tone(2000, phase=2.0), wanted)
    for far in (tone(2100), 2 * wanted, wanted + 0.05 * tone(5000)):
        assert spectral_distance(far, wanted) > 3 * near


def test_a_click_that_is_missing_late_or_not_asked_for_counts():
    silence, click = torch.zeros(1, 2, 6000), torch.zeros(1, 2, 6000)
    click[..., 3000:3240] = tone(3000)[..., 3000:3240]
    # Whatever the tones do.
    other = click + tone(500)
    assert click_distance(other, click, 24000) < 0.1
    assert click_distance(silence, click, 24000) == pytest.approx(1, abs=0.1)
    assert click_distance(click.roll(1200), click, 24000) > 1.5
    assert click_distance(click, silence, 24000) > 1.5


def test_silence_has_a_gradient():
    made = torch.zeros(1, 2, 6000, requires_grad=True)
    spectral_distance(made, tone(500)).backward()
    assert made.grad is not None
    assert made.grad.isfinite().all()


def test_a_few_steps_make_the_loss_smaller():
    part = VocoderPart(ARCHITECTURE, seed=0)
    optimizer = AdamW(part.network.parameters(), lr=3e-3)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        losses.append(part.losses(0, STRETCH)["loss"])
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path):
    whole = learn(spec_of("vocoder", tmp_path / "whole"))
    stopped = spec_of("vocoder", tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        learn(stopped, stop_after=3)
    torch.testing.assert_close(learn(stopped), whole, atol=0, rtol=0)


@torch.no_grad()
def test_what_is_written_is_an_official_file(tmp_path):
    part = VocoderPart(ARCHITECTURE, seed=0)
    part.write(Storage(tmp_path))
    network = networks.vocoder(files_of(vocoder=tmp_path / "vocoder.safetensors"))
    vocoder = build(network.make, network.weights(torch.device("cpu"), torch.float32))
    assert vocoder.sample_rate_hz == 24000
    mel = torch.randn(1, 2, 6, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(vocoder(mel), part.network(mel), atol=2e-3, rtol=0)


def test_half_of_what_it_learns_from_is_decoded_by_an_audio_vae(tmp_path, monkeypatch):
    monkeypatch.setattr(audio_vae, "_MEASURED", STRETCH)
    AudioVAEPart(ARCHITECTURE["audio_vae"], seed=0).write(Storage(tmp_path))
    path = str(tmp_path / "audio_vae.safetensors")
    heard = []
    for part in (VocoderPart(ARCHITECTURE, seed=0), VocoderPart(ARCHITECTURE, 0, path)):
        part.network.register_forward_pre_hook(lambda _, given: heard.append(given[0]))
        part.losses(0, STRETCH)
    drawn, mixed = heard
    assert torch.equal(mixed[0], drawn[0])
    assert not torch.isclose(mixed[1], drawn[1]).any()


def test_a_file_without_an_audio_vae_is_refused(tmp_path):
    VocoderPart(ARCHITECTURE, seed=0).write(Storage(tmp_path))
    with pytest.raises(CheckpointError, match="no config section 'audio_vae'"):
        VocoderPart(ARCHITECTURE, seed=0, audio_vae=str(tmp_path / "vocoder.safetensors"))
