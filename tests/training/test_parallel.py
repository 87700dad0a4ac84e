import logging

import pytest
import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule

from rayreel.training.group import Group, joined
from rayreel.training.parallel import accumulating, clip_gradients, local
from tests.training.processes import in_two_processes
from tests.training.stepping import begin, gradients, loss, whole

ALONE = Group(0, 1, torch.device("cpu"))
FULL = {"mode": "full"}
# Samples 3 and 9 have no sound: one process of two may have nothing for those weights.
SAMPLES = [[1, 2, 3, 4], [3, 2, 9, 4]]


def _gradients(fields, samples):
    """Norm of the gradients of a step, and all of them."""
    with joined("cpu") as group:
        run = begin(group, **fields)
        gradients(run, samples)
        norm = clip_gradients(run.state.parameters, 0, group)
        return norm, {name: whole(_grad(one)).numpy() for name, one in run.state.named.items()}


def _grad(weight):
    assert weight.grad is not None
    return weight.grad


@pytest.mark.parametrize(
    ("fields", "samples"),
    [
        ({}, SAMPLES[0]),
        ({}, SAMPLES[1]),
        ({"acceleration": {"sharding": "replicate"}}, SAMPLES[1]),
        ({"acceleration": {"quantization": "fp8", "dtype": "bfloat16"}}, SAMPLES[0]),
        ({**FULL, "acceleration": {"checkpoint_activations": True}}, SAMPLES[0]),
        ({**FULL, "acceleration": {"dtype": "bfloat16"}}, SAMPLES[1]),
        ({**FULL, "acceleration": {"dtype": "bfloat16", "sharding": "replicate"}}, SAMPLES[0]),
    ],
    ids=str,
)
def test_two_processes_have_the_gradients_of_one(fields, samples):
    norm, alone = _gradients(fields, samples)
    for other_norm, other in in_two_processes(_gradients, fields, samples):
        assert other_norm == pytest.approx(norm, rel=1e-5)
        assert other.keys() == alone.keys()
        for name, gradient in alone.items():
            torch.testing.assert_close(
                torch.from_numpy(other[name]), torch.from_numpy(gradient), rtol=1e-4, atol=1e-6
            )


def _first_passes():
    """Whether gradients were exchanged after each of two passes, and what a process holds."""
    with joined("cpu") as group:
        run = begin(group)
        done = []
        for last in (False, True):
            with accumulating(run.model, last=last):
                loss(run.model, group.rank).backward()
            done.append(all(one.grad is not None for one in run.state.parameters))
        held = sum(local(one).numel() for one in run.model.parameters())
        return done, held / sum(one.numel() for one in run.model.parameters())


def test_gradients_are_exchanged_in_the_last_pass_alone_and_weights_are_split():
    for done, share in in_two_processes(_first_passes):
        assert done == [False, True]
        assert share == pytest.approx(0.5, abs=0.02)


def test_recomputed_blocks_give_the_same_gradients_under_the_same_names():
    usual, again = (
        begin(ALONE, **FULL, acceleration={"checkpoint_activations": recomputed})
        for recomputed in (False, True)
    )
    calls = []
    block = again.model.transformer_blocks[0]
    block.get_submodule("attn1").register_forward_hook(lambda *_: calls.append(1))
    gradients(usual, [1])
    gradients(again, [1])
    assert usual.state.named.keys() == again.state.named.keys()
    for one, other in zip(usual.state.parameters, again.state.parameters, strict=True):
        assert torch.equal(_grad(one), _grad(other))
    assert len(calls) == 2


def test_one_process_keeps_float32_weights_that_it_computes_with_in_bfloat16():
    with joined("cpu") as group:
        exact, run = begin(group, **FULL), begin(group, **FULL, acceleration={"dtype": "bfloat16"})
        names = exact.state.named.keys()
        assert not isinstance(exact.model, FSDPModule)
        assert isinstance(run.model, FSDPModule)
        assert run.state.named.keys() == names
        assert {one.dtype for one in run.state.parameters} == {torch.float32}
        found, expected = loss(run.model, 1, torch.bfloat16), loss(exact.model, 1)
        assert found.item() == pytest.approx(expected.item(), rel=0.02)


def test_an_adapter_on_one_process_is_left_as_it_is():
    run = begin(ALONE)
    assert not isinstance(run.model, FSDPModule)
    assert {one.dtype for one in run.state.parameters} == {torch.float32}


def test_offloading_on_a_cpu_is_said_to_change_nothing(caplog):
    with caplog.at_level(logging.INFO):
        run = begin(ALONE, acceleration={"offload": True})
    assert not isinstance(run.model, FSDPModule)
    assert "offload changes nothing on a CPU" in caplog.text


@pytest.mark.parametrize("max_norm", [0.5, 100.0])
def test_gradients_are_cut_as_by_pytorch(max_norm):
    ours, theirs = _weights(), _weights()
    expected = nn.utils.clip_grad_norm_(theirs, max_norm)
    assert clip_gradients(ours, max_norm, ALONE) == pytest.approx(expected.item())
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_no_limit_only_measures():
    weights = _weights()
    before = [one.grad.clone() for one in weights]
    assert clip_gradients(weights, 0, ALONE) > 1
    assert all(torch.equal(one.grad, kept) for one, kept in zip(weights, before, strict=True))


def _weights():
    generator = torch.Generator().manual_seed(0)
    weights = [nn.Parameter(torch.zeros(size)) for size in ((3, 4), (5,))]
    for one in weights:
        one.grad = torch.randn(one.shape, generator=generator)
    return weights
