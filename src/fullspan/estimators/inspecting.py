"""Partial dependence from the trees themselves: scikit-learn's method "recursion"."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullspan.estimators.tree.categories import CategoryEncoder
from fullspan.estimators.tree.structure import Tree


def stands_for(estimator: type, name: str) -> None:
    """Let `sklearn.inspection.partial_dependence` treat a class as its own of that name.

    It asks with isinstance for the classes that have the method "recursion". To import those takes longer
    than all of ours, so a class is only registered with them once the module that asks has imported them.
    """
    asking = sys.modules.get("sklearn.inspection._partial_dependence")
    theirs = getattr(asking, name, None)
    if theirs is not None and not issubclass(estimator, theirs):
        theirs.register(estimator)


def average_of_trees(
    trees: Iterable[Tree], grid: Any, features: Any, encoder: CategoryEncoder | None = None
) -> NDArray[np.float64]:
    """The sum of what trees are worth on average where only some features are known.

    Both sides of a split on another feature count, by the weight of the rows that they were fitted to.

    Parameters
    ----------
    trees : iterable of Tree
    grid : array-like of shape (n_points, n_known)
        Values of the features that are known.
    features : array-like of int of shape (n_known,)
        Which they are.
    encoder : CategoryEncoder, optional
        Has the codes of categories.

    Returns
    -------
    float64 array of shape (n_points,)

    References
    ----------
    J. Friedman, "Greedy function approximation: a gradient boosting machine", Annals of Statistics 29 (2001),
    section 8.2.
    """
    features = np.asarray(features, dtype=np.int64)
    grid = np.asarray(grid)
    if encoder is not None:
        grid = np.column_stack([encoder.codes(j, grid[:, k]) for k, j in enumerate(features)])
    known = np.ascontiguousarray(grid, dtype=np.float32)
    total = np.zeros(len(known))
    for tree in trees:
        tree.compute_partial_dependence(known, features, total)
    return total
