import threading

import pytest
import torch

from rayreel.diffusion.noisers import GaussianNoise
from rayreel.diffusion.patchifiers import patchify_video
from rayreel.diffusion.protocols import Denoised
from rayreel.diffusion.samplers import SAMPLERS
from rayreel.diffusion.schedulers import DISTILLED_SIGMAS
from rayreel.diffusion.states import VideoTarget
from rayreel.diffusion.streams import per_stream
from rayreel.diffusion.watch import CancelToken, Watch, watched
from rayreel.errors import Cancelled
from rayreel.types import LatentState, VideoLatentShape, seeded_generator
from tests.diffusion.fakes import state

SIGMAS = torch.tensor(DISTILLED_SIGMAS)
STEPS = len(SIGMAS) - 1
PICTURE = VideoTarget(
    shape=VideoLatentShape(batch=1, channels=2, frames=1, height=2, width=2), fps=24.0
)


def halving(video, audio, sigma, step_index):
    return per_stream(
        lambda stream: Denoised(x0=stream.latent / 2, uncond=stream.latent / 3), (video, audio)
    )


def run(name, denoiser):
    noise = GaussianNoise([seeded_generator(1, "noise")])
    streams = state("video"), state("audio")
    return SAMPLERS[name]().loop((noise, noise))(SIGMAS, streams, denoiser)


@pytest.mark.parametrize("name", SAMPLERS)
def test_each_step_is_reported_once_and_in_order(name):
    seen = []
    watch = Watch(on_step=lambda *step: seen.append(step))
    final = run(name, watched(halving, watch, "stage1", STEPS))
    assert seen == [("stage1", step, STEPS) for step in range(STEPS)]
    for ours, alone in zip(final, run(name, halving), strict=True):
        assert torch.equal(ours.latent, alone.latent)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_cancelled_run_stops_before_its_next_step(name):
    token, seen = CancelToken(), []

    def cancel_at_two(_, step, __):
        seen.append(step)
        if step == 2:
            token.cancel()

    with pytest.raises(Cancelled):
        run(name, watched(halving, Watch(on_step=cancel_at_two, token=token), "stage1", STEPS))
    assert seen == [0, 1, 2]


def test_a_run_that_is_cancelled_before_it_starts_evaluates_nothing():
    token, seen = CancelToken(), []
    token.cancel()

    def recording(video, audio, sigma, step_index):
        seen.append(step_index)
        return halving(video, audio, sigma, step_index)

    watch = Watch(on_step=lambda *step: seen.append(step), token=token)
    with pytest.raises(Cancelled):
        run("euler", watched(recording, watch, "stage1", STEPS))
    assert not seen


def test_the_last_evaluation_of_the_second_order_sampler_can_be_cancelled():
    token, levels = CancelToken(), []

    def cancelling(video, audio, sigma, step_index):
        levels.append(sigma)
        if len(levels) == 2 * STEPS:
            token.cancel()
        return halving(video, audio, sigma, step_index)

    with pytest.raises(Cancelled):
        run("res_2s", watched(cancelling, Watch(token=token), "stage1", STEPS))
    assert len(levels) == 2 * STEPS


@pytest.mark.parametrize("name", SAMPLERS)
def test_estimates_are_told_after_each_evaluation_and_change_nothing(name):
    calls, estimates = [], []

    def counting(*arguments):
        calls.append(arguments)
        return halving(*arguments)

    watch = Watch(on_estimate=lambda estimate: estimates.append(estimate()))
    final = run(name, watched(counting, watch, "stage1", STEPS, PICTURE))
    assert len(estimates) == len(calls)
    assert {estimate.shape for estimate in estimates} == {PICTURE.shape.to_tuple()}
    told = len(calls)
    for ours, alone in zip(final, run(name, counting), strict=True):
        assert torch.equal(ours.latent, alone.latent)
    assert len(calls) == 2 * told


def test_an_estimate_holds_what_is_kept_and_nothing_that_was_appended():
    target = PICTURE
    kept, end = state("video"), target.tokens
    kept.denoise_mask[:, :2] = 0
    longer = LatentState(
        latent=torch.cat((kept.latent, kept.latent), 1),
        clean_latent=torch.cat((kept.clean_latent, kept.clean_latent), 1),
        denoise_mask=torch.cat((kept.denoise_mask, kept.denoise_mask), 1),
        positions=torch.cat((kept.positions, kept.positions), 2),
    )
    seen = []
    watch = Watch(on_estimate=lambda estimate: seen.append(estimate()))
    watched(halving, watch, "stage1", STEPS, target)(longer, None, 1.0, 0)
    tokens = patchify_video(seen[0])
    assert torch.equal(tokens[:, :2], kept.clean_latent[:, :2])
    assert torch.equal(tokens[:, 2:], kept.latent[:, 2:end] / 2)


def test_sound_alone_has_no_estimate_of_a_picture():
    seen: list[object] = []
    watch = Watch(on_estimate=seen.append)
    watched(halving, watch, "stage1", STEPS, None)(None, state("audio"), 1.0, 0)
    watched(halving, watch, "stage1", STEPS, PICTURE)(None, state("audio"), 1.0, 0)
    assert seen == []


def test_a_token_is_cancelled_from_another_thread():
    token = CancelToken()
    token.check()
    thread = threading.Thread(target=token.cancel)
    thread.start()
    thread.join()
    assert token.cancelled
    with pytest.raises(Cancelled):
        token.check()


def test_runs_that_nobody_watches_have_tokens_of_their_own():
    first, second = Watch(), Watch()
    first.token.cancel()
    run("euler", watched(halving, second, "stage1", STEPS))
