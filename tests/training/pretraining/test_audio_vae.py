from random import Random

import pytest
import torch
from torch import nn
from torch.optim import AdamW

from rayreel.checkpoints import networks
from rayreel.checkpoints.builder import build
from rayreel.config.model import AudioVAEConfig
from rayreel.config.pretrain import StretchSpec
from rayreel.data.storage import Storage
from rayreel.models.audio_vae import log_mel, resample
from rayreel.training.pretraining import audio_vae
from rayreel.training.pretraining.audio_vae import AudioVAEPart
from rayreel.training.pretraining.sounds import RATE_HZ, sounds
from tests.training.pretraining.sound_runs import ARCHITECTURE, STRETCH, files_of, learn, spec_of

CONFIG = AudioVAEConfig.model_validate(ARCHITECTURE["audio_vae"])


@pytest.fixture(autouse=True)
def few_sounds(monkeypatch):
    monkeypatch.setattr(audio_vae, "_MEASURED", StretchSpec(steps=1, batch_size=16, num_frames=9))


def test_the_same_step_hears_the_same_sounds():
    one, same, other = (sounds(Random(seed), STRETCH, CONFIG) for seed in ("0", "0", "1"))
    assert torch.equal(one.waveform, same.waveform)
    assert torch.equal(one.recorded, same.recorded)
    assert not torch.equal(one.waveform, other.waveform)


@pytest.mark.parametrize("num_frames", [1, 9, 25])
def test_spectrograms_begin_where_their_sounds_do(num_frames):
    batch = sounds(Random(3), StretchSpec(steps=1, batch_size=4, num_frames=num_frames), CONFIG)
    assert batch.mel.shape[2] % CONFIG.downsample == 1
    assert batch.waveform.shape[2] == 240 * batch.mel.shape[2]
    heard = log_mel(resample(batch.waveform, RATE_HZ, CONFIG.sample_rate_hz), CONFIG)
    # Frames at the ends also hear what is outside.
    away = (heard[:, :, :-1] - batch.mel)[:, :, 4:-4].abs()
    assert not away.numel() or away.mean() < 0.01


def test_sounds_of_all_lengths_are_cut_alike():
    stretch = StretchSpec(steps=1, batch_size=60, num_frames=1)
    assert sounds(Random(0), stretch, CONFIG).waveform.shape == (60, 2, 1200)


def test_a_few_steps_make_the_loss_smaller():
    part = AudioVAEPart(ARCHITECTURE["audio_vae"], seed=0)
    optimizer = AdamW(part.network.parameters(), lr=1e-3)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        losses.append(part.losses(0, STRETCH)["loss"])
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]


@torch.no_grad()
def test_silence_may_be_more_silent_than_it_was():
    part = AudioVAEPart(ARCHITECTURE["audio_vae"], seed=0)
    last = part.decoder.conv_out.conv
    nn.init.zeros_(last.weight)
    assert last.bias is not None
    found = {}
    for level in (-6.0, -8.0, -9.0, -10.0):
        nn.init.constant_(last.bias, level)
        found[level] = float(part.losses(0, STRETCH)["absolute"])
    assert found[-6] > found[-8]
    heard = found[-10] - found[-9]
    assert found[-9] - found[-8] == pytest.approx(heard)
    assert 0 < heard < 0.9


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path):
    whole = learn(spec_of("audio_vae", tmp_path / "whole"))
    stopped = spec_of("audio_vae", tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        learn(stopped, stop_after=3)
    torch.testing.assert_close(learn(stopped), whole, atol=0, rtol=0)


@torch.no_grad()
def test_an_official_file_is_written_with_the_statistics_of_its_latents(tmp_path):
    part = AudioVAEPart(ARCHITECTURE["audio_vae"], seed=0)
    part.write(Storage(tmp_path))
    files = files_of(audio_vae=tmp_path / "audio_vae.safetensors")
    encoder, decoder = (
        build(one.make, one.weights(torch.device("cpu"), torch.float32))
        for one in (networks.audio_encoder(files), networks.audio_decoder(files))
    )
    mel = sounds(Random("more"), audio_vae._MEASURED, CONFIG).recorded
    latents = encoder(mel)
    assert latents.mean((0, 2)).abs().max() < 0.5
    assert latents.std((0, 2)).sub(1).abs().max() < 0.5
    torch.testing.assert_close(decoder(latents), part.decoder(part.encoder(mel)), atol=0.2, rtol=0)
