"""The complete tiny two-stage run: prompts and images to picture and sound, and all between.

Each part starts from our own result of the part before it; only token ids and noise are given.
"""

import re
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path

import pytest
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from rayreel.checkpoints.builder import build
from rayreel.checkpoints.keys import TRANSFORMER, component_tensors
from rayreel.config.conditions import AdapterSpec, ImageCondition
from rayreel.config.jobs import ModelSpec
from rayreel.config.request import RenderRequest
from rayreel.config.sampling import Guidance
from rayreel.diffusion.loop import denoise as denoising_loop
from rayreel.diffusion.samplers import SAMPLERS, StepperSampler
from rayreel.diffusion.steppers import Euler
from rayreel.media.image import fit, to_model_input
from rayreel.models.transformer import Transformer
from rayreel.pipelines import decoding, phases
from rayreel.pipelines.devices import Device
from rayreel.pipelines.ledger import ModelLedger
from rayreel.pipelines.phases import Phase, second_stage
from rayreel.types import Audio, Latents, TextContext, TextFeatures
from tests.fusing import fuse
from tests.parity.vectors import FOLDER, Case, cases
from tests.pipelines.small import distilled, resolved, with_transformer

STAGE_2 = second_stage(RenderRequest(prompt="any"))
FILE = "v*/e2e_two_stage.safetensors"
STREAMS = ("video", "audio")


class Recorder:
    """Euler's method, with all that it came to."""

    adds_noise = False

    def __init__(self):
        self.samples: list[Tensor] = []

    def step(self, sample, denoised, sigma, sigma_next):
        self.samples.append(Euler().step(sample, denoised, sigma, sigma_next))
        return self.samples[-1]


class Run:
    """The run of one vector file; its parts are computed when they are first asked for."""

    def __init__(self, file: str, folder: Path):
        self.file, self.folder = file, folder

    def case(self, name: str) -> Case:
        return Case(self.file, name)

    @cached_property
    def ledger(self) -> ModelLedger:
        weights = FOLDER / self.case("text").folder
        lora, strength = self.case("stage2").options["lora"]
        spec = ModelSpec(
            checkpoint=str(weights / "model.safetensors"),
            gemma=str(FOLDER / "gemma"),
            upsampler=str(FOLDER / self.case("upsample").options["upsampler"]),
            distilled_lora=AdapterSpec(path=str(weights / lora), strength=strength),
        )
        return ModelLedger(spec, Device("cpu", "float32", "as the vectors"))

    @cached_property
    def contexts(self) -> dict[str, TextContext]:
        inputs = self.case("text").inputs

        def context(sign: str) -> TextContext:
            mask = inputs[f"{sign}_attention_mask"]
            states = encoder.gemma(inputs[f"{sign}_input_ids"], mask)
            video, audio = (x[mask.bool()] for x in encoder.feature_extractor(states, mask))
            found: TextContext
            [found] = connectors([TextFeatures(video=video, audio=audio, length=mask.shape[1])])
            return found

        with self.ledger.text_encoder() as encoder, self.ledger.text_connectors() as connectors:
            return {sign: context(sign) for sign in ("positive", "negative")}

    @cached_property
    def request(self) -> RenderRequest:
        first, second = self.case("stage1").options, self.case("stage2").options
        request = RenderRequest(
            prompt="positive",
            seed=0,
            negative_prompt="negative",
            width=second["width"],
            height=second["height"],
            num_frames=second["frames"],
            fps=second["fps"],
            steps=first["steps"],
            images=tuple(self._images()),
            video_guidance=Guidance(**first["video_guidance"]),
            audio_guidance=Guidance(**first["audio_guidance"]),
        )
        return resolved(request, self.ledger.files)

    def _images(self):
        case = self.case("images")
        told = re.findall(
            r"(image\d+) conditions [a-z ]*frame (\d+) \([^)]*strength ([\d.]+)\)",
            case.options["note"],
        )
        assert {name for name, _, _ in told} == case.inputs.keys()
        for name, frame, strength in told:
            path = self.folder / f"{name}.png"
            Image.fromarray(case.inputs[name].numpy()).save(path)
            yield ImageCondition(path=str(path), frame=frame, strength=strength, crf=0)

    @cached_property
    def stage1(self) -> dict[str, Tensor]:
        phase = Phase(
            name="stage1", downscale=2, sigmas=phases.guided_sigmas(self.request), guided=True
        )
        return self.denoise(self.ledger, phase)

    @cached_property
    def upsampled(self) -> Latents:
        (larger,) = phases.upsample(self.ledger, [latents(self.stage1)])
        return larger

    @cached_property
    def stage2(self) -> dict[str, Tensor]:
        return self.denoise(distilled(self.ledger), STAGE_2, self.upsampled)

    def denoise(self, view: ModelLedger, phase: Phase, start=None) -> dict[str, Tensor]:
        """Latents at the end of a phase, and what it went through, by the names of the vectors."""
        values: dict[str, Tensor] = {}
        recorders = (Recorder(), Recorder())

        def loop(sigmas, states, denoiser):
            for stream, state in zip(STREAMS, states, strict=True):
                values[f"{stream}_noised"] = state.latent
                values[f"{stream}_mask"] = state.denoise_mask
                values[f"{stream}_positions"] = state.positions
            return denoising_loop(sigmas, states, denoiser, recorders)

        class Recording(StepperSampler):
            def loop(self, noises):  # noqa: ARG002 - this one draws none
                return loop

        batch = phases.encode(self.ledger, [self.request], self.contexts)
        with pytest.MonkeyPatch.context() as patch:
            # The sampler sees the states of all tokens; a phase gives the target's alone.
            patch.setitem(SAMPLERS, "euler", lambda: Recording(lambda _: Euler()))
            (final,) = phases.denoise(view, batch, phase, start and [start], noise=self.given_noise)
        assert final.video is not None
        assert final.audio is not None
        values |= {"video_latent": final.video[None], "audio_latent": final.audio[None]}
        for stream, recorder in zip(STREAMS, recorders, strict=True):
            values[f"{stream}_steps"] = torch.stack(recorder.samples)
        return values

    def given_noise(self, _, purpose: str):
        stream, stage = purpose.split("/")
        rest = self.case(stage).inputs[f"{stream}_noise"]

        def draw(like: Tensor) -> Tensor:
            nonlocal rest
            drawn, rest = rest[:, : like.shape[1]], rest[:, like.shape[1] :]
            return drawn

        return draw


def latents(values: dict[str, Tensor]) -> Latents:
    return Latents(video=values["video_latent"][0], audio=values["audio_latent"][0])


@pytest.fixture(scope="module")
def run_of(tmp_path_factory):
    """The run behind a case; cases of one file share it."""
    runs = cache(lambda file: Run(file, tmp_path_factory.mktemp("images")))
    return lambda case: runs(case.file)


@pytest.mark.parametrize("case", cases(FILE, "text"))
def test_contexts_of_both_prompts(case, run_of):
    for name in case.out:
        sign, stream, _ = name.split("_")
        case.assert_close(getattr(run_of(case).contexts[sign], stream)[None], name)


@pytest.mark.parametrize("case", cases(FILE, "images"))
def test_images_at_the_size_of_each_stage(case, run_of):
    run = run_of(case)
    for name in case.out:
        stage, image, what = name.split("_")
        size = run.case(stage).options
        pixels = to_model_input(fit(case.inputs[image], size["height"], size["width"]))
        with run.ledger.video_encoder() as encoder:
            actual = {"pixels": pixels, "latent": encoder(pixels)}
        case.assert_close(actual[what], name)


@pytest.mark.parametrize("case", [*cases(FILE, "stage1"), *cases(FILE, "stage2")])
def test_every_state_of_a_stage(case, run_of):
    values = getattr(run_of(case), case.name)
    for name in case.out:
        case.assert_close(values[name], name)


@pytest.mark.parametrize("case", [*cases(FILE, "stage1"), *cases(FILE, "stage2")])
def test_noise_levels_of_a_stage(case, run_of):
    own = {"stage1": phases.guided_sigmas(run_of(case).request), "stage2": STAGE_2.sigmas}[
        case.name
    ]
    case.assert_close(own, case.inputs["sigmas"])
    assert own[0].item() == pytest.approx(case.options["noise_scale"], rel=1e-6)


@pytest.mark.parametrize("case", cases(FILE, "upsample"))
def test_upsampled_latent(case, run_of):
    case.assert_close(run_of(case).upsampled.video[None], "video_latent")


@pytest.mark.parametrize("case", cases(FILE, "stage2_exact_lora"))
def test_second_stage_with_an_adapter_fused_at_full_precision(case, run_of):
    run = run_of(case)
    files = run.ledger.files
    stored = component_tensors(files.transformer_file, TRANSFORMER)
    fused = fuse(
        {name: tensor.float() for name, tensor in stored.items()},
        files.adapters(distilled=True),
        aggregate_dtype=torch.float64,
    )
    exact = build(lambda: Transformer(files.transformer), fused)
    values = run.denoise(with_transformer(run.ledger, exact), STAGE_2, run.upsampled)
    for name in case.out:
        case.assert_close(values[name], name)


@pytest.mark.parametrize("case", cases(FILE, "decode"))
def test_decoded_frames(case, run_of):
    run = run_of(case)
    with run.ledger.video_decoder() as decoder:
        decoded = decoder(run.stage2["video_latent"])
    video = rearrange((decoded[0] + 1) / 2, "c f h w -> f h w c").clamp(0, 1)
    clip = decoding.decode(run.ledger, run.request, latents(run.stage2)).collect()
    assert list(clip.frames.shape) == case.options["video_shape_fhwc"]
    case.assert_close(video[:, ::4, ::4], "video_sub4")
    case.assert_close(video[0], "frame0")
    case.assert_close(video.mean(dim=(1, 2)), "frame_mean")
    # Truncated: a level stands for the interval above it.
    levels = (clip.frames[:, ::4, ::4] + 0.5) / 255
    case.assert_close(levels, "video_sub4", atol=0.6 / 255)


@pytest.mark.parametrize("case", cases(FILE, "decode"))
def test_decoded_sound_of_either_stage(case, run_of):
    run = run_of(case)
    final = latents(run.stage2)
    for name in ("audio_from_stage1", "audio_from_stage2"):
        source = latents(getattr(run, name.removeprefix("audio_from_")))
        sound = decoding.decode(run.ledger, run.request, replace(final, audio=source.audio)).audio
        assert isinstance(sound, Audio)
        assert sound.sample_rate_hz == case.options["sampling_rate"]
        case.assert_close(sound.waveform, name)
