"""How LoRA files of different origins name their tensors: all spellings in one place.

A name is a prefix, the path of a module and the part of the adapter that the tensor is.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Literal

Part = Literal["down", "up", "alpha"]

# Taken off in this order, each once: PEFT puts its own before that of the model.
_PREFIXES = ("base_model.model.", "model.diffusion_model.", "diffusion_model.", "transformer.")

_PARTS: tuple[tuple[str, Part], ...] = (
    (".lora_A.weight", "down"),
    (".lora_B.weight", "up"),
    (".lora_A.default.weight", "down"),
    (".lora_B.default.weight", "up"),
    (".lora_down.weight", "down"),
    (".lora_up.weight", "up"),
    (".lora.down.weight", "down"),
    (".lora.up.weight", "up"),
    (".alpha", "alpha"),
)

# Tensors of adapters that are more than the product of two matrices.
_OTHER_KINDS = {
    ".dora_scale": "DoRA",
    ".lora_magnitude_vector": "DoRA",
    ".lora_mid.": "a Tucker decomposition",
    ".hada_": "LoHa",
    ".lokr_": "LoKr",
}

# kohya's trainers join the path with underscores.
_JOINED = "lora_unet_"

# Parts of paths that diffusers has renamed, by the name in the official files.
_DIFFUSERS = {
    "patchify_proj": "proj_in",
    "audio_patchify_proj": "audio_proj_in",
    "adaln_single": "time_embed",
    "audio_adaln_single": "audio_time_embed",
    "prompt_adaln_single": "prompt_adaln",
    "audio_prompt_adaln_single": "audio_prompt_adaln",
    "av_ca_video_scale_shift_adaln_single": "av_cross_attn_video_scale_shift",
    "av_ca_a2v_gate_adaln_single": "av_cross_attn_video_a2v_gate",
    "av_ca_audio_scale_shift_adaln_single": "av_cross_attn_audio_scale_shift",
    "av_ca_v2a_gate_adaln_single": "av_cross_attn_audio_v2a_gate",
    "q_norm": "norm_q",
    "k_norm": "norm_k",
}


def split(name: str) -> tuple[str, Part] | None:
    """Path of the module, without prefix, and part; ``None`` for other tensors."""
    for end, part in _PARTS:
        if name.endswith(end):
            module = name.removesuffix(end)
            for prefix in _PREFIXES:
                module = module.removeprefix(prefix)
            return module, part
    return None


def other_kind(name: str) -> str | None:
    """Kind of adapter that a tensor belongs to, if it is one that is not supported."""
    return next((kind for mark, kind in _OTHER_KINDS.items() if mark in name), None)


def spellings(weights: Iterable[str]) -> dict[str, set[str]]:
    """Weights of a model by every path under which ``split`` may give their module.

    Args:
        weights: Names; those that end with ``.weight`` count.

    Returns:
        Mostly one weight for each path. Joined with underscores, paths can mean several.
    """
    found = defaultdict[str, set[str]](set)
    for name in weights:
        if not name.endswith(".weight"):
            continue
        path = name.removesuffix(".weight")
        renamed = ".".join(_DIFFUSERS.get(part, part) for part in path.split("."))
        for spelling in (path, renamed):
            found[spelling].add(name)
            found[_JOINED + spelling.replace(".", "_")].add(name)
    return found
