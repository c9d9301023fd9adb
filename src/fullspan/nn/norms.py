"""Normalisation layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """Root mean square normalisation, x / sqrt(mean(x²) + eps) · weight.

    The statistics are taken in float32 whatever the input's dtype is; the result has the input's dtype.

    Parameters
    ----------
    size : int
        Length of the normalised last dimension.
    eps : float
        Added to the mean square.

    References
    ----------
    Zhang & Sennrich 2019, "Root Mean Square Layer Normalization", equation 4.

    Examples
    --------
    >>> RMSNorm(2, eps=0.0)(torch.tensor([3.0, 4.0])).pow(2).mean().item()
    1.0
    """

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension of `x` [..., D]."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))  # [..., D]
        # By the norm rather than mean(x²): it makes no array of squares, forward or backward.
        norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)  # [..., 1]
        scale = torch.rsqrt(norm * norm / x.shape[-1] + self.eps)
        return (wide * scale).to(x.dtype) * self.weight.to(x.dtype)

    def extra_repr(self) -> str:
        """Size and eps, for `print(model)`."""
        return f"{self.weight.shape[0]}, eps={self.eps}"
