"""What a text encoder's files can do beside encoding, and why not, from headers and small files."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from rayreel.checkpoints.text_encoder import TextEncoderFiles
from rayreel.checkpoints.text_generator import TextGeneratorFiles
from rayreel.errors import CheckpointError
from rayreel.models.text.tiny import CHAT_TEMPLATE, write_tiny_gemma
from tests.checkpoints.packed import write_packed


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "gemma"
    write_tiny_gemma(path, seed=0, chat=True)
    return path


def opened(path):
    return TextGeneratorFiles(TextEncoderFiles(path))


def edit_json(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | changes), "utf-8")


def edit_weights(folder, edit):
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def without(prefix):
    def edit(weights):
        for name in [name for name in weights if name.startswith(prefix)]:
            del weights[name]

    return edit


def test_an_instructed_gemma_3_can_write_and_see(folder):
    assert (opened(folder).cannot_write, opened(folder).cannot_see) == (None, None)


def test_without_a_chat_template_it_only_encodes(tmp_path):
    write_tiny_gemma(tmp_path, seed=0)
    files = opened(tmp_path)
    assert files.cannot_write == files.cannot_see
    assert "the text encoder has no chat template" in str(files.cannot_write)
    with pytest.raises(CheckpointError, match=f"{tmp_path}: the text encoder has no chat template"):
        files.network()


def test_a_packed_gemma_4_only_encodes(folder, tmp_path):
    tokenizer = (folder / "tokenizer.json").read_text("utf-8")
    files = opened(write_packed(tmp_path / "packed.safetensors", tokenizer))
    assert str(files.cannot_write).startswith("the text encoder is a packed gemma4_unified, which")


def test_an_unknown_language_model_only_encodes(folder):
    edit_json(folder / "config.json", model_type="gemma2")
    assert str(opened(folder).cannot_write).startswith("the text encoder is a gemma2, which")


def test_a_head_that_is_not_tied_has_to_be_there(folder):
    edit_json(folder / "config.json", tie_word_embeddings=False)
    assert "has no head" in str(opened(folder).cannot_write)
    embedding = "language_model.model.embed_tokens.weight"
    edit_weights(folder, lambda w: w.update({"language_model.lm_head.weight": w[embedding] + 1}))
    assert opened(folder).cannot_write is None
    weights = opened(folder).network().weights(torch.device("cpu"), torch.float32)
    assert "model.lm_head.weight" in weights
    assert opened(folder).network().outline().model.lm_head.weight.is_meta


def test_a_tied_head_is_the_embedding_although_one_is_stored(folder):
    edit_weights(folder, lambda w: w.update({"language_model.lm_head.weight": torch.ones(1)}))
    network = opened(folder).network()
    assert "model.lm_head.weight" not in network.outline().state_dict()


@pytest.mark.parametrize("part", ["vision_tower.", "multi_modal_projector."])
def test_without_vision_weights_it_writes_and_does_not_see(folder, part):
    edit_weights(folder, without(part))
    files = opened(folder)
    assert files.cannot_write is None
    assert files.cannot_see == f"the text encoder has no weights {part}*"
    files.network().outline()


def test_without_settings_for_images_it_does_not_see(folder):
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    assert "no preprocessor_config.json" in str(opened(folder).cannot_see)
    edit_json(folder / "processor_config.json", image_processor=settings)
    assert opened(folder).cannot_see is None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("chat_template.jinja", CHAT_TEMPLATE),
        ("chat_template.json", json.dumps({"chat_template": CHAT_TEMPLATE})),
        (
            "tokenizer_config.json",
            json.dumps(
                {
                    "chat_template": [
                        {"name": "tool_use", "template": "other"},
                        {"name": "default", "template": CHAT_TEMPLATE},
                    ]
                }
            ),
        ),
    ],
)
def test_the_template_may_be_in_any_of_its_files(tmp_path, name, content):
    write_tiny_gemma(tmp_path, seed=0)
    (tmp_path / name).write_text(content)
    assert opened(tmp_path).chat_template == CHAT_TEMPLATE


def test_a_broken_file_is_told_by_name(folder):
    (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json is not JSON"):
        _ = opened(folder).cannot_write


def test_weights_that_do_not_fit_are_listed(folder):
    missing = "vision_tower.vision_model.embeddings.position_embedding.weight"
    edit_weights(folder, without(missing))
    with pytest.raises(CheckpointError, match=r"missing \(1\): model\..*position_embedding"):
        opened(folder).network().outline()


def test_the_check_needs_no_transformers(folder):
    code = (
        "import sys, pathlib\n"
        "from rayreel.checkpoints.text_encoder import TextEncoderFiles\n"
        "from rayreel.checkpoints.text_generator import TextGeneratorFiles\n"
        "files = TextGeneratorFiles(TextEncoderFiles(pathlib.Path(sys.argv[1])))\n"
        "assert files.cannot_see is None\n"
        "sys.exit('transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], check=False, timeout=120)
    assert done.returncode == 0
