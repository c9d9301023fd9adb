"""Tables and matrices as the float32 that boosting works on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.utils.validation import validate_data


def is_frame(X: Any) -> bool:
    """Whether X is a pandas DataFrame; pandas itself is not imported."""
    return hasattr(X, "dtypes") and hasattr(X, "columns") and hasattr(X, "iloc")


def features_of(
    estimator: Any, X: Any, *, reset: bool, missing: float, enable_categorical: bool
) -> NDArray[np.float32] | sp.csr_matrix:
    """X as float32 with NaN for missing values, categories as codes.

    Parameters
    ----------
    estimator : estimator
        With `reset`, its `n_features_in_`, `feature_names_in_` and `_categories` (a dict from column to the
        values that its codes stand for) are set; without, X is held against them.

    Raises
    ------
    ValueError
        If X has categories that are not enabled or were not in the training data, or infinite values.
    """
    if is_frame(X):
        X = _without_categories(estimator, X, reset, enable_categorical)
    elif reset:
        estimator._categories = {}
    allowed: bool | str = False if np.isinf(missing) else "allow-nan"
    out = validate_data(
        estimator, X, reset=reset, accept_sparse="csr", dtype=np.float32, ensure_all_finite=allowed
    )
    if np.isnan(missing):
        return out
    values = out.data if sp.issparse(out) else out
    # A copy: validate_data may have handed the caller's own array through.
    marked = np.where(values == np.float32(missing), np.float32(np.nan), values)
    if np.isinf(marked).any():
        raise ValueError("Input X contains infinity other than `missing`")
    if sp.issparse(out):
        return sp.csr_matrix((marked, out.indices, out.indptr), shape=out.shape)
    return marked


def _without_categories(estimator: Any, X: Any, reset: bool, enabled: bool) -> Any:
    """The frame with codes in place of categories; NaN where a category is missing."""
    named = {
        index: X.dtypes.iloc[index]
        for index in range(X.shape[1])
        if hasattr(X.dtypes.iloc[index], "categories")
    }
    if named and not enabled:
        names = ", ".join(str(X.columns[index]) for index in named)
        raise ValueError(
            "DataFrame.dtypes for data must be int, float, bool or category. When categorical type is "
            f"supplied, `enable_categorical` must be set to `True`. Invalid columns: {names}"
        )
    if reset:
        estimator._categories = {
            index: np.asarray(kind.categories.to_numpy()) for index, kind in named.items()
        }
    known: dict[int, NDArray[Any]] = getattr(estimator, "_categories", {})
    if not known:
        return X
    columns = {name: X.iloc[:, index] for index, name in enumerate(X.columns)}
    for index, categories in known.items():
        if index < X.shape[1]:
            name = X.columns[index]
            columns[name] = _codes(columns[name], categories, name)
    return type(X)(columns, index=X.index)


def _codes(column: Any, categories: NDArray[Any], name: Any) -> NDArray[np.float32]:
    code = {value: float(number) for number, value in enumerate(categories.tolist())}
    values = column.to_numpy(dtype=object)
    absent = column.isna().to_numpy()
    unknown = [v for v, gone in zip(values, absent, strict=True) if not gone and v not in code]
    if unknown:
        raise ValueError(
            f"column {name!r} holds the category {unknown[0]!r}, which was not in the training data"
        )
    return np.array(
        [np.nan if gone else code[v] for v, gone in zip(values, absent, strict=True)], dtype=np.float32
    )


def categorical_mask(
    estimator: Any, X: Any, feature_types: Sequence[str] | None, enable_categorical: bool
) -> NDArray[np.bool_]:
    """Which columns hold categories: those of the frame, and those of type "c".

    Raises
    ------
    ValueError
        If the types do not fit the columns, categories are not enabled, or a column holds no codes.
    """
    mask = np.zeros(X.shape[1], dtype=bool)
    mask[list(estimator._categories)] = True
    if feature_types is not None:
        types = list(feature_types)
        if len(types) != X.shape[1]:
            raise ValueError(f"feature_types has {len(types)} entries, X has {X.shape[1]} columns")
        unknown = [t for t in types if t not in ("c", "q", "i", "int", "float")]
        if unknown:
            raise ValueError(f"feature_types holds {unknown[0]!r}, expected 'c', 'q', 'i', 'int' or 'float'")
        mask |= np.array([t == "c" for t in types], dtype=bool)
    if mask.any() and not enable_categorical:
        raise ValueError("feature_types names categories: `enable_categorical` must be set to `True`")
    dense = X.tocsc() if sp.issparse(X) else X
    for index in np.flatnonzero(mask):
        values = dense[:, index].data if sp.issparse(dense) else dense[:, index]
        present = values[~np.isnan(values)]
        if np.any((present < 0) | (present != np.floor(present))):
            raise ValueError(f"column {index} is categorical: expected codes, whole numbers from 0")
    return mask
