"""Columns of categories as codes: numbers or strings, of arrays and data frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.utils.validation import _check_categorical_features

from fullspan.estimators.saving import Saveable

MOST_CATEGORIES = 254


class CategoryEncoder(Saveable):
    """Which columns hold categories, and the code of each.

    Parameters
    ----------
    categories : list of (array or None)
        Of each column: the values by their codes, ascending; None where it holds numbers.

    Examples
    --------
    >>> encoder = CategoryEncoder.fit([["b", 1.5], ["a", 2.5]], [0])
    >>> encoder.transform([["a", 0.5], ["c", 1.0]])
    array([[0. , 0.5],
           [nan, 1. ]], dtype=float32)
    """

    def __init__(self, categories: list[NDArray[Any] | None]) -> None:
        self.categories = categories

    @property
    def n_categories(self) -> NDArray[np.int64]:
        """How many codes each column has; 0 where it holds numbers."""
        return np.array([0 if values is None else len(values) for values in self.categories], np.int64)

    @classmethod
    def fit(cls, X: Any, categorical_features: Any) -> CategoryEncoder | None:
        """Find the categories of the columns that `categorical_features` names.

        Parameters
        ----------
        X : array-like or data frame of shape (n_samples, n_features)
        categorical_features : array-like of bool, int or str, "from_dtype" or None
            As scikit-learn's histogram boosting takes it.

        Returns
        -------
        CategoryEncoder or None
            None if no column holds categories.

        Raises
        ------
        ValueError
            If `categorical_features` does not fit X, X is sparse, or a column has too many categories; the
            message names the column.
        """
        if categorical_features is None:
            return None
        if not hasattr(X, "shape"):
            X = np.asarray(X, dtype=object)
        mask = _check_categorical_features(X, categorical_features)
        if mask is None:
            return None
        if sp.issparse(X):
            raise ValueError("categorical_features needs a dense X, got a sparse matrix")
        categories: list[NDArray[Any] | None] = []
        names = list(getattr(X, "columns", range(X.shape[1])))
        for column, (name, categorical) in enumerate(zip(names, mask, strict=True)):
            categories.append(_categories(_column(X, column), name) if categorical else None)
        return cls(categories)

    def transform(self, X: Any) -> NDArray[np.float32]:
        """X with codes for categories; NaN for what is missing or unknown.

        Raises
        ------
        ValueError
            If X has another number of columns, or a column of numbers holds something else.
        """
        if not hasattr(X, "shape"):
            X = np.asarray(X, dtype=object)
        if X.ndim != 2 if hasattr(X, "ndim") else len(X.shape) != 2:
            raise ValueError(f"Expected 2D array, got {len(X.shape)}D array instead")
        if X.shape[1] != len(self.categories):
            raise ValueError(f"X has {X.shape[1]} features, but {len(self.categories)} are expected")
        encoded = np.empty(X.shape, np.float32)
        for column, categories in enumerate(self.categories):
            values = _column(X, column)
            encoded[:, column] = values if categories is None else _codes(values, categories)
        return encoded


def _column(X: Any, column: int) -> NDArray[Any]:
    values = np.asarray(X[X.columns[column]] if hasattr(X, "columns") else X[:, column])
    if values.dtype.kind in "OUS":
        try:
            return values.astype(np.float64)  # numbers in a table of mixed types
        except (TypeError, ValueError):
            return values
    return values


def _categories(values: NDArray[Any], name: Any) -> NDArray[Any]:
    found = np.unique(values[~_missing(values)].astype(str) if values.dtype.kind in "OUS" else values)
    if found.dtype.kind == "f":
        found = found[~np.isnan(found)]
    if len(found) > MOST_CATEGORIES:
        where = repr(name) if isinstance(name, str) else f"at index {name}"
        raise ValueError(
            f"Categorical feature {where} is expected to have a cardinality <= {MOST_CATEGORIES} but "
            f"actually has a cardinality of {len(found)}."
        )
    return found


def _codes(values: NDArray[Any], categories: NDArray[Any]) -> NDArray[np.float32]:
    codes = np.full(len(values), np.nan, np.float32)
    there = ~_missing(values)
    known = values[there].astype(categories.dtype if categories.dtype.kind != "U" else str)
    if len(categories) and len(known):
        place = np.minimum(np.searchsorted(categories, known), len(categories) - 1)
        codes[there] = np.where(categories[place] == known, place, np.nan)
    return codes


def _missing(values: NDArray[Any]) -> NDArray[np.bool_]:
    if values.dtype.kind == "f":
        return np.asarray(np.isnan(values))
    if values.dtype.kind != "O":
        return np.zeros(len(values), dtype=bool)
    return np.array([value is None or value is _pandas_na() or value != value for value in values], bool)


def _pandas_na() -> Any:
    import sys

    pandas = sys.modules.get("pandas")
    return None if pandas is None else pandas.NA
