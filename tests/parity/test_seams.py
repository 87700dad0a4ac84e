"""Seams of tiles, with the weights of the golden vectors."""

import pytest
import torch

from rayreel.checkpoints.builder import build
from rayreel.checkpoints.keys import VIDEO_DECODER, component_tensors
from rayreel.config.model import VideoVAEConfig
from rayreel.models.seams import seam_metric
from rayreel.models.tiling import decode_plan
from rayreel.models.video_vae import VideoDecoder, tiled_decode
from tests.models.test_tiling import sizes
from tests.parity.vectors import cases, weights

FOLDERS = sorted({case.values[0].folder for case in cases("v*/vae_decode.safetensors")})
GRID = (9, 12, 12)
BLENDED = {"height": (192, 96), "width": (192, 96), "frames": (48, 24)}
ABUTTED = {"height": (192, 0), "width": (192, 0), "frames": (40, 0)}


@pytest.fixture(scope="module", params=FOLDERS)
def whole(request):
    """A decoder, a latent, and the clip."""
    file = weights(f"{request.param}/model.safetensors")
    config = file.section("vae", VideoVAEConfig)
    tensors = component_tensors(file, VIDEO_DECODER)
    decoder = build(lambda: VideoDecoder(config), tensors, dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(1, config.latent_channels, *GRID, generator=generator)
    return decoder, latent, decoder(latent)


def metric(whole, tiling):
    decoder, latent, reference = whole
    video = torch.cat(list(tiled_decode(decoder, latent, tiling)), dim=2)
    return seam_metric(video, decode_plan(GRID, tiling, decoder.factors), reference)


@pytest.mark.parametrize("axis", ["frames", "height", "width"])
def test_blending_hides_the_seams_that_abutted_tiles_have(whole, axis):
    assert metric(whole, sizes(**{axis: BLENDED[axis]})) < 1.15
    assert metric(whole, sizes(**{axis: ABUTTED[axis]})) > 2
