"""Prompts to embeddings against the vectors: tokenizer, Gemma 3 and 4, features, connectors."""

from functools import cache

import pytest
import torch
from torch import Tensor

from rayreel.checkpoints.builder import build
from rayreel.checkpoints.text_encoder import TextEncoderFiles
from rayreel.config.model import TextConfig
from rayreel.models.text.connector import TextConnectors
from rayreel.models.text.encoder import TextEncoder
from rayreel.models.text.processor import EmbeddingsProcessor
from rayreel.types import TextContext
from tests.checkpoints.packed import loaded
from tests.parity.vectors import FOLDER, Case, cases, component, weights

CPU = torch.device("cpu")
GEMMA = "common/text_gemma3.safetensors"
CONTEXTS = "v2[03]/text.safetensors"
GEMMA_4 = "v25/text.safetensors"
PACKED = "v25/text_encoder_model.safetensors"
COMPONENTS = {
    "feature_extractor.": "text_embedding_projection.",
    "video_connector.": "model.diffusion_model.video_embeddings_connector.",
    "audio_connector.": "model.diffusion_model.audio_embeddings_connector.",
}


@cache
def files(folder: str):
    """The text encoder of a generation."""
    return TextEncoderFiles(FOLDER / (PACKED if folder == "v25" else "gemma"))


@cache
def gemma(folder: str):
    return loaded(files(folder), device=CPU, dtype=torch.float32)


@cache
def processor(folder: str):
    # From 2.5 on the transformer's file has the connectors, the text encoder's the projection.
    split = (f"{folder}/transformer_model.safetensors", PACKED)
    sources = split if folder == "v25" else (f"{folder}/model.safetensors",)
    config = weights(sources[0]).section("transformer", TextConfig)
    tensors = {
        ours + name: tensor
        for ours, prefix in COMPONENTS.items()
        for source in sources
        for name, tensor in component(source, prefix).items()
    }
    opened = files(folder)
    sizes = {"hidden_size": opened.hidden_size, "num_hidden_states": opened.num_hidden_states}
    return build(lambda: EmbeddingsProcessor(config, **sizes), tensors)


def source(case: Case) -> Case:
    """The case that holds prompt and hidden states: the one referred to, or the case itself."""
    if "inputs" not in case.options:
        return case
    return Case(*case.options["inputs"].rsplit(":", 1))


def expected_states(case: Case) -> Tensor:
    """Hidden states ``(B, L, D, S)`` of a Gemma case; 0 at padding that is not stored."""
    if "hidden_states" in case.out:
        states = case.out["hidden_states"]
    else:
        valid, mask = case.out["hidden_states_valid"], case.inputs["attention_mask"]
        states = valid.new_zeros(valid.shape[0], *mask.shape, valid.shape[-1])
        states[:, mask.bool()] = valid.flatten(1, 2)
    return states.permute(1, 2, 3, 0)


def assert_contexts(case: Case, context: TextContext):
    rows = case.out.get("rows", torch.arange(context.video.shape[-2]))
    case.assert_close(context.video[:, rows], "video_context")
    case.assert_close(context.audio[:, rows], "audio_context")


def with_prompt(pattern: str):
    """Cases that start from a prompt."""
    return [p for p in cases(pattern) if "prompt" in source(p.values[0]).options]


def storing(pattern: str, *names: str):
    """Cases that store one of some outputs."""
    return [p for p in cases(pattern) if p.values[0].out.keys() & set(names)]


@pytest.mark.parametrize("case", with_prompt(GEMMA))
def test_tokenizer_gives_the_ids_of_the_vectors(case):
    tokenizer = files(case.folder).tokenizer(length=case.options["sequence"])
    input_ids, mask = tokenizer([case.options["prompt"]])
    case.assert_close(input_ids, case.inputs["input_ids"])
    case.assert_close(mask, case.inputs["attention_mask"])


@pytest.mark.parametrize("case", with_prompt(GEMMA_4))
def test_tokenizer_of_a_packed_file_gives_the_ids_of_the_vectors(case):
    input_ids, mask = files(case.folder).tokenizer()([case.options["prompt"]])
    case.assert_close(input_ids[0], "input_ids")
    case.assert_close(mask[0], "attention_mask")


@pytest.mark.parametrize("case", cases(GEMMA) + storing(GEMMA_4, "hidden_states"))
def test_hidden_states_agree_at_valid_positions(case):
    valid = case.inputs["attention_mask"].bool()
    states = gemma(case.folder)(case.inputs["input_ids"], case.inputs["attention_mask"])
    case.assert_close(states[valid], expected_states(case)[valid])


@pytest.mark.parametrize("case", cases(CONTEXTS) + storing(GEMMA_4, "video_context"))
def test_contexts_agree_from_given_hidden_states(case):
    embed, mask = processor(case.folder), case.inputs["attention_mask"]
    context = embed(expected_states(source(case)), mask)
    assert_contexts(case, context)


@pytest.mark.parametrize("case", storing(GEMMA_4, "video_context"))
def test_contexts_agree_from_token_ids(case):
    input_ids, mask = case.inputs["input_ids"], case.inputs["attention_mask"]
    assert_contexts(case, processor(case.folder)(gemma(case.folder)(input_ids, mask), mask))


@pytest.mark.parametrize("case", storing(CONTEXTS, "video_features", "audio_features"))
def test_features_agree_before_the_connectors(case):
    states, mask = expected_states(source(case)), case.inputs["attention_mask"]
    video, audio = processor(case.folder).feature_extractor(states, mask)
    features = {"video_features": video, "audio_features": audio}
    for name in features.keys() & case.out.keys():
        case.assert_close(features[name], name)


@pytest.mark.parametrize("case", storing(CONTEXTS, "binary_mask", "mask_sum"))
def test_every_row_of_a_context_is_valid(case):
    context = processor(case.folder)(expected_states(source(case)), case.inputs["attention_mask"])
    valid = torch.ones(context.video.shape[:2], dtype=torch.int64)
    masks = {"binary_mask": valid, "mask_sum": valid.sum()}
    for name in masks.keys() & case.out.keys():
        case.assert_close(masks[name], name)


@pytest.mark.parametrize("case", with_prompt(CONTEXTS))
def test_encoder_goes_from_prompts_to_contexts(case):
    options = source(case).options
    tokenizer = files(case.folder).tokenizer(length=options["sequence"])
    whole = processor(case.folder)
    encoder = TextEncoder(tokenizer, gemma(case.folder), whole.feature_extractor)
    weights = {n: w for n, w in whole.state_dict().items() if "connector" in n}
    connectors = build(lambda: TextConnectors(whole.feature_extractor.config), weights)
    [context] = connectors(encoder([options["prompt"]]))
    assert_contexts(case, TextContext(video=context.video[None], audio=context.audio[None]))
