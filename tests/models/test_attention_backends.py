"""Attention kernels of other packages: how they are called, and which one is chosen.

The packages are stood in for by modules that compute exact attention in the layout that the
package documents, and refuse what it refuses.
"""

import logging
import sys
from types import ModuleType
from typing import Any, get_args

import pytest
import torch

from rayreel.config.model import AttentionBackend
from rayreel.errors import SpecError
from rayreel.models.attention import scaled_dot_product
from rayreel.models.attention_backends import BACKENDS, Call, Selection, force_backend

SELF, TEXT = (5, 5), (6, 11)


def exact(q, k, v, bias=None):
    """Attention of ``(B, S, H, K)`` tensors, in float64."""
    scores = torch.einsum("bthk,bshk->bhts", q.double(), k.double()) * q.shape[-1] ** -0.5
    weights = (scores if bias is None else scores + bias.double()).softmax(-1)
    return torch.einsum("bhts,bshk->bthk", weights, v.double()).to(v.dtype)


def flash(q, k, v, softmax_scale=None, causal=False):
    assert q.dtype == k.dtype == v.dtype
    assert (softmax_scale, causal) == (None, False)
    return exact(q, k, v)


def flash_with_sums(q, k, v, softmax_scale=None, causal=False):
    return flash(q, k, v, softmax_scale, causal), torch.zeros(1)


def xformers(query, key, value, attn_bias=None, p=0.0, scale=None):
    assert query.dtype == key.dtype == value.dtype
    if attn_bias is not None:
        assert attn_bias.shape == (*query.transpose(1, 2).shape[:3], key.shape[1])
        assert attn_bias.dtype == query.dtype
        assert attn_bias.stride(-1) == 1
        assert attn_bias.stride(-2) % 8 == 0
    return exact(query, key, value, attn_bias)


STAND_INS = {"flash3": flash, "flash4": flash_with_sums, "flash2": flash, "xformers": xformers}


@pytest.fixture
def installed(monkeypatch):
    """Makes exactly these packages importable."""

    def install(*names):
        for backend in BACKENDS[:-1]:
            module = ModuleType(backend.module) if backend.name in names else None
            if module:
                setattr(module, backend.function, STAND_INS[backend.name])
            monkeypatch.setitem(sys.modules, backend.module, module)
            if "." in backend.module and module:
                monkeypatch.setitem(
                    sys.modules, backend.module.split(".")[0], ModuleType("package")
                )

    return install


@pytest.fixture
def gpu(monkeypatch):
    """Makes every CUDA device one of this compute capability."""

    def generation(major, minor=0):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (major, minor))

    return generation


@pytest.fixture(autouse=True)
def _free_choice_afterwards():
    yield
    force_backend("auto")


def on_gpu(dtype=torch.bfloat16, head_dim=128, *, masked=False):
    return Call(torch.device("cuda", 0), dtype, head_dim, masked)


def chosen(call):
    """Name of the back end that a call gets."""
    return Selection().choose(call).name


def run(name, q, k, v, mask):
    """Attention by one back end, whatever device the tensors lie on."""
    backend: Any = Selection().backends[name]
    return backend.run(backend.load(), q, k, v, mask)


def inputs(tokens, length, dtype=torch.float32, head_dim=8, device="cpu"):
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, n, 3, head_dim) for n in (tokens, length, length))
    return [torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes]


def biases(tokens, length, dtype=torch.float32):
    """Every form in which models give a bias, and one of full size."""
    generator = torch.Generator().manual_seed(1)
    shapes = [(1, length), (tokens, 1), (2, 1, 1, length), (2, 1, tokens, length)]
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


@pytest.mark.parametrize("name", STAND_INS)
@pytest.mark.parametrize("sizes", [SELF, TEXT])
def test_every_package_is_called_in_its_own_layout(installed, name, sizes):
    installed(name)
    q, k, v = inputs(*sizes)
    torch.testing.assert_close(run(name, q, k, v, None), run("sdpa", q, k, v, None))


@pytest.mark.parametrize("sizes", [SELF, TEXT, (4, 16)])
def test_xformers_takes_a_bias_with_aligned_rows(installed, sizes):
    installed("xformers")
    q, k, v = inputs(*sizes)
    for bias in biases(*sizes):
        expected = run("sdpa", q, k, v, bias)
        torch.testing.assert_close(run("xformers", q, k, v, bias), expected)


@pytest.mark.parametrize("name", STAND_INS)
def test_queries_and_keys_take_the_dtype_of_the_values(installed, name):
    installed(name)
    q, k, v = inputs(*TEXT)
    expected = run("sdpa", q.bfloat16(), k.bfloat16(), v.bfloat16(), None)
    out = run(name, q, k, v.bfloat16(), None)
    torch.testing.assert_close(out, expected, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize(
    ("generation", "expected"),
    [
        ((7, 5), ["xformers", "sdpa"]),
        ((8, 0), ["flash2", "xformers", "sdpa"]),
        ((8, 9), ["flash2", "xformers", "sdpa"]),
        ((9, 0), ["flash3", "flash4", "flash2", "xformers", "sdpa"]),
        ((10, 0), ["flash4", "flash2", "sdpa"]),
        ((12, 0), ["flash2", "sdpa"]),
    ],
)
def test_the_generation_of_the_gpu_decides_what_comes_first(installed, gpu, generation, expected):
    gpu(*generation)
    order, present = [], list(STAND_INS)
    while True:
        installed(*present)
        order.append(chosen(on_gpu()))
        if order[-1] == "sdpa":
            break
        present.remove(order[-1])
    assert order == expected


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (on_gpu(masked=True), "xformers"),
        (on_gpu(torch.float32), "xformers"),
        (on_gpu(torch.float64), "sdpa"),
        (on_gpu(torch.float16, 256), "flash3"),
        (on_gpu(head_dim=264), "sdpa"),
        (on_gpu(head_dim=20), "sdpa"),
        (Call(torch.device("cpu"), torch.bfloat16, 128, masked=False), "sdpa"),
        (Call(torch.device("mps"), torch.bfloat16, 128, masked=False), "sdpa"),
    ],
    ids=str,
)
def test_a_call_gets_the_best_kernel_that_serves_it(installed, gpu, call, expected):
    installed(*STAND_INS)
    gpu(9)
    assert chosen(call) == expected


def test_flash_4_has_small_heads_alone(installed, gpu):
    installed("flash4", "flash2")
    gpu(10)
    assert [chosen(on_gpu(head_dim=size)) for size in (64, 128, 192)] == [
        "flash4", "flash4", "flash2",
    ]  # fmt: skip


def test_a_package_that_breaks_on_import_is_passed_over_with_the_reason(
    gpu, installed, monkeypatch, tmp_path, caplog
):
    installed("flash2")
    gpu(9)
    monkeypatch.delitem(sys.modules, "flash_attn_interface")
    (tmp_path / "flash_attn_interface.py").write_text("raise OSError('undefined symbol: x')")
    monkeypatch.syspath_prepend(tmp_path)
    with caplog.at_level(logging.INFO):
        assert chosen(on_gpu()) == "flash2"
    assert "flash3 (cannot be imported: OSError: undefined symbol: x)" in caplog.text


def test_the_choice_is_said_once_for_each_kind_of_call(installed, gpu, caplog):
    installed("flash2")
    gpu(8, 6)
    selection = Selection()
    with caplog.at_level(logging.INFO):
        for call in (on_gpu(), on_gpu(), on_gpu(masked=True), on_gpu()):
            selection.kernel(call)
    first, second = [record.getMessage() for record in caplog.records]
    assert first.startswith("attention (cuda:0, bfloat16, head size 128, unmasked): flash2; passed")
    assert "flash3 (needs compute capability 9.x, not 8.6)" in first
    assert second.startswith("attention (cuda:0, bfloat16, head size 128, masked): sdpa; passed")
    assert "flash2 (takes no mask)" in second


def test_packages_that_cannot_serve_are_not_imported(installed, caplog):
    installed()
    with caplog.at_level(logging.INFO):
        assert chosen(Call(torch.device("cpu"), torch.float32, 64, masked=False)) == "sdpa"
    assert "flash3 (needs CUDA, not cpu)" in caplog.text
    assert "cannot be imported" not in caplog.text


@pytest.mark.parametrize("name", STAND_INS)
def test_a_forced_kernel_is_used_although_better_ones_are_there(installed, gpu, name):
    installed(*STAND_INS)
    gpu(9)
    selection = Selection()
    assert selection.choose(on_gpu()).name == "flash3"
    selection.force(name)
    assert selection.choose(on_gpu()).name == name
    selection.force("auto")
    assert selection.choose(on_gpu()).name == "flash3"


@pytest.mark.parametrize("name", STAND_INS)
def test_forcing_what_is_not_installed_is_refused(installed, name):
    installed()
    with pytest.raises(
        SpecError, match=f"{name!r} is not available, it cannot be imported: Module"
    ):
        force_backend(name)


def test_forcing_an_unknown_name_lists_the_known_ones():
    with pytest.raises(SpecError, match="'flash1'; known: auto, flash3, flash4, flash2, xformers"):
        force_backend("flash1")


@pytest.mark.parametrize(
    ("name", "generation", "call", "reason"),
    [
        ("flash3", 10, on_gpu(), "needs compute capability 9.x, not 10.0"),
        ("flash4", 8, on_gpu(), "needs compute capability 9.x to 10.x, not 8.0"),
        ("flash2", 7, on_gpu(), "needs compute capability 8.x or later, not 7.0"),
        ("flash2", 8, on_gpu(torch.float32), "needs float16 or bfloat16, not float32"),
        ("flash2", 8, on_gpu(head_dim=512), "needs head sizes up to 256 in steps of 8, not 512"),
        ("xformers", 10, on_gpu(masked=True), "needs compute capability 5.x to 9.x, not 10.0"),
    ],
)
def test_a_forced_kernel_that_cannot_serve_a_call_says_why(
    installed, gpu, name, generation, call, reason
):
    installed(*STAND_INS)
    gpu(generation)
    selection = Selection()
    selection.force(name)
    with pytest.raises(ValueError, match="the forced attention back end cannot") as caught:
        selection.kernel(call)
    assert f"({call}): {name} ({reason})" in str(caught.value)


def test_models_do_not_fall_back_from_a_forced_kernel(installed):
    installed("flash2")
    q, k, v = inputs(*TEXT)
    force_backend("flash2")
    with pytest.raises(ValueError, match=r"unmasked\): flash2 \(needs CUDA, not cpu\)"):
        scaled_dot_product(q, k, v, None)
    force_backend("sdpa")
    torch.testing.assert_close(scaled_dot_product(q, k, v, None), exact(q, k, v))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("flash3", "xformers"), ("flash2", "xformers"), ("xformers", "xformers"), ("sdpa", "sdpa")],
)
def test_masked_calls_are_chosen_apart_where_the_forced_kernel_takes_none(
    installed, gpu, name, expected
):
    installed(*STAND_INS)
    gpu(9)
    selection = Selection()
    selection.force(name)
    assert selection.choose(on_gpu()).name == name
    assert selection.choose(on_gpu(masked=True)).name == expected


def test_specs_may_name_every_back_end():
    assert get_args(AttentionBackend) == ("auto", *(backend.name for backend in BACKENDS))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("name", [*STAND_INS, "sdpa"])
@pytest.mark.parametrize("head_dim", [64, 128])
def test_installed_kernels_agree_with_float32_mathematics(name, head_dim):
    q, k, v = inputs(70, 131, torch.bfloat16, head_dim, "cuda")
    backend = Selection().backends[name]
    call = Call(q.device, q.dtype, head_dim, masked=False)
    if reason := Selection().missing(name) or (backend.limits and backend.limits.refuse(call)):
        pytest.skip(f"{name} {reason}")
    bias = biases(70, 131, torch.bfloat16)[-1].cuda()
    for mask in (None, bias) if backend.takes_mask else (None,):
        out = run(name, q, k, v, mask)
        torch.testing.assert_close(out, exact(q, k, v, mask), rtol=2e-2, atol=1e-2)
