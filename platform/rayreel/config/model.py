"""Architecture of each network, as the ``config`` metadata of the published files declares it.

Defaults are what a reader must assume when a key is absent. Keys that select nothing but must have
one value are ``Literal`` fields: a file that says otherwise is a model unknown to this code.
"""

import math
from typing import Any, Literal

from pydantic import field_validator, model_validator

from rayreel.config.base import Architecture

AttentionBackend = Literal["auto", "flash3", "flash4", "flash2", "xformers", "sdpa"]
"""Attention kernels that a person can name; ``auto`` takes the first that serves a call."""


# A file has all of them, or it is of a network that makes video alone.
_AUDIO_VIDEO_KEYS = ("use_audio_video_cross_attention", "share_ff", "av_cross_ada_norm")


class TransformerConfig(Architecture):
    """Dual-stream transformer (``config.transformer``), generations 2.0 to 2.5.

    ``streams`` says which of them the network has. No file states it: without the keys of the
    exchange between streams it is the video stream alone, and ``audio_only`` makes the other half.
    """

    streams: Literal["both", "video", "audio"] = "both"
    num_layers: int = 48
    num_attention_heads: int = 32
    attention_head_dim: int = 128
    in_channels: int = 128
    out_channels: int = 128
    cross_attention_dim: int = 4096
    audio_num_attention_heads: int = 32
    audio_attention_head_dim: int = 64
    audio_in_channels: int = 128
    audio_out_channels: int = 128
    audio_cross_attention_dim: int = 2048
    norm_eps: float = 1e-6

    positional_embedding_theta: float = 10000.0
    positional_embedding_max_pos: tuple[float, ...] = (20, 2048, 2048)
    audio_positional_embedding_max_pos: tuple[float, ...] = (20,)
    rope_type: Literal["split", "interleaved"] = "split"
    frequencies_precision: str | bool = False
    timestep_scale_multiplier: float = 1000
    av_ca_timestep_scale_multiplier: float = 1

    apply_gated_attention: bool = False
    cross_attention_adaln: bool = False
    use_prompt_adaln_single: bool = True
    ff_bias: bool = True
    audio_ff_bias: bool = True
    use_keyframes_abs_pos_embedding: bool = False
    caption_proj_before_connector: bool = False
    caption_channels: int | None = None

    # Must have these values; a file without them is not of this family.
    dropout: Literal[0]
    attention_bias: Literal[True]
    num_vector_embeds: None = None
    activation_fn: Literal["gelu-approximate"]
    num_embeds_ada_norm: Literal[1000]
    use_linear_projection: Literal[False]
    only_cross_attention: Literal[False]
    cross_attention_norm: Literal[True]
    double_self_attention: Literal[False]
    upcast_attention: Literal[False]
    standardization_norm: Literal["rms_norm"]
    norm_elementwise_affine: Literal[False]
    qk_norm: Literal["rms_norm"]
    positional_embedding_type: Literal["rope"]
    use_middle_indices_grid: Literal[True]
    use_audio_video_cross_attention: Literal[True] | None = None
    share_ff: Literal[False] | None = None
    av_cross_ada_norm: Literal[True] | None = None

    @property
    def has_video(self) -> bool:
        """Whether the network has a video stream."""
        return self.streams != "audio"

    @property
    def has_audio(self) -> bool:
        """Whether the network has an audio stream."""
        return self.streams != "video"

    @property
    def has_exchange(self) -> bool:
        """Whether there are two streams that attend to each other."""
        return self.streams == "both"

    def audio_only(self) -> "TransformerConfig":
        """The network that the audio weights of an audio-video checkpoint make on their own.

        Raises:
            ValueError: If there is no audio stream.
        """
        if not self.has_audio:
            raise ValueError("a video-only transformer has no audio stream to keep")
        return self.model_copy(update={"streams": "audio"})

    @property
    def video_width(self) -> int:
        """Width of the video stream."""
        return self.num_attention_heads * self.attention_head_dim

    @property
    def audio_width(self) -> int:
        """Width of the audio stream."""
        return self.audio_num_attention_heads * self.audio_attention_head_dim

    @property
    def float64_frequencies(self) -> bool:
        """Whether the rotary frequency grid is formed in float64 before the cast to float32."""
        return self.frequencies_precision == "float64"

    @model_validator(mode="before")
    @classmethod
    def _video_without_exchange(cls, value: Any) -> Any:  # noqa: ANN401 - the file's JSON
        if isinstance(value, dict) and all(value.get(key) is None for key in _AUDIO_VIDEO_KEYS):
            return {"streams": "video", **value}
        return value

    @model_validator(mode="after")
    def _streams_fit(self) -> "TransformerConfig":
        missing = [key for key in _AUDIO_VIDEO_KEYS if getattr(self, key) is None]
        if missing and self.streams != "video":
            raise ValueError(
                f"an audio-video transformer states {', '.join(_AUDIO_VIDEO_KEYS)}; missing: "
                f"{', '.join(missing)} (a video-only transformer states none of them)"
            )
        if self.has_exchange and self.num_attention_heads != self.audio_num_attention_heads:
            raise ValueError(
                f"num_attention_heads={self.num_attention_heads} and audio_num_attention_heads="
                f"{self.audio_num_attention_heads} must be equal: the cross-modal tables are shared"
            )
        if not self.caption_proj_before_connector and self.caption_channels is None:
            raise ValueError(
                "caption_channels is required when caption_proj_before_connector is false"
            )
        return self


class ConnectorConfig(Architecture):
    """One text connector; built by ``TextConfig`` from the keys of ``config.transformer``."""

    num_attention_heads: int
    attention_head_dim: int
    num_layers: int
    max_pos: float
    num_registers: int = 128
    gated: bool = False
    ff_bias: bool = True
    rope_type: Literal["split", "interleaved"] = "split"
    float64_frequencies: bool = True
    norm_eps: float = 1e-6

    @property
    def width(self) -> int:
        """Width of the hidden states."""
        return self.num_attention_heads * self.attention_head_dim


class TextConfig(Architecture):
    """Feature extractor and connectors: the keys of ``config.transformer`` that concern text."""

    use_audio_video_cross_attention: bool | None = None

    connector_num_attention_heads: int = 30
    connector_attention_head_dim: int = 128
    connector_num_layers: int = 2
    audio_connector_num_attention_heads: int | None = None
    audio_connector_attention_head_dim: int | None = None
    audio_connector_num_layers: int | None = None
    connector_positional_embedding_max_pos: tuple[float, ...] = (1,)
    connector_apply_gated_attention: bool = False
    connector_ff_bias: bool = True
    rope_type: Literal["split", "interleaved"] = "split"
    frequencies_precision: str | bool = False

    caption_proj_before_connector: bool | None = None
    caption_projection_first_linear: bool | None = None
    caption_proj_input_norm: bool | None = None
    caption_projection_second_linear: bool | None = None

    @property
    def feature_version(self) -> Literal["v1", "v2"]:
        """Normalisation of the language model's hidden states: per layer (v1) or per token (v2)."""
        return "v1" if self.caption_proj_before_connector is None else "v2"

    @property
    def has_audio(self) -> bool:
        """Whether there is a connector of the audio stream; files of video-only networks have none.

        What such a file calls ``embeddings_connector`` is that of the video stream.
        """
        return self.use_audio_video_cross_attention is not None

    @property
    def video(self) -> ConnectorConfig:
        """Connector of the video stream."""
        return self._connector(
            self.connector_num_attention_heads,
            self.connector_attention_head_dim,
            self.connector_num_layers,
        )

    @property
    def audio(self) -> ConnectorConfig:
        """Connector of the audio stream; what it does not set, it takes from the video one."""
        return self._connector(
            self.audio_connector_num_attention_heads or self.connector_num_attention_heads,
            self.audio_connector_attention_head_dim or self.connector_attention_head_dim,
            self.audio_connector_num_layers or self.connector_num_layers,
        )

    def _connector(self, heads: int, head_dim: int, layers: int) -> ConnectorConfig:
        return ConnectorConfig(
            num_attention_heads=heads,
            attention_head_dim=head_dim,
            num_layers=layers,
            max_pos=self.connector_positional_embedding_max_pos[0],
            gated=self.connector_apply_gated_attention,
            ff_bias=self.connector_ff_bias,
            rope_type=self.rope_type,
            float64_frequencies=self.frequencies_precision == "float64",
        )

    @model_validator(mode="after")
    def _known_feature_version(self) -> "TextConfig":
        keys = (
            self.caption_proj_before_connector,
            self.caption_projection_first_linear,
            self.caption_proj_input_norm,
            self.caption_projection_second_linear,
        )
        if keys not in {(None,) * 4, (True, False, False, False)}:
            raise ValueError(
                "unknown feature extractor: caption_proj_before_connector, "
                "caption_projection_first_linear, caption_proj_input_norm and "
                "caption_projection_second_linear must all be absent (2.0) or "
                f"(true, false, false, false) (2.3 and later), not {keys}"
            )
        return self


class VideoVAEBlock(Architecture):
    """One entry of a VAE block list: ``[name, params]`` in the file."""

    name: str
    num_layers: int = 1
    multiplier: int | None = None
    residual: bool = False
    inject_noise: bool = False


class VideoVAEConfig(Architecture):
    """Convolutional video VAE (``config.vae``)."""

    in_channels: int = 3
    out_channels: int = 3
    dims: Literal[3] = 3
    latent_channels: int = 128
    encoder_blocks: tuple[VideoVAEBlock, ...] = ()
    decoder_blocks: tuple[VideoVAEBlock, ...] = ()
    patch_size: int = 4
    norm_layer: Literal["pixel_norm", "group_norm"] = "pixel_norm"
    latent_log_var: Literal["uniform", "per_channel", "constant"] = "uniform"
    causal_decoder: bool = False
    timestep_conditioning: bool = True
    spatial_padding_mode: Literal["zeros", "reflect"] | None = None
    encoder_spatial_padding_mode: Literal["zeros", "reflect"] = "zeros"
    decoder_spatial_padding_mode: Literal["zeros", "reflect"] = "reflect"
    decoder_base_channels: int = 128

    @field_validator("encoder_blocks", "decoder_blocks", mode="before")
    @classmethod
    def _named_blocks(cls, value: Any) -> Any:  # noqa: ANN401 - whatever the file's JSON holds
        def block(entry: Any) -> Any:  # noqa: ANN401 - as above
            match entry:
                case [name, int(layers)]:
                    return {"name": name, "num_layers": layers}
                case [name, dict(params)]:
                    return {"name": name, **params}
                case _:
                    return entry

        return [block(entry) for entry in value] if isinstance(value, list | tuple) else value

    @property
    def encoder_padding(self) -> Literal["zeros", "reflect"]:
        """Spatial padding of the encoder's convolutions."""
        return self.spatial_padding_mode or self.encoder_spatial_padding_mode

    @property
    def decoder_padding(self) -> Literal["zeros", "reflect"]:
        """Spatial padding of the decoder's convolutions."""
        return self.spatial_padding_mode or self.decoder_spatial_padding_mode

    @property
    def time_factor(self) -> int:
        """Pixel frames per latent frame (after the first)."""
        return 1 << self._count("compress_time", "compress_all") if self._blocks else 8

    @property
    def space_factor(self) -> int:
        """Pixels per latent position, along height and along width."""
        if not self._blocks:
            return 32
        return self.patch_size << self._count("compress_space", "compress_all")

    @property
    def _blocks(self) -> tuple[VideoVAEBlock, ...]:
        return self.encoder_blocks or self.decoder_blocks

    def _count(self, *prefixes: str) -> int:
        return sum(block.name.startswith(prefixes) for block in self._blocks)


class AudioNetworkConfig(Architecture):
    """Convolutional encoder and decoder of the audio VAE (``model.params.ddconfig``)."""

    z_channels: int = 8
    mel_bins: int | None = None
    in_channels: int = 2
    out_ch: int = 2
    ch: int = 128
    ch_mult: tuple[int, ...] = (1, 2, 4)
    num_res_blocks: int = 2
    resolution: int = 256
    attn_resolutions: tuple[int, ...] = (8, 16, 32)
    mid_block_add_attention: bool = True
    double_z: bool = True
    norm_type: Literal["pixel"] = "pixel"
    causality_axis: Literal["height", "width", "none"] = "height"


class STFTConfig(Architecture):
    """Short-time Fourier transform of the mel front end (``preprocessing.stft``)."""

    filter_length: int = 1024
    hop_length: int = 160
    win_length: int = 1024
    causal: bool = True


class MelConfig(Architecture):
    """Mel filters of the front end (``preprocessing.mel``)."""

    n_mel_channels: int = 64
    mel_fmin: float = 0
    mel_fmax: float = 8000


class AudioVAEConfig(Architecture):
    """Audio VAE and its mel front end (``config.audio_vae``, nested as in the file)."""

    class Model(Architecture):
        """``model``."""

        class Params(Architecture):
            """``model.params``."""

            ddconfig: AudioNetworkConfig
            sampling_rate: int = 16000

        params: Params

    class Preprocessing(Architecture):
        """``preprocessing``."""

        stft: STFTConfig = STFTConfig()
        mel: MelConfig = MelConfig()

    model: Model
    preprocessing: Preprocessing = Preprocessing()

    @property
    def network(self) -> AudioNetworkConfig:
        """Architecture of encoder and decoder."""
        return self.model.params.ddconfig

    @property
    def sample_rate_hz(self) -> int:
        """Rate of the waveform that the mel front end takes."""
        return self.model.params.sampling_rate

    @property
    def mel_bins(self) -> int:
        """Rows of a mel spectrogram."""
        return self.network.mel_bins or self.preprocessing.mel.n_mel_channels

    @property
    def downsample(self) -> int:
        """Mel frames per latent frame, and mel bins per latent bin."""
        return 1 << len(self.network.ch_mult) - 1

    @property
    def latent_bins(self) -> int:
        """Frequency bins of a latent."""
        return math.ceil(self.mel_bins / self.downsample)

    @property
    def latents_per_second(self) -> float:
        """Latent frames per second."""
        return self.sample_rate_hz / self.preprocessing.stft.hop_length / self.downsample


class VocoderConfig(Architecture):
    """Mel to waveform (``config.vocoder``): HiFi-GAN; from 2.3 on AMP with bandwidth extension."""

    class Generator(Architecture):
        """One generator; the defaults are the 2.0 network."""

        resblock: Literal["1", "AMP1"] = "1"
        upsample_initial_channel: int = 1024
        upsample_rates: tuple[int, ...] = (6, 5, 2, 2, 2)
        upsample_kernel_sizes: tuple[int, ...] = (16, 15, 8, 4, 4)
        resblock_kernel_sizes: tuple[int, ...] = (3, 7, 11)
        resblock_dilation_sizes: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
        activation: Literal["snake", "snakebeta"] = "snake"
        use_tanh_at_final: bool = True
        use_bias_at_final: bool = True
        stereo: Literal[True] = True
        output_sampling_rate: int = 24000

    class BandwidthExtension(Generator):
        """The second generator, with the mel analysis that feeds it."""

        input_sampling_rate: int = 16000
        hop_length: int = 80
        n_fft: int = 512
        win_size: int = 512
        num_mels: int = 64

    generator: Generator
    bwe: BandwidthExtension | None = None

    @model_validator(mode="before")
    @classmethod
    def _flat_or_nested(cls, value: Any) -> Any:  # noqa: ANN401 - whatever the file's JSON holds
        if not isinstance(value, dict) or "generator" in value:
            return value
        if "bwe" in value:
            return {"generator": value.get("vocoder", {}), "bwe": value["bwe"]}
        return {"generator": value}

    @property
    def sample_rate_hz(self) -> int:
        """Rate of the waveform that comes out."""
        return (self.bwe or self.generator).output_sampling_rate


class UpsamplerConfig(Architecture):
    """Latent upsampler (the flat ``config`` of its own file)."""

    in_channels: int = 128
    mid_channels: int = 512
    num_blocks_per_stage: int = 4
    dims: Literal[3] = 3
    spatial_upsample: bool = True
    temporal_upsample: bool = False
    spatial_scale: float = 2.0
    rational_resampler: bool = False
