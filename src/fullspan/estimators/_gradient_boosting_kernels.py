# mypy: allow-untyped-decorators, allow-untyped-calls, allow-untyped-defs
"""Loops of gradient boosting that NumPy has no words for."""

from __future__ import annotations

import math

import numpy as np

from fullspan.core.kernels import kernel


@kernel()
def choose_rows(chances, n_chosen):
    """Choose rows without replacement, each time with the chance that as many rows must still be chosen.

    Parameters
    ----------
    chances : float64 array of shape (n,)
        Uniform random numbers.
    n_chosen : int

    Returns
    -------
    bool array of shape (n,)
        True for `n_chosen` rows.
    """
    n = len(chances)
    chosen = np.zeros(n, np.bool_)
    count = 0
    for i in range(n):
        if chances[i] * (n - i) < n_chosen - count:
            chosen[i] = True
            count += 1
    return chosen


# The three below round as scikit-learn's losses do: where the last bit of a residual decides between splits
# that are equally good, trees are the same.


@kernel()
def log_odds_residuals(y, raw, residual):
    """Negative gradients of the logistic loss; all arrays are float64 of shape (n,), the last is written."""
    for i in range(len(y)):
        if raw[i] > -37.0:
            down = math.exp(-raw[i])
            residual[i] = -(((1.0 - y[i]) - y[i] * down) / (1.0 + down))
        else:
            residual[i] = -(math.exp(raw[i]) - y[i])


@kernel()
def exponential_residuals(y, raw, residual):
    """Negative gradients of the exponential loss; arrays as for the logistic one."""
    for i in range(len(y)):
        up = math.exp(raw[i])
        residual[i] = -(-y[i] / up + (1.0 - y[i]) * up)


@kernel()
def multinomial_residuals(y, raw, residual):
    """Negative gradients of the multinomial loss.

    Parameters
    ----------
    y : float64 array of shape (n,)
        Codes of classes.
    raw, residual : float64 array of shape (n, n_classes)
        The last is written.
    """
    n_classes = raw.shape[1]
    for i in range(len(y)):
        largest = raw[i, 0]
        for k in range(1, n_classes):
            largest = max(largest, raw[i, k])
        total = 0.0
        for k in range(n_classes):
            residual[i, k] = math.exp(raw[i, k] - largest)
            total += residual[i, k]
        for k in range(n_classes):
            residual[i, k] = -(residual[i, k] / total - (1.0 if y[i] == k else 0.0))
