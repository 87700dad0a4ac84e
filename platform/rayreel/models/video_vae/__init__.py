"""Video VAE: convolutional encoder and decoder, whole or in tiles."""

from rayreel.models.video_vae.decoder import VideoDecoder, to_rgb
from rayreel.models.video_vae.encoder import VideoEncoder
from rayreel.models.video_vae.ops import NoiseSource, gaussian
from rayreel.models.video_vae.tiled import tiled_decode, tiled_encode

__all__ = [
    "NoiseSource",
    "VideoDecoder",
    "VideoEncoder",
    "gaussian",
    "tiled_decode",
    "tiled_encode",
    "to_rgb",
]
