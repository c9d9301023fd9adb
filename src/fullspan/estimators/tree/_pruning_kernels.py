# mypy: allow-untyped-defs, allow-untyped-decorators, allow-untyped-calls
"""Kernels of minimal cost-complexity pruning."""

from __future__ import annotations

import numpy as np

from fullspan.core.kernels import helper, kernel


@kernel()
def prune(left, right, risk, limit, leaves, alphas, risks):
    """Collapse the branch with the smallest price per leaf, again and again, while that is at most `limit`.

    left, right : int64 [n]; risk : float64 [n] a node's impurity times its share of the weight.
    leaves : bool [n], written: the leaves of the pruned tree. alphas, risks : float64 [n], written: the price
    of each collapse and the tree's risk after it, after the same of the tree as it is; returns how many.
    """
    n = len(left)
    parent = np.full(n, -1, np.int64)
    for node in range(n):
        if left[node] >= 0:
            parent[left[node]] = node
            parent[right[node]] = node
    branch_risk, n_leaves = np.zeros(n), np.zeros(n, np.int64)
    for node in range(n):
        leaves[node] = left[node] < 0
        if leaves[node]:
            branch_risk[node] = risk[node]
            above = parent[node]
            while above >= 0:
                branch_risk[above] += risk[node]
                n_leaves[above] += 1
                above = parent[above]
    # A tournament: the cheapest branch, the first of equals, is at the root.
    width = 1
    while width < n:
        width *= 2
    price = np.full(width, np.inf)
    winner = np.arange(2 * width) - width
    for node in range(n):
        if left[node] >= 0:
            price[node] = (risk[node] - branch_risk[node]) / (n_leaves[node] - 1)
    for match in range(width - 1, 0, -1):
        _play(match, winner, price)
    alphas[0], risks[0] = 0.0, branch_risk[0]
    count = 1
    waiting = np.empty(n, np.int64)
    while price[winner[1]] < np.inf:
        node = winner[1]
        alpha = price[node]
        if limit < alpha:
            break
        _remove_below(node, left, right, leaves, price, winner, width, waiting)
        leaves[node] = True
        removed = n_leaves[node] - 1
        change = risk[node] - branch_risk[node]
        branch_risk[node] = risk[node]
        above = parent[node]
        while above >= 0:
            n_leaves[above] -= removed
            branch_risk[above] += change
            _reprice(above, (risk[above] - branch_risk[above]) / (n_leaves[above] - 1), price, winner, width)
            above = parent[above]
        alphas[count], risks[count] = alpha, branch_risk[0]
        count += 1
    return count


@helper()
def _play(match, winner, price):
    first, second = winner[2 * match], winner[2 * match + 1]
    winner[match] = second if price[second] < price[first] else first


@helper()
def _reprice(node, new, price, winner, width):
    price[node] = new
    match = (node + width) // 2
    while match:
        _play(match, winner, price)
        match //= 2


@helper()
def _remove_below(node, left, right, leaves, price, winner, width, waiting):
    """Take a branch out of the tree, its root too."""
    waiting[0] = node
    n_waiting = 1
    while n_waiting:
        n_waiting -= 1
        node = waiting[n_waiting]
        leaves[node] = False
        if price[node] < np.inf:
            _reprice(node, np.inf, price, winner, width)
        if left[node] >= 0:
            waiting[n_waiting], waiting[n_waiting + 1] = left[node], right[node]
            n_waiting += 2


@kernel()
def kept_nodes(left, right, leaves, kept):
    """Number the pruned tree's nodes in their order, left branches first; returns how many they are."""
    waiting = np.empty(len(left), np.int64)
    waiting[0] = 0
    n_waiting, count = 1, 0
    while n_waiting:
        n_waiting -= 1
        node = waiting[n_waiting]
        kept[count] = node
        count += 1
        if not leaves[node]:
            waiting[n_waiting], waiting[n_waiting + 1] = right[node], left[node]
            n_waiting += 2
    return count
