from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rayreel.config.sampling import Guidance, GuidanceBin
from rayreel.diffusion.denoisers import GuidedDenoiser, SimpleDenoiser
from rayreel.diffusion.guiders import GUIDERS, MultiModalGuider
from rayreel.diffusion.states import frozen
from rayreel.models.transformer.perturbations import Perturbation, PerturbationType
from tests.diffusion.fakes import FakeModel, prompt, row, state
from tests.models.tiny import sine_transformer, tiny_config, tiny_streams

FULL = Guidance(
    cfg_scale=3, stg_scale=1, stg_blocks=(2,), rescale_scale=0.7, modality_scale=3, skip_step=1
)


def guided(model, **settings) -> Any:
    defaults = {"positive": prompt(0.5), "negative": prompt(-0.5)}
    return GuidedDenoiser(model=model, **(defaults | settings))


def simple(model, value) -> Any:
    return SimpleDenoiser(model, prompt(value))


def test_all_passes_run_in_one_forward():
    model = FakeModel()
    denoiser = guided(model, video_guidance=FULL, audio_guidance=Guidance(cfg_scale=7))
    denoiser(state("video", batch=2), state("audio", batch=2), 0.8, 0)
    (video, audio, perturbations) = model.calls[0]
    assert len(model.calls) == 1
    prompts = [0.5, 0.5, -0.5, -0.5, 0.5, 0.5, 0.5, 0.5]
    assert video.context[:, 0, 0].tolist() == audio.context[:, 0, 0].tolist() == prompts
    stg = (Perturbation(PerturbationType.SKIP_VIDEO_SELF_ATTN, (2,)),)
    isolated = (
        Perturbation(PerturbationType.SKIP_A2V_CROSS_ATTN),
        Perturbation(PerturbationType.SKIP_V2A_CROSS_ATTN),
    )
    assert perturbations == [(), (), (), (), stg, stg, isolated, isolated]


def test_passes_combine_as_separate_ones_would():
    model, video = FakeModel(), state("video")
    guidance = FULL.model_copy(update={"stg_scale": 0.0})
    result, _ = guided(model, video_guidance=guidance)(video, None, 0.8, 0)
    cond, uncond = (simple(FakeModel(), value)(video, None, 0.8, 0)[0].x0 for value in (0.5, -0.5))
    expected = MultiModalGuider(guidance).combine(cond, uncond=uncond)
    torch.testing.assert_close(result.x0, expected)
    torch.testing.assert_close(result.uncond, uncond)


@pytest.mark.parametrize("method", GUIDERS)
def test_batch_equals_its_requests_alone(method):
    video, audio = state("video", batch=3), state("audio", batch=3, seed=1)
    push = {"method": method, "eta": 0.5, "norm_threshold": 1, "momentum": 0.5, "skip_step": 0}
    guidance = FULL.model_copy(update=push)

    def denoise(video, audio):
        denoiser = guided(FakeModel(), video_guidance=guidance, audio_guidance=guidance)
        denoiser(video, audio, 0.9, 0)
        return [denoised.x0 for denoised in denoiser(video, audio, 0.8, 1)]

    together = denoise(video, audio)
    alone = zip(*(denoise(row(video, i), row(audio, i)) for i in range(3)), strict=True)
    for batched, rows in zip(together, alone, strict=True):
        assert torch.equal(batched, torch.cat(rows))


def test_momentum_lasts_over_the_steps_of_a_run():
    guidance = Guidance(method="legacy_apg", cfg_scale=1, momentum=0.5)
    denoiser, video = guided(FakeModel(), video_guidance=guidance), state("video")
    first, second = (denoiser(video, None, 0.8, step)[0] for step in (0, 1))
    cond = (first.x0 + first.uncond) / 2
    torch.testing.assert_close(second.x0 - cond, 1.5 * (first.x0 - cond))


def test_skipped_steps_reuse_the_last_estimates():
    model = FakeModel()
    denoiser = guided(model, video_guidance=FULL, audio_guidance=FULL)
    first = denoiser(state("video"), state("audio"), 0.8, 0)
    assert denoiser(state("video", seed=5), state("audio", seed=5), 0.7, 1) == first
    assert len(model.calls) == 1


def test_stream_that_skips_a_step_is_disabled_for_it():
    model = FakeModel()
    denoiser = guided(model, video_guidance=FULL)
    first = denoiser(state("video"), state("audio"), 0.8, 0)
    second = denoiser(state("video", seed=5), state("audio", seed=5), 0.7, 1)
    assert [stream.enabled for stream in model.calls[1][:2]] == [False, True]
    assert second[0] is first[0]
    assert not torch.equal(second[1].x0, first[1].x0)


def test_guidance_follows_the_noise_level():
    model = FakeModel()
    bins = (GuidanceBin(up_to=0.5, cfg_scale=2),)
    denoiser = guided(model, video_guidance=Guidance(by_sigma=bins))
    for step, sigma in enumerate((0.9, 0.5)):
        denoiser(state("video"), None, sigma, step)
    assert [len(video.latent) for video, _, _ in model.calls] == [1, 2]


def test_perturbed_pass_leaves_out_what_guidance_says():
    model = FakeModel()
    both = Guidance(stg_scale=1, stg_blocks=(2,), stg_skips=("self_attention", "cross_modal"))
    one = Guidance(stg_scale=1, stg_blocks=None, stg_skips=("cross_modal",))
    denoiser = guided(model, video_guidance=both, audio_guidance=one)
    denoiser(state("video"), state("audio"), 0.8, 0)
    kinds = PerturbationType
    assert model.calls[0][2][1] == (
        Perturbation(kinds.SKIP_VIDEO_SELF_ATTN, (2,)),
        Perturbation(kinds.SKIP_A2V_CROSS_ATTN, (2,)),
        Perturbation(kinds.SKIP_V2A_CROSS_ATTN),
    )


@pytest.mark.parametrize("stream", [0, 1])
def test_a_stream_without_the_cross_modal_exchange_ignores_the_other(stream):
    transformer = sine_transformer(tiny_config("2.3"))
    kind = (PerturbationType.SKIP_A2V_CROSS_ATTN, PerturbationType.SKIP_V2A_CROSS_ATTN)[stream]
    streams = list(tiny_streams(transformer.config))
    with torch.no_grad():
        before = transformer(*streams, [[Perturbation(kind)]] * 2)[stream]
        other = streams[1 - stream]
        streams[1 - stream] = replace(other, latent=other.latent + 1)
        after = transformer(*streams, [[Perturbation(kind)]] * 2)[stream]
    assert torch.equal(before, after)


def test_single_stream_is_not_cut_off_from_the_other():
    model = FakeModel()
    guidance = Guidance(stg_scale=1, stg_blocks=None, stg_skips=("cross_modal",))
    guided(model, video_guidance=guidance)(state("video"), None, 0.8, 0)
    assert len(model.calls[0][0].latent) == 1


def test_single_stream_is_not_isolated():
    model = FakeModel()
    guided(model, video_guidance=Guidance(modality_scale=3))(state("video"), None, 0.8, 0)
    assert len(model.calls[0][0].latent) == 1
    assert model.calls[0][2] is None


def test_stream_without_anything_to_generate_is_at_noise_level_zero():
    model = FakeModel()
    simple(model, 0.5)(state("video"), frozen(state("audio")), 0.8, 0)
    video, audio, _ = model.calls[0]
    torch.testing.assert_close(video.sigma, torch.tensor([0.8]))
    assert not audio.sigma.any()
    assert not audio.timesteps.any()


def test_a_noise_level_that_the_tokens_of_a_sample_share_is_given_once():
    model, video = FakeModel(), state("video", batch=2)
    video.denoise_mask[1] = 0.5
    guided(model, video_guidance=Guidance(cfg_scale=3))(video, state("audio", batch=2), 0.8, 0)
    levels, audio_levels = (stream.timesteps for stream in model.calls[0][:2])
    torch.testing.assert_close(levels, torch.tensor([0.8, 0.4, 0.8, 0.4])[:, None, None])
    assert model.calls[0][0].levels is None
    torch.testing.assert_close(audio_levels, torch.full((4, 1, 1), 0.8))


def test_noise_levels_that_differ_are_given_for_each_token_and_by_themselves():
    model, video = FakeModel(), state("video", batch=2)
    video.denoise_mask[1, 0] = 0.5
    guided(model, video_guidance=Guidance(cfg_scale=3))(video, None, 0.8, 0)
    seen = model.calls[0][0]
    assert torch.equal(seen.timesteps, (video.denoise_mask * 0.8).repeat(2, 1, 1))
    assert torch.equal(seen.levels, seen.timesteps.unique())


class Waits(TorchDispatchMode):
    """Counts how often the host asks for a value on the device."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_the_host_waits_for_the_device_at_the_first_step_alone():
    denoiser, video = simple(FakeModel(), 0.5), state("video")
    with Waits() as waits:
        denoiser(video, None, 0.8, 0)
        assert waits.count == 1
        denoiser(replace(video, latent=video.latent + 1), None, 0.7, 1)
        assert waits.count == 1


def test_positions_of_a_single_request_are_not_repeated_for_its_passes():
    model, guidance = FakeModel(), Guidance(cfg_scale=3)
    guided(model, video_guidance=guidance)(state("video"), None, 0.8, 0)
    guided(model, video_guidance=guidance)(state("video", batch=2), None, 0.8, 0)
    assert [len(video.positions) for video, _, _ in model.calls] == [1, 4]


def test_tokens_that_are_kept_come_back_unchanged():
    video = frozen(state("video"))
    denoised, _ = simple(FakeModel(), 0.5)(video, None, 0.8, 0)
    assert torch.equal(denoised.x0, video.latent)


def test_negative_prompt_is_required_where_guidance_uses_it():
    denoiser = guided(FakeModel(), negative=None, video_guidance=Guidance(cfg_scale=2))
    with pytest.raises(ValueError, match="negative prompt"):
        denoiser(state("video"), None, 0.8, 0)


def test_negative_prompt_for_a_later_step_is_missed_at_the_first_one():
    guidance = Guidance(by_sigma=(GuidanceBin(up_to=0.5, cfg_scale=2),))
    denoiser = guided(FakeModel(), negative=None, video_guidance=guidance)
    with pytest.raises(ValueError, match="negative prompt"):
        denoiser(state("video"), None, 0.8, 0)


def test_unconditional_pass_can_be_forced():
    denoised, _ = guided(FakeModel(), force_uncond=True)(state("video"), None, 0.8, 0)
    assert denoised.uncond is not None
    assert not torch.equal(denoised.uncond, denoised.x0)


def test_default_guidance_equals_no_guidance():
    streams = state("video"), state("audio")
    plain = simple(FakeModel(), 0.5)(*streams, 0.8, 0)
    default = guided(FakeModel(), negative=None)(*streams, 0.8, 0)
    for ours, theirs in zip(default, plain, strict=True):
        assert torch.equal(ours.x0, theirs.x0)


def test_a_run_has_one_memory_while_its_texts_stay():
    model, latent = FakeModel(), state("video")
    bins = (GuidanceBin(up_to=0.5, cfg_scale=1),)
    denoiser = guided(model, video_guidance=Guidance(cfg_scale=3, by_sigma=bins))
    for step, sigma in enumerate((0.9, 0.8, 0.4, 0.3)):
        denoiser(latent, None, sigma, step)
    first, second, third, fourth = model.memories
    assert first is second
    assert third is fourth
    assert first is not third


def test_another_batch_has_another_memory():
    model = FakeModel()
    denoiser = simple(model, 0.5)
    for batch in (1, 1, 2):
        denoiser(state("video", batch=batch), None, 0.9, 0)
    assert model.memories[0] is model.memories[1]
    assert model.memories[1] is not model.memories[2]
