# mypy: allow-untyped-decorators, allow-untyped-calls, allow-untyped-defs
"""SHAP values leaf by leaf: each leaf is a product of conditions, one for each feature on its path.

A condition that is asked counts one or zero for a row; one that is left out counts the share of the cover
that meets it. The weights of all orders of asking are the polynomial that TreeSHAP extends and unwinds.
"""

from __future__ import annotations

import numpy as np

from fullspan.core.kernels import helper, kernel
from fullspan.estimators.boosting._kernels import goes_left


@kernel()
def count_paths(tree_start, first_tree, last_tree, left, right):
    """How many leaves the trees have, and how long the ways to them are together."""
    n_leaves, n_steps, deepest = 0, 0, 0
    for tree in range(first_tree, last_tree):
        root = tree_start[tree]
        size = tree_start[tree + 1] - root
        stack, depth = np.zeros(size + 1, dtype=np.int64), np.zeros(size + 1, dtype=np.int64)
        top = 1
        while top > 0:
            top -= 1
            node, below = stack[top], depth[top]
            if left[root + node] < 0:
                n_leaves += 1
                n_steps += below
                deepest = max(deepest, below)
                continue
            stack[top], depth[top] = left[root + node], below + 1
            stack[top + 1], depth[top + 1] = right[root + node], below + 1
            top += 2
    return n_leaves, n_steps, deepest


@kernel()
def find_paths(
    tree_start, first_tree, last_tree, left, right, feature, cover, deepest,
    leaf_node, leaf_tree, step_start, step_node, step_left, step_slot, slot_start, slot_feature, slot_share,
):  # fmt: skip
    """Write the way to each leaf: its steps, and its features (slots) with the shares of the cover."""
    way, way_left = np.zeros(deepest + 1, dtype=np.int64), np.zeros(deepest + 1, dtype=np.bool_)
    leaf, step, slot = 0, 0, 0
    for tree in range(first_tree, last_tree):
        root = tree_start[tree]
        depth, node, rising = 0, 0, False
        while True:
            if not rising and left[root + node] >= 0:
                way[depth], way_left[depth] = node, True
                depth += 1
                node = left[root + node]
                continue
            if not rising:
                leaf_node[leaf], leaf_tree[leaf] = root + node, tree
                step_start[leaf], slot_start[leaf] = step, slot
                for k in range(depth):
                    above = root + way[k]
                    below = root + (left[above] if way_left[k] else right[above])
                    share = cover[below] / cover[above] if cover[above] > 0 else 0.0
                    found = slot_start[leaf]
                    while found < slot and slot_feature[found] != feature[above]:
                        found += 1
                    if found == slot:
                        slot_feature[slot], slot_share[slot] = feature[above], 1.0
                        slot += 1
                    slot_share[found] *= share
                    step_node[step], step_left[step] = above, way_left[k]
                    step_slot[step] = found - slot_start[leaf]
                    step += 1
                leaf += 1
                rising = True
            if depth == 0:
                break
            if way_left[depth - 1]:
                way_left[depth - 1] = False
                node = right[root + way[depth - 1]]
                rising = False
            else:
                depth -= 1
    step_start[leaf], slot_start[leaf] = step, slot


@helper()
def extend(weights, n, share, met):
    """Add a condition to the weights of n others."""
    weights[n] = 1.0 if n == 0 else 0.0
    for i in range(n - 1, -1, -1):
        weights[i + 1] += met * weights[i] * (i + 1) / (n + 1)
        weights[i] = share * weights[i] * (n - i) / (n + 1)


@helper()
def unwound_sum(weights, n, share, met):
    """What the weights of n conditions and one empty one add up to without the condition (share, met)."""
    total, carried = 0.0, weights[n]
    for i in range(n - 1, -1, -1):
        if met != 0:
            part = carried * (n + 1) / ((i + 1) * met)
            total += part
            carried = weights[i] - part * share * (n - i) / (n + 1)
        elif share != 0:
            total += weights[i] * (n + 1) / (share * (n - i))
    return total


@helper()
def conditions_met(x, leaf, step_start, step_node, step_left, step_slot, met, n_slots, routing):
    """Which of the leaf's conditions the row meets."""
    feature, threshold, default_left, category_start, categories = routing
    met[:n_slots] = 1.0
    for k in range(step_start[leaf], step_start[leaf + 1]):
        goes = goes_left(x, step_node[k], feature, threshold, default_left, category_start, categories)
        if goes != step_left[k]:
            met[step_slot[k]] = 0.0


@kernel()
def add_shap(
    X, leaf_group, leaf_value, step_start, step_node, step_left, step_slot, slot_start, slot_feature,
    slot_share, deepest, routing, out,
):  # fmt: skip
    """Add the SHAP values of all leaves to `out` [n, n_groups, n_features + 1].

    A leaf adds its values [n_leaves, width] to as many groups, from its own on.
    """
    width = leaf_value.shape[1]
    weights, met = np.zeros(deepest + 2), np.zeros(deepest + 2)
    bias = out.shape[2] - 1
    for row in range(len(X)):
        for leaf in range(len(leaf_value)):
            first, group = slot_start[leaf], leaf_group[leaf]
            n = slot_start[leaf + 1] - first
            conditions_met(X[row], leaf, step_start, step_node, step_left, step_slot, met, n, routing)
            expected = 1.0
            weights[0] = 1.0
            for k in range(n):
                extend(weights, k + 1, slot_share[first + k], met[k])
                expected *= slot_share[first + k]
            for c in range(width):
                out[row, group + c, bias] += expected * leaf_value[leaf, c]
            for k in range(n):
                share = slot_share[first + k]
                part = unwound_sum(weights, n, share, met[k]) * (met[k] - share)
                for c in range(width):
                    out[row, group + c, slot_feature[first + k]] += part * leaf_value[leaf, c]


@kernel()
def add_interactions(
    X, leaf_group, leaf_value, step_start, step_node, step_left, step_slot, slot_start, slot_feature,
    slot_share, deepest, routing, out,
):  # fmt: skip
    """Add what pairs of features share to `out` [n, n_groups, n_features + 1, n_features + 1]."""
    width = leaf_value.shape[1]
    weights, met = np.zeros(deepest + 2), np.zeros(deepest + 2)
    for row in range(len(X)):
        for leaf in range(len(leaf_value)):
            first, group = slot_start[leaf], leaf_group[leaf]
            n = slot_start[leaf + 1] - first
            conditions_met(X[row], leaf, step_start, step_node, step_left, step_slot, met, n, routing)
            for j in range(n):
                # The weights of the others, as if the leaf had no condition j.
                weights[0] = 1.0
                count = 0
                for k in range(n):
                    if k != j:
                        count += 1
                        extend(weights, count, slot_share[first + k], met[k])
                change = (met[j] - slot_share[first + j]) / 2
                for k in range(n):
                    if k == j:
                        continue
                    share = slot_share[first + k]
                    part = unwound_sum(weights, count, share, met[k]) * (met[k] - share) * change
                    for c in range(width):
                        pair = slot_feature[first + j], slot_feature[first + k]
                        out[row, group + c, pair[0], pair[1]] += part * leaf_value[leaf, c]
