"""The solvers `sag` and `saga` of logistic regression."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fullspan.estimators.linear._saga_kernels import average_gradients
from fullspan.estimators.linear.rows import Rows, Vector
from fullspan.estimators.linear.solvers import Report, Solution


def average_gradient_descent(
    rows: Rows,
    params: Vector,
    l2: float,
    l1: float,
    tol: float,
    max_iter: int,
    random_state: np.random.RandomState,
    unbiased: bool,
    report: Report,
) -> Solution:
    """Minimise the mean loss and the coefficients' penalties row by row, each epoch in another random order.

    Stops when no coefficient changes in an epoch by more than `tol` times the largest coefficient.

    References
    ----------
    M. Schmidt, N. Le Roux and F. Bach, "Minimizing finite sums with the stochastic average gradient", 2017.
    A. Defazio, F. Bach and S. Lacoste-Julien, "SAGA: a fast incremental gradient method", 2014.
    """
    X = rows.X if rows.sparse else sparse.csr_matrix(rows.X)
    weight = rows.weight * (rows.n_samples / rows.weight.sum()) if len(rows.weight) else rows.weight
    matrix = params.reshape(rows.n_vectors, rows.width)
    coef = np.ascontiguousarray(matrix[:, : rows.n_features])
    intercept = matrix[:, -1].copy() if rows.fit_intercept else np.empty(0)
    average, average_intercept = np.zeros_like(coef), np.zeros_like(intercept)
    memory = np.zeros((rows.n_samples, rows.n_vectors))
    rate = _rate(X, weight, l2, rows.fit_intercept, unbiased)
    codes = rows.codes.astype(np.int64)
    n_iter, problem = 0, "iterations"
    while n_iter < max_iter:
        n_iter += 1
        before = coef.copy()
        order = random_state.randint(rows.n_samples, size=rows.n_samples)
        average_gradients(
            X.data, X.indices, X.indptr, codes, weight, order, coef, intercept, memory, average,
            average_intercept, rate, l2, l1, unbiased,
        )  # fmt: skip
        largest = float(np.max(np.abs(coef), initial=0.0))
        change = float(np.max(np.abs(coef - before), initial=0.0))
        report(n_iter, np.nan, change)
        if change <= tol * largest:
            problem = ""
            break
    found = np.column_stack([coef, intercept]) if rows.fit_intercept else coef
    return Solution(found.ravel(), n_iter, problem)


def _rate(X: Any, weight: NDArray[Any], l2: float, intercept: bool, unbiased: bool) -> float:
    """The longest step that is safe for the row whose loss bends most."""
    squares = np.asarray(X.multiply(X).sum(axis=1), np.float64).ravel() + intercept
    bend = 0.25 * float(np.max(squares * weight if len(weight) else squares)) + l2
    # A sixteenth of that is what SAG's proof allows, and slow: as scikit-learn, one over the bend.
    return 1.0 / (2.0 * bend + min(2.0 * len(squares) * l2, bend)) if unbiased else 1.0 / bend
