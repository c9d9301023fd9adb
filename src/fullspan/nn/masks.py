"""Which tokens may see which: masks and the positions that follow from them.

Shapes: B batch, T query tokens, S key tokens (the last T of them are the queries' own).
"""

from __future__ import annotations

import torch
from torch import Tensor


def causal_mask(n_tokens: int, n_keys: int, device: torch.device | None = None) -> Tensor:
    """Bool [T, S]: the last query sees every key (aligned at the bottom right).

    Examples
    --------
    >>> causal_mask(2, 3).int().tolist()
    [[1, 1, 0], [1, 1, 1]]
    """
    return torch.ones(n_tokens, n_keys, dtype=torch.bool, device=device).tril_(n_keys - n_tokens)


def padding_mask(valid: Tensor, n_tokens: int) -> Tensor:
    """Bool [B, 1, T, S]: causal, and only keys that are `valid` [B, S].

    A padded query sees itself, so that no row is empty: a softmax over nothing is NaN.

    Examples
    --------
    >>> padding_mask(torch.tensor([[False, True, True]]), 3)[0, 0].int().tolist()
    [[1, 0, 0], [0, 1, 0], [0, 1, 1]]
    """
    n_keys = valid.shape[1]
    causal = causal_mask(n_tokens, n_keys, valid.device)
    own = torch.eye(n_keys, dtype=torch.bool, device=valid.device)[n_keys - n_tokens :]
    return ((causal & valid[:, None]) | own)[:, None]


def segment_mask(segments: Tensor) -> Tensor:
    """Bool [B, 1, T, T]: causal within equal ids of `segments` [B, T]; -1 is padding and sees itself only.

    Examples
    --------
    >>> segment_mask(torch.tensor([[0, 0, 1, -1, -1]]))[0, 0].int().tolist()
    [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1]]
    """
    n_tokens = segments.shape[1]
    same = (segments[:, :, None] == segments[:, None, :]) & (segments >= 0)[:, None]  # [B, T, T]
    own = torch.eye(n_tokens, dtype=torch.bool, device=segments.device)
    return ((same & causal_mask(n_tokens, n_tokens, segments.device)) | own)[:, None]


def segment_positions(segments: Tensor) -> Tensor:
    """int64 [B, T]: how many earlier tokens of its own segment each token has; 0 in padding.

    Examples
    --------
    >>> segment_positions(torch.tensor([[0, 0, 1, 1, -1]])).tolist()
    [[0, 1, 0, 1, 0]]
    """
    return segment_mask(segments)[:, 0].sum(-1) - 1
