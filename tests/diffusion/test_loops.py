from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rayreel.diffusion import res2s
from rayreel.diffusion.loop import denoise
from rayreel.diffusion.noisers import GaussianNoise
from rayreel.diffusion.protocols import Denoised
from rayreel.diffusion.res2s import denoise_res2s, sde_step
from rayreel.diffusion.schedulers import DISTILLED_SIGMAS
from rayreel.diffusion.steppers import AncestralEuler, Euler
from rayreel.diffusion.streams import per_stream
from rayreel.types import seeded_generator
from tests.diffusion.fakes import row, state

SIGMAS = torch.tensor(DISTILLED_SIGMAS)


def halving(video, audio, sigma, step_index):
    return per_stream(lambda stream: Denoised(x0=stream.latent / 2), (video, audio))


def noises(*seeds):
    video, audio = (
        GaussianNoise([seeded_generator(seed, name) for seed in seeds])
        for name in ("video", "audio")
    )
    return video, audio


def ancestral(streams, *seeds):
    video, audio = noises(*seeds)
    steppers = AncestralEuler(noise=video), AncestralEuler(noise=audio)
    return denoise(SIGMAS, streams, halving, steppers)


def second_order(streams, *seeds):
    return denoise_res2s(SIGMAS, streams, halving, noises(*seeds), per_token_noise=True)


@pytest.mark.parametrize("loop", [ancestral, second_order])
def test_batch_equals_its_requests_alone(loop):
    video = state("video", batch=2)
    video.denoise_mask[1, 0] = 0
    together, _ = loop((video, None), 1, 2)
    alone = [loop((row(video, i), None), seed)[0].latent for i, seed in enumerate((1, 2))]
    torch.testing.assert_close(together.latent, torch.cat(alone))


def test_absent_stream_stays_absent():
    video, audio = denoise(SIGMAS, (None, state("audio")), halving, (Euler(), Euler()))
    assert video is None
    assert audio is not None
    assert audio.latent.shape == state("audio").latent.shape


@pytest.mark.parametrize("loop", [ancestral, second_order])
def test_kept_tokens_end_as_their_clean_content(loop):
    video = state("video")
    clean = torch.full_like(video.latent, 3.0)
    mask = video.denoise_mask.clone()
    mask[:, :2] = 0
    kept = replace(video, clean_latent=clean, latent=torch.where(mask > 0, video.latent, clean))
    final, _ = loop((replace(kept, denoise_mask=mask), None), 1)
    assert torch.equal(final.latent[:, :2], clean[:, :2])


def test_second_order_steps_need_room_above_their_last_level():
    sigmas = torch.tensor([1.0, 0.001, 0.0])
    with pytest.raises(ValueError, match=r"level 1 is 0.001.*above 0.0011"):
        denoise_res2s(sigmas, (state("video"), None), halving, noises(1))


class Dtypes(TorchDispatchMode):
    """Notes the dtype of everything that is computed."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.seen |= {getattr(result, "dtype", None)}
        return result


def test_second_order_steps_do_without_float64_where_the_device_has_none(monkeypatch):
    streams = state("video"), state("audio")
    wide, _ = second_order(streams, 1)
    monkeypatch.setitem(res2s._PRECISION, "cpu", torch.float32)
    with Dtypes() as dtypes:
        narrow, _ = second_order(streams, 1)
    assert torch.float32 in dtypes.seen
    assert torch.float64 not in dtypes.seen
    torch.testing.assert_close(narrow.latent, wide.latent, rtol=1e-4, atol=1e-4)


def test_renewed_noise_has_the_stated_size():
    level = torch.full((1, 1, 1), 0.8)
    one = torch.ones(1, 1, 1)
    stepped = sde_step(2 * one, 1.625 * one, one, level, level - 0.2, eta=0.5)
    assert stepped.item() == pytest.approx(1.7341, abs=1e-4)
