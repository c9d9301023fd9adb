"""Growing forests' trees on binned features: the driver of the compiled growth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from fullspan.estimators._forest_kernels import grow_tree
from fullspan.estimators._split_kernels import ENTROPY, GINI, POISSON, SQUARED_ERROR
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
    integers = (
        CRITERIA[criterion],
        n_classes,
        rules.max_features,
        rules.max_depth,
        rules.min_samples_split,
        rules.min_samples_leaf,
    )
    floats = (rules.min_weight_leaf, rules.min_impurity_decrease)
    grown = grow_tree(
        rows.codes, targets, weights, rows.cuts, rows.categorical, integers, floats, np.uint64(seed)
    )
    return tree_of(rows.codes.shape[1], n_classes, grown)


def tree_of(n_features: int, n_classes: int, grown: tuple[NDArray[Any], ...]) -> Tree:
    """The arrays that the kernels return, as a tree."""
    left, right, feature, threshold, impurity, samples, weighted, value, missing, start, words = grown
    return Tree(
        n_features,
        np.array([n_classes]),
        left,
        right,
        feature,
        threshold,
        impurity,
        samples,
        weighted,
        value[:, None, :],
        missing,
        start if len(words) else None,
        words if len(words) else None,
    )
