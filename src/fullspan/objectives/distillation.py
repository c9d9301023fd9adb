"""Cross-entropy to a distribution: what a drafter learns from the model it drafts for."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def soft_cross_entropy(logits: Tensor, wanted: Tensor) -> Tensor:
    """``-sum_v softmax(wanted)_v log softmax(logits)_v`` of each row [N], in float32.

    Least where the two distributions are the same; its gradient is their difference.

    Parameters
    ----------
    logits, wanted : Tensor [N, W]
        The drafter's logits and the model's, over the draft vocabulary.

    Examples
    --------
    >>> round(soft_cross_entropy(torch.zeros(1, 4), torch.tensor([[9.0, 1, 1, 1]])).item(), 4)  # log 4
    1.3863
    """
    return -(wanted.float().softmax(-1) * F.log_softmax(logits.float(), -1)).sum(-1)


def weighted_mean(losses: list[Tensor], weights: list[float]) -> Tensor:
    """``sum_k w_k mean(losses_k) / sum_k w_k``; positions without any row count nothing."""
    means = [loss.mean() * weight for loss, weight in zip(losses, weights, strict=True) if loss.numel()]
    used = sum(weight for loss, weight in zip(losses, weights, strict=True) if loss.numel())
    return torch.stack(means).sum() / used if means else torch.zeros(())
