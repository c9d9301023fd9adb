"""Logistic regression of a table's columns as they come: of unlike scale, with categories and gaps."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from fullspan.estimators.linear.logistic import LogisticRegression
from fullspan.estimators.saving import Saveable

_MANY = 50
"""Columns from which on a matrix of mostly zeros is smaller."""


class ColumnsLogisticRegression(Saveable, ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """`LogisticRegression` after scaling numbers to unit variance and making a column of each category.

    Missing numbers become the mean, missing and unknown categories none of the known ones.

    Parameters
    ----------
    C : float
        Inverse strength of the L2 penalty.
    categorical_features : ndarray of bool of shape (n_features,), or None
        Which columns hold codes of categories, from 0.

    Attributes
    ----------
    model_ : LogisticRegression
        Of the columns that were made.
    feature_importances_ : ndarray of shape (n_features,)
        Sums of the absolute coefficients times their columns' standard deviations; they add up to 1.

    Examples
    --------
    >>> X = np.array([[0.0, 1.0], [1.0, np.nan], [0.0, 3.0], [1.0, 4.0]])
    >>> model = ColumnsLogisticRegression(categorical_features=np.array([True, False]))
    >>> model.fit(X, [0, 1, 0, 1]).predict([[1.0, 2.0]])
    array([1])
    """

    def __init__(self, C: float = 1.0, categorical_features: Any = None) -> None:
        self.C = C
        self.categorical_features = categorical_features

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to rows and their classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            NaN where a value is missing.
        y : array-like of shape (n_samples,)
        sample_weight : array-like of shape (n_samples,), optional

        Returns
        -------
        self
        """
        X = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan")
        given = self.categorical_features
        is_category = np.zeros(X.shape[1], bool) if given is None else np.asarray(given, bool)
        self._numbers, self._codes = np.flatnonzero(~is_category), np.flatnonzero(is_category)
        self._counts = [int(np.nanmax(X[:, j], initial=-1.0)) + 1 for j in self._codes]
        numbers = X[:, self._numbers]
        known = ~np.isnan(numbers)
        n_known = np.maximum(known.sum(axis=0), 1)
        self._mean = np.where(known, numbers, 0.0).sum(axis=0) / n_known
        spread = np.sqrt(np.where(known, (numbers - self._mean) ** 2, 0.0).sum(axis=0) / n_known)
        self._scale = np.where(spread > 0, spread, 1.0)
        made = self._made(X)
        self.model_ = LogisticRegression(C=self.C, max_iter=1000).fit(made, y, sample_weight)
        self.classes_ = self.model_.classes_
        square = made.multiply(made).mean(axis=0) if sparse.issparse(made) else (made**2).mean(axis=0)
        mean = np.asarray(made.mean(axis=0)).ravel()
        deviation = np.sqrt(np.maximum(np.asarray(square).ravel() - mean**2, 0.0))
        strength = np.abs(self.model_.coef_).sum(axis=0) * deviation
        origin = np.concatenate([self._numbers, np.repeat(self._codes, self._counts)]).astype(np.intp)
        importances = np.bincount(origin, strength, X.shape[1])
        self.feature_importances_ = importances / max(float(importances.sum()), np.finfo(float).tiny)
        return self

    def _made(self, X: NDArray[np.float64]) -> Any:
        """The columns that the model gets."""
        numbers = (X[:, self._numbers] - self._mean) / self._scale
        numbers[np.isnan(numbers)] = 0.0
        if not len(self._codes):
            return numbers
        blocks: list[Any] = [sparse.csr_matrix(numbers)]
        for j, count in zip(self._codes, self._counts, strict=True):
            known = np.flatnonzero((X[:, j] >= 0) & (X[:, j] < count))  # false for NaN
            places = X[known, j].astype(np.int32)
            blocks.append(sparse.csr_matrix((np.ones(len(known)), (known, places)), (len(X), count)))
        made = sparse.csr_matrix(sparse.hstack(blocks, format="csr"))
        return made if made.shape[1] >= _MANY else made.toarray()

    def predict_proba(self, X: Any) -> NDArray[Any]:
        """Probabilities of the classes, [n_samples, n_classes]."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", reset=False)
        return np.asarray(self.model_.predict_proba(self._made(X)))

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable class of each row, [n_samples]."""
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])
