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
def add_pair(
    i, j, kind, score, y, gain, order, inverse_ideal, relevant, precision, by_score, plus, minus,
    own_plus, own_minus, g, h,
):  # fmt: skip
    """Add the gradients of the pair at ranks i and j; returns how much lambda it adds.

    With biases of positions (`plus` of the better row's, `minus` of the other's, both [k]) what they explain
    of the loss is added to `own_plus` and `own_minus`.
    """
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
    slope = (sigmoid - 1) * change
    bend = max(sigmoid * (1 - sigmoid), _LEAST) * change * 2
    if high < len(plus) and low < len(plus):
        known = minus[low] >= _LEAST and plus[high] >= _LEAST
        if known:
            slope /= plus[high] * minus[low]
            bend /= plus[high] * minus[low]
        cost = np.log(1 / (1 - sigmoid)) * change
        if minus[low] >= _LEAST:
            own_plus[high] += cost / minus[low]
        if plus[high] >= _LEAST:
            own_minus[low] += cost / plus[high]
    g[high] += np.float32(slope)
    g[low] -= np.float32(slope)
    h[high] += np.float32(bend)
    h[low] += np.float32(bend)
    return -2.0 * np.float32(slope)


@helper()
def next_draw(state):
    """The next number of the generator of Park and Miller (1993), from 1 to 2**31 - 2."""
    return state * 48271 % 2147483647


@kernel()
def query_gradients(
    kind, score, y, gain, order, inverse_ideal, n_pairs, ranks, seed, normalise, by_score, weight,
    plus, minus, total_plus, total_minus, g, h,
):  # fmt: skip
    """Lambda gradients of one query into g and h, which are zero.

    `order` are the rows by falling score. With `ranks` (places in `order` by falling relevance) each row
    meets `n_pairs` others of another relevance at random; without (empty) the best `n_pairs` rows meet all
    below them. The draws are those of libstdc++'s uniform_int_distribution, so that pairs are XGBoost's. What
    positions explain of the loss is added to `total_plus` and `total_minus`, as long as `plus` and `minus`.
    """
    n = len(score)
    relevant, precision = np.zeros(n), np.zeros(n)
    own_plus, own_minus = np.zeros(len(plus)), np.zeros(len(minus))
    if kind == MAP:
        for k in range(n):
            y_k = y[order[k]]
            relevant[k] = y_k + (relevant[k - 1] if k > 0 else 0.0)
            precision[k] = y_k / (k + 1) + (precision[k - 1] if k > 0 else 0.0)
        if relevant[n - 1] == 0:
            return
    total = 0.0
    if len(ranks):
        state = max(seed % 2147483647, 1)
        first = 0
        while first < n:
            last = first + 1
            while last < n and y[order[ranks[first]]] == y[order[ranks[last]]]:
                last += 1
            others = first + n - last
            for k in range((last - first) * n_pairs if others > 0 else 0):
                scaling = 2147483645 // others
                state = next_draw(state)
                while state - 1 >= others * scaling:
                    state = next_draw(state)
                drawn = (state - 1) // scaling
                other = ranks[drawn if drawn < first else drawn - first + last]
                total += add_pair(
                    ranks[first + k % (last - first)], other, kind, score, y, gain, order, inverse_ideal,
                    relevant, precision, by_score, plus, minus, own_plus, own_minus, g, h,
                )  # fmt: skip
            first = last
    else:
        for i in range(min(n, n_pairs)):
            for j in range(i + 1, n):
                total += add_pair(
                    i, j, kind, score, y, gain, order, inverse_ideal, relevant, precision, by_score, plus,
                    minus, own_plus, own_minus, g, h,
                )  # fmt: skip
    scale = 1.0
    if normalise:
        if len(ranks):
            scale = 1.0 / n_pairs
        elif total > 0:
            scale = np.log2(1 + total) / total
    for i in range(n):
        g[i] = np.float32(g[i] * np.float32(scale)) * np.float32(weight)
        h[i] = np.float32(h[i] * np.float32(scale)) * np.float32(weight)
    for i in range(len(plus)):
        total_plus[i] += own_plus[i]
        total_minus[i] += own_minus[i]
