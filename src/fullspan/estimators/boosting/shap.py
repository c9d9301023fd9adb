"""TreeSHAP: what each feature, and each pair of features, adds to the raw scores of trees.

The values are those of path-dependent TreeSHAP (features left out follow the covers of the training data), as
are XGBoost's `pred_contribs` and `pred_interactions`.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fullspan.core.device import usable_cores
from fullspan.estimators.boosting._shap_kernels import (
    add_interactions,
    add_shap,
    count_paths,
    find_paths,
)
from fullspan.estimators.boosting.ensemble import TreeEnsemble, dense_rows

_BLOCK = 256


class ExplainedTrees(NamedTuple):
    """Trees whose leaves' values add up, as the kernels take them.

    Nodes and ways are those of a `TreeEnsemble`; only a node's value may be a vector.
    """

    n_groups: int
    base_score: NDArray[np.float64]  # [n_groups]
    tree_start: NDArray[np.int64]  # [n_trees + 1]
    tree_group: NDArray[np.int64]  # [n_trees] the first group that a tree adds to
    left: NDArray[np.int32]  # [n_nodes], as those below
    right: NDArray[np.int32]
    feature: NDArray[np.int32]
    threshold: NDArray[np.float32]
    default_left: NDArray[np.bool_]
    value: NDArray[np.float64]  # [n_nodes, width], for as many groups
    cover: NDArray[np.float64]
    category_start: NDArray[np.int64]  # [n_nodes + 1]
    categories: NDArray[np.int32]


# Gives the kernels some rows as a float32 array.
TakeRows = Callable[[slice], NDArray[np.float32]]


def explain(
    trees: ExplainedTrees,
    n_samples: int,
    n_features: int,
    take: TakeRows,
    *,
    interactions: bool,
    n_threads: int | None = None,
) -> NDArray[np.float64]:
    """SHAP values of rows, or their interactions.

    Returns
    -------
    float64 array of shape (n_samples, n_groups, n_features + 1 [, n_features + 1])
        The last column is the expected score. Rows add up to the scores, and rows of interactions to the
        SHAP values.
    """
    arrays, deepest = _paths(trees)
    routing = (
        trees.feature, trees.threshold, trees.default_left, trees.category_start, trees.categories,
    )  # fmt: skip
    size = n_features + 1
    values = np.zeros((n_samples, trees.n_groups, size))
    values[:, :, -1] = trees.base_score
    pairs = np.zeros((n_samples if interactions else 0, trees.n_groups, size, size))

    def work(start: int) -> None:
        block = slice(start, min(start + _BLOCK, n_samples))
        rows = take(block)
        add_shap(rows, *arrays, deepest, routing, values[block])
        if interactions:
            add_interactions(rows, *arrays, deepest, routing, pairs[block])

    with ThreadPoolExecutor(n_threads or usable_cores()) as pool:
        list(pool.map(work, range(0, n_samples, _BLOCK)))
    if not interactions:
        return values
    diagonal = np.arange(size)
    pairs[:, :, diagonal, diagonal] = values - pairs.sum(axis=3)
    return pairs


def _paths(trees: ExplainedTrees) -> tuple[tuple[NDArray[Any], ...], int]:
    """The ways to all leaves, as the kernels take them, and how long the longest is."""
    n_trees = len(trees.tree_group)
    n_leaves, n_steps, deepest = count_paths(trees.tree_start, 0, n_trees, trees.left, trees.right)
    leaf_node, leaf_tree = np.zeros(n_leaves, dtype=np.int64), np.zeros(n_leaves, dtype=np.int64)
    ways = (
        np.zeros(n_leaves + 1, dtype=np.int64),
        np.zeros(n_steps, dtype=np.int64),
        np.zeros(n_steps, dtype=np.bool_),
        np.zeros(n_steps, dtype=np.int64),
        np.zeros(n_leaves + 1, dtype=np.int64),
        np.zeros(n_steps + 1, dtype=np.int64),
        np.zeros(n_steps + 1),
    )
    find_paths(
        trees.tree_start, 0, n_trees, trees.left, trees.right, trees.feature, trees.cover, deepest,
        leaf_node, leaf_tree, *ways,
    )  # fmt: skip
    return (trees.tree_group[leaf_tree], trees.value[leaf_node], *ways), int(deepest)


def shap_values(
    ensemble: TreeEnsemble,
    X: Any,
    first_tree: int = 0,
    last_tree: int | None = None,
    n_threads: int | None = None,
) -> NDArray[np.float32]:
    """SHAP values of the trees ``first_tree:last_tree``.

    Parameters
    ----------
    ensemble : TreeEnsemble
    X : array or sparse matrix of shape (n_samples, n_features)
    first_tree, last_tree : int, optional
    n_threads : int, optional

    Returns
    -------
    float32 array of shape (n_samples, n_groups, n_features + 1)
        The last column is the expected margin. A row adds up to its margin.

    References
    ----------
    S. Lundberg et al., "From local explanations to global understanding with explainable AI for trees",
    Nature Machine Intelligence 2 (2020), algorithm 2; R. Mitchell et al., "GPUTreeShap", PeerJ CS 8 (2022).

    Examples
    --------
    >>> stump = TreeEnsemble(
    ...     2, 1, base_score=[0.5], tree_start=[0, 3], tree_group=[0], tree_weight=[1.0],
    ...     left=[1, -1, -1], right=[2, -1, -1], feature=[1, 0, 0], threshold=[2.0, 0, 0],
    ...     default_left=[True, False, False], value=[0.0, -1.0, 1.0], gain=[3.0, 0, 0], cover=[4.0, 1, 3])
    >>> shap_values(stump, np.array([[0.0, 3.0]], dtype=np.float32)).tolist()
    [[[0.0, 0.5, 1.0]]]
    """
    return _explain(ensemble, X, first_tree, last_tree, n_threads, interactions=False)


def shap_interactions(
    ensemble: TreeEnsemble,
    X: Any,
    first_tree: int = 0,
    last_tree: int | None = None,
    n_threads: int | None = None,
) -> NDArray[np.float32]:
    """SHAP values parted among pairs of features; the parameters are those of `shap_values`.

    Returns
    -------
    float32 array of shape (n_samples, n_groups, n_features + 1, n_features + 1)
        Symmetric; rows (and columns) add up to the SHAP values.
    """
    return _explain(ensemble, X, first_tree, last_tree, n_threads, interactions=True)


def _explain(
    ensemble: TreeEnsemble,
    X: Any,
    first_tree: int,
    last_tree: int | None,
    n_threads: int | None,
    *,
    interactions: bool,
) -> NDArray[np.float32]:
    e = ensemble
    if X.shape[1] != e.n_features:
        raise ValueError(f"X has {X.shape[1]} features, but the trees were made for {e.n_features}")
    if (first_tree, last_tree) != (0, None):
        e = e.trees(first_tree, e.n_trees if last_tree is None else last_tree)
    weight = np.repeat(e.tree_weight.astype(np.float64), np.diff(e.tree_start))
    trees = ExplainedTrees(
        e.n_groups,
        e.base_score,
        e.tree_start,
        e.tree_group.astype(np.int64),
        e.left,
        e.right,
        e.feature,
        e.threshold,
        e.default_left,
        (e.value.astype(np.float64) * weight)[:, None],
        e.cover.astype(np.float64),
        e.category_start,
        e.categories,
    )
    found = explain(
        trees,
        X.shape[0],
        e.n_features,
        lambda rows: dense_rows(X, rows, e.zero_is_missing),
        interactions=interactions,
        n_threads=n_threads,
    )
    return found.astype(np.float32)
