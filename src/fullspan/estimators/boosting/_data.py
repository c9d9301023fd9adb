"""Tables and matrices as the float32 that boosting works on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.utils.validation import check_array, validate_data

from fullspan.estimators.boosting._tables import Table, as_table, is_table, names_of, with_texts_for_names
from fullspan.estimators.boosting.ranking import RankingGroups

Array = NDArray[Any]


@dataclass
class Rows:
    """A training or evaluation set: X as from `features_of`, y float32 [n, m]."""

    X: Any
    y: Array
    weight: Array | None = None
    base_margin: Array | None = None
    groups: RankingGroups | None = None
    categorical: Array | None = None
    name: str = ""
    margin: Array = field(default_factory=lambda: np.empty((0, 0), np.float32))

    def start(self, base_score: Array) -> None:
        """Put the margins where boosting begins."""
        self.margin = np.empty((len(self.y), len(base_score)), dtype=np.float32)
        if self.base_margin is None:
            self.margin[:] = base_score
        else:
            self.margin[:] = margin_array(self.base_margin, len(self.y), len(base_score))


def features_of(
    estimator: Any,
    X: Any,
    *,
    reset: bool,
    missing: float,
    enable_categorical: bool,
    known: dict[int, NDArray[Any]] | None = None,
) -> NDArray[np.float32] | sp.csr_matrix:
    """X as float32 with NaN for missing values, categories as codes.

    Parameters
    ----------
    estimator : estimator
        With `reset`, its `n_features_in_`, `feature_names_in_`, `_columns` (names and kinds of a table's
        columns, else two times None) and `_categories` (a dict from column to the values that its codes stand
        for) are set; without, X is held against them.
    known : dict, optional
        With `reset`: what the codes of columns are to stand for, because a model does so.

    Raises
    ------
    ValueError
        If X has categories that are not enabled or were not in the training data, or infinite values.
    """
    if X is None:
        raise TypeError("X is a NoneType, expected an array, a sparse matrix or a table")
    X = as_table(X)
    if reset:
        estimator._columns, estimator._categories = (None, None), {}
    if not is_table(X):
        return _numbers(estimator, X, reset, missing)
    table = Table(X)
    named = [i for i, kind in enumerate(table.kinds) if kind == "c"]
    if named and not enable_categorical:
        names = ", ".join(table.names[i] for i in named)
        raise ValueError(
            "DataFrame.dtypes for data must be int, float, bool or category. When categorical type is "
            f"supplied, `enable_categorical` must be set to `True`. Invalid columns: {names}"
        )
    if reset:
        estimator._columns = table.names, table.kinds
        estimator._categories = {i: table.categories(i) for i in named} | (known or {})
    X = with_texts_for_names(X)
    _check_names(estimator, X, reset)
    if table.is_plain and not estimator._categories:
        return _numbers(estimator, X, reset, missing)  # all columns at once
    return _checked(table.encoded(estimator._categories), missing, fewest=int(reset))


def _check_names(estimator: Any, X: Any, reset: bool) -> None:
    try:
        validate_data(estimator, X, reset=reset, skip_check_array=True)
    except ValueError as error:
        if "feature names" not in str(error):
            raise
        known = getattr(estimator, "feature_names_in_", [])
        raise ValueError(f"{error}\nfeature_names mismatch: {list(known)} {names_of(X)}") from None


def _numbers(estimator: Any, X: Any, reset: bool, missing: float) -> NDArray[np.float32] | sp.csr_matrix:
    allowed: bool | str = False if np.isinf(missing) else "allow-nan"
    out = validate_data(
        estimator,
        X,
        reset=reset,
        accept_sparse="csr",
        dtype=np.float32,
        ensure_all_finite=allowed,
        ensure_min_samples=int(reset),
    )
    return _with_nan(out, missing)


def _checked(X: Any, missing: float, fewest: int = 0) -> Any:
    allowed: bool | str = False if np.isinf(missing) else "allow-nan"
    options = {"dtype": np.float32, "ensure_all_finite": allowed, "ensure_min_samples": fewest}
    out = check_array(X, accept_sparse="csr", input_name="X", **options)
    return _with_nan(out, missing)


def _with_nan(X: Any, missing: float) -> Any:
    """X with NaN for the number that stands for it."""
    if np.isnan(missing):
        return X
    values = X.data if sp.issparse(X) else X
    # A copy: validation may have handed the caller's own array through.
    marked = np.where(values == np.float32(missing), np.float32(np.nan), values)
    if np.isinf(marked).any():
        raise ValueError("Input X contains infinity other than `missing`")
    if sp.issparse(X):
        return sp.csr_matrix((marked, X.indices, X.indptr), shape=X.shape)
    return marked


def rows_of(X: Any, categories: dict[int, NDArray[Any]], missing: float) -> Any:
    """X as `features_of` gives it, for a model without an estimator; there may be no rows."""
    X = as_table(X)
    if is_table(X):
        return _checked(Table(X).encoded(categories), missing)
    if getattr(getattr(X, "dtype", None), "kind", "f") in "SUc":
        raise ValueError(f"X holds {X.dtype}, expected numbers")
    return _checked(X, missing)


def plain_labels(y: Any) -> Any:
    """Labels of a column's own type, or in an array of objects, as NumPy has them; integers stay such."""
    dtype = getattr(y, "dtype", None)
    if dtype is not None and not isinstance(dtype, np.dtype) and hasattr(y, "to_numpy"):
        y = y.to_numpy()
    if isinstance(y, np.ndarray) and y.dtype == object and not any(isinstance(v, str) for v in y.flat):
        numbers = np.array(y.tolist())
        return numbers if numbers.dtype.kind in "biuf" else y
    return y


def margin_array(base_margin: Any, n: int, n_outputs: int | None = None) -> NDArray[np.float32]:
    """Margins as [n, n_outputs].

    Raises
    ------
    ValueError
        If they do not fit the rows, or the outputs.
    """
    out = np.asarray(base_margin, dtype=np.float32)
    out = out.reshape(n, -1) if out.size and out.size % n == 0 else out
    if out.ndim != 2 or len(out) != n:
        raise ValueError(f"base_margin has shape {np.shape(base_margin)}, X has {n} rows")
    if n_outputs is not None and out.shape[1] not in (1, n_outputs):
        raise ValueError(f"base_margin has {out.shape[1]} columns, the model has {n_outputs} outputs")
    return out


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
