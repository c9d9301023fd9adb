# mypy: allow-untyped-decorators, allow-untyped-calls, allow-untyped-defs
"""Histograms and splits of trees whose leaves hold a value for each output."""

from __future__ import annotations

import numpy as np

from fullspan.core.kernels import helper, kernel

_MISSING = 255
_LEAST_GAIN = 1e-6


@kernel()
def add_histogram(codes, rows, g, h, hist):
    """Sums of gradients and hessians by the codes [n_samples] of one feature: hist [256, 2, n_outputs]."""
    n_outputs = g.shape[1]
    for row in rows:
        code = codes[row]
        for k in range(n_outputs):
            hist[code, 0, k] += g[row, k]
            hist[code, 1, k] += h[row, k]


@helper()
def worth(sums, reg_lambda, reg_alpha, max_delta_step):
    """Twice the decrease of the objective by the best values for sums [2, n_outputs]."""
    total = 0.0
    for k in range(sums.shape[1]):
        g, h = sums[0, k], sums[1, k]
        if h + reg_lambda <= 0:
            continue
        pull = max(abs(g) - reg_alpha, 0.0)
        step = pull / (h + reg_lambda)
        if max_delta_step > 0 and step > max_delta_step:
            step = max_delta_step
        total += 2 * pull * step - (h + reg_lambda) * step * step
    return total


@kernel()
def best_split(hist, n_bins, total, reg_lambda, reg_alpha, max_delta_step, min_child_weight, found):
    """The best split of one feature: found [3] gets gain, last bin on the left, missing on the left (1 or 0).

    `hist` is [256, 2, n_outputs], `total` its sum; a child's hessian, the mean over the outputs, is at least
    `min_child_weight`.
    """
    n_outputs = total.shape[1]
    left, right = np.zeros((2, n_outputs)), np.zeros((2, n_outputs))
    before = worth(total, reg_lambda, reg_alpha, max_delta_step)
    found[0], found[1], found[2] = 0.0, -1.0, 0.0
    has_missing = hist[_MISSING, 1].sum() > 0
    for missing_left in range(2 if has_missing else 1):
        left[:] = hist[_MISSING] * missing_left
        # Without missing values the last bin leaves nothing for the right.
        for b in range(n_bins if has_missing and not missing_left else n_bins - 1):
            left += hist[b]
            right[:] = total - left
            weight_left, weight_right = left[1].sum() / n_outputs, right[1].sum() / n_outputs
            if min(weight_left, weight_right) < max(min_child_weight, 1e-16):
                continue
            gain = (
                worth(left, reg_lambda, reg_alpha, max_delta_step)
                + worth(right, reg_lambda, reg_alpha, max_delta_step)
                - before
            )
            if gain > found[0] and gain > _LEAST_GAIN:
                found[0], found[1], found[2] = gain, b, missing_left
