"""Rotary position embeddings and the ways to stretch them over longer contexts.

Shapes: B batch, T tokens, H heads, D head_dim.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LinearScaling:
    """Every position is divided by `factor`."""

    factor: float


@dataclass(frozen=True)
class DynamicScaling:
    """The base grows with the length of the sequence once that exceeds `max_positions` ("dynamic NTK").

    Keys that a cache holds keep the rotation of the length at which they were computed, as in transformers.
    """

    factor: float


@dataclass(frozen=True)
class YarnScaling:
    """Slow frequencies are interpolated, fast ones kept, with a ramp between; attention gets a temperature.

    References
    ----------
    Peng et al. 2023, "YaRN: Efficient Context Window Extension of Large Language Models", section 3.2.
    """

    factor: float
    original_max_positions: int
    attention_factor: float | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True

    def effective_attention_factor(self) -> float:
        """What cosines and sines are multiplied by: given, or from the factor and the two mscales."""
        if self.attention_factor is not None:
            return self.attention_factor
        if self.mscale and self.mscale_all_dim:
            return yarn_mscale(self.factor, self.mscale) / yarn_mscale(self.factor, self.mscale_all_dim)
        return yarn_mscale(self.factor)


@dataclass(frozen=True)
class Llama3Scaling:
    """Llama 3.1: three bands of wavelengths; short kept, long divided by `factor`, a smooth middle."""

    factor: float
    original_max_positions: int
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0


RopeScaling = LinearScaling | DynamicScaling | YarnScaling | Llama3Scaling


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
        self.inverse_frequencies = inverse_frequencies(head_dim, theta, scaling)  # [D/2]
        self.attention_factor = (
            scaling.effective_attention_factor() if isinstance(scaling, YarnScaling) else 1.0
        )

    def tables(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and sines [B, T, 1, D/2] for integer `positions` [B, T], computed in float32."""
        frequencies = self.inverse_frequencies
        if isinstance(self.scaling, DynamicScaling) and positions.numel():
            length = int(positions.max()) + 1
            if length > self.max_positions:
                theta = _dynamic_theta(self.theta, self.head_dim, self.scaling, length, self.max_positions)
                frequencies = inverse_frequencies(self.head_dim, theta)
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


def inverse_frequencies(head_dim: int, theta: float, scaling: RopeScaling | None = None) -> Tensor:
    """Radians a position adds to each of the D/2 pairs, float32 on the CPU.

    Dynamic scaling changes nothing here: it sets in with the length of a sequence (see `Rope`).

    Examples
    --------
    >>> inverse_frequencies(4, 10000.0).tolist() == [1.0, 0.009999999776482582]
    True
    >>> inverse_frequencies(4, 10000.0, LinearScaling(factor=2.0))[0].item()
    0.5
    """
    # An explicit device: models are built on the meta device, but these numbers are no weights.
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device="cpu") / head_dim
    wavelengths = theta**exponents  # divided by 2 pi
    if isinstance(scaling, LinearScaling):
        return 1.0 / wavelengths / scaling.factor
    if isinstance(scaling, YarnScaling):
        return _yarn(wavelengths, head_dim, theta, scaling)
    if isinstance(scaling, Llama3Scaling):
        return _llama3(1.0 / wavelengths, scaling)
    return 1.0 / wavelengths


def _dynamic_theta(
    theta: float, head_dim: int, scaling: DynamicScaling, length: int, max_positions: int
) -> float:
    stretch = scaling.factor * length / max_positions - (scaling.factor - 1)
    return float(theta * stretch ** (head_dim / (head_dim - 2)))


def _yarn(wavelengths: Tensor, head_dim: int, theta: float, scaling: YarnScaling) -> Tensor:
    def dimension(rotations: float) -> float:
        # The pair that turns `rotations` times over the original context.
        turns = scaling.original_max_positions / (rotations * 2 * math.pi)
        return head_dim * math.log(turns) / (2 * math.log(theta))

    low, high = dimension(scaling.beta_fast), dimension(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    if low == high:
        high += 0.001  # a step instead of a division by zero
    ramp = (torch.arange(head_dim // 2, dtype=torch.float32, device="cpu") - low) / (high - low)
    keep = 1 - ramp.clamp(0, 1)  # 1: extrapolated as it is, 0: interpolated
    return 1.0 / (scaling.factor * wavelengths) * (1 - keep) + 1.0 / wavelengths * keep


def yarn_mscale(factor: float, mscale: float = 1.0) -> float:
    """YaRN's temperature for attention, 0.1 · mscale · ln(factor) + 1 (equation 22 of the paper)."""
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0


def _llama3(frequencies: Tensor, scaling: Llama3Scaling) -> Tensor:
    wavelengths = 2 * math.pi / frequencies
    longest_kept = scaling.original_max_positions / scaling.high_freq_factor
    shortest_divided = scaling.original_max_positions / scaling.low_freq_factor
    smooth = (scaling.original_max_positions / wavelengths - scaling.low_freq_factor) / (
        scaling.high_freq_factor - scaling.low_freq_factor
    )
    between = (1 - smooth) * frequencies / scaling.factor + smooth * frequencies
    scaled = torch.where(wavelengths > shortest_divided, frequencies / scaling.factor, between)
    return torch.where(wavelengths < longest_kept, frequencies, scaled)
