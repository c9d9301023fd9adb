# mypy: allow-untyped-defs, allow-untyped-decorators, allow-untyped-calls
"""Growing a tree: depth first, or best first when the number of leaves is limited."""

from __future__ import annotations

import numpy as np

from fullspan.core.kernels import helper, kernel
from fullspan.core.kernels import helper as counting_helper
from fullspan.estimators.tree._category_kernels import write_bits
from fullspan.estimators.tree._criteria_kernels import impurity, middle_value, reset, sum_up, write_value
from fullspan.estimators.tree._ordering_kernels import is_presorted, part_presorted
from fullspan.estimators.tree._records import TOTAL, WEIGHT
from fullspan.estimators.tree._split_kernels import find_split

_EPSILON = np.finfo(np.float64).eps
_LEAF = -1
_UNDEFINED = -2


@counting_helper()
def _doubled(array):
    larger = np.zeros((2 * array.shape[0], array.shape[1]), array.dtype)
    for i in range(array.shape[0]):
        for j in range(array.shape[1]):
            larger[i, j] = array[i, j]
    return larger


# Columns of the arrays that the kernels return: a node's integers and its floats.
LEFT, RIGHT, FEATURE, N_SAMPLES, MISSING_LEFT, N_WORDS = range(6)
THRESHOLD, IMPURITY, NODE_WEIGHT = range(3)


@helper(counts_references=False)
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


@helper(counts_references=False)
def _write_leaf(integers, floats, node):
    integers[node, LEFT] = _LEAF
    integers[node, RIGHT] = _LEAF
    integers[node, FEATURE] = _UNDEFINED
    floats[node, THRESHOLD] = _UNDEFINED


@helper(counts_references=False)
def _cannot_split(rules, depth, n, impurity):
    return (
        depth >= rules.max_depth
        or n < rules.min_samples_split
        or n < 2 * rules.min_samples_leaf
        or impurity <= _EPSILON
    )


@helper(counts_references=False)
def _remember(place, figure, start, end, depth, is_leaf, split, lower, upper, middle):
    """Note what splitting a node needs: see `grow_tree`."""
    place[0], place[1], place[2], place[3], place[4] = start, end, split[0], depth, not is_leaf
    figure[0], figure[1], figure[2] = split[5], split[6], 0.0 if is_leaf else split[4]
    figure[3], figure[4], figure[5] = lower, upper, middle


@helper(counts_references=False)
def _part_columns(columns, rules, work, place, figure):
    """Part the presorted columns for a node's children, unless both are leaves or sorted on the spot."""
    start, end, position, depth = place[0], place[1], place[2], place[3] + 1
    n_left, n_right = position - start, end - position
    if (is_presorted(columns, n_left) and not _cannot_split(rules, depth, n_left, figure[0])) or (
        is_presorted(columns, n_right) and not _cannot_split(rules, depth, n_right, figure[1])
    ):
        part_presorted(columns, work, start, position, end)


@helper(counts_references=False)
def _queue_children(waiting, bounds, at, node, place, figure, n_constant, sign):
    """Queue both children: the left one last, so that it comes out first."""
    for is_left in range(2):
        row = waiting[at + is_left]
        row[0], row[1] = place[0] if is_left else place[2], place[2] if is_left else place[1]
        row[2], row[3], row[4], row[5] = place[3] + 1, node, is_left, n_constant
        bounds[at + is_left, 0] = figure[0 if is_left else 1]
        # A rising feature bounds the left child from above and the right one from below.
        bounded_above = sign == (1 if is_left else -1)
        bounded_below = sign == (-1 if is_left else 1)
        bounds[at + is_left, 1] = figure[5 if bounded_below else 3]
        bounds[at + is_left, 2] = figure[5 if bounded_above else 4]


@kernel()
def grow_tree(columns, targets, rules, work, n_rows):
    """Split nodes until none can be: depth first, left before right, or the most improving node first.

    Returns (integers [node_count, 6], floats [node_count, 3], values [node_count, outputs * classes], words
    uint64: the bits of the categorical splits, one after the other).
    """
    integers, floats = np.zeros((64, 6), np.int64), np.zeros((64, 3), np.float64)
    values = np.zeros((64, work.sums.shape[1] * work.sums.shape[2]), np.float64)
    words, n_words = np.zeros((64, 1), np.uint64), 0
    # Nodes to look at: start, end, depth, parent, is left, constant features; impurity, lower, upper.
    waiting, bounds = np.zeros((64, 6), np.int64), np.zeros((64, 3), np.float64)
    # By node, once it was looked at: start, end, position of the right child, depth, whether it can be split;
    # impurities of the children, improvement, lower, upper, middle value.
    places, figures = np.zeros((64, 5), np.int64), np.zeros((64, 6), np.float64)
    heap = np.zeros((64, 1), np.int64)
    best_first = rules.max_leaf_nodes >= 0
    waiting[0, 1], waiting[0, 3] = n_rows, _UNDEFINED
    bounds[0, 0], bounds[0, 1], bounds[0, 2] = np.inf, -np.inf, np.inf
    n_waiting, n_heap, node_count, splits_left = 1, 0, 0, rules.max_leaf_nodes - 1
    while n_waiting or n_heap:
        if n_waiting:
            n_waiting -= 1
            start, end, depth = waiting[n_waiting, 0], waiting[n_waiting, 1], waiting[n_waiting, 2]
            parent, is_left, n_constant = waiting[n_waiting, 3], waiting[n_waiting, 4], waiting[n_waiting, 5]
            impurity_here, lower, upper = bounds[n_waiting, 0], bounds[n_waiting, 1], bounds[n_waiting, 2]
            sum_up(rules.criterion, targets, work, start, end)
            reset(rules.criterion, targets, work, start, end)
            if node_count == 0:
                impurity_here = impurity(rules.criterion, targets, work, TOTAL, start, end)
            weight = work.scalars[WEIGHT]
            is_leaf = (
                _cannot_split(rules, depth, end - start, impurity_here) or weight < 2 * rules.min_weight_leaf
            )
            split = (end, np.int64(0), 0.0, False, -np.inf, np.inf, np.inf, n_constant)
            if not is_leaf:
                split = find_split(
                    columns, targets, rules, work, start, end, impurity_here, lower, upper, n_constant
                )
                is_leaf = split[0] >= end or split[4] + _EPSILON < rules.min_impurity_decrease
            node = node_count
            node_count += 1
            if node_count > integers.shape[0]:
                integers, floats, values = _doubled(integers), _doubled(floats), _doubled(values)
                places, figures, heap = _doubled(places), _doubled(figures), _doubled(heap)
            _write_node(
                integers, floats, node, parent, is_left, is_leaf, split, impurity_here, end - start, weight
            )
            write_value(rules, targets, work, values[node], lower, upper)
            feature = split[1]
            if not is_leaf and columns.n_categories[feature]:
                while n_words + columns.n_categories[feature] // 64 + 1 > words.shape[0]:
                    words = _doubled(words)
                write_bits(work.categories, columns.n_categories[feature], split[2], split[3], words, n_words)
                integers[node, N_WORDS] = (columns.n_categories[feature] + 63) // 64
                n_words += integers[node, N_WORDS]
            middle = middle_value(rules.criterion, work) if len(rules.monotonic) and not is_leaf else 0.0
            _remember(places[node], figures[node], start, end, depth, is_leaf, split, lower, upper, middle)
            n_constant = split[7]
            if best_first:
                _push_up(heap, n_heap, node, figures)
                n_heap += 1
                continue
        else:
            node = _pop(heap, n_heap, figures)
            n_heap -= 1
            n_constant = np.int64(0)
            if places[node, 4] and splits_left <= 0:
                _write_leaf(integers, floats, node)
                places[node, 4] = 0
            splits_left -= places[node, 4]
        if not places[node, 4]:
            continue
        _part_columns(columns, rules, work, places[node], figures[node])
        if n_waiting + 2 > waiting.shape[0]:
            waiting, bounds = _doubled(waiting), _doubled(bounds)
        feature = integers[node, FEATURE]
        sign = np.int64(rules.monotonic[feature]) if len(rules.monotonic) else np.int64(0)
        _queue_children(waiting, bounds, n_waiting, node, places[node], figures[node], n_constant, sign)
        n_waiting += 2
    return integers[:node_count], floats[:node_count], values[:node_count], words[:n_words, 0]


@helper(counts_references=False)
def _push_up(heap, hole, node, figures):
    """Put a node into the heap, which has a hole there; the greatest improvement is on top."""
    while hole > 0:
        parent = (hole - 1) // 2
        if not figures[heap[parent, 0], 2] < figures[node, 2]:
            break
        heap[hole, 0] = heap[parent, 0]
        hole = parent
    heap[hole, 0] = node


@helper(counts_references=False)
def _pop(heap, n, figures):
    """Take the top: the hole sinks to the bottom, and the last node rises from there.

    Among equal improvements the order is that of the C++ library's heap, which scikit-learn uses.
    """
    top, last = heap[0, 0], heap[n - 1, 0]
    n -= 1
    hole = 0
    while 2 * hole + 2 < n:
        child = 2 * hole + 2
        if figures[heap[child, 0], 2] < figures[heap[child - 1, 0], 2]:
            child -= 1
        heap[hole, 0] = heap[child, 0]
        hole = child
    if 2 * hole + 2 == n and n > 0:
        heap[hole, 0] = heap[n - 1, 0]
        hole = n - 1
    _push_up(heap, hole, last, figures)
    return top
