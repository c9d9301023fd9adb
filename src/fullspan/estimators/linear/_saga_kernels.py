# mypy: allow-untyped-decorators, allow-untyped-calls
"""Stochastic average gradients, one row at a time: SAG and SAGA."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fullspan.core.kernels import helper, kernel


@helper()
def _shrunk(value: Any, steps: int, rate: Any, average: Any, l2: Any, l1: Any) -> Any:
    """A coefficient after `steps` updates by nothing but the average gradient and the penalty."""
    if l1 == 0.0:
        decay = 1.0 - rate * l2
        kept = decay**steps
        drift = rate * average
        return kept * value - drift * (steps if l2 == 0.0 else (1.0 - kept) / (1.0 - decay))
    for _ in range(steps):
        before = value
        value = value - rate * (average + l2 * value)
        value = math.copysign(max(abs(value) - rate * l1, 0.0), value)
        if value == before:
            break
    return value


@helper()
def _row_slopes(raw: Any, y: int, weight: Any, slopes: Any) -> None:
    """Derivatives of a row's loss by its scores."""
    if len(raw) == 1:
        r = raw[0]
        slopes[0] = weight * ((1.0 / (1.0 + math.exp(-r)) if r >= 0 else 1.0 - 1.0 / (1.0 + math.exp(r))) - y)
        return
    most = raw.max()
    total = 0.0
    for k in range(len(raw)):
        slopes[k] = math.exp(raw[k] - most)
        total += slopes[k]
    for k in range(len(raw)):
        slopes[k] *= weight / total
    slopes[y] -= weight


@kernel()
def average_gradients(
    data: Any, indices: Any, indptr: Any, codes: Any, weight: Any, order: Any, params: Any, intercept: Any,
    memory: Any, average: Any, average_intercept: Any, rate: float, l2: float, l1: float,
    unbiased: bool,
) -> None:  # fmt: skip
    """One epoch of SAG, or with `unbiased` of SAGA, over the rows in `order`.

    Rows are those of a CSR matrix. params, average [n_vectors, n_features]; intercept, average_intercept
    [n_vectors], or [0] without one; memory [n, n_vectors] keeps each row's last slopes, at first zeros.
    Weights have the mean one. Coefficients whose columns a row has not are brought up to date when one has
    them again, and all of them at the end.
    """
    n_vectors, n_features = params.shape
    last = np.zeros(n_features, np.int64)
    raw, slopes = np.empty(n_vectors), np.empty(n_vectors)
    for t in range(len(order)):
        i = order[t]
        start, stop = indptr[i], indptr[i + 1]
        for k in range(n_vectors):
            raw[k] = intercept[k] if len(intercept) else 0.0
        for at in range(start, stop):
            j = indices[at]
            for k in range(n_vectors):
                params[k, j] = _shrunk(params[k, j], t - last[j], rate, average[k, j], l2, l1)
                raw[k] += data[at] * params[k, j]
            last[j] = t
        _row_slopes(raw, codes[i], weight[i] if len(weight) else 1.0, slopes)
        for k in range(n_vectors):
            change = slopes[k] - memory[i, k]
            memory[i, k] = slopes[k]
            share = change / len(codes)
            direct = change - share if unbiased else 0.0
            for at in range(start, stop):
                # The rest of the step, by the new average, is taken when the column is met again.
                params[k, indices[at]] -= rate * direct * data[at]
                average[k, indices[at]] += share * data[at]
            if len(intercept):
                average_intercept[k] += share
                intercept[k] -= rate * (direct + average_intercept[k])
    for j in range(n_features):
        for k in range(n_vectors):
            params[k, j] = _shrunk(params[k, j], len(order) - last[j], rate, average[k, j], l2, l1)
