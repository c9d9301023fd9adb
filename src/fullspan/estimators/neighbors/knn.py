"""Classifiers and regressors that look at the nearest rows, with scikit-learn's interface."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import sklearn.neighbors
from scipy.sparse import issparse
from sklearn.neighbors._base import NeighborsBase

from fullspan.estimators.neighbors.kd_tree import KDTree
from fullspan.estimators.saving import Saveable

# Metrics that our tree knows, as Minkowski norms; of None, the parameter p says which.
_NORMS: dict[str, float | None] = {
    "minkowski": None,
    "p": None,
    "euclidean": 2.0,
    "l2": 2.0,
    "manhattan": 1.0,
    "cityblock": 1.0,
    "l1": 1.0,
    "chebyshev": np.inf,
    "infinity": np.inf,
}
_MOST_FEATURES = (
    15  # of more, most leaves would be looked at: comparing all rows by matrix products is faster
)


class _RowTree(Saveable):
    """A tree of rows, asked as scikit-learn asks its own."""

    def __init__(self, rows: np.ndarray, leaf_size: int, p: float, workers: int | None) -> None:
        self.tree = KDTree(rows, leaf_size)
        self.p = p
        self.workers = workers

    def query(self, X: np.ndarray, k: int, return_distance: bool) -> Any:
        """Distances and indices of shape (n_queries, k), or only the latter."""
        distances, indices = self.tree.query(X, np.arange(1, k + 1), p=self.p, workers=self.workers)
        return (distances, indices) if return_distance else indices


class _Neighbors(Saveable):
    """What the two have in common: where scikit-learn would build its kd-tree, they build ours."""

    algorithm: str
    leaf_size: int
    metric: Any
    metric_params: dict[str, Any] | None
    n_jobs: int | None
    n_neighbors: int
    p: float
    _fit_X: Any
    _fit_method: str
    _tree: Any

    def _fit(self, X: Any, y: Any = None) -> Self:
        norm = self._norm()
        if norm is None or isinstance(
            X, (NeighborsBase, sklearn.neighbors.KDTree, sklearn.neighbors.BallTree)
        ):
            return super()._fit(X, y)  # type: ignore[misc, no-any-return]
        given = self.algorithm
        # So scikit-learn checks everything and keeps the rows, but builds no tree of its own.
        self.algorithm = given if issparse(X) else "brute"
        try:
            super()._fit(X, y)  # type: ignore[misc]
        finally:
            self.algorithm = given
        rows = self._fit_X
        few = rows.shape[1] <= _MOST_FEATURES and self.n_neighbors < rows.shape[0] // 2
        if not issparse(rows) and (given == "kd_tree" or few):
            self._fit_method = "kd_tree"
            self._tree = _RowTree(rows, self.leaf_size, norm, None if self.n_jobs is None else 1)
        return self

    def _norm(self) -> float | None:
        """The Minkowski norm, where our tree is asked for and knows the metric."""
        params = self.metric_params or {}
        if self.algorithm not in ("auto", "kd_tree") or not isinstance(self.metric, str):
            return None
        if self.metric not in _NORMS or not set(params) <= {"p"}:
            return None
        norm = _NORMS[self.metric]
        if norm is None:
            norm = params.get("p", self.p)
        return norm if norm is not None and norm >= 1 else None


class KNeighborsClassifier(_Neighbors, sklearn.neighbors.KNeighborsClassifier):  # type: ignore[misc]
    """The class that most of the nearest rows have.

    The tree is fullspan's `KDTree`; everything else is scikit-learn's. With several targets each column of
    y is one of them.

    Parameters
    ----------
    n_neighbors : int
    weights : {"uniform", "distance"} or callable
        What a neighbour's vote counts: 1, the inverse of its distance, or what the function gives for an
        array of distances.
    algorithm : {"auto", "kd_tree", "brute", "ball_tree"}
        "auto" takes the kd-tree for up to 15 features and a Minkowski norm, and compares all rows otherwise;
        "ball_tree" is scikit-learn's, for its other metrics, and cannot be saved.
    leaf_size : int
        Rows of a leaf of the tree.
    p : float
        Of the Minkowski norm: 1 sums differences, 2 is the Euclidean distance.
    metric : str or callable
        "minkowski", "euclidean", "manhattan", "chebyshev", "precomputed", or any other that scikit-learn has.
    metric_params : dict, optional
        More parameters of the metric.
    n_jobs : int, optional
        Threads that predict: every core by default.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,), or list of these
    effective_metric_ : str or callable
    effective_metric_params_ : dict
    n_features_in_, n_samples_fit_ : int
    feature_names_in_ : ndarray of shape (n_features,)
        If X has names of columns.
    outputs_2d_ : bool
        Whether y had several columns.

    Raises
    ------
    ValueError
        In `fit`, for X or y that are not finite, continuous targets, or a metric that the algorithm does not
        know; in `predict`, if there are fewer rows than neighbours.

    References
    ----------
    T. M. Cover and P. E. Hart, "Nearest Neighbor Pattern Classification", IEEE Transactions on Information
    Theory 13(1), 1967.

    Examples
    --------
    >>> from fullspan.estimators import KNeighborsClassifier
    >>> model = KNeighborsClassifier(3).fit([[0], [1], [2], [10], [11], [12]], list("aaabbb"))
    >>> print(model.predict([[1.4], [9.0]]), model.predict_proba([[6.3]]).round(2))
    ['a' 'b'] [[0.33 0.67]]
    """


class KNeighborsRegressor(_Neighbors, sklearn.neighbors.KNeighborsRegressor):  # type: ignore[misc]
    """The mean of the nearest rows' targets.

    The tree is fullspan's `KDTree`; everything else is scikit-learn's.

    Parameters
    ----------
    n_neighbors : int
    weights : {"uniform", "distance"} or callable
        What a neighbour counts in the mean: 1, the inverse of its distance, or what the function gives for an
        array of distances.
    algorithm : {"auto", "kd_tree", "brute", "ball_tree"}
        As of `KNeighborsClassifier`.
    leaf_size : int
        Rows of a leaf of the tree.
    p : float
        Of the Minkowski norm: 1 sums differences, 2 is the Euclidean distance.
    metric : str or callable
        As of `KNeighborsClassifier`.
    metric_params : dict, optional
        More parameters of the metric.
    n_jobs : int, optional
        Threads that predict: every core by default.

    Attributes
    ----------
    effective_metric_ : str or callable
    effective_metric_params_ : dict
    n_features_in_, n_samples_fit_ : int
    feature_names_in_ : ndarray of shape (n_features,)
        If X has names of columns.

    Raises
    ------
    ValueError
        In `fit`, for X or y that are not finite, or a metric that the algorithm does not know; in `predict`,
        if there are fewer rows than neighbours.

    References
    ----------
    T. M. Cover, "Estimation by the Nearest Neighbor Rule", IEEE Transactions on Information Theory 14(1),
    1968.

    Examples
    --------
    >>> from fullspan.estimators import KNeighborsRegressor
    >>> model = KNeighborsRegressor(2, weights="distance").fit([[0], [1], [2], [3]], [0, 1, 4, 9])
    >>> model.predict([[1.5], [2.0]])
    array([2.5, 4. ])
    """
