"""States before and after conditioning items, noised, and cleared again.

A case describes its items in a note. ``ITEMS`` reads names and numbers from it; frames and
strengths that a note leaves out are read off the expected positions and masks.
"""

import json
import re
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property

import pytest
import torch

from rayreel.conditioning.attention import AttentionStrength
from rayreel.conditioning.keyframes import GeneratedKeyframes, Keyframe, generated_keyframes
from rayreel.conditioning.masks import LatentMask, TemporalRegion
from rayreel.conditioning.references import ReferenceAudio, ReferenceVideo
from rayreel.conditioning.replacement import LatentReplacement
from rayreel.diffusion.noisers import add_noise
from rayreel.diffusion.states import AudioTarget, VideoTarget, clear_conditioning
from rayreel.types import AudioLatentShape, ScaleFactors, VideoLatentShape
from tests.parity.vectors import Case, cases

FILE = "common/conditioning.safetensors"
FIELDS = (
    "latent",
    "clean_latent",
    "denoise_mask",
    "positions",
    "attention_mask",
    "keyframes_mask",
)


@dataclass(frozen=True)
class Scene:
    """A case with its target and what its note says."""

    case: Case

    @property
    def note(self):
        return self.case.options["note"]

    @cached_property
    def inputs(self):
        return self.case.inputs

    @property
    def settings(self):
        return Case(FILE, "shared").options | self.case.options

    @property
    def target(self):
        if self.case.name.startswith("audio"):
            batch, channels, frames, bins = self.inputs["initial_latent"].shape
            return AudioTarget(
                shape=AudioLatentShape(batch=batch, channels=channels, frames=frames, bins=bins)
            )
        names = ("batch", "channels", "frames", "height", "width")
        size = self.settings["latent_shape"]
        shape = VideoLatentShape(**dict(zip(names, size, strict=True)))
        factors = ScaleFactors(*self.settings["scale_factors"])
        return VideoTarget(shape=shape, fps=self.settings["fps"], factors=factors)

    def number(self, pattern, default=None):
        """The number behind a pattern in the note."""
        found = re.search(rf"{pattern}[= ]*\(?([\d.]+\d|\d)", self.note)
        return float(found[1]) if found else default

    def numbers(self, pattern=""):
        """All numbers of the note from a pattern on."""
        return [
            float(n) for n in re.findall(r"\d+(?:\.\d+)?", self.note[self.note.find(pattern) :])
        ]

    def named(self, key):
        """The input that the note gives for a key."""
        (name,) = re.findall(rf"\b{key}=(\w+)", self.note)
        return self.inputs[name]

    @property
    def strength(self):
        return self.number("strength", 1.0)

    def expected_frame(self, appended_frame):
        """Pixel frame of the n-th latent frame behind the target, from the expected positions."""
        token = self.target.tokens + appended_frame * self.target.tokens_per_frame
        return round(self.case.out["positions"][0, 0, token, 0].item() * self.target.fps)

    def expected_strength(self, token):
        return 1 - self.case.out["denoise_mask"][0, token, 0].item()


def replacement(scene):
    index = int(scene.number("latent_idx"))
    return [
        LatentReplacement(latent=scene.named("latent"), latent_index=index, strength=scene.strength)
    ]


def keyframe(scene):
    index = int(scene.number("frame_idx"))
    return [Keyframe(latent=scene.named("keyframes"), frame_index=index, strength=scene.strength)]


def two_keyframes(scene):
    found = re.findall(r"(\w+) at (\d+) \(([\d.]+)\)", scene.note)
    return [
        Keyframe(latent=scene.inputs[name], frame_index=int(index), strength=float(strength))
        for name, index, strength in found
    ]


def reference(scene):
    return [
        ReferenceVideo(
            latent=scene.named("reference"),
            strength=scene.strength,
            downscale_factor=int(scene.number("downscale(?:_factor)?", 1)),
            temporal_scale=int(scene.number("temporal(?:_scale_factor)?", 1)),
        )
    ]


def half_reference(scene):
    return ReferenceVideo(latent=scene.inputs["ref_half"], downscale_factor=2)


def mask(scene):
    return [
        LatentMask(latent=scene.named("latent"), mask=scene.named("mask"), strength=scene.strength)
    ]


def attention_scalar(scene):
    item = ReferenceVideo(latent=scene.named("reference"))
    return [AttentionStrength(item, scene.number("attention strength"))]


def attention_tensor(scene):
    item = ReferenceVideo(latent=scene.named("reference"))
    return [AttentionStrength(item, scene.inputs["ref_attention"])]


def attention_two_references(scene):
    items = ReferenceVideo(latent=scene.inputs["ref_full"]), half_reference(scene)
    return [AttentionStrength(*pair) for pair in zip(items, scene.numbers(), strict=True)]


def attention_then_plain(scene):
    strength, frame_index = scene.numbers()
    return [
        AttentionStrength(ReferenceVideo(latent=scene.inputs["ref_full"]), strength),
        Keyframe(latent=scene.inputs["img"], frame_index=int(frame_index)),
    ]


def combination(scene):
    pinned = Keyframe(
        latent=scene.inputs["img2"],
        frame_index=scene.expected_frame(0),
        strength=scene.expected_strength(scene.target.tokens),
    )
    first = LatentReplacement(latent=scene.inputs["img"], strength=scene.expected_strength(0))
    return [first, pinned, half_reference(scene)]


def generated_slots(scene):
    return [GeneratedKeyframes(frame_indices=[int(n) for n in scene.numbers("pixel frames")])]


def seeded_slots(scene):
    latent = torch.cat((scene.inputs["img"], scene.inputs["img2"]), dim=2)
    return [
        Keyframe(latent=scene.inputs["img"], frame_index=scene.expected_frame(0)),
        GeneratedKeyframes(
            frame_indices=[scene.expected_frame(1), scene.expected_frame(2)], latent=latent
        ),
    ]


def attention_per_request(scene):
    strengths = torch.tensor(json.loads(scene.note[scene.note.index("[[") :]))
    frame_index = int(scene.number("frame"))
    item = Keyframe(latent=scene.inputs["keyframes"], frame_index=frame_index)
    return [AttentionStrength(item, strengths)]


def audio_reference(scene):
    inputs = scene.inputs
    return [
        ReferenceAudio(
            tokens=inputs["patchified"], positions=inputs["positions"], strength=scene.strength
        )
    ]


# The first pattern that matches a case's name counts.
ITEMS = {
    "*none": lambda _: [],
    "image_first_*": replacement,
    "*_idx*": replacement,
    "empty_initial_*": lambda scene: [LatentReplacement(latent=scene.inputs["img"])],
    "keyframe_two": two_keyframes,
    "keyframe_*": keyframe,
    "reference*": reference,
    "mask_*": mask,
    "*temporal_region": lambda scene: [TemporalRegion(*scene.numbers())],
    "attention_scalar": attention_scalar,
    "attention_tensor": attention_tensor,
    "attention_two_refs": attention_two_references,
    "attention_then_plain": attention_then_plain,
    "image_plus_*": combination,
    "generated_slots_seeded": seeded_slots,
    "generated_slots": generated_slots,
    "batch*_keyframe_attention": attention_per_request,
    "audio_reference": audio_reference,
}


def conditioned(scene):
    target, inputs = scene.target, scene.inputs
    latent = inputs.get("initial_latent")
    if latent is None or scene.case.name.startswith("empty_initial"):
        latent = torch.zeros(target.shape.to_tuple())
    state = target.initial_state(latent)
    items = next(make for pattern, make in ITEMS.items() if fnmatch(scene.case.name, pattern))
    for item in items(scene):
        state = item.apply(state, target)
    return state


def expecting(output):
    """Cases with an output of a name."""
    return [param for param in cases(FILE) if any(fnmatch(n, output) for n in param.values[0].out)]


def noised_states(case, state):
    """The state at each noise scale that the outputs are named after, smallest first."""
    scales = sorted(name.removeprefix("noised_scale") for name in case.out if "noised" in name)
    return {scale: add_noise(state, case.inputs["noise"], float(scale)) for scale in scales}


@pytest.mark.parametrize("case", expecting("denoise_mask"))
def test_conditioned_state(case):
    fields = {name: getattr(conditioned(Scene(case)), name) for name in FIELDS}
    present = {name: value for name, value in fields.items() if value is not None}
    expected = {name: tensor for name, tensor in case.out.items() if name in FIELDS}
    assert present.keys() == expected.keys()
    for name, tensor in expected.items():
        case.assert_close(present[name], tensor)


@pytest.mark.parametrize("case", expecting("noised_*"))
def test_noised_state(case):
    noised = noised_states(case, conditioned(Scene(case)))
    assert noised
    for scale, state in noised.items():
        case.assert_close(state.latent, f"noised_scale{scale}")


@pytest.mark.parametrize("case", expecting("cleared_unpatchified"))
def test_cleared_state(case):
    scene = Scene(case)
    state = conditioned(scene)
    state = next(iter(noised_states(case, state).values()), state)
    cleared = clear_conditioning(state, scene.target)
    case.assert_close(scene.target.unpatchify(cleared.latent), "cleared_unpatchified")
    if "cleared_mask" in case.out:
        case.assert_close(scene.target.unpatchify(cleared.denoise_mask), "cleared_mask")


@pytest.mark.parametrize("case", expecting("generated_keyframes"))
def test_generated_keyframes(case):
    scene = Scene(case)
    state = next(iter(noised_states(case, conditioned(scene)).values()))
    case.assert_close(generated_keyframes(state, scene.target), "generated_keyframes")


@pytest.mark.parametrize("case", cases(FILE, "empty_initial_*"))
def test_image_on_an_empty_latent(case):
    scene = Scene(case)
    noisy = add_noise(conditioned(scene), case.inputs["noise"], scene.number("noise_scale"))
    case.assert_close(noisy.latent, "latent")
