"""Frequencies of rotary positions and the ways to stretch them over longer contexts.

In NumPy alone, so that who computes without torch need not import it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Frequencies = NDArray[np.float32]


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


def inverse_frequencies(head_dim: int, theta: float, scaling: RopeScaling | None = None) -> Frequencies:
    """Radians a position adds to each of the D/2 pairs, float32 [D/2].

    Dynamic scaling changes nothing here: it sets in with the length of a sequence (see `Rope`).

    Examples
    --------
    >>> inverse_frequencies(4, 10000.0).tolist() == [1.0, 0.009999999776482582]
    True
    >>> inverse_frequencies(4, 10000.0, LinearScaling(factor=2.0))[0].item()
    0.5
    """
    with np.errstate(all="ignore"):  # what a hostile file asks for may be infinite
        exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
        # Divided by 2 pi. The power in double precision, which comes closest to what torch has in single.
        wavelengths = (theta ** exponents.astype(np.float64)).astype(np.float32)
        if isinstance(scaling, LinearScaling):
            return np.float32(1) / wavelengths / np.float32(scaling.factor)
        if isinstance(scaling, YarnScaling):
            return _yarn(wavelengths, head_dim, theta, scaling)
        if isinstance(scaling, Llama3Scaling):
            return _llama3(np.float32(1) / wavelengths, scaling)
        return np.float32(1) / wavelengths


def dynamic_theta(
    theta: float, head_dim: int, scaling: DynamicScaling, length: int, max_positions: int
) -> float:
    """The base for a sequence that is longer than `max_positions`."""
    stretch = scaling.factor * length / max_positions - (scaling.factor - 1)
    return float(theta * stretch ** (head_dim / (head_dim - 2)))


def _yarn(wavelengths: Frequencies, head_dim: int, theta: float, scaling: YarnScaling) -> Frequencies:
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
    ramp = (np.arange(head_dim // 2, dtype=np.float32) - np.float32(low)) / np.float32(high - low)
    keep = 1 - ramp.clip(0, 1)  # 1: extrapolated as it is, 0: interpolated
    divided = 1 / (np.float32(scaling.factor) * wavelengths)
    mixed: Frequencies = divided * (1 - keep) + keep / wavelengths
    return mixed


def yarn_mscale(factor: float, mscale: float = 1.0) -> float:
    """YaRN's temperature for attention, 0.1 · mscale · ln(factor) + 1 (equation 22 of the paper)."""
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0


def _llama3(frequencies: Frequencies, scaling: Llama3Scaling) -> Frequencies:
    wavelengths = np.float32(2 * math.pi) / frequencies
    longest_kept = scaling.original_max_positions / scaling.high_freq_factor
    shortest_divided = scaling.original_max_positions / scaling.low_freq_factor
    low, high, factor = map(np.float32, (scaling.low_freq_factor, scaling.high_freq_factor, scaling.factor))
    smooth = (np.float32(scaling.original_max_positions) / wavelengths - low) / (high - low)
    between = (1 - smooth) * frequencies / factor + smooth * frequencies
    scaled = np.where(wavelengths > shortest_divided, frequencies / factor, between)
    return np.where(wavelengths < longest_kept, frequencies, scaled)
