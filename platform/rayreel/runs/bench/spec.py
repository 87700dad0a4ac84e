"""What a benchmark compares: one entry per comparison, each of a known kind."""

from typing import Annotated, Literal

from pydantic import Field

from rayreel.config.base import StrictModel

Generation = Literal["2.0", "2.3"]


class LoadCase(StrictModel):
    """Our reader and builder against ``torch.load`` of a copy of the same tensors."""

    type: Literal["load"]
    width: int = Field(description="of the transformer that is loaded")
    layers: int = Field(description="its blocks; 11 of width 1024 are 1.1 GB")


class TransformerCase(StrictModel):
    """One forward pass of the 2.0 transformer."""

    type: Literal["transformer"]
    width: int = Field(description="of the video stream; the audio stream is half as wide")
    layers: int
    frames: int = Field(description="latent frames of 6 x 8 positions, a video token each")
    audio_tokens: int
    text_tokens: int


class VideoDecoderCase(StrictModel):
    """Decoding of one latent with the published blocks."""

    type: Literal["video_decoder"]
    generation: Generation
    base_channels: int = Field(description="of the last block; 128 in the published files")
    frames: int = Field(description="of the latent")
    height: int = Field(description="of the latent")
    width: int = Field(description="of the latent")


class VocoderCase(StrictModel):
    """Generation of a waveform with the published layers."""

    type: Literal["vocoder"]
    generation: Generation
    channels: int = Field(description="of the first layer; published: 1024 (2.0), 1536 (2.3)")
    frames: int = Field(description="of the mel spectrogram; 100 are one second")


class DecodeMemoryCase(StrictModel):
    """Peak memory of a decode in tiles and of one without, each in a process of its own."""

    type: Literal["decode_memory"]
    base_channels: int
    video_frames: tuple[int, ...] = Field(description="8k + 1 each")
    height: int = Field(description="of the latent")
    width: int = Field(description="of the latent")


class RenderMemoryCase(StrictModel):
    """Memory of a process that renders again and again."""

    type: Literal["render_memory"]
    renders: int
    warm_up: int = Field(description="renders before memory counts")


class _ClipsCase(StrictModel):
    """Clips of the tiny model, from prompts to files, with classifier-free guidance alone."""

    width: int
    height: int
    frames: int = Field(description="8k + 1")
    steps: int
    clips: int = Field(description="in one call, of a prompt each")


class DiffusersLoopCase(_ClipsCase):
    """Our pipeline against a loop over diffusers' pipeline with the same weights."""

    type: Literal["diffusers_loop"]


class ResidentCase(_ClipsCase):
    """Networks that stay in memory against networks that are built for each call."""

    type: Literal["resident"]


Case = Annotated[
    LoadCase
    | TransformerCase
    | VideoDecoderCase
    | VocoderCase
    | DecodeMemoryCase
    | RenderMemoryCase
    | DiffusersLoopCase
    | ResidentCase,
    Field(discriminator="type"),
]


class BenchSpec(StrictModel):
    """Comparisons to make, in order."""

    seconds: float = Field(
        default=6.0, description="for the calls of one comparison; at least two of each are made"
    )
    cases: tuple[Case, ...]
