"""The objective of Medusa's heads (Cai et al. 2024, equation 1): later heads count less.

    L = sum_k lambda^k CE_k / sum_k lambda^k

The paper's CE is to the next token; here it is to the model's whole distribution, which its own samples
would have in the mean.
"""

from __future__ import annotations

from torch import Tensor

from fullspan.objectives.distillation import weighted_mean

DECAY = 0.8


def medusa_loss(losses: list[Tensor], decay: float = DECAY) -> Tensor:
    """The loss [] from the cross-entropies [N_k] of head 1, 2, ...

    Examples
    --------
    >>> import torch
    >>> round(medusa_loss([torch.tensor([1.0]), torch.tensor([2.0, 4.0])], decay=0.5).item(), 4)
    1.6667
    """
    return weighted_mean(losses, [decay**k for k in range(1, len(losses) + 1)])
