"""The objective of EAGLE's layer: cross-entropies along a draft that goes on from itself.

EAGLE-3 (Li et al. 2025, section 3.2) drops EAGLE's regression on the model's hidden states and lets the layer
go on from its own output in training as it does in use ("training-time test"); later steps count less.
"""

from __future__ import annotations

from torch import Tensor

from fullspan.objectives.distillation import weighted_mean

DECAY = 0.8


def eagle_loss(losses: list[Tensor], decay: float = DECAY) -> Tensor:
    """The loss [] from the cross-entropies [N_k] of the draft's first, second, ... token.

    Examples
    --------
    >>> import torch
    >>> eagle_loss([torch.tensor([1.0]), torch.tensor([2.5, 3.5])], decay=1.0).item()
    2.0
    """
    return weighted_mean(losses, [decay**k for k in range(len(losses))])
