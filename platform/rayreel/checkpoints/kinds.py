"""What a weight file is for, told from its metadata and the names of its tensors."""

from typing import Literal

from rayreel.checkpoints import keys, lora_names
from rayreel.checkpoints.reader import WeightFile

Kind = Literal[
    "transformer", "text_projection", "video_vae", "audio_vae", "vocoder", "upsampler", "lora"
]
"""What a file can bring to a model; named like the fields of the model spec."""

# A component counts where its config section and its tensors are there: sections of others may
# have been left in a component's file.
_COMPONENTS: dict[Kind, tuple[str, keys.Rules]] = {
    "transformer": ("transformer", keys.TRANSFORMER),
    "video_vae": ("vae", keys.VIDEO_DECODER),
    "audio_vae": ("audio_vae", keys.AUDIO_DECODER),
    "vocoder": ("vocoder", keys.VOCODER),
}


def kinds(file: WeightFile) -> set[Kind]:
    """What a file brings; a checkpoint brings several components, a foreign file none."""
    if any(map(_is_of_adapter, file.names)):
        return {"lora"}
    if "mid_channels" in file.config:
        return {"upsampler"}
    found: set[Kind] = {
        kind
        for kind, (section, rules) in _COMPONENTS.items()
        if file.config.get(section) and any(keys.rename(name, rules) for name in file.names)
    }
    if any(name.startswith("text_embedding_projection.") for name in file.names):
        found.add("text_projection")
    return found


def _is_of_adapter(name: str) -> bool:
    found = lora_names.split(name)
    # Other networks have parameters that are called alpha.
    return bool(lora_names.other_kind(name)) or (found is not None and found[1] != "alpha")


def is_packed_text_encoder(file: WeightFile) -> bool:
    """Whether a file holds a language model with its configuration and tokenizer."""
    return "gemma_config" in file.metadata
