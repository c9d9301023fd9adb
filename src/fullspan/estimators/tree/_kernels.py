# mypy: allow-untyped-defs
"""Kernels that send rows down a finished tree."""

from __future__ import annotations

import numpy as np

from fullspan.core.kernels import helper, kernel


@helper()
def goes_left(value, threshold, missing_left, start, stop, words):
    """Whether a row with this value goes left: `words[start:stop]` are a categorical split's bits, if any."""
    if np.isnan(value):
        return missing_left != 0
    if start == stop:
        return value <= threshold
    # Codes from fitting are whole and count from 0; whatever else is an unknown category.
    if value < 0 or value >= (stop - start) * 64:
        return missing_left != 0
    code = np.int64(value)
    word = words[start + (code >> 6)]
    return (word >> np.uint64(code & 63)) & np.uint64(1) != 0


@kernel()
def apply_dense(x, left, right, feature, threshold, missing_left, category_start, words, out):
    """The leaf of each row; `category_start` is empty when no split is categorical."""
    categorical = len(category_start) > 0
    for i in range(x.shape[0]):
        node = 0
        while left[node] != -1:
            value = x[i, feature[node]]
            if categorical:
                go = goes_left(
                    value,
                    threshold[node],
                    missing_left[node],
                    category_start[node],
                    category_start[node + 1],
                    words,
                )
            else:
                go = value <= threshold[node] or (missing_left[node] != 0 and np.isnan(value))
            node = left[node] if go else right[node]
        out[i] = node


@kernel()
def apply_csr(data, indices, indptr, left, right, feature, threshold, missing_left, n_features, out):
    """The leaf of each row of a sparse matrix, whose absent entries are zeros."""
    last_row = np.full(n_features, -1, np.int64)
    row = np.zeros(n_features, np.float32)
    for i in range(len(indptr) - 1):
        for k in range(indptr[i], indptr[i + 1]):
            last_row[indices[k]] = i
            row[indices[k]] = data[k]
        node = 0
        while left[node] != -1:
            j = feature[node]
            value = row[j] if last_row[j] == i else np.float32(0.0)
            go = value <= threshold[node] or (missing_left[node] != 0 and np.isnan(value))
            node = left[node] if go else right[node]
        out[i] = node


@kernel()
def node_depths(left, right, depths):
    """The root is at depth 1; children come after their parents."""
    depths[0] = 1
    for node in range(len(left)):
        if left[node] != -1:
            depths[left[node]] = depths[node] + 1
            depths[right[node]] = depths[node] + 1


@kernel()
def average_over_others(
    x, column, left, right, feature, threshold, missing_left, category_start, words, weight, value, out
):
    """Add to `out` what rows are worth of which only some features are known.

    `column` says where in x a feature stands, -1 where it is not known: both sides of its splits count, by
    the weight of the rows that they were fitted to. Children come after their parents.
    """
    share = np.empty(len(left))
    categorical = len(category_start) > 0
    for i in range(x.shape[0]):
        share[:] = 0.0
        share[0] = 1.0
        for node in range(len(left)):
            if share[node] == 0.0:
                continue
            if left[node] == -1:
                out[i] += share[node] * value[node]
            elif column[feature[node]] == -1:
                for child in (left[node], right[node]):
                    share[child] = share[node] * weight[child] / weight[node]
            else:
                start = category_start[node] if categorical else 0
                stop = category_start[node + 1] if categorical else 0
                known = x[i, column[feature[node]]]
                go = goes_left(known, threshold[node], missing_left[node], start, stop, words)
                share[left[node] if go else right[node]] = share[node]
