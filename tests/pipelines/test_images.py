"""Images as conditions of a clip."""

import pytest
import torch

from rayreel.errors import MediaError
from rayreel.media.image import fit, load_image, to_model_input
from rayreel.pipelines import OneStage, TwoStage, phases
from tests.pipelines.small import pinned, small, small_resolved


def generated(pipeline, **fields):
    """Video latent of a request at the end of stage 1."""
    ledger = pipeline.ledger
    (latents,) = pipeline.generate(phases.encode(ledger, [small_resolved(ledger.files, **fields)]))
    return latents.video


@pytest.mark.parametrize(("kind", "downscale"), [(OneStage, 1), (TwoStage, 2)])
def test_a_kept_image_is_the_first_latent_frame_to_the_bit(ledger, picture, kind, downscale):
    request = small()
    video = generated(kind(ledger), images=(pinned(picture, 0),))
    pixels = fit(load_image(picture), request.height // downscale, request.width // downscale)
    with ledger.video_encoder() as encoder:
        encoded = encoder(to_model_input(pixels))
    assert torch.equal(video[:, :1], encoded[0])


def test_an_image_changes_the_frames_that_it_does_not_pin(ledger, picture):
    pipeline = OneStage(ledger)
    plain, first, last = (
        generated(pipeline, images=images)
        for images in ((), (pinned(picture, 0),), (pinned(picture, 8),))
    )
    for conditioned in (first, last):
        assert (conditioned[:, 1:] - plain[:, 1:]).abs().max() > 0.01


def test_an_image_of_strength_0_changes_nothing(ledger, picture):
    pipeline = OneStage(ledger)
    ignored = generated(pipeline, images=(pinned(picture, 0, 0.0),))
    assert torch.equal(ignored, generated(pipeline))


def test_a_stronger_image_is_nearer(ledger, picture):
    pipeline = OneStage(ledger)
    kept, stronger, weaker = (
        generated(pipeline, images=(pinned(picture, 0, strength),))[:, 0]
        for strength in (1.0, 0.8, 0.4)
    )
    assert (stronger - kept).norm() < (weaker - kept).norm()


def test_an_image_that_cannot_be_read_is_named(ledger, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    for path in (tmp_path / "missing.png", broken):
        with pytest.raises(MediaError, match=path.name):
            OneStage(ledger)(small(images=(pinned(path, 0),)))
