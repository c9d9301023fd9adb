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
    IN_LEFT,
    IN_RIGHT,
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
    """The best split of a node; its rows are left parted by it.

    Returns (position of the right child, `end` if there is no split; feature; threshold; whether missing
    values go left; improvement; impurities of the children; number of constant features).
    """
    features, constants, random = work.features[0], work.features[1], work.random
    best_position, best_feature, best_threshold, best_missing = end, np.int64(0), 0.0, False
    best = -np.inf
    not_drawn, n_constant = len(features), n_known
    n_visited, n_found, n_drawn = 0, 0, 0
    f = np.int64(0)
    while not_drawn > n_constant and (n_visited < rules.max_features or n_visited <= n_found + n_drawn):
        n_visited += 1
        j = n_drawn + random_31_bits(random) % (not_drawn - n_found - n_drawn)
        if j < n_known:
            features[n_drawn], features[j] = features[j], features[n_drawn]
            n_drawn += 1
            continue
        j += n_found
        f = features[j]
        negative_end, positive_start = start, end
        if columns.n_categories[f]:
            n_missing = order_by_category(work.categories, columns, targets, rules, work, f, start, end)
        elif rules.random_splits:
            low, high, n_missing, negative_end, positive_start = value_range(columns, work, f, start, end)
        else:
            n_missing = order_rows(columns, targets, work, f, start, end)
        if columns.n_categories[f] or not rules.random_splits:
            low, high = work.values[start], work.values[max(start, end - n_missing - 1)]
        if n_missing == end - start or (n_missing == 0 and high <= low + THRESHOLD_STEP):
            features[j], features[n_constant] = features[n_constant], f
            n_found += 1
            n_constant += 1
            continue
        not_drawn -= 1
        features[not_drawn], features[j] = features[j], features[not_drawn]

        only, threshold = np.int64(-1), 0.0
        missing_left = False
        if rules.random_splits:
            threshold = _random_threshold(low, high, random)
            missing_left = n_missing > 0 and random_31_bits(random) % 2 == 1
            only = part_at(columns, work, threshold, missing_left, start, end, negative_end, positive_start)
        for _ in range(2 if n_missing and not rules.random_splits else 1):
            if missing_left and not rules.random_splits:
                move_missing_first(work, start, end, n_missing)
            stop = end if missing_left else end - n_missing
            position, best = _best_position(
                targets, rules, work, f, start, end, n_missing, missing_left, lower, upper, only, best
            )
            if position >= 0:
                best_position, best_feature = position, f
                best_missing = missing_left if n_missing else position - start > end - position
                if rules.random_splits:
                    best_threshold = threshold
                elif position == stop:
                    best_threshold = np.inf
                else:
                    below, above = work.values[position - 1], work.values[position]
                    best_threshold = np.float64(below) / 2 + np.float64(above) / 2
                if columns.n_categories[f]:
                    keep_ranks(work.categories, columns.n_categories[f])
            missing_left = True

    improvement, impurity_left, impurity_right = -np.inf, np.inf, np.inf
    if best_position < end:
        if columns.n_categories[best_feature]:
            ranks = work.categories
            part_by_category(ranks, columns, work, best_feature, best_threshold, best_missing, start, end)
        elif not rules.random_splits or f != best_feature:
            part_by_feature(columns, work, best_feature, best_threshold, best_missing, start, end)
        reset(rules.criterion, targets, work, start, end)
        move_to(rules.criterion, targets, work, end, best_position)
        impurity_left = impurity(rules.criterion, targets, work, IN_LEFT, start, end)
        impurity_right = impurity(rules.criterion, targets, work, IN_RIGHT, start, end)
        weight = work.scalars[WEIGHT]
        improvement = (weight / targets.total_weight) * (
            node_impurity
            - work.scalars[WEIGHT_RIGHT] / weight * impurity_right
            - work.scalars[WEIGHT_LEFT] / weight * impurity_left
        )
    # Siblings and children count on the known constants' order.
    for j in range(n_known):
        features[j] = constants[j]
    for j in range(n_known, n_constant):
        constants[j] = features[j]
    return (
        best_position,
        best_feature,
        best_threshold,
        best_missing,
        improvement,
        impurity_left,
        impurity_right,
        n_constant,
    )


@helper(counts_references=False)
def _random_threshold(low, high, random):
    low_wide, high_wide = np.float64(low), np.float64(high)
    share = (high_wide - low_wide) * np.float64(random_31_bits(random)) / np.float64(_LARGEST_RANDOM)
    threshold = share + low_wide
    return low_wide if threshold == high_wide else threshold


@helper(counts_references=False)
def _best_position(targets, rules, work, f, start, end, n_missing, missing_left, lower, upper, only, best):
    """The first position whose quality is greater than `best` and all others', and its quality.

    -1 if there is none. Positions are those between different values, or just `only` if that is not negative.
    """
    first = start + n_missing if missing_left else start
    stop = end if missing_left else end - n_missing
    constrained = len(rules.monotonic) > 0 and rules.monotonic[f] != 0
    if only < 0 and not constrained and work.sums.shape[1] == 1:
        if rules.criterion == GINI:
            return _best_gini(targets, rules, work, start, end, first, stop, best)
        if rules.criterion == SQUARED:
            return _best_squared(targets, rules, work, start, end, first, stop, best)
    reset(rules.criterion, targets, work, start, end)
    found = np.int64(-1)
    p = first
    while True:
        p = _next_position(work.values, p, stop, end) if only < 0 else only
        if p < 0:
            return found, best
        if p - start >= rules.min_samples_leaf and end - p >= rules.min_samples_leaf:
            move_to(rules.criterion, targets, work, end, p)
            if (
                work.scalars[WEIGHT_LEFT] >= rules.min_weight_leaf
                and work.scalars[WEIGHT_RIGHT] >= rules.min_weight_leaf
                and (not constrained or _is_monotonic(rules, work, f, lower, upper))
            ):
                quality = proxy(rules.criterion, targets, work, start, end)
                if quality > best:
                    best, found = quality, p
        if only >= 0:
            return found, best


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
def _best_gini(targets, rules, work, start, end, first, stop, best):
    """`_best_position` for the commonest case, with the same sums in the same order."""
    samples, values, weight, codes = work.samples, work.values, targets.weight, targets.codes
    total, left = work.sums[TOTAL, 0], work.sums[IN_LEFT, 0]
    n_classes, all_weight = len(total), work.scalars[WEIGHT]
    for c in range(n_classes):
        left[c] = 0.0
    weight_left = 0.0
    found, at, p = np.int64(-1), start, first
    while True:
        p = _next_position(values, p, stop, end)
        if p < 0:
            return found, best
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
def _best_squared(targets, rules, work, start, end, first, stop, best):
    """`_best_position` for the commonest case in regression, with the same sums in the same order."""
    samples, values, weight, y = work.samples, work.values, targets.weight, targets.y
    total, all_weight = work.sums[TOTAL, 0, 0], work.scalars[WEIGHT]
    left, weight_left = 0.0, 0.0
    found, at, p = np.int64(-1), start, first
    while True:
        p = _next_position(values, p, stop, end)
        if p < 0:
            return found, best
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
