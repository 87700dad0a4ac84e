"""Networks of the published configurations, on the meta device."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import nn

from rayreel.config.model import (
    AudioVAEConfig,
    TextConfig,
    TransformerConfig,
    UpsamplerConfig,
    VideoVAEConfig,
    VocoderConfig,
)
from rayreel.models.audio_vae import AudioDecoder, AudioEncoder
from rayreel.models.text.connector import Connector
from rayreel.models.text.features import FeatureExtractor
from rayreel.models.transformer import Transformer
from rayreel.models.upsampler import LatentUpsampler
from rayreel.models.video_vae import VideoDecoder, VideoEncoder
from rayreel.models.vocoder import make_vocoder
from tests.official import HIDDEN_SIZE, NUM_HIDDEN_STATES, OFFICIAL

Shapes = dict[str, tuple[int, ...]]


def _text_projection(config: Any) -> nn.Module:
    return FeatureExtractor(
        TextConfig.model_validate(config),
        hidden_size=HIDDEN_SIZE,
        num_hidden_states=NUM_HIDDEN_STATES,
    )


# Section of the configuration, and what it makes.
NETWORKS: dict[str, tuple[str, Callable[[Any], nn.Module]]] = {
    "transformer": ("transformer", lambda c: Transformer(TransformerConfig.model_validate(c))),
    "video connector": ("transformer", lambda c: Connector(TextConfig.model_validate(c).video)),
    "audio connector": ("transformer", lambda c: Connector(TextConfig.model_validate(c).audio)),
    "text projection": ("transformer", _text_projection),
    "video encoder": ("vae", lambda c: VideoEncoder(VideoVAEConfig.model_validate(c))),
    "video decoder": ("vae", lambda c: VideoDecoder(VideoVAEConfig.model_validate(c))),
    "audio encoder": ("audio_vae", lambda c: AudioEncoder(AudioVAEConfig.model_validate(c))),
    "audio decoder": ("audio_vae", lambda c: AudioDecoder(AudioVAEConfig.model_validate(c))),
    "vocoder": ("vocoder", lambda c: make_vocoder(VocoderConfig.model_validate(c))),
}


@cache
def shapes(generation: str, network: str) -> Shapes:
    """Shapes of a network's tensors by name.

    Args:
        generation: Key of ``OFFICIAL``.
        network: Key of ``NETWORKS``, or one of the generation's upsamplers.
    """
    official = OFFICIAL[generation]
    with torch.device("meta"):
        if network in NETWORKS:
            section, make = NETWORKS[network]
            model = make(official[section])
        else:
            config = UpsamplerConfig.model_validate(official["upsamplers"][network])
            model = LatentUpsampler(config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
