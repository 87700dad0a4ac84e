"""Encoded media in the store: they come back, and are told apart by what they were made of."""

from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.tiny import locate_model
from rayreel.config.buckets import Bucket
from rayreel.data.samples import Mask, Medium
from rayreel.data.storage import Storage
from rayreel.data.store import RecordStore
from rayreel.pipelines import latents
from rayreel.pipelines.latents import LatentStore, kind_of
from tests.pipelines.media import picture, sound

CLIP, TRACK = picture(Path("a.mkv")), sound(Path("a.wav"))
MASKS = [Mask(source="m", content="m", of=CLIP), Mask(source="m", content="m", of=TRACK)]
MEDIA: list[Medium] = [CLIP, TRACK, *MASKS]


@pytest.fixture
def records():
    return RecordStore(Storage(f"memory://{uuid4().hex}"))


def store_of(records, *, tiled=False, **changed) -> LatentStore:
    spec = locate_model("tiny").model_copy(update=changed)
    return LatentStore(records, ModelFiles(spec), tiled=tiled)


def put(store, *media) -> None:
    store.put({medium: torch.zeros(2, 1, 2, 3) for medium in media})


def changed_weights(folder: Path, name: str) -> str:
    """The tiny model's checkpoint with one other tensor."""
    source, path = str(locate_model("tiny").checkpoint), folder / f"{name}.safetensors"
    with safe_open(source, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(source)
    tensors[name] += 1
    save_file(tensors, path, metadata)
    return str(path)


def test_what_was_put_comes_back_in_the_dtype_that_training_reads(records):
    store = store_of(records)
    tensors = [torch.randn(4, 2, 2, 3), torch.randn(2, 7, 16), torch.ones(2, 2, 3), torch.ones(7)]
    store.put(dict(zip(MEDIA, tensors, strict=True)))
    for medium, tensor in zip(MEDIA, tensors, strict=True):
        found = store_of(records).get(store.key(medium))
        assert found is not None
        dtype = torch.bfloat16 if medium is CLIP else torch.float32
        assert torch.equal(found, tensor.to(dtype))
        assert found.dtype == dtype
    assert store.get("?") is None


def test_notes_lie_beside_what_they_are_about(records):
    store = store_of(records)
    store.put({TRACK: torch.ones(3), CLIP: torch.ones(3)}, {TRACK: "the sound lacks — much"})
    found = store_of(records).read([store.key(CLIP), "?", store.key(TRACK)])
    assert [one.note for one in found.values()] == [None, "the sound lacks — much"]


def test_all_that_is_put_at_once_is_one_part_with_columns_to_filter_on(tmp_path):
    records = RecordStore(Storage(tmp_path))
    put(store_of(records), *MEDIA)
    assert len(list((tmp_path / "records").iterdir())) == 1
    (record,) = records.find("video_latents", "a from 0")
    assert record.made_by is not None
    assert record.made_by.items() >= {"bucket": "96x64x9", "crop": "0,0", "tiled": "no"}.items()


def test_keys_that_are_known_are_told(records):
    store = store_of(records)
    put(store, CLIP)
    keys = [store.key(medium) for medium in MEDIA]
    assert len(set(keys)) == len(keys)
    assert store_of(records).known(keys) == {store.key(CLIP)}


@pytest.mark.parametrize(
    ("medium", "changes", "why"),
    [
        (CLIP, {"crop": (0, 8)}, "crop (0,0; here 0,8)"),
        (
            CLIP,
            {"bucket": Bucket(width=64, height=64, num_frames=9)},
            "bucket (96x64x9; here 64x64x9)",
        ),
        (CLIP, {"stride": 2, "fps": 12.0}, "stride (1; here 2) and another fps (24; here 12)"),
        (TRACK, {"duration_s": 0.5}, "duration (1; here 0.5)"),
        (MASKS[0], {"of": replace(CLIP, stride=2)}, "stride (1; here 2)"),
        (
            MASKS[1],
            {"of": replace(TRACK, duration_s=0.75)},
            "duration (1; here 0.75) and another steps (26; here 19)",
        ),
    ],
)
def test_another_framing_is_another_record_and_says_what_differs(records, medium, changes, why):
    store, other = store_of(records), replace(medium, **changes)
    put(store, medium)
    assert store.explain(medium) is None
    assert store.key(other) != store.key(medium)
    assert store.explain(other) == f"this part of the file was encoded with another {why}"


@pytest.mark.parametrize(
    ("medium", "changes"),
    [
        (CLIP, {"content": "b"}),
        (CLIP, {"start": 1}),
        (TRACK, {"content": "b"}),
        (TRACK, {"start_s": 0.5}),
        (MASKS[0], {"content": "b"}),
        (MASKS[0], {"start": 1}),
        (MASKS[1], {"of": replace(TRACK, start_s=0.5)}),
    ],
)
def test_another_part_of_a_file_was_never_encoded(records, medium, changes):
    store, other = store_of(records), replace(medium, **changes)
    put(store, medium)
    assert store.explain(other) == "this part of the file was never encoded"


def test_the_same_content_elsewhere_and_whole_numbers_of_either_kind_are_the_same(records):
    store = store_of(records)
    assert store.key(replace(CLIP, source="s3://b/a.mkv", fps=24)) == store.key(CLIP)
    assert store.key(replace(TRACK, duration_s=1)) == store.key(TRACK)
    assert store.key(replace(MASKS[0], of=replace(CLIP, crop=(0, 8)))) == store.key(MASKS[0])


@pytest.mark.parametrize(
    ("name", "affected", "why"),
    [
        ("vae.encoder.conv_in.conv.weight", [CLIP], "video encoder"),
        ("vae.decoder.conv_in.conv.weight", [], None),
        ("audio_vae.encoder.conv_in.conv.weight", [TRACK], "audio encoder"),
        ("audio_vae.decoder.conv_in.conv.weight", [], None),
    ],
)
def test_other_weights_change_what_they_encode_alone(records, tmp_path, name, affected, why):
    before = store_of(records)
    put(before, *MEDIA)
    after = store_of(records, checkpoint=changed_weights(tmp_path, name))
    assert [m for m in MEDIA if after.key(m) != before.key(m)] == affected
    for medium in affected:
        assert f"was encoded with another {why} (" in str(after.explain(medium))


def test_tiles_and_the_version_of_the_preprocessing_are_in_the_key(records, monkeypatch):
    whole, tiled = store_of(records), store_of(records, tiled=True)
    put(whole, *MEDIA)
    assert [m for m in MEDIA if whole.key(m) != tiled.key(m)] == [CLIP]
    monkeypatch.setattr(latents, "PREPROCESSING", "2")
    assert whole.known([whole.key(medium) for medium in MEDIA]) == set()
    assert str(whole.explain(TRACK)).endswith("with another preprocessing (1; here 2)")


def test_a_store_says_what_all_its_latents_are_made_by(records):
    made_by = store_of(records, tiled=True).made_by
    assert made_by["tiled"] == "yes"
    assert made_by.keys() == {
        *("preprocessing", "tiled", "video_encoder", "audio_encoder", "mel"),
    }
    assert [kind_of(medium) for medium in MEDIA] == [
        *("video_latents", "audio_latents", "video_mask", "audio_mask"),
    ]
