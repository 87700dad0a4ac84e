"""Whole sampling loops around the toy denoiser that the vectors describe."""

import pytest
import torch

from rayreel.diffusion.denoisers import SimpleDenoiser
from rayreel.diffusion.loop import denoise, restore_kept
from rayreel.diffusion.noisers import standardise
from rayreel.diffusion.protocols import Denoised
from rayreel.diffusion.res2s import denoise_res2s
from rayreel.diffusion.samplers import SAMPLERS
from rayreel.diffusion.steppers import AncestralEuler, CFGPlusPlusEuler, Euler, GradientEstimation
from rayreel.diffusion.streams import per_stream
from rayreel.types import LatentState, TextContext
from tests.parity.vectors import Case, cases

FILE = "common/denoising_loops.safetensors"
STREAMS = ("video", "audio")


def tensors(name):
    return Case(FILE, name).inputs


class ToyDenoiser:
    """The closed form that the vectors state; keeps the noise levels that it was called with."""

    def __init__(self):
        shared = tensors("shared")
        self.targets = tuple(shared[f"{stream}_target"] for stream in STREAMS)
        self.calls = []

    def __call__(self, video, audio, sigma, _):
        self.calls.append(sigma)
        return per_stream(
            lambda state, target: Denoised(
                x0=target + 0.3 * sigma * torch.tanh(state.latent - target),
                uncond=0.5 * target + 0.2 * sigma * torch.sin(state.latent),
            ),
            (video, audio),
            self.targets,
        )


class Draws:
    """Given noise, draw by draw."""

    def __init__(self, noise):
        self.noise, self.count = noise, 0

    def __call__(self, _):
        self.count += 1
        return self.noise[self.count - 1]


def states(case):
    shared = tensors("shared") | tensors(case.options.get("masks", "shared"))
    streams = [
        LatentState(
            latent=shared[f"{stream}_latent"],
            clean_latent=shared[f"{stream}_clean"],
            denoise_mask=shared[f"{stream}_mask"],
            positions=torch.empty(0),
        )
        if stream in case.out
        else None
        for stream in STREAMS
    ]
    return tuple(streams)


def sigmas(case):
    return tensors(f"sigmas_{case.options['sigmas']}")["sigmas"]


def assert_streams(case, final):
    compared = {stream: state for stream, state in zip(STREAMS, final, strict=True) if state}
    assert compared.keys() == case.out.keys()
    for stream, state in compared.items():
        case.assert_close(state.latent, stream)


def assert_calls(case, denoiser):
    if "calls" in case.options:
        assert denoiser.calls == pytest.approx(case.options["calls"], rel=1e-6)


EULER = cases(FILE, "euler_*")
DETERMINISTIC = [param for param in EULER if "eta" not in param.values[0].options]
STOCHASTIC = [param for param in EULER if "eta" in param.values[0].options]


@pytest.mark.parametrize("case", [*DETERMINISTIC, *cases(FILE, "gradient_estimation_*")])
def test_deterministic_loops(case):
    def stepper():
        gamma = case.options.get("ge_gamma")
        return Euler() if gamma is None else GradientEstimation(gamma)

    denoiser = ToyDenoiser()
    final = denoise(sigmas(case), states(case), denoiser, (stepper(), stepper()))
    assert_streams(case, final)
    assert_calls(case, denoiser)


@pytest.mark.parametrize("case", STOCHASTIC)
def test_stochastic_loops(case):
    options = case.options
    kind = CFGPlusPlusEuler if "cfg_pp" in case.name else AncestralEuler
    video_noise, audio_noise = (Draws(tensors("noise")[stream]) for stream in STREAMS)
    settings = {"eta": options["eta"], "s_noise": options["s_noise"]}
    steppers = kind(noise=video_noise, **settings), kind(noise=audio_noise, **settings)
    assert_streams(case, denoise(sigmas(case), states(case), ToyDenoiser(), steppers))
    assert video_noise.count == audio_noise.count == options["draws"]


@pytest.mark.parametrize("case", cases(FILE, "res2s_*_legacy*"))
def test_second_order_loops(case):
    options, denoiser = case.options, ToyDenoiser()
    video_noise, audio_noise = (Draws(tensors("noise_res2s")[stream]) for stream in STREAMS)
    final = denoise_res2s(
        sigmas(case),
        states(case),
        denoiser,
        (video_noise, audio_noise),
        eta=options["eta"],
        refinements=options.get("bongmath_max_iter", 100) if options["bongmath"] else 0,
        per_token_noise=not options["legacy_mode"],
    )
    assert_streams(case, final)
    assert_calls(case, denoiser)
    assert video_noise.count == audio_noise.count == options["draws"]


# Cases of the parameters that a sampler has when it is named alone.
NAMED = {
    "euler": "euler_*",
    "gradient_estimation": "gradient_estimation_*_g2.0",
    "ancestral_euler": "euler_ancestral_*_eta1.0",
    "cfg_plus_plus": "euler_cfg_pp_*_eta1.0",
    "res_2s": "res2s_*_legacy1_bong1_eta0.5",
}


@pytest.mark.parametrize(
    ("name", "case"),
    [
        pytest.param(name, *param.values, id=f"{name}:{param.id}")
        for name, pattern in NAMED.items()
        for param in cases(FILE, pattern)
        if name != "euler" or param in DETERMINISTIC
    ],
)
def test_samplers_by_name(name, case):
    sampler, denoiser = SAMPLERS[name](), ToyDenoiser()
    draws = tensors("noise_res2s" if sampler.standardised_noise else "noise")
    video_noise, audio_noise = (Draws(draws[stream]) for stream in STREAMS)
    final = sampler.loop((video_noise, audio_noise))(sigmas(case), states(case), denoiser)
    assert_streams(case, final)
    assert_calls(case, denoiser)


def test_every_sampler_has_its_cases():
    assert NAMED.keys() == SAMPLERS.keys()


@pytest.mark.parametrize("case", cases(FILE, "res2s_noise_normalisation"))
def test_standardised_noise(case):
    case.assert_close(standardise(case.inputs["raw"]), "noise")


def rows(inputs):
    """One state per batch item, since items have noise levels of their own."""
    tensors = (inputs[name].split(1) for name in ("denoised", "clean", "mask"))
    return [
        LatentState(
            latent=latent, clean_latent=clean, denoise_mask=mask, positions=torch.zeros(1, 3, 1, 2)
        )
        for latent, clean, mask in zip(*tensors, strict=True)
    ]


@pytest.mark.parametrize("case", cases(FILE, "post_process"))
def test_kept_content_is_restored(case):
    restored = [restore_kept(state.latent, state) for state in rows(case.inputs)]
    case.assert_close(torch.cat(restored), "out")


@pytest.mark.parametrize("case", cases(FILE, "post_process"))
def test_tokens_are_denoised_at_their_own_noise_level(case):
    seen = []

    def model(video, audio, perturbations, memory):
        seen.append(video.timesteps)
        return torch.zeros_like(video.latent), None

    empty = torch.zeros(1, 1, 1)
    denoiser = SimpleDenoiser(model, TextContext(video=empty, audio=empty))
    for step, state in enumerate(rows(case.inputs)):
        denoiser(state, None, case.inputs["sigma"][step].item(), step)
    case.assert_close(torch.cat(seen), "timesteps")
