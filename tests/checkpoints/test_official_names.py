"""Networks of the published configurations: names and shapes of their tensors.

Expectations are written from what is known of the files, in their notation: ``{0..2}`` and
``{a,b}`` stand for several names.
"""

import itertools
import re

import pytest

from tests.checkpoints.published import Shapes, shapes
from tests.official import OFFICIAL

VIDEO, AUDIO = 4096, 2048
BOTH = "{weight,bias}"


def expand(pattern):
    """All names that a pattern stands for."""
    parts = re.split(r"\{(.*?)\}", pattern)
    choices = []
    for index, part in enumerate(parts):
        if index % 2 and ".." in part:
            first, last = map(int, part.split(".."))
            choices.append([str(number) for number in range(first, last + 1)])
        else:
            choices.append(part.split(",") if index % 2 else [part])
    return ["".join(chosen) for chosen in itertools.product(*choices)]


def names(*patterns):
    return {name for pattern in patterns for name in expand(pattern)}


def linear(name, rows, columns, *, bias=True):
    return {f"{name}.weight": (rows, columns)} | ({f"{name}.bias": (rows,)} if bias else {})


def adaln(name, width, rows):
    embedder = f"{name}.emb.timestep_embedder"
    return (
        linear(f"{embedder}.linear_1", width, 256)
        | linear(f"{embedder}.linear_2", width, width)
        | linear(f"{name}.linear", rows * width, width)
    )


def attention(name, query, context, inner, *, gates):
    return (
        linear(f"{name}.to_q", inner, query)
        | linear(f"{name}.to_k", inner, context)
        | linear(f"{name}.to_v", inner, context)
        | linear(f"{name}.to_out.0", query, inner)
        | {f"{name}.q_norm.weight": (inner,), f"{name}.k_norm.weight": (inner,)}
        | (linear(f"{name}.to_gate_logits", gates, query) if gates else {})
    )


def feed_forward(name, width, *, bias=True):
    inner = linear(f"{name}.net.0.proj", 4 * width, width, bias=bias)
    return inner | linear(f"{name}.net.2", width, 4 * width, bias=bias)


def under(prefix, tensors):
    return {f"{prefix}.{name}": shape for name, shape in tensors.items()}


def block(generation):
    modulated = generation != "2.0"
    gates, rows = (32, 9) if modulated else (0, 6)
    prompt_tables = {
        "prompt_scale_shift_table": (2, VIDEO),
        "audio_prompt_scale_shift_table": (2, AUDIO),
    }
    return (
        attention("attn1", VIDEO, VIDEO, VIDEO, gates=gates)
        | attention("attn2", VIDEO, 4096, VIDEO, gates=gates)
        | attention("audio_attn1", AUDIO, AUDIO, AUDIO, gates=gates)
        | attention("audio_attn2", AUDIO, 2048, AUDIO, gates=gates)
        | attention("audio_to_video_attn", VIDEO, AUDIO, AUDIO, gates=gates)
        | attention("video_to_audio_attn", AUDIO, VIDEO, AUDIO, gates=gates)
        | feed_forward("ff", VIDEO, bias=generation != "2.5")
        | feed_forward("audio_ff", AUDIO)
        | {"scale_shift_table": (rows, VIDEO), "audio_scale_shift_table": (rows, AUDIO)}
        | {"scale_shift_table_a2v_ca_video": (5, VIDEO)}
        | {"scale_shift_table_a2v_ca_audio": (5, AUDIO)}
        | (prompt_tables if modulated else {})
    )


def top_level(generation):
    rows = 6 if generation == "2.0" else 9
    found = (
        linear("patchify_proj", VIDEO, 128)
        | linear("audio_patchify_proj", AUDIO, 128)
        | adaln("adaln_single", VIDEO, rows)
        | adaln("audio_adaln_single", AUDIO, rows)
        | adaln("av_ca_video_scale_shift_adaln_single", VIDEO, 4)
        | adaln("av_ca_audio_scale_shift_adaln_single", AUDIO, 4)
        | adaln("av_ca_a2v_gate_adaln_single", VIDEO, 1)
        | adaln("av_ca_v2a_gate_adaln_single", AUDIO, 1)
        | {"scale_shift_table": (2, VIDEO), "audio_scale_shift_table": (2, AUDIO)}
        | linear("proj_out", 128, VIDEO)
        | linear("audio_proj_out", 128, AUDIO)
    )
    if generation == "2.0":
        for name, width in (("caption_projection", VIDEO), ("audio_caption_projection", AUDIO)):
            found |= linear(f"{name}.linear_1", width, 3840)
            found |= linear(f"{name}.linear_2", width, width)
        return found
    found |= adaln("prompt_adaln_single", VIDEO, 2) | adaln("audio_prompt_adaln_single", AUDIO, 2)
    return found | ({"keyframes_abs_pos_embedding": (1, VIDEO)} if generation == "2.5" else {})


@pytest.mark.parametrize("generation", OFFICIAL)
def test_transformer(generation):
    expected = top_level(generation)
    for index in range(48):
        expected |= under(f"transformer_blocks.{index}", block(generation))
    assert shapes(generation, "transformer") == expected


@pytest.mark.parametrize(
    ("generation", "stream", "width", "blocks", "gates"),
    [
        ("2.0", "video", 3840, 2, 0),
        ("2.0", "audio", 3840, 2, 0),
        ("2.3", "video", VIDEO, 8, 32),
        ("2.3", "audio", AUDIO, 8, 32),
        ("2.5", "video", VIDEO, 8, 32),
        ("2.5", "audio", AUDIO, 8, 32),
    ],
)
def test_connectors(generation, stream, width, blocks, gates):
    one = attention("attn1", width, width, width, gates=gates) | feed_forward("ff", width)
    expected = {"learnable_registers": (128, width)}
    for index in range(blocks):
        expected |= under(f"transformer_1d_blocks.{index}", one)
    assert shapes(generation, f"{stream} connector") == expected


def test_text_projections():
    stacked = 188_160
    assert shapes("2.0", "text projection") == linear("aggregate_embed", 3840, stacked, bias=False)
    for generation in ("2.3", "2.5"):
        expected = linear("video_aggregate_embed", VIDEO, stacked)
        expected |= linear("audio_aggregate_embed", AUDIO, stacked)
        assert shapes(generation, "text projection") == expected


def convolution(name, outputs, inputs):
    return {f"{name}.conv.weight": (outputs, inputs, 3, 3, 3), f"{name}.conv.bias": (outputs,)}


def residual(width, count):
    """Residual blocks; their convolutions keep the width."""
    return ("res", width, count)


# Modules in the order of their index: residual blocks, or outputs and inputs of a convolution.
ENCODERS = {
    "2.0": [
        residual(128, 4), (64, 128), residual(256, 6), (256, 256), residual(512, 6), (128, 512),
        residual(1024, 2), (256, 1024), residual(2048, 2),
    ],
    "2.3": [
        residual(128, 4), (64, 128), residual(256, 6), (256, 256), residual(512, 4), (128, 512),
        residual(1024, 2), (128, 1024), residual(1024, 2),
    ],
}  # fmt: skip
DECODERS = {
    "2.0": [
        residual(1024, 5), (4096, 1024), residual(512, 5), (2048, 512), residual(256, 5),
        (1024, 256), residual(128, 5),
    ],
    "2.3": [
        residual(1024, 2), (4096, 1024), residual(512, 2), (4096, 512), residual(512, 4),
        (512, 512), residual(256, 6), (512, 256), residual(128, 4),
    ],
}  # fmt: skip


def video_modules(prefix, modules):
    found: Shapes = {}
    for index, module in enumerate(modules):
        if module[0] != "res":
            found |= convolution(f"{prefix}.{index}.conv", *module)
            continue
        _, width, count = module
        for name in expand(f"{prefix}.{index}.res_blocks.{{0..{count - 1}}}.conv{{1,2}}"):
            found |= convolution(name, width, width)
    return found | {f"per_channel_statistics.{kind}-of-means": (128,) for kind in ("mean", "std")}


@pytest.mark.parametrize(
    ("generation", "plan", "widest"),
    [("2.0", "2.0", 2048), ("2.3", "2.3", 1024), ("2.5", "2.3", 1024)],
)
def test_video_vae(generation, plan, widest):
    encoder = video_modules("down_blocks", ENCODERS[plan])
    encoder |= convolution("conv_in", 128, 48) | convolution("conv_out", 129, widest)
    assert shapes(generation, "video encoder") == encoder
    decoder = video_modules("up_blocks", DECODERS[plan])
    decoder |= convolution("conv_in", 1024, 128) | convolution("conv_out", 48, 128)
    assert shapes(generation, "video decoder") == decoder


@pytest.mark.parametrize("generation", OFFICIAL)
def test_audio_vae(generation):
    encoder, decoder = (shapes(generation, f"audio {half}") for half in ("encoder", "decoder"))
    shared = (
        f"conv_in.conv.{BOTH}",
        f"mid.block_{{1,2}}.conv{{1,2}}.conv.{BOTH}",
        f"conv_out.conv.{BOTH}",
        "per_channel_statistics.{mean,std}-of-means",
    )
    assert encoder.keys() == names(
        *shared,
        f"down.{{0..2}}.block.{{0,1}}.conv{{1,2}}.conv.{BOTH}",
        f"down.{{1,2}}.block.0.nin_shortcut.conv.{BOTH}",
        f"down.{{0,1}}.downsample.conv.{BOTH}",
    )
    assert decoder.keys() == names(
        *shared,
        f"up.{{0..2}}.block.{{0..2}}.conv{{1,2}}.conv.{BOTH}",
        f"up.{{0,1}}.block.0.nin_shortcut.conv.{BOTH}",
        f"up.{{1,2}}.upsample.conv.conv.{BOTH}",
    )
    stated = {
        "conv_in": ((128, 2, 3, 3), (512, 8, 3, 3)),
        "conv_out": ((16, 512, 3, 3), (2, 128, 3, 3)),
    }
    for name, both in stated.items():
        assert (encoder[f"{name}.conv.weight"], decoder[f"{name}.conv.weight"]) == both
    shortcuts = [encoder[f"down.{i}.block.0.nin_shortcut.conv.weight"] for i in (1, 2)]
    assert shortcuts == [(256, 128, 1, 1), (512, 256, 1, 1)]
    shortcuts = [decoder[f"up.{i}.block.0.nin_shortcut.conv.weight"] for i in (0, 1)]
    assert shortcuts == [(128, 256, 1, 1), (256, 512, 1, 1)]


def test_vocoder_of_2_0():
    found = shapes("2.0", "vocoder")
    assert found.keys() == names(
        f"conv_pre.{BOTH}",
        f"ups.{{0..4}}.{BOTH}",
        f"resblocks.{{0..14}}.convs{{1,2}}.{{0..2}}.{BOTH}",
        f"conv_post.{BOTH}",
    )
    assert found["conv_pre.weight"] == (1024, 128, 7)
    assert found["conv_post.weight"] == (2, 32, 7)
    ladder = [(1024, 512, 16), (512, 256, 15), (256, 128, 8), (128, 64, 4), (64, 32, 4)]
    assert [found[f"ups.{stage}.weight"] for stage in range(5)] == ladder


def amp(name, stages):
    """Names of a generator with anti-aliased activations."""
    last = 3 * stages - 1
    kernels = "{act.alpha,act.beta,upsample.filter,downsample.lowpass.filter}"
    return names(
        f"{name}.conv_pre.{BOTH}",
        f"{name}.ups.{{0..{stages - 1}}}.{BOTH}",
        f"{name}.resblocks.{{0..{last}}}.convs{{1,2}}.{{0..2}}.{BOTH}",
        f"{name}.resblocks.{{0..{last}}}.acts{{1,2}}.{{0..2}}.{kernels}",
        f"{name}.act_post.{kernels}",
        f"{name}.conv_post.weight",
    )


@pytest.mark.parametrize("generation", ["2.3", "2.5"])
def test_vocoder_since_2_3(generation):
    found = shapes(generation, "vocoder")
    mel = names("mel_stft.{mel_basis,stft_fn.forward_basis,stft_fn.inverse_basis}")
    assert found.keys() == amp("vocoder", 6) | amp("bwe_generator", 5) | mel
    stated = {
        "vocoder.conv_pre.weight": (1536, 128, 7),
        "vocoder.ups.0.weight": (1536, 768, 11),
        "vocoder.ups.5.weight": (48, 24, 4),
        "vocoder.act_post.act.alpha": (24,),
        "vocoder.resblocks.0.acts1.0.upsample.filter": (1, 1, 12),
        "vocoder.resblocks.17.acts2.2.downsample.lowpass.filter": (1, 1, 12),
        "vocoder.conv_post.weight": (2, 24, 7),
        "bwe_generator.conv_pre.weight": (512, 128, 7),
        "bwe_generator.ups.0.weight": (512, 256, 12),
        "bwe_generator.act_post.act.beta": (16,),
        "bwe_generator.conv_post.weight": (2, 16, 7),
        "mel_stft.mel_basis": (64, 257),
        "mel_stft.stft_fn.forward_basis": (514, 1, 512),
        "mel_stft.stft_fn.inverse_basis": (514, 1, 512),
    }
    assert {name: found[name] for name in stated} == stated


@pytest.mark.parametrize(
    ("generation", "network", "resampler", "kernel"),
    [
        ("2.0", "spatial x2", "conv", (4096, 1024, 3, 3)),
        ("2.0", "temporal x2", "0", (1024, 512, 3, 3, 3)),
        ("2.3", "spatial x2", "0", (4096, 1024, 3, 3)),
        ("2.3", "spatial x1.5", "conv", (9216, 1024, 3, 3)),
        ("2.5", "spatial x2", "0", (4096, 1024, 3, 3)),
        ("2.5", "temporal x2", "0", (1024, 512, 3, 3, 3)),
    ],
)
def test_upsamplers(generation, network, resampler, kernel):
    found = shapes(generation, network)
    layers = "{conv1,norm1,conv2,norm2}"
    expected = names(
        f"{{initial_conv,initial_norm,upsampler.{resampler},final_conv}}.{BOTH}",
        f"res_blocks.{{0..3}}.{layers}.{BOTH}",
        f"post_upsample_res_blocks.{{0..3}}.{layers}.{BOTH}",
    )
    blur = {"upsampler.blur_down.kernel"} if resampler == "conv" else set()
    assert found.keys() == expected | blur
    assert found[f"upsampler.{resampler}.weight"] == kernel
    assert {found[name] for name in blur} <= {(1, 1, 5, 5)}
