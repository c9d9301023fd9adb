"""Growing forests' trees on binned features: the driver of the compiled growth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from fullspan.estimators import _forest_records as records
from fullspan.estimators._forest_kernels import grow_tree, root_key
from fullspan.estimators._split_kernels import BINS, ENTROPY, GINI, GROUP, POISSON, SQUARED_ERROR
from fullspan.estimators.binning import MOST_BINS, Binner
from fullspan.estimators.tree._records import Rules
from fullspan.estimators.tree.structure import Tree

CRITERIA = {
    "gini": GINI,
    "entropy": ENTROPY,
    "log_loss": ENTROPY,
    "squared_error": SQUARED_ERROR,
    "friedman_mse": SQUARED_ERROR,
    "poisson": POISSON,
}
"""What the compiled growth can minimise."""

MOST_CLASSES = 64
MOST_CATEGORIES = 254
_NEAR_BYTES = 1 << 19
"""A node whose rows take less is copied together, so that all below it works in the nearest caches."""
_FIRST_NODES, _FIRST_DEPTH = 1024, 64
_SPARSE_COLUMNS = 64
"""How many columns of a sparse matrix are made dense at a time."""


@dataclass(frozen=True)
class BinnedRows:
    """Training rows as codes of bins.

    Parameters
    ----------
    codes : uint8 array of shape (n_samples, n_features)
    cuts : float64 array of shape (n_features, 255)
        The ends of each feature's bins, padded.
    categorical : bool array of shape (n_features,)
    """

    codes: NDArray[np.uint8]
    cuts: NDArray[np.float64]
    categorical: NDArray[np.bool_]


def bin_rows(X: Any, categorical: NDArray[np.bool_], n_threads: int) -> tuple[BinnedRows, Binner]:
    """Put a float32 array, or a csc matrix in blocks of its columns, into bins."""
    if not sp.issparse(X):
        binner = Binner.fit(X, categorical=categorical, n_threads=n_threads)
        codes = np.ascontiguousarray(binner.transform(X, n_threads=n_threads).T)
        return BinnedRows(codes, padded_cuts(binner), categorical), binner
    codes = np.empty(X.shape, np.uint8)
    cuts, categories = [], []
    for first in range(0, X.shape[1], _SPARSE_COLUMNS):
        block = slice(first, min(first + _SPARSE_COLUMNS, X.shape[1]))
        dense = np.asfortranarray(X[:, block].toarray())
        part = Binner.fit(dense, categorical=categorical[block], n_threads=n_threads)
        codes[:, block] = part.transform(dense, n_threads=n_threads).T
        cuts += part.cuts
        categories += part.categories
    binner = Binner(cuts, categories, categorical)
    return BinnedRows(codes, padded_cuts(binner), categorical), binner


def padded_cuts(binner: Binner) -> NDArray[np.float64]:
    """The ends of bins as one float64 array of shape (n_features, 255)."""
    padded = np.zeros((binner.n_features, MOST_BINS))
    for ends, row in zip(binner.cuts, padded, strict=True):
        row[: len(ends)] = ends
    return padded


def grow_binned(
    rows: BinnedRows,
    targets: NDArray[np.float64],
    weights: NDArray[np.float64],
    n_classes: int,
    criterion: str,
    rules: Rules,
    seed: int,
) -> Tree:
    """Grow one tree.

    Parameters
    ----------
    rows : BinnedRows
    targets : float64 array of shape (n_samples,)
        Classes as codes, or values of a regression.
    weights : float64 array of shape (n_samples,)
        Not negative.
    n_classes : int
        1 for a regression.
    criterion : str
        One of `CRITERIA`.
    rules : Rules
        Its criterion is not looked at.
    seed : int
    """
    stats = np.empty((len(weights), 2))
    stats[:, 0] = weights
    stats[:, 1] = weights * targets if n_classes <= 2 else targets
    order = np.flatnonzero(weights).astype(np.int32)
    # One after the other: numpy would add in pairs.
    all_weight = float(np.cumsum(weights)[-1]) if rules.min_impurity_decrease > 0 else 0.0
    their_rules = records.Rules(
        CRITERIA[criterion],
        n_classes,
        rules.max_features,
        rules.max_depth,
        rules.min_samples_split,
        rules.min_samples_leaf,
        rules.min_weight_leaf,
        rules.min_impurity_decrease,
        all_weight,
    )
    tree_rows = records.Rows(rows.codes, stats, rows.cuts, rows.categorical)
    work = _new_work(order, rows.codes.shape[1], 2 if n_classes <= 2 else n_classes)
    growth = _new_growth(rows, len(order), n_classes, rules.max_depth, seed)
    while not grow_tree(tree_rows, their_rules, work, growth):
        full = _PER_NODE if growth.counts[records.N_NODES] == len(growth.integers) else _PER_WAITING
        growth = growth._replace(**{name: _doubled(getattr(growth, name)) for name in full})
    return _tree_of(growth, rows)


# What grows with the number of nodes, and with the depth.
_PER_NODE = ("integers", "floats", "values", "words")
_PER_WAITING = ("stack", "stack_known")


def _doubled(array: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([array, np.zeros_like(array)])


def _new_work(order: NDArray[np.int32], n_features: int, width: int) -> records.Work:
    n_near = max(1, min(len(order), _NEAR_BYTES // n_features))
    return records.Work(
        order=order,
        spare=np.empty_like(order),
        rows_near=np.empty((n_near, n_features), np.uint8),
        stats_near=np.empty((n_near, 2)),
        totals=np.empty(width),
        features=np.arange(n_features),
        swaps=np.empty(n_features, np.int64),
        chosen=np.empty(GROUP, np.int64),
        known=np.empty((n_features + 63) // 64, np.uint64),
        histograms=np.zeros(GROUP * BINS * width),
        seen=np.zeros(GROUP * BINS, np.uint8),
        counts=np.zeros(GROUP * BINS, np.int64),
        bins=(
            np.empty(BINS, np.int64),
            np.empty(BINS * width),
            np.empty(BINS, np.int64),
            np.empty(BINS, np.int64),
            np.empty(BINS),
            np.empty(width),
        ),
        best=np.empty(1),
        found=np.zeros(5, np.int64),
        found_categories=np.zeros(8, np.uint64),
        goes_left=np.empty(BINS, np.uint8),
    )


def _new_growth(rows: BinnedRows, n_rows: int, n_classes: int, max_depth: int, seed: int) -> records.Growth:
    """Room for some nodes; the root waits."""
    n_nodes = max(1, min(_FIRST_NODES, 2 * n_rows - 1, 2 ** min(max_depth + 1, 60) - 1))
    growth = records.Growth(
        counts=np.array([0, 1]),
        integers=np.zeros((n_nodes, 5), np.int64),
        floats=np.zeros((n_nodes, 3)),
        values=np.zeros((n_nodes, n_classes)),
        words=np.zeros((n_nodes, 4 if rows.categorical.any() else 0), np.uint64),
        stack=np.zeros((_FIRST_DEPTH, 7), np.int64),
        stack_known=np.zeros((_FIRST_DEPTH, (rows.codes.shape[1] + 63) // 64), np.uint64),
    )
    growth.stack[0] = 0, n_rows, -1, root_key(np.uint64(seed)), 0, 0, 0
    return growth


def _tree_of(growth: records.Growth, rows: BinnedRows) -> Tree:
    n = growth.counts[records.N_NODES]
    integers, floats = growth.integers[:n].T.copy(), growth.floats[:n].T.copy()
    feature, start, words = integers[records.SPLIT_FEATURE], None, None
    by_category = (feature >= 0) & rows.categorical[np.maximum(feature, 0)]
    if by_category.any():
        start = np.concatenate([[0], np.cumsum(4 * by_category)])
        words = growth.words[:n][by_category].ravel()
    return Tree(
        rows.codes.shape[1],
        np.array([growth.values.shape[1]]),
        integers[records.LEFT],
        integers[records.RIGHT],
        feature,
        floats[records.THRESHOLD],
        floats[records.IMPURITY],
        integers[records.N_SAMPLES],
        floats[records.NODE_WEIGHT],
        growth.values[:n, None].copy(),
        integers[records.MISSING_GOES_LEFT].astype(np.uint8),
        start,
        words,
    )
