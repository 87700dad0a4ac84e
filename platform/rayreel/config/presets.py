"""Named values: sampling defaults of each generation, and the tiny model's architecture."""

from typing import Any

from pydantic import Field

from rayreel.config.base import StrictModel
from rayreel.config.sampling import Guidance


class SamplingDefaults(StrictModel):
    """What a request leaves open, by generation of the checkpoint."""

    steps: int = Field(description="model evaluations of a guided stage")
    stg_block: int = Field(description="block that spatio-temporal guidance perturbs")
    image_crf: int = Field(description="re-compression of conditioning images")


# Newest first: the first row whose version is not above the checkpoint's holds.
_DEFAULTS: tuple[tuple[tuple[int, ...], SamplingDefaults], ...] = (
    ((2, 4), SamplingDefaults(steps=30, stg_block=28, image_crf=18)),
    ((2, 3), SamplingDefaults(steps=30, stg_block=28, image_crf=33)),
    ((), SamplingDefaults(steps=40, stg_block=29, image_crf=33)),
)


def sampling_defaults(model_version: tuple[int, ...]) -> SamplingDefaults:
    """Defaults for a checkpoint; one without a version counts as 2.0."""
    return next(row for version, row in _DEFAULTS if version <= model_version)


def default_guidance(stg_block: int) -> tuple[Guidance, Guidance]:
    """Guidance of video and audio where a request says nothing.

    Args:
        stg_block: Block that spatio-temporal guidance perturbs.
    """
    video = Guidance(
        cfg_scale=3.0,
        stg_scale=1.0,
        stg_blocks=(stg_block,),
        rescale_scale=0.7,
        modality_scale=3.0,
        skip_step=0,
    )
    return video, video.model_copy(update={"cfg_scale": 7.0})


_FIXED: dict[str, Any] = {
    "dropout": 0.0,
    "attention_bias": True,
    "num_vector_embeds": None,
    "activation_fn": "gelu-approximate",
    "num_embeds_ada_norm": 1000,
    "use_linear_projection": False,
    "only_cross_attention": False,
    "cross_attention_norm": True,
    "double_self_attention": False,
    "upcast_attention": False,
    "standardization_norm": "rms_norm",
    "norm_elementwise_affine": False,
    "qk_norm": "rms_norm",
    "positional_embedding_type": "rope",
    "use_middle_indices_grid": True,
    "use_audio_video_cross_attention": True,
    "share_ff": False,
    "av_cross_ada_norm": True,
}

# The 2.0 architecture with every width cut down: the same keys, blocks and factors as the published
# file, some megabytes instead of 40 GB.
TINY_CONFIG: dict[str, Any] = {
    "transformer": {
        "_class_name": "AVTransformer3DModel",
        **_FIXED,
        "num_layers": 4,
        "num_attention_heads": 4,
        "attention_head_dim": 32,
        "in_channels": 16,
        "out_channels": 16,
        "cross_attention_dim": 128,
        "audio_num_attention_heads": 4,
        "audio_attention_head_dim": 16,
        "audio_in_channels": 32,
        "audio_out_channels": 32,
        "audio_cross_attention_dim": 64,
        "caption_channels": 64,
        "positional_embedding_theta": 10000.0,
        "positional_embedding_max_pos": [20, 2048, 2048],
        "audio_positional_embedding_max_pos": [20],
        "timestep_scale_multiplier": 1000,
        "av_ca_timestep_scale_multiplier": 1000.0,
        "norm_eps": 1e-6,
        "rope_type": "split",
        "frequencies_precision": "float64",
        "connector_num_attention_heads": 4,
        "connector_attention_head_dim": 16,
        "connector_num_layers": 2,
        "connector_positional_embedding_max_pos": [4096],
        "connector_num_learnable_registers": 128,
    },
    "vae": {
        "_class_name": "CausalVideoAutoencoder",
        "dims": 3,
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": 16,
        "patch_size": 4,
        "norm_layer": "pixel_norm",
        "latent_log_var": "uniform",
        "causal_decoder": False,
        "timestep_conditioning": False,
        "decoder_base_channels": 8,
        "encoder_blocks": [
            ["res_x", {"num_layers": 1}],
            ["compress_space_res", {"multiplier": 2}],
            ["res_x", {"num_layers": 1}],
            ["compress_time_res", {"multiplier": 2}],
            ["res_x", {"num_layers": 1}],
            ["compress_all_res", {"multiplier": 1}],
            ["res_x", {"num_layers": 1}],
            ["compress_all_res", {"multiplier": 1}],
            ["res_x", {"num_layers": 1}],
        ],
        "decoder_blocks": [
            ["res_x", {"num_layers": 1, "inject_noise": False}],
            ["compress_all", {"residual": True, "multiplier": 2}],
            ["res_x", {"num_layers": 1, "inject_noise": False}],
            ["compress_all", {"residual": True, "multiplier": 2}],
            ["res_x", {"num_layers": 1, "inject_noise": False}],
            ["compress_all", {"residual": True, "multiplier": 2}],
            ["res_x", {"num_layers": 1, "inject_noise": False}],
        ],
    },
    "audio_vae": {
        "model": {
            "params": {
                "ddconfig": {
                    "double_z": True,
                    "mel_bins": 64,
                    "z_channels": 2,
                    "resolution": 256,
                    "in_channels": 2,
                    "out_ch": 2,
                    "ch": 32,
                    "ch_mult": [1, 2, 2],
                    "num_res_blocks": 1,
                    "attn_resolutions": [],
                    "mid_block_add_attention": False,
                    "norm_type": "pixel",
                    "causality_axis": "height",
                },
                "sampling_rate": 16000,
            }
        },
        "preprocessing": {
            "stft": {"filter_length": 1024, "hop_length": 160, "win_length": 1024, "causal": True},
            "mel": {"n_mel_channels": 64, "mel_fmin": 0, "mel_fmax": 8000},
        },
    },
    "vocoder": {
        "resblock": "1",
        "upsample_initial_channel": 64,
        "upsample_rates": [6, 5, 2, 2, 2],
        "upsample_kernel_sizes": [16, 15, 8, 4, 4],
        "resblock_kernel_sizes": [3, 7, 11],
        "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
        "stereo": True,
        "output_sampling_rate": 24000,
    },
}

TINY_UPSAMPLER_CONFIG: dict[str, Any] = {
    "_class_name": "LatentUpsampler",
    "in_channels": 16,
    "mid_channels": 32,
    "num_blocks_per_stage": 1,
    "dims": 3,
    "spatial_upsample": True,
    "temporal_upsample": False,
    "spatial_scale": 2.0,
    "rational_resampler": True,
}

# The same cut of the 2.3 architecture: gated attention, modulated text, one projection and a wider
# connector for each stream, other blocks and borders of the VAE, a vocoder in two parts.
_AMP: dict[str, Any] = {
    "resblock": "AMP1",
    "activation": "snakebeta",
    "use_tanh_at_final": False,
    "use_bias_at_final": False,
    "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
    "stereo": True,
}
TINY_CONFIG_2_3: dict[str, Any] = {
    **TINY_CONFIG,
    "transformer": {
        **TINY_CONFIG["transformer"],
        "apply_gated_attention": True,
        "cross_attention_adaln": True,
        "caption_proj_before_connector": True,
        "caption_projection_first_linear": False,
        "caption_proj_input_norm": False,
        "caption_projection_second_linear": False,
        "connector_num_attention_heads": 4,
        "connector_attention_head_dim": 32,
        "audio_connector_num_attention_heads": 4,
        "audio_connector_attention_head_dim": 16,
        "connector_apply_gated_attention": True,
    },
    "vae": {
        **TINY_CONFIG["vae"],
        "spatial_padding_mode": "zeros",
        "decoder_blocks": [
            ["res_x", {"num_layers": 1}],
            ["compress_space", {"multiplier": 2}],
            ["res_x", {"num_layers": 1}],
            ["compress_time", {"multiplier": 2}],
            ["res_x", {"num_layers": 1}],
            ["compress_all", {"multiplier": 1}],
            ["res_x", {"num_layers": 1}],
            ["compress_all", {"multiplier": 2}],
            ["res_x", {"num_layers": 1}],
        ],
    },
    "vocoder": {
        "vocoder": {
            **_AMP,
            "upsample_initial_channel": 64,
            "upsample_rates": [5, 2, 2, 2, 2, 2],
            "upsample_kernel_sizes": [11, 4, 4, 4, 4, 4],
            "output_sampling_rate": 16000,
        },
        "bwe": {
            **_AMP,
            "upsample_initial_channel": 32,
            "upsample_rates": [6, 5, 2, 2, 2],
            "upsample_kernel_sizes": [12, 11, 4, 4, 4],
            "input_sampling_rate": 16000,
            "output_sampling_rate": 48000,
            "hop_length": 80,
            "n_fft": 512,
            "win_size": 512,
            "num_mels": 64,
        },
    },
}

TINY_UPSAMPLER_CONFIG_2_3: dict[str, Any] = {**TINY_UPSAMPLER_CONFIG, "rational_resampler": False}
