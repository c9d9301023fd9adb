# mypy: allow-untyped-decorators, allow-untyped-calls, allow-untyped-defs
"""One pass of coordinate descent over sparse columns."""

from __future__ import annotations

import numpy as np

from fullspan.core.kernels import kernel


@kernel()
def descend(
    data, indices, indptr, order, g, h, learning_rate, reg_lambda, reg_alpha, weight, bias, group
):  # fmt: skip
    """Update bias and weights of one output; g follows the changes of the margin."""
    sum_g, sum_h = 0.0, 0.0
    for i in range(len(g)):
        sum_g += g[i]
        sum_h += h[i]
    if sum_h > 0:
        step = np.float32(learning_rate * (-sum_g / sum_h))
        bias[group] += step
        for i in range(len(g)):
            g[i] += h[i] * step
    for feature in order:
        sum_g, sum_h = 0.0, 0.0
        for k in range(indptr[feature], indptr[feature + 1]):
            row, x = indices[k], data[k]
            sum_g += g[row] * x
            sum_h += h[row] * x * x
        if sum_h < np.float32(1e-5):
            continue
        w = np.float64(weight[feature, group])
        sum_g += reg_lambda * w
        sum_h += reg_lambda
        if w - sum_g / sum_h >= 0:
            delta = max(-(sum_g + reg_alpha) / sum_h, -w)
        else:
            delta = min(-(sum_g - reg_alpha) / sum_h, -w)
        step = np.float32(learning_rate * delta)
        weight[feature, group] += step
        for k in range(indptr[feature], indptr[feature + 1]):
            g[indices[k]] += h[indices[k]] * data[k] * step


@kernel()
def add_products(data, indices, indptr, weight, out):
    """Add X @ weight to `out` [n, n_groups] for the rows of a csr matrix, feature by feature in float32."""
    for row in range(len(out)):
        for group in range(out.shape[1]):
            total = out[row, group]
            for k in range(indptr[row], indptr[row + 1]):
                total += data[k] * weight[indices[k], group]
            out[row, group] = total
