"""What rotary positions and masks do for any sizes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fullspan.nn import masks
from fullspan.nn.attention import additive_mask, grouped_attention
from fullspan.nn.frequencies import (
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    RopeScaling,
    YarnScaling,
    inverse_frequencies,
)
from fullspan.nn.positions import Rope, apply_rope

seeds = st.integers(0, 2**16)
half_dims = st.integers(2, 32)
scalings = st.one_of(
    st.none(),
    st.builds(LinearScaling, st.floats(1, 16)),
    st.builds(YarnScaling, st.floats(1, 16), st.integers(64, 4096), attention_factor=st.just(1.0)),
    st.builds(Llama3Scaling, st.floats(1, 32), st.integers(64, 8192)),
)


def random_heads(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@given(seeds, half_dims, scalings, st.integers(0, 4000), st.integers(0, 2000))
@settings(max_examples=60, deadline=None)
def test_products_depend_on_distance_alone(
    seed: int, half: int, scaling: RopeScaling | None, position: int, shift: int
) -> None:
    q, k = random_heads(seed, 2, 1, 1, 1, 2 * half)
    rope = Rope(2 * half, 10000.0, scaling)

    def product(at: int) -> float:
        positions = torch.tensor([[at + 5, at]])
        cos, sin = rope.tables(positions, torch.float32)
        rotated_q = apply_rope(q, cos[:, :1], sin[:, :1])
        rotated_k = apply_rope(k, cos[:, 1:], sin[:, 1:])
        return float((rotated_q * rotated_k).sum())

    # An angle of thousands of radians is known to about 1e-4 in float32.
    scale = float(q.norm() * k.norm())
    assert abs(product(position) - product(position + shift)) < 2e-3 * scale


@given(seeds, half_dims, scalings, st.integers(0, 100000))
@settings(max_examples=60, deadline=None)
def test_rotation_keeps_lengths(seed: int, half: int, scaling: RopeScaling | None, position: int) -> None:
    x = random_heads(seed, 1, 1, 3, 2 * half)
    cos, sin = Rope(2 * half, 10000.0, scaling).tables(torch.tensor([[position]]), torch.float32)
    torch.testing.assert_close(apply_rope(x, cos, sin).norm(dim=-1), x.norm(dim=-1))


def test_rotation_by_hand() -> None:
    """The first half of a head pairs with the second, each pair turned by position · theta^(-2i/D)."""
    x = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 1, 4)
    cos, sin = Rope(4, 100.0).tables(torch.tensor([[3]]), torch.float32)
    fast, slow = 3.0, 0.3  # 3 · 100^0 and 3 · 100^(-1/2)
    expected = [
        1 * math.cos(fast) - 3 * math.sin(fast),
        2 * math.cos(slow) - 4 * math.sin(slow),
        3 * math.cos(fast) + 1 * math.sin(fast),
        4 * math.cos(slow) + 2 * math.sin(slow),
    ]
    torch.testing.assert_close(apply_rope(x, cos, sin).flatten(), torch.tensor(expected))


@given(half_dims, st.floats(1.5, 32), st.integers(64, 8192))
@settings(max_examples=60, deadline=None)
def test_llama3_bands(half: int, factor: float, original: int) -> None:
    plain = inverse_frequencies(2 * half, 500000.0)
    scaled = inverse_frequencies(2 * half, 500000.0, Llama3Scaling(factor, original))
    wavelengths = 2 * math.pi / plain
    kept, divided = wavelengths < original / 4, wavelengths > original
    assert (scaled[kept] == plain[kept]).all()
    np.testing.assert_allclose(scaled[divided], plain[divided] / factor, rtol=1e-6)
    middle = ~kept & ~divided
    assert (scaled[middle] <= plain[middle] * 1.000001).all()
    assert (scaled[middle] >= plain[middle] / factor * 0.999999).all()
    assert (scaled[:-1] > scaled[1:]).all()  # smooth: the order of frequencies is kept


@given(half_dims, st.floats(1.5, 32), st.integers(64, 8192))
@settings(max_examples=60, deadline=None)
def test_yarn_lies_between_interpolation_and_none(half: int, factor: float, original: int) -> None:
    plain = inverse_frequencies(2 * half, 10000.0)
    scaled = inverse_frequencies(2 * half, 10000.0, YarnScaling(factor, original))
    assert (scaled <= plain * 1.000001).all() and (scaled >= plain / factor * 0.999999).all()


@given(st.integers(1, 100), st.integers(1, 100))
@settings(max_examples=30, deadline=None)
def test_dynamic_scaling_starts_beyond_the_context(max_positions: int, length: int) -> None:
    rope = Rope(8, 10000.0, DynamicScaling(4.0), max_positions)
    positions = torch.arange(length)[None]
    scaled, _ = rope.tables(positions, torch.float32)
    plain, _ = Rope(8, 10000.0).tables(positions, torch.float32)
    # At 0 nothing turns, and position 1 turns the first pair by one radian under any base.
    assert torch.equal(scaled, plain) == (length <= max(max_positions, 1))


@pytest.mark.parametrize("scaling", [YarnScaling(4.0, 64), YarnScaling(4.0, 64, attention_factor=1.5)])
def test_yarn_warms_attention(scaling: YarnScaling) -> None:
    factor = scaling.attention_factor or 0.1 * math.log(4.0) + 1.0
    cos, _ = Rope(8, 10000.0, scaling).tables(torch.tensor([[0]]), torch.float32)
    torch.testing.assert_close(cos, torch.full_like(cos, factor))


@given(seeds, st.sampled_from([(4, 4), (4, 2), (6, 2), (4, 1)]), st.integers(1, 9), st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_attention_against_its_formula(seed: int, heads: tuple[int, int], n_tokens: int, past: int) -> None:
    """softmax(q kᵀ / sqrt(D)) v, written out for each query over the keys it may see."""
    n_heads, n_kv_heads = heads
    q = random_heads(seed, 2, n_heads, n_tokens, 8)
    k, v = random_heads(seed + 1, 2, 2, n_kv_heads, past + n_tokens, 8)
    mask = additive_mask(masks.causal_mask(n_tokens, past + n_tokens), torch.float32)
    attended = grouped_attention(q, k, v, mask)
    for head in range(n_heads):
        shared = head // (n_heads // n_kv_heads)
        for t in range(n_tokens):
            keys, values = k[:, shared, : past + t + 1], v[:, shared, : past + t + 1]
            weights = ((keys * q[:, head, t, None]).sum(-1) / math.sqrt(8)).softmax(-1)
            expected = (weights[..., None] * values).sum(1)
            torch.testing.assert_close(attended[:, head, t], expected, rtol=1e-4, atol=1e-5)
    if past == 0 or n_tokens == 1:
        torch.testing.assert_close(grouped_attention(q, k, v, None), attended, rtol=1e-4, atol=1e-5)


@given(st.lists(st.integers(-1, 3), min_size=1, max_size=12))
def test_segment_mask_pair_by_pair(ids: list[int]) -> None:
    mask = masks.segment_mask(torch.tensor([ids]))[0, 0]
    for i in range(len(ids)):
        for j in range(len(ids)):
            assert bool(mask[i, j]) == (i == j or (j < i and ids[i] == ids[j] and ids[i] >= 0))


@given(st.lists(st.booleans(), min_size=1, max_size=10), st.data())
def test_padding_mask_pair_by_pair(valid: list[bool], data: st.DataObject) -> None:
    n_tokens = data.draw(st.integers(1, len(valid)))
    mask = masks.padding_mask(torch.tensor([valid]), n_tokens)[0, 0]
    for i in range(n_tokens):
        own = len(valid) - n_tokens + i
        for j in range(len(valid)):
            assert bool(mask[i, j]) == (j == own or (j < own and valid[j]))
