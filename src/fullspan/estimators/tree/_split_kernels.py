# mypy: allow-untyped-decorators, allow-untyped-calls
"""The search for a node's split: which features are looked at, and which threshold is best.

Features are drawn as scikit-learn draws them, from the same xorshift numbers: without replacement, features
known to be constant counting as drawn but never looked at.
"""

from __future__ import annotations

import numpy as np

from fullspan.core.kernels import helper
from fullspan.estimators.tree._criteria_kernels import (
    children_impurities,
    is_monotonic,
    move_to,
    proxy,
    reset,
)
from fullspan.estimators.tree._ordering_kernels import (
    THRESHOLD_STEP,
    move_missing_first,
    order_rows,
    part_at,
    part_by_feature,
    value_range,
)
from fullspan.estimators.tree._records import WEIGHT, WEIGHT_LEFT, WEIGHT_RIGHT

_LARGEST_RANDOM = 2147483647


@helper()
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


@helper()
def _random_integer(low, high, state):
    return low + random_31_bits(state) % (high - low)


@helper()
def find_split(columns, targets, rules, work, start, end, impurity, lower, upper, n_known):
    """The best split of a node; its rows are left parted by it.

    Returns (position of the right child, `end` if there is no split; feature; threshold; whether missing
    values go left; improvement; impurities of the children; number of constant features).
    """
    features, constants, random = work.features, work.constants, work.random
    n_features = len(features)
    best_position, best_feature, best_threshold, best_missing = end, 0, 0.0, False
    best_proxy = -np.inf
    not_drawn = n_features
    n_visited, n_found, n_drawn = 0, 0, 0
    n_constant = n_known
    f = 0
    while not_drawn > n_constant and (n_visited < rules.max_features or n_visited <= n_found + n_drawn):
        n_visited += 1
        j = _random_integer(n_drawn, not_drawn - n_found, random)
        if j < n_known:
            features[n_drawn], features[j] = features[j], features[n_drawn]
            n_drawn += 1
            continue
        j += n_found
        f = features[j]
        if rules.random_splits:
            low, high, n_missing, negative_end, positive_start = value_range(columns, work, f, start, end)
        else:
            n_missing = order_rows(columns, targets, work, f, start, end)
            low, high = work.feature_values[start], work.feature_values[max(start, end - n_missing - 1)]
            negative_end, positive_start = start, end
        if n_missing == end - start or (n_missing == 0 and high <= low + THRESHOLD_STEP):
            features[j], features[n_constant] = features[n_constant], f
            n_found += 1
            n_constant += 1
            continue
        not_drawn -= 1
        features[not_drawn], features[j] = features[j], features[not_drawn]
        if rules.random_splits:
            threshold, missing_left = _draw_threshold(low, high, n_missing, random)
            position = part_at(
                columns, work, threshold, missing_left, start, end, negative_end, positive_start
            )
            quality = _evaluate(targets, rules, work, f, start, position, end, lower, upper)
            if quality > best_proxy:
                best_proxy, best_position, best_feature = quality, position, f
                best_threshold = threshold
                best_missing = missing_left if n_missing else position - start > end - position
            continue
        for missing_left in range(2 if n_missing else 1):
            if missing_left:
                move_missing_first(work, start, end, n_missing)
            position, quality = _best_threshold(
                targets, rules, work, f, start, end, n_missing, missing_left == 1, lower, upper, best_proxy
            )
            if position >= 0:
                best_proxy, best_position, best_feature = quality, position, f
                if not missing_left and position == end - n_missing:
                    best_threshold = np.inf
                else:
                    values = work.feature_values
                    best_threshold = np.float64(values[position - 1]) / 2 + np.float64(values[position]) / 2
                best_missing = missing_left == 1 if n_missing else position - start > end - position

    improvement, impurity_left, impurity_right = -np.inf, np.inf, np.inf
    if best_position < end:
        if not rules.random_splits or f != best_feature:
            part_by_feature(columns, work, best_feature, best_threshold, best_missing, start, end)
        reset(rules.criterion, targets, work, start, end)
        move_to(rules.criterion, targets, work, end, best_position)
        impurity_left, impurity_right = children_impurities(rules.criterion, targets, work, start, end)
        weight = work.scalars[WEIGHT]
        improvement = (weight / targets.total_weight) * (
            impurity
            - work.scalars[WEIGHT_RIGHT] / weight * impurity_right
            - work.scalars[WEIGHT_LEFT] / weight * impurity_left
        )
    # Siblings and children count on the known constants' order.
    features[:n_known] = constants[:n_known]
    constants[n_known:n_constant] = features[n_known:n_constant]
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


@helper()
def _draw_threshold(low, high, n_missing, random):
    low_wide, high_wide = np.float64(low), np.float64(high)
    threshold = (high_wide - low_wide) * np.float64(random_31_bits(random)) / np.float64(_LARGEST_RANDOM)
    threshold += low_wide
    missing_left = n_missing > 0 and _random_integer(0, 2, random) == 1
    return low_wide if threshold == high_wide else threshold, missing_left


@helper()
def _evaluate(targets, rules, work, f, start, position, end, lower, upper):
    """The quality of parting the rows as they stand; -inf if the rules forbid it."""
    if position - start < rules.min_samples_leaf or end - position < rules.min_samples_leaf:
        return -np.inf
    reset(rules.criterion, targets, work, start, end)
    move_to(rules.criterion, targets, work, end, position)
    return _allowed_proxy(targets, rules, work, f, start, end, lower, upper)


@helper()
def _allowed_proxy(targets, rules, work, f, start, end, lower, upper):
    scalars = work.scalars
    if scalars[WEIGHT_LEFT] < rules.min_weight_leaf or scalars[WEIGHT_RIGHT] < rules.min_weight_leaf:
        return -np.inf
    if (
        len(rules.monotonic)
        and rules.monotonic[f] != 0
        and not is_monotonic(rules.criterion, work, rules.monotonic[f], lower, upper)
    ):
        return -np.inf
    return proxy(rules.criterion, targets, work, start, end)


@helper()
def _best_threshold(targets, rules, work, f, start, end, n_missing, missing_left, lower, upper, best):
    """The first position whose quality is greater than `best` and all others'; -1 if there is none."""
    reset(rules.criterion, targets, work, start, end)
    values = work.feature_values
    first = start + n_missing if missing_left else start
    stop = end if missing_left else end - n_missing
    found = -1
    p = first
    while True:
        p += 1
        while p < stop and values[p] <= values[p - 1] + THRESHOLD_STEP:
            p += 1
        if p >= end or p > stop:
            return found, best
        if p - start >= rules.min_samples_leaf and end - p >= rules.min_samples_leaf:
            move_to(rules.criterion, targets, work, end, p)
            quality = _allowed_proxy(targets, rules, work, f, start, end, lower, upper)
            if quality > best:
                best, found = quality, p
