"""Losses of classes, by log-odds or by margins."""

from __future__ import annotations

import numpy as np
from scipy.special import expit, log_expit, logsumexp

from fullspan.estimators.losses.base import Array, Loss, bounded_exp, weighted_mean


class Logistic(Loss):
    """Negative log-likelihood of y in [0, 1] when raw is the log-odds.

    Examples
    --------
    >>> loss = Logistic()
    >>> gradient, hessian = loss.gradient_hessian(np.array([1.0]), np.array([0.0]))
    >>> gradient, hessian
    (array([-0.5]), array([0.25]))
    """

    def pointwise(self, y: Array, raw: Array) -> Array:
        return np.asarray(-y * log_expit(raw) - (1 - y) * log_expit(-raw))

    def gradient_hessian(self, y: Array, raw: Array) -> tuple[Array, Array]:
        p = expit(raw)
        # (1 - p) as expit(-raw): nothing cancels when p is near 1.
        return p - y, p * expit(-raw)

    def initial_raw(self, y: Array, sample_weight: Array | None = None) -> float:
        p = weighted_mean(y, sample_weight)
        p = min(max(p, np.finfo(np.float64).eps), 1 - np.finfo(np.float64).eps)
        return float(np.log(p / (1 - p)))

    def inverse_link(self, raw: Array) -> Array:
        return np.asarray(expit(raw))

    def check_y(self, y: Array) -> None:
        if not np.all((y >= 0) & (y <= 1)):
            raise ValueError("y must be between 0 and 1 for the logistic loss")


class Exponential(Loss):
    """``exp(-s raw)`` with s = 2y - 1 for y in [0, 1]: AdaBoost's loss; raw is half of the log-odds."""

    def pointwise(self, y: Array, raw: Array) -> Array:
        return np.asarray(y * bounded_exp(-raw) + (1 - y) * bounded_exp(raw))

    def gradient_hessian(self, y: Array, raw: Array) -> tuple[Array, Array]:
        down, up = y * bounded_exp(-raw), (1 - y) * bounded_exp(raw)
        return up - down, up + down

    def initial_raw(self, y: Array, sample_weight: Array | None = None) -> float:
        return Logistic().initial_raw(y, sample_weight) / 2

    def inverse_link(self, raw: Array) -> Array:
        return np.asarray(expit(2 * raw))

    def check_y(self, y: Array) -> None:
        if not np.all((y >= 0) & (y <= 1)):
            raise ValueError("y must be between 0 and 1 for the exponential loss")


class Multinomial(Loss):
    """Negative log-likelihood of classes 0 to n_classes - 1; raw has shape (n_samples, n_classes).

    `initial_raw` are the log-frequencies, centred so that they add up to zero; a class that never occurs gets
    the log of float64's epsilon before centring.
    """

    def __init__(self, n_classes: int) -> None:
        self.n_classes = n_classes

    def pointwise(self, y: Array, raw: Array) -> Array:
        rows = np.arange(len(raw))
        return np.asarray(logsumexp(raw, axis=1) - raw[rows, y.astype(np.intp)])

    def gradient_hessian(self, y: Array, raw: Array) -> tuple[Array, Array]:
        p = self.inverse_link(raw)
        gradient = p.copy()
        gradient[np.arange(len(raw)), y.astype(np.intp)] -= 1
        return gradient, p * (1 - p)

    def initial_raw(self, y: Array, sample_weight: Array | None = None) -> Array:
        counts = np.bincount(y.astype(np.intp), weights=sample_weight, minlength=self.n_classes)
        logs = np.log(np.maximum(counts / counts.sum(), np.finfo(np.float64).eps))
        return np.asarray(logs - logs.mean())

    def inverse_link(self, raw: Array) -> Array:
        e = np.exp(raw - raw.max(axis=1, keepdims=True))
        return np.asarray(e / e.sum(axis=1, keepdims=True))

    def check_y(self, y: Array) -> None:
        if not np.all((y >= 0) & (y < self.n_classes) & (y == np.floor(y))):
            raise ValueError(f"y must be whole numbers from 0 to {self.n_classes - 1}")


class Hinge(Loss):
    """``max(0, 1 - s raw)`` with s = 2y - 1 for y in {0, 1}. Predictions are classes.

    One stands for the hessian where there is a slope, elsewhere float32's smallest normal number (XGBoost's).
    """

    def pointwise(self, y: Array, raw: Array) -> Array:
        return np.asarray(np.maximum(0, 1 - (2 * y - 1) * raw))

    def gradient_hessian(self, y: Array, raw: Array) -> tuple[Array, Array]:
        sign = 2 * y - 1
        inside = sign * raw < 1
        flat = np.finfo(np.float32).tiny
        return (
            np.where(inside, -sign, 0).astype(raw.dtype),
            np.where(inside, 1, flat).astype(raw.dtype),
        )

    def initial_raw(self, y: Array, sample_weight: Array | None = None) -> float:
        share = weighted_mean(y, sample_weight)
        return float(np.sign(share - 0.5))

    def inverse_link(self, raw: Array) -> Array:
        return (raw > 0).astype(raw.dtype)

    def check_y(self, y: Array) -> None:
        if not np.all((y == 0) | (y == 1)):
            raise ValueError("y must be 0 or 1 for the hinge loss")
