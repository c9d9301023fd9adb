# mypy: allow-untyped-defs, allow-untyped-decorators, allow-untyped-calls
"""The search for a node's split: which features are looked at, and which threshold is best.

Features are drawn as scikit-learn draws them, from the same xorshift numbers: without replacement, features
known to be constant counting as drawn but never looked at.
"""

from __future__ import annotations

import numpy as np

from fullspan.core.kernels import helper
from fullspan.estimators.tree._category_kernels import keep_ranks, order_by_category, part_by_category
from fullspan.estimators.tree._criteria_kernels import child_value, impurity, move_to, proxy, reset
from fullspan.estimators.tree._ordering_kernels import (
    THRESHOLD_STEP,
    move_missing_first,
    order_rows,
    part_at,
    part_by_feature,
    value_range,
)
from fullspan.estimators.tree._records import (
    GINI,
    IMPROVEMENT,
    IMPURITY_LEFT,
    IMPURITY_RIGHT,
    IN_LEFT,
    IN_RIGHT,
    N_CONSTANT,
    QUALITY,
    SPLIT_FEATURE,
    SPLIT_MISSING_LEFT,
    SPLIT_POSITION,
    SPLIT_THRESHOLD,
    SQUARED,
    TOTAL,
    WEIGHT,
    WEIGHT_LEFT,
    WEIGHT_RIGHT,
)

_LARGEST_RANDOM = 2147483647


@helper(counts_references=False)
def random_31_bits(state):
    """Marsaglia's xorshift generator of 32 bits, without the upper one."""
    x = state[0]
    if x == 0:
        x = 1
    x ^= (x << 13) & 0xFFFFFFFF
    x ^= x >> 17
    x ^= (x << 5) & 0xFFFFFFFF
    state[0] = x
    return x & 0x7FFFFFFF


@helper(counts_references=False)
def find_split(columns, targets, rules, work, start, end, node_impurity, lower, upper, n_known):
    """Find a node's best split and write it to `work.split`; the node's rows are left parted by it.

    `lower` and `upper` bound the children's predictions; the first `n_known` of `work.features` are constant.
    """
    features, random, split = work.features[0], work.random, work.split
    split[SPLIT_POSITION], split[QUALITY] = end, -np.inf
    not_drawn, n_constant = len(features), n_known
    n_visited, n_found, n_drawn, f = 0, 0, 0, n_known
    while not_drawn > n_constant and (n_visited < rules.max_features or n_visited <= n_found + n_drawn):
        n_visited += 1
        j = n_drawn + random_31_bits(random) % (not_drawn - n_found - n_drawn)
        if j < n_known:
            features[n_drawn], features[j] = features[j], features[n_drawn]
            n_drawn += 1
            continue
        j += n_found
        f = features[j]
        low, high, n_missing, negative_end, positive_start = _read_feature(
            columns, targets, rules, work, f, start, end
        )
        if n_missing == end - start or (n_missing == 0 and high <= low + THRESHOLD_STEP):
            features[j], features[n_constant] = features[n_constant], f
            n_found += 1
            n_constant += 1
            continue
        not_drawn -= 1
        features[not_drawn], features[j] = features[j], features[not_drawn]
        if rules.random_splits:
            threshold = _random_threshold(low, high, random)
            missing_left = n_missing > 0 and random_31_bits(random) % 2 == 1
            p = part_at(columns, work, threshold, missing_left, start, end, negative_end, positive_start)
            reset(rules.criterion, targets, work, start, end)
            if _is_better(targets, rules, work, f, start, end, p, lower, upper):
                _keep(split, f, start, end, p, threshold, n_missing, missing_left)
        else:
            _try_positions(columns, targets, rules, work, f, start, end, n_missing, lower, upper)
    if split[SPLIT_POSITION] < end:
        _carry_out(columns, targets, rules, work, f, start, end, node_impurity)
    _keep_constants(features, work.features[1], n_known, n_constant)
    split[N_CONSTANT] = n_constant


@helper(counts_references=False)
def _read_feature(columns, targets, rules, work, f, start, end):
    """Read a feature, in its order if that is needed; returns the same as `value_range`."""
    if columns.n_categories[f]:
        n_missing = order_by_category(work.categories, columns, targets, rules, work, f, start, end)
    elif rules.random_splits:
        return value_range(columns, work, f, start, end)
    else:
        n_missing = order_rows(columns, targets, work, f, start, end)
    last = end - n_missing - 1
    return work.values[start], work.values[last if last > start else start], n_missing, start, end


@helper(counts_references=False)
def _try_positions(columns, targets, rules, work, f, start, end, n_missing, lower, upper):
    """Improve on the best split by any of a feature, missing values going right or left."""
    for side in range(2 if n_missing else 1):
        missing_left = side == 1
        if missing_left:
            move_missing_first(work, start, end, n_missing)
        first = start + n_missing if missing_left else start
        stop = end if missing_left else end - n_missing
        position = _best_position(targets, rules, work, f, start, end, first, stop, lower, upper)
        if position >= 0:
            threshold = np.inf
            if position < stop:
                below, above = work.values[position - 1], work.values[position]
                threshold = np.float64(below) / 2 + np.float64(above) / 2
            _keep(work.split, f, start, end, position, threshold, n_missing, missing_left)
            if columns.n_categories[f]:
                keep_ranks(work.categories, columns.n_categories[f])


@helper(counts_references=False)
def _keep(split, f, start, end, position, threshold, n_missing, missing_left):
    split[SPLIT_POSITION], split[SPLIT_FEATURE], split[SPLIT_THRESHOLD] = position, f, threshold
    split[SPLIT_MISSING_LEFT] = missing_left if n_missing else position - start > end - position


@helper(counts_references=False)
def _carry_out(columns, targets, rules, work, last, start, end, node_impurity):
    """Part the rows by the best split; the rows stand as the feature looked at last left them."""
    split, scalars = work.split, work.scalars
    f, threshold = np.int64(split[SPLIT_FEATURE]), split[SPLIT_THRESHOLD]
    missing_left = split[SPLIT_MISSING_LEFT] != 0.0
    if columns.n_categories[f]:
        part_by_category(work.categories, columns, work, f, threshold, missing_left, start, end)
    elif not rules.random_splits or f != last:
        part_by_feature(columns, work, f, threshold, missing_left, start, end)
    reset(rules.criterion, targets, work, start, end)
    move_to(rules.criterion, targets, work, end, np.int64(split[SPLIT_POSITION]))
    impurity_left = impurity(rules.criterion, targets, work, IN_LEFT, start, end)
    impurity_right = impurity(rules.criterion, targets, work, IN_RIGHT, start, end)
    weight = scalars[WEIGHT]
    split[IMPURITY_LEFT], split[IMPURITY_RIGHT] = impurity_left, impurity_right
    split[IMPROVEMENT] = (weight / targets.total_weight) * (
        node_impurity
        - scalars[WEIGHT_RIGHT] / weight * impurity_right
        - scalars[WEIGHT_LEFT] / weight * impurity_left
    )


@helper(counts_references=False)
def _keep_constants(features, constants, n_known, n_constant):
    """Siblings and children count on the known constants' order."""
    for j in range(n_known):
        features[j] = constants[j]
    for j in range(n_known, n_constant):
        constants[j] = features[j]


@helper(counts_references=False)
def _random_threshold(low, high, random):
    low_wide, high_wide = np.float64(low), np.float64(high)
    share = (high_wide - low_wide) * np.float64(random_31_bits(random)) / np.float64(_LARGEST_RANDOM)
    threshold = share + low_wide
    return low_wide if threshold == high_wide else threshold


@helper(counts_references=False)
def _best_position(targets, rules, work, f, start, end, first, stop, lower, upper):
    """The first of the positions between different values whose quality is the greatest, -1 if none is.

    None is if no quality is greater than the best split's, which is written if one is.
    """
    if work.sums.shape[1] == 1 and not _is_constrained(rules, f):
        if rules.criterion == GINI:
            return _best_gini(targets, rules, work, start, end, first, stop)
        if rules.criterion == SQUARED:
            return _best_squared(targets, rules, work, start, end, first, stop)
    reset(rules.criterion, targets, work, start, end)
    found = np.int64(-1)
    p = first
    while True:
        p = _next_position(work.values, p, stop, end)
        if p < 0:
            return found
        if _is_better(targets, rules, work, f, start, end, p, lower, upper):
            found = p


@helper(counts_references=False)
def _is_better(targets, rules, work, f, start, end, position, lower, upper):
    """Whether a split is allowed and better than the best so far, whose quality is then overwritten."""
    if position - start < rules.min_samples_leaf or end - position < rules.min_samples_leaf:
        return False
    move_to(rules.criterion, targets, work, end, position)
    scalars, split = work.scalars, work.split
    if scalars[WEIGHT_LEFT] < rules.min_weight_leaf or scalars[WEIGHT_RIGHT] < rules.min_weight_leaf:
        return False
    if _is_constrained(rules, f) and not _is_monotonic(rules, work, f, lower, upper):
        return False
    quality = proxy(rules.criterion, targets, work, start, end)
    if quality > split[QUALITY]:
        split[QUALITY] = quality
        return True
    return False


@helper(counts_references=False)
def _is_constrained(rules, f):
    return len(rules.monotonic) > 0 and rules.monotonic[f] != 0


@helper(counts_references=False)
def _next_position(values, p, stop, end):
    """Where the next run of equal values starts; the missing values' start comes last; then -1."""
    p += 1
    while p < stop and values[p] <= values[p - 1] + THRESHOLD_STEP:
        p += 1
    return -1 if p >= end or p > stop else p


@helper(counts_references=False)
def _is_monotonic(rules, work, f, lower, upper):
    """Whether the children's values respect the feature's constraint and the bounds from above."""
    left = child_value(rules.criterion, work, IN_LEFT)
    right = child_value(rules.criterion, work, IN_RIGHT)
    return (
        left >= lower
        and right >= lower
        and left <= upper
        and right <= upper
        and (left - right) * rules.monotonic[f] <= 0
    )


@helper(counts_references=False)
def _best_gini(targets, rules, work, start, end, first, stop):
    """`_best_position` for the commonest case, with the same sums in the same order."""
    samples, values, weight, codes = work.samples, work.values, targets.weight, targets.codes
    total, left = work.sums[TOTAL, 0], work.sums[IN_LEFT, 0]
    n_classes, all_weight = len(total), work.scalars[WEIGHT]
    for c in range(n_classes):
        left[c] = 0.0
    weight_left = 0.0
    best, found, at, p = work.split[QUALITY], np.int64(-1), start, first
    while True:
        p = _next_position(values, p, stop, end)
        if p < 0:
            work.split[QUALITY] = best
            return found
        if p - start < rules.min_samples_leaf or end - p < rules.min_samples_leaf:
            continue
        if p - at <= end - p:
            for q in range(at, p):
                i = samples[q]
                left[codes[i]] += weight[i]
                weight_left += weight[i]
        else:
            for c in range(n_classes):
                left[c] = total[c]
            weight_left = all_weight
            for q in range(end - 1, p - 1, -1):
                i = samples[q]
                left[codes[i]] -= weight[i]
                weight_left -= weight[i]
        at = p
        weight_right = all_weight - weight_left
        if weight_left < rules.min_weight_leaf or weight_right < rules.min_weight_leaf:
            continue
        squares_left, squares_right = 0.0, 0.0
        for c in range(n_classes):
            rest = total[c] - left[c]
            squares_left += left[c] * left[c]
            squares_right += rest * rest
        gini_left = 1.0 - squares_left / (weight_left * weight_left)
        gini_right = 1.0 - squares_right / (weight_right * weight_right)
        quality = -weight_right * gini_right - weight_left * gini_left
        if quality > best:
            best, found = quality, p


@helper(counts_references=False)
def _best_squared(targets, rules, work, start, end, first, stop):
    """`_best_position` for the commonest case in regression, with the same sums in the same order."""
    samples, values, weight, y = work.samples, work.values, targets.weight, targets.y
    total, all_weight = work.sums[TOTAL, 0, 0], work.scalars[WEIGHT]
    left, weight_left = 0.0, 0.0
    best, found, at, p = work.split[QUALITY], np.int64(-1), start, first
    while True:
        p = _next_position(values, p, stop, end)
        if p < 0:
            work.split[QUALITY] = best
            return found
        if p - start < rules.min_samples_leaf or end - p < rules.min_samples_leaf:
            continue
        if p - at <= end - p:
            for q in range(at, p):
                i = samples[q]
                left += weight[i] * y[i, 0]
                weight_left += weight[i]
        else:
            left, weight_left = total, all_weight
            for q in range(end - 1, p - 1, -1):
                i = samples[q]
                left -= weight[i] * y[i, 0]
                weight_left -= weight[i]
        at = p
        weight_right = all_weight - weight_left
        if weight_left < rules.min_weight_leaf or weight_right < rules.min_weight_leaf:
            continue
        right = total - left
        quality = left * left / weight_left + right * right / weight_right
        if quality > best:
            best, found = quality, p
