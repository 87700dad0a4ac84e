"""Feature extractor and connectors against diffusers' class, over its flags."""

import pytest
import torch
from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors

from rayreel.checkpoints.builder import build
from rayreel.config.model import TextConfig
from rayreel.models.text.processor import EmbeddingsProcessor
from rayreel.runs.bench.oracles import connector_name

HIDDEN, STATES, LENGTH = 16, 3, 256

V2 = {
    "caption_proj_before_connector": True,
    "caption_projection_first_linear": False,
    "caption_proj_input_norm": False,
    "caption_projection_second_linear": False,
}


def theirs(*, per_stream: bool, gated: bool, rope_type: str, audio_head_dim: int):
    torch.manual_seed(0)
    model = LTX2TextConnectors(
        caption_channels=HIDDEN,
        text_proj_in_factor=STATES,
        video_connector_num_attention_heads=2,
        video_connector_attention_head_dim=8,
        video_gated_attn=gated,
        audio_connector_num_attention_heads=2,
        audio_connector_attention_head_dim=audio_head_dim,
        audio_connector_num_layers=3,
        audio_gated_attn=gated,
        rope_type=rope_type,
        per_modality_projections=per_stream,
        video_hidden_dim=16,
        audio_hidden_dim=2 * audio_head_dim,
        proj_bias=per_stream,
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval().requires_grad_(False)


def ours(model, *, per_stream: bool, gated: bool, rope_type: str, audio_head_dim: int):
    values = {
        "connector_num_attention_heads": 2,
        "connector_attention_head_dim": 8,
        "audio_connector_attention_head_dim": audio_head_dim,
        "audio_connector_num_layers": 3,
        "connector_positional_embedding_max_pos": [4096],
        "connector_apply_gated_attention": gated,
        "rope_type": rope_type,
        "frequencies_precision": "float64",
        "use_audio_video_cross_attention": True,
    }
    config = TextConfig.model_validate(values | (V2 if per_stream else {}))
    tensors = {connector_name(name): tensor for name, tensor in model.state_dict().items()}
    sizes = {"hidden_size": HIDDEN, "num_hidden_states": STATES}
    return build(lambda: EmbeddingsProcessor(config, **sizes), tensors)


@pytest.mark.parametrize("rope_type", ["split", "interleaved"])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(("per_stream", "audio_head_dim"), [(False, 8), (True, 4)])
def test_contexts_equal_those_of_diffusers(per_stream, audio_head_dim, gated, rope_type):
    flags = {"per_stream": per_stream, "gated": gated, "rope_type": rope_type}
    reference = theirs(**flags, audio_head_dim=audio_head_dim)
    states = torch.randn(2, LENGTH, HIDDEN, STATES, generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(LENGTH) >= torch.tensor([[LENGTH - 5], [70]])).long()
    video, audio, _ = reference(states, mask)
    context = ours(reference, **flags, audio_head_dim=audio_head_dim)(states, mask)
    torch.testing.assert_close(context.video, video, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(context.audio, audio, rtol=1e-4, atol=1e-5)
