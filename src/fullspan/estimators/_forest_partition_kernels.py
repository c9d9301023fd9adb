# mypy: allow-untyped-defs, allow-untyped-decorators, allow-untyped-calls
"""Growing trees level by level from summed histograms: the same draws and the same splits as `grow_tree`."""

from __future__ import annotations

import numpy as np

from fullspan.core.kernels import kernel
from fullspan.estimators._forest_kernels import (
    child_key,
    left_table,
    threshold_between,
    write_value,
)
from fullspan.estimators._split_kernels import (
    BINS,
    FEATURE,
    GROUP,
    HAD_MISSING,
    MISSING_LEFT,
    draw,
    find_split,
    improvement,
    impurity,
    mix,
)

_EPSILON = float(np.finfo(np.float64).eps)


@kernel()
def root_keys(seeds, keys):
    """What the draws of each tree's root depend on."""
    for i in range(len(seeds)):
        keys[i] = mix(seeds[i])


@kernel()
def children_keys(keys, children):
    """The keys of left and right children."""
    for i in range(len(keys)):
        children[i, 0] = child_key(keys[i], 0)
        children[i, 1] = child_key(keys[i], 1)


@kernel()
def draw_features(keys, drawn, n_features, chosen):
    """The features that each node draws after its first `drawn` ones."""
    for i in range(len(keys)):
        features = np.arange(n_features)
        for d in range(drawn + chosen.shape[1]):
            draw(keys[i], d, features)
        for d in range(chosen.shape[1]):
            chosen[i, d] = features[drawn + d]


@kernel()
def fill_histograms(codes, labels, counts, order, starts, stops, features, pair, out):
    """Histograms of nodes of one tree: drawn rows (all, and of class 1; or of each class), and distinct rows.

    Parameters
    ----------
    codes : uint8 array of shape (n_rows, n_features)
    labels : int64 array of shape (n_rows,)
    counts : int32 array of shape (n_rows,)
        How often each row was drawn.
    order : int32 array
        Node i's rows are ``order[starts[i]:stops[i]]``.
    features : int64 array of shape (n_nodes, n_chosen)
    out : int64 array of shape (n_nodes, n_chosen, 256, width + 1)
    """
    last = out.shape[3] - 1
    for node in range(len(starts)):
        for i in range(starts[node], stops[node]):
            r = order[i]
            for g in range(features.shape[1]):
                code = codes[r, features[node, g]]
                if pair:
                    out[node, g, code, 0] += counts[r]
                    out[node, g, code, 1] += counts[r] * labels[r]
                else:
                    out[node, g, code, labels[r]] += counts[r]
                out[node, g, code, last] += 1


@kernel()
def split_rows(codes, order, start, stop, feature, goes_left):
    """Put the rows of a node that go left first; returns where the right side begins."""
    spare = np.empty(stop - start, np.int32)
    n_left = start
    n_right = 0
    for i in range(start, stop):
        r = order[i]
        if goes_left[codes[r, feature]]:
            order[n_left] = r
            n_left += 1
        else:
            spare[n_right] = r
            n_right += 1
    order[n_left:stop] = spare[:n_right]
    return n_left


@kernel()
def describe_nodes(criterion, n_classes, totals, impurities, weights, values):
    """Impurity, weight and class frequencies of nodes, from their sums."""
    pair = n_classes <= 2
    for i in range(len(totals)):
        weights[i] = totals[i, 0] if pair else totals[i].sum()
        impurities[i] = impurity(criterion, pair, totals[i], 0.0)
        write_value(n_classes, totals[i], weights[i], values[i])


@kernel()
def decide(histograms, features, totals, n_rows, all_weight, cuts, categorical, criterion, limits, out):
    """The best split of each node among the features drawn, which `grow_tree` would find too.

    Parameters
    ----------
    histograms : int64 array of shape (n_nodes, n_chosen, 256, width + 1)
        From `fill_histograms`, summed.
    features : int64 array of shape (n_nodes, n_chosen)
    totals : float64 array of shape (n_nodes, width)
    n_rows : int64 array of shape (n_nodes,)
    all_weight : float
        The sum of the tree's root.
    limits : (min_samples_leaf, min_weight_leaf, min_impurity_decrease)
    out : (verdict, feature, threshold, missing_left, goes_left, categories, left_totals, left_rows)
        Written. The verdict is 1 for a split, 0 for a leaf, -1 where all features were constant.
    """
    verdict, feature, threshold, missing_left, goes_left, categories, left_totals, left_rows = out
    n_nodes, n_chosen, _, channels = histograms.shape
    width = channels - 1
    pair = width == 2
    sums = np.zeros(GROUP * BINS * width)
    seen = np.zeros(GROUP * BINS, np.uint8)
    counts = np.zeros(GROUP * BINS, np.int64)
    bins = (
        np.empty(BINS, np.int64),
        np.empty(BINS * width),
        np.empty(BINS, np.int64),
        np.empty(BINS, np.int64),
        np.empty(BINS),
        np.empty(width),
    )
    found = np.zeros(5, np.int64)
    best = np.empty(1)
    for node in range(n_nodes):
        best[0] = -np.inf
        useful = 0
        place = 0
        for g in range(n_chosen):
            f = features[node, g]
            for code in range(BINS):
                rows = histograms[node, g, code, width]
                seen[code] = rows > 0
                counts[code] = rows
                for q in range(width):
                    sums[code * width + q] = histograms[node, g, code, q]
            before = best[0]
            useful += not find_split(
                f, 0, criterion, pair, not categorical[f], (limits[0], limits[1]), totals[node],
                n_rows[node], (sums, seen), counts, bins, best, (found, categories[node]),
            )  # fmt: skip
            counts[:BINS] = 0
            if best[0] > before:
                place = g
        verdict[node] = 1 if best[0] > -np.inf else (0 if useful > 0 else -1)
        if verdict[node] == 1 and limits[2] > 0.0:
            gain = improvement(criterion, pair, best[0], totals[node], all_weight[node])
            verdict[node] = gain + _EPSILON >= limits[2]
        if verdict[node] != 1:
            continue
        f = found[FEATURE]
        feature[node] = f
        threshold[node] = np.nan if categorical[f] else threshold_between(cuts, f, found)
        left_table(categorical[f], found, categories[node], goes_left[node])
        left_rows[node] = 0
        left_totals[node] = 0.0
        for code in range(BINS):
            if goes_left[node, code]:
                left_rows[node] += histograms[node, place, code, width]
                for q in range(width):
                    left_totals[node, q] += histograms[node, place, code, q]
        if found[HAD_MISSING]:
            missing_left[node] = found[MISSING_LEFT]
        else:
            missing_left[node] = left_rows[node] > n_rows[node] - left_rows[node]
