"""Contributions along the path of each row: a quick stand-in for SHAP values, XGBoost's `approx_contribs`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullspan.estimators.boosting.ensemble import TreeEnsemble


def path_contributions(
    ensemble: TreeEnsemble, X: Any, first_tree: int, last_tree: int, n_threads: int | None = None
) -> NDArray[np.float32]:
    """What each split on a row's path changes of the expected margin.

    Returns
    -------
    float32 array of shape (n_samples, n_groups, n_features + 1)
        The last column is the expected margin. A row adds up to its margin.

    References
    ----------
    A. Saabas, "Interpreting random forests", 2014.

    Examples
    --------
    >>> stump = TreeEnsemble(
    ...     2, 1, base_score=[0.5], tree_start=[0, 3], tree_group=[0], tree_weight=[1.0],
    ...     left=[1, -1, -1], right=[2, -1, -1], feature=[1, 0, 0], threshold=[2.0, 0, 0],
    ...     default_left=[True, False, False], value=[0.0, -1.0, 1.0], gain=[3.0, 0, 0], cover=[4.0, 1, 3])
    >>> path_contributions(stump, np.array([[0.0, 3.0]], dtype=np.float32), 0, 1).tolist()
    [[[0.0, 0.5, 1.0]]]
    """
    leaves = ensemble.leaves(X, first_tree, last_tree, n_threads)
    out = np.zeros((X.shape[0], ensemble.n_groups, ensemble.n_features + 1))
    out[:, :, -1] = ensemble.base_score
    for place, tree in enumerate(range(first_tree, last_tree)):
        table = _by_node(ensemble, tree) * float(ensemble.tree_weight[tree])
        out[:, ensemble.tree_group[tree]] += table[leaves[:, place]]
    return out.astype(np.float32)


def _by_node(ensemble: TreeEnsemble, tree: int) -> NDArray[np.float64]:
    """Contributions of the splits above each node of a tree [n_nodes, n_features + 1]."""
    part = slice(int(ensemble.tree_start[tree]), int(ensemble.tree_start[tree + 1]))
    left, right = ensemble.left[part], ensemble.right[part]
    order, waiting = [], [0]
    while waiting:
        node = waiting.pop()
        order.append(node)
        if left[node] >= 0:
            waiting += [int(left[node]), int(right[node])]
    mean = ensemble.value[part].astype(np.float64)
    cover = ensemble.cover[part].astype(np.float64)
    for node in reversed(order):
        if left[node] >= 0:
            below = [int(left[node]), int(right[node])]
            mean[node] = np.average(mean[below], weights=cover[below] if cover[below].sum() > 0 else None)
    table = np.zeros((len(left), ensemble.n_features + 1))
    table[0, -1] = mean[0]
    for node in order:
        if left[node] >= 0:
            for child in (int(left[node]), int(right[node])):
                table[child] = table[node]
                table[child, ensemble.feature[part][node]] += mean[child] - mean[node]
    return table
