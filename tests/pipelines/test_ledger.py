"""How long networks are held, and that no policy changes what they compute."""

import gc
import weakref
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from rayreel.checkpoints.lora import Adapter
from rayreel.checkpoints.tiny import locate_model
from rayreel.config.conditions import AdapterSpec
from rayreel.config.jobs import MemorySpec
from rayreel.errors import CheckpointError
from rayreel.models.text.tiny import write_tiny_gemma
from rayreel.pipelines import OneStage, TwoStage
from rayreel.pipelines.ledger import ComponentName, ModelLedger
from rayreel.types import Clip
from tests.pipelines.small import DEVICE, distilled, pinned, small, tiny_ledger

FIELDS = get_args(ComponentName)
POLICIES = ("per_call", "offload", "disk")


def memory(policy: str) -> MemorySpec:
    return MemorySpec.model_validate(dict.fromkeys(FIELDS, policy))


def rendered(ledger, picture) -> Clip:
    return TwoStage(ledger)(small(images=(pinned(picture, 0),)))


@pytest.fixture(scope="module")
def expected(ledger, picture) -> Clip:
    return rendered(ledger, picture)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_clip_does_not_depend_on_the_policy(policy, expected, picture):
    ledger = tiny_ledger(memory(policy))
    for _ in range(2):
        clip: Any = rendered(ledger, picture)
        assert torch.equal(clip.frames, expected.frames)
        assert torch.equal(clip.audio.waveform, expected.audio.waveform)


def test_adapters_can_be_exchanged_in_one_transformer(expected, picture):
    ledger = tiny_ledger(MemorySpec(transformer="exchange"))
    for _ in range(2):
        assert torch.equal(rendered(ledger, picture).frames, expected.frames)
    assert ledger.loads.count("Transformer") == 1


def test_resident_networks_are_built_once_and_others_for_each_use():
    for policy, times in (("resident", 1), ("offload", 1), ("per_call", 2), ("disk", 2)):
        ledger = tiny_ledger(memory(policy))
        for _ in range(2):
            with ledger.video_decoder():
                pass
        assert ledger.loads == ("VideoDecoder",) * times


@pytest.mark.parametrize("policy", ["per_call", "disk"])
def test_nothing_stays_after_a_call(policy):
    ledger = tiny_ledger(memory(policy))
    with ledger.transformer() as model:
        weights = [weakref.ref(parameter.untyped_storage()) for parameter in model.parameters()]
    held = sum(parameter.nbytes for parameter in model.parameters() if not parameter.is_meta)
    assert held == 0
    del model
    gc.collect()
    assert not any(storage() for storage in weights)


@pytest.mark.parametrize("policy", ["offload", "disk"])
def test_blocks_are_on_the_device_one_after_the_other(policy):
    ledger = tiny_ledger(memory(policy))
    with ledger.transformer() as model:
        blocks = model.transformer_blocks
        assert all(p.is_meta for p in blocks.parameters())
        assert not any(p.is_meta for p in model.proj_out.parameters())
        seen = []
        for block in blocks:
            block.register_forward_hook(
                lambda *_: seen.append(sum(not next(b.parameters()).is_meta for b in blocks)),
                prepend=True,
            )
        OneStage(ledger)(small(pipeline="one_stage", audio=False))
    assert seen
    assert set(seen) == {1}


def test_a_network_may_be_lent_twice_at_a_time():
    ledger = tiny_ledger(memory("per_call"))
    with ledger.video_decoder() as outer:
        with ledger.video_decoder() as inner:
            assert inner is outer
        assert not next(outer.parameters()).is_meta
    assert ledger.loads == ("VideoDecoder",)


def test_views_share_all_networks_but_the_transformer(ledger):
    view = distilled(ledger)
    with ledger.video_decoder() as one, view.video_decoder() as other:
        assert one is other
    with ledger.transformer() as one, view.transformer() as other:
        assert one is not other


def test_views_share_the_weights_that_no_adapter_changes():
    ledger = tiny_ledger()
    with ledger.transformer() as base, distilled(ledger).transformer() as fused:
        pairs = zip(base.named_parameters(), fused.parameters(), strict=True)
        shared = {n: a.data_ptr() == b.data_ptr() for (n, a), b in pairs}
    assert shared["proj_out.weight"]
    assert shared["transformer_blocks.0.ff.net.2.weight"]
    assert not shared["transformer_blocks.0.attn1.to_q.weight"]


def test_a_view_without_adapters_is_the_base_to_the_bit():
    ledger = tiny_ledger(MemorySpec(transformer="exchange"))
    with ledger.transformer() as model:
        before = {name: p.clone() for name, p in model.named_parameters()}
    with distilled(ledger).transformer() as model:
        changed = [n for n, p in model.named_parameters() if not torch.equal(p, before[n])]
    assert changed
    with ledger.transformer() as model:
        assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


def test_adapters_are_listed_by_name(ledger):
    assert [adapter.name for adapter in ledger.adapters] == []
    assert [a.name for a in distilled(ledger).adapters] == ["ltx-2-tiny-distilled-lora"]


def test_an_adapter_of_strength_0_is_no_other_transformer():
    ledger = tiny_ledger()
    (adapter,) = distilled(ledger).adapters
    silent = Adapter(adapter.file, 0.0)
    with ledger.transformer() as base, ledger.with_loras(silent).transformer() as same:
        assert same is base


def test_adapters_of_other_requests_are_not_kept(repository):
    """A list may name a new adapter in every row."""
    ledger = tiny_ledger()
    lora = AdapterSpec(path=str(repository / "manifests/modes/in-context-lora.safetensors"))
    rows = [lora.model_copy(update={"strength": strength}) for strength in (0.5, 1.0)]
    for row in rows:
        for _ in range(2):
            request = small(loras=(row,))
            pipeline = TwoStage(ledger)
            for view in (pipeline.base(request), pipeline.distilled(request), ledger):
                with view.transformer() as model:
                    assert not next(model.parameters()).is_meta
    # The base once, and each row's two sets once.
    assert ledger.loads.count("Transformer") == 5
    assert len([key for key in ledger._holdings if key[0] == "transformer"]) == 3


@pytest.fixture
def styles(ledger, tmp_path) -> list[AdapterSpec]:
    """Three adapters in files of their own."""
    lora = ledger.files.distilled_lora.file.path
    made = []
    for index, factor in enumerate((1.0, 2.0, 0.5)):
        path = tmp_path / f"{index}.safetensors"
        _write_scaled(lora, path, factor)
        made.append(AdapterSpec(path=str(path), strength=1.0))
    return made


def _write_scaled(source, target, factor) -> None:
    with safe_open(source, "pt") as file:
        metadata = file.metadata()
    tensors = {name: tensor * factor for name, tensor in load_file(source).items()}
    staged = target.with_suffix(".part")
    save_file(tensors, staged, metadata)
    staged.replace(target)


def fused(ledger, *adapters) -> dict[str, torch.Tensor]:
    """Weights of the transformer with these adapters of a request."""
    view = ledger.with_loras(*ledger.files.loras, *map(ledger.files.adapter, adapters))
    with view.transformer() as model:
        return {name: p.detach().clone() for name, p in model.named_parameters()}


def equal(one, other) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("sets", "asked", "loads"),
    [
        (1, (0, 0, 1, 1, 0), 3),
        (2, (0, 1, 0, 1, 0), 2),
        # The third drops the second, as the first was needed since.
        (2, (0, 1, 0, 2, 0), 3),
        (2, (0, 1, 0, 2, 1), 4),
        (3, (0, 1, 2, 0, 1, 2), 3),
    ],
)
def test_the_set_that_was_not_needed_for_longest_goes_first(styles, sets, asked, loads):
    ledger = tiny_ledger(MemorySpec(adapter_sets=sets))
    for index in asked:
        fused(ledger, styles[index])
        kept = [key for key in ledger._holdings if key[0] == "transformer"]
        assert len(kept) <= sets
    assert ledger.loads.count("Transformer") == loads


def test_requests_without_adapters_take_no_place(styles):
    ledger = tiny_ledger()
    for _ in range(2):
        fused(ledger, styles[0])
        fused(ledger)
        fused(ledger, styles[0].model_copy(update={"strength": 0.0}))
    assert ledger.loads.count("Transformer") == 2


def test_a_transformer_that_is_at_work_is_dropped_later(styles):
    ledger = tiny_ledger()
    first, second, _ = (ledger.with_loras(ledger.files.adapter(style)) for style in styles)
    with first.transformer() as model:
        fused(ledger, styles[1])
        assert not any(p.is_meta for p in model.parameters())
    assert len([key for key in ledger._holdings if key[0] == "transformer"]) == 2
    with second.transformer():
        assert len([key for key in ledger._holdings if key[0] == "transformer"]) == 1


@pytest.mark.parametrize("values", [{"adapter_sets": 2}, {"transformer": "exchange"}])
def test_what_was_kept_before_changes_no_weights(styles, values):
    ledger = tiny_ledger(MemorySpec.model_validate(values))
    alone = {}
    for index in (0, 1, 2, 0, 2, 1):
        if index not in alone:
            alone[index] = fused(tiny_ledger(), styles[index])
        assert equal(fused(ledger, styles[index]), alone[index])
    assert not equal(alone[0], alone[1])
    assert len(ledger._fusions) <= 2


@pytest.mark.parametrize("values", [{"adapter_sets": 3}, {"transformer": "exchange"}])
def test_a_replaced_file_is_another_adapter(styles, values):
    ledger = tiny_ledger(MemorySpec.model_validate(values))
    before = fused(ledger, styles[0])
    said = ledger.files.identity(styles[0])
    _write_scaled(Path(styles[1].path), Path(styles[0].path), 3.0)
    after = fused(ledger, styles[0])
    assert not equal(after, before)
    assert equal(after, fused(tiny_ledger(), styles[0]))
    assert ledger.files.identity(styles[0]) != said
    # Nobody can ask for what was there before.
    assert len([key for key in ledger._holdings if key[0] == "transformer"]) == 1


def test_a_file_that_is_gone_is_said(styles):
    ledger = tiny_ledger()
    fused(ledger, styles[0])
    Path(styles[0].path).unlink()
    with pytest.raises(CheckpointError, match=r"0\.safetensors does not exist"):
        fused(ledger, styles[0])


def test_a_file_that_is_replaced_between_header_and_weights_is_not_read(styles):
    adapter = tiny_ledger().files.adapter(styles[0])
    _write_scaled(Path(styles[1].path), Path(styles[0].path), 3.0)
    with pytest.raises(CheckpointError, match="was replaced after it was opened"):
        adapter.file.tensor(adapter.file.names[0])


def test_relief_keeps_the_limit_of_adapters():
    ledger = tiny_ledger(MemorySpec(adapter_sets=2))
    ledger.relieve("offload")
    assert (ledger.memory.transformer, ledger.memory.adapter_sets) == ("disk", 2)


def test_a_writer_shares_the_weights_of_the_text_encoder(tmp_path):
    write_tiny_gemma(tmp_path, seed=0, chat=True)
    spec = locate_model("tiny").model_copy(update={"gemma": str(tmp_path)})
    ledger = ModelLedger(spec, DEVICE)
    with ledger.enhancer() as alone:
        expected = {name: p.clone() for name, p in alone.named_parameters()}
    with ledger.text_encoder() as encoder, ledger.enhancer() as writer:
        own = {p.data_ptr() for p in encoder.gemma.parameters()}
        shared = {n for n, p in writer.named_parameters() if p.data_ptr() in own}
        assert all(torch.equal(p, expected[n]) for n, p in writer.named_parameters())
    assert {n for n in expected if "language_model" in n} <= shared
    # A writer that is dropped takes nothing of the encoder along.
    assert not any(p.is_meta for p in encoder.gemma.parameters())


def test_resident_networks_are_preloaded_and_others_are_not():
    for policy, loads in (("resident", ("VideoDecoder",)), ("per_call", ())):
        ledger = tiny_ledger(memory(policy))
        ledger.preload("video_decoder")
        assert ledger.loads == loads
