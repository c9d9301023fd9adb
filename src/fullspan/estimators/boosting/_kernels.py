# mypy: allow-untyped-decorators, allow-untyped-calls, allow-untyped-defs
"""Loops over the trees of an ensemble: margins and leaves of dense rows."""

from __future__ import annotations

import numpy as np

from fullspan.core.kernels import helper, kernel

# Above it, float32 no longer tells whole numbers apart; XGBoost calls such a category invalid.
LARGEST_CATEGORY = np.float32(16777216.0)


@helper()
def goes_left(x, node, feature, threshold, default_left, category_start, categories):
    """Whether row `x` goes left at `node`; a category beyond the known ones does."""
    value = x[feature[node]]
    if np.isnan(value):
        return default_left[node]
    start, stop = category_start[node], category_start[node + 1]
    if start == stop:
        return value < threshold[node]
    if value < 0 or value >= LARGEST_CATEGORY:
        return True
    code = np.int32(value)
    # The categories of a node are ascending.
    while start < stop:
        middle = (start + stop) // 2
        if categories[middle] < code:
            start = middle + 1
        else:
            stop = middle
    return start == category_start[node + 1] or categories[start] != code


@helper()
def leaf_of(x, root, left, right, feature, threshold, default_left, category_start, categories):
    """Index, within its tree, of the leaf that row `x` reaches."""
    node = 0
    while left[root + node] >= 0:
        if goes_left(x, root + node, feature, threshold, default_left, category_start, categories):
            node = left[root + node]
        else:
            node = right[root + node]
    return node


@kernel()
def add_margins(
    X, first_row, last_row, first_tree, last_tree, tree_start, tree_group, tree_weight,
    left, right, feature, threshold, default_left, category_start, categories, value, out,
):  # fmt: skip
    """Add the trees' values to `out` [n, n_groups], tree after tree in the type of `value`."""
    for row in range(first_row, last_row):
        for tree in range(first_tree, last_tree):
            root = tree_start[tree]
            leaf = leaf_of(
                X[row], root, left, right, feature, threshold, default_left, category_start, categories
            )
            out[row, tree_group[tree]] += value[root + leaf] * tree_weight[tree]


@kernel()
def find_leaves(
    X, first_row, last_row, first_tree, last_tree, tree_start,
    left, right, feature, threshold, default_left, category_start, categories, out,
):  # fmt: skip
    """Write the leaf that each row reaches in each tree to `out` [n, last_tree - first_tree]."""
    for row in range(first_row, last_row):
        for tree in range(first_tree, last_tree):
            out[row, tree - first_tree] = leaf_of(
                X[row], tree_start[tree], left, right, feature, threshold, default_left,
                category_start, categories,
            )  # fmt: skip
