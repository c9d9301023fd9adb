"""TreeSHAP: what each feature, and each pair of features, adds to the margins of an ensemble.

The values are those of path-dependent TreeSHAP (features left out follow the covers of the training data), as
are XGBoost's `pred_contribs` and `pred_interactions`.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

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
    last_tree = ensemble.n_trees if last_tree is None else last_tree
    paths = _Paths(ensemble, first_tree, last_tree)
    out = np.zeros((X.shape[0], ensemble.n_groups, ensemble.n_features + 1))
    out[:, :, -1] = ensemble.base_score

    def add(rows: NDArray[np.float32], part: NDArray[np.float64]) -> None:
        add_shap(rows, *paths.arrays, paths.deepest, paths.routing, part)

    _in_blocks(ensemble, X, out, add, n_threads)
    return out.astype(np.float32)


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
    last_tree = ensemble.n_trees if last_tree is None else last_tree
    paths = _Paths(ensemble, first_tree, last_tree)
    size = ensemble.n_features + 1
    out = np.zeros((X.shape[0], ensemble.n_groups, size, size))

    def add(rows: NDArray[np.float32], part: NDArray[np.float64]) -> None:
        add_interactions(rows, *paths.arrays, paths.deepest, paths.routing, part)

    _in_blocks(ensemble, X, out, add, n_threads)
    values = shap_values(ensemble, X, first_tree, last_tree, n_threads).astype(np.float64)
    diagonal = np.arange(size)
    out[:, :, diagonal, diagonal] = values - out.sum(axis=3)
    return out.astype(np.float32)


class _Paths:
    """The ways to all leaves, as the kernels take them."""

    def __init__(self, ensemble: TreeEnsemble, first_tree: int, last_tree: int) -> None:
        e = ensemble
        n_leaves, n_steps, self.deepest = count_paths(e.tree_start, first_tree, last_tree, e.left, e.right)
        self.arrays = (
            np.zeros(n_leaves, dtype=np.int64),
            np.zeros(n_leaves),
            np.zeros(n_leaves + 1, dtype=np.int64),
            np.zeros(n_steps, dtype=np.int64),
            np.zeros(n_steps, dtype=np.bool_),
            np.zeros(n_steps, dtype=np.int64),
            np.zeros(n_leaves + 1, dtype=np.int64),
            np.zeros(n_steps + 1, dtype=np.int64),
            np.zeros(n_steps + 1),
        )
        find_paths(
            e.tree_start, e.tree_group, e.tree_weight, first_tree, last_tree, e.left, e.right, e.feature,
            e.value, e.cover, self.deepest, *self.arrays,
        )  # fmt: skip
        self.routing = (
            e.feature, e.threshold, e.default_left, e.category_start, e.categories,
        )  # fmt: skip


def _in_blocks(
    ensemble: TreeEnsemble,
    X: Any,
    out: NDArray[np.float64],
    add: Callable[[NDArray[np.float32], NDArray[np.float64]], None],
    n_threads: int | None,
) -> None:
    def work(start: int) -> None:
        rows = slice(start, min(start + _BLOCK, X.shape[0]))
        add(dense_rows(X, rows, ensemble.zero_is_missing), out[rows])

    if X.shape[1] != ensemble.n_features:
        raise ValueError(f"X has {X.shape[1]} features, but the trees were made for {ensemble.n_features}")
    with ThreadPoolExecutor(n_threads or usable_cores()) as pool:
        list(pool.map(work, range(0, X.shape[0], _BLOCK)))
