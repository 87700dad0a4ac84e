"""How long networks are held, and that no policy changes what they compute."""

import gc
import weakref
from typing import Any

import pytest
import torch

from rayreel.checkpoints.lora import Adapter
from rayreel.checkpoints.tiny import locate_model
from rayreel.config.conditions import AdapterSpec
from rayreel.config.jobs import MemorySpec
from rayreel.models.text.tiny import write_tiny_gemma
from rayreel.pipelines import OneStage, TwoStage
from rayreel.pipelines.ledger import ModelLedger
from rayreel.types import Clip
from tests.pipelines.small import DEVICE, distilled, pinned, small, tiny_ledger

FIELDS = tuple(MemorySpec.model_fields)
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
