"""From arrays to a grown tree: the driver of the growing kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from fullspan.estimators.tree._grow_kernels import grow_tree
from fullspan.estimators.tree._records import (
    ABSOLUTE,
    ENTROPY,
    FEATURE,
    GINI,
    IMPURITY,
    LEFT,
    MISSING_LEFT,
    N_NODES,
    N_SAMPLES,
    NODE_WEIGHT,
    POISSON,
    RIGHT,
    SQUARED,
    THRESHOLD,
    Columns,
    Growth,
    Rules,
    Targets,
    Work,
)
from fullspan.estimators.tree._sorting_kernels import SORT_STACK, presort
from fullspan.estimators.tree.structure import Tree

CRITERIA = {
    "gini": GINI,
    "entropy": ENTROPY,
    "log_loss": ENTROPY,
    "squared_error": SQUARED,
    "friedman_mse": SQUARED,
    "absolute_error": ABSOLUTE,
    "poisson": POISSON,
}
# scikit-learn seeds its trees with a number below this one.
SEED_LIMIT = 2147483647
_EXACT = 2.0**53
_MOST_PRESORTED = 2**27  # values; with more than a gigabyte of presorted columns, nodes sort their own rows
_FIRST_NODES = 1024
_NO_PARENT = -1
# What grows with the number of nodes.
_PER_NODE = tuple(name for name in Growth._fields if name != "counts")
_NONE_FLOAT32, _NONE_FLOAT64 = np.empty(0, np.float32), np.empty(0, np.float64)
_NONE_INT32, _NONE_INT64 = np.empty(0, np.int32), np.empty(0, np.int64)


def columns_of(X: Any, n_categories: NDArray[np.int64] | None = None, *, presorted: bool) -> Columns:
    """Lay the features out for growing. The same columns serve any number of trees.

    Parameters
    ----------
    X : float32 array or csc matrix of shape (n_samples, n_features)
        Dense columns are copied (4 bytes a value) unless they are contiguous already; sparse ones are read
        where they are.
    n_categories : int64 array of shape (n_features,), optional
        How many codes a categorical feature has; 0 for numeric ones.
    presorted : bool
        Whether to sort dense columns once (8 more bytes a value) instead of rows in every node. Pays unless
        few features are looked at in a node; ignored where it would take more than a gigabyte.
    """
    n_features = X.shape[1]
    kinds = np.zeros(n_features, np.int64) if n_categories is None else n_categories
    packed = np.empty((0, 0), np.uint64)
    if sp.issparse(X):
        return Columns(
            np.empty((n_features, 0), np.float32),
            packed,
            X.data,
            X.indices.astype(np.int32, copy=False),
            X.indptr.astype(np.int64),
            np.zeros(n_features, np.bool_),
            kinds,
        )
    values = np.ascontiguousarray(X.T)
    # -0.0 equals 0.0, though its bits say otherwise.
    if presorted and values.size <= _MOST_PRESORTED:
        values = values + np.float32(0.0)
        packed = np.empty(values.shape, np.uint64)
        spare, counts = np.empty(values.shape[1], np.uint64), np.empty((3, 2048), np.int64)
        presort(values.view(np.uint32), packed, spare, counts)
    with np.errstate(over="ignore", invalid="ignore"):
        has_missing = np.isnan(values.sum(axis=1))
    return Columns(values, packed, _NONE_FLOAT32, _NONE_INT32, _NONE_INT64, has_missing, kinds)


def targets_of(
    y: NDArray[np.float64], weight: NDArray[np.float64] | None, n_classes: NDArray[np.int64], criterion: int
) -> Targets:
    """Lay the targets out for growing: float64 of shape (n_samples, n_outputs), classes as codes."""
    classes = criterion in (GINI, ENTROPY)
    weights = np.ones(len(y)) if weight is None else np.ascontiguousarray(weight, np.float64)
    return Targets(
        np.ascontiguousarray(y, np.float64),
        y[:, 0].astype(np.int32) if classes and y.shape[1] == 1 else _NONE_INT32,
        weights,
        np.ascontiguousarray(n_classes, np.int64),
        # One after the other: numpy would add in pairs.
        float(len(y)) if weight is None else float(np.cumsum(weights)[-1]),
        criterion in (ABSOLUTE, POISSON) or _rounds(y, weights, classes),
    )


def _rounds(y: NDArray[np.float64], weights: NDArray[np.float64], classes: bool) -> bool:
    """Whether sums of weights or of targets may round, so that their order shows in the result."""
    if np.any(weights != np.rint(weights)) or np.abs(weights).sum() >= _EXACT:
        return True
    if classes:
        return False
    with np.errstate(over="ignore"):
        largest = (np.abs(weights)[:, None] * y * y).sum()
    return bool(np.any(y != np.rint(y)) or not largest < _EXACT)


def grow(columns: Columns, targets: Targets, rules: Rules, seed: int) -> Tree:
    """Grow one tree.

    Parameters
    ----------
    columns, targets : Columns, Targets
        From `columns_of` and `targets_of`.
    rules : Rules
    seed : int
        Below `SEED_LIMIT`; decides in which order features are looked at and where random splits fall.
    """
    n_samples, n_features = len(targets.y), len(columns.n_categories)
    samples = np.flatnonzero(targets.weight != 0.0).astype(np.int32)
    shape = (targets.y.shape[1], int(targets.n_classes.max()))
    most_categories = int(columns.n_categories.max(initial=0))
    packed = columns.packed
    if packed.size:
        packed = _without(packed, targets.weight) if len(samples) < n_samples else packed.copy()
        columns = columns._replace(packed=packed)
    work = Work(
        samples=samples,
        values=(values := np.empty(len(samples), np.float32)),
        bits=values.view(np.uint32),
        spare_samples=np.empty(len(samples), np.int32),
        spare_values=np.empty(len(samples), np.float32),
        spare_packed=np.empty(len(samples) if packed.size else 0, np.uint64),
        goes_left=np.empty(n_samples if packed.size else 0, np.uint8),
        position=_positions(samples, n_samples) if len(columns.indptr) else None,
        features=np.stack([np.arange(n_features), np.zeros(n_features, np.int64)]),
        random=np.array([seed], np.int64),
        stack=np.empty(SORT_STACK, np.int64),
        sums=np.zeros((3, *shape)),
        scalars=np.zeros(5),
        split=np.zeros(9),
        absolute=np.empty((7, len(samples) + 1)) if rules.criterion == ABSOLUTE else None,
        absolute_ranks=np.empty((2, len(samples) if rules.criterion == ABSOLUTE else 0), np.int64),
        categories=np.empty((4, most_categories), np.int64) if most_categories else None,
        category_sums=np.empty((2 + shape[0] * shape[1], most_categories)),
        directions=np.empty((3, shape[0] * shape[1])),
    )
    growth = _new_growth(rules, len(samples), shape[0] * shape[1], (most_categories + 63) // 64)
    while not grow_tree(columns, targets, rules, work, growth):
        growth = growth._replace(**{name: _doubled(getattr(growth, name)) for name in _PER_NODE})
    return _tree_of(columns, targets, growth)


def _new_growth(rules: Rules, n_rows: int, n_values: int, n_words: int) -> Growth:
    """Room for some nodes; the root waits."""
    n_nodes = min(_FIRST_NODES, max(2 * n_rows - 1, 1))
    growth = Growth(
        counts=np.array([0, 1, 0, rules.max_leaf_nodes - 1]),
        integers=np.zeros((n_nodes, 5), np.int64),
        floats=np.zeros((n_nodes, 3)),
        values=np.zeros((n_nodes, n_values)),
        words=np.zeros((n_nodes, n_words), np.uint64),
        waiting=np.zeros((n_nodes + 1, 6), np.int64),
        bounds=np.zeros((n_nodes + 1, 3)),
        places=np.zeros((n_nodes, 5), np.int64),
        figures=np.zeros((n_nodes, 6)),
        heap=np.zeros(n_nodes, np.int64),
    )
    growth.waiting[0] = 0, n_rows, 0, _NO_PARENT, 0, 0
    growth.bounds[0] = np.inf, -np.inf, np.inf
    return growth


def _doubled(array: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([array, np.zeros_like(array)])


def _tree_of(columns: Columns, targets: Targets, growth: Growth) -> Tree:
    n = growth.counts[N_NODES]
    integers, floats = growth.integers[:n], growth.floats[:n]
    is_split, feature = integers[:, LEFT] >= 0, integers[:, FEATURE]
    category_start = category_words = None
    if growth.words.shape[1]:
        n_words = np.where(is_split, (columns.n_categories[np.maximum(feature, 0)] + 63) // 64, 0)
        category_words = growth.words[:n][np.arange(growth.words.shape[1]) < n_words[:, None]]
        category_start = np.concatenate([[0], np.cumsum(n_words)])
        floats[n_words > 0, THRESHOLD] = np.nan
    return Tree(
        len(columns.n_categories),
        targets.n_classes,
        integers[:, LEFT],
        integers[:, RIGHT],
        feature,
        floats[:, THRESHOLD],
        floats[:, IMPURITY],
        integers[:, N_SAMPLES],
        floats[:, NODE_WEIGHT],
        growth.values[:n].copy().reshape(n, len(targets.n_classes), -1),
        integers[:, MISSING_LEFT].astype(np.uint8),
        category_start,
        category_words,
    )


def _without(packed: NDArray[np.uint64], weight: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Presorted columns without the rows of no weight."""
    kept = (weight != 0.0)[(packed & np.uint64(0x7FFFFFFF)).astype(np.int64)]
    without: NDArray[np.uint64] = packed[kept].reshape(len(packed), -1)
    return without


def _positions(samples: NDArray[np.int32], n_samples: int) -> NDArray[np.int32]:
    positions = np.full(n_samples, -1, np.int32)
    positions[samples] = np.arange(len(samples))
    return positions
