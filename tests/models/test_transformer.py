"""The transformer as its callers see it: streams, samples, dtypes and what it refuses."""

from dataclasses import replace

import pytest
import torch

from rayreel.models.transformer import Perturbation, PerturbationType
from rayreel.models.transformer.perturbations import BlockKeep, block_keeps
from tests.models.tiny import GENERATIONS, sine_transformer, tiny_config, tiny_streams

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
