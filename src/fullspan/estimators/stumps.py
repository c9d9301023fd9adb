"""Trees of one split for two classes, fitted again and again to the same rows with other weights."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import numpy as np
from scipy import sparse

from fullspan.core.threads import Crew, new_barrier
from fullspan.estimators._stump_kernels import best_stump, cut_column, mark_wrong
from fullspan.estimators.tree.cart import DecisionTreeClassifier
from fullspan.estimators.tree.structure import LEAF, UNDEFINED, Tree

_MOST_BINS = 1024
_WORTH_THREADS = 200_000  # values
# Sums of weights are rounded; closer than this share of the whole weight, splits count as equally good.
_MARGIN = 1e-12


class Stumps:
    """Rows made ready for stumps; use it in a ``with`` block, which holds the threads.

    Parameters
    ----------
    X : float32 array of shape (n_samples, n_features)
        Finite.
    y : array of shape (n_samples,)
        Labels of two classes.
    used : bool array of shape (n_samples,)
        Rows whose weight is not zero.
    """

    def __init__(self, X: np.ndarray, y: np.ndarray, used: np.ndarray) -> None:
        self.n_samples, self.n_features = X.shape
        self.classes, codes = np.unique(y, return_inverse=True)
        # The first class's rows come first, so that no loop has to look for the class.
        rows = np.flatnonzero(used)
        self.rows = rows[np.argsort(codes[rows], kind="stable")]
        self.n_first = int(np.count_nonzero(codes[rows] == 0))
        self.columns = np.ascontiguousarray(X[self.rows].T)
        shape = self.columns.shape
        self.orders = np.empty(shape, np.int32)
        self.codes = np.empty(shape, np.uint16)
        self.starts = np.empty((self.n_features, _MOST_BINS + 1), np.int32)
        self.n_bins = np.empty(self.n_features, np.int64)
        self.sums = np.empty((self.n_features, 2, _MOST_BINS))
        self.crew = Crew(None if self.columns.size > _WORTH_THREADS else 1)
        with ThreadPoolExecutor(self.crew.n_threads) as pool:
            list(pool.map(self._cut, range(self.n_features)))
        self.weights = np.empty(len(self.rows))
        self.qualities = np.empty((self.crew.n_threads, _MOST_BINS))
        self.best = np.empty((self.crew.n_threads, 4))
        self.place = np.empty((self.crew.n_threads, 2), np.int64)

    def _cut(self, feature: int) -> None:
        column, order = self.columns[feature], self.orders[feature]
        order[:] = np.argsort(column)
        self.n_bins[feature] = cut_column(column, order, self.codes[feature], self.starts[feature])

    @classmethod
    def ready_for(cls, estimator: Any, X: Any, y: np.ndarray, used: np.ndarray) -> Self | None:
        """Ready rows if `estimator` is a stump without further wishes and they have two classes, or None."""
        if type(estimator) is not DecisionTreeClassifier or sparse.issparse(X) or X.dtype.kind not in "fiub":
            return None
        asked = estimator.get_params()
        for name, value in DecisionTreeClassifier(max_depth=1).get_params().items():
            if name != "random_state" and not (asked[name] is value or asked[name] == value):
                return None
        if X.ndim != 2 or len(np.unique(y)) != 2 or len(np.unique(y[used])) != 2:
            return None
        with np.errstate(over="ignore"):
            X = X.astype(np.float32)
        return cls(X, y, used) if np.isfinite(X).all() else None

    def fit(self, stump: DecisionTreeClassifier, weights: np.ndarray) -> np.ndarray | None:
        """Fit the stump to all rows.

        Parameters
        ----------
        stump : DecisionTreeClassifier
            Unfitted; it is given what its own `fit` would give it.
        weights : float64 array of shape (n_samples,)

        Returns
        -------
        bool array of shape (n_samples,) or None
            Which rows the stump gets wrong, False for those without weight. None if two splits are equally
            good but for rounding: the stump is left as it was, since its own `fit` knows which comes first.
        """
        weights = np.take(weights, self.rows, out=self.weights, mode="clip")
        totals = np.array([weights[: self.n_first].sum(), weights[self.n_first :].sum()])
        margin = _MARGIN * totals.sum()
        self.crew.run(
            best_stump,
            new_barrier(self.crew.n_threads),
            self.columns,
            self.orders,
            self.codes,
            self.starts,
            self.n_bins,
            weights,
            self.n_first,
            totals,
            margin,
            self.sums,
            self.qualities,
            self.best,
            self.place,
        )
        winner = int(np.argmax(self.best[:, 0]))
        rivals = np.append(np.delete(self.best[:, 0], winner), self.best[winner, 1])
        feature, position = (int(number) for number in self.place[winner])
        if feature < 0 or rivals.max() >= self.best[winner, 0] - margin:
            return None
        left = self.best[winner, 2:]
        threshold = self._finish(stump, feature, position, np.stack([totals, left, totals - left]))
        right = totals - left
        wrong = np.zeros(self.n_samples, dtype=bool)
        mark_wrong(
            self.columns[feature],
            threshold,
            bool(left[0] >= left[1]),
            bool(right[0] >= right[1]),
            self.n_first,
            self.rows,
            wrong,
        )
        return wrong

    def _finish(
        self, stump: DecisionTreeClassifier, feature: int, position: int, weights: np.ndarray
    ) -> float:
        """Give the stump its attributes; `weights` are the classes' in the root, left and right."""
        column, order = self.columns[feature], self.orders[feature]
        threshold = float(column[order[position - 1]]) / 2 + float(column[order[position]]) / 2
        n, sums = len(order), weights.sum(axis=1)
        shares = weights / sums[:, None]
        stump.n_features_in_ = stump.max_features_ = self.n_features
        stump.n_outputs_ = 1
        stump.classes_, stump.n_classes_ = self.classes, np.int64(2)
        stump.tree_ = Tree(
            self.n_features,
            np.array([2]),
            np.array([1, LEAF, LEAF]),
            np.array([2, LEAF, LEAF]),
            np.array([feature, UNDEFINED, UNDEFINED]),
            np.array([threshold, UNDEFINED, UNDEFINED]),
            1.0 - (shares**2).sum(axis=1),
            np.array([n, position, n - position]),
            sums,
            shares[:, None, :],
            np.array([2 * position > n, False, False]),
        )
        return threshold

    def __enter__(self) -> Self:
        self.crew.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.crew.close()
