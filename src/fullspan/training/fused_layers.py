"""The layers of the fused step: products with LoRA inside, and a Llama block forwards and backwards.

Shapes: M rows of the shard, N supervised rows, D d_model, F d_ff, R padded sum of the ranks of a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fullspan.adapters.lora import LoRALinear
from fullspan.models.llama import Block
from fullspan.nn.norms import RMSNorm
from fullspan.training import _kernels
from fullspan.training.fused_attention import Attention
from fullspan.training.fused_buffers import Arena, Half, Rows
from fullspan.training.fused_plan import Shard

Floats = NDArray[np.float32]

_RANK_MULTIPLE = 32  # aligned rows, and few shapes of products


@dataclass(frozen=True)
class _Member:
    """One linear layer of a group: its place in the outputs and among the ranks."""

    base: nn.Linear
    lora: LoRALinear | None
    outputs: slice
    ranks: slice


class FusedLinear:
    """Linear layers that read the same input, with their LoRA updates, as one matrix.

    The table holds W and s B side by side and A below:

        [ W   s B ]      forward   [y]    = [x, x Aᵀ] [W, s B]ᵀ
        [ A    0  ]      backward  [d_x]  = [d_y, d_y s B] [W; A]

    so that each direction is one large product and a thin one. The layers' weights become views of the
    table: they exist once. Several layers (q, k and v) are stacked, their ranks side by side.

    Parameters
    ----------
    layers : sequence of nn.Linear or LoRALinear
        All with the same inputs, no bias, and weights of the same dtype.
    """

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        self.members: list[_Member] = []
        self.n_out = rank = 0
        for layer in layers:
            lora = layer if isinstance(layer, LoRALinear) else None
            base = layer.base if isinstance(layer, LoRALinear) else layer
            assert isinstance(base, nn.Linear)
            outputs = slice(self.n_out, self.n_out + base.out_features)
            ranks = slice(rank, rank + (lora.rank if lora else 0))
            self.members.append(_Member(base, lora, outputs, ranks))
            self.n_out, rank = outputs.stop, ranks.stop
        self.n_in = self.members[0].base.in_features
        self.n_rank = rank + -rank % _RANK_MULTIPLE
        dtype = self.members[0].base.weight.dtype
        self.table = torch.zeros(self.n_out + self.n_rank, self.n_in + self.n_rank, dtype=dtype)
        for member in self.members:
            view = self.table[member.outputs, : self.n_in]
            view.copy_(member.base.weight.detach())
            member.base.weight.data = view
        self._forward = self.table[: self.n_out].T  # [in + R, out]
        self._backward = self.table[:, : self.n_in]  # [out + R, in]
        self._a = self.table[self.n_out :, : self.n_in].T  # [in, R]
        self._b = self.table[: self.n_out, self.n_in :]  # [out, R]

    def owns_weights(self) -> bool:
        """Whether the layers' weights still are the views of the table (``model.to`` ends that)."""
        return all(
            member.base.weight.data_ptr() == self.table[member.outputs].data_ptr() for member in self.members
        )

    def refresh(self) -> None:
        """Take over the current A and B."""
        for member in self.members:
            if member.lora is not None:
                self._a.T[member.ranks].copy_(member.lora.lora_A)
                torch.mul(member.lora.lora_B, member.lora.scale, out=self._b[member.outputs, member.ranks])

    def forward(self, x: Tensor, low: Tensor, out: Tensor) -> None:
        """out [M, out] from x [M, >= in + R], whose last R columns are overwritten; low [M, R] is x Aᵀ."""
        if self.n_rank:
            torch.mm(x[:, : self.n_in], self._a, out=low)
            x[:, self.n_in : self.n_in + self.n_rank].copy_(low)
        torch.mm(x[:, : self.n_in + self.n_rank], self._forward, out=out)

    def backward(self, d_out: Tensor, d_x: Tensor | None) -> Tensor:
        """d_x [M, in] from d_out [M, >= out + R], whose last R columns are overwritten; returns those."""
        d_low = d_out[:, self.n_out : self.n_out + self.n_rank]
        if self.n_rank:
            d_low.copy_(torch.mm(d_out[:, : self.n_out], self._b))
        if d_x is not None:
            torch.mm(d_out[:, : self.n_out + self.n_rank], self._backward, out=d_x)
        return d_low

    def weight_gradients(self, x: Tensor, low: Tensor, d_out: Tensor, d_low: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of the stacked A [R, in] and of the stacked s B, transposed [R, out]."""
        return torch.mm(d_low.T, x[:, : self.n_in]), torch.mm(low.T, d_out[:, : self.n_out])

    def add_gradients(self, gradients: Sequence[tuple[Tensor, Tensor]], factor: float) -> None:
        """Add factor times the sum of the shards' `weight_gradients` to the parameters' ``.grad``."""
        # The order of the sum is that of the shards, so that it does not depend on who was first.
        d_a = gradients[0][0].float()
        d_b = gradients[0][1].float()
        for more_a, more_b in gradients[1:]:
            d_a = d_a + more_a
            d_b = d_b + more_b
        for member in self.members:
            if member.lora is None:
                continue
            for parameter, gradient, scale in (
                (member.lora.lora_A, d_a[member.ranks], factor),
                (member.lora.lora_B, d_b[member.ranks, member.outputs].T, factor * member.lora.scale),
            ):
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                parameter.grad.add_(gradient, alpha=scale)


Gradients = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Lane:
    """What one thread works with: its memory, its attention, and how it runs row kernels."""

    arena: Arena
    attention: Attention
    rows: Rows


@dataclass(frozen=True)
class Rotation:
    """Rotary tables of a shard's rows, float32 [M, head_dim / 2]; the way back turns by minus the angle."""

    cos: Floats
    sin: Floats
    minus_sin: Floats


class SavedAttention:
    """What the first half of a block keeps for the way back, all [M, ...]."""

    def __init__(self, block: FusedBlock, arena: Arena, key: str, n_rows: int) -> None:
        self.x = arena.half(f"x1 {key}", n_rows, block.d_model)
        self.scales = arena.floats(f"scales1 {key}", n_rows).numpy()
        self.qkv = arena.half(f"qkv {key}", n_rows, block.qkv.n_out)  # rotated
        self.low = arena.half(f"qkv low {key}", n_rows, block.qkv.n_rank).tensor
        self.normalisers = arena.floats(f"normalisers {key}", block.n_heads, n_rows)


class SavedFeedForward:
    """What the second half of a block keeps for the way back, all [M, ...]; it begins with o_proj."""

    def __init__(self, block: FusedBlock, arena: Arena, key: str, n_rows: int) -> None:
        self.attended = arena.half(f"attended {key}", n_rows, block.o.n_in + block.o.n_rank)
        self.o_low = arena.half(f"o low {key}", n_rows, block.o.n_rank).tensor
        self.x = arena.half(f"x2 {key}", n_rows, block.d_model)
        self.scales = arena.floats(f"scales2 {key}", n_rows).numpy()
        self.gate_up = arena.half(f"gate_up {key}", n_rows, block.gate_up.n_out)
        self.gate_up_low = arena.half(f"gate_up low {key}", n_rows, block.gate_up.n_rank).tensor
        self.down_low = arena.half(f"down low {key}", n_rows, block.down.n_rank).tensor


class Scratch:
    """What one thread needs while it is inside a block, all [M, ...]."""

    def __init__(self, block: FusedBlock, arena: Arena, n_rows: int) -> None:
        d_model = block.d_model
        self.n_rows = n_rows
        self.normed = arena.half("normed", n_rows, d_model + max(block.qkv.n_rank, block.gate_up.n_rank))
        self.hidden = arena.half("hidden", n_rows, block.down.n_in + block.down.n_rank)
        self.branch = arena.half("branch", n_rows, d_model)
        self.d_branch = arena.half("d_branch", n_rows, d_model + max(block.o.n_rank, block.down.n_rank))
        self.d_normed = arena.half("d_normed", n_rows, d_model)
        self.d_hidden = arena.half("d_hidden", n_rows, block.down.n_in)
        self.d_qkv = arena.half("d_qkv", n_rows, block.qkv.n_out + block.qkv.n_rank)
        self.d_gate_up = arena.half("d_gate_up", n_rows, block.gate_up.n_out + block.gate_up.n_rank)


class FusedBlock:
    """One block of a Llama, forwards and backwards, in two halves: up to attention, and from o_proj on.

    The halves are apart because the last block's second half is needed at supervised rows only.

    Parameters
    ----------
    block : models.llama.Block
    """

    def __init__(self, block: Block) -> None:
        heads, mlp = block.self_attn, block.mlp
        self.qkv = FusedLinear([heads.q_proj, heads.k_proj, heads.v_proj])
        self.o = FusedLinear([heads.o_proj])
        self.gate_up = FusedLinear([mlp.gate_proj, mlp.up_proj])
        self.down = FusedLinear([mlp.down_proj])
        self.linears = (self.qkv, self.o, self.gate_up, self.down)
        self.norm1, self.norm2 = Norm(block.input_layernorm), Norm(block.post_attention_layernorm)
        self.d_model = self.qkv.n_in
        self.n_heads = heads.n_heads
        self.n_rotated = heads.n_heads + heads.n_kv_heads

    def attend(
        self,
        lane: Lane,
        x: Tensor,
        branch: Half | None,
        shard: Shard,
        rotation: Rotation,
        saved: SavedAttention,
        scratch: Scratch,
        out: Half,
    ) -> None:
        """x += branch, and what the heads read goes to `out` half [M, >= H head_dim]."""
        n = scratch.n_rows
        self.norm1.forward(lane.rows, x, branch, saved.x, saved.scales, scratch.normed)
        self.qkv.forward(scratch.normed.tensor, saved.low, saved.qkv.tensor)
        lane.rows(_kernels.rotate, n, saved.qkv.values, self.n_rotated, rotation.cos, rotation.sin)
        lane.attention.forward(shard, saved.qkv, out, saved.normalisers)
        out.tensor[shard.n_tokens :].zero_()

    def feed_forward(self, lane: Lane, x: Tensor, saved: SavedFeedForward, scratch: Scratch) -> None:
        """x += o_proj(attended), and the output of the MLP is left in ``scratch.branch``."""
        self.o.forward(saved.attended.tensor, saved.o_low, scratch.branch.tensor)
        self.norm2.forward(lane.rows, x, scratch.branch, saved.x, saved.scales, scratch.normed)
        self.gate_up.forward(scratch.normed.tensor, saved.gate_up_low, saved.gate_up.tensor)
        lane.rows(
            _kernels.swiglu, scratch.n_rows, saved.gate_up.values, scratch.hidden.values, self.down.n_in
        )
        self.down.forward(scratch.hidden.tensor, saved.down_low, scratch.branch.tensor)

    def feed_forward_backward(
        self, lane: Lane, d_x: Tensor, saved: SavedFeedForward, scratch: Scratch, d_attended: Half
    ) -> list[Gradients]:
        """d_x (also in ``scratch.d_branch``) becomes that of x before the half; fills `d_attended`.

        Returns the gradients of o, gate_up and down.
        """
        n, d_branch, d_gate_up = scratch.n_rows, scratch.d_branch.tensor, scratch.d_gate_up
        d_low = self.down.backward(d_branch, scratch.d_hidden.tensor)
        lane.rows(
            _kernels.swiglu_backward,
            n,
            saved.gate_up.values,
            scratch.d_hidden.values,
            d_gate_up.values,
            self.down.n_in,
        )
        # d_hidden now holds the hidden state itself.
        down = self.down.weight_gradients(scratch.d_hidden.tensor, saved.down_low, d_branch, d_low)
        d_low = self.gate_up.backward(d_gate_up.tensor, scratch.d_normed.tensor)
        self.norm2.again(lane.rows, saved.x, saved.scales, scratch.normed)
        gate_up = self.gate_up.weight_gradients(
            scratch.normed.tensor, saved.gate_up_low, d_gate_up.tensor, d_low
        )
        self.norm2.backward(lane.rows, saved.x, saved.scales, scratch.d_normed, d_x, scratch.d_branch)
        d_low = self.o.backward(d_branch, d_attended.tensor)
        o = self.o.weight_gradients(saved.attended.tensor, saved.o_low, d_branch, d_low)
        return [o, gate_up, down]

    def attend_backward(
        self,
        lane: Lane,
        d_attended: Half,
        d_x: Tensor | None,
        shard: Shard,
        rotation: Rotation,
        saved: SavedAttention,
        scratch: Scratch,
    ) -> Gradients:
        """d_x (also in ``scratch.d_branch``) becomes that of the block's input; returns the gradients of qkv.

        Without `d_x` only the latter: the first block's input are the frozen embeddings.
        """
        d_qkv = scratch.d_qkv
        lane.attention.backward(shard, saved.qkv, d_attended, saved.normalisers, d_qkv)
        d_qkv.tensor[shard.n_tokens :].zero_()
        lane.rows(
            _kernels.rotate, scratch.n_rows, d_qkv.values, self.n_rotated, rotation.cos, rotation.minus_sin
        )
        d_low = self.qkv.backward(d_qkv.tensor, None if d_x is None else scratch.d_normed.tensor)
        self.norm1.again(lane.rows, saved.x, saved.scales, scratch.normed)
        gradients = self.qkv.weight_gradients(scratch.normed.tensor, saved.low, d_qkv.tensor, d_low)
        if d_x is not None:
            self.norm1.backward(lane.rows, saved.x, saved.scales, scratch.d_normed, d_x, scratch.d_branch)
        return gradients


class Norm:
    """RMSNorm on buffers.

    Parameters
    ----------
    norm : nn.norms.RMSNorm
    """

    def __init__(self, norm: RMSNorm) -> None:
        self.gain = norm.weight.detach().float().numpy().copy()
        self.eps = np.float32(norm.eps)

    def forward(
        self, rows: Rows, x: Tensor, branch: Half | None, saved: Half, scales: Floats, out: Half
    ) -> None:
        """x += branch; out = norm(x)."""
        added = saved if branch is None else branch
        rows(
            _kernels.add_norm,
            len(x),
            x.numpy(),
            added.values,
            branch is not None,
            self.gain,
            self.eps,
            saved.values,
            scales,
            out.values,
        )

    def again(self, rows: Rows, saved: Half, scales: Floats, out: Half) -> None:
        """out = norm(x) from what `forward` saved."""
        rows(_kernels.norm_again, len(scales), saved.values, self.gain, scales, out.values)

    def backward(
        self, rows: Rows, saved: Half, scales: Floats, d_out: Half, d_x: Tensor, d_branch: Half
    ) -> None:
        """d_x += the gradient through the norm; d_branch = d_x."""
        rows(
            _kernels.norm_backward,
            len(scales),
            saved.values,
            self.gain,
            scales,
            d_out.values,
            d_x.numpy(),
            d_branch.values,
        )
