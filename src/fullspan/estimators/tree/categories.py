"""Categorical columns as numbers: which columns they are, and the code of each category."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from fullspan.estimators.saving import Saveable


class CategoryEncoder(Saveable):
    """Turns a table into float32, categories into 0, 1, 2, ... in their order; NaN if missing or unknown.

    Parameters
    ----------
    categorical_features : array-like of bool, int or str, or "from_dtype"
        A mask, indices or names of columns; or those whose pandas dtype is "category".

    Attributes
    ----------
    categories : list of (array or None) of length n_features
        The categories of each column in the order of their codes; None for numeric columns.

    Examples
    --------
    >>> encoder = CategoryEncoder([0]).fit([["red", 1.0], ["blue", 2.0]])
    >>> encoder.transform([["blue", 3.0], ["green", 4.0]])
    array([[ 0.,  3.],
           [nan,  4.]], dtype=float32)
    """

    def __init__(self, categorical_features: Any) -> None:
        self.categorical_features = categorical_features
        self.categories: list[NDArray[Any] | None] = []

    def fit(self, X: Any) -> CategoryEncoder:
        """Learn the categories of the table's columns.

        Raises
        ------
        ValueError
            If the columns meant cannot be found, or X is sparse.
        """
        if sp.issparse(X):
            raise ValueError("Categorical features are not supported in sparse input.")
        columns = _columns(X)
        chosen = self._chosen(X, len(columns))
        self.categories = [
            _categories_of(column) if categorical else None
            for column, categorical in zip(columns, chosen, strict=True)
        ]
        return self

    def transform(self, X: Any) -> Any:
        """The table with codes; a pandas table stays one, so that its columns keep their names.

        Returns
        -------
        float32 array (or DataFrame) of shape (n_samples, n_features)
            X itself if it has another number of columns than in `fit`.
        """
        columns = _columns(X)
        if len(columns) != len(self.categories):
            return X
        coded = np.empty((len(columns[0]) if columns else 0, len(columns)), np.float32)
        for j, column in enumerate(columns):
            coded[:, j] = self.codes(j, column)
        if hasattr(X, "columns") and hasattr(X, "iloc"):
            return type(X)(coded, columns=X.columns, index=X.index)
        return coded

    def codes(self, feature: int, column: Any) -> NDArray[np.float32]:
        """A column as it stands in what `transform` returns: float32 of shape (n_samples,)."""
        categories = self.categories[feature]
        return np.asarray(column, np.float32) if categories is None else _codes(column, categories)

    def n_categories(self) -> NDArray[np.int64]:
        """How many codes each column has; 0 for numeric ones."""
        return np.array([0 if c is None else len(c) for c in self.categories], np.int64)

    def _chosen(self, X: Any, n_features: int) -> NDArray[np.bool_]:
        meant: Any = self.categorical_features
        if isinstance(meant, str):  # "from_dtype"
            if not hasattr(X, "dtypes"):
                return np.zeros(n_features, np.bool_)
            return np.array([str(dtype) == "category" for dtype in X.dtypes], np.bool_)
        meant = np.asarray(meant)
        chosen = np.zeros(n_features, np.bool_)
        if meant.size == 0:
            return chosen
        if meant.dtype.kind == "b":
            if meant.shape != (n_features,):
                raise ValueError(
                    "categorical_features set as a boolean mask must have shape (n_features,), "
                    f"got: {meant.shape}"
                )
            chosen[meant] = True
            return chosen
        if meant.dtype.kind in "iu":
            if meant.min() < 0 or meant.max() >= n_features:
                raise ValueError("categorical_features set as integer indices must be in [0, n_features - 1]")
            chosen[meant] = True
            return chosen
        if meant.dtype.kind not in "UO" or not all(isinstance(name, str) for name in meant):
            raise ValueError(
                f"categorical_features must be an array-like of bool, int or str, got: {meant.dtype.name}."
            )
        if not hasattr(X, "columns"):
            raise ValueError(
                "categorical_features should be passed as an array of integers or as a boolean mask when the "
                "model is fitted on data without feature names."
            )
        names = list(X.columns)
        for name in meant:
            if name not in names:
                raise ValueError(
                    f"categorical_features has an item value '{name}' which is not a valid feature name of "
                    f"the training data. Observed feature names: {names}"
                )
            chosen[names.index(name)] = True
        return chosen


def _columns(X: Any) -> list[Any]:
    if hasattr(X, "columns") and hasattr(X, "iloc"):
        return [X.iloc[:, j] for j in range(X.shape[1])]
    table = np.asarray(X) if hasattr(X, "dtype") else np.asarray(X, dtype=object)
    if table.ndim != 2:
        raise ValueError(f"Expected 2D array, got {table.ndim}D array instead")
    return list(table.T)


def _is_missing(values: NDArray[Any]) -> NDArray[np.bool_]:
    if values.dtype.kind == "f":
        missing: NDArray[np.bool_] = np.isnan(values)
        return missing
    if values.dtype != object:
        return np.zeros(len(values), np.bool_)
    return np.array([value is None or not _equals_itself(value) for value in values], np.bool_)


def _equals_itself(value: Any) -> bool:
    """False for NaN and for pandas' NaT and NA, the last of which has no truth."""
    try:
        return bool(value == value)
    except TypeError:
        return False


def _categories_of(column: Any) -> NDArray[Any]:
    if str(getattr(column, "dtype", "")) == "category":
        return np.asarray(column.cat.categories)
    values = np.asarray(column)
    return np.unique(values[~_is_missing(values)])


def _codes(column: Any, categories: NDArray[Any]) -> NDArray[np.float32]:
    values = np.asarray(column)
    known = {category: code for code, category in enumerate(categories.tolist())}
    missing = _is_missing(values)
    codes = [
        np.nan if gone else known.get(v, np.nan) for v, gone in zip(values.tolist(), missing, strict=True)
    ]
    return np.array(codes, np.float32)
