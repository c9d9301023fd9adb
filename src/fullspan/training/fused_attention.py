"""Attention of the fused step: each piece's queries against the keys that they may see, and the way back.

Shapes: M rows of the shard, H heads, K key/value heads, D head_dim, T queries and S keys of one piece.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from fullspan.core.simd_tiles import may_use_tiles
from fullspan.training import _amx_kernels, _kernels
from fullspan.training.fused_buffers import Arena, Half, Rows
from fullspan.training.fused_plan import ROW_MULTIPLE, Piece, Shard

QUERY_BLOCK = 256
"""Queries whose scores exist at a time, so that a long segment needs no [T, T] matrix."""


class SegmentAttention:
    """Softmax attention over the pieces of a shard by batched products, for rows [q heads, k heads, v heads].

    The query heads of a key head are stacked as rows of one product. Operands are float32; on CPUs with
    bfloat16 products the caller lets oneDNN round them inside, which keeps scores and sums in float32.

    Parameters
    ----------
    n_heads, n_kv_heads, head_dim : int
    rows : Rows
        Runs kernels.
    arena : Arena
        Its memory.
    """

    def __init__(self, n_heads: int, n_kv_heads: int, head_dim: int, rows: Rows, arena: Arena) -> None:
        self.n_heads = n_heads
        self.n_kv_heads = n_kv_heads
        self.head_dim = head_dim
        self.rows = rows
        self.factor = np.float32(1 / math.sqrt(head_dim))
        self.key_column = n_heads * head_dim
        self.value_column = self.key_column + n_kv_heads * head_dim
        self.arena = arena

    def forward(self, shard: Shard, qkv: Half, out: Half, normalisers: Tensor) -> None:
        """out half [M, >= H D] from qkv half [M, (H + 2 K) D]; normalisers float32 [H, M] are kept."""
        for piece in shard.pieces:
            k, v = self._keys_values(piece, qkv)
            for start in range(0, len(piece.own_rows), QUERY_BLOCK):
                rows = piece.own_rows[start : start + QUERY_BLOCK]
                q = self._gather("q", self.n_heads, qkv, rows, 0)
                before = piece.n_before + start
                scores = self._scores("scores", q, k, before, len(rows))
                self.rows(
                    _kernels.causal_softmax,
                    self.n_heads,
                    self._by_head(scores, q).numpy(),
                    self.factor,
                    len(rows),
                    before,
                    normalisers.numpy(),
                    int(rows[0]),
                )
                attended = self._like("attended", q)
                torch.bmm(scores, v[:, : scores.shape[2]], out=self._grouped(attended))
                self.rows(_kernels.scatter_heads, self.n_heads, attended.numpy(), 0, rows, 0, out.values)

    def backward(self, shard: Shard, qkv: Half, d_out: Half, normalisers: Tensor, d_qkv: Half) -> None:
        """d_qkv half [M, >= (H + 2 K) D] from d_out half [M, >= H D]."""
        shared: tuple[Tensor, Tensor] | None = None
        # The prefix comes last: its keys collect the gradients of all the other pieces.
        for piece in reversed(shard.pieces):
            k, v = self._keys_values(piece, qkv)
            d_k, d_v = self._like("d_k", k).zero_(), self._like("d_v", v).zero_()
            for start in range(0, len(piece.own_rows), QUERY_BLOCK):
                rows = piece.own_rows[start : start + QUERY_BLOCK]
                self._block_backward(
                    rows, piece.n_before + start, (qkv, k, v), (d_out, d_qkv, d_k, d_v), normalisers
                )
            n_before, own = piece.n_before, piece.own_rows
            if n_before:
                if shared is None:
                    shared = (torch.zeros_like(d_k[:, :n_before]), torch.zeros_like(d_v[:, :n_before]))
                shared[0].add_(d_k[:, :n_before])
                shared[1].add_(d_v[:, :n_before])
            elif shared is not None:
                d_k[:, : len(own)].add_(shared[0])
                d_v[:, : len(own)].add_(shared[1])
            for gradient, column in ((d_k, self.key_column), (d_v, self.value_column)):
                self.rows(
                    _kernels.scatter_heads,
                    self.n_kv_heads,
                    gradient.numpy(),
                    n_before,
                    own,
                    column,
                    d_qkv.values,
                )

    def _block_backward(
        self,
        rows: np.ndarray,
        before: int,
        forward: tuple[Half, Tensor, Tensor],
        gradients: tuple[Half, Half, Tensor, Tensor],
        normalisers: Tensor,
    ) -> None:
        (qkv, k, v), (d_out, d_qkv, d_k, d_v) = forward, gradients
        q = self._gather("q", self.n_heads, qkv, rows, 0)
        d_attended = self._gather("attended", self.n_heads, d_out, rows, 0)
        weights = self._scores("scores", q, k, before, len(rows))
        d_scores = self._scores("d_scores", d_attended, v, before, len(rows))
        self.rows(
            _kernels.causal_softmax_backward,
            self.n_heads,
            self._by_head(weights, q).numpy(),
            self._by_head(d_scores, q).numpy(),
            self.factor,
            len(rows),
            before,
            normalisers.numpy(),
            int(rows[0]),
        )
        n_keys = weights.shape[2]
        d_v[:, :n_keys].add_(torch.bmm(weights.transpose(1, 2), self._grouped(d_attended)))
        d_k[:, :n_keys].add_(torch.bmm(d_scores.transpose(1, 2), self._grouped(q)))
        torch.bmm(d_scores, k[:, :n_keys], out=self._grouped(q))  # d_q takes the place of q
        self.rows(_kernels.scatter_heads, self.n_heads, q.numpy(), 0, rows, 0, d_qkv.values)

    def _keys_values(self, piece: Piece, qkv: Half) -> tuple[Tensor, Tensor]:
        k = self._gather("k", self.n_kv_heads, qkv, piece.key_rows, self.key_column)
        v = self._gather("v", self.n_kv_heads, qkv, piece.key_rows, self.value_column)
        return k, v  # each [K, S, D], S padded

    def _gather(self, name: str, n_heads: int, x: Half, rows: np.ndarray, column: int) -> Tensor:
        padded = len(rows) + -len(rows) % ROW_MULTIPLE
        out = self.arena.floats(name, n_heads, padded, self.head_dim)
        self.rows(_kernels.gather_heads, n_heads, x.values, rows, column, out.numpy())
        return out

    def _scores(self, name: str, q: Tensor, k: Tensor, before: int, n_queries: int) -> Tensor:
        """q kᵀ up to the last key that a query sees: [K, H / K * T, S]."""
        n_keys = before + n_queries
        n_keys = min(n_keys + -n_keys % ROW_MULTIPLE, k.shape[1])
        folded = self._grouped(q)
        scores = self.arena.floats(name, self.n_kv_heads, folded.shape[1], n_keys)
        return torch.bmm(folded, k[:, :n_keys].transpose(1, 2), out=scores)

    def _grouped(self, x: Tensor) -> Tensor:  # [H, T, D] -> [K, H / K * T, D]
        return x.view(self.n_kv_heads, -1, self.head_dim)

    def _by_head(self, scores: Tensor, q: Tensor) -> Tensor:  # [K, H / K * T, S] -> [H, T, S]
        return scores.view(self.n_heads, q.shape[1], -1)

    def _like(self, name: str, x: Tensor) -> Tensor:
        return self.arena.floats(name, x.shape[0], x.shape[1], x.shape[2])


class TileAttention:
    """The same in one kernel, on CPUs with AMX (see `_amx_kernels`), for bfloat16 and a head_dim of 32 n."""

    def __init__(self, n_heads: int, n_kv_heads: int, head_dim: int, rows: Rows) -> None:
        self.n_kv_heads = n_kv_heads
        self.head_dim = head_dim
        self.group = n_heads // n_kv_heads
        self.columns = (n_heads * head_dim, (n_heads + n_kv_heads) * head_dim)
        self.factor = np.float32(1 / math.sqrt(head_dim))
        self.rows = rows

    def forward(self, shard: Shard, qkv: Half, out: Half, normalisers: Tensor) -> None:
        """out half [M, >= H D] from qkv half [M, (H + 2 K) D]; normalisers float32 [H, M] are kept."""
        self.rows(
            _amx_kernels.attend,
            self.n_kv_heads,
            qkv.values,
            *shard.flat_pieces,
            self.group,
            self.columns,
            self.head_dim,
            self.factor,
            out.values,
            normalisers.numpy(),
        )

    def backward(self, shard: Shard, qkv: Half, d_out: Half, normalisers: Tensor, d_qkv: Half) -> None:
        """d_qkv half [M, >= (H + 2 K) D] from d_out half [M, >= H D]."""
        n_shared = int(shard.flat_pieces[2].max())
        self.rows(
            _amx_kernels.attend_backward,
            self.n_kv_heads,
            qkv.values,
            *shard.flat_pieces,
            self.group,
            self.columns,
            self.head_dim,
            self.factor,
            d_out.values,
            normalisers.numpy(),
            d_qkv.values,
            np.zeros((2, self.n_kv_heads, n_shared, self.head_dim), np.float32),
        )


Attention = SegmentAttention | TileAttention


def make_attention(n_heads: int, n_kv_heads: int, head_dim: int, rows: Rows, arena: Arena) -> Attention:
    """The faster one that this CPU can run for the arena's dtype."""
    if arena.dtype == torch.bfloat16 and head_dim % ROW_MULTIPLE == 0 and may_use_tiles():
        return TileAttention(n_heads, n_kv_heads, head_dim, rows)
    return SegmentAttention(n_heads, n_kv_heads, head_dim, rows, arena)
