# mypy: allow-untyped-decorators, allow-untyped-calls
"""Impurities of a node and of its two children, updated while rows move from the right child to the left.

Every sum is taken in scikit-learn's order, so that candidates compare as they do there down to the last bit.
"""

from __future__ import annotations

import math

import numpy as np

from fullspan.core.kernels import helper
from fullspan.estimators.tree._records import (
    ABSOLUTE,
    ENTROPY,
    GINI,
    POISSON,
    POSITION,
    SQUARED,
    SQUARES,
    WEIGHT,
    WEIGHT_LEFT,
    WEIGHT_RIGHT,
)
from fullspan.estimators.tree._sorting_kernels import introsort

_TINY = 10 * np.finfo(np.float64).eps  # a sum of Poisson targets at most this large is zero
_LOG_2 = math.log(2.0)


@helper()
def is_classification(criterion):
    return criterion == GINI or criterion == ENTROPY


@helper()
def begin_node(criterion, targets, work, start, end):
    """Sum up the rows of a node; all of them stand in the right child."""
    total, scalars = work.total, work.scalars
    total[:] = 0.0
    weight = 0.0
    squares = 0.0
    n_outputs = targets.y.shape[1]
    for p in range(start, end):
        i = work.samples[p]
        w = targets.weight[i]
        if is_classification(criterion):
            for k in range(n_outputs):
                total[k, targets.codes[i, k]] += w
        elif criterion != ABSOLUTE:
            for k in range(n_outputs):
                y = targets.y[i, k]
                total[k, 0] += w * y
                squares += w * y * y
        weight += w
    scalars[WEIGHT] = weight
    scalars[SQUARES] = squares
    reset(criterion, targets, work, start, end)


@helper()
def reset(criterion, targets, work, start, end):
    """Move all rows back to the right child."""
    work.scalars[WEIGHT_LEFT] = 0.0
    work.scalars[WEIGHT_RIGHT] = work.scalars[WEIGHT]
    work.scalars[POSITION] = start
    if criterion == ABSOLUTE:
        _prepare_absolute(targets, work, start, end)
    else:
        work.left[:] = 0.0
        work.right[:] = work.total


@helper()
def move_to(criterion, targets, work, end, new):
    """Let the rows before position `new` be the left child."""
    left, total, scalars = work.left, work.total, work.scalars
    weight_left = scalars[WEIGHT_LEFT]
    first, last, sign = int(scalars[POSITION]), new, 1.0
    # From whichever side is nearer.
    backwards = criterion != ABSOLUTE and new - first > end - new
    if backwards:
        left[:] = total
        weight_left = scalars[WEIGHT]
        first, last, sign = new, end, -1.0
    n_outputs = targets.y.shape[1]
    for step in range(last - first):
        i = work.samples[last - 1 - step if backwards else first + step]
        w = sign * targets.weight[i]
        if is_classification(criterion):
            for k in range(n_outputs):
                left[k, targets.codes[i, k]] += w
        elif criterion != ABSOLUTE:
            for k in range(n_outputs):
                left[k, 0] += w * targets.y[i, k]
        weight_left += w
    scalars[WEIGHT_LEFT] = weight_left
    scalars[WEIGHT_RIGHT] = scalars[WEIGHT] - weight_left
    if criterion != ABSOLUTE:
        for k in range(total.shape[0]):
            for c in range(total.shape[1]):
                work.right[k, c] = total[k, c] - left[k, c]
    scalars[POSITION] = new


@helper()
def proxy(criterion, targets, work, start, end):
    """Grows with the impurity that the split removes; cheaper where the criterion allows."""
    left, right, scalars = work.left, work.right, work.scalars
    if criterion == SQUARED:
        squares_left, squares_right = 0.0, 0.0
        for k in range(left.shape[0]):
            squares_left += left[k, 0] * left[k, 0]
            squares_right += right[k, 0] * right[k, 0]
        return squares_left / scalars[WEIGHT_LEFT] + squares_right / scalars[WEIGHT_RIGHT]
    if criterion == POISSON:
        deviance_left, deviance_right = 0.0, 0.0
        for k in range(left.shape[0]):
            if left[k, 0] <= _TINY or right[k, 0] <= _TINY:
                return -np.inf
            deviance_left -= left[k, 0] * _log2(left[k, 0] / scalars[WEIGHT_LEFT])
            deviance_right -= right[k, 0] * _log2(right[k, 0] / scalars[WEIGHT_RIGHT])
        return -deviance_left - deviance_right
    impurity_left, impurity_right = children_impurities(criterion, targets, work, start, end)
    return -scalars[WEIGHT_RIGHT] * impurity_right - scalars[WEIGHT_LEFT] * impurity_left


@helper()
def _log2(x):
    return math.log(x) / _LOG_2


@helper()
def node_impurity(criterion, targets, work, start, end):
    """Of the rows that `begin_node` summed up."""
    weight, n_outputs = work.scalars[WEIGHT], targets.y.shape[1]
    if criterion == GINI:
        return gini(work.total, weight, targets.n_classes)
    if criterion == ENTROPY:
        return entropy(work.total, weight, targets.n_classes)
    if criterion == SQUARED:
        return variance(work.total, weight, work.scalars[SQUARES])
    if criterion == POISSON:
        return _poisson_loss(targets, work, start, end, work.total, weight)
    return work.absolute.right_errors[start] / (weight * n_outputs)


@helper()
def children_impurities(criterion, targets, work, start, end):
    """Of the left and the right child."""
    scalars = work.scalars
    position = int(scalars[POSITION])
    weight_left, weight_right = scalars[WEIGHT_LEFT], scalars[WEIGHT_RIGHT]
    if criterion == GINI:
        return (
            gini(work.left, weight_left, targets.n_classes),
            gini(work.right, weight_right, targets.n_classes),
        )
    if criterion == ENTROPY:
        return (
            entropy(work.left, weight_left, targets.n_classes),
            entropy(work.right, weight_right, targets.n_classes),
        )
    if criterion == SQUARED:
        squares = 0.0
        for p in range(start, position):
            i = work.samples[p]
            for k in range(targets.y.shape[1]):
                squares += targets.weight[i] * targets.y[i, k] * targets.y[i, k]
        return (
            variance(work.left, weight_left, squares),
            variance(work.right, weight_right, scalars[SQUARES] - squares),
        )
    if criterion == POISSON:
        return (
            _poisson_loss(targets, work, start, position, work.left, weight_left),
            _poisson_loss(targets, work, position, end, work.right, weight_right),
        )
    n_outputs = targets.y.shape[1]
    errors_left, errors_right = 0.0, 0.0
    if position > start:
        errors_left = work.absolute.left_errors[position - 1]
    if position < end:
        errors_right = work.absolute.right_errors[position]
    return errors_left / (weight_left * n_outputs), errors_right / (weight_right * n_outputs)


@helper()
def gini(sums, weight, n_classes):
    total = 0.0
    for k in range(len(n_classes)):
        squares = 0.0
        for c in range(n_classes[k]):
            squares += sums[k, c] * sums[k, c]
        total += 1.0 - squares / (weight * weight)
    return total / len(n_classes)


@helper()
def entropy(sums, weight, n_classes):
    total = 0.0
    for k in range(len(n_classes)):
        for c in range(n_classes[k]):
            if sums[k, c] > 0.0:
                share = sums[k, c] / weight
                total -= share * _log2(share)
    return total / len(n_classes)


@helper()
def variance(sums, weight, squares):
    total = squares / weight
    for k in range(sums.shape[0]):
        mean = sums[k, 0] / weight
        total -= mean * mean
    return total / sums.shape[0]


@helper()
def _poisson_loss(targets, work, first, last, sums, weight):
    n_outputs = targets.y.shape[1]
    loss = 0.0
    for k in range(n_outputs):
        if sums[k, 0] <= _TINY:
            return np.inf
        mean = sums[k, 0] / weight
        for p in range(first, last):
            i = work.samples[p]
            y = targets.y[i, k]
            if y != 0.0:
                loss += targets.weight[i] * (y * math.log(y / mean))
    return loss / (weight * n_outputs)


@helper()
def node_value(criterion, targets, work, value):
    """Write the node's prediction: fractions of the classes, means or medians."""
    for k in range(value.shape[0]):
        if criterion == ABSOLUTE:
            value[k, 0] = work.absolute.medians[k]
        else:
            for c in range(targets.n_classes[k]):
                value[k, c] = work.total[k, c] / work.scalars[WEIGHT]


@helper()
def clip_value(criterion, value, lower, upper):
    """Keep the value of a node under a monotonic constraint within its bounds."""
    if value[0, 0] < lower:
        value[0, 0] = lower
    elif value[0, 0] > upper:
        value[0, 0] = upper
    if is_classification(criterion):
        value[0, 1] = 1.0 - value[0, 0]


@helper()
def middle_value(criterion, work):
    """Halfway between the children's values: the bound that a monotonic split gives both."""
    scalars = work.scalars
    if criterion == ABSOLUTE:
        position = int(scalars[POSITION])
        return (work.absolute.left_medians[position - 1] + work.absolute.right_medians[position]) / 2
    return work.left[0, 0] / (2 * scalars[WEIGHT_LEFT]) + work.right[0, 0] / (2 * scalars[WEIGHT_RIGHT])


@helper()
def is_monotonic(criterion, work, sign, lower, upper):
    """Whether the children's values respect the constraint and the bounds from above."""
    scalars = work.scalars
    if criterion == ABSOLUTE:
        position = int(scalars[POSITION])
        left = work.absolute.left_medians[position - 1]
        right = work.absolute.right_medians[position]
    else:
        left = work.left[0, 0] / scalars[WEIGHT_LEFT]
        right = work.right[0, 0] / scalars[WEIGHT_RIGHT]
    return (
        left >= lower and right >= lower and left <= upper and right <= upper and (left - right) * sign <= 0
    )


@helper()
def _prepare_absolute(targets, work, start, end):
    """Absolute errors and medians of every prefix and suffix of the node's rows."""
    state = work.absolute
    n = end - start
    state.left_errors[start:end] = 0.0
    state.right_errors[start:end] = 0.0
    for k in range(targets.y.shape[1]):
        for p in range(n):
            state.sorted_y[p] = targets.y[work.samples[start + p], k]
            state.sorted_rows[p] = p
        introsort(state.sorted_y, state.sorted_rows, 0, n, work.stack)
        for p in range(n):
            state.ranks[start + state.sorted_rows[p]] = p
        _running_medians(targets, work, start, 1, n, state.left_errors, state.left_medians)
        _running_medians(targets, work, end - 1, -1, n, state.right_errors, state.right_medians)
        state.medians[k] = state.right_medians[start]


@helper()
def _running_medians(targets, work, first, step, n, errors, medians):
    """Add rows one by one to a Fenwick tree over their ranks and read the weighted median from it."""
    state = work.absolute
    weights, weighted = state.tree_weight, state.tree_weighted_y
    weights[: n + 1] = 0.0
    weighted[: n + 1] = 0.0
    half_size = 1
    while half_size * 2 <= n:
        half_size *= 2
    total, total_weighted = 0.0, 0.0
    p = first
    for _ in range(n):
        w = targets.weight[work.samples[p]]
        rank = state.ranks[p]
        wy = w * state.sorted_y[rank]
        node = rank + 1
        while node <= n:
            weights[node] += w
            weighted[node] += wy
            node += node & -node
        total += w
        total_weighted += wy
        at, before, weight_left, weighted_left = _search(weights, weighted, n, half_size, 0.5 * total)
        median = state.sorted_y[at]
        if at != before:
            median = (state.sorted_y[before] + state.sorted_y[at]) / 2
        medians[p] = median
        errors[p] += ((total_weighted - weighted_left) - median * (total - weight_left)) + (
            median * weight_left - weighted_left
        )
        p += step


@helper()
def _search(weights, weighted, n, half_size, target):
    """The rank where the running weight passes `target`, and the last rank before it.

    The two differ when the running weight meets `target` exactly. Also the sums before the first.
    """
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
