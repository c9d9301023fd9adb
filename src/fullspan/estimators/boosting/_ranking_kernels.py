# mypy: allow-untyped-decorators, allow-untyped-calls, allow-untyped-defs
"""Gradients of pairs of rows of one query."""

from __future__ import annotations

import numpy as np

from fullspan.core.kernels import helper, kernel

PAIRWISE, NDCG, MAP = 0, 1, 2
_LEAST = 1e-16


@helper()
def metric_change(kind, y_a, y_b, rank_a, rank_b, gain_a, gain_b, inverse_ideal, relevant, precision):
    """How much the metric changes when the rows at two ranks change places."""
    if kind == PAIRWISE:
        return 1.0
    if kind == NDCG:
        discount_a, discount_b = 1 / np.log2(rank_a + 2.0), 1 / np.log2(rank_b + 2.0)
        return abs((gain_a - gain_b) * (discount_a - discount_b) * inverse_ideal)
    if rank_a > rank_b:
        rank_a, rank_b, y_a, y_b = rank_b, rank_a, y_b, y_a
    upper, lower = rank_a + 1.0, rank_b + 1.0
    between = precision[rank_b - 1] - precision[rank_a]
    if y_a < y_b:
        change = relevant[rank_b] / lower - (relevant[rank_a] + 1) / upper - between
    else:
        change = relevant[rank_a] / upper - relevant[rank_b] / lower + between
    return abs(change / relevant[-1])


@helper()
def add_pair(i, j, kind, score, y, gain, order, inverse_ideal, relevant, precision, by_score, g, h):
    """Add the gradients of the pair at ranks i and j; returns how much lambda it adds."""
    if y[order[i]] == y[order[j]]:
        return 0.0
    if y[order[i]] < y[order[j]]:
        i, j = j, i
    high, low = order[i], order[j]
    distance = np.float64(score[high] - score[low])
    change = metric_change(
        kind, y[high], y[low], i, j, gain[high], gain[low], inverse_ideal, relevant, precision
    )
    if by_score and score[order[0]] != score[order[-1]]:
        change /= abs(distance) + 0.01
    sigmoid = 1 / (1 + np.exp(-distance))
    slope = np.float32((sigmoid - 1) * change)
    bend = np.float32(max(sigmoid * (1 - sigmoid), _LEAST) * change * 2)
    g[high] += slope
    g[low] -= slope
    h[high] += bend
    h[low] += bend
    return -2.0 * slope


@kernel()
def query_gradients(
    kind, score, y, gain, order, inverse_ideal, n_pairs, partners, normalise, by_score, weight, g, h
):
    """Lambda gradients of one query into g and h, which are zero.

    `order` are the rows by falling score. With `partners` [n_pairs, n] (ranks; -1: none) each row meets
    those; without (zero rows) the best `n_pairs` rows meet all below them.
    """
    n = len(score)
    relevant, precision = np.zeros(n), np.zeros(n)
    if kind == MAP:
        for k in range(n):
            y_k = y[order[k]]
            relevant[k] = y_k + (relevant[k - 1] if k > 0 else 0.0)
            precision[k] = y_k / (k + 1) + (precision[k - 1] if k > 0 else 0.0)
        if relevant[n - 1] == 0:
            return
    total = 0.0
    if len(partners):
        for p in range(len(partners)):
            for i in range(n):
                if partners[p, i] >= 0:
                    total += add_pair(
                        i, partners[p, i], kind, score, y, gain, order, inverse_ideal, relevant, precision,
                        by_score, g, h,
                    )  # fmt: skip
    else:
        for i in range(min(n, n_pairs)):
            for j in range(i + 1, n):
                total += add_pair(
                    i, j, kind, score, y, gain, order, inverse_ideal, relevant, precision, by_score, g, h
                )
    scale = 1.0
    if normalise:
        if len(partners):
            scale = 1.0 / n_pairs
        elif total > 0:
            scale = np.log2(1 + total) / total
    for i in range(n):
        g[i] = np.float32(g[i] * np.float32(scale)) * np.float32(weight)
        h[i] = np.float32(h[i] * np.float32(scale)) * np.float32(weight)
