"""The configurations that the published files state, as far as they are known, by generation.

Sections are named as in the metadata; 2.5 files hold one section each, here they are together.
Upsamplers have files, and flat configurations, of their own.
"""

from typing import Any

JSON = dict[str, Any]


def _block(name: str, **params: Any) -> list[Any]:
    return [name, params]


def _res(num_layers: int) -> list[Any]:
    return _block("res_x", num_layers=num_layers)


def _transformer(**changes: Any) -> JSON:
    return {
        "_class_name": "AVTransformer3DModel",
        "num_layers": 48,
        "num_attention_heads": 32,
        "attention_head_dim": 128,
        "in_channels": 128,
        "out_channels": 128,
        "cross_attention_dim": 4096,
        "audio_num_attention_heads": 32,
        "audio_attention_head_dim": 64,
        "audio_out_channels": 128,
        "audio_cross_attention_dim": 2048,
        "norm_eps": 1e-6,
        "positional_embedding_type": "rope",
        "positional_embedding_theta": 10000.0,
        "positional_embedding_max_pos": [20, 2048, 2048],
        "audio_positional_embedding_max_pos": [20],
        "timestep_scale_multiplier": 1000,
        "av_ca_timestep_scale_multiplier": 1000.0,
        "use_middle_indices_grid": True,
        "causal_temporal_positioning": True,
        "rope_type": "split",
        "frequencies_precision": "float64",
        "caption_channels": 3840,
        "connector_attention_head_dim": 128,
        "connector_positional_embedding_max_pos": [4096],
        "connector_num_learnable_registers": 128,
        "use_embeddings_connector": True,
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
        "use_audio_video_cross_attention": True,
        "share_ff": False,
        "av_cross_ada_norm": True,
        **changes,
    }


_MODULATED: JSON = {
    "apply_gated_attention": True,
    "cross_attention_adaln": True,
    "caption_proj_before_connector": True,
    "caption_projection_first_linear": False,
    "caption_proj_input_norm": False,
    "caption_projection_second_linear": False,
    "connector_num_attention_heads": 32,
    "connector_num_layers": 8,
    "audio_connector_num_attention_heads": 32,
    "audio_connector_attention_head_dim": 64,
    "connector_apply_gated_attention": True,
}


def _vae(**changes: Any) -> JSON:
    return {
        "_class_name": "CausalVideoAutoencoder",
        "dims": 3,
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": 128,
        "patch_size": 4,
        "norm_layer": "pixel_norm",
        "latent_log_var": "uniform",
        "causal_decoder": False,
        "timestep_conditioning": False,
        "encoder_base_channels": 128,
        "decoder_base_channels": 128,
        **changes,
    }


_VAE_2_0 = _vae(
    encoder_blocks=[
        _res(4),
        _block("compress_space_res", multiplier=2),
        _res(6),
        _block("compress_time_res", multiplier=2),
        _res(6),
        _block("compress_all_res", multiplier=2),
        _res(2),
        _block("compress_all_res", multiplier=2),
        _res(2),
    ],
    decoder_blocks=[
        _res(5),
        _block("compress_all", multiplier=2, residual=True),
        _res(5),
        _block("compress_all", multiplier=2, residual=True),
        _res(5),
        _block("compress_all", multiplier=2, residual=True),
        _res(5),
    ],
)
_VAE_2_3 = _vae(
    spatial_padding_mode="zeros",
    encoder_blocks=[
        _res(4),
        _block("compress_space_res", multiplier=2),
        _res(6),
        _block("compress_time_res", multiplier=2),
        _res(4),
        _block("compress_all_res", multiplier=2),
        _res(2),
        _block("compress_all_res", multiplier=1),
        _res(2),
    ],
    decoder_blocks=[
        _res(4),
        _block("compress_space", multiplier=2),
        _res(6),
        _block("compress_time", multiplier=2),
        _res(4),
        _block("compress_all", multiplier=1),
        _res(2),
        _block("compress_all", multiplier=2),
        _res(2),
    ],
)

_AUDIO_VAE: JSON = {
    "model": {
        "params": {
            "ddconfig": {
                "double_z": True,
                "mel_bins": 64,
                "z_channels": 8,
                "resolution": 256,
                "downsample_time": False,
                "in_channels": 2,
                "out_ch": 2,
                "ch": 128,
                "ch_mult": [1, 2, 4],
                "num_res_blocks": 2,
                "attn_resolutions": [],
                "dropout": 0.0,
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
}

_RESIDUAL: JSON = {
    "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
    "stereo": True,
}
_HIFI_GAN: JSON = _RESIDUAL | {
    "resblock": "1",
    "upsample_initial_channel": 1024,
    "upsample_rates": [6, 5, 2, 2, 2],
    "upsample_kernel_sizes": [16, 15, 8, 4, 4],
    "output_sampling_rate": 24000,
}
_AMP: JSON = _RESIDUAL | {
    "resblock": "AMP1",
    "activation": "snakebeta",
    "use_tanh_at_final": False,
    "use_bias_at_final": False,
}
_BANDWIDTH_EXTENDED: JSON = {
    "vocoder": _AMP
    | {
        "upsample_initial_channel": 1536,
        "upsample_rates": [5, 2, 2, 2, 2, 2],
        "upsample_kernel_sizes": [11, 4, 4, 4, 4, 4],
    },
    "bwe": _AMP
    | {
        "upsample_initial_channel": 512,
        "upsample_rates": [6, 5, 2, 2, 2],
        "upsample_kernel_sizes": [12, 11, 4, 4, 4],
        "input_sampling_rate": 16000,
        "output_sampling_rate": 48000,
        "hop_length": 80,
        "n_fft": 512,
        "win_size": 512,
        "num_mels": 64,
    },
}


def _upsampler(**changes: Any) -> JSON:
    return {
        "in_channels": 128,
        "mid_channels": 1024,
        "num_blocks_per_stage": 4,
        "dims": 3,
        "spatial_upsample": True,
        "temporal_upsample": False,
        "spatial_scale": 2.0,
        "rational_resampler": False,
        **changes,
    }


_TEMPORAL = _upsampler(
    mid_channels=512,
    spatial_upsample=False,
    temporal_upsample=True,
    spatial_scale=1.0,
    rational_resampler=True,
)

OFFICIAL: dict[str, JSON] = {
    "2.0": {
        "transformer": _transformer(connector_num_attention_heads=30, connector_num_layers=2),
        "vae": _VAE_2_0,
        "audio_vae": _AUDIO_VAE,
        "vocoder": _HIFI_GAN,
        "upsamplers": {
            "spatial x2": _upsampler(rational_resampler=True),
            "temporal x2": _TEMPORAL,
        },
    },
    "2.3": {
        "transformer": _transformer(**_MODULATED),
        "vae": _VAE_2_3,
        "audio_vae": _AUDIO_VAE,
        "vocoder": _BANDWIDTH_EXTENDED,
        "upsamplers": {
            "spatial x2": _upsampler(),
            "spatial x1.5": _upsampler(spatial_scale=1.5, rational_resampler=True),
            "temporal x2": _TEMPORAL,
        },
    },
    "2.5": {
        "transformer": _transformer(
            **_MODULATED, ff_bias=False, use_keyframes_abs_pos_embedding=True
        ),
        "vae": _VAE_2_3,
        "audio_vae": _AUDIO_VAE,
        "vocoder": _BANDWIDTH_EXTENDED,
        "upsamplers": {"spatial x2": _upsampler(), "temporal x2": _TEMPORAL},
    },
}
"""Architecture by generation: the sections of a model's files, and its upsamplers by what they do.

The 2.0 video VAE is inferred from other evidence than a file's header.
"""

# Of the language model that the published projections take: its width, and its layers plus one.
HIDDEN_SIZE, NUM_HIDDEN_STATES = 3840, 49
