"""From the columns of a table to the matrix that an estimator takes, and an estimator with its columns."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fullspan.core.errors import ConfigError, DataError, did_you_mean
from fullspan.estimators.cells import (
    BOOLEAN,
    PLAIN,
    is_unsure_day,
    number_form,
    read_numbers,
    read_times,
    time_form,
    without_marks,
)
from fullspan.estimators.saving import Saveable

MOST_CATEGORIES = 254
"""Values of a text column that get a code of their own; rarer ones are treated as missing."""
_NAME_OF_A_KEY = re.compile(r"^$|^unnamed: 0$|(^|[\W_])(id|uuid|rowid|index|key)$", re.IGNORECASE)


class Column(Saveable):
    """How one column of a table becomes features.

    Attributes
    ----------
    name : str
    kind : {"number", "category", "time"}
    categories : list of str
        Of a category: the values by their codes.
    form : str
        How texts write the numbers or times, as `fullspan.estimators.cells` names it; "" without texts.
    """

    def __init__(self, name: str, kind: str, categories: list[str] | None = None, form: str = "") -> None:
        self.name = name
        self.kind = kind
        self.categories = categories or []
        self.form = form

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
            moments = self._moments(values)
            parts = [pc.month(moments), pc.day_of_week(moments), pc.hour(moments)]
            return [_floats(moments.cast(pa.int64())) / 1e6, *(_floats(part) for part in parts)]
        return [self._numbers(values)]

    def unknown(self, values: pa.ChunkedArray) -> pa.ChunkedArray:
        """Of a category: the values that have no code, one a row; they are encoded as missing."""
        texts = _as_text(values).drop_null()
        return texts.filter(pc.invert(pc.is_in(texts, value_set=pa.array(self.categories, pa.string()))))

    def refitted(self, values: pa.ChunkedArray) -> Column:
        """The column with the categories of these values alone."""
        return Column(self.name, self.kind, _categories(values)) if self.kind == "category" else self

    def _moments(self, values: pa.ChunkedArray) -> pa.ChunkedArray:
        known = without_marks(values).drop_null() if is_text(values.type) else values.drop_null()
        if not len(known):
            return pa.chunked_array([pa.nulls(len(values), pa.timestamp("us"))])
        moments = as_times(values, self.form) if is_text(values.type) else values
        if moments is None or not pa.types.is_temporal(moments.type):
            held = repr(known[0].as_py()) if is_text(values.type) else values.type
            raise DataError(
                f"column {self.name!r} held times before and holds {held} now",
                "write times as in the table that was learnt from, or as 2024-01-31 07:30:00",
            )
        return moments.cast(pa.timestamp("us"), safe=False)

    def _numbers(self, values: pa.ChunkedArray) -> np.ndarray:
        if pa.types.is_null(values.type):
            return np.full(len(values), np.nan)
        try:
            if is_text(values.type):
                values = read_numbers(values, self.form or PLAIN)
            numbers = _floats(values.cast(pa.float64(), safe=False))
        except (ValueError, pa.ArrowNotImplementedError) as error:
            found = str(error) if is_text(values.type) else values.type
            raise DataError(
                f"column {self.name!r} held numbers before and holds {found} now",
                "write numbers as in the table that was learnt from; leave a cell empty where there is none",
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
    def texts(self) -> list[str]:
        """Columns whose cells a reader of files had better leave as they are written."""
        return [column.name for column in self.columns if column.kind == "category" or column.form]

    @property
    def features(self) -> list[str]:
        """Names of the matrix's columns."""
        return [feature for column in self.columns for feature in column.features]

    @property
    def is_category(self) -> np.ndarray:
        """Which of the matrix's columns hold codes of categories, bool [n_features]."""
        return np.array([column.kind == "category" for column in self.columns for _ in column.features])

    def positions(self) -> list[list[int]]:
        """For each column, where its features stand in the matrix."""
        out: list[list[int]] = []
        start = 0
        for column in self.columns:
            out.append(list(range(start, start + len(column.features))))
            start += len(column.features)
        return out

    def refitted(self, table: pa.Table) -> TableEncoder:
        """The same columns with the categories of this table alone, so that none is known from other rows."""
        values = columns_by_name(table)
        return TableEncoder([column.refitted(values[column.name]) for column in self.columns])

    def encode(self, table: pa.Table) -> np.ndarray:
        """The matrix of a table, float64 [n_rows, n_features]; NaN for NULL and for unknown categories.

        Raises
        ------
        DataError
            If a column is missing or holds another type.
        """
        values = columns_by_name(table)
        absent = [column.name for column in self.columns if column.name not in values]
        if absent:
            shown = ", ".join(map(repr, absent[:5])) + (" …" if len(absent) > 5 else "")
            raise DataError(
                f"the table has no column{'s' if len(absent) > 1 else ''} {shown}",
                did_you_mean(absent[0], values),
            )
        out = np.empty((table.num_rows, len(self.features)))
        position = 0
        for column in self.columns:
            for feature in column.encode(values[column.name]):
                out[:, position] = feature
                position += 1
        return out


def infer_columns(
    table: pa.Table, target: str, ignored: Collection[str] = ()
) -> tuple[TableEncoder, dict[str, str]]:
    """Decide by type and content what each column but the target is.

    Parameters
    ----------
    table : pyarrow.Table
    target : str
    ignored : collection of str, optional
        Further columns that are no features; they are not among those returned as left out.

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
    for name, values in columns_by_name(table).items():
        if name != target and name not in ignored:
            column = _infer(name, values)
            if isinstance(column, str):
                left_out[name] = column
            else:
                columns.append(column)
    if not columns:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        without = "all others are ignored" if ignored else "the table has no other"
        raise ConfigError(f"no column is left to learn {target!r} from", reasons or without)
    return TableEncoder(columns), left_out


def columns_by_name(table: pa.Table) -> dict[str, pa.ChunkedArray]:
    """All columns at once: a table looks for each name among all."""
    return dict(zip(table.column_names, table.columns, strict=True))


def _infer(name: str, values: pa.ChunkedArray) -> Column | str:
    """The column, or why it is left out."""
    kind = values.type
    if pa.types.is_nested(kind) or pa.types.is_binary(kind):
        return f"its type is {kind} (explode or convert it with `fullspan sql`)"
    known = values.drop_null()
    if pa.types.is_floating(kind):
        known = known.filter(pc.invert(pc.is_nan(known)))
    n_values = len(pc.unique(known.cast(pa.string()) if is_text(kind) else known))
    if n_values == 0:
        return "it holds no value"
    if n_values == 1 and len(known) == len(values):
        return "it holds one value only"
    if pa.types.is_temporal(kind) and not pa.types.is_duration(kind) and not pa.types.is_time(kind):
        return Column(name, "time")
    if pa.types.is_integer(kind) and n_values == len(values) > 20 and _NAME_OF_A_KEY.search(name):
        return "it numbers the rows"
    if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind):
        return Column(name, "number")
    if pa.types.is_boolean(kind):
        return Column(name, "number", form=BOOLEAN)
    if not is_text(kind):
        return f"its type is {kind}"
    return _infer_from_texts(name, values, n_values)


def _infer_from_texts(name: str, values: pa.ChunkedArray, n_values: int) -> Column | str:
    if (form := number_form(values)) is not None:
        return Column(name, "number", form=form)
    if as_times(values) is not None:
        return Column(name, "time")
    if (form := time_form(values)) is not None:
        return Column(name, "time", form=form)
    if n_values > 20 and n_values > len(values) / 2:
        such = f", such as {values.drop_null()[0].as_py()!r}"
        if is_unsure_day(values):
            return f"it may hold days, but does the day or the month come first?{such}: write 2024-01-31"
        return f"nearly every row has another text{such}"
    return Column(name, "category", _categories(values))


def is_text(kind: pa.DataType) -> bool:
    """Whether values of this Arrow type are read as texts."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def as_times(values: pa.ChunkedArray, form: str = "") -> pa.ChunkedArray | None:
    """Texts such as 2024-01-31 or 2024-01-31T07:30:00Z, or in a form of `cells`, as timestamps.

    None unless every text is one, or stands for a missing value.
    """
    texts = without_marks(values)
    if form:
        moments = read_times(texts, form)
        if moments.null_count == texts.null_count:
            return moments
    if not pc.all(pc.match_substring_regex(texts, r"^\d{4}-\d\d-\d\d"), min_count=0 if form else 1).as_py():
        return None
    for kind in (pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:
            return texts.cast(kind)
        except pa.ArrowInvalid:
            continue
    return None


def _categories(values: pa.ChunkedArray) -> list[str]:
    """The most frequent texts, the first among equals by the alphabet."""
    counts = pc.value_counts(_as_text(values).drop_null()).to_pylist()
    by_frequency = sorted(counts, key=lambda c: (-c["counts"], c["values"]))
    return [c["values"] for c in by_frequency[:MOST_CATEGORIES]]


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
    labels : list of bool, int or str, or None
        Of a classifier, what its classes 0, 1, ... stand for in the target; None for a regressor.
    fill : ndarray or None
        Stands for missing values where the estimator takes none, float64 [n_features].
    scale : ndarray or None
        Each feature is divided by it where the estimator wants features alike, float64 [n_features].

    Examples
    --------
    >>> from fullspan.estimators import DecisionTreeRegressor
    >>> table = pa.table({"town": ["Bonn", "Trier", "Bonn"], "y": [1.0, 2.0, 1.0]})
    >>> encoder, _ = infer_columns(table, "y")
    >>> tree = DecisionTreeRegressor().fit(encoder.encode(table), table["y"])
    >>> TableModel(encoder, tree, "y", None, None).predict(pa.table({"town": ["Trier"]})).to_pylist()
    [{'prediction': 2.0}]
    """

    scale: np.ndarray | None = None  # also of models that an older version saved

    def __init__(
        self,
        encoder: TableEncoder,
        estimator: Any,
        target: str,
        labels: list[Any] | None,
        fill: np.ndarray | None,
    ) -> None:
        self.encoder = encoder
        self.estimator = estimator
        self.target = target
        self.labels = labels
        self.fill = fill

    def filled(self, X: np.ndarray) -> np.ndarray:
        """A matrix that `encoder` made as the estimator takes it."""
        X = X if self.fill is None else np.where(np.isnan(X), self.fill, X)
        return X if self.scale is None else X / self.scale

    def outputs(self, X: np.ndarray) -> np.ndarray:
        """Probabilities [n_rows, n_classes] or values [n_rows, 1] of a matrix that `encoder` made."""
        X = self.filled(X)
        if self.labels is not None:
            return np.asarray(self.estimator.predict_proba(X), np.float64)
        return np.asarray(self.estimator.predict(X), np.float64).reshape(-1, 1)

    def predict(self, table: pa.Table) -> pa.Table:
        """Predictions as a table: `prediction` and, of a classifier, `probability_<label>` for each label.

        Raises
        ------
        DataError
            If a column is missing or holds another type.
        """
        outputs = self.outputs(self.encoder.encode(table))
        if self.labels is None:
            return pa.table({"prediction": outputs[:, 0]})
        likeliest = pa.array(outputs.argmax(axis=1), pa.int64())
        columns = {"prediction": pc.take(pa.array(self.labels), likeliest)}
        for index, label in enumerate(self.labels):
            columns[f"probability_{label_text(label)}"] = pa.array(outputs[:, index])
        return pa.table(columns)

    def unknown(self, table: pa.Table) -> dict[str, pa.ChunkedArray]:
        """By column, the texts that were not met in fitting (or were too rare), where there are any."""
        values = columns_by_name(table)
        found = {
            column.name: column.unknown(values[column.name])
            for column in self.encoder.columns
            if column.kind == "category"
        }
        return {name: texts for name, texts in found.items() if len(texts)}


def label_text(label: bool | int | str) -> str:
    """A class as text: true and false as SQL writes them."""
    return ("true" if label else "false") if isinstance(label, bool) else str(label)
