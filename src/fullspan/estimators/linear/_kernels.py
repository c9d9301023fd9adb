"""Sums over rows that logistic regression needs: loss, gradient and curvature in one pass over the data.

Rows are summed in slabs of a fixed number, so that results do not depend on the number of threads. Parameters
are coefficients and then the intercept; gradients and hessians have room for both.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fullspan.core.kernels import FINITE_ANY_ORDER, helper, kernel

SLABS = 16
_BLOCK = 128
"""Rows whose scores are kept between the two uses of each row, while it is in the cache."""


@helper(fastmath=FINITE_ANY_ORDER, counts_references=False)
def _loss_of(raw: Any, is_second: Any, exponential: Any) -> Any:
    """The loss without ``log(1 + exponential)``, which is `exp(-abs(raw))`."""
    if is_second:
        return max(-raw, 0.0)
    return max(raw, 0.0)


@helper(fastmath=FINITE_ANY_ORDER, counts_references=False)
def _derivatives(
    codes: Any, weight: Any, first: int, raw: Any, n: int, slope: Any, bend: Any, sums: Any
) -> None:
    """Derivatives of the losses of `n` rows by their scores; adds loss and wrongly placed rows to `sums`.

    Of rows without weights the logarithms are taken of products: of 1 to 2 each, so that no block overflows.
    """
    loss, wrong, product = 0.0, 0.0, 1.0
    for k in range(n):
        r = raw[k]
        y = codes[first + k]
        e = math.exp(-abs(r))
        w = 1.0
        if len(weight):
            w = weight[first + k]
            loss += w * (_loss_of(r, y, e) + math.log1p(e))
        else:
            loss += _loss_of(r, y, e)
            product *= 1.0 + e
        s = 1.0 / (1.0 + e)
        p = s if r >= 0 else e * s
        slope[k] = w * (p - y)
        bend[k] = w * e * s * s
        if w > 0 and (r <= 0 if y else r >= 0):
            wrong += 1.0
    sums[0] += loss + math.log(product)
    sums[1] += wrong


@helper(fastmath=FINITE_ANY_ORDER, counts_references=False)
def _add_gram(X: Any, first: int, n: int, bend: Any, intercept: bool, out: Any) -> None:
    """Add the lower triangle of X'WX of `n` rows; four rows at a time, so that sums are loaded less often."""
    p = X.shape[1]
    k = 0
    while k + 4 <= n:
        a, b, c, d = first + k, first + k + 1, first + k + 2, first + k + 3
        for i in range(p):
            wa, wb = bend[k] * X[a, i], bend[k + 1] * X[b, i]
            wc, wd = bend[k + 2] * X[c, i], bend[k + 3] * X[d, i]
            for j in range(i + 1):
                out[i, j] += wa * X[a, j] + wb * X[b, j] + wc * X[c, j] + wd * X[d, j]
        k += 4
    while k < n:
        for i in range(p):
            wa = bend[k] * X[first + k, i]
            for j in range(i + 1):
                out[i, j] += wa * X[first + k, j]
        k += 1
    if intercept:
        for k in range(n):
            for j in range(p):
                out[p, j] += bend[k] * X[first + k, j]
            out[p, p] += bend[k]


@kernel(fastmath=FINITE_ANY_ORDER)
def dense_logistic(
    thread: int, n_threads: int, X: Any, codes: Any, weight: Any, params: Any,
    sums: Any, gradient: Any, curvature: Any, hessian: Any,
) -> None:  # fmt: skip
    """Loss and wrong rows, gradient, and if wanted the rows' second derivatives and the hessian.

    X [n, p] C-contiguous, codes uint8 [n] (0 or 1), weight [n] or empty, params [p] or [p + 1].
    Adds to sums [slabs, 2] and gradient [slabs, len(params)]; to hessian [slabs, len(params), len(params)],
    lower triangle, unless it has no slab; fills curvature [n] unless it is empty.
    """
    n, p = X.shape
    slabs = len(sums)
    intercept = len(params) > p
    raw, slope, bend = np.empty(_BLOCK), np.empty(_BLOCK), np.empty(_BLOCK)
    for slab in range(thread, slabs, n_threads):
        stop = n * (slab + 1) // slabs
        for first in range(n * slab // slabs, stop, _BLOCK):
            m = min(_BLOCK, stop - first)
            for k in range(m):
                total = params[p] if intercept else 0.0
                for j in range(p):
                    total += X[first + k, j] * params[j]
                raw[k] = total
            _derivatives(codes, weight, first, raw, m, slope, bend, sums[slab])
            out = gradient[slab]
            for k in range(m):
                g = slope[k]
                for j in range(p):
                    out[j] += g * X[first + k, j]
                if intercept:
                    out[p] += g
            if len(curvature):
                curvature[first : first + m] = bend[:m]
            if len(hessian):
                _add_gram(X, first, m, bend, intercept, hessian[slab])


@kernel(fastmath=FINITE_ANY_ORDER)
def sparse_logistic(
    thread: int, n_threads: int, data: Any, indices: Any, indptr: Any, p: int, codes: Any, weight: Any,
    params: Any, sums: Any, gradient: Any, curvature: Any, hessian: Any,
) -> None:  # fmt: skip
    """As `dense_logistic`, of the rows of a CSR matrix with `p` columns."""
    n = len(indptr) - 1
    slabs = len(sums)
    intercept = len(params) > p
    raw, slope, bend = np.empty(_BLOCK), np.empty(_BLOCK), np.empty(_BLOCK)
    for slab in range(thread, slabs, n_threads):
        stop = n * (slab + 1) // slabs
        for first in range(n * slab // slabs, stop, _BLOCK):
            m = min(_BLOCK, stop - first)
            for k in range(m):
                total = params[p] if intercept else 0.0
                for at in range(indptr[first + k], indptr[first + k + 1]):
                    total += data[at] * params[indices[at]]
                raw[k] = total
            _derivatives(codes, weight, first, raw, m, slope, bend, sums[slab])
            out = gradient[slab]
            for k in range(m):
                g = slope[k]
                for at in range(indptr[first + k], indptr[first + k + 1]):
                    out[indices[at]] += g * data[at]
                if intercept:
                    out[p] += g
            if len(curvature):
                curvature[first : first + m] = bend[:m]
            if len(hessian):
                square = hessian[slab]
                for k in range(m):
                    start, end = indptr[first + k], indptr[first + k + 1]
                    for a in range(start, end):
                        wa = bend[k] * data[a]
                        for b in range(start, end):
                            if indices[b] <= indices[a]:
                                square[indices[a], indices[b]] += wa * data[b]
                        if intercept:
                            square[p, indices[a]] += wa
                    if intercept:
                        square[p, p] += bend[k]


@kernel()
def softmax_rows(raw: Any, codes: Any, weight: Any, slope: Any, share: Any) -> tuple[float, float]:
    """Loss and wrongly placed rows of several classes; fills the derivatives and the probabilities.

    raw, slope, share [n, n_classes]; codes int64 [n]; weight [n] or empty. share[i] are the probabilities.
    """
    loss, wrong = 0.0, 0.0
    for i in range(raw.shape[0]):
        most = raw[i, 0]
        for k in range(raw.shape[1]):
            most = max(most, raw[i, k])
        total = 0.0
        for k in range(raw.shape[1]):
            share[i, k] = math.exp(raw[i, k] - most)
            total += share[i, k]
        w = weight[i] if len(weight) else 1.0
        y = codes[i]
        loss += w * (math.log(total) + most - raw[i, y])
        is_wrong = False
        for k in range(raw.shape[1]):
            share[i, k] /= total
            slope[i, k] = w * share[i, k]
            is_wrong |= k != y and raw[i, k] >= raw[i, y]
        slope[i, y] -= w
        if is_wrong and w > 0:
            wrong += 1.0
    return loss, wrong


@kernel()
def descend(
    gradient: Any, hessian: Any, params: Any, l1: Any, step: Any, moved: Any, tol: float, most_sweeps: int
) -> int:
    """Minimise ``gradient'd + d'Hd/2 + sum(l1 |params + d|)`` over d by cyclic coordinate descent.

    `step` (d) and `moved` (Hd) go on from where they are. Between sweeps over all coordinates only those
    are visited that are not held at zero. Returns the number of sweeps.
    """
    n = len(params)
    held = np.zeros(n, np.bool_)
    full = True
    for sweep in range(most_sweeps):
        largest = 0.0
        for j in range(n):
            if held[j] and not full:
                continue
            h = hessian[j, j]
            if h <= 0.0:
                continue
            slope = gradient[j] + moved[j]
            before = params[j] + step[j]
            wanted = before - slope / h
            after = math.copysign(max(abs(wanted) - l1[j] / h, 0.0), wanted)
            held[j] = after == 0.0 and l1[j] > 0.0
            change = after - before
            if change != 0.0:
                step[j] += change
                for i in range(n):
                    moved[i] += change * hessian[j, i]
                largest = max(largest, h * abs(change))
        if largest <= tol:
            if full:
                return sweep + 1
            full = True
        else:
            full = False
    return most_sweeps
