"""From latents to a clip: the last step of every pipeline."""

import torch

from rayreel.config.request import RenderRequest
from rayreel.models.tiling import TileSizeConfig
from rayreel.models.video_vae import gaussian, tiled_decode, to_rgb
from rayreel.models.vocoder import decode_audio
from rayreel.pipelines.components import Components
from rayreel.types import Audio, Clip, Latents, seeded_generator


@torch.inference_mode()
def decode(components: Components, request: RenderRequest, latents: Latents) -> Clip:
    """Decode one clip to frames and sound."""
    assert latents.video is not None, "every pipeline makes a picture"
    video = latents.video[None].to(components.device, components.dtype)
    chunks = tiled_decode(
        components.video_decoder,
        video,
        TileSizeConfig.from_long_side(
            request.height, request.width, factor=components.files.factors.height
        ),
        noise=gaussian(seeded_generator(request.seed or 0, "video/decode")),
    )
    frames = torch.cat([to_rgb(chunk)[0].cpu() for chunk in chunks])
    audio = None
    if latents.audio is not None:
        latent = latents.audio[None].to(components.device, components.dtype)
        waveform = decode_audio(components.audio_decoder, components.vocoder, latent)[0].cpu()
        audio = Audio(waveform=waveform, sample_rate_hz=components.vocoder.sample_rate_hz)
    return Clip(frames=frames, fps=request.fps, audio=audio)
