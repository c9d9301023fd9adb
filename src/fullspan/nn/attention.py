"""Softmax attention with grouped key/value heads.

Shapes: B batch, T query tokens, S key tokens, H query heads, K key/value heads, D head_dim.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fullspan.nn.kv_cache import KVCache
from fullspan.nn.positions import apply_rope


class Attention(nn.Module):
    """Causal self-attention; n_kv_heads == n_heads is multi-head, 1 is multi-query, between is grouped-query.

    Parameters
    ----------
    d_model, n_heads, n_kv_heads, head_dim : int
        Sizes; `n_heads` is a multiple of `n_kv_heads`.
    bias : bool
        Whether the four projections have a bias.

    References
    ----------
    Vaswani et al. 2017, "Attention Is All You Need", equation 1; Ainslie et al. 2023, "GQA".

    Examples
    --------
    >>> from fullspan.nn.positions import Rope
    >>> tables = Rope(4, theta=1e4).tables(torch.arange(3)[None], torch.float32)
    >>> Attention(8, n_heads=4, n_kv_heads=2, head_dim=4)(torch.zeros(1, 3, 8), *tables).shape
    torch.Size([1, 3, 8])
    """

    def __init__(
        self, d_model: int, *, n_heads: int, n_kv_heads: int, head_dim: int, bias: bool = False
    ) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.n_kv_heads = n_kv_heads
        self.head_dim = head_dim
        self.q_proj = nn.Linear(d_model, n_heads * head_dim, bias=bias)
        self.k_proj = nn.Linear(d_model, n_kv_heads * head_dim, bias=bias)
        self.v_proj = nn.Linear(d_model, n_kv_heads * head_dim, bias=bias)
        self.o_proj = nn.Linear(n_heads * head_dim, d_model, bias=bias)

    def forward(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        *,
        mask: Tensor | None = None,
        cache: KVCache | None = None,
        layer: int = 0,
    ) -> Tensor:
        """Attend.

        Parameters
        ----------
        x : Tensor [B, T, d_model]
        cos, sin : Tensor [B, T, 1, D/2]
            Rotations of the tokens' positions.
        mask : Tensor [B or 1, 1, T, S], optional
            Added to the scores, from `additive_mask`; None is causal (or, for one token, everything).
        cache : KVCache, optional
            Holds the keys and values of earlier tokens under `layer`, and takes the new ones.

        Returns
        -------
        Tensor [B, T, d_model]
        """
        batch, n_tokens, _ = x.shape
        q = self.q_proj(x).view(batch, n_tokens, self.n_heads, self.head_dim)
        k = self.k_proj(x).view(batch, n_tokens, self.n_kv_heads, self.head_dim)
        v = self.v_proj(x).view(batch, n_tokens, self.n_kv_heads, self.head_dim).transpose(1, 2)
        q = apply_rope(q, cos, sin).transpose(1, 2)  # [B, H, T, D]
        k = apply_rope(k, cos, sin).transpose(1, 2)  # [B, K, T, D]
        if cache is not None:
            k, v = cache.write(layer, k, v)  # [B, K, S, D]
        attended = grouped_attention(q, k, v, mask)  # [B, H, T, D]
        output: Tensor = self.o_proj(attended.transpose(1, 2).reshape(batch, n_tokens, -1))
        return output


def grouped_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(q kᵀ / sqrt(D) + mask) v for `q` [B, H, T, D] and `k`, `v` [B, K, S, D].

    Query head h uses key/value head h // (H / K). Without a mask, T == S is causal and T == 1 sees every
    key; no other lengths are possible then, since torch aligns its causal mask at the top left.
    """
    return F.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=mask,
        is_causal=mask is None and q.shape[2] > 1,
        # torch's fused kernel shares the heads without copying them.
        enable_gqa=q.shape[1] != k.shape[1],
    )


def additive_mask(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where `allowed` is True, else minus infinity; made once a pass, since torch would in every layer.

    Examples
    --------
    >>> additive_mask(torch.tensor([True, False]), torch.float32).tolist()
    [0.0, -inf]
    """
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(~allowed, -torch.inf)
