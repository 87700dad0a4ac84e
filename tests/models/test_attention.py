"""Attention: normalisation, positions, gates, masks and the value pass-through."""

import pytest
import torch

from rayreel.models.attention import Attention, scaled_dot_product
from rayreel.models.rope import apply_rotary, rotary_table

WIDTH, HEADS = 16, 2


@pytest.fixture
def x():
    return torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def attention(context_dim=WIDTH, *, gated=False):
    module = Attention(
        WIDTH, context_dim, heads=HEADS, head_dim=WIDTH // HEADS, eps=1e-6, gated=gated
    )
    generator = torch.Generator().manual_seed(0)
    for parameter in module.requires_grad_(False).parameters():
        parameter.normal_(std=0.3, generator=generator)
    return module


def table(layout, tokens, dtype=torch.float32):
    return rotary_table(
        torch.arange(tokens).float().view(1, 1, -1),
        dim=WIDTH,
        heads=HEADS,
        max_pos=(20,),
        theta=100.0,
        layout=layout,
        float64_frequencies=True,
        dtype=dtype,
    )


def test_kernel_is_softmax_of_scaled_products(x):
    q, k, v = (x.view(2, 5, HEADS, -1) * factor for factor in (1, 2, 3))
    weights = torch.einsum("bthk,bshk->bhts", q, k).div((WIDTH // HEADS) ** 0.5).softmax(-1)
    expected = torch.einsum("bhts,bshk->bthk", weights, v)
    torch.testing.assert_close(scaled_dot_product(q, k, v, None), expected)


def test_masked_tokens_are_not_read(x):
    module = attention()
    mask = torch.zeros(2, 1, 1, 5)
    mask[..., 3:] = torch.finfo(mask.dtype).min
    torch.testing.assert_close(module(x, mask=mask), module(x, x[:, :3]))


def test_context_may_have_another_width(x):
    context = torch.ones(2, 7, 6)
    assert attention(6)(x, context).shape == x.shape


def test_queries_are_normalised_across_all_heads(x):
    module = attention()
    expected = module(x)
    module.to_q.weight *= 100
    module.to_q.bias *= 100
    torch.testing.assert_close(module(x), expected)
    module.to_q.weight[: WIDTH // HEADS] *= 100
    assert not torch.allclose(module(x), expected, atol=1e-3)


def test_gates_with_zero_logits_change_nothing(x):
    module = attention(gated=True)
    module.to_gate_logits.weight.zero_()
    module.to_gate_logits.bias.zero_()
    gated = module(x)
    module.to_gate_logits = None
    torch.testing.assert_close(gated, module(x))


def test_a_closed_gate_silences_its_head(x):
    module = attention(gated=True)
    module.to_gate_logits.weight.zero_()
    module.to_gate_logits.bias.fill_(-1e4)
    torch.testing.assert_close(module(x), module.to_out[0].bias.expand_as(x))


@pytest.mark.parametrize("gated", [False, True])
def test_passing_values_through_is_attending_to_oneself_alone(x, gated):
    module = attention(gated=gated)
    alone = torch.full((5, 5), torch.finfo(x.dtype).min).fill_diagonal_(0)
    torch.testing.assert_close(module(x, keep=False), module(x, mask=alone))


def test_keep_decides_for_each_sample(x):
    module = attention()
    mixed = module(x, keep=torch.tensor([1.0, 0.0]).view(2, 1, 1))
    torch.testing.assert_close(mixed[0], module(x)[0])
    torch.testing.assert_close(mixed[1], module(x, keep=False)[1])


@pytest.mark.parametrize("layout", ["split", "interleaved"])
def test_rotation_keeps_lengths_and_shows_only_distances(x, layout):
    rotations = table(layout, tokens=5)
    token = x[:1, :1].expand(1, 5, WIDTH)
    rotated = apply_rotary(token, rotations)
    torch.testing.assert_close(rotated.norm(dim=-1), token.norm(dim=-1))
    products = rotated[0] @ rotated[0].T
    torch.testing.assert_close(products[0, 2], products[2, 4])
    assert not torch.allclose(products[0, 2], products[0, 3], rtol=1e-2)


def test_keys_take_their_own_positions(x):
    module, rotations = attention(), table("split", tokens=5)
    same = module(x, x, rope=rotations, context_rope=rotations)
    torch.testing.assert_close(same, module(x, rope=rotations))
    context = x[:, :3]
    shorter = module(x, context, rope=rotations, context_rope=table("split", tokens=3))
    mask = torch.tensor([0, 0, 0, torch.finfo(x.dtype).min, torch.finfo(x.dtype).min])
    torch.testing.assert_close(shorter, module(x, rope=rotations, mask=mask.view(1, 1, 1, 5)))


def test_split_rotation_rounds_once_after_the_fused_product(x):
    rotations = table("split", tokens=5, dtype=torch.bfloat16)
    first, second = x.bfloat16().view(2, 5, HEADS, 2, -1).unbind(3)
    cos, sin = (part.transpose(1, 2) for part in (rotations.cos, rotations.sin))
    expected = ((first * cos).double() - second.double() * sin.double()).to(torch.bfloat16)
    rotated = apply_rotary(x.bfloat16(), rotations).view(2, 5, HEADS, 2, -1)
    assert torch.equal(rotated[..., 0, :], expected)
