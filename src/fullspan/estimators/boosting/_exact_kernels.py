# mypy: allow-untyped-decorators, allow-untyped-calls, allow-untyped-defs
"""Enumeration of the splits of one presorted feature, for every node of a level at once."""

from __future__ import annotations

import numpy as np

from fullspan.core.kernels import helper, kernel

# XGBoost's kRtEps: the least gain, and how far beyond the values the split of missing from present lies.
EPS = np.float32(1e-6)


@helper()
def threshold_l1(g, alpha):
    if g > alpha:
        return g - alpha
    if g < -alpha:
        return g + alpha
    return 0.0


@helper()
def node_weight(g, h, lower, upper, reg_lambda, reg_alpha, max_delta_step, constrained):
    """The best constant for gradient sum g and hessian sum h, float32 as in XGBoost."""
    if h <= 0.0:
        step = 0.0
    else:
        step = -threshold_l1(g, reg_alpha) / (h + reg_lambda)
        if max_delta_step != 0 and abs(step) > max_delta_step:
            step = max_delta_step if step > 0 else -max_delta_step
    weight = np.float32(step)
    if constrained:
        weight = min(max(weight, lower), upper)
    return weight


@helper()
def node_gain(g, h, weight, reg_lambda, reg_alpha, max_delta_step, constrained):
    """Twice the decrease of the objective by `weight`; the roundings are XGBoost's."""
    if h <= 0.0:
        return np.float32(0)
    if max_delta_step == 0 and not constrained:
        g = threshold_l1(g, reg_alpha)
        return np.float32(g * g) / np.float32(h + reg_lambda)
    g, h, alpha = np.float32(g), np.float32(h), np.float32(reg_alpha)
    two = np.float32(2)
    return -(two * g * weight + (h + np.float32(reg_lambda)) * (weight * weight) + two * alpha * abs(weight))


@helper()
def split_gain(
    left_g, left_h, right_g, right_h, lower, upper, monotone,
    reg_lambda, reg_alpha, max_delta_step, constrained,
):  # fmt: skip
    left = node_weight(left_g, left_h, lower, upper, reg_lambda, reg_alpha, max_delta_step, constrained)
    right = node_weight(right_g, right_h, lower, upper, reg_lambda, reg_alpha, max_delta_step, constrained)
    if (monotone > 0 and left > right) or (monotone < 0 and left < right):
        return np.float32(-np.inf)
    return node_gain(left_g, left_h, left, reg_lambda, reg_alpha, max_delta_step, constrained) + node_gain(
        right_g, right_h, right, reg_lambda, reg_alpha, max_delta_step, constrained
    )


@kernel()
def node_statistics(slot, g, h, sum_g, sum_h):
    """Add up the gradients of the rows of each slot, in the order of the rows."""
    for row in range(len(slot)):
        if slot[row] >= 0:
            sum_g[slot[row]] += g[row]
            sum_h[slot[row]] += h[row]


@kernel()
def weights_and_gains(sum_g, sum_h, lower, upper, reg_lambda, reg_alpha, max_delta_step, constrained, out):
    """Weight and gain of each node, in `out` [n_nodes, 2]."""
    for i in range(len(sum_g)):
        out[i, 0] = node_weight(
            sum_g[i], sum_h[i], lower[i], upper[i], reg_lambda, reg_alpha, max_delta_step, constrained
        )
        out[i, 1] = node_gain(
            sum_g[i], sum_h[i], out[i, 0], reg_lambda, reg_alpha, max_delta_step, constrained
        )


@kernel()
def best_splits(
    rows, values, forward, slot, g, h, sum_g, sum_h, node_gains, lower, upper, allowed, monotone,
    reg_lambda, reg_alpha, max_delta_step, min_child_weight, constrained, gain, threshold, default_left,
):  # fmt: skip
    """The best split of each slot by one feature, whose rows are given in the order of its values.

    Missing rows are those that `rows` lacks. Going backward they are on the left, forward on the right;
    forward is only of use where some are missing. `gain`, `threshold`, `default_left` [n_slots] are written.
    """
    n_slots = len(sum_g)
    seen_g, seen_h = np.zeros(n_slots), np.zeros(n_slots)
    last = np.zeros(n_slots, dtype=np.float32)
    n = len(rows)
    for backward in range(0 if forward else 1, 2):
        seen_g[:] = 0
        seen_h[:] = 0
        for k in range(n):
            i = n - 1 - k if backward else k
            row = rows[i]
            s = slot[row]
            if s < 0 or not allowed[s]:
                continue
            value = values[i]
            if seen_h[s] != 0.0 and value != last[s] and seen_h[s] >= min_child_weight:
                rest_g, rest_h = sum_g[s] - seen_g[s], sum_h[s] - seen_h[s]
                if rest_h >= min_child_weight:
                    found = (
                        split_gain(
                            rest_g if backward else seen_g[s], rest_h if backward else seen_h[s],
                            seen_g[s] if backward else rest_g, seen_h[s] if backward else rest_h,
                            lower[s], upper[s], monotone, reg_lambda, reg_alpha, max_delta_step, constrained,
                        )
                        - node_gains[s]
                    )  # fmt: skip
                    if found > gain[s] and not np.isinf(found):
                        middle = (value + last[s]) * np.float32(0.5)
                        gain[s] = found
                        threshold[s] = last[s] if middle == value else middle
                        default_left[s] = backward == 1
            seen_g[s] += g[row]
            seen_h[s] += h[row]
            last[s] = value
        # All that is present on one side, all that is missing on the other.
        for s in range(n_slots):
            if not allowed[s] or seen_h[s] < min_child_weight:
                continue
            rest_g, rest_h = sum_g[s] - seen_g[s], sum_h[s] - seen_h[s]
            if rest_h < min_child_weight:
                continue
            found = (
                split_gain(
                    rest_g if backward else seen_g[s], rest_h if backward else seen_h[s],
                    seen_g[s] if backward else rest_g, seen_h[s] if backward else rest_h,
                    lower[s], upper[s], monotone, reg_lambda, reg_alpha, max_delta_step, constrained,
                )
                - node_gains[s]
            )  # fmt: skip
            if found > gain[s] and not np.isinf(found):
                gap = abs(last[s]) + EPS
                gain[s] = found
                threshold[s] = last[s] - gap if backward else last[s] + gap
                default_left[s] = backward == 1


@kernel()
def send_rows(rows, values, feature, slot_feature, slot_threshold, slot_of_row, went):
    """For the rows whose slot is split by `feature`: 1 in `went` where they go left, 0 where right."""
    for i in range(len(rows)):
        s = slot_of_row[rows[i]]
        if s >= 0 and slot_feature[s] == feature:
            went[rows[i]] = 1 if values[i] < slot_threshold[s] else 0
