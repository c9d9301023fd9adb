"""A part's rows: what a round of fitting logistic regression needs to know of them, as sums.

Parameters are a flat vector, class after class: coefficients, then the intercept if there is one. Two classes
need one vector of them, the log-odds of the second; K classes have K.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fullspan.core.device import usable_cores
from fullspan.core.threads import Crew
from fullspan.estimators.linear._kernels import SLABS, dense_logistic, softmax_rows, sparse_logistic

Vector = NDArray[np.float64]

# Products of so few columns are faster in our own loop, in the pass that finds the gradient, than by BLAS.
_FEW_COLUMNS = 64
_FEW_VALUES = 50_000
"""Fewer are not worth a second thread, nor slabs."""
_BLOCK_BYTES = 1 << 21
"""Of rows that BLAS gets at a time, so that they stay in the cache between their uses."""


class Rows:
    """Rows of a dense or a CSR matrix with codes of their classes.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features), C-contiguous, or CSR matrix
        float32 or float64; sums are taken in float64.
    codes : ndarray of int of shape (n_samples,)
        Which of the classes, from 0.
    weight : ndarray of float64 of shape (n_samples,), or of shape (0,) for equal rows
    n_classes : int
    fit_intercept : bool
    n_threads : int, optional
        By default one for each usable core.
    """

    def __init__(
        self,
        X: Any,
        codes: NDArray[Any],
        weight: Vector,
        n_classes: int,
        fit_intercept: bool,
        n_threads: int | None = None,
    ) -> None:
        self.X, self.weight, self.fit_intercept = X, weight, fit_intercept
        self.n_vectors = 1 if n_classes == 2 else n_classes
        self.codes: NDArray[np.integer[Any]] = codes.astype(np.uint8 if n_classes == 2 else np.int64)
        self.n_samples, self.n_features = X.shape
        self.width = self.n_features + fit_intercept
        self.sparse = sparse.issparse(X)
        n_values = X.nnz if self.sparse else X.size
        self.n_slabs = SLABS if n_values > _FEW_VALUES else 1
        self.n_threads = 1 if self.n_slabs == 1 else min(n_threads or usable_cores(), SLABS)

    def every(self, step: int) -> Rows:
        """Each row whose number is a multiple of `step`."""
        weight = self.weight[::step].copy()
        X = self.X[::step] if self.sparse else np.ascontiguousarray(self.X[::step])
        n_classes = 2 if self.n_vectors == 1 else self.n_vectors
        return Rows(X, self.codes[::step], weight, n_classes, self.fit_intercept, self.n_threads)

    def loss_gradient(self, params: Vector) -> tuple[float, float, Vector]:
        """Summed loss, how many rows are not on their own class's side, and the loss's gradient."""
        if self.n_vectors == 1:
            sums, gradient, _, _ = self._binary(params, 0, False)
            return float(sums[0]), float(sums[1]), gradient
        loss, wrong, gradient = 0.0, 0.0, np.zeros((self.n_vectors, self.width))
        for X, first_loss, first_wrong, slope, _ in self._blocks(params):
            loss, wrong = loss + first_loss, wrong + first_wrong
            self._add_gradient(X, slope, gradient)
        return loss, wrong, gradient.ravel()

    def loss_gradient_hessian(self, params: Vector) -> tuple[float, float, Vector, Vector]:
        """As `loss_gradient`, and the second derivatives, [n_params, n_params]."""
        if self.n_vectors > 1:
            return self._multinomial_hessian(params)
        few = self.sparse or self.n_features <= _FEW_COLUMNS
        sums, gradient, curvature, hessian = self._binary(params, 0 if few else self.n_samples, few)
        if not few:
            hessian = self._gram(curvature)
        return float(sums[0]), float(sums[1]), gradient, hessian

    def hessian_product(self, params: Vector, vector: Vector) -> Vector:
        """The product of the second derivatives with a vector."""
        v = vector.reshape(self.n_vectors, self.width)
        if self.n_vectors == 1:
            curvature = self._binary(params, self.n_samples, False)[2]
            out = np.zeros((1, self.width))
            for X, rows in self._row_blocks():
                self._add_gradient(X, (curvature[rows] * self._scores(X, v)[:, 0])[:, None], out)
            return out.ravel()
        out = np.zeros((self.n_vectors, self.width))
        for (X, *_, share), (_, rows) in zip(self._blocks(params), self._row_blocks(), strict=True):
            change = self._scores(X, v)
            change -= (share * change).sum(axis=1, keepdims=True)
            change *= share if not len(self.weight) else share * self.weight[rows, None]
            self._add_gradient(X, change, out)
        return out.ravel()

    def least_margin(self, direction: Vector) -> tuple[float, float]:
        """Least and greatest of what a direction adds to a row's score over its rivals' scores."""
        d = direction.reshape(self.n_vectors, self.width)
        least, greatest = np.inf, -np.inf
        for X, rows in self._row_blocks():
            scores, codes = self._scores(X, d), self.codes[rows]
            if self.n_vectors == 1:
                margin = np.where(codes == 1, scores[:, 0], -scores[:, 0])
                low, high = margin, margin
            else:
                own = np.take_along_axis(scores, codes[:, None], axis=1)
                np.put_along_axis(scores, codes[:, None], -np.inf, axis=1)
                low = (own - scores.max(axis=1, keepdims=True)).ravel()
                np.put_along_axis(scores, codes[:, None], np.inf, axis=1)
                high = (own - scores.min(axis=1, keepdims=True)).ravel()
            used = slice(None) if not len(self.weight) else self.weight[rows] > 0
            least = min(least, float(np.min(low[used], initial=np.inf)))
            greatest = max(greatest, float(np.max(high[used], initial=-np.inf)))
        return least, greatest

    def _binary(
        self, params: Vector, n_curvature: int, with_hessian: bool
    ) -> tuple[Vector, Vector, Vector, Vector]:
        n, width = self.n_slabs, self.width
        sums, gradient, curvature = np.zeros((n, 2)), np.zeros((n, width)), np.empty(n_curvature)
        hessian = np.zeros((n if with_hessian else 0, width, width))
        rest = (self.codes, self.weight, params, sums, gradient, curvature, hessian)
        with Crew(self.n_threads) as crew:
            if self.sparse:
                X = self.X
                crew.run(sparse_logistic, X.data, X.indices, X.indptr, self.n_features, *rest)
            else:
                crew.run(dense_logistic, self.X, *rest)
        square = hessian.sum(axis=0)
        square += np.tril(square, -1).T
        return sums.sum(axis=0), gradient.sum(axis=0), curvature, square

    def _row_blocks(self) -> Iterator[tuple[Any, slice]]:
        # A CSR matrix is taken apart row by row: fewer, larger blocks.
        size = 65_536 if self.sparse else max(256, _BLOCK_BYTES // (8 * self.n_features))
        for first in range(0, self.n_samples, size):
            rows = slice(first, min(first + size, self.n_samples))
            X = self.X[rows]
            yield (X if self.sparse or X.dtype == np.float64 else X.astype(np.float64)), rows

    def _scores(self, X: Any, params: Vector) -> Vector:
        scores: Vector = np.asarray(X @ params[:, : self.n_features].T)
        if self.fit_intercept:
            scores += params[:, -1]
        return scores

    def _add_gradient(self, X: Any, slope: Vector, out: Vector) -> None:
        out[:, : self.n_features] += (X.T @ slope).T
        if self.fit_intercept:
            out[:, -1] += slope.sum(axis=0)

    def _blocks(self, params: Vector) -> Iterator[tuple[Any, float, float, Vector, Vector]]:
        """Of several classes: blocks of rows with their loss, wrong rows, slopes and probabilities."""
        matrix = params.reshape(self.n_vectors, self.width)
        for X, rows in self._row_blocks():
            raw = np.ascontiguousarray(self._scores(X, matrix))
            slope, share = np.empty_like(raw), np.empty_like(raw)
            weight = self.weight[rows] if len(self.weight) else self.weight
            loss, wrong = softmax_rows(raw, self.codes[rows], weight, slope, share)
            yield X, loss, wrong, slope, share

    def _gram(self, curvature: Vector) -> Vector:
        """The sum of curvature x x' over rows x with their intercept's 1."""
        out = np.zeros((self.width, self.width))
        for X, rows in self._row_blocks():
            self._add_product(X, curvature[rows], out)
        return out

    def _add_product(self, X: Any, weight: Vector, out: Vector) -> None:
        """Add the sum of weight x x' over a block's rows, of weights that are not negative."""
        p = self.n_features
        if self.sparse:
            scaled = X.multiply(weight[:, None]).tocsr()
            out[:p, :p] += (scaled.T @ X).toarray()
            column = np.asarray(scaled.sum(axis=0)).ravel()
        else:
            root = X * np.sqrt(weight)[:, None]
            out[:p, :p] += root.T @ root  # NumPy sees that half of it will do
            column = weight @ X
        if self.fit_intercept:
            out[p, :p] += column
            out[:p, p] += column
            out[p, p] += weight.sum()

    def _multinomial_hessian(self, params: Vector) -> tuple[float, float, Vector, Vector]:
        n, width = self.n_vectors, self.width
        loss, wrong, gradient = 0.0, 0.0, np.zeros((n, width))
        hessian = np.zeros((n, n, width, width))
        for (X, first_loss, first_wrong, slope, share), (_, rows) in zip(
            self._blocks(params), self._row_blocks(), strict=True
        ):
            loss, wrong = loss + first_loss, wrong + first_wrong
            self._add_gradient(X, slope, gradient)
            weight = self.weight[rows] if len(self.weight) else np.ones(len(share))
            for k in range(n):
                self._add_product(X, weight * share[:, k] * (1.0 - share[:, k]), hessian[k, k])
                for j in range(k):
                    # Its negative is no negative number: the same product by a root.
                    self._add_product(X, weight * share[:, k] * share[:, j], hessian[k, j])
        for k in range(n):
            for j in range(k):
                hessian[k, j] *= -1.0
                hessian[j, k] = hessian[k, j]
        square = hessian.transpose(0, 2, 1, 3).reshape(n * width, n * width)
        return loss, wrong, gradient.ravel(), np.ascontiguousarray(square)
