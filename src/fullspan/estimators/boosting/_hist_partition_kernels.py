# mypy: allow-untyped-decorators, allow-untyped-calls
"""The steps of growing a tree one by one, for rows that lie in several processes: see `hist_partitions`.

Shapes: as in `_hist_records`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fullspan.core.kernels import kernel
from fullspan.core.references import by_reference
from fullspan.estimators.boosting._hist_grow import add_range, find_split, part
from fullspan.estimators.boosting._hist_kernels import BINS
from fullspan.estimators.boosting._hist_leaves import bound_children, choose_features, gain_of, mark_path
from fullspan.estimators.boosting._hist_records import (
    BIN,
    DEPTH,
    FEATURE,
    GAIN,
    HIGHEST,
    KIND,
    LEFT_SUMS,
    LOWEST,
    MONOTONE,
    NODE,
    PIECES,
    TOTAL,
)
from fullspan.estimators.boosting._hist_splits import CATEGORIES


@kernel()
def leaf_histogram(r: Any, first: int, n: int, out: Any) -> None:
    """out int64 [B, W * 256] = what the rows ``order[first : first + n]`` add up to."""
    account = np.empty(PIECES + 2, np.int64)
    account[PIECES], account[PIECES + 1] = first, n
    rows = by_reference(r)
    for block in range(len(out)):
        add_range(rows, block, account, 0, n, out[block])


@kernel()
def part_leaf(r: Any, feature: int, first: int, n: int, bin_: int, kind: int, left: Any) -> int:
    """`part` for callers in Python."""
    return part(by_reference(r), feature, first, n, 0, bin_, kind, left)  # type: ignore[no-any-return]


@kernel()
def search_node(
    hist: Any,
    width: int,
    f: Any,
    limits: Any,
    settings: Any,
    account: Any,
    reals: Any,
    marks: Any,
    goes_left: Any,
) -> Any:
    """Find the best split of a node from its whole histogram; whether there is one.

    Written to `account`, `reals` (GAIN) and, for categories, `goes_left`.
    """
    chosen = np.empty((2, len(f.facts)), np.int64)
    below, order = np.empty((2, BINS), np.int32), np.empty(BINS, np.int64)
    worths, codes = np.empty((2, BINS), np.float32), np.empty(BINS, np.uint8)
    when = by_reference(limits)
    choose_features(chosen, by_reference(f), account[NODE], account[DEPTH], marks)
    best = np.float32(-1e30)
    for feature in range(len(f.facts)):
        if chosen[1, feature]:
            sums = hist[feature // width, feature % width * BINS : (feature % width + 1) * BINS]
            worth, bin_, kind, left = find_split(
                f.facts[feature], when, settings, sums, account[TOTAL], reals[LOWEST], reals[HIGHEST],
                below, order, worths, codes,
            )  # fmt: skip
            if worth > best:
                best = worth
                account[FEATURE], account[BIN], account[KIND], account[LEFT_SUMS] = feature, bin_, kind, left
                if kind == CATEGORIES:
                    for code in range(BINS):
                        goes_left[code] = codes[code]
    gain = gain_of(best, account, reals, settings)
    reals[GAIN] = gain
    return best > np.float32(-1e30) and gain > np.float32(1e-6) and gain >= limits.least_gain


@kernel()
def split_node(
    f: Any, settings: Any, mine: Any, its: Any, reals: Any, its_reals: Any, marks: Any, its_marks: Any
) -> None:
    """The accounts of a node's two children but for their numbers and rows; `mine` was the node's."""
    feature, left_sums = mine[FEATURE], mine[LEFT_SUMS]
    its[TOTAL] = mine[TOTAL] - left_sums
    bound_children(left_sums, its[TOTAL], settings, f.facts[feature, MONOTONE], reals, its_reals)
    mine[TOTAL] = left_sums
    mine[DEPTH] += 1
    its[DEPTH] = mine[DEPTH]
    if f.sets.shape[0] > 0:
        mark_path(f.sets, feature, marks, its_marks)
