"""The kernels of the fused step against plain torch, in both dtypes."""

from __future__ import annotations

from collections.abc import Iterator

import numba
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fullspan.core.simd_tiles import may_use_tiles
from fullspan.nn.norms import RMSNorm
from fullspan.nn.positions import Rope, apply_rope
from fullspan.text.packing import Encoded, packed_batch
from fullspan.training import _kernels
from fullspan.training.fused_attention import Attention, SegmentAttention, TileAttention
from fullspan.training.fused_buffers import Arena, Half, Rows
from fullspan.training.fused_plan import Shard, split

M = 7  # rows; not a multiple of anything


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def dtype(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    yield request.param


def half(*shape: int, dtype: torch.dtype) -> Half:
    return Half(torch.randn(*shape).to(dtype))


def assert_close(found: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """Relative to the largest value: one rounding to the dtype, and sums in another order."""
    scale = expected.abs().max().item()
    tolerance = scale * (2**-8 if dtype == torch.bfloat16 else 2e-6)
    torch.testing.assert_close(found.float(), expected.float(), rtol=0, atol=tolerance)


@numba.njit
def exp_of_each(x: np.ndarray, out: np.ndarray) -> None:
    for i in range(len(x)):
        out[i] = _kernels.exp(x[i])


def test_exp() -> None:
    x = np.concatenate([np.linspace(-87, 88, 5001), [-1e30, -200.0]]).astype(np.float32)
    found = np.empty_like(x)
    exp_of_each(x, found)
    wrong = np.abs(found / np.exp(np.maximum(x.astype(np.float64), np.log(2.0) * -126)) - 1)
    assert wrong.max() < 1e-5  # x / log 2 in float32 is off by up to that at 87
    assert wrong[np.abs(x) < 10].max() < 1.5e-6


def test_rounding_to_bfloat16() -> None:
    """To nearest, ties to even, as torch: through a kernel that multiplies by 1."""
    ties = torch.tensor([1.0 + k * 2.0**-8 for k in range(9)] + [-1.0 - 2.0**-8, 3e38, 1e-38, 0.0])
    x = torch.cat([ties, torch.randn(499)])[None]
    out, ones = Half(torch.zeros(1, x.shape[1], dtype=torch.bfloat16)), np.ones(1, np.float32)
    _kernels.norm_again(Half(x).values, np.ones(x.shape[1], np.float32), ones, out.values, 0, 1)
    assert torch.equal(out.tensor, x.to(torch.bfloat16))


def test_embed(dtype: torch.dtype) -> None:
    table, ids = half(11, 5, dtype=dtype), np.array([3, 0, 10, -1])
    x = torch.full((4, 5), 9.0)
    _kernels.embed(table.values, ids, x.numpy(), 0, 4)
    assert torch.equal(x[:3], table.tensor[[3, 0, 10]].float())
    assert not x[3].any()


@pytest.mark.parametrize("add", [False, True])
def test_norm(dtype: torch.dtype, add: bool) -> None:
    x, branch, d_out = torch.randn(M, 50), half(M, 50, dtype=dtype), half(M, 50, dtype=dtype)
    d_x, norm = torch.randn(M, 50), RMSNorm(50, 1e-5)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 1.5)
    gain = norm.weight.detach().numpy()
    summed = (x + branch.tensor.float() if add else x.clone()).requires_grad_()
    expected = norm(summed)
    expected.backward(d_out.tensor.float())
    saved, out, again, d_branch = (Half(torch.zeros(M, 60, dtype=dtype)) for _ in range(4))
    saved = Half(torch.zeros(M, 50, dtype=dtype))
    scales = np.zeros(M, np.float32)
    _kernels.add_norm(
        x.numpy(), branch.values, add, gain, np.float32(1e-5), saved.values, scales, out.values, 0, M
    )
    assert torch.allclose(x, summed.detach())
    assert_close(out.tensor[:, :50], expected.detach(), dtype)
    _kernels.norm_again(saved.values, gain, scales, again.values, 0, M)
    assert_close(again.tensor[:, :50], expected.detach(), dtype)
    total = d_x + summed.grad
    _kernels.norm_backward(saved.values, gain, scales, d_out.values, d_x.numpy(), d_branch.values, 0, M)
    assert_close(d_x, total, dtype)
    assert torch.equal(d_branch.tensor[:, :50], d_x.to(dtype))
    assert not out.tensor[:, 50:].any() and not d_branch.tensor[:, 50:].any()


def test_rotate(dtype: torch.dtype) -> None:
    x = half(M, 4 * 6 + 3, dtype=dtype)
    before = x.tensor.clone()
    cos, sin = Rope(6, 1e4).tables(torch.arange(M)[None] * 3, torch.float32)
    flat_cos, flat_sin = cos.reshape(M, 3).numpy(), sin.reshape(M, 3).numpy()
    _kernels.rotate(x.values, 4, flat_cos, flat_sin, 0, M)
    expected = apply_rope(before[:, :24].float().view(1, M, 4, 6), cos, sin).view(M, 24)
    assert_close(x.tensor[:, :24], expected, dtype)
    _kernels.rotate(x.values, 4, flat_cos, -flat_sin, 0, M)
    assert_close(x.tensor[:, :24], before[:, :24], dtype)
    assert torch.equal(x.tensor[:, 24:], before[:, 24:])


def test_swiglu(dtype: torch.dtype) -> None:
    gate_up, d_out = half(M, 90, dtype=dtype), half(M, 50, dtype=dtype)
    inputs = (gate_up.tensor.float() * 3).to(dtype).float().requires_grad_()
    gate_up = Half(inputs.detach().to(dtype))
    expected = F.silu(inputs[:, :45]) * inputs[:, 45:]
    expected.backward(d_out.tensor[:, :45].float())
    out, d_gate_up = Half(torch.zeros(M, 50, dtype=dtype)), Half(torch.zeros(M, 100, dtype=dtype))
    _kernels.swiglu(gate_up.values, out.values, 45, 0, M)
    assert_close(out.tensor[:, :45], expected.detach(), dtype)
    _kernels.swiglu_backward(gate_up.values, d_out.values, d_gate_up.values, 45, 0, M)
    assert inputs.grad is not None
    assert_close(d_gate_up.tensor[:, :90], inputs.grad, dtype)
    assert_close(d_out.tensor[:, :45], expected.detach(), dtype)  # the hidden state in its place


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_cross_entropy(dtype: torch.dtype, scale: float) -> None:
    """Also where one logit is all: p - 1 must not be rounded away."""
    logits = Half((torch.randn(M, 131) * scale).to(dtype))
    labels = np.arange(M) * 5
    wide = logits.tensor.float().requires_grad_()
    expected = F.cross_entropy(wide, torch.from_numpy(labels), reduction="none")
    expected.sum().backward()
    losses = np.zeros(M, np.float32)
    before = logits.tensor.clone()
    _kernels.cross_entropy(logits.values, labels, losses, False, 0, M)
    assert torch.equal(logits.tensor, before)
    _kernels.cross_entropy(logits.values, labels, losses, True, 0, M)
    torch.testing.assert_close(torch.from_numpy(losses), expected.detach(), rtol=2e-5, atol=2e-5)
    assert wide.grad is not None
    assert_close(logits.tensor, wide.grad, dtype)


H, K, D = 6, 2, 32


def make_shard(lengths: tuple[int, ...], shared: int) -> Shard:
    prefix = list(range(shared))
    examples = [Encoded([*prefix, *(30 + n + i for i in range(n))], [0] * (shared + n)) for n in lengths]
    return split(packed_batch(examples), 1, 10_000)[0]


def attention_reference(shard: Shard, qkv: Tensor) -> Tensor:
    """torch's attention, piece by piece, [M, H D]."""
    out = torch.zeros(len(qkv), H * D)
    heads = qkv.view(len(qkv), H + 2 * K, D).transpose(0, 1)
    for piece in shard.pieces:
        keys, own = torch.from_numpy(piece.key_rows), torch.from_numpy(piece.own_rows)
        q = heads[:H, own]
        k, v = (heads[h : h + K, keys].repeat_interleave(H // K, 0) for h in (H, H + K))
        seen = torch.ones(len(own), len(keys)).tril(piece.n_before).bool()
        attended = F.scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=seen)[0]
        out = out.index_copy(0, own, attended.transpose(0, 1).reshape(len(own), -1))
    return out


def check_attention(attention: Attention, dtype: torch.dtype, lengths: tuple[int, ...], shared: int) -> None:
    shard = make_shard(lengths, shared)
    n_rows = len(shard.ids)
    qkv, d_out = half(n_rows, (H + 2 * K) * D, dtype=dtype), half(n_rows, H * D, dtype=dtype)
    d_out.tensor[shard.n_tokens :] = 0
    inputs = qkv.tensor.float().requires_grad_()
    expected = attention_reference(shard, inputs)
    expected.backward(d_out.tensor.float())
    out = Half(torch.zeros(n_rows, H * D, dtype=dtype))
    d_qkv = Half(torch.zeros(n_rows, (H + 2 * K) * D, dtype=dtype))
    normalisers = torch.zeros(H, n_rows)
    attention.forward(shard, qkv, out, normalisers)
    assert_close(out.tensor, expected.detach(), dtype)
    attention.backward(shard, qkv, d_out, normalisers, d_qkv)
    assert inputs.grad is not None
    # Weights and their gradients are rounded too before they are summed.
    difference = (d_qkv.tensor.float() - inputs.grad).norm() / inputs.grad.norm()
    assert difference < (6e-3 if dtype == torch.bfloat16 else 2e-6)


CASES = [((1,), 0), ((5, 31, 32, 33), 0), ((40, 1, 64), 9), ((70, 33), 32), ((300, 20), 0), ((290, 260), 45)]


@pytest.mark.parametrize(("lengths", "shared"), CASES)
def test_segment_attention(dtype: torch.dtype, lengths: tuple[int, ...], shared: int) -> None:
    check_attention(SegmentAttention(H, K, D, Rows(), Arena(dtype)), dtype, lengths, shared)


@pytest.mark.skipif(not may_use_tiles(), reason="this CPU has no AMX")
@pytest.mark.parametrize(("lengths", "shared"), CASES)
def test_tile_attention(lengths: tuple[int, ...], shared: int) -> None:
    torch.manual_seed(0)
    check_attention(TileAttention(H, K, D, Rows()), torch.bfloat16, lengths, shared)
