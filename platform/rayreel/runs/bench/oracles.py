"""Networks of diffusers as our configs describe them, and our names of their weights."""

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from diffusers.models.autoencoders.autoencoder_kl_ltx2 import (
    AutoencoderKLLTX2Video,
    LTX2VideoDecoder3d,
)
from diffusers.models.autoencoders.autoencoder_kl_ltx2_audio import AutoencoderKLLTX2Audio
from diffusers.models.transformers.transformer_ltx2 import LTX2VideoTransformer3DModel
from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors
from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder, LTX2VocoderWithBWE
from torch import Tensor, nn

from rayreel.config.model import (
    AudioVAEConfig,
    TextConfig,
    TransformerConfig,
    VideoVAEConfig,
    VocoderConfig,
)
from rayreel.models.text.connector import ROPE_THETA

N = TypeVar("N", bound=nn.Module)

_TRANSFORMER_PARTS = {
    "proj_in": "patchify_proj",
    "audio_proj_in": "audio_patchify_proj",
    "time_embed": "adaln_single",
    "audio_time_embed": "audio_adaln_single",
    "prompt_adaln": "prompt_adaln_single",
    "audio_prompt_adaln": "audio_prompt_adaln_single",
    "av_cross_attn_video_scale_shift": "av_ca_video_scale_shift_adaln_single",
    "av_cross_attn_audio_scale_shift": "av_ca_audio_scale_shift_adaln_single",
    "av_cross_attn_video_a2v_gate": "av_ca_a2v_gate_adaln_single",
    "av_cross_attn_audio_v2a_gate": "av_ca_v2a_gate_adaln_single",
    "video_a2v_cross_attn_scale_shift_table": "scale_shift_table_a2v_ca_video",
    "audio_a2v_cross_attn_scale_shift_table": "scale_shift_table_a2v_ca_audio",
    "norm_q": "q_norm",
    "norm_k": "k_norm",
}
_VOCODER_PARTS = {
    "conv_in.": "conv_pre.",
    "conv_out.": "conv_post.",
    "act_out.": "act_post.",
    "upsamplers.": "ups.",
    "resnets.": "resblocks.",
    "downsample.filter": "downsample.lowpass.filter",
}
_CONNECTOR_PARTS = {
    "video_text_proj_in": "feature_extractor.video_aggregate_embed",
    "audio_text_proj_in": "feature_extractor.audio_aggregate_embed",
    "text_proj_in": "feature_extractor.aggregate_embed",
    "transformer_blocks": "transformer_1d_blocks",
    "norm_q": "q_norm",
    "norm_k": "k_norm",
}
_AXES = {
    "compress_time": "temporal",
    "compress_space": "spatial",
    "compress_all": "spatiotemporal",
}
LATENT_STATISTICS = {
    "latents_mean": "per_channel_statistics.mean-of-means",
    "latents_std": "per_channel_statistics.std-of-means",
}
"""Our names of the buffers that both their VAEs hold beside encoder and decoder."""


def give_weights(
    network: N, tensors: Mapping[str, Tensor], rename: Callable[[str], str] = str
) -> N:
    """Give a network of theirs the weights of ours, all of them and no others.

    Args:
        network: Theirs.
        tensors: By our names; they become its parameters, without a copy.
        rename: Our name of a weight of theirs.

    Returns:
        The network, in evaluation mode and without gradients.

    Raises:
        RuntimeError: If weights are missing, unexpected or misshapen; all of them are listed.
    """
    names = {rename(name): name for name in network.state_dict()}
    state = {names.get(name, name): tensor for name, tensor in tensors.items()}
    network.load_state_dict(state, strict=True, assign=True)
    return network.requires_grad_(False).eval()


def diffusers_transformer(config: TransformerConfig) -> nn.Module:
    """Their transformer, with random weights."""
    model: nn.Module = LTX2VideoTransformer3DModel(
        num_layers=config.num_layers,
        num_attention_heads=config.num_attention_heads,
        attention_head_dim=config.attention_head_dim,
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        cross_attention_dim=config.cross_attention_dim,
        audio_num_attention_heads=config.audio_num_attention_heads,
        audio_attention_head_dim=config.audio_attention_head_dim,
        audio_in_channels=config.audio_in_channels,
        audio_out_channels=config.audio_out_channels,
        audio_cross_attention_dim=config.audio_cross_attention_dim,
        caption_channels=config.caption_channels,
        use_prompt_embeddings=not config.caption_proj_before_connector,
        gated_attn=config.apply_gated_attention,
        audio_gated_attn=config.apply_gated_attention,
        cross_attn_mod=config.cross_attention_adaln,
        audio_cross_attn_mod=config.cross_attention_adaln,
        use_prompt_adaln_single=config.use_prompt_adaln_single,
        ff_bias=config.ff_bias,
        audio_ff_bias=config.audio_ff_bias,
        use_keyframes_abs_pos_embedding=config.use_keyframes_abs_pos_embedding,
        rope_type=config.rope_type,
        rope_double_precision=config.float64_frequencies,
        perturbed_attn=True,
    )
    return model.eval()


def transformer_name(name: str) -> str:
    """Our name of a weight of their transformer."""
    return ".".join(_TRANSFORMER_PARTS.get(part, part) for part in name.split("."))


def diffusers_video_decoder(config: VideoVAEConfig) -> nn.Module:
    """Their video decoder, with random weights, for blocks that alternate as the published ones do.

    It reads latents that are not normalised.
    """
    model: nn.Module = LTX2VideoDecoder3d(
        in_channels=config.latent_channels,
        out_channels=config.out_channels,
        patch_size=config.patch_size,
        is_causal=config.causal_decoder,
        timestep_conditioning=config.timestep_conditioning,
        spatial_padding_mode=config.decoder_padding,
        **_decoder_settings(config),
    )
    return model.eval()


def diffusers_video_vae(config: VideoVAEConfig) -> nn.Module:
    """Their video VAE, with random weights, for blocks that alternate as the published ones do."""
    stages, resamplers = config.encoder_blocks[::2], config.encoder_blocks[1::2]
    # Of the output of each resampler, of which the encoder names the axes after the direction.
    widths, width = [], config.latent_channels
    for block in resamplers:
        width *= block.multiplier or 2
        widths.append(width)
    decoder = _decoder_settings(config)
    shared = {"upsample_type", "upsample_residual", "upsample_factor"}
    model: nn.Module = AutoencoderKLLTX2Video(
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        latent_channels=config.latent_channels,
        block_out_channels=tuple(widths),
        down_block_types=("LTX2VideoDownBlock3D",) * len(resamplers),
        layers_per_block=tuple(block.num_layers for block in stages),
        spatio_temporal_scaling=(True,) * len(resamplers),
        downsample_type=tuple(_AXES[block.name.removesuffix("_res")] for block in resamplers),
        timestep_conditioning=config.timestep_conditioning,
        patch_size=config.patch_size,
        decoder_causal=config.causal_decoder,
        encoder_spatial_padding_mode=config.encoder_padding,
        decoder_spatial_padding_mode=config.decoder_padding,
        # Theirs follow from the number of blocks, which may each leave out an axis.
        spatial_compression_ratio=config.space_factor,
        temporal_compression_ratio=config.time_factor,
        **{name if name in shared else f"decoder_{name}": value for name, value in decoder.items()},
    )
    return model.eval()


def _decoder_settings(config: VideoVAEConfig) -> dict[str, Any]:
    stages, resamplers = config.decoder_blocks[::2], config.decoder_blocks[1::2]
    factors = tuple(block.multiplier or 1 for block in resamplers)
    # Of the input of each resampler; listed from the pixels to the latent, as our blocks are.
    widths, width = [], config.decoder_base_channels
    for factor in factors:
        width *= factor
        widths.append(width)
    return {
        "block_out_channels": tuple(widths),
        "spatio_temporal_scaling": (True,) * len(resamplers),
        "layers_per_block": tuple(block.num_layers for block in stages),
        "inject_noise": tuple(block.inject_noise for block in stages),
        # This list alone runs from the latent to the pixels.
        "upsample_type": tuple(_AXES[block.name] for block in reversed(resamplers)),
        "upsample_residual": tuple(block.residual for block in resamplers),
        "upsample_factor": factors,
    }


def video_vae_name(name: str, last_down_block: int = 0) -> str:
    """Our name, within encoder or decoder, of a weight of their video VAE.

    Args:
        name: Theirs, with ``encoder.`` or ``decoder.`` in front.
        last_down_block: Index of our last block of the encoder, which is their middle block.
    """
    middle = f"down_blocks.{last_down_block}." if name.startswith("encoder.") else "up_blocks.0."
    name = name.replace("mid_block.", middle) if "mid_block." in name else _block_name(name)
    name = re.sub(r"^decoder\.(time_embedder|scale_shift_table)", r"decoder.last_\1", name)
    return name.replace("resnets.", "res_blocks.").partition(".")[2]


def _block_name(name: str) -> str:
    """Their blocks hold residual layers and a resampler; ours are one or the other."""
    if found := re.match(r"(\w+\.(down|up)_blocks\.)(\d+)\.((?:down|up)samplers\.0\.)?", name):
        is_down, resamples = found[2] == "down", bool(found[4])
        index = 2 * int(found[3]) + (resamples if is_down else 2 - resamples)
        return f"{found[1]}{index}.{name[found.end() :]}"
    return name


def diffusers_audio_vae(config: AudioVAEConfig) -> nn.Module:
    """Their audio VAE, with random weights; encoder and decoder have our names."""
    network = config.network
    model: nn.Module = AutoencoderKLLTX2Audio(
        base_channels=network.ch,
        output_channels=network.out_ch,
        ch_mult=network.ch_mult,
        num_res_blocks=network.num_res_blocks,
        attn_resolutions=network.attn_resolutions,
        in_channels=network.in_channels,
        resolution=network.resolution,
        latent_channels=network.z_channels,
        norm_type=network.norm_type,
        causality_axis=network.causality_axis,
        mid_block_add_attention=network.mid_block_add_attention,
        sample_rate=config.sample_rate_hz,
        mel_hop_length=config.preprocessing.stft.hop_length,
        mel_bins=config.mel_bins,
        double_z=network.double_z,
    )
    return model.eval()


def diffusers_connectors(
    config: TextConfig, *, hidden_size: int, num_hidden_states: int
) -> nn.Module:
    """Their projection and connectors, with random weights.

    Args:
        config: Of ours, with an audio stream.
        hidden_size: Width of the language model.
        num_hidden_states: Its hidden states, the embedding among them.
    """
    video, audio = config.video, config.audio
    per_stream = config.feature_version == "v2"
    model: nn.Module = LTX2TextConnectors(
        caption_channels=hidden_size,
        text_proj_in_factor=num_hidden_states,
        video_connector_num_attention_heads=video.num_attention_heads,
        video_connector_attention_head_dim=video.attention_head_dim,
        video_connector_num_layers=video.num_layers,
        video_connector_num_learnable_registers=video.num_registers,
        video_gated_attn=video.gated,
        audio_connector_num_attention_heads=audio.num_attention_heads,
        audio_connector_attention_head_dim=audio.attention_head_dim,
        audio_connector_num_layers=audio.num_layers,
        audio_connector_num_learnable_registers=audio.num_registers,
        audio_gated_attn=audio.gated,
        connector_rope_base_seq_len=int(video.max_pos),
        rope_theta=ROPE_THETA,
        rope_double_precision=video.float64_frequencies,
        rope_type=video.rope_type,
        per_modality_projections=per_stream,
        video_hidden_dim=video.width,
        audio_hidden_dim=audio.width,
        proj_bias=per_stream,
    )
    return model.eval()


def connector_name(name: str) -> str:
    """Our name of a weight of their projection and connectors."""
    for theirs, ours in _CONNECTOR_PARTS.items():
        name = name.replace(theirs, ours)
    return name


def diffusers_vocoder(config: VocoderConfig) -> nn.Module:
    """Their vocoder, with random weights; of 2.3 the stored Fourier and mel bases are zeros."""
    first = _generator_settings(config.generator)
    if config.bwe is None:
        model: nn.Module = LTX2Vocoder(**first)
        return model.eval()
    second = _generator_settings(config.bwe)
    del second["output_sampling_rate"]
    model = LTX2VocoderWithBWE(
        **first | {"output_sampling_rate": config.sample_rate_hz},
        **{f"bwe_{name}": value for name, value in second.items()},
    )
    return model.eval()


def _generator_settings(config: VocoderConfig.Generator) -> dict[str, Any]:
    amp = config.resblock == "AMP1"
    return {
        "hidden_channels": config.upsample_initial_channel,
        "upsample_kernel_sizes": list(config.upsample_kernel_sizes),
        "upsample_factors": list(config.upsample_rates),
        "resnet_kernel_sizes": list(config.resblock_kernel_sizes),
        "resnet_dilations": [list(dilations) for dilations in config.resblock_dilation_sizes],
        "act_fn": "snakebeta" if amp else "leaky_relu",
        "antialias": amp,
        "final_act_fn": "tanh" if config.use_tanh_at_final else None,
        "final_bias": config.use_bias_at_final,
        "output_sampling_rate": config.output_sampling_rate,
    }


def vocoder_name(name: str) -> str:
    """Our name of a weight of their vocoder."""
    for theirs, ours in _VOCODER_PARTS.items():
        name = name.replace(theirs, ours)
    return name
