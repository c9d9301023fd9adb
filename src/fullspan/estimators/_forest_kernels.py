# mypy: allow-untyped-defs, allow-untyped-decorators, allow-untyped-calls
# mypy: disable-error-code="assignment"
"""Growing whole trees on binned rows, and sending rows down all trees of a forest."""

from __future__ import annotations

import numpy as np

from fullspan.core.kernels import helper, kernel
from fullspan.estimators._split_kernels import (
    ABOVE,
    BELOW,
    BINS,
    FEATURE,
    GROUP,
    HAD_MISSING,
    LEFT_PATH,
    MISSING,
    MISSING_LEFT,
    POISSON,
    RIGHT_PATH,
    accumulate,
    count_rows,
    draw,
    find_split,
    improvement,
    impurity,
    mix,
    undraw,
)

_EPSILON = float(np.finfo(np.float64).eps)
_ROOT = -1
# What the stack holds of a node that waits.
_START, _STOP, _PARENT, _KEY, _NEAR, _DEPTH, _CONSTANTS = range(7)
_NEAR_BYTES = 1 << 19
"""A node whose rows take less is copied together, so that all below it works in the nearest caches."""

_1, _6, _63 = np.uint64(1), np.uint64(6), np.uint64(63)


@kernel()
def grow_tree(rows, targets, weights, cuts, categorical, counts_of, limits_of, seed):
    """Grow one tree, depth first, left children before right ones.

    Parameters
    ----------
    rows : uint8 array of shape (n_samples, n_features)
        Codes of the bins, 255 for a missing value.
    targets : float64 array of shape (n_samples,)
        Numbers of the classes, or the values of a regression.
    weights : float64 array of shape (n_samples,)
        None negative; rows of no weight are left out.
    cuts : float64 array of shape (n_features, 255)
        Where bins end.
    categorical : bool array of shape (n_features,)
    counts_of : (criterion, n_classes, max_features, max_depth, min_samples_split, min_samples_leaf)
        `n_classes` is 1 in a regression.
    limits_of : (min_weight_leaf, min_impurity_decrease)
    seed : uint64

    Returns
    -------
    children_left, children_right, feature, threshold, impurity, n_node_samples, weighted_n_node_samples,
    value, missing_go_to_left : arrays of shape (node_count, ...)
        As in `fullspan.estimators.tree.structure.Tree`.
    category_start, category_words
    """
    criterion, n_classes, max_features, max_depth, min_samples_split, min_samples_leaf = counts_of
    min_weight_leaf, min_impurity_decrease = limits_of
    n, n_features = rows.shape
    pair = n_classes <= 2
    width = 2 if pair else n_classes
    limits = (min_samples_leaf, min_weight_leaf)

    order = np.empty(n, np.int32)
    spare = np.empty(n, np.int32)
    stats = np.empty((n, 2), np.float64)
    m = 0
    all_weight = 0.0
    for i in range(n):
        w = weights[i]
        stats[i, 0] = w
        stats[i, 1] = w * targets[i] if pair else targets[i]
        order[m] = i
        m += w != 0.0
        all_weight += w

    capacity = max(2 * m - 1, 1)
    if max_depth < 60:
        capacity = min(capacity, (np.int64(2) << max_depth) - 1)
    children_left = np.empty(capacity, np.int64)
    children_right = np.empty(capacity, np.int64)
    features_of = np.empty(capacity, np.int64)
    thresholds = np.empty(capacity, np.float64)
    impurities = np.empty(capacity, np.float64)
    n_node_samples = np.empty(capacity, np.int64)
    weighted = np.empty(capacity, np.float64)
    value = np.empty((capacity, n_classes), np.float64)
    missing_go_left = np.empty(capacity, np.uint8)
    category_start = np.zeros(capacity + 1, np.int64)
    category_words = np.empty(64, np.uint64)
    n_words = 0

    histograms = np.zeros(GROUP * BINS * width)
    seen = np.zeros(GROUP * BINS, np.uint8)
    counts = np.zeros(GROUP * BINS, np.int64)
    bins = (
        np.empty(BINS, np.int64),
        np.empty(BINS * width),
        np.empty(BINS, np.int64),
        np.empty(BINS, np.int64),
        np.empty(width),
    )
    found = np.zeros(5, np.int64)
    found_categories = np.zeros(8, np.uint64)
    best = np.empty(1)
    totals = np.empty(width)
    goes_left = np.empty(BINS, np.uint8)
    features = np.arange(n_features)
    swaps = np.empty(n_features, np.int64)
    chosen = np.empty(GROUP, np.int64)

    near_rows = max(1, min(m, _NEAR_BYTES // n_features))
    rows_near = np.empty((near_rows, n_features), np.uint8)
    stats_near = np.empty((near_rows, 2), np.float64)

    n_masks = (n_features + 63) >> 6
    known = np.zeros(n_masks, np.uint64)
    stack = np.empty((64, 7), np.int64)
    stack_known = np.zeros((64, n_masks), np.uint64)
    stack[0] = 0
    stack[0, _STOP] = m
    stack[0, _PARENT] = _ROOT
    stack[0, _KEY] = np.int64(mix(seed))
    waiting = 1
    node = -1
    while waiting > 0:
        waiting -= 1
        start, stop, parent, key_bits, near, depth, n_constants = stack[waiting]
        key = np.uint64(key_bits)
        known[:] = stack_known[waiting]
        size = stop - start
        if near == 0 and size <= near_rows:
            _bring_near(rows, stats, order, start, stop, rows_near, stats_near)
            near = 1
        here, stats_here = (rows_near, stats_near) if near else (rows, stats)
        node += 1
        if parent != _ROOT:
            if parent & 1:
                children_right[parent >> 1] = node
            else:
                children_left[parent >> 1] = node

        moment = _sum_up(criterion, n_classes, stats_here, order, start, stop, totals)
        weight = totals[0] if pair else totals.sum()
        node_impurity = impurity(criterion, pair, totals, moment)
        impurities[node] = node_impurity
        n_node_samples[node] = size
        weighted[node] = weight
        write_value(n_classes, totals, weight, value[node])
        missing_go_left[node] = 0
        category_start[node + 1] = n_words

        best[0] = -np.inf
        if (
            depth < max_depth
            and size >= min_samples_split
            and size >= 2 * min_samples_leaf
            and weight >= 2.0 * min_weight_leaf
            and node_impurity > _EPSILON
        ):
            drawn = 0
            useful = 0
            while drawn < n_features and n_constants < n_features and (drawn < max_features or useful == 0):
                n_chosen = 0
                most = min(GROUP, max_features - drawn) if drawn < max_features else 1
                while drawn < n_features and n_chosen < most:
                    swaps[drawn] = draw(key, drawn, features)
                    f = features[drawn]
                    drawn += 1
                    if known[f >> 6] & (_1 << (np.uint64(f) & _63)):
                        most -= drawn <= max_features
                    else:
                        chosen[n_chosen] = f
                        n_chosen += 1
                accumulate(
                    here, stats_here, order, start, stop, chosen, n_chosen, width, pair, histograms, seen
                )
                if min_samples_leaf > 1:
                    count_rows(here, order, start, stop, chosen, n_chosen, counts)
                for g in range(n_chosen):
                    f = chosen[g]
                    if find_split(
                        f, g, criterion, pair, not categorical[f], limits, totals, size,
                        (histograms, seen), counts, bins, best, (found, found_categories),
                    ):  # fmt: skip
                        known[f >> 6] |= _1 << (np.uint64(f) & _63)
                        n_constants += 1
                    else:
                        useful += 1
            undraw(features, swaps, drawn)

        is_leaf = best[0] == -np.inf
        if not is_leaf and min_impurity_decrease > 0.0:
            gain = improvement(criterion, pair, best[0], totals, all_weight)
            is_leaf = gain + _EPSILON < min_impurity_decrease
        if is_leaf:
            children_left[node] = -1
            children_right[node] = -1
            features_of[node] = -2
            thresholds[node] = -2.0
            continue

        f = found[FEATURE]
        features_of[node] = f
        left_stop = _partition(
            here, order, spare, start, stop, categorical[f], found, found_categories, goes_left
        )
        if found[HAD_MISSING]:
            missing_go_left[node] = found[MISSING_LEFT]
        else:
            missing_go_left[node] = left_stop - start > stop - left_stop
        if categorical[f]:
            thresholds[node] = np.nan
            if n_words + 4 > len(category_words):
                category_words = np.concatenate((category_words, np.empty(len(category_words), np.uint64)))
            for word in range(4):
                # Categories that are not here go where missing values go.
                others = ~found_categories[4 + word] if missing_go_left[node] else np.uint64(0)
                category_words[n_words + word] = found_categories[word] | others
            n_words += 4
            category_start[node + 1] = n_words
        else:
            thresholds[node] = threshold_between(cuts, f, found)

        if waiting + 2 > len(stack):
            stack = np.concatenate((stack, np.empty_like(stack)))
            stack_known = np.concatenate((stack_known, np.empty_like(stack_known)))
        for side in (1, 0):
            stack[waiting, _START] = left_stop if side else start
            stack[waiting, _STOP] = stop if side else left_stop
            stack[waiting, _PARENT] = 2 * node + side
            stack[waiting, _KEY] = np.int64(child_key(key, side))
            stack[waiting, _NEAR] = near
            stack[waiting, _DEPTH] = depth + 1
            stack[waiting, _CONSTANTS] = n_constants
            stack_known[waiting] = known
            waiting += 1

    n_nodes = node + 1
    return (
        children_left[:n_nodes].copy(),
        children_right[:n_nodes].copy(),
        features_of[:n_nodes].copy(),
        thresholds[:n_nodes].copy(),
        impurities[:n_nodes].copy(),
        n_node_samples[:n_nodes].copy(),
        weighted[:n_nodes].copy(),
        value[:n_nodes].copy(),
        missing_go_left[:n_nodes].copy(),
        category_start[: n_nodes + 1].copy(),
        category_words[:n_words].copy(),
    )


@helper()
def child_key(key, side):
    """What a child's draws depend on: the way from the root to it."""
    return mix(key ^ (RIGHT_PATH if side else LEFT_PATH))


@helper()
def threshold_between(cuts, f, found):
    """Halfway between the end of the lower bin and the start of the upper one."""
    if found[ABOVE] == BINS:
        return np.inf
    return cuts[f, found[BELOW]] / 2.0 + cuts[f, found[ABOVE] - 1] / 2.0


@helper()
def _bring_near(rows, stats, order, start, stop, rows_near, stats_near):
    n_features = rows.shape[1]
    for i in range(start, stop):
        r = order[i]
        near = i - start
        for f in range(n_features):
            rows_near[near, f] = rows[r, f]
        stats_near[near, 0] = stats[r, 0]
        stats_near[near, 1] = stats[r, 1]
        order[i] = near


@helper()
def _sum_up(criterion, n_classes, stats, order, start, stop, totals):
    """The node's sums; returns the further moment that the impurity of a regression needs."""
    totals[:] = 0.0
    moment = 0.0
    if n_classes > 2:
        for i in range(start, stop):
            r = np.uint64(order[i])
            totals[np.int64(stats[r, 1])] += stats[r, 0]
        return moment
    weight = total = 0.0
    for i in range(start, stop):
        r = np.uint64(order[i])
        weight += stats[r, 0]
        total += stats[r, 1]
    totals[0], totals[1] = weight, total
    if n_classes == 1:
        for i in range(start, stop):
            r = np.uint64(order[i])
            y = stats[r, 1] / stats[r, 0]
            if criterion == POISSON:
                moment += stats[r, 1] * np.log(y) if y > 0.0 else 0.0
            else:
                moment += stats[r, 1] * y
    return moment


@helper()
def write_value(n_classes, totals, weight, value):
    if n_classes == 1:
        value[0] = totals[1] / weight
    elif n_classes == 2:
        value[0] = (weight - totals[1]) / weight
        value[1] = totals[1] / weight
    else:
        for q in range(n_classes):
            value[q] = totals[q] / weight


@helper()
def _partition(rows, order, spare, start, stop, categorical, found, found_categories, goes_left):
    """Put the rows that go left first, each side in its old order; returns where the right side begins."""
    f = np.uint64(found[FEATURE])
    below = found[BELOW]
    n_left = start
    n_right = 0
    if found[HAD_MISSING] or categorical:
        left_table(categorical, found, found_categories, goes_left)
        for i in range(start, stop):
            r = order[i]
            go = np.int64(goes_left[rows[np.uint64(r), f]])
            order[n_left] = r
            spare[n_right] = r
            n_left += go
            n_right += 1 - go
    else:
        for i in range(start, stop):
            r = order[i]
            go = np.int64(rows[np.uint64(r), f] <= below)
            order[n_left] = r
            spare[n_right] = r
            n_left += go
            n_right += 1 - go
    for i in range(n_right):
        order[n_left + i] = spare[i]
    return n_left


@helper()
def left_table(categorical, found, found_categories, goes_left):
    """Which codes go left."""
    for code in range(MISSING):
        if categorical:
            word = found_categories[code >> 6]
            goes_left[code] = (word >> (np.uint64(code) & _63)) & _1
        else:
            goes_left[code] = code <= found[BELOW]
    goes_left[MISSING] = found[MISSING_LEFT]
