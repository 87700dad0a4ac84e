"""Files of trained weights: whoever reads them computes what was trained."""

import json
import os
from pathlib import Path
from uuid import uuid4

import pytest
import torch
from safetensors import safe_open

from rayreel.checkpoints import networks
from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.keys import TRANSFORMER, rename
from rayreel.checkpoints.lora import Adapter
from rayreel.checkpoints.networks import check_networks
from rayreel.checkpoints.reader import WeightFile
from rayreel.checkpoints.tiny import locate_model
from rayreel.config.conditions import AdapterSpec
from rayreel.config.jobs import ModelSpec
from rayreel.data.storage import Storage
from rayreel.models.transformer import Transformer
from rayreel.pipelines.devices import Device
from rayreel.pipelines.ledger import ModelLedger
from rayreel.training.weights import save_adapter, save_checkpoint
from tests.fusing import fuse
from tests.layouts import LAYOUTS
from tests.training.trained import CPU, change, learned, noise_streams, spec_of, train, trainable

FLOAT32 = Device("cpu", "float32", "a test")


def with_adapter(tmp_path, *, precision="float32", reference_scales=None, **lora):
    """A model with an adapter that does something, and the file of it."""
    spec = spec_of(lora=lora).lora
    model = trainable(lora=lora).model
    change(model)
    save_adapter(
        Storage(tmp_path),
        "weights/a.safetensors",
        learned(model),
        spec=spec,
        precision=precision,
        reference_scales=reference_scales,
    )
    return model, WeightFile(tmp_path / "weights/a.safetensors")


def fused(file: WeightFile) -> Transformer:
    """The base with an adapter in its weights, which are widened to float32 before."""
    network = networks.transformer(ModelFiles(locate_model("tiny")))
    model = network.outline()
    base = network.weights(CPU, torch.float32)
    model.load_state_dict(
        fuse(base, [Adapter(file, 1.0)], aggregate_dtype=torch.float32), assign=True
    )
    return model


@torch.no_grad()
def check_same(ours, theirs, **tolerance):
    streams = noise_streams(ours.config)
    torch.testing.assert_close(ours.eval()(*streams), theirs.eval()(*streams), **tolerance)


@pytest.mark.parametrize(
    "lora",
    [
        {"rank": 4},
        {"rank": 4, "alpha": 2, "targets": "all"},
        {"rank": 4, "alpha": 12, "targets": "video", "dropout": 0.1},
    ],
    ids=["alpha is rank", "less", "more"],
)
def test_a_fused_adapter_predicts_what_was_trained(lora, tmp_path):
    model, file = with_adapter(tmp_path, **lora)
    check_same(fused(file), model, rtol=1e-4, atol=1e-4)


def test_so_does_one_that_was_trained(tmp_path):
    spec = spec_of(lora={"rank": 4, "alpha": 6}).lora
    model = trainable(lora=spec).model
    train(model)
    save_adapter(Storage(tmp_path), "a.safetensors", learned(model), spec=spec, precision="float32")
    check_same(fused(WeightFile(tmp_path / "a.safetensors")), model, rtol=1e-4, atol=1e-4)


def test_a_fused_adapter_is_far_from_the_base(tmp_path):
    model, _ = with_adapter(tmp_path, rank=4)
    with pytest.raises(AssertionError):
        check_same(trainable(lora={"rank": 4}).model, model, rtol=1e-2, atol=1e-2)


def test_the_ledger_renders_with_a_saved_adapter(tmp_path):
    model, file = with_adapter(tmp_path, rank=4, alpha=8)
    spec = locate_model("tiny").model_copy(update={"loras": (AdapterSpec(path=str(file.path)),)})
    check_networks(ModelFiles(spec))
    with ModelLedger(spec, FLOAT32).transformer() as transformer:
        # It fuses in bfloat16, as the reference does.
        check_same(transformer, model, rtol=3e-2, atol=3e-2)


def test_metadata_says_how_the_references_were_and_no_alpha(tmp_path):
    _, file = with_adapter(tmp_path, rank=4, alpha=8, reference_scales=(2, 3))
    assert Adapter(file, 1.0).reference_scales == (2, 3)
    assert file.metadata["reference_spatial_scale_factor"] == "2"
    assert file.metadata["lora_rank"] == "4"
    assert not any("alpha" in name for name in file.metadata)


@pytest.mark.parametrize(
    ("scales", "said"),
    [
        (None, set()),
        ((1, 1), {"reference_downscale_factor"}),
        ((1, 2), {"reference_downscale_factor", "reference_temporal_scale_factor"}),
        ((2, 1), {"reference_downscale_factor", "reference_spatial_scale_factor"}),
    ],
)
def test_metadata_names_references_where_there_were_some(scales, said, tmp_path):
    _, file = with_adapter(tmp_path, rank=4, reference_scales=scales)
    assert {name for name in file.metadata if name.startswith("reference")} == said


def test_factors_have_the_precision_of_the_spec(tmp_path):
    _, file = with_adapter(tmp_path, rank=4, precision="bfloat16")
    assert {file.dtype(name) for name in file.names} == {"BF16"}


def test_the_library_and_everybody_can_read_the_file(tmp_path):
    model, file = with_adapter(tmp_path, rank=4)
    with safe_open(file.path, "pt") as read:
        names = set(read.keys())
        assert all(torch.equal(read.get_tensor(name), file.tensor(name)) for name in names)
    assert len(names) == len(learned(model))
    mask = os.umask(0)
    os.umask(mask)
    assert file.path.stat().st_mode & 0o777 == 0o666 & ~mask


def test_values_lie_at_multiples_of_their_size(tmp_path):
    path, _ = with_checkpoint(ModelFiles(locate_model("tiny")), tmp_path)
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert (8 + int.from_bytes(data[:8], "little")) % 8 == 0
    sizes = {"F32": 4, "BF16": 2}
    del header["__metadata__"]
    assert all(e["data_offsets"][0] % sizes[e["dtype"]] == 0 for e in header.values())


def test_the_second_file_replaces_the_first(tmp_path):
    with_adapter(tmp_path, rank=4)
    _, file = with_adapter(tmp_path, rank=8)
    assert file.metadata["lora_rank"] == "8"
    assert [path.name for path in (tmp_path / "weights").iterdir()] == ["a.safetensors"]


def test_an_adapter_goes_to_an_object_store(s3_server):
    model = trainable(lora={"rank": 4}).model
    storage = Storage(f"{s3_server.url}/{uuid4().hex}")
    save_adapter(storage, "a.safetensors", learned(model), spec=spec_of().lora, precision="float32")
    assert storage.size("a.safetensors") > 10_000


def with_checkpoint(files: ModelFiles, folder: Path, precision="float32"):
    """The file of a model whose weights are all others than they were, and the model."""
    model = trainable(files, mode="full").model
    change(model)
    save_checkpoint(Storage(folder), "weights/c.safetensors", files, learned(model), precision)
    return folder / "weights/c.safetensors", model


def spec_with(spec: ModelSpec, path: Path) -> ModelSpec:
    """The same model with another file of the transformer."""
    field = "transformer" if spec.transformer else "checkpoint"
    return spec.model_copy(update={field: str(path), "loras": ()})


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_saved_checkpoint_is_a_whole_model_of_any_layout(layout, tmp_path):
    files = ModelFiles(LAYOUTS[layout](tmp_path))
    path, model = with_checkpoint(files, tmp_path)
    again = ModelFiles(spec_with(files.spec, path))
    check_networks(again)
    with ModelLedger(again.spec, FLOAT32).transformer() as transformer:
        loaded = transformer.state_dict()
        assert all(torch.equal(loaded[n], weight) for n, weight in model.state_dict().items())
    check_others(files.transformer_file, again.transformer_file)


def check_others(old: WeightFile, new: WeightFile) -> None:
    """What is not the transformer is as it was."""
    others = [name for name in old.names if rename(name, TRANSFORMER) is None]
    assert others == [name for name in new.names if rename(name, TRANSFORMER) is None]
    assert all(torch.equal(new.tensor(name), old.tensor(name)) for name in others)
    assert new.metadata == old.metadata


def test_all_other_components_load_from_a_saved_checkpoint(tmp_path):
    spec = locate_model("tiny")
    path, _ = with_checkpoint(ModelFiles(spec), tmp_path)
    before = ModelLedger(spec, FLOAT32)
    after = ModelLedger(spec_with(spec, path), FLOAT32)
    for component in ("text_connectors", "video_encoder", "video_decoder", "vocoder"):
        with getattr(before, component)() as old, getattr(after, component)() as new:
            states = old.state_dict(), new.state_dict()
            assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_checkpoint_in_bfloat16_keeps_modulation_tables(tmp_path):
    path, model = with_checkpoint(ModelFiles(locate_model("tiny")), tmp_path, "bfloat16")
    file = WeightFile(path)
    for name, weight in learned(model).items():
        stored = file.tensor(f"model.diffusion_model.{name}")
        expected = torch.float32 if "scale_shift_table" in name else torch.bfloat16
        assert stored.dtype == expected
        assert torch.equal(stored, weight.to(expected))


def test_a_checkpoint_lacks_no_weight(tmp_path):
    files = ModelFiles(locate_model("tiny"))
    weights = learned(trainable(files, mode="full").model)
    del weights["proj_out.bias"]
    with pytest.raises(ValueError, match=r"all weights .* 1 differ: \['proj_out.bias'\]"):
        save_checkpoint(Storage(tmp_path), "c.safetensors", files, weights, "float32")
    assert not list(tmp_path.iterdir())
