"""Sums that principal components need: of rows, and of their products.

Products of numbers far from zero lose the digits in which they differ. Where a sample of the rows shows that,
rows are centred first, in blocks that stay in the cache, by the mean of the sample; what that misses of the
mean of all is made good afterwards.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Vector = NDArray[Any]
_BLOCK_BYTES = 1 << 22
_ROWS_OF_A_SAMPLE = 256
# Means above so many standard deviations cost more than four of float64's sixteen digits.
_MOST_DEVIATIONS = 100.0


class Moments:
    """Number, mean and centred products of weighted rows; adding two gives those of all their rows.

    Attributes
    ----------
    total : float
        Sum of the weights.
    mean : ndarray of shape (n_features,)
    products : ndarray of shape (n_features, n_features)
        Sum of weight (x - mean)(x - mean)'.
    """

    def __init__(self, total: float, mean: Vector, products: Vector) -> None:
        self.total, self.mean, self.products = total, mean, products

    def __add__(self, other: Moments) -> Moments:
        """Chan, Golub and LeVeque 1979."""
        if not self.total or not other.total:
            return self if self.total else other
        total = self.total + other.total
        apart = other.mean - self.mean
        share = self.total * other.total / total
        mean = self.mean + apart * (other.total / total)
        return Moments(total, mean, self.products + other.products + share * np.outer(apart, apart))


@np.errstate(invalid="ignore")  # infinite values are the caller's to find
def moments_of(X: Any, weight: Vector | None = None) -> Moments:
    """The moments of a dense array's or CSR or CSC matrix's rows, without a centred copy of it.

    Sums over rows are of float64; products of float32 rows are taken in float32, block by block.
    """
    if weight is not None and not weight.any():
        return Moments(0.0, np.zeros(X.shape[1]), np.zeros((X.shape[1], X.shape[1])))
    if sparse.issparse(X):
        return _sparse_moments(X, weight)
    n = len(X)
    sample = X[:: max(1, n // _ROWS_OF_A_SAMPLE)]
    shift = sample.mean(axis=0)
    if weight is None and X.dtype == np.float64 and X.flags.c_contiguous:
        if (np.abs(shift) <= _MOST_DEVIATIONS * sample.std(axis=0)).all():
            mean = np.ones(n) @ X / n
            return Moments(float(n), mean, X.T @ X - n * np.outer(mean, mean))
    return _centred_moments(X, weight, shift)


def _centred_moments(X: Any, weight: Vector | None, shift: Vector) -> Moments:
    n, p = X.shape
    rows = min(n, max(_ROWS_OF_A_SAMPLE, _BLOCK_BYTES // (X.itemsize * p)))
    sums, products = np.zeros(p), np.zeros((p, p))
    buffer = np.empty((rows, p), X.dtype)
    for first in range(0, n, rows):
        block = np.subtract(X[first : first + rows], shift, out=buffer[: min(rows, n - first)])
        w = np.ones(len(block)) if weight is None else weight[first : first + rows].astype(np.float64)
        sums += w @ block
        if weight is not None:
            block *= np.sqrt(w)[:, None].astype(X.dtype)
        products += block.T @ block  # NumPy computes one half of it
    total = float(n) if weight is None else float(weight.sum())
    missed = sums / total
    products -= total * np.outer(missed, missed)
    return Moments(total, shift.astype(np.float64) + missed, products)


def _sparse_moments(X: Any, weight: Vector | None) -> Moments:
    """Its zeros stay out of the products, so that centring has to wait until after them."""
    total = float(X.shape[0]) if weight is None else float(weight.sum())
    scaled = X if weight is None else X.multiply(weight[:, None]).tocsr()
    mean = np.asarray(scaled.sum(axis=0), np.float64).ravel() / total
    products = np.asarray((scaled.T @ X).toarray(), np.float64)
    return Moments(total, mean, products - total * np.outer(mean, mean))
