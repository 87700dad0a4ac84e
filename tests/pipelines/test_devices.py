"""What holds on each kind of device."""

import psutil
import pytest
import torch

from rayreel.config.jobs import StageSpec
from rayreel.errors import SpecError
from rayreel.pipelines.devices import (
    Device,
    choose_device,
    free_memory,
    largest_tile,
    supported_quantization,
    usable_memory,
)
from rayreel.pipelines.ledger import ModelLedger

CPU, METAL = torch.device("cpu"), torch.device("mps")


def test_a_choice_says_why_and_keeps_the_kernels():
    device = choose_device(StageSpec(device="cpu", dtype="bfloat16", attention="sdpa"))
    assert device == Device(
        "cpu", "bfloat16", "the spec says cpu; the spec says bfloat16", attention="sdpa"
    )


def test_the_files_dtype_is_taken_where_a_cluster_has_gpus():
    device = choose_device(StageSpec(), cluster_gpus=1)
    assert (device.name, device.dtype) == ("cuda", "bfloat16")


@pytest.mark.parametrize(("units", "dtype"), [(True, "bfloat16"), (False, "float32")])
def test_a_cpu_computes_in_what_it_has_units_for(monkeypatch, units, dtype):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: units)
    assert {choose_device(StageSpec(device="cpu")).dtype for _ in range(5)} == {dtype}


def test_metal_widens_float8_and_refuses_to_make_it():
    assert supported_quantization(METAL, "auto") == "none"
    assert supported_quantization(CPU, "auto") == "auto"
    assert supported_quantization(CPU, "fp8_cast") == "fp8_cast"
    with pytest.raises(SpecError, match="Metal has no float8"):
        supported_quantization(METAL, "fp8_cast")


def test_metal_decodes_in_small_tiles():
    assert largest_tile(METAL) == (256, 32)
    assert largest_tile(CPU) == (768, 80)


def test_kernels_that_are_not_installed_are_refused_before_work_starts():
    with pytest.raises(SpecError, match="flash3"):
        ModelLedger("tiny", Device("cpu", "float32", "for tests", attention="flash3"))


def test_a_part_of_the_free_memory_is_left_alone():
    free = free_memory(CPU)
    assert 0 < free <= psutil.virtual_memory().total
    assert usable_memory(CPU) < free
