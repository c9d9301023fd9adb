# mypy: allow-untyped-defs, allow-untyped-decorators, allow-untyped-calls
# mypy: disable-error-code="assignment, call-arg"
"""Growing whole trees on binned rows: each node searches histograms of the features that it draws."""

from __future__ import annotations

import numpy as np

from fullspan.core.kernels import helper, kernel
from fullspan.core.references import by_reference
from fullspan.estimators._forest_records import (
    CONSTANTS,
    DEPTH,
    IMPURITY,
    KEY,
    LEFT,
    MISSING_GOES_LEFT,
    N_NODES,
    N_SAMPLES,
    N_WAITING,
    NEAR,
    NODE_WEIGHT,
    PARENT,
    RIGHT,
    SPLIT_FEATURE,
    START,
    STOP,
    THRESHOLD,
)
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
    weight_of,
)

_EPSILON = float(np.finfo(np.float64).eps)

_1, _6, _63 = np.uint64(1), np.uint64(6), np.uint64(63)


@kernel(counts_references=False)
def grow_tree(rows, rules, work, growth):
    """Grow one tree, depth first, left children before right ones.

    Returns whether it is grown; if not, `growth` is full, and this is to be called again with larger arrays.
    """
    return _grow(by_reference(rows), by_reference(rules), by_reference(work), by_reference(growth))


@kernel(counts_references=False)
def root_key(seed):
    """What the root's draws depend on."""
    return np.int64(mix(seed))


@helper(counts_references=False)
def _grow(rows, rules, work, growth):
    counts = growth.counts
    while counts[N_WAITING] > 0:
        # The two children of the node that waits longest need one more place than it has.
        if counts[N_NODES] == len(growth.integers) or counts[N_WAITING] == len(growth.stack):
            return False
        node = counts[N_NODES]
        counts[N_NODES] += 1
        counts[N_WAITING] -= 1
        _look_at(rows, rules, work, growth, node, growth.stack[counts[N_WAITING]])
    return True


@helper(counts_references=False)
def _look_at(rows, rules, work, growth, node, waiting):
    """Enter a node that waited, and split it or not."""
    start, stop, near = waiting[START], waiting[STOP], waiting[NEAR]
    size = stop - start
    known, stack_known = work.known, growth.stack_known[growth.counts[N_WAITING]]
    for word in range(len(known)):
        known[word] = stack_known[word]
    if near == 0 and size <= len(work.rows_near):
        _bring_near(rows.codes, rows.stats, work.order, start, stop, work.rows_near, work.stats_near)
        near = np.int64(1)
    here, stats = (work.rows_near, work.stats_near) if near else (rows.codes, rows.stats)
    pair, totals = rules.n_classes <= 2, work.totals
    moment = _sum_up(rules.criterion, rules.n_classes, stats, work.order, start, stop, totals)
    weight = weight_of(pair, totals)
    node_impurity = impurity(rules.criterion, pair, totals, moment)
    _enter(growth, node, waiting[PARENT], size, weight, node_impurity)
    write_value(rules.n_classes, totals, weight, growth.values[node])
    n_constants = waiting[CONSTANTS]
    work.best[0] = -np.inf
    if (
        waiting[DEPTH] < rules.max_depth
        and size >= rules.min_samples_split
        and size >= 2 * rules.min_samples_leaf
        and weight >= 2.0 * rules.min_weight_leaf
        and node_impurity > _EPSILON
    ):
        key = np.uint64(waiting[KEY])
        n_constants = _search(rows, rules, work, here, stats, start, stop, key, n_constants)
    if _is_leaf(rules, pair, work):
        _write_leaf(growth, node)
    else:
        position = _partition(
            here, work.order, work.spare, start, stop, rows.categorical[work.found[FEATURE]], work.found,
            work.found_categories, work.goes_left,
        )  # fmt: skip
        _write_split(rows, work, growth, node, position - start > stop - position)
        _queue_children(work, growth, node, waiting, position, near, n_constants)


@helper(counts_references=False)
def _enter(growth, node, parent, size, weight, impurity):
    if parent >= 0:
        growth.integers[parent >> 1, RIGHT if parent & 1 else LEFT] = node
    growth.integers[node, N_SAMPLES] = size
    growth.floats[node, IMPURITY] = impurity
    growth.floats[node, NODE_WEIGHT] = weight


@helper(counts_references=False)
def _search(rows, rules, work, here, stats, start, stop, key, n_constants):
    """Look for the best split of a node among features drawn; returns how many are known to be constant."""
    features, known, chosen = work.features, work.known, work.chosen
    n_features, max_features, pair = len(features), rules.max_features, rules.n_classes <= 2
    limits, table = (rules.min_samples_leaf, rules.min_weight_leaf), (work.histograms, work.seen)
    drawn, useful = 0, 0
    while drawn < n_features and n_constants < n_features and (drawn < max_features or useful == 0):
        n_chosen, most = 0, 1
        if drawn < max_features:
            most = GROUP if max_features - drawn > GROUP else max_features - drawn
        while drawn < n_features and n_chosen < most:
            work.swaps[drawn] = draw(key, drawn, features)
            f = features[drawn]
            drawn += 1
            if known[f >> 6] & (_1 << (np.uint64(f) & _63)):
                most -= drawn <= max_features
            else:
                chosen[n_chosen] = f
                n_chosen += 1
        accumulate(
            here, stats, work.order, start, stop, chosen, n_chosen, len(work.totals), pair, work.histograms,
            work.seen,
        )  # fmt: skip
        if rules.min_samples_leaf > 1:
            count_rows(here, work.order, start, stop, chosen, n_chosen, work.counts)
        for g in range(n_chosen):
            f = chosen[g]
            if find_split(
                f, g, rules.criterion, pair, not rows.categorical[f], limits, work.totals, stop - start,
                table, work.counts, work.bins, work.best, (work.found, work.found_categories),
            ):  # fmt: skip
                known[f >> 6] |= _1 << (np.uint64(f) & _63)
                n_constants += 1
            else:
                useful += 1
    undraw(features, work.swaps, drawn)
    return n_constants


@helper(counts_references=False)
def _is_leaf(rules, pair, work):
    if work.best[0] == -np.inf:
        return True
    if rules.min_impurity_decrease <= 0.0:
        return False
    gain = improvement(rules.criterion, pair, work.best[0], work.totals, rules.all_weight)
    return gain + _EPSILON < rules.min_impurity_decrease


@helper(counts_references=False)
def _write_leaf(growth, node):
    growth.integers[node, LEFT] = -1
    growth.integers[node, RIGHT] = -1
    growth.integers[node, SPLIT_FEATURE] = -2
    growth.floats[node, THRESHOLD] = -2.0


@helper(counts_references=False)
def _write_split(rows, work, growth, node, more_left):
    """`more_left`: where missing values go that the node did not see."""
    found, found_categories = work.found, work.found_categories
    f = found[FEATURE]
    missing_left = found[MISSING_LEFT] != 0 if found[HAD_MISSING] else more_left
    growth.integers[node, SPLIT_FEATURE] = f
    growth.integers[node, MISSING_GOES_LEFT] = missing_left
    if not rows.categorical[f]:
        growth.floats[node, THRESHOLD] = threshold_between(rows.cuts, f, found)
        return
    growth.floats[node, THRESHOLD] = np.nan
    for word in range(4):
        # Categories that are not here go where missing values go.
        others = ~found_categories[4 + word] if missing_left else np.uint64(0)
        growth.words[node, word] = found_categories[word] | others


@helper(counts_references=False)
def _queue_children(work, growth, node, waiting, position, near, n_constants):
    """Queue both children: the left one last, so that it comes out first; `waiting` makes room for them."""
    start, stop, key, depth = waiting[START], waiting[STOP], np.uint64(waiting[KEY]), waiting[DEPTH]
    known = work.known
    for left in range(2):
        at = growth.counts[N_WAITING]
        row, row_known = growth.stack[at], growth.stack_known[at]
        row[START], row[STOP] = start if left else position, position if left else stop
        row[PARENT], row[NEAR], row[DEPTH], row[CONSTANTS] = 2 * node + 1 - left, near, depth + 1, n_constants
        row[KEY] = np.int64(child_key(key, 1 - left))
        for word in range(len(known)):
            row_known[word] = known[word]
        growth.counts[N_WAITING] += 1


@helper(counts_references=False)
def child_key(key, side):
    """What a child's draws depend on: the way from the root to it."""
    return mix(key ^ (RIGHT_PATH if side else LEFT_PATH))


@helper(counts_references=False)
def threshold_between(cuts, f, found):
    """Halfway between the end of the lower bin and the start of the upper one."""
    if found[ABOVE] == BINS:
        return np.inf
    return cuts[f, found[BELOW]] / 2.0 + cuts[f, found[ABOVE] - 1] / 2.0


@helper(counts_references=False)
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


@helper(counts_references=False)
def _sum_up(criterion, n_classes, stats, order, start, stop, totals):
    """The node's sums; returns the further moment that the impurity of a regression needs."""
    for q in range(len(totals)):
        totals[q] = 0.0
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


@helper(counts_references=False)
def write_value(n_classes, totals, weight, value):
    if n_classes == 1:
        value[0] = totals[1] / weight
    elif n_classes == 2:
        value[0] = (weight - totals[1]) / weight
        value[1] = totals[1] / weight
    else:
        for q in range(n_classes):
            value[q] = totals[q] / weight


@helper(counts_references=False)
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


@helper(counts_references=False)
def left_table(categorical, found, found_categories, goes_left):
    """Which codes go left."""
    for code in range(MISSING):
        if categorical:
            word = found_categories[code >> 6]
            goes_left[code] = (word >> (np.uint64(code) & _63)) & _1
        else:
            goes_left[code] = code <= found[BELOW]
    goes_left[MISSING] = found[MISSING_LEFT]
