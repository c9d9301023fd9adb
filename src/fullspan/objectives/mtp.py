"""The objective of multi-token prediction (DeepSeek-V3, equations 24 and 25): the mean over the depths."""

from __future__ import annotations

from torch import Tensor

from fullspan.objectives.distillation import weighted_mean


def mtp_loss(losses: list[Tensor]) -> Tensor:
    """The loss [] from the cross-entropies [N_k] of module 1, 2, ...

    Examples
    --------
    >>> import torch
    >>> mtp_loss([torch.tensor([1.0, 2.0]), torch.tensor([2.5])]).item()
    2.0
    """
    return weighted_mean(losses, [1.0] * len(losses))
