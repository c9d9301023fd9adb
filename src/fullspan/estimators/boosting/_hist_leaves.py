# mypy: allow-untyped-decorators, allow-untyped-calls
"""The account of a tree's leaves: which is split next, and what a split makes of it.

Shapes: as in `_hist_records`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fullspan.core.kernels import helper
from fullspan.estimators.boosting._hist_kernels import BINS, mixed
from fullspan.estimators.boosting._hist_records import (
    BIN,
    DEPTH,
    FEATURE,
    GAIN,
    HIGHEST,
    KIND,
    LEFT,
    LEFT_SUMS,
    LOWEST,
    N_ROWS,
    NODE,
    NODE_BIN,
    NODE_FEATURE,
    NODE_KIND,
    PIECES,
    RIGHT,
    SLOT,
    TOTAL,
)
from fullspan.estimators.boosting._hist_splits import (
    CATEGORIES,
    MIN_HESSIAN,
    MISSING,
    MISSING_LEFT,
    UNIT_G,
    UNIT_H,
    gradients_of,
    hessians_of,
    weight_of,
    worth_of,
)

_HALF = np.float32(0.5)


@helper(counts_references=False)
def _comes_before(a: int, b: int, numbers: Any, reals: Any, lossguide: bool) -> Any:
    """Whether leaf a is split before leaf b."""
    if lossguide and reals[a, GAIN] != reals[b, GAIN]:
        return reals[a, GAIN] > reals[b, GAIN]
    return numbers[a, NODE] < numbers[b, NODE]


@helper(counts_references=False)
def push(heap: Any, n: int, leaf: int, numbers: Any, reals: Any, lossguide: bool) -> None:
    """Add a leaf to the heap of n leaves that wait."""
    i = n
    while i > 0:
        above = (i - 1) // 2
        if not _comes_before(leaf, heap[above], numbers, reals, lossguide):
            break
        heap[i] = heap[above]
        i = above
    heap[i] = leaf


@helper(counts_references=False)
def pop(heap: Any, n: int, numbers: Any, reals: Any, lossguide: bool) -> Any:
    """Take the first leaf from the heap of n leaves."""
    first, leaf = heap[0], heap[n - 1]
    i = 0
    while True:
        below = 2 * i + 1
        if below >= n - 1:
            break
        if below + 1 < n - 1 and _comes_before(heap[below + 1], heap[below], numbers, reals, lossguide):
            below += 1
        if not _comes_before(heap[below], leaf, numbers, reals, lossguide):
            break
        heap[i] = heap[below]
        i = below
    heap[i] = leaf
    return first


@helper(counts_references=False)
def _sample(chosen: Any, n: int, wanted: int, salt: Any) -> None:
    """Move `wanted` of the first n numbers to the front, any of them with the same chance."""
    for i in range(min(wanted, n - 1)):
        j = i + np.int64(mixed(salt + np.uint32(i) * np.uint32(0x9E3779B9)) % np.uint32(n - i))
        chosen[i], chosen[j] = chosen[j], chosen[i]


@helper(counts_references=False)
def choose_features(chosen: Any, f: Any, node: int, depth: int, marks: Any) -> None:
    """chosen[1, feature] = 1 for the features that a node may be split by; chosen[0] is room to work in.

    marks : uint8 [P + F], or less where features may meet freely
    """
    work, allowed = chosen[0], chosen[1]
    n, n_sets = len(f.features), f.sets.shape[0]
    for i in range(n):
        work[i] = f.features[i]
    if f.n_level < n:
        _sample(work, n, f.n_level, mixed(f.salt + np.uint32(2 * depth)))
        n = f.n_level
    if f.n_node < n:
        _sample(work, n, f.n_node, mixed(f.salt + np.uint32(2 * node + 1)))
        n = f.n_node
    for feature in range(len(allowed)):
        allowed[feature] = 0
    for i in range(n):
        feature = work[i]
        # Below the root: what the path has, and what is in a set with all that the path has.
        fits = n_sets == 0 or depth == 0 or marks[n_sets + feature] != 0
        for s in range(n_sets):
            fits |= (marks[s] & f.sets[s, feature]) != 0
        allowed[feature] = fits


@helper(counts_references=False)
def mark_left(left: Any, bin_: int, kind: int, goes_left: Any) -> None:
    """left [256] = 1 for the codes that go left."""
    for code in range(BINS):
        left[code] = goes_left[code] if kind == CATEGORIES else np.uint8(code <= bin_)
    if kind != CATEGORIES:
        left[MISSING] = kind == MISSING_LEFT


@helper(counts_references=False)
def free_slot(numbers: Any, reals: Any, n_leaves: int, taken: Any) -> Any:
    """A histogram slot: a free one, or that of the waiting leaf with the least gain."""
    for slot in range(len(taken)):
        if not taken[slot]:
            taken[slot] = 1
            return slot
    last = -1
    for leaf in range(n_leaves):
        if numbers[leaf, SLOT] >= 0 and (last < 0 or reals[leaf, GAIN] <= reals[last, GAIN]):
            last = leaf
    slot = numbers[last, SLOT]
    numbers[last, SLOT] = -1
    return slot


@helper(counts_references=False)
def gain_of(worth: Any, account: Any, reals: Any, settings: Any) -> Any:
    """What a split adds to what its node is worth."""
    g = gradients_of(account[TOTAL]) * settings[UNIT_G]
    h = hessians_of(account[TOTAL]) * settings[UNIT_H]
    return worth - worth_of(g, h, settings, reals[LOWEST], reals[HIGHEST])


@helper(counts_references=False)
def bound_children(
    left_sums: Any, right_sums: Any, settings: Any, direction: int, mine: Any, its: Any
) -> None:
    """Bounds of two children, `mine` being their parent's until now; a monotone split keeps them apart."""
    low, high = mine[LOWEST], mine[HIGHEST]
    its[LOWEST], its[HIGHEST] = low, high
    if direction != 0:
        unit_g, unit_h = settings[UNIT_G], settings[UNIT_H]
        gl, hl = gradients_of(left_sums) * unit_g, hessians_of(left_sums) * unit_h
        gr, hr = gradients_of(right_sums) * unit_g, hessians_of(right_sums) * unit_h
        wl = weight_of(gl, hl, settings, low, high)
        wr = weight_of(gr, hr, settings, low, high)
        middle = (wl + wr) * _HALF
        if direction > 0:
            mine[HIGHEST], its[LOWEST] = middle, middle
        else:
            mine[LOWEST], its[HIGHEST] = middle, middle


@helper(counts_references=False)
def split_account(mine: Any, its: Any, n_left: Any, n_nodes: int) -> None:
    """A leaf's account becomes its left child's; `its` is the right child's."""
    mine[N_ROWS] = its[N_ROWS] = 0
    for piece in range(len(n_left)):
        at = PIECES + 2 * piece
        its[at] = mine[at] + n_left[piece]
        its[at + 1] = mine[at + 1] - n_left[piece]
        mine[at + 1] = n_left[piece]
        mine[N_ROWS] += mine[at + 1]
        its[N_ROWS] += its[at + 1]
    its[TOTAL] = mine[TOTAL] - mine[LEFT_SUMS]
    mine[TOTAL] = mine[LEFT_SUMS]
    mine[NODE], its[NODE] = n_nodes, n_nodes + 1
    mine[DEPTH] += 1
    its[DEPTH] = mine[DEPTH]
    its[SLOT] = -1


@helper(counts_references=False)
def mark_path(sets: Any, feature: int, mine: Any, its: Any) -> None:
    """The path of a leaf's two children has one more feature."""
    n_sets, n_features = sets.shape
    mine[n_sets + feature] = 1
    for s in range(n_sets):
        mine[s] &= sets[s, feature]
    for i in range(n_sets + n_features):
        its[i] = mine[i]


@helper(counts_references=False)
def write_split(out: Any, account: Any, reals: Any, goes_left: Any, n_nodes: int) -> None:
    """The node of a leaf becomes a split whose children are the next two nodes."""
    node = account[NODE]
    numbers = out.numbers[node]
    numbers[LEFT], numbers[RIGHT] = n_nodes, n_nodes + 1
    numbers[NODE_FEATURE], numbers[NODE_BIN] = account[FEATURE], account[BIN]
    numbers[NODE_KIND] = account[KIND]
    out.reals[node, GAIN] = reals[GAIN]
    if account[KIND] == CATEGORIES:
        for code in range(BINS):
            out.goes_left[node, code] = goes_left[code]


@helper(counts_references=False)
def may_split(account: Any, settings: Any, limits: Any) -> Any:
    """Whether a leaf is heavy enough for two, and not too deep."""
    deep = limits.max_depth != 0 and account[DEPTH] >= limits.max_depth
    heavy = hessians_of(account[TOTAL]) * settings[UNIT_H] >= settings[MIN_HESSIAN] + settings[MIN_HESSIAN]
    return heavy and not deep and account[N_ROWS] > 1
