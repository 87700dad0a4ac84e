"""Text encoder files: folders and packed files, read, checked and loaded; broken ones refused."""

import json
import math
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Gemma3ForConditionalGeneration, Gemma4UnifiedModel

from rayreel.checkpoints.text_encoder import TextEncoderFiles
from rayreel.errors import CheckpointError
from rayreel.models.text.language_models import make_gemma, parse_config
from rayreel.models.text.tiny import VOCABULARY, write_tiny_gemma
from rayreel.models.text.tokenizer import BOS_ID
from tests.checkpoints.packed import CONFIG, loaded, write_packed

CPU = torch.device("cpu")
PROMPT = "A red fox, 雨."
NORM = "model.norm.weight"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("gemma-3")
    write_tiny_gemma(path, seed=0)
    return path


@pytest.fixture(scope="module")
def tokenizer_json(folder):
    """The tokenizer of Gemma 4: it puts no token in front."""
    values = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    return json.dumps(values | {"post_processor": None}, ensure_ascii=False)


@pytest.fixture(scope="module")
def packed(tmp_path_factory, tokenizer_json):
    return write_packed(tmp_path_factory.mktemp("gemma-4") / "gemma-4.safetensors", tokenizer_json)


@pytest.fixture
def gemma_4(packed):
    return loaded(TextEncoderFiles(packed), device=CPU, dtype=torch.float32)


def edit_json(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | changes), "utf-8")


def states_of(model, input_ids, mask):
    """Hidden states that transformers' whole model gives, stacked as ours are."""
    output = model(
        input_ids=input_ids, attention_mask=mask, output_hidden_states=True, use_cache=False
    )
    return torch.stack(output.hidden_states, dim=-1)


def test_an_opened_folder_states_what_it_holds(folder):
    files = TextEncoderFiles(folder)
    assert (files.model_type, files.gemma_version, files.packed) == ("gemma3", None, False)
    assert (files.hidden_size, files.num_hidden_states) == (64, 5)
    files.check()


def test_an_opened_packed_file_states_what_it_holds(packed):
    files = TextEncoderFiles(packed)
    assert (files.model_type, files.packed) == ("gemma4_unified", True)
    assert files.gemma_version == "gemma4-tiny-v1"
    assert (files.hidden_size, files.num_hidden_states) == (16, 3)
    files.check()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_folder_gives_the_states_of_from_pretrained(folder, dtype):
    files = TextEncoderFiles(folder)
    input_ids, mask = files.tokenizer(length=32)([PROMPT])
    theirs = Gemma3ForConditionalGeneration.from_pretrained(folder, dtype=dtype).eval()
    with torch.no_grad():
        expected = states_of(theirs.model.language_model, input_ids, mask)
    actual = loaded(files, device=CPU, dtype=dtype)(input_ids, mask)
    assert actual.dtype == dtype
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_packed_file_gives_the_states_of_from_pretrained(packed, tmp_path, dtype):
    files = TextEncoderFiles(packed)
    input_ids, mask = files.tokenizer(length=32)([PROMPT])
    weights = {
        f"model.language_model.{name.removeprefix('model.')}": tensor
        for name, tensor in load_file(packed).items()
        if name.startswith("model.")
    }
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    config = CONFIG | {"vision_config": None, "audio_config": None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    theirs = Gemma4UnifiedModel.from_pretrained(tmp_path, dtype=dtype).eval()
    with torch.no_grad():
        expected = states_of(theirs, input_ids, mask)
    assert torch.equal(loaded(files, device=CPU, dtype=dtype)(input_ids, mask), expected)


@pytest.mark.parametrize(
    ("settings", "length"),
    [
        ({}, 1024),
        ({"model_max_length": None}, 1024),
        ({"model_max_length": 10**30}, 1024),
        ({"model_max_length": 128}, 128),
    ],
)
def test_prompts_are_as_long_as_the_tokenizer_says_and_1024_at_most(tmp_path, settings, length):
    write_tiny_gemma(tmp_path, seed=0)
    edit_json(tmp_path / "tokenizer_config.json", **settings)
    files = TextEncoderFiles(tmp_path)
    assert files.prompt_tokens == files.tokenizer().length == length
    assert files.tokenizer(length=32).length == 32


def test_prompts_of_packed_files_and_without_settings_have_1024_tokens(packed, tmp_path):
    write_tiny_gemma(tmp_path, seed=0)
    (tmp_path / "tokenizer_config.json").unlink()
    assert TextEncoderFiles(tmp_path).prompt_tokens == 1024
    assert TextEncoderFiles(packed).prompt_tokens == 1024


@pytest.mark.parametrize("most", [0, -1, "128", True])
def test_a_length_that_is_none_is_refused(tmp_path, most):
    write_tiny_gemma(tmp_path, seed=0)
    edit_json(tmp_path / "tokenizer_config.json", model_max_length=most)
    with pytest.raises(CheckpointError, match=r"model_max_length=.*, expected a number of tokens"):
        TextEncoderFiles(tmp_path).check()


def test_weights_of_the_wanted_dtype_stay_mapped(packed):
    files = TextEncoderFiles(packed)
    gemma = loaded(files, device=CPU, dtype=torch.bfloat16)
    mapped = files.file.tensor(NORM)
    assert gemma.model.norm.weight.data_ptr() == mapped.data_ptr()
    assert not any(tensor.is_meta for tensor in (*gemma.parameters(), *gemma.buffers()))
    assert not any(parameter.requires_grad for parameter in gemma.parameters())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("name", ["folder", "packed"])
def test_states_on_the_gpu_are_those_of_the_cpu(request, name):
    files, cuda = TextEncoderFiles(request.getfixturevalue(name)), torch.device("cuda")
    input_ids, mask = files.tokenizer(length=32)([PROMPT, "A red fox on a tin roof."])
    expected = loaded(files, device=CPU, dtype=torch.float32)(input_ids, mask)[mask.bool()]
    exact, rounded = (
        loaded(files, device=cuda, dtype=dtype)(input_ids.to(cuda), mask.to(cuda))[mask.bool()]
        for dtype in (torch.float32, torch.bfloat16)
    )
    torch.testing.assert_close(exact.cpu(), expected, rtol=1e-3, atol=1e-3)
    assert rounded.isfinite().all()


def test_only_wanted_weights_are_read(packed):
    weights = TextEncoderFiles(packed).weights(CPU, torch.float32, wanted=lambda n: "norm" in n)
    assert NORM in weights
    assert all("norm" in name and weight.dtype == torch.float32 for name, weight in weights.items())


def test_nested_names_of_a_packed_file_are_read_too(tmp_path, tokenizer_json, gemma_4):
    nested = write_packed(
        tmp_path / "nested.safetensors",
        tokenizer_json,
        prefix="model.language_model.",
        tensors={"model.embed_vision.embedding_projection.weight": torch.ones(1)},
    )
    read = loaded(TextEncoderFiles(nested), device=CPU, dtype=torch.float32).state_dict()
    assert all(torch.equal(w, read[name]) for name, w in gemma_4.state_dict().items())


def test_a_sharded_folder_loads_like_a_single_file(folder, tmp_path):
    weights = load_file(folder / "model.safetensors")
    shard_of = {name: f"model-{i % 2}.safetensors" for i, name in enumerate(weights)}
    for shard in set(shard_of.values()):
        part = {name: weights[name] for name in weights if shard_of[name] == shard}
        save_file(part, tmp_path / shard, {"format": "pt"})
    index = {"metadata": {}, "weight_map": shard_of}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    sharded, whole = (
        loaded(TextEncoderFiles(path), device=CPU, dtype=torch.float32).state_dict()
        for path in (tmp_path, folder)
    )
    assert sharded.keys() == whole.keys()
    assert all(torch.equal(weight, whole[name]) for name, weight in sharded.items())


def test_tokenizer_of_a_packed_file_puts_bos_in_front(packed, folder):
    ours, theirs = (TextEncoderFiles(path).tokenizer(length=32) for path in (packed, folder))
    for actual, expected in zip(ours([PROMPT, ""]), theirs([PROMPT, ""]), strict=True):
        assert torch.equal(actual, expected)


def test_tokenizer_packed_as_signed_bytes_is_the_same(packed, tmp_path, tokenizer_json):
    raw = load_file(packed)["tokenizer_json"].view(torch.int8)
    assert (raw < 0).any()
    file = write_packed(tmp_path / "a.safetensors", tokenizer_json, tensors={"tokenizer_json": raw})
    (expected, _), (actual, _) = (TextEncoderFiles(f).tokenizer()([PROMPT]) for f in (packed, file))
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("token", ["image_soft_token", "start_of_image", "end_of_image"])
def test_gemma_4_reads_padding_where_a_prompt_has_a_placeholder(gemma_4, token):
    typed = torch.tensor([[BOS_ID, 300, VOCABULARY[f"<{token}>"], 301]])
    padded = torch.tensor([[BOS_ID, 300, VOCABULARY["<pad>"], 301]])
    mask = torch.ones_like(typed)
    assert torch.equal(gemma_4(typed, mask), gemma_4(padded, mask))


def test_gemma_3_embeds_a_placeholder_as_it_is(folder):
    gemma = loaded(TextEncoderFiles(folder), device=CPU, dtype=torch.float32)
    typed = torch.tensor([[BOS_ID, 300, VOCABULARY["<image_soft_token>"], 301]])
    padded = torch.tensor([[BOS_ID, 300, VOCABULARY["<pad>"], 301]])
    mask = torch.ones_like(typed)
    assert not torch.equal(gemma(typed, mask), gemma(padded, mask))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({NORM: None}, r"missing \(1\): model\.norm\.weight"),
        ({NORM: torch.ones(3)}, r"wrong shape \(1\): .*norm\.weight: expected \(16,\), got \(3,\)"),
        ({"other.weight": torch.ones(3)}, r"unexpected \(1\): other\.weight"),
        ({"tokenizer_json": None}, r"has no tensor 'tokenizer_json'"),
        ({"tokenizer_json": torch.ones(3).byte()}, r"tokenizer of .* is not one"),
        ({"tokenizer_json": torch.full((3,), 255).byte()}, r"'tokenizer_json' is not text"),
    ],
)
def test_a_packed_file_that_does_not_fit_is_refused(tmp_path, tokenizer_json, changes, message):
    file = write_packed(tmp_path / "broken.safetensors", tokenizer_json, tensors=changes)
    with pytest.raises(CheckpointError, match=message):
        TextEncoderFiles(file).check()


def test_what_does_not_fit_is_refused_when_it_is_loaded_too(tmp_path):
    write_tiny_gemma(tmp_path, seed=0)
    edit_json(tmp_path / "config.json", text_config={"num_hidden_layers": 1})
    with pytest.raises(CheckpointError, match=f"{tmp_path} does not fit the network Gemma"):
        loaded(TextEncoderFiles(tmp_path), device=CPU, dtype=torch.bfloat16)


def test_another_safetensors_file_is_not_a_packed_text_encoder(folder):
    with pytest.raises(CheckpointError, match=r"not a packed text encoder: .* no 'gemma_config'"):
        TextEncoderFiles(folder / "model.safetensors")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_an_incomplete_folder_is_refused(tmp_path, name):
    write_tiny_gemma(tmp_path, seed=0)
    (tmp_path / name).unlink()
    with pytest.raises(CheckpointError, match=rf"text encoder {tmp_path} has .*{name}"):
        TextEncoderFiles(tmp_path).check()


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_configuration_that_is_no_json_object_is_refused(tmp_path, text):
    write_tiny_gemma(tmp_path, seed=0)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json is not "):
        TextEncoderFiles(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model_type": "gemma2"},
            r"model_type='gemma2', expected one of \['gemma3', 'gemma4_unif",
        ),
        ({"text_config": {"hidden_size": "wide"}}, "not a configuration of gemma3"),
        ({"text_config": []}, "not a configuration of gemma3"),
    ],
)
def test_another_language_model_is_refused(tmp_path, changes, message):
    write_tiny_gemma(tmp_path, seed=0)
    edit_json(tmp_path / "config.json", **changes)
    with pytest.raises(CheckpointError, match=message):
        TextEncoderFiles(tmp_path).check()


def test_opening_and_importing_need_no_transformers(folder):
    code = (
        "import sys, pathlib, rayreel.checkpoints.text_encoder as t, rayreel.models.text.tiny\n"
        "t.TextEncoderFiles(pathlib.Path(sys.argv[1])).tokenizer()\n"
        "sys.exit('transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], check=False, timeout=120)
    assert done.returncode == 0


PUBLISHED_SIZES = {
    "hidden_size": 3840,
    "intermediate_size": 15360,
    "num_hidden_layers": 48,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 256,
}


def published_shapes(model_type, **sizes):
    config = parse_config({"model_type": model_type, "text_config": PUBLISHED_SIZES | sizes})
    with torch.device("meta"):
        state = make_gemma(config).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def test_gemma_4_of_the_published_size_has_the_published_weights():
    shapes = published_shapes(
        "gemma4_unified",
        vocab_size=262144,
        global_head_dim=512,
        num_global_key_value_heads=1,
        attention_k_eq_v=True,
    )
    assert len(shapes) == 40 * 14 + 8 * 13 + 2
    assert shapes["model.layers.4.self_attn.q_proj.weight"] == (16 * 256, 3840)
    assert shapes["model.layers.4.self_attn.v_proj.weight"] == (8 * 256, 3840)
    assert shapes["model.layers.5.self_attn.q_proj.weight"] == (16 * 512, 3840)
    assert shapes["model.layers.5.self_attn.k_proj.weight"] == (512, 3840)
    assert "model.layers.5.self_attn.v_proj.weight" not in shapes
    # The published file, less its text projections, inputs of other kinds and tokenizer.
    others = 188160 * (4096 + 2048) + 6144 + 3840 * (2 * 1120 + 6912 + 3840 + 640)
    in_bfloat16 = 2 * (others + sum(map(math.prod, shapes.values())))
    assert 32e6 < 26_263_858_182 - in_bfloat16 < 33e6


def test_gemma_3_of_the_published_size_has_the_published_weights():
    shapes = published_shapes("gemma3", vocab_size=262208)
    assert len(shapes) == 48 * 13 + 2
    assert shapes["model.layers.5.self_attn.v_proj.weight"] == (8 * 256, 3840)
