"""From the columns of a table to the matrix that an estimator takes, and an estimator with its columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fullspan.core.errors import ConfigError, DataError, did_you_mean
from fullspan.estimators.saving import Saveable

MOST_CATEGORIES = 254
"""Values of a text column that get a code of their own; rarer ones are treated as missing."""


class Column(Saveable):
    """How one column of a table becomes features.

    Attributes
    ----------
    name : str
    kind : {"number", "category", "time"}
    categories : list of str
        Of a category: the values by their codes.
    """

    def __init__(self, name: str, kind: str, categories: list[str] | None = None) -> None:
        self.name = name
        self.kind = kind
        self.categories = categories or []

    @property
    def features(self) -> list[str]:
        """Names of the features it becomes."""
        if self.kind == "time":
            return [self.name, *(f"{self.name} ({part})" for part in ("month", "weekday", "hour"))]
        return [self.name]

    def encode(self, values: pa.ChunkedArray) -> list[np.ndarray]:
        """Float64 features of the column's values; NaN where there is none.

        Raises
        ------
        DataError
            If the values are of another type than those that the column was read from.
        """
        if self.kind == "category":
            codes = pc.index_in(_as_text(values), value_set=pa.array(self.categories, pa.string()))
            return [_floats(codes)]
        if self.kind == "time":
            if not pa.types.is_temporal(values.type):
                raise DataError(f"column {self.name!r} held times before and holds {values.type} now")
            moments = values.cast(pa.timestamp("us"))
            parts = [pc.month(moments), pc.day_of_week(moments), pc.hour(moments)]
            return [_floats(moments.cast(pa.int64())) / 1e6, *(_floats(part) for part in parts)]
        return [self._numbers(values)]

    def _numbers(self, values: pa.ChunkedArray) -> np.ndarray:
        if pa.types.is_null(values.type):
            return np.full(len(values), np.nan)
        try:
            numbers = _floats(values.cast(pa.float64(), safe=False))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DataError(
                f"column {self.name!r} held numbers before and holds {values.type} now: {error}"
            ) from None
        if np.isinf(numbers).any():
            row = int(np.flatnonzero(np.isinf(numbers))[0])
            raise DataError(
                f"column {self.name!r} holds {numbers[row]} in row {row + 1}", "make it NULL or a number"
            )
        return numbers


class TableEncoder(Saveable):
    """The columns of a table as features of a matrix.

    Make one with `infer_columns`.

    Attributes
    ----------
    columns : list of Column
    """

    def __init__(self, columns: list[Column]) -> None:
        self.columns = columns

    @property
    def features(self) -> list[str]:
        """Names of the matrix's columns."""
        return [feature for column in self.columns for feature in column.features]

    @property
    def is_category(self) -> np.ndarray:
        """Which of the matrix's columns hold codes of categories, bool [n_features]."""
        return np.array([column.kind == "category" for column in self.columns for _ in column.features])

    def encode(self, table: pa.Table) -> np.ndarray:
        """The matrix of a table, float64 [n_rows, n_features]; NaN for NULL and for unknown categories.

        Raises
        ------
        DataError
            If a column is missing or holds another type.
        """
        out = np.empty((table.num_rows, len(self.features)))
        position = 0
        for column in self.columns:
            if column.name not in table.column_names:
                raise DataError(
                    f"the table has no column {column.name!r}", did_you_mean(column.name, table.column_names)
                )
            for feature in column.encode(table[column.name]):
                out[:, position] = feature
                position += 1
        return out


def infer_columns(table: pa.Table, target: str) -> tuple[TableEncoder, dict[str, str]]:
    """Decide by type and content what each column but the target is.

    Returns
    -------
    TableEncoder
    dict of str to str
        Columns that are left out, with the reason.

    Raises
    ------
    ConfigError
        If no column is left.

    Examples
    --------
    >>> table = pa.table({"x": [1.5, 2.0, None], "c": ["a", "b", "a"], "k": [1, 1, 1], "y": [0, 1, 0]})
    >>> encoder, left_out = infer_columns(table, "y")
    >>> [(column.name, column.kind) for column in encoder.columns], left_out
    ([('x', 'number'), ('c', 'category')], {'k': 'it holds one value only'})
    >>> encoder.encode(table)
    array([[1.5, 0. ],
           [2. , 1. ],
           [nan, 0. ]])
    """
    columns, left_out = [], {}
    for name in table.column_names:
        if name != target:
            column = _infer(name, table[name])
            if isinstance(column, str):
                left_out[name] = column
            else:
                columns.append(column)
    if not columns:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise ConfigError(f"no column is left to learn {target!r} from", reasons or "the table has no other")
    return TableEncoder(columns), left_out


def _infer(name: str, values: pa.ChunkedArray) -> Column | str:
    """The column, or why it is left out."""
    kind = values.type
    if pa.types.is_nested(kind) or pa.types.is_binary(kind):
        return f"its type is {kind} (explode or convert it with `fullspan sql`)"
    counts = pc.value_counts(values.drop_null())
    if len(counts) < 2:
        return "it holds one value only" if len(counts) else "it holds no value"
    if pa.types.is_temporal(kind) and not pa.types.is_duration(kind) and not pa.types.is_time(kind):
        return Column(name, "time")
    if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind):
        return Column(name, "number")
    if pa.types.is_boolean(kind):
        return Column(name, "number")
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind)):
        return f"its type is {kind}"
    if len(counts) > 20 and len(counts) > len(values) / 2:
        return "nearly every row has another text"
    texts = _as_text(values)
    by_frequency = sorted(
        pc.value_counts(texts.drop_null()).to_pylist(), key=lambda c: (-c["counts"], c["values"])
    )
    return Column(name, "category", [c["values"] for c in by_frequency[:MOST_CATEGORIES]])


def _as_text(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_boolean(values.type):
        return pc.if_else(values, "true", "false")
    return values.cast(pa.string())


def _floats(values: Any) -> np.ndarray:
    array: np.ndarray = pc.cast(values, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return array if isinstance(values, pa.Array) else np.asarray(array)


class TableModel(Saveable):
    """A fitted estimator together with the columns that it takes and what its predictions mean.

    Attributes
    ----------
    encoder : TableEncoder
    estimator : estimator
    target : str
        Name of the column that it predicts.
    labels : list of str or None
        Of a classifier, what its classes 0, 1, ... are called; None for a regressor.
    fill : ndarray or None
        Stands for missing values where the estimator takes none, float64 [n_features].
    """

    def __init__(
        self,
        encoder: TableEncoder,
        estimator: Any,
        target: str,
        labels: list[str] | None,
        fill: np.ndarray | None,
    ) -> None:
        self.encoder = encoder
        self.estimator = estimator
        self.target = target
        self.labels = labels
        self.fill = fill

    def matrix(self, table: pa.Table) -> np.ndarray:
        """What the estimator takes, float64 [n_rows, n_features]."""
        return filled(self.encoder.encode(table), self.fill)

    def predict(self, table: pa.Table) -> pa.Table:
        """Predictions as a table: `prediction` and, of a classifier, `probability_<label>` for each label.

        Raises
        ------
        DataError
            If a column is missing or holds another type.
        """
        X = self.matrix(table)
        if self.labels is None:
            return pa.table({"prediction": np.asarray(self.estimator.predict(X), np.float64)})
        probability = self.estimator.predict_proba(X)
        labels = np.array(self.labels, dtype=object)
        columns: dict[str, Any] = {"prediction": pa.array(labels[probability.argmax(axis=1)])}
        for index, label in enumerate(self.labels):
            columns[f"probability_{label}"] = pa.array(probability[:, index].astype(np.float64))
        return pa.table(columns)


def filled(X: np.ndarray, fill: np.ndarray | None) -> np.ndarray:
    """`X` with missing values replaced by each column's `fill`, or as it is without one."""
    return X if fill is None else np.where(np.isnan(X), fill, X)
