"""Where each component's weights lie in the official files: one ordered table per component.

A rule maps the start of a tensor's name in the file to the start of a parameter's name in the
module. The first rule that fits wins, ``None`` drops the tensor, and a tensor that no rule fits
belongs to another component. Component files of later generations lack some prefixes, so several
rules may lead to one parameter; files are written with the first of them.
"""

from torch import Tensor

from rayreel.checkpoints.reader import WeightFile
from rayreel.errors import CheckpointError

Rules = tuple[tuple[str, str | None], ...]

_DIT = "model.diffusion_model."
_VIDEO_CONNECTOR = f"{_DIT}video_embeddings_connector."
_AUDIO_CONNECTOR = f"{_DIT}audio_embeddings_connector."
# The video connector of a model without an audio stream.
_ONLY_CONNECTOR = f"{_DIT}embeddings_connector."


def _statistics(*prefixes: str) -> Rules:
    # The files keep further moments beside these two, which nothing reads.
    return tuple(
        (f"{prefix}per_channel_statistics.{name}", f"per_channel_statistics.{name}")
        for prefix in prefixes
        for name in ("mean-of-means", "std-of-means")
    )


TRANSFORMER: Rules = (
    (_VIDEO_CONNECTOR, None),
    (_AUDIO_CONNECTOR, None),
    (_ONLY_CONNECTOR, None),
    (_DIT, ""),
)
FEATURES: Rules = (("text_embedding_projection.", ""),)
CONNECTORS: Rules = (
    (_VIDEO_CONNECTOR, "video_connector."),
    (_AUDIO_CONNECTOR, "audio_connector."),
    (_ONLY_CONNECTOR, "video_connector."),
)
TEXT: Rules = (("text_embedding_projection.", "feature_extractor."), *CONNECTORS)
# A text encoder's file may project for an audio stream that the model has not.
_NO_AUDIO_FEATURES: Rules = (("text_embedding_projection.audio_aggregate_embed.", None),)
VIDEO_FEATURES: Rules = (*_NO_AUDIO_FEATURES, *FEATURES)
VIDEO_TEXT: Rules = (*_NO_AUDIO_FEATURES, *TEXT)
VIDEO_ENCODER: Rules = (("vae.encoder.", ""), ("encoder.", ""), *_statistics("vae.", ""))
VIDEO_DECODER: Rules = (("vae.decoder.", ""), ("decoder.", ""), *_statistics("vae.", ""))
VIDEO_STATISTICS: Rules = tuple(
    (old, new.removeprefix("per_channel_statistics."))
    for old, new in _statistics("vae.", "")
    if new
)
AUDIO_ENCODER: Rules = (("audio_vae.encoder.", ""), *_statistics("audio_vae."))
AUDIO_DECODER: Rules = (("audio_vae.decoder.", ""), *_statistics("audio_vae."))
VOCODER: Rules = (("vocoder.", ""),)
UPSAMPLER: Rules = (("", ""),)
LANGUAGE_MODEL: Rules = (("language_model.model.", ""),)

COMPONENTS: dict[str, Rules] = {
    "transformer": TRANSFORMER,
    "text projection and connectors": TEXT,
    "video encoder": VIDEO_ENCODER,
    "video decoder": VIDEO_DECODER,
    "audio encoder": AUDIO_ENCODER,
    "audio decoder": AUDIO_DECODER,
    "vocoder": VOCODER,
}


def rename(name: str, rules: Rules) -> str | None:
    """Parameter name for a tensor name, or ``None`` where the tensor is not of this component."""
    for old, new in rules:
        if name.startswith(old):
            return None if new is None else new + name[len(old) :]
    return None


def file_name(name: str, rules: Rules) -> str:
    """Inverse of ``rename``: the tensor name under which a file keeps a parameter."""
    old, new = max(
        ((old, new) for old, new in rules if new is not None and name.startswith(new)),
        key=lambda rule: len(rule[1]),
    )
    return old + name[len(new) :]


def component_names(file: WeightFile, rules: Rules) -> dict[str, str]:
    """Tensor names of one component in a file, by parameter name.

    Raises:
        CheckpointError: If the file holds none of them.
    """
    names = {renamed: name for name in file.names if (renamed := rename(name, rules)) is not None}
    if not names:
        wanted = ", ".join(f"{old}*" for old, new in rules if new is not None)
        raise CheckpointError(f"{file.path} holds no tensors named {wanted}")
    return names


def component_tensors(file: WeightFile, rules: Rules) -> dict[str, Tensor]:
    """Weights of one component, memory-mapped, by parameter name; raises ``CheckpointError``."""
    return {new: file.tensor(old) for new, old in component_names(file, rules).items()}
