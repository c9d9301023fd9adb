# mypy: allow-untyped-defs, allow-untyped-decorators, allow-untyped-calls
# mypy: disable-error-code="call-arg"
"""Growing a tree: depth first, or best first when the number of leaves is limited."""

from __future__ import annotations

import numpy as np

from fullspan.core.kernels import helper, kernel
from fullspan.core.references import by_reference
from fullspan.estimators.tree._category_kernels import write_bits
from fullspan.estimators.tree._criteria_kernels import impurity, middle_value, reset, sum_up, write_value
from fullspan.estimators.tree._ordering_kernels import is_presorted, part_presorted
from fullspan.estimators.tree._records import (
    FEATURE,
    IMPROVEMENT,
    IMPURITY,
    IMPURITY_LEFT,
    IMPURITY_RIGHT,
    LEFT,
    MISSING_LEFT,
    N_CONSTANT,
    N_HEAP,
    N_NODES,
    N_SAMPLES,
    N_WAITING,
    NODE_WEIGHT,
    RIGHT,
    SPLIT_FEATURE,
    SPLIT_MISSING_LEFT,
    SPLIT_POSITION,
    SPLIT_THRESHOLD,
    SPLITS_LEFT,
    THRESHOLD,
    TOTAL,
    WEIGHT,
)
from fullspan.estimators.tree._split_kernels import find_split

_EPSILON = np.finfo(np.float64).eps
_LEAF = -1
_UNDEFINED = -2


@kernel(counts_references=False)
def grow_tree(columns, targets, rules, work, growth):
    """Split nodes until none can be, or until `growth` is full: depth first, or the most improving first.

    Returns whether the tree is grown; if not, it is to be called again with larger arrays in `growth`.
    """
    return _grow(
        by_reference(columns),
        by_reference(targets),
        by_reference(rules),
        by_reference(work),
        by_reference(growth),
    )


@helper(counts_references=False)
def _grow(columns, targets, rules, work, growth):
    counts, places = growth.counts, growth.places
    best_first = rules.max_leaf_nodes >= 0
    while counts[N_WAITING] or counts[N_HEAP]:
        n_constant = np.int64(0)
        if counts[N_WAITING]:
            if counts[N_NODES] == len(places):
                return False
            node = counts[N_NODES]
            counts[N_NODES] += 1
            counts[N_WAITING] -= 1
            _look_at(columns, targets, rules, work, growth, node, counts[N_WAITING])
            n_constant = np.int64(work.split[N_CONSTANT])
            if best_first:
                _push_up(growth.heap, counts[N_HEAP], node, growth.figures)
                counts[N_HEAP] += 1
                continue
        else:
            node = _pop(growth.heap, counts[N_HEAP], growth.figures)
            counts[N_HEAP] -= 1
            if places[node, 4] and counts[SPLITS_LEFT] <= 0:
                _write_leaf(growth, node)
                places[node, 4] = 0
            counts[SPLITS_LEFT] -= places[node, 4]
        if places[node, 4]:
            _part_columns(columns, rules, work, places[node], growth.figures[node])
            _queue_children(rules, growth, node, n_constant)
    return True


@helper(counts_references=False)
def _look_at(columns, targets, rules, work, growth, node, at):
    """Find the split of the node that waits at place `at`, and enter the node."""
    row, bound = growth.waiting[at], growth.bounds[at]
    start, end, impurity_here = row[0], row[1], bound[0]
    sum_up(rules.criterion, targets, work, start, end)
    reset(rules.criterion, targets, work, start, end)
    if node == 0:
        impurity_here = impurity(rules.criterion, targets, work, TOTAL, start, end)
    weight, split = work.scalars[WEIGHT], work.split
    split[SPLIT_POSITION], split[N_CONSTANT], split[IMPROVEMENT] = end, row[5], -np.inf
    split[IMPURITY_LEFT], split[IMPURITY_RIGHT] = np.inf, np.inf
    is_leaf = _cannot_split(rules, row[2], end - start, impurity_here) or weight < 2 * rules.min_weight_leaf
    if not is_leaf:
        find_split(columns, targets, rules, work, start, end, impurity_here, bound[1], bound[2], row[5])
        is_leaf = split[SPLIT_POSITION] >= end or split[IMPROVEMENT] + _EPSILON < rules.min_impurity_decrease
    if row[3] >= 0:
        growth.integers[row[3], LEFT if row[4] else RIGHT] = node
    growth.integers[node, N_SAMPLES] = end - start
    growth.floats[node, IMPURITY] = impurity_here
    growth.floats[node, NODE_WEIGHT] = weight
    write_value(rules, targets, work, growth.values[node], bound[1], bound[2])
    if is_leaf:
        _write_leaf(growth, node)
    else:
        _write_split(columns, work, growth, node)
    _remember(growth, node, row, bound, split, is_leaf)
    if len(rules.monotonic) > 0 and not is_leaf:
        growth.figures[node, 5] = middle_value(rules.criterion, work)


@helper(counts_references=False)
def _write_split(columns, work, growth, node):
    split, feature = work.split, np.int64(work.split[SPLIT_FEATURE])
    growth.integers[node, FEATURE] = feature
    growth.floats[node, THRESHOLD] = split[SPLIT_THRESHOLD]
    growth.integers[node, MISSING_LEFT] = np.int64(split[SPLIT_MISSING_LEFT])
    if columns.n_categories[feature]:
        write_bits(
            work.categories,
            columns.n_categories[feature],
            split[SPLIT_THRESHOLD],
            split[SPLIT_MISSING_LEFT] != 0.0,
            growth.words[node],
        )


@helper(counts_references=False)
def _write_leaf(growth, node):
    growth.integers[node, LEFT] = _LEAF
    growth.integers[node, RIGHT] = _LEAF
    growth.integers[node, FEATURE] = _UNDEFINED
    growth.floats[node, THRESHOLD] = _UNDEFINED


@helper(counts_references=False)
def _cannot_split(rules, depth, n, impurity):
    return (
        depth >= rules.max_depth
        or n < rules.min_samples_split
        or n < 2 * rules.min_samples_leaf
        or impurity <= _EPSILON
    )


@helper(counts_references=False)
def _remember(growth, node, row, bound, split, is_leaf):
    """Note what splitting a node needs: see `Growth`."""
    place, figure = growth.places[node], growth.figures[node]
    place[0], place[1], place[2], place[3] = row[0], row[1], np.int64(split[SPLIT_POSITION]), row[2]
    place[4] = not is_leaf
    figure[0], figure[1] = split[IMPURITY_LEFT], split[IMPURITY_RIGHT]
    figure[2] = 0.0 if is_leaf else split[IMPROVEMENT]
    figure[3], figure[4] = bound[1], bound[2]


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
def _queue_children(rules, growth, node, n_constant):
    """Queue both children: the left one last, so that it comes out first."""
    place, figure, counts = growth.places[node], growth.figures[node], growth.counts
    sign = 0
    if len(rules.monotonic):
        sign = rules.monotonic[growth.integers[node, FEATURE]]
    for is_left in range(2):
        row, bound = growth.waiting[counts[N_WAITING]], growth.bounds[counts[N_WAITING]]
        row[0], row[1] = place[0] if is_left else place[2], place[2] if is_left else place[1]
        row[2], row[3], row[4], row[5] = place[3] + 1, node, is_left, n_constant
        bound[0] = figure[0 if is_left else 1]
        # A rising feature bounds the left child from above and the right one from below.
        bound[1] = figure[5 if sign == (-1 if is_left else 1) else 3]
        bound[2] = figure[5 if sign == (1 if is_left else -1) else 4]
        counts[N_WAITING] += 1


@helper(counts_references=False)
def _push_up(heap, hole, node, figures):
    """Put a node into the heap, which has a hole there; the greatest improvement is on top."""
    while hole > 0:
        parent = (hole - 1) // 2
        if not figures[heap[parent], 2] < figures[node, 2]:
            break
        heap[hole] = heap[parent]
        hole = parent
    heap[hole] = node


@helper(counts_references=False)
def _pop(heap, n, figures):
    """Take the top: the hole sinks to the bottom, and the last node rises from there.

    Among equal improvements the order is that of the C++ library's heap, which scikit-learn uses.
    """
    top, last = heap[0], heap[n - 1]
    n -= 1
    hole = np.int64(0)
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
