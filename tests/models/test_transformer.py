"""The transformer as its callers see it: streams, samples, dtypes and what it refuses."""

from dataclasses import replace

import pytest
import torch

from rayreel.checkpoints.builder import build
from rayreel.config.model import TextConfig, TransformerConfig
from rayreel.models import feed_forward
from rayreel.models.feed_forward import FeedForward
from rayreel.models.transformer import Perturbation, PerturbationType, Transformer
from rayreel.models.transformer.perturbations import BlockKeep, block_keeps
from tests.memory_tracker import MemoryTracker
from tests.models.tiny import (
    AUDIO_VIDEO,
    GENERATIONS,
    sine_transformer,
    tiny_config,
    tiny_streams,
    video_only,
)

# What marks the parameters that an audio-only network takes from an audio-video file. The caption
# projection is of 2.0 alone.
AUDIO_PARTS = (
    "audio_attn1",
    "audio_attn2",
    "audio_ff",
    "audio_patchify",
    "audio_proj_out",
    "audio_adaln_single",
    "audio_prompt",
    "audio_scale_shift_table",
    "audio_caption_projection",
)
SKIP_VIDEO = Perturbation(PerturbationType.SKIP_VIDEO_SELF_ATTN, (1,))


@pytest.fixture(params=GENERATIONS)
def config(request):
    return tiny_config(request.param)


def half(stream):
    """A stream as pipelines pass it: tokens and text in bfloat16, the rest in float32."""
    return replace(stream, latent=stream.latent.bfloat16(), context=stream.context.bfloat16())


def sample(stream, index):
    """One sample of a stream as a batch of its own."""
    one = slice(index, index + 1)
    values = {name: getattr(stream, name) for name in stream.__slots__}
    return replace(stream, **{k: v[one] for k, v in values.items() if isinstance(v, torch.Tensor)})


def test_bfloat16_weights_with_float32_tables_stay_close_to_float32(config):
    model = sine_transformer(config)
    streams = tiny_streams(config)
    expected = model(*streams)
    for name, parameter in model.named_parameters():
        if "scale_shift_table" not in name:
            parameter.data = parameter.data.bfloat16()
    velocities = model(*(half(stream) for stream in streams))
    for velocity, reference in zip(velocities, expected, strict=True):
        assert velocity.dtype == torch.bfloat16
        assert (velocity - reference).norm() < 0.05 * reference.norm()


def test_samples_do_not_see_each_other(config):
    model = sine_transformer(config)
    streams = tiny_streams(config)
    together = model(*streams, [[SKIP_VIDEO], []])
    for index, skipped in enumerate([[SKIP_VIDEO], []]):
        alone = model(*(sample(stream, index) for stream in streams), [skipped])
        for batched, single in zip(together, alone, strict=True):
            torch.testing.assert_close(batched[index], single[0])


def test_a_noise_level_that_all_tokens_share_may_be_given_once(config):
    model = sine_transformer(config)
    streams = tiny_streams(config)
    each = model(*streams)
    once = model(*(replace(stream, timesteps=stream.timesteps[:, :1]) for stream in streams))
    torch.testing.assert_close(once, each, rtol=0, atol=3e-6)


def test_levels_to_choose_from_change_nothing(config):
    model = sine_transformer(config)
    video, audio = tiny_streams(config)
    for token, level in ((0, 0.0), (1, 0.5)):
        video.timesteps[token, token] = level
    each = model(video, audio)
    levels = video.timesteps.unique()
    few = model(replace(video, levels=levels), replace(audio, levels=levels))
    torch.testing.assert_close(few, each, rtol=0, atol=3e-6)


def test_positions_that_all_samples_share_may_be_given_once(config):
    model = sine_transformer(config)
    streams = tiny_streams(config)
    each = model(*streams)
    once = model(*(replace(stream, positions=stream.positions[:1]) for stream in streams))
    torch.testing.assert_close(once, each, rtol=0, atol=0)


@torch.no_grad()
def test_feed_forward_in_chunks_equals_the_whole(monkeypatch):
    step, x = FeedForward(16), torch.randn(2, 50, 16)
    whole = step(x)
    monkeypatch.setattr(feed_forward, "CHUNK", 32)
    with MemoryTracker() as tracker:
        chunked = step(x)
    torch.testing.assert_close(chunked, whole)
    assert tracker.peak < (2 * 4 * 32 + 2 * 100) * 16 * 4


def test_a_disabled_stream_is_still_read_by_the_other(config):
    model = sine_transformer(config)
    video, audio = tiny_streams(config)
    _, heard = model(replace(video, enabled=False), audio)
    _, alone = model(None, audio)
    assert not torch.allclose(heard, alone, atol=1e-3)


def test_no_stream_at_all_is_refused(config):
    with pytest.raises(ValueError, match="a video stream, an audio stream or both"):
        sine_transformer(config)(None, None)


def test_perturbations_must_fit_the_batch(config):
    with pytest.raises(ValueError, match="each of 2 samples, got 1"):
        sine_transformer(config)(*tiny_streams(config), [[]])


def test_only_blocks_where_samples_differ_need_a_mask():
    latent = torch.zeros(2, 3, 4, dtype=torch.bfloat16)
    assert block_keeps(None, 2, like=latent) == [BlockKeep()] * 2
    assert block_keeps([[SKIP_VIDEO]] * 2, 2, like=latent) == [BlockKeep(), BlockKeep(False)]
    untouched, mixed = block_keeps([[], [SKIP_VIDEO]], 2, like=latent)
    assert untouched == BlockKeep()
    expected = torch.tensor([[[1.0]], [[0.0]]], dtype=torch.bfloat16)
    torch.testing.assert_close(mixed.video_self, expected)
    assert mixed[1:] == (True, True, True)


def single(config, model):
    """A network of one stream with the weights that it shares with a whole one."""
    wanted = Transformer(config).state_dict()
    weights = {name: tensor for name, tensor in model.state_dict().items() if name in wanted}
    return build(lambda: Transformer(config), weights)


def test_a_network_of_one_stream_computes_as_the_whole_one_does(config):
    model = sine_transformer(config)
    video, audio = tiny_streams(config)
    seen = single(video_only(config), model)(video, None, [[SKIP_VIDEO], []])
    torch.testing.assert_close(seen, model(video, None, [[SKIP_VIDEO], []]), rtol=0, atol=0)
    heard = single(config.audio_only(), model)(None, audio)
    torch.testing.assert_close(heard, model(None, audio), rtol=0, atol=0)


def test_an_audio_only_network_has_the_audio_parameters_alone(config):
    whole = Transformer(config).state_dict()
    audio = {name for name in whole if any(part in name for part in AUDIO_PARTS)}
    assert Transformer(config.audio_only()).state_dict().keys() == audio


def test_a_video_only_network_has_neither_audio_nor_exchange(config):
    whole = Transformer(config).state_dict()
    others = ("audio_", "av_ca_", "_attn.", "a2v_ca")
    video = {name for name in whole if not any(part in name for part in others)}
    assert Transformer(video_only(config)).state_dict().keys() == video


def test_feed_forward_biases_follow_their_stream():
    config = tiny_config("2.5", ff_bias=True, audio_ff_bias=False)
    names = Transformer(config.audio_only()).state_dict().keys()
    assert not [name for name in names if ".audio_ff.net" in name and name.endswith("bias")]
    names = Transformer(video_only(config)).state_dict().keys()
    assert "transformer_blocks.1.ff.net.2.bias" in names


def test_heads_may_differ_where_the_streams_do_not_meet(config):
    other = {"audio_num_attention_heads": 4, "audio_attention_head_dim": 2}
    uneven = config.audio_only().model_copy(update=other)
    _, audio = tiny_streams(config)
    _, heard = sine_transformer(uneven)(None, audio)
    assert heard.shape == audio.latent.shape


def test_a_stream_that_the_network_lacks_is_refused(config):
    video, audio = tiny_streams(config)
    with pytest.raises(
        ValueError, match="got a stream of audio, but the transformer is video-only"
    ):
        sine_transformer(video_only(config))(video, audio)
    with pytest.raises(
        ValueError, match="got a stream of video, but the transformer is audio-only"
    ):
        sine_transformer(config.audio_only())(video, audio)


def test_a_file_without_the_keys_of_the_exchange_is_video_only(config):
    stated = config.model_dump(exclude={"streams"})
    alone = {key: value for key, value in stated.items() if key not in AUDIO_VIDEO}
    assert TransformerConfig.model_validate(stated).streams == "both"
    assert TransformerConfig.model_validate(alone).streams == "video"
    assert TextConfig.model_validate(AUDIO_VIDEO).has_audio
    assert not TextConfig().has_audio
    with pytest.raises(ValueError, match="no audio stream to keep"):
        video_only(config).audio_only()


@pytest.mark.parametrize("key", AUDIO_VIDEO)
def test_a_file_with_some_of_the_keys_of_the_exchange_is_refused(config, key):
    stated = config.model_dump(exclude={"streams", key})
    with pytest.raises(ValueError, match=f"missing: {key} "):
        TransformerConfig.model_validate(stated)
