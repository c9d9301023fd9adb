# mypy: allow-untyped-decorators, allow-untyped-calls
"""Growing a tree: depth first, or best first when the number of leaves is limited."""

from __future__ import annotations

import numpy as np

from fullspan.core.kernels import helper, kernel
from fullspan.estimators.tree._criteria_kernels import (
    begin_node,
    clip_value,
    middle_value,
    node_impurity,
    node_value,
)
from fullspan.estimators.tree._ordering_kernels import part_presorted
from fullspan.estimators.tree._records import WEIGHT
from fullspan.estimators.tree._split_kernels import find_split

_EPSILON = np.finfo(np.float64).eps
_LEAF = -1
_UNDEFINED = -2


@helper()
def _doubled(array):
    larger = np.zeros((2 * array.shape[0], array.shape[1]), array.dtype)
    larger[: array.shape[0]] = array
    return larger


# Columns of the arrays that the kernels return: a node's integers and its floats.
LEFT, RIGHT, FEATURE, N_SAMPLES, MISSING_LEFT = range(5)
THRESHOLD, IMPURITY, NODE_WEIGHT = range(3)


@helper()
def _write_node(integers, floats, node, parent, is_left, is_leaf, split, impurity, n_samples, weight):
    """Enter a node, as its parent's child; `split` as `find_split` returns it."""
    if parent >= 0:
        integers[parent, LEFT if is_left else RIGHT] = node
    integers[node, N_SAMPLES] = n_samples
    floats[node, IMPURITY] = impurity
    floats[node, NODE_WEIGHT] = weight
    if is_leaf:
        _write_leaf(integers, floats, node)
    else:
        integers[node, FEATURE] = split[1]
        floats[node, THRESHOLD] = split[2]
        integers[node, MISSING_LEFT] = split[3]


@helper()
def _write_leaf(integers, floats, node):
    integers[node, LEFT] = _LEAF
    integers[node, RIGHT] = _LEAF
    integers[node, FEATURE] = _UNDEFINED
    floats[node, THRESHOLD] = _UNDEFINED


@helper()
def _cannot_split(rules, depth, n, impurity):
    return (
        depth >= rules.max_depth
        or n < rules.min_samples_split
        or n < 2 * rules.min_samples_leaf
        or impurity <= _EPSILON
    )


@helper()
def _child_bounds(sign, lower, upper, middle):
    """(lower, upper) of the left and of the right child, of a split on a feature with this constraint."""
    if sign == 0:
        return lower, upper, lower, upper
    if sign > 0:
        return lower, middle, middle, upper
    return middle, upper, lower, middle


@helper()
def _write_value(rules, targets, work, values, node, lower, upper):
    value = values[node].reshape(work.total.shape)
    node_value(rules.criterion, targets, work, value)
    if len(rules.monotonic):
        clip_value(rules.criterion, value, lower, upper)


@helper()
def _settle(columns, targets, rules, work, start, end, depth, is_root, impurity, lower, upper, n_constant):
    """Look at one node: its impurity, whether it is a leaf, and its split as `find_split` returns it."""
    begin_node(rules.criterion, targets, work, start, end)
    if is_root:
        impurity = node_impurity(rules.criterion, targets, work, start, end)
    weight = work.scalars[WEIGHT]
    is_leaf = _cannot_split(rules, depth, end - start, impurity) or weight < 2 * rules.min_weight_leaf
    split = (end, 0, 0.0, False, -np.inf, np.inf, np.inf, n_constant)
    if not is_leaf:
        split = find_split(columns, targets, rules, work, start, end, impurity, lower, upper, n_constant)
        is_leaf = split[0] >= end or split[4] + _EPSILON < rules.min_impurity_decrease
    return impurity, weight, is_leaf, split


@kernel()
def grow_depth_first(columns, targets, rules, work, n_samples):
    """Split nodes, left child first, until no node can be.

    Returns (integers [node_count, 5], floats [node_count, 3], values [node_count, outputs * classes]).
    """
    integers = np.zeros((64, 5), np.int64)
    floats = np.zeros((64, 3), np.float64)
    values = np.zeros((64, work.total.size), np.float64)
    # A node to come: start, end, depth, parent, is left, constant features; impurity, lower, upper.
    waiting = np.zeros((64, 6), np.int64)
    bounds = np.zeros((64, 3), np.float64)
    _wait(waiting, bounds, 0, (0, n_samples, 0, _UNDEFINED, 0, 0), (np.inf, -np.inf, np.inf))
    n_waiting, node_count = 1, 0
    while n_waiting:
        n_waiting -= 1
        start, end, depth = waiting[n_waiting, 0], waiting[n_waiting, 1], waiting[n_waiting, 2]
        parent, is_left = waiting[n_waiting, 3], waiting[n_waiting, 4]
        lower, upper = bounds[n_waiting, 1], bounds[n_waiting, 2]
        impurity, weight, is_leaf, split = _settle(
            columns,
            targets,
            rules,
            work,
            start,
            end,
            depth,
            node_count == 0,
            bounds[n_waiting, 0],
            lower,
            upper,
            waiting[n_waiting, 5],
        )
        position, feature, _, _, _, impurity_left, impurity_right, n_constant = split
        node = node_count
        node_count += 1
        if node_count > integers.shape[0]:
            integers, floats, values = _doubled(integers), _doubled(floats), _doubled(values)
        _write_node(integers, floats, node, parent, is_left, is_leaf, split, impurity, end - start, weight)
        _write_value(rules, targets, work, values, node, lower, upper)
        if is_leaf:
            continue
        sign = rules.monotonic[feature] if len(rules.monotonic) else 0
        middle = middle_value(rules.criterion, work) if sign != 0 else 0.0
        left_lower, left_upper, right_lower, right_upper = _child_bounds(sign, lower, upper, middle)
        if columns.packed.shape[0] and not (
            _cannot_split(rules, depth + 1, position - start, impurity_left)
            and _cannot_split(rules, depth + 1, end - position, impurity_right)
        ):
            part_presorted(columns, work, start, position, end)
        if n_waiting + 2 > waiting.shape[0]:
            waiting, bounds = _doubled(waiting), _doubled(bounds)
        _wait(
            waiting,
            bounds,
            n_waiting,
            (position, end, depth + 1, node, 0, n_constant),
            (impurity_right, right_lower, right_upper),
        )
        _wait(
            waiting,
            bounds,
            n_waiting + 1,
            (start, position, depth + 1, node, 1, n_constant),
            (impurity_left, left_lower, left_upper),
        )
        n_waiting += 2
    return integers[:node_count].copy(), floats[:node_count].copy(), values[:node_count].copy()


@helper()
def _wait(waiting, bounds, at, integers, floats):
    for column in range(6):
        waiting[at, column] = integers[column]
    for column in range(3):
        bounds[at, column] = floats[column]


@kernel()
def grow_best_first(columns, targets, rules, work, n_samples):
    """Always split the node whose split improves most, up to a number of leaves.

    Returns what `grow_depth_first` returns.
    """
    capacity = min(2 * rules.max_leaf_nodes, 2 * n_samples) + 1
    integers = np.zeros((capacity, 5), np.int64)
    floats = np.zeros((capacity, 3), np.float64)
    values = np.zeros((capacity, work.total.size), np.float64)
    # By node: start, end, position, depth, is leaf; impurities of the children, improvement, bounds, middle.
    places = np.zeros((capacity, 5), np.int64)
    figures = np.zeros((capacity, 6), np.float64)
    heap = np.zeros(capacity, np.int64)
    state = (integers, floats, values, places, figures)
    start_of_all = (0, n_samples, 0, _UNDEFINED, 1)
    _enter(columns, targets, rules, work, state, 0, start_of_all, (np.inf, -np.inf, np.inf))
    n_waiting, node_count, splits_left = 1, 1, rules.max_leaf_nodes - 1
    while n_waiting:
        node = _pop(heap, n_waiting, figures)
        n_waiting -= 1
        if places[node, 4] or splits_left <= 0:
            _write_leaf(integers, floats, node)
            continue
        splits_left -= 1
        start, end, position, depth = places[node, 0], places[node, 1], places[node, 2], places[node, 3]
        if columns.packed.shape[0]:
            part_presorted(columns, work, start, position, end)
        sign = rules.monotonic[integers[node, FEATURE]] if len(rules.monotonic) else 0
        left_lower, left_upper, right_lower, right_upper = _child_bounds(
            sign, figures[node, 3], figures[node, 4], figures[node, 5]
        )
        bounds = (figures[node, 0], left_lower, left_upper)
        _enter(
            columns, targets, rules, work, state, node_count, (start, position, depth + 1, node, 1), bounds
        )
        bounds = (figures[node, 1], right_lower, right_upper)
        _enter(
            columns, targets, rules, work, state, node_count + 1, (position, end, depth + 1, node, 0), bounds
        )
        for child in range(node_count, node_count + 2):
            _push_up(heap, n_waiting, child, figures)
            n_waiting += 1
        node_count += 2
    return integers[:node_count].copy(), floats[:node_count].copy(), values[:node_count].copy()


@helper()
def _enter(columns, targets, rules, work, state, node, place, bounds):
    """Look at a node and write it down as if it were to be split; it becomes a leaf when nothing is left."""
    integers, floats, values, places, figures = state
    start, end, depth, parent, is_left = place
    impurity, lower, upper = bounds
    impurity, weight, is_leaf, split = _settle(
        columns, targets, rules, work, start, end, depth, node == 0, impurity, lower, upper, 0
    )
    _write_node(integers, floats, node, parent, is_left, is_leaf, split, impurity, end - start, weight)
    _write_value(rules, targets, work, values, node, lower, upper)
    places[node, 0], places[node, 1], places[node, 2], places[node, 3] = start, end, split[0], depth
    places[node, 4] = is_leaf
    figures[node, 0], figures[node, 1] = split[5], split[6]
    figures[node, 2] = 0.0 if is_leaf else split[4]
    figures[node, 3], figures[node, 4] = lower, upper
    figures[node, 5] = middle_value(rules.criterion, work) if len(rules.monotonic) and not is_leaf else 0.0


@helper()
def _push_up(heap, hole, node, figures):
    """Put a node into the heap, which has a hole there; the greatest improvement is on top."""
    while hole > 0:
        parent = (hole - 1) // 2
        if not figures[heap[parent], 2] < figures[node, 2]:
            break
        heap[hole] = heap[parent]
        hole = parent
    heap[hole] = node


@helper()
def _pop(heap, n, figures):
    """Take the top: the hole sinks to the bottom, and the last node rises from there.

    Among equal improvements the order is that of the C++ library's heap, which scikit-learn uses.
    """
    top, last = heap[0], heap[n - 1]
    n -= 1
    hole = 0
    while 2 * hole + 2 < n:
        child = 2 * hole + 2
        if figures[heap[child], 2] < figures[heap[child - 1], 2]:
            child -= 1
        heap[hole] = heap[child]
        hole = child
    if 2 * hole + 2 == n and n > 0:
        heap[hole] = heap[n - 1]
        hole = n - 1
    _push_up(heap, hole, last, figures)
    return top
