"""A video VAE begins as a linear code of blocks, before its first step."""

from random import Random

import pytest
import torch
import yaml

from rayreel.config.pretrain import StretchSpec
from rayreel.data.storage import Storage
from rayreel.training.pretraining.footage import footage
from rayreel.training.pretraining.video_vae import VideoVAEPart

CLIPS = StretchSpec(steps=1, batch_size=4, size=64, num_frames=9)

# Skips around what halves and doubles, as published networks have them.
RESIDUAL = {
    "encoder_blocks": [
        ["compress_space_res", {"multiplier": 1}],
        ["compress_time_res", {"multiplier": 1}],
        ["compress_all_res", {"multiplier": 2}],
        ["compress_all_res", {"multiplier": 1}],
    ],
    "decoder_blocks": [
        ["compress_space", {"multiplier": 2}],
        ["compress_time", {"multiplier": 1}],
        ["compress_all", {"multiplier": 1, "residual": True}],
        ["compress_all", {"multiplier": 2, "residual": True}],
    ],
}


@pytest.mark.parametrize(
    ("fields", "least_db"), [({}, 20), ({"causal_decoder": True}, 20), (RESIDUAL, 14)]
)
def test_clips_come_back_before_anything_is_learned(
    fields, least_db, repository, monkeypatch, tmp_path
):
    monkeypatch.setattr("rayreel.training.pretraining.video_vae._BEGUN_WITH", 12)
    architecture = yaml.safe_load((repository / "manifests/nano/architecture.yaml").read_text())
    part = VideoVAEPart(architecture["vae"] | fields, seed=0)
    part.begin()
    part.write(Storage(tmp_path))
    clips = footage(Random("others"), CLIPS)
    with torch.no_grad():
        latents = part.encoder(clips)
        wrong = part.decoder(latents) - clips
    sizes = latents.movedim(1, 0).flatten(1).std(1)
    assert sizes[:2].min() > 2 * sizes[-16:].max(), "what is coarse is larger than what is fine"
    usual = part.encoder.get_buffer("per_channel_statistics.std-of-means")
    assert (usual == usual[0]).all(), "and stays so when latents are normalised"
    assert 0.3 < sizes.square().mean() < 3
    assert -10 * torch.log10(wrong.square().mean() / 4) > least_db
