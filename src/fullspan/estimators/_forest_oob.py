"""Out-of-bag rows of a forest: each tree's own test set."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.base import is_classifier
from sklearn.utils import Bunch, check_random_state
from sklearn.utils.multiclass import type_of_target

from fullspan.estimators._bootstrap import rows_left_out
from fullspan.estimators._forest_prediction import add_to_rows, leaves_of_rows
from fullspan.estimators.combining import LARGEST_SEED, in_order, thread_count


class OutOfBag:
    """What a forest does with the rows that a tree was not grown on."""

    estimators_: list[Any]
    n_features_in_: int
    n_outputs_: int
    n_jobs: int | None
    _n_samples: int
    _n_samples_bootstrap: int | None
    _sample_weight: NDArray[np.float64] | None

    if TYPE_CHECKING:  # the forest has these

        def _n_threads(self) -> int: ...

        def _validate_X_predict(self, X: Any) -> Any: ...

        def _codes(self, y: NDArray[Any]) -> NDArray[Any]: ...

        @staticmethod
        def _loss(values: NDArray[np.float64], y: NDArray[Any]) -> float: ...

    def _require_scorable(self, y: NDArray[np.float64]) -> None:
        kind = type_of_target(y)
        if kind == "unknown" or (is_classifier(self) and kind == "multiclass-multioutput"):
            raise ValueError(
                "The type of target cannot be used to compute OOB estimates. "
                f"Got {kind} while only the following are supported: continuous, continuous-multioutput, "
                "binary, multiclass, multilabel-indicator."
            )

    def _oob_means(self, X: Any) -> NDArray[np.float64]:
        """Mean of the values that trees predict for rows they were not grown on.

        Rows that every tree was grown on get zeros, and a warning.

        Returns
        -------
        float64 array of shape (n_samples, n_outputs, max_n_classes)
        """
        X = X.tocsr() if sp.issparse(X) else np.ascontiguousarray(X)
        value = self.estimators_[0].tree_.value
        totals = np.zeros((self._n_samples, value[0].size))
        n_trees = np.zeros(self._n_samples, np.int64)
        for tree in self.estimators_:
            left_out = self._left_out(tree)
            add_to_rows(tree.tree_, X, left_out, totals, self._n_threads())
            n_trees[left_out] += 1
        if (n_trees == 0).any():
            warnings.warn(
                "Some inputs do not have OOB scores. This probably means too few trees were used to compute "
                "any reliable OOB estimates.",
                stacklevel=4,
            )
        totals /= np.maximum(n_trees, 1)[:, None]
        return totals.reshape(-1, *value.shape[1:])

    def _left_out(self, tree: Any) -> NDArray[np.int64]:
        assert self._n_samples_bootstrap is not None
        return rows_left_out(
            tree.random_state, self._n_samples, self._n_samples_bootstrap, self._sample_weight
        )

    def oob_permutation_importance(self, X: Any, y: Any, random_state: Any = None) -> Bunch:
        """How much worse trees predict the rows they were not grown on once a feature is shuffled.

        The accuracy lost by a classifier's tree, the mean squared error gained by a regressor's; Breiman
        (2001), section 10.

        Parameters
        ----------
        X, y : array-like
            What the forest was fitted to.
        random_state : int, RandomState instance or None
            Of the shuffling.

        Returns
        -------
        Bunch
            ``importances``: float64 array of shape (n_features, n_estimators); ``importances_mean`` and
            ``importances_std``: over the trees.

        Raises
        ------
        ValueError
            If the forest has no out-of-bag rows, has several outputs, or X has another number of rows.
        """
        X = self._validate_X_predict(X)
        if self._n_samples_bootstrap is None or self.n_outputs_ > 1:
            raise ValueError("Out of bag importances need bootstrap=True and one output")
        if X.shape[0] != self._n_samples:
            raise ValueError(f"X has {X.shape[0]} rows, but the forest was fitted to {self._n_samples}")
        codes = self._codes(np.asarray(y).ravel())
        seeds = check_random_state(random_state).randint(LARGEST_SEED, size=len(self.estimators_))
        X = X.tocsr() if sp.issparse(X) else X
        calls = [
            (self._losses_of_shuffling, (tree, X, codes, seed))
            for tree, seed in zip(self.estimators_, seeds, strict=True)
        ]
        losses = np.array(list(in_order(calls, thread_count(self.n_jobs, self.estimators_)))).T
        return Bunch(
            importances=losses, importances_mean=losses.mean(axis=1), importances_std=losses.std(axis=1)
        )

    def _losses_of_shuffling(self, tree: Any, X: Any, y: NDArray[Any], seed: int) -> NDArray[np.float64]:
        left_out = self._left_out(tree)
        losses = np.zeros(self.n_features_in_)
        if len(left_out) == 0:
            return losses
        rows = X[left_out].toarray() if sp.issparse(X) else X[left_out]
        every, y = np.arange(len(left_out)), y[left_out]
        value, generator = tree.tree_.value[:, 0], np.random.default_rng(seed)
        before = self._loss(value[leaves_of_rows(tree.tree_, rows, every)], y)
        for feature in np.unique(tree.tree_.feature[tree.tree_.feature >= 0]):
            kept = rows[:, feature].copy()
            rows[:, feature] = generator.permutation(kept)
            losses[feature] = self._loss(value[leaves_of_rows(tree.tree_, rows, every)], y) - before
            rows[:, feature] = kept
        return losses
