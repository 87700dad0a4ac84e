"""Encoded texts in the store: they come back as they were, and are told apart by what made them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.tiny import locate_model, write_tiny
from rayreel.data.storage import Storage
from rayreel.data.store import RecordStore
from rayreel.models.text.tiny import write_tiny_gemma
from rayreel.pipelines import phases
from rayreel.pipelines.ledger import ModelLedger
from rayreel.pipelines.texts import TextStore
from rayreel.types import TextFeatures
from tests.pipelines.small import DEVICE, small_resolved, tiny_ledger

PROMPTS = ["A fox.", "", "Rain, 雨 и 🌧\non a roof"]


@pytest.fixture
def records():
    return RecordStore(Storage(f"memory://{uuid4().hex}"))


def files_with(**changed: str) -> ModelFiles:
    return ModelFiles(locate_model("tiny").model_copy(update=changed))


@pytest.fixture
def gemma(tmp_path) -> Path:
    """A copy of the tiny language model."""
    copy: Path = tmp_path / "gemma"
    shutil.copytree(locate_model("tiny").gemma, copy)
    return copy


def drawn(video: int, audio: int | None, dtype=torch.bfloat16) -> TextFeatures:
    """Features of seven tokens; ``None`` shares one tensor."""
    picture = torch.randn(7, video).to(dtype)
    sound = picture if audio is None else torch.randn(7, audio).to(dtype)
    return TextFeatures(video=picture, audio=sound, length=1024)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("audio", [4, 0, None])
def test_features_come_back_to_the_bit(records, audio, dtype):
    saved = drawn(8, audio, dtype)
    TextStore(records, files_with()).put({"A fox.": saved})
    loaded = TextStore(records, files_with()).get("A fox.")
    assert loaded is not None
    assert loaded.length == 1024
    for ours, theirs in ((loaded.video, saved.video), (loaded.audio, saved.audio)):
        assert ours.dtype == dtype
        assert torch.equal(ours, theirs)


def test_a_tensor_that_both_streams_share_is_stored_once(records):
    shared, apart = drawn(512, None), drawn(512, 512)
    store = TextStore(records, files_with())
    store.put({"one": shared, "two": apart})
    sizes = [len(records.get(store.key(text)).tensors) for text in ("one", "two")]
    assert sizes[0] < sizes[1] - shared.video.nbytes / 2
    loaded = store.get("one")
    assert loaded is not None
    assert loaded.audio is loaded.video


def test_what_is_known_is_told_and_the_rest_is_not_there(records):
    store = TextStore(records, files_with())
    store.put({text: drawn(8, 4) for text in PROMPTS})
    assert TextStore(records, files_with()).known({*PROMPTS, "A cat."}) == set(PROMPTS)
    assert store.get("A cat.") is None


def test_a_batch_of_texts_is_one_part_with_columns_to_filter_on(tmp_path):
    records = RecordStore(Storage(tmp_path))
    TextStore(records, files_with()).put({text: drawn(8, 4) for text in PROMPTS})
    assert len(list((tmp_path / "records").iterdir())) == 1
    (record,) = records.find("text", PROMPTS[0])
    assert set(record.made_by or ()) == {
        "language_model",
        "tokenizer",
        "feature_extractor",
        "length",
        "format",
    }


def test_a_text_that_is_asked_for_again_is_not_read_again(records, monkeypatch):
    store = TextStore(records, files_with())
    store.put({"A fox.": drawn(8, 4)})
    first = store.get("A fox.")
    monkeypatch.setattr(RecordStore, "get", None)
    assert store.get("A fox.") is first


def test_few_texts_are_held_in_memory(records):
    store = TextStore(records, files_with())
    texts = [f"{number}" for number in range(100)]
    store.put({text: drawn(8, 4) for text in texts})
    for text in texts:
        store.get(text)
    assert len(store._kept) <= 16
    assert store.get("0") is not None


def test_texts_of_another_length_are_refused(records):
    store = TextStore(records, files_with(), length=128)
    with pytest.raises(ValueError, match=r"texts of 1024 tokens .* of 128 tokens"):
        store.put({"A fox.": drawn(8, 4)})


def test_a_model_of_short_prompts_has_other_texts(records, gemma):
    TextStore(records, files_with()).put({"A fox.": drawn(8, 4)})
    edited(gemma, "tokenizer_config.json", model_max_length=128)
    store = TextStore(records, files_with(gemma=str(gemma)))
    assert store.explain("A fox.") == "this text was encoded with another length (1024; here 128)"
    store.put({"A fox.": short(drawn(8, 4))})
    found = TextStore(records, files_with(gemma=str(gemma))).get("A fox.")
    assert found is not None
    assert found.length == 128


def test_copies_of_the_files_share_their_texts(records, gemma):
    TextStore(records, files_with()).put({"A fox.": drawn(8, 4)})
    store = TextStore(records, files_with(gemma=str(gemma)))
    assert store.known(["A fox."]) == {"A fox."}
    assert store.explain("A fox.") is None


def edited(gemma: Path, name: str, **values) -> None:
    file = gemma / name
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def another_tokenizer(gemma):
    edited(gemma, "tokenizer.json", version="2.0")


def another_config(gemma):
    edited(gemma, "config.json", initializer_range=0.5)


def other_weights(gemma):
    write_tiny_gemma(gemma, seed=1)


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (another_tokenizer, ["tokenizer"]),
        (another_config, ["language model"]),
        (other_weights, ["language model"]),
    ],
)
def test_another_encoder_has_other_texts_and_says_what_differs(records, gemma, change, names):
    TextStore(records, files_with()).put({"A fox.": drawn(8, 4)})
    change(gemma)
    store = TextStore(records, files_with(gemma=str(gemma)))
    assert store.get("A fox.") is None
    why = str(store.explain("A fox."))
    all_names = ["language model", "tokenizer", "feature extractor", "length", "format"]
    assert [name for name in all_names if f"another {name} (" in why] == names


def test_another_projection_has_other_texts_and_other_connectors_have_not(records, tmp_path):
    TextStore(records, files_with()).put({"A fox.": drawn(8, 4)})
    source = str(locate_model("tiny").checkpoint)
    with safe_open(source, "pt") as file:
        metadata = file.metadata()

    def store_with(name):
        tensors = load_file(source)
        tensors[name] += 1
        save_file(tensors, tmp_path / "changed.safetensors", metadata)
        checkpoint = str(tmp_path / "changed.safetensors")
        return TextStore(records, files_with(checkpoint=checkpoint))

    connector = "model.diffusion_model.video_embeddings_connector.learnable_registers"
    assert store_with(connector).known(["A fox."])
    projected = store_with("text_embedding_projection.aggregate_embed.weight")
    assert not projected.known(["A fox."])
    assert "another feature extractor" in str(projected.explain("A fox."))


def test_the_nearest_record_explains_a_text(records, gemma):
    TextStore(records, files_with(), length=128).put({"A fox.": short(drawn(8, 4))})
    other_weights(gemma)
    TextStore(records, files_with(gemma=str(gemma)), length=128).put({"A fox.": short(drawn(8, 4))})
    store = TextStore(records, files_with())
    assert store.explain("A fox.") == "this text was encoded with another length (128; here 1024)"
    assert store.explain("A cat.") == "this text was never encoded"


def short(features: TextFeatures) -> TextFeatures:
    return TextFeatures(video=features.video, audio=features.audio, length=128)


@pytest.mark.parametrize("generation", ["2.0", "2.3"])
def test_contexts_of_stored_features_are_those_of_fresh_ones(records, tmp_path, generation):
    ledger = ModelLedger(write_tiny(tmp_path, generation), DEVICE)
    request = small_resolved(ledger.files, pipeline="one_stage")
    (fresh,) = phases.encode(ledger, [request])
    assert fresh.negative is not None
    for _ in range(2):
        store = TextStore(records, ledger.files)
        (stored,) = phases.encode(ledger, [request], store=store)
        assert torch.equal(stored.context.video, fresh.context.video)
        assert torch.equal(stored.context.audio, fresh.context.audio)
        assert stored.negative is not None
        assert torch.equal(stored.negative.video, fresh.negative.video)


def test_the_language_model_is_not_loaded_for_known_texts(records):
    first, second = tiny_ledger(), tiny_ledger()
    for ledger in (first, second):
        phases.features(ledger, ["A fox.", "A cat."], TextStore(records, ledger.files, length=128))
    phases.contexts(
        second, phases.features(second, ["A fox."], TextStore(records, second.files, length=128))
    )
    assert first.loads == ("TextEncoder",)
    assert second.loads == ("TextConnectors",)


def test_keys_of_texts_need_no_language_model_library():
    """Whoever denoises asks for them."""
    code = (
        "import sys; from rayreel.checkpoints.tiny import locate_model\n"
        "from rayreel.checkpoints.files import ModelFiles\n"
        "from rayreel.data.storage import Storage; from rayreel.data.store import RecordStore\n"
        "from rayreel.pipelines.texts import TextStore\n"
        "store = TextStore(RecordStore(Storage('memory://a')), ModelFiles(locate_model('tiny')))\n"
        "store.key('A fox.')\n"
        "assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
