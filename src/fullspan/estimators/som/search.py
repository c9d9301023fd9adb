"""The nearest unit of each row, by matrix products and then exactly.

Products of rows and weights in float32 order the units up to rounding; those that rounding cannot tell from
the nearest are measured in float64. So the answer is the exact one at the speed of the products.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from fullspan.estimators.som._kernels import all_distances, nearest_of
from fullspan.estimators.som.grid import METRICS

_BLOCK_BYTES = 1 << 21
_EPS = float(np.finfo(np.float32).eps)
_LARGEST = 1e15  # squares of larger numbers come near the end of float32
NO_GAPS = np.ones((1, 1))
"""What kernels get for `known` where nothing is missing."""


@functools.cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


def without_gaps(X: NDArray[Any], gaps: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows in float64 with zeros for what is missing, and 1.0 where something is known."""
    rows = np.ascontiguousarray(X, dtype=np.float64)
    if not gaps:
        return rows, NO_GAPS
    known = ~np.isnan(rows)
    return np.where(known, rows, 0.0), known.astype(np.float64)


def distances(
    X: NDArray[Any], weights: NDArray[np.float64], metric: str, gaps: bool, n_threads: int
) -> NDArray[np.float64]:
    """Of every row to every unit, [n_rows, n_units]."""
    out = np.empty((len(X), len(weights)))

    def measure(block: slice) -> None:
        rows, known = without_gaps(X[block], gaps)
        all_distances(rows, known, weights, METRICS[metric], gaps, out[block])

    list(_in_blocks(measure, len(X), out.shape[1], n_threads))
    return np.sqrt(out, out=out) if metric == "euclidean" else out


def nearest(
    X: NDArray[Any], weights: NDArray[np.float64], metric: str, gaps: bool, n_threads: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The first of the nearest units of each row, and its distance."""
    units, least = np.empty(len(X), np.int64), np.empty(len(X))
    if metric == "euclidean":
        products = _Products(weights)

        def find(block: slice) -> None:
            products.nearest(X[block], gaps, units[block], least[block])
    else:

        def find(block: slice) -> None:
            found = distances(X[block], weights, metric, gaps, 1)
            units[block] = found.argmin(axis=1)
            least[block] = found.min(axis=1)

    list(_in_blocks(find, len(X), len(weights), n_threads))
    return units, np.sqrt(least) if metric == "euclidean" else least


def _in_blocks(work: Any, n_rows: int, n_units: int, n_threads: int) -> Iterator[None]:
    size = max(16, _BLOCK_BYTES // (4 * n_units))
    blocks = [slice(first, first + size) for first in range(0, n_rows, size)]
    if n_threads == 1 or len(blocks) == 1:
        yield from map(work, blocks)
        return
    # Each thread multiplies its own blocks: BLAS' own threads would share too small ones.
    with _controller().limit(limits=1, user_api="blas"), ThreadPoolExecutor(n_threads) as pool:
        yield from pool.map(work, blocks)


class _Products:
    """Weights made ready for products: centred, so that little cancels, and scaled into float32's range."""

    def __init__(self, weights: NDArray[np.float64]) -> None:
        self.weights = weights
        self.shift = weights.mean(axis=0)
        centred = weights - self.shift
        self.scale = float(np.abs(centred).max()) or 1.0
        self.right = (centred / self.scale).astype(np.float32)
        self.squares = 0.5 * self.right**2
        self.halves = self.squares.sum(axis=1)
        self.longest = float(np.sqrt(2.0 * self.halves.max()))

    def nearest(
        self, X: NDArray[Any], gaps: bool, units: NDArray[np.int64], squares: NDArray[np.float64]
    ) -> None:
        """|w|²/2 - x·w orders the units as the distance does; only known entries count."""
        rows, known = without_gaps(X, gaps)
        centred = (rows - self.shift) / self.scale
        if gaps:
            centred *= known
        if np.abs(centred).max() > _LARGEST:  # measure all units
            scores = np.zeros((len(rows), len(self.weights)), np.float32)
            slack = np.zeros(len(rows), np.float32)
        else:
            left = centred.astype(np.float32)
            scores = left @ self.right.T
            np.subtract(
                known.astype(np.float32) @ self.squares.T if gaps else self.halves, scores, out=scores
            )
            lengths = np.sqrt(np.einsum("ij,ij->i", left, left))
            # Twice the error of a score, that of sums of n products (Higham, Accuracy and Stability, 3.1).
            error = _EPS * (left.shape[1] + 3) * self.longest
            slack = (error * (lengths + 0.5 * self.longest)).astype(np.float32)
        nearest_of(scores, slack, rows, known, self.weights, gaps, units, squares)
