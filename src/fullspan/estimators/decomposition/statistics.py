# mypy: allow-untyped-decorators, allow-untyped-calls
"""Sums that principal components need: of rows, and of their products, centred before they are multiplied.

Products of numbers far from zero lose the digits in which they differ. So rows are centred first, in blocks
that stay in the cache, by the mean of some rows; what that misses of the mean of all is made good afterwards.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg.blas import dsyrk, ssyrk

from fullspan.core.device import usable_cores
from fullspan.core.kernels import FINITE_ANY_ORDER, kernel
from fullspan.core.threads import Crew

Vector = NDArray[Any]
_BLOCK_BYTES = 1 << 23
_FEW_VALUES = 100_000
_ROWS_FOR_A_SHIFT = 256


@kernel(fastmath=FINITE_ANY_ORDER)
def centre_rows(thread: int, n_threads: int, X: Any, shift: Any, root: Any, out: Any, sums: Any) -> None:
    """Fill `out` with the rows less `shift`, times their weights' roots; add their sums to `sums`.

    X, out [n, p]; shift [p]; root [n] or empty; sums float64 [n_threads, p], of the rows times weights.
    """
    n, p = out.shape
    own = sums[thread]
    for k in range(n * thread // n_threads, n * (thread + 1) // n_threads):
        if len(root):
            r = root[k]
            for j in range(p):
                value = r * (X[k, j] - shift[j])
                out[k, j] = value
                own[j] += r * value
        else:
            for j in range(p):
                value = X[k, j] - shift[j]
                out[k, j] = value
                own[j] += value


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


def moments_of(X: Any, weight: Vector | None = None) -> Moments:
    """The moments of a dense array's or CSR or CSC matrix's rows, without a centred copy of it.

    Sums over rows are of float64; products of float32 rows are taken in float32, block by block.
    """
    if weight is not None and not weight.any():
        return Moments(0.0, np.zeros(X.shape[1]), np.zeros((X.shape[1], X.shape[1])))
    if sparse.issparse(X):
        return _sparse_moments(X, weight)
    n, p = X.shape
    rows = min(n, max(_ROWS_FOR_A_SHIFT, _BLOCK_BYTES // (X.itemsize * p)))
    shift = X[:: max(1, n // _ROWS_FOR_A_SHIFT)].mean(axis=0)
    syrk = dsyrk if X.dtype == np.float64 else ssyrk
    root = np.empty(0, X.dtype) if weight is None else np.sqrt(weight).astype(X.dtype)
    n_threads = 1 if X.size < _FEW_VALUES else usable_cores()
    sums, products = np.zeros((n_threads, p)), np.zeros((p, p), order="F")
    # The buffer's transpose is what BLAS sees: columns one behind the other.
    buffer = np.empty((rows, p), X.dtype)
    with Crew(n_threads) as crew:
        for first in range(0, n, rows):
            block = buffer[: min(rows, n - first)]
            # One layout, one compiled kernel: columns one behind the other are turned block by block.
            given = np.ascontiguousarray(X[first : first + rows])
            crew.run(centre_rows, given, shift, root[first : first + rows], block, sums)
            if X.dtype == np.float64:
                products = syrk(1.0, block.T, beta=1.0, c=products, overwrite_c=1, lower=1)
            else:
                products += syrk(1.0, block.T, lower=1)
    products += np.tril(products, -1).T
    total = float(n) if weight is None else float(weight.sum())
    missed = sums.sum(axis=0) / total
    products -= total * np.outer(missed, missed)
    return Moments(total, shift.astype(np.float64) + missed, products)


def _sparse_moments(X: Any, weight: Vector | None) -> Moments:
    """Its zeros stay out of the products, so that centring has to wait until after them."""
    total = float(X.shape[0]) if weight is None else float(weight.sum())
    scaled = X if weight is None else X.multiply(weight[:, None]).tocsr()
    mean = np.asarray(scaled.sum(axis=0), np.float64).ravel() / total
    products = np.asarray((scaled.T @ X).toarray(), np.float64)
    return Moments(total, mean, products - total * np.outer(mean, mean))
