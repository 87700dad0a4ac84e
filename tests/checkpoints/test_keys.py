"""Names in the official files and names of parameters."""

import pytest

from rayreel.checkpoints import keys
from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.networks import (
    audio_decoder,
    embeddings_processor,
    transformer,
    upsampler,
    video_decoder,
    video_encoder,
    video_statistics,
    vocoder,
)
from rayreel.checkpoints.reader import WeightFile
from rayreel.errors import CheckpointError

NETWORKS = [
    transformer,
    embeddings_processor,
    video_encoder,
    video_decoder,
    video_statistics,
    audio_decoder,
    vocoder,
    upsampler,
]


@pytest.mark.parametrize("network", NETWORKS)
def test_file_names_and_parameter_names_are_inverse(tiny_model, network):
    wanted = network(ModelFiles(tiny_model))
    names = list(wanted.make().state_dict())
    stored = [keys.file_name(name, wanted.rules) for name in names]
    assert [keys.rename(name, wanted.rules) for name in stored] == names
    assert set(stored) <= set(wanted.file.names)


def test_every_tensor_of_a_checkpoint_belongs_to_a_component(tiny_model):
    names = ModelFiles(tiny_model).transformer_file.names
    rest = [n for n in names if all(keys.rename(n, r) is None for r in keys.COMPONENTS.values())]
    assert rest == []


@pytest.mark.parametrize(
    ("name", "rules", "parameter"),
    [
        ("model.diffusion_model.proj_out.bias", keys.TRANSFORMER, "proj_out.bias"),
        ("model.diffusion_model.video_embeddings_connector.x", keys.TRANSFORMER, None),
        ("model.diffusion_model.audio_embeddings_connector.x", keys.TEXT, "audio_connector.x"),
        ("text_embedding_projection.x", keys.TEXT, "feature_extractor.x"),
        ("vocoder.vocoder.conv_pre.weight", keys.VOCODER, "vocoder.conv_pre.weight"),
        ("vae.per_channel_statistics.mean-of-stds", keys.VIDEO_DECODER, None),
        ("vae.per_channel_statistics.std-of-means", keys.VIDEO_STATISTICS, "std-of-means"),
        ("audio_vae.decoder.conv_in.conv.bias", keys.VIDEO_DECODER, None),
        ("vision_tower.x", keys.LANGUAGE_MODEL, None),
        ("model.diffusion_model.embeddings_connector.x", keys.TEXT, "video_connector.x"),
        ("model.diffusion_model.embeddings_connector.x", keys.TRANSFORMER, None),
        ("decoder.conv_in.conv.bias", keys.VIDEO_DECODER, "conv_in.conv.bias"),
        ("encoder.conv_in.conv.bias", keys.VIDEO_DECODER, None),
        ("per_channel_statistics.mean-of-means", keys.VIDEO_STATISTICS, "mean-of-means"),
    ],
)
def test_prefixes_are_cut_once_and_from_the_front(name, rules, parameter):
    assert keys.rename(name, rules) == parameter


def test_a_file_without_the_component_is_refused(tiny_folder):
    lora = WeightFile(tiny_folder / "ltx-2-tiny-distilled-lora.safetensors")
    with pytest.raises(CheckpointError, match=r"holds no tensors named vae\.decoder\.\*"):
        keys.component_tensors(lora, keys.VIDEO_DECODER)
