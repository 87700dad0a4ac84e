import pytest
import torch

from rayreel.diffusion.denoisers import GuidedDenoiser
from rayreel.diffusion.noisers import GaussianNoise
from rayreel.diffusion.samplers import SAMPLERS
from rayreel.diffusion.schedulers import LTX2Scheduler
from rayreel.types import seeded_generator
from tests.diffusion.fakes import FakeModel, prompt, row, state

SIGMAS = LTX2Scheduler().sigmas(6)
DRAWING = {"ancestral_euler", "cfg_plus_plus", "res_2s"}


def run(sampler, streams, *seeds):
    video, audio = (
        GaussianNoise(
            [seeded_generator(seed, stream) for seed in seeds], sampler.standardised_noise
        )
        for stream in ("video", "audio")
    )
    denoiser = GuidedDenoiser(
        model=FakeModel(),
        positive=prompt(0.5),
        negative=prompt(-0.5),
        force_uncond=sampler.needs_uncond,
    )
    return sampler.loop((video, audio))(SIGMAS, streams, denoiser)


@pytest.mark.parametrize("name", SAMPLERS)
def test_batch_equals_its_requests_alone(name):
    sampler = SAMPLERS[name]()
    video, audio = state("video", batch=2), state("audio", batch=2, seed=1)
    together = run(sampler, (video, audio), 1, 2)
    alone = [run(sampler, (row(video, i), row(audio, i)), seed) for i, seed in enumerate((1, 2))]
    for both, rows in zip(together, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(both.latent, torch.cat([one.latent for one in rows]))


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_starts_each_run_afresh(name):
    sampler = SAMPLERS[name]()
    first, second = (run(sampler, (state("video"), None), 1)[0] for _ in range(2))
    assert torch.equal(first.latent, second.latent)


@pytest.mark.parametrize("name", SAMPLERS)
def test_noise_counts_where_the_sampler_draws_it(name):
    first, second = (run(SAMPLERS[name](), (state("video"), None), seed)[0] for seed in (1, 2))
    assert torch.equal(first.latent, second.latent) == (name not in DRAWING)


@pytest.mark.parametrize("name", SAMPLERS)
def test_absent_stream_stays_absent(name):
    video, audio = run(SAMPLERS[name](), (None, state("audio")), 1)
    assert video is None
    assert audio is not None
    assert audio.latent.isfinite().all()
