"""Rows that many trees are fitted to, each with weights of its own."""

from __future__ import annotations

import functools
from typing import Any, Self

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.base import clone

from fullspan.estimators.tree._records import Columns
from fullspan.estimators.tree.base import BaseDecisionTree
from fullspan.estimators.tree.cart import DecisionTreeClassifier, DecisionTreeRegressor
from fullspan.estimators.tree.growing import columns_of


class SharedRows:
    """Rows that are checked, laid out and sorted once for all trees that are fitted to them.

    Parameters
    ----------
    X : float32 array or csc matrix of shape (n_samples, n_features)
    y : array of shape (n_samples,) or (n_samples, n_outputs)
    presorted : bool
        Whether to sort the columns.
    """

    def __init__(self, X: Any, y: NDArray[Any], presorted: bool) -> None:
        self.X, self.y = X, y
        self.columns = columns_of(X, presorted=presorted)

    @functools.cached_property
    def rows(self) -> Any:
        """X as the trees' `predict` takes it without a further look."""
        return self.X.tocsr() if sp.issparse(self.X) else np.ascontiguousarray(self.X)

    @classmethod
    def ready_for(cls, estimator: Any, X: Any, y: Any, n_features: int | None = None) -> Self | None:
        """Rows for copies of `estimator`, or None if it is no tree or looks at X itself, for categories.

        Parameters
        ----------
        n_features : int, optional
            How many features each copy is given; all by default.

        Raises
        ------
        ValueError
            As the estimator's `fit` does.
        """
        kinds = (DecisionTreeClassifier, DecisionTreeRegressor)
        if type(estimator) not in kinds or estimator.categorical_features is not None:
            return None
        tree = clone(estimator)
        tree._validate_params()
        X, y = tree._validate_fit(X, y)
        return cls(X, y, tree._sorts_columns(n_features or X.shape[1]))

    def fit(
        self,
        tree: BaseDecisionTree,
        weight: NDArray[Any],
        features: NDArray[np.int64] | None = None,
    ) -> None:
        """Give an unfitted copy what its own `fit` would, with some of the features, or all."""
        if features is None:
            tree._fit_checked(self.X, self.y, weight, self.columns)
        elif sp.issparse(self.X):
            tree._fit_checked(self.X[:, features], self.y, weight)
        else:
            columns = self._some(features)
            tree._fit_checked(columns.values.T, self.y, weight, columns)

    def _some(self, features: NDArray[np.int64]) -> Columns:
        all_ = self.columns
        return all_._replace(
            values=all_.values[features],
            packed=all_.packed[features] if all_.packed.size else all_.packed,
            has_missing=all_.has_missing[features],
            n_categories=all_.n_categories[features],
        )
