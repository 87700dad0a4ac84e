"""The transformer against the golden vectors of every generation."""

from dataclasses import replace
from functools import cache

import pytest
import torch

from rayreel.checkpoints.builder import build
from rayreel.config.model import TransformerConfig
from rayreel.diffusion.steppers import to_denoised
from rayreel.models.transformer import (
    Perturbation,
    PerturbationType,
    Transformer,
)
from rayreel.types import Modality
from tests.models.tiny import (
    sine_transformer,
    tiny_config,
    tiny_streams,
    video_only,
)
from tests.parity.vectors import available, cases, component, weights

FILES = ("v*/transformer.safetensors", "v*/transformer_interleaved_rope.safetensors")
CONNECTORS = ("video_embeddings_connector.", "audio_embeddings_connector.")


def weight_file(case):
    """The file that the case names, the one called after its vectors, or the folder's monolith."""
    own = case.file.replace(".safetensors", "_model.safetensors")
    default = own if available(own) else f"{case.folder}/model.safetensors"
    return case.options.get("weights", default)


@cache
def transformer(file):
    tensors = component(file, "model.diffusion_model.")
    return build(
        lambda: Transformer(weights(file).section("transformer", TransformerConfig)),
        {name: value for name, value in tensors.items() if not name.startswith(CONNECTORS)},
    )


def stream(case, name):
    """One stream of a case; absent where the case has no output for it."""
    if f"{name}_velocity" not in case.out:
        return None
    fields = {
        key.removeprefix(f"{name}_"): value
        for key, value in case.inputs.items()
        if key.startswith(f"{name}_")
    }
    if case.name == "no_keyframe_mask":
        fields.pop("keyframes_mask", None)
    return Modality(enabled=case.name != f"{name}_disabled", **fields)


def perturbations(case):
    samples = case.options.get("perturbations")
    return samples and [
        [
            Perturbation(PerturbationType[kind], None if blocks is None else tuple(blocks))
            for kind, blocks in sample
        ]
        for sample in samples
    ]


@pytest.mark.parametrize("case", [case for file in FILES for case in cases(file)])
@torch.inference_mode()
def test_velocities(case):
    model = transformer(weight_file(case))
    streams = {name: stream(case, name) for name in ("video", "audio")}
    velocities = model(*streams.values(), perturbations(case))
    for (name, modality), velocity in zip(streams.items(), velocities, strict=True):
        if modality is None:
            assert velocity is None
            continue
        case.assert_close(velocity, f"{name}_velocity")
        if f"{name}_x0" in case.out:
            x0 = to_denoised(modality.latent, velocity, modality.timesteps)
            case.assert_close(x0, f"{name}_x0")


@pytest.mark.parametrize(
    "case", [case for name in ("video_only", "audio_only") for case in cases(FILES[0], name)]
)
@torch.inference_mode()
def test_velocities_of_a_network_of_one_stream(case):
    whole = transformer(weight_file(case))
    alone = video_only if case.name == "video_only" else TransformerConfig.audio_only
    config = alone(whole.config)
    with torch.device("meta"):
        names = Transformer(config).state_dict().keys()
    weights = {name: tensor for name, tensor in whole.state_dict().items() if name in names}
    streams = [stream(case, name) for name in ("video", "audio")]
    velocities = build(lambda: Transformer(config), weights)(*streams)
    name = case.name.removesuffix("_only")
    case.assert_close(velocities[name == "audio"], f"{name}_velocity")


# Generation, case: first video token of the first sample, and the sums of both absolute velocities.
REFERENCE = {
    ("2.0", "plain"): ((-0.68016, -1.18834, -0.10671, 0.81888), 34.7907, 10.4011),
    ("2.0", "i2v"): ((-1.05761, -0.93660, 0.37296, 0.76189), 35.4065, 10.4156),
    ("2.0", "stg-all"): ((-0.67598, -1.19137, -0.11211, 0.81972), 34.8560, 10.3780),
    ("2.0", "stg-1"): ((-0.68016, -1.18834, -0.10671, 0.81888), 34.8267, 10.3860),
    ("2.0", "iso"): ((-0.06041, -1.91969, -1.02338, 1.17805), 50.3245, 12.4980),
    ("2.3", "plain"): ((-2.01197, -0.22340, 2.25677, 1.37518), 65.6231, 43.2648),
    ("2.3", "i2v"): ((-0.78925, 0.40462, 1.28904, 0.35424), 55.3209, 43.2734),
    ("2.3", "stg-all"): ((-2.00840, -0.22189, 2.25381, 1.37246), 65.5258, 43.2459),
    ("2.3", "iso"): ((-1.34775, 0.07240, 1.71265, 0.85846), 46.4863, 43.9832),
    ("2.5", "plain"): ((0.13778, -1.08614, -0.52059, 0.70537), 23.3633, 35.5501),
    ("2.5", "i2v"): ((-0.02365, -1.02850, -0.33576, 0.72277), 23.0599, 35.4988),
    ("2.5", "stg-all"): ((0.49542, -0.51109, -0.64475, 0.07990), 21.8928, 35.6050),
    ("2.5", "iso"): ((-0.15328, -0.82219, -0.12236, 0.60309), 10.0444, 36.2174),
}
SELF_ATTENTION = [
    Perturbation(PerturbationType.SKIP_VIDEO_SELF_ATTN, (1,)),
    Perturbation(PerturbationType.SKIP_AUDIO_SELF_ATTN, (1,)),
]
EXCHANGE = [
    Perturbation(PerturbationType.SKIP_A2V_CROSS_ATTN),
    Perturbation(PerturbationType.SKIP_V2A_CROSS_ATTN),
]
SKIPPED = {
    "stg-all": [SELF_ATTENTION, SELF_ATTENTION],
    "stg-1": [[], SELF_ATTENTION],
    "iso": [EXCHANGE, EXCHANGE],
}


@pytest.mark.parametrize(("generation", "name"), REFERENCE)
def test_formula_weights_give_reference_numbers(generation, name):
    config = tiny_config(generation)
    video, audio = tiny_streams(config)
    if name == "i2v":
        generated = torch.arange(video.latent.shape[1]) >= 2
        video = replace(video, timesteps=video.timesteps * generated[:, None])
    v, a = sine_transformer(config)(video, audio, SKIPPED.get(name))
    first, video_sum, audio_sum = REFERENCE[generation, name]
    torch.testing.assert_close(v[0, 0], torch.tensor(first), rtol=0, atol=2e-5)
    sums = torch.stack((v.abs().sum(), a.abs().sum()))
    torch.testing.assert_close(sums, torch.tensor((video_sum, audio_sum)), rtol=0, atol=2e-4)
