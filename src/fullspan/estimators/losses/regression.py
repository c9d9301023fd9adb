"""Losses of numbers: squared, absolute, robust, and deviances of positive means."""

from __future__ import annotations

import numpy as np
from scipy.special import xlogy

from fullspan.estimators.losses.base import (
    Array,
    Loss,
    bounded_exp,
    root_of,
    weighted_mean,
    weighted_quantile,
)


class SquaredError(Loss):
    """Half of the squared error.

    Examples
    --------
    >>> loss = SquaredError()
    >>> loss.loss(np.array([1.0, 3.0]), np.array([0.0, 0.0]))
    2.5
    >>> loss.initial_raw(np.array([1.0, 3.0]))
    2.0
    """

    def pointwise(self, y: Array, raw: Array) -> Array:
        return np.asarray((raw - y) ** 2 / 2)

    def gradient_hessian(self, y: Array, raw: Array) -> tuple[Array, Array]:
        return raw - y, np.ones_like(raw)

    def initial_raw(self, y: Array, sample_weight: Array | None = None) -> float:
        return weighted_mean(y, sample_weight)


class AbsoluteError(Loss):
    """Absolute error. It has no curvature: one stands for the hessian, as in XGBoost."""

    def pointwise(self, y: Array, raw: Array) -> Array:
        return np.asarray(np.abs(raw - y))

    def gradient_hessian(self, y: Array, raw: Array) -> tuple[Array, Array]:
        return np.sign(raw - y), np.ones_like(raw)

    def initial_raw(self, y: Array, sample_weight: Array | None = None) -> float:
        return weighted_quantile(y, 0.5, sample_weight)


class Quantile(Loss):
    """Pinball loss of the quantile `alpha`. One stands for the hessian, as in XGBoost."""

    def __init__(self, alpha: float = 0.5) -> None:
        self.alpha = alpha

    def pointwise(self, y: Array, raw: Array) -> Array:
        d = y - raw
        return np.where(d >= 0, self.alpha * d, (self.alpha - 1) * d)

    def gradient_hessian(self, y: Array, raw: Array) -> tuple[Array, Array]:
        gradient = np.where(raw >= y, 1 - self.alpha, -self.alpha).astype(raw.dtype)
        return gradient, np.ones_like(raw)

    def initial_raw(self, y: Array, sample_weight: Array | None = None) -> float:
        return weighted_quantile(y, self.alpha, sample_weight)


class Huber(Loss):
    """Half of the squared error up to `delta`, linear beyond (Huber 1964). The hessian is 0 beyond."""

    def __init__(self, delta: float = 1.0) -> None:
        self.delta = delta

    def pointwise(self, y: Array, raw: Array) -> Array:
        d = np.abs(raw - y)
        near = np.minimum(d, self.delta)
        return np.asarray(near * (d - near / 2))

    def gradient_hessian(self, y: Array, raw: Array) -> tuple[Array, Array]:
        d = raw - y
        return np.clip(d, -self.delta, self.delta), (np.abs(d) <= self.delta).astype(raw.dtype)

    def initial_raw(self, y: Array, sample_weight: Array | None = None) -> float:
        low, high = float(np.min(y)), float(np.max(y))
        return root_of(lambda c: self.gradient(y, np.full(len(y), c)), low, high, sample_weight)


class PseudoHuber(Loss):
    """``slope² (sqrt(1 + (d / slope)²) - 1)``, a smooth Huber loss (Charbonnier et al. 1994)."""

    def __init__(self, slope: float = 1.0) -> None:
        self.slope = slope

    def pointwise(self, y: Array, raw: Array) -> Array:
        z = (raw - y) / self.slope
        # sqrt(1 + z²) - 1 without cancellation.
        return np.asarray(self.slope**2 * z * (z / (np.hypot(1, z).astype(raw.dtype) + 1)))

    def gradient_hessian(self, y: Array, raw: Array) -> tuple[Array, Array]:
        d = raw - y
        root = np.hypot(1, d / self.slope).astype(raw.dtype)
        return d / root, 1 / root**3

    def initial_raw(self, y: Array, sample_weight: Array | None = None) -> float:
        low, high = float(np.min(y)), float(np.max(y))
        return root_of(lambda c: self.gradient(y, np.full(len(y), c)), low, high, sample_weight)


class SquaredLogError(Loss):
    """``(log(1 + raw) - log(1 + y))² / 2`` for y above -1, with raw scores held above -1.

    It is not convex: hessians below 1e-6 are raised to that, as in XGBoost.
    """

    _LEAST = -1 + 1e-6

    def pointwise(self, y: Array, raw: Array) -> Array:
        return np.asarray((np.log1p(np.maximum(raw, self._LEAST)) - np.log1p(y)) ** 2 / 2)

    def gradient_hessian(self, y: Array, raw: Array) -> tuple[Array, Array]:
        raw = np.maximum(raw, self._LEAST)
        d = np.log1p(raw) - np.log1p(y)
        return d / (raw + 1), np.maximum((1 - d) / (raw + 1) ** 2, 1e-6)

    def initial_raw(self, y: Array, sample_weight: Array | None = None) -> float:
        return float(np.expm1(weighted_mean(np.log1p(y), sample_weight)))

    def check_y(self, y: Array) -> None:
        if not np.all(y > -1):
            raise ValueError("y must be greater than -1 for the squared log error")


class _LogLink(Loss):
    """Losses whose prediction is exp(raw): the constant minimiser is the log of the mean."""

    def initial_raw(self, y: Array, sample_weight: Array | None = None) -> float:
        return float(np.log(max(weighted_mean(y, sample_weight), np.finfo(np.float64).tiny)))

    def inverse_link(self, raw: Array) -> Array:
        return bounded_exp(raw)


class Poisson(_LogLink):
    """Half of the Poisson deviance of counts y >= 0 with mean exp(raw)."""

    def pointwise(self, y: Array, raw: Array) -> Array:
        return np.asarray(bounded_exp(raw) - y * raw + xlogy(y, y) - y)

    def gradient_hessian(self, y: Array, raw: Array) -> tuple[Array, Array]:
        mean = bounded_exp(raw)
        return mean - y, mean

    def check_y(self, y: Array) -> None:
        if not np.all(y >= 0):
            raise ValueError("y must not be negative for the Poisson loss")


class Gamma(_LogLink):
    """Half of the gamma deviance of y > 0 with mean exp(raw)."""

    def pointwise(self, y: Array, raw: Array) -> Array:
        return np.asarray(raw + y * bounded_exp(-raw) - np.log(y) - 1)

    def gradient_hessian(self, y: Array, raw: Array) -> tuple[Array, Array]:
        ratio = y * bounded_exp(-raw)
        return 1 - ratio, ratio

    def check_y(self, y: Array) -> None:
        if not np.all(y > 0):
            raise ValueError("y must be positive for the gamma loss")


class Tweedie(_LogLink):
    """Half of the Tweedie deviance with mean exp(raw) and variance power between 1 and 2."""

    def __init__(self, power: float = 1.5) -> None:
        self.power = power

    def pointwise(self, y: Array, raw: Array) -> Array:
        p = self.power
        constant = np.power(y, 2 - p) / ((1 - p) * (2 - p))
        return np.asarray(
            constant - y * bounded_exp((1 - p) * raw) / (1 - p) + bounded_exp((2 - p) * raw) / (2 - p)
        )

    def gradient_hessian(self, y: Array, raw: Array) -> tuple[Array, Array]:
        p = self.power
        down, up = y * bounded_exp((1 - p) * raw), bounded_exp((2 - p) * raw)
        return up - down, (2 - p) * up - (1 - p) * down

    def check_y(self, y: Array) -> None:
        if not np.all(y >= 0):
            raise ValueError("y must not be negative for the Tweedie loss")
