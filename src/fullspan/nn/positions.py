"""Rotary position embeddings; `frequencies` has the ways to stretch them over longer contexts.

Shapes: B batch, T tokens, H heads, D head_dim.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fullspan.nn.frequencies import (
    DynamicScaling,
    RopeScaling,
    YarnScaling,
    dynamic_theta,
    inverse_frequencies,
)


class Rope:
    """Rotation tables for positions; holds no parameters and stays in float32 when a model is cast.

    Parameters
    ----------
    head_dim : int
        Even size of a head.
    theta : float
        Base of the frequencies theta^(-2i/head_dim).
    scaling : RopeScaling, optional
        How the frequencies are stretched.
    max_positions : int
        Length from which dynamic scaling sets in.

    References
    ----------
    Su et al. 2021, "RoFormer: Enhanced Transformer with Rotary Position Embedding", equation 34.

    Examples
    --------
    >>> cos, sin = Rope(4, theta=10000.0).tables(torch.tensor([[0, 1]]), torch.float32)
    >>> cos.shape, sin[0, 0, 0].tolist()
    (torch.Size([1, 2, 1, 2]), [0.0, 0.0])
    """

    def __init__(
        self, head_dim: int, theta: float, scaling: RopeScaling | None = None, max_positions: int = 0
    ) -> None:
        self.head_dim = head_dim
        self.theta = theta
        self.scaling = scaling
        self.max_positions = max_positions
        self.inverse_frequencies = torch.from_numpy(inverse_frequencies(head_dim, theta, scaling))  # [D/2]
        self.attention_factor = (
            scaling.effective_attention_factor() if isinstance(scaling, YarnScaling) else 1.0
        )

    def tables(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and sines [B, T, 1, D/2] for integer `positions` [B, T], computed in float32."""
        frequencies = self.inverse_frequencies
        if isinstance(self.scaling, DynamicScaling) and positions.numel():
            length = int(positions.max()) + 1
            if length > self.max_positions:
                theta = dynamic_theta(self.theta, self.head_dim, self.scaling, length, self.max_positions)
                frequencies = torch.from_numpy(inverse_frequencies(self.head_dim, theta))
        angles = positions[..., None, None].float() * frequencies.to(positions.device)  # [B, T, 1, D/2]
        cos, sin = angles.cos(), angles.sin()
        if self.attention_factor != 1.0:
            cos, sin = cos * self.attention_factor, sin * self.attention_factor
        return cos.to(dtype), sin.to(dtype)


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (x[i], x[i + D/2]) of each head, the half-split layout.

    Parameters
    ----------
    x : Tensor [B, T, H, D]
        Queries or keys.
    cos, sin : Tensor [B, T, 1, D/2]
        From `Rope.tables`.

    Returns
    -------
    Tensor [B, T, H, D]

    Examples
    --------
    >>> quarter_turn = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
    >>> apply_rope(torch.tensor([[[[1.0, 0.0]]]]), *quarter_turn).flatten().tolist()
    [0.0, 1.0]
    """
    first, second = x.chunk(2, dim=-1)  # each [B, T, H, D/2]
    return torch.cat(
        (
            torch.addcmul(first * cos, second, sin, value=-1),
            torch.addcmul(second * cos, first, sin),
        ),
        dim=-1,
    )
