"""What all losses share, and the sums and roots that they are made of."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Largest score that is exponentiated; beyond it gradients would overflow float32.
_MOST_EXPONENT = 80.0


def weighted_quantile(values: Array, alpha: float, sample_weight: Array | None = None) -> float:
    """The constant with the least pinball loss; halfway where a whole interval has it.

    Examples
    --------
    >>> weighted_quantile(np.array([4.0, 1.0, 2.0, 3.0]), 0.5)
    2.5
    >>> weighted_quantile(np.array([4.0, 1.0, 2.0]), 0.5, np.array([5.0, 1.0, 1.0]))
    4.0
    """
    order = np.argsort(values, kind="stable")
    ordered = np.asarray(values, np.float64)[order]
    weight = np.ones(len(ordered)) if sample_weight is None else np.asarray(sample_weight, np.float64)[order]
    ordered, weight = ordered[weight > 0], weight[weight > 0]
    reached = np.cumsum(weight)
    wanted = alpha * reached[-1]
    # Sums of floats miss a tie by rounding.
    slack = 1e-12 * reached[-1]
    first = min(int(np.searchsorted(reached, wanted - slack)), len(ordered) - 1)
    last = min(int(np.searchsorted(reached, wanted + slack, side="right")), len(ordered) - 1)
    return float((ordered[first] + ordered[last]) / 2)


def bounded_exp(x: Array) -> Array:
    """exp(x), for large x that of a bound that float32 can hold."""
    return np.asarray(np.exp(np.minimum(x, _MOST_EXPONENT)))


def weighted_mean(values: Array, sample_weight: Array | None) -> float:
    """Mean over the rows."""
    return float(np.average(values, axis=0, weights=sample_weight))


def root_of(gradient: Any, low: float, high: float, sample_weight: Array | None) -> float:
    """Where the weighted mean of an increasing function is zero, by bisection."""
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if np.average(gradient(middle), weights=sample_weight) < 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2


class Loss:
    """What all losses share. y has shape (n_samples,), as has raw but for `Multinomial`."""

    def pointwise(self, y: Array, raw: Array) -> Array:
        """The loss of each row."""
        raise NotImplementedError

    def loss(self, y: Array, raw: Array, sample_weight: Array | None = None) -> float:
        """Weighted mean of the rows' losses."""
        return weighted_mean(self.pointwise(y, raw), sample_weight)

    def gradient(self, y: Array, raw: Array) -> Array:
        """Derivative of each row's loss, of raw's shape."""
        return self.gradient_hessian(y, raw)[0]

    def gradient_hessian(self, y: Array, raw: Array) -> tuple[Array, Array]:
        """First and second derivatives of each row's loss, of raw's shape: of the hessian, the diagonal.

        A loss without curvature says what stands for it.
        """
        raise NotImplementedError

    def initial_raw(self, y: Array, sample_weight: Array | None = None) -> float | Array:
        """The constant raw score with the least loss."""
        raise NotImplementedError

    def inverse_link(self, raw: Array) -> Array:
        """Predictions from raw scores."""
        return raw

    def check_y(self, y: Array) -> None:
        """Refuse targets that the loss is not defined for.

        Raises
        ------
        ValueError
            The message says which targets are allowed.
        """
