# mypy: allow-untyped-defs, allow-untyped-decorators, allow-untyped-calls
"""Impurities of a node and of its two children, updated while rows move from the right child to the left.

Every sum is taken in scikit-learn's order, so that candidates compare as they do there down to the last bit.
What only the absolute error needs is None otherwise, and its code is not even compiled.
"""

from __future__ import annotations

import math

import numpy as np

from fullspan.core.kernels import helper
from fullspan.estimators.tree._records import (
    ABSOLUTE,
    ENTROPY,
    GINI,
    IN_LEFT,
    IN_RIGHT,
    LEFT_ERRORS,
    LEFT_MEDIANS,
    POISSON,
    POSITION,
    RIGHT_ERRORS,
    RIGHT_MEDIANS,
    SORTED_Y,
    SQUARED,
    SQUARES,
    TOTAL,
    TREE_WEIGHT,
    TREE_WEIGHTED_Y,
    WEIGHT,
    WEIGHT_LEFT,
    WEIGHT_RIGHT,
)
from fullspan.estimators.tree._sorting_kernels import introsort

_TINY = 10 * np.finfo(np.float64).eps  # a sum of Poisson targets at most this large is zero
_LOG_2 = math.log(2.0)


@helper(counts_references=False)
def sum_up(criterion, targets, work, start, end):
    """Sum up the rows of a node."""
    sums, scalars = work.sums, work.scalars
    for k in range(sums.shape[1]):
        for c in range(sums.shape[2]):
            sums[TOTAL, k, c] = 0.0
    weight = 0.0
    squares = 0.0
    for p in range(start, end):
        i = work.samples[p]
        w = targets.weight[i]
        for k in range(sums.shape[1]):
            y = targets.y[i, k]
            if criterion <= ENTROPY:
                sums[TOTAL, k, int(y)] += w
            else:
                sums[TOTAL, k, 0] += w * y
                squares += w * y * y
        weight += w
    scalars[WEIGHT] = weight
    scalars[SQUARES] = squares


@helper(counts_references=False)
def reset(criterion, targets, work, start, end):
    """Move all rows back to the right child. To be called again when the rows' order has changed."""
    work.scalars[WEIGHT_LEFT] = 0.0
    work.scalars[WEIGHT_RIGHT] = work.scalars[WEIGHT]
    work.scalars[POSITION] = start
    if criterion == ABSOLUTE:
        _prepare_absolute(work.absolute, targets, work, start, end)
        return
    sums = work.sums
    for k in range(sums.shape[1]):
        for c in range(sums.shape[2]):
            sums[IN_LEFT, k, c] = 0.0
            sums[IN_RIGHT, k, c] = sums[TOTAL, k, c]


@helper(counts_references=False)
def move_to(criterion, targets, work, end, new):
    """Let the rows before position `new` be the left child."""
    sums, scalars = work.sums, work.scalars
    weight_left = scalars[WEIGHT_LEFT]
    first, last, sign = int(scalars[POSITION]), new, 1.0
    # From whichever side is nearer.
    backwards = criterion != ABSOLUTE and new - first > end - new
    if backwards:
        for k in range(sums.shape[1]):
            for c in range(sums.shape[2]):
                sums[IN_LEFT, k, c] = sums[TOTAL, k, c]
        weight_left = scalars[WEIGHT]
        first, last, sign = new, end, -1.0
    for step in range(last - first):
        i = work.samples[last - 1 - step if backwards else first + step]
        w = sign * targets.weight[i]
        if criterion != ABSOLUTE:
            for k in range(sums.shape[1]):
                y = targets.y[i, k]
                if criterion <= ENTROPY:
                    sums[IN_LEFT, k, int(y)] += w
                else:
                    sums[IN_LEFT, k, 0] += w * y
        weight_left += w
    scalars[WEIGHT_LEFT] = weight_left
    scalars[WEIGHT_RIGHT] = scalars[WEIGHT] - weight_left
    scalars[POSITION] = new
    for k in range(sums.shape[1]):
        for c in range(sums.shape[2]):
            sums[IN_RIGHT, k, c] = sums[TOTAL, k, c] - sums[IN_LEFT, k, c]


@helper(counts_references=False)
def proxy(criterion, targets, work, start, end):
    """Grows with the impurity that the split removes; cheaper where the criterion allows."""
    sums, scalars = work.sums, work.scalars
    weight_left, weight_right = scalars[WEIGHT_LEFT], scalars[WEIGHT_RIGHT]
    part_left, part_right = 0.0, 0.0
    if criterion == SQUARED:
        for k in range(sums.shape[1]):
            part_left += sums[IN_LEFT, k, 0] * sums[IN_LEFT, k, 0]
            part_right += sums[IN_RIGHT, k, 0] * sums[IN_RIGHT, k, 0]
        return part_left / weight_left + part_right / weight_right
    if criterion == POISSON:
        for k in range(sums.shape[1]):
            left, right = sums[IN_LEFT, k, 0], sums[IN_RIGHT, k, 0]
            if left <= _TINY or right <= _TINY:
                return -np.inf
            part_left -= left * _log2(left / weight_left)
            part_right -= right * _log2(right / weight_right)
        return -part_left - part_right
    impurity_left = impurity(criterion, targets, work, IN_LEFT, start, end)
    impurity_right = impurity(criterion, targets, work, IN_RIGHT, start, end)
    return -weight_right * impurity_right - weight_left * impurity_left


@helper(counts_references=False)
def _log2(x):
    return math.log(x) / _LOG_2


@helper(counts_references=False)
def impurity(criterion, targets, work, side, start, end):
    """Of the node (`side` is TOTAL), whose rows stand from `start` to `end`, or of one of its children."""
    sums, scalars, n_outputs = work.sums, work.scalars, work.sums.shape[1]
    weight = scalars[side]  # WEIGHT, WEIGHT_LEFT and WEIGHT_RIGHT go by the same numbers
    total = 0.0
    if criterion == GINI:
        for k in range(n_outputs):
            squares = 0.0
            for c in range(targets.n_classes[k]):
                squares += sums[side, k, c] * sums[side, k, c]
            total += 1.0 - squares / (weight * weight)
        return total / n_outputs
    if criterion == ENTROPY:
        for k in range(n_outputs):
            for c in range(targets.n_classes[k]):
                if sums[side, k, c] > 0.0:
                    share = sums[side, k, c] / weight
                    total -= share * _log2(share)
        return total / n_outputs
    if criterion == SQUARED:
        return _variance(targets, work, side, weight, start)
    if criterion == POISSON:
        return _poisson_loss(targets, work, side, weight, start, end)
    return _absolute_errors(work.absolute, side, int(scalars[POSITION]), start) / (weight * n_outputs)


@helper(counts_references=False)
def _absolute_errors(state, side, position, start):
    if state is None:
        return 0.0
    if side == IN_LEFT:
        return state[LEFT_ERRORS, position - 1] if position > start else 0.0
    return state[RIGHT_ERRORS, start if side == TOTAL else position]


@helper(counts_references=False)
def _variance(targets, work, side, weight, start):
    squares = work.scalars[SQUARES]
    n_outputs = work.sums.shape[1]
    if side != TOTAL:
        # The right child's squares are what the left one leaves.
        in_left = 0.0
        for p in range(start, int(work.scalars[POSITION])):
            i = work.samples[p]
            for k in range(n_outputs):
                in_left += targets.weight[i] * targets.y[i, k] * targets.y[i, k]
        squares = in_left if side == IN_LEFT else squares - in_left
    total = squares / weight
    for k in range(n_outputs):
        mean = work.sums[side, k, 0] / weight
        total -= mean * mean
    return total / n_outputs


@helper(counts_references=False)
def _poisson_loss(targets, work, side, weight, start, end):
    n_outputs = work.sums.shape[1]
    position = int(work.scalars[POSITION])
    first = position if side == IN_RIGHT else start
    last = position if side == IN_LEFT else end
    loss = 0.0
    for k in range(n_outputs):
        if work.sums[side, k, 0] <= _TINY:
            return np.inf
        mean = work.sums[side, k, 0] / weight
        for p in range(first, last):
            i = work.samples[p]
            y = targets.y[i, k]
            if y != 0.0:
                loss += targets.weight[i] * (y * math.log(y / mean))
    return loss / (weight * n_outputs)


@helper(counts_references=False)
def child_value(criterion, work, side):
    """Prediction of a child, for the single output that monotonic constraints allow."""
    if criterion == ABSOLUTE:
        return _child_median(work.absolute, side, int(work.scalars[POSITION]))
    return work.sums[side, 0, 0] / work.scalars[side]


@helper(counts_references=False)
def _child_median(state, side, position):
    if state is None:
        return 0.0
    return state[LEFT_MEDIANS, position - 1] if side == IN_LEFT else state[RIGHT_MEDIANS, position]


@helper(counts_references=False)
def middle_value(criterion, work):
    """Halfway between the children's predictions: the bound that a monotonic split gives both."""
    if criterion == ABSOLUTE:
        return (child_value(criterion, work, IN_LEFT) + child_value(criterion, work, IN_RIGHT)) / 2
    scalars = work.scalars
    left = work.sums[IN_LEFT, 0, 0] / (2 * scalars[WEIGHT_LEFT])
    return left + work.sums[IN_RIGHT, 0, 0] / (2 * scalars[WEIGHT_RIGHT])


@helper(counts_references=False)
def write_value(rules, targets, work, value, lower, upper):
    """Write a node's prediction, [n_outputs * max_n_classes]: fractions of the classes, means or medians."""
    width = work.sums.shape[2]
    for k in range(work.sums.shape[1]):
        for c in range(targets.n_classes[k]):
            value[k * width + c] = work.sums[TOTAL, k, c]
            if rules.criterion != ABSOLUTE:
                value[k * width + c] /= work.scalars[WEIGHT]
    if len(rules.monotonic):
        value[0] = lower if value[0] < lower else upper if value[0] > upper else value[0]
        if rules.criterion <= ENTROPY:
            value[1] = 1.0 - value[0]


@helper(counts_references=False)
def _prepare_absolute(state, targets, work, start, end):
    """Absolute errors and medians of every prefix and suffix of the node's rows.

    The node's own medians are left where other criteria have their sums.
    """
    if state is None:
        return
    ranks = work.absolute_ranks
    n = end - start
    for p in range(start, end):
        state[LEFT_ERRORS, p] = 0.0
        state[RIGHT_ERRORS, p] = 0.0
    for k in range(work.sums.shape[1]):
        for p in range(n):
            state[SORTED_Y, p] = targets.y[work.samples[start + p], k]
            ranks[1, p] = p
        introsort(state[SORTED_Y], ranks[1], np.int64(0), n, work.stack)
        for p in range(n):
            ranks[0, start + ranks[1, p]] = p
        for side in range(2):
            _running_medians(state, targets, work, start, n, side)
        work.sums[TOTAL, k, 0] = state[RIGHT_MEDIANS, start]


@helper(counts_references=False)
def _running_medians(state, targets, work, start, n, side):
    """Add rows one by one to a Fenwick tree over their ranks and read the weighted median from it.

    From the first row on for side 0, errors of the left child; from the last one back for side 1.
    """
    for node in range(n + 1):
        state[TREE_WEIGHT, node] = 0.0
        state[TREE_WEIGHTED_Y, node] = 0.0
    half_size = 1
    while half_size * 2 <= n:
        half_size *= 2
    total, total_weighted = 0.0, 0.0
    for step in range(n):
        p = start + n - 1 - step if side else start + step
        w = targets.weight[work.samples[p]]
        rank = work.absolute_ranks[0, p]
        wy = w * state[SORTED_Y, rank]
        node = rank + 1
        while node <= n:
            state[TREE_WEIGHT, node] += w
            state[TREE_WEIGHTED_Y, node] += wy
            node += node & -node
        total += w
        total_weighted += wy
        at, before, weight_left, weighted_left = _search(state, n, half_size, 0.5 * total)
        median = state[SORTED_Y, at]
        if at != before:
            median = (state[SORTED_Y, before] + state[SORTED_Y, at]) / 2
        state[LEFT_MEDIANS + side, p] = median
        above = (total_weighted - weighted_left) - median * (total - weight_left)
        state[LEFT_ERRORS + side, p] += above + (median * weight_left - weighted_left)


@helper(counts_references=False)
def _search(state, n, half_size, target):
    """The rank where the running weight passes `target`, and the last rank before it.

    The two differ when the running weight meets `target` exactly. Also the sums before the first.
    """
    weights, weighted = state[TREE_WEIGHT], state[TREE_WEIGHTED_Y]
    at, weight_left, weighted_left = 0, 0.0, 0.0
    bit = half_size
    while bit:
        node = at + bit
        if node <= n:
            if target == weights[node]:
                break
            if target > weights[node]:
                target -= weights[node]
                at = node
                weight_left += weights[node]
                weighted_left += weighted[node]
        bit >>= 1
    before = at
    rest, smaller = target, bit
    while smaller:
        node = before + smaller
        if node <= n and rest > weights[node]:
            rest -= weights[node]
            before = node
        smaller >>= 1
    while bit:
        node = at + bit
        if node <= n and target >= weights[node]:
            target -= weights[node]
            at = node
            weight_left += weights[node]
            weighted_left += weighted[node]
        bit >>= 1
    return at, before, weight_left, weighted_left
