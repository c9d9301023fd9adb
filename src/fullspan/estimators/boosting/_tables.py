"""Columns of tables, whoever's they are: their names, types, and categories as codes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def is_frame(X: Any) -> bool:
    """Whether X is a pandas DataFrame; pandas itself is not imported."""
    return hasattr(X, "dtypes") and hasattr(X, "columns") and hasattr(X, "iloc")


def is_table(X: Any) -> bool:
    """Whether X is a table of any library: pandas, polars, Arrow."""
    return is_frame(X) or (hasattr(X, "__arrow_c_stream__") and hasattr(X, "columns"))


def as_table(X: Any) -> Any:
    """A column alone as a table of one, a lazy frame worked out, all else as it is."""
    if hasattr(X, "collect_schema") and hasattr(X, "collect") and not hasattr(X, "to_arrow"):
        X = X.collect()
    return X.to_frame() if hasattr(X, "to_frame") and not hasattr(X, "columns") else X


def names_of(X: Any) -> list[str] | None:
    """The names of a table's columns; None where X is none. Those of several levels are joined by blanks."""
    if not is_table(X):
        return None
    names = X.column_names if hasattr(X, "column_names") else X.columns
    return [" ".join(map(str, name)) if isinstance(name, tuple) else str(name) for name in names]


def with_texts_for_names(X: Any) -> Any:
    """A frame whose columns are called partly by texts and partly not, with texts for all of them."""
    mixed = is_frame(X) and len({isinstance(name, str) for name in X.columns}) > 1
    return X.set_axis(names_of(X), axis=1) if mixed else X


class Table:
    """A table's columns as XGBoost sees them.

    Parameters
    ----------
    X : DataFrame of pandas or polars, or Arrow table

    Attributes
    ----------
    names, kinds : list of str
        Kinds are "float", "int", "i" (yes or no) and "c" (categories).
    """

    def __init__(self, X: Any) -> None:
        self.columns: list[_PandasColumn | _ArrowColumn]
        if is_frame(X):
            self.columns = [_PandasColumn(X.iloc[:, i]) for i in range(X.shape[1])]
        else:
            self.columns = [_ArrowColumn(column) for column in pa.table(X).columns]
        self.names = names_of(X) or []
        if len(set(self.names)) < len(self.names):
            twice = next(name for i, name in enumerate(self.names) if name in self.names[:i])
            raise ValueError(f"feature_names must be unique, {twice!r} is there twice")
        self.kinds = [column.kind for column in self.columns]
        self.n_rows = len(X)

    @property
    def is_plain(self) -> bool:
        """Whether all columns are NumPy's numbers."""
        return all(isinstance(c, _PandasColumn) and c.is_plain for c in self.columns)

    def categories(self, index: int) -> NDArray[Any]:
        """The values that a column's codes stand for."""
        return self.columns[index].categories()

    def encoded(self, known: dict[int, NDArray[Any]]) -> NDArray[np.float32]:
        """All columns as numbers, NaN where nothing is.

        Parameters
        ----------
        known : dict
            From a column to what its codes are to stand for; others keep their own.

        Raises
        ------
        ValueError
            If a column holds another category, or what is neither number nor category.
        """
        out = np.empty((self.n_rows, len(self.columns)), dtype=np.float32)
        for index, column in enumerate(self.columns):
            if index in known:
                out[:, index] = self._recoded(index, known[index])
            elif column.kind == "c":
                codes = column.codes()
                out[:, index] = np.where(codes < 0, np.nan, codes)
            else:
                out[:, index] = self._numbers(index)
        return out

    def _numbers(self, index: int) -> NDArray[Any]:
        column = self.columns[index]
        try:
            return column.numbers()
        except (TypeError, ValueError, pa.ArrowException) as error:
            raise ValueError(
                "DataFrame.dtypes for data must be int, float, bool or category. Invalid columns: "
                f"{self.names[index]}: {column.type}"
            ) from error

    def _recoded(self, index: int, known: NDArray[Any]) -> NDArray[np.float32]:
        column = self.columns[index]
        place = {value: number for number, value in enumerate(known.tolist())}
        if column.kind == "c":
            own, codes = column.categories(), column.codes()
        else:
            own, codes = column.values()
        moved = np.array([place.get(value, -1) for value in own.tolist()], dtype=np.float32)
        present = codes >= 0
        out = np.full(len(codes), np.nan, dtype=np.float32)
        out[present] = moved[codes[present]]
        if (out[present] < 0).any():
            strange = own[codes[np.flatnonzero(present)[np.argmin(out[present])]]]
            raise ValueError(
                f"Found a category not in the training set: column {self.names[index]!r} holds {strange!r}"
            )
        return out


class _PandasColumn:
    def __init__(self, column: Any) -> None:
        self.column, self.type = column, column.dtype
        kind = getattr(column.dtype, "kind", "O")
        self.is_plain = isinstance(column.dtype, np.dtype) and kind in "fiub"
        if hasattr(column.dtype, "categories"):
            self.kind = "c"
        else:
            self.kind = {"b": "i", "i": "int", "u": "int"}.get(kind, "float")

    def categories(self) -> NDArray[Any]:
        return np.asarray(self.column.dtype.categories.to_numpy())

    def codes(self) -> NDArray[Any]:
        return np.asarray(self.column.cat.codes.to_numpy())

    def values(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Different values, and which of them each row has; -1 where it has none."""
        return _told_apart(self.column.to_numpy(dtype=object), self.column.isna().to_numpy())

    def numbers(self) -> NDArray[Any]:
        if getattr(self.type, "kind", "O") in "cmM":
            raise TypeError("no number")
        return np.asarray(self.column.to_numpy(dtype=np.float32, na_value=np.nan))


class _ArrowColumn:
    def __init__(self, column: Any) -> None:
        self.column = column.combine_chunks()
        if isinstance(self.column, pa.ChunkedArray):
            self.column = self.column.chunk(0) if self.column.num_chunks else pa.array([], column.type)
        kind = self.type = self.column.type
        if pa.types.is_dictionary(kind):
            self.kind = "c"
        else:
            whole = pa.types.is_integer(kind)
            self.kind = "i" if pa.types.is_boolean(kind) else "int" if whole else "float"

    def categories(self) -> NDArray[Any]:
        listed = self.column.dictionary.to_pylist()
        return np.asarray(listed, dtype=object if any(isinstance(v, str) for v in listed) else None)

    def codes(self) -> NDArray[Any]:
        return np.asarray(self.column.indices.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False))

    def values(self) -> tuple[NDArray[Any], NDArray[Any]]:
        values = np.array(self.column.to_pylist(), dtype=object)
        return _told_apart(values, np.array([value is None for value in values]))

    def numbers(self) -> NDArray[Any]:
        return np.asarray(self.column.cast(pa.float32(), safe=False).to_numpy(zero_copy_only=False))


def _told_apart(values: NDArray[Any], absent: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    place: dict[Any, int] = {}
    codes = np.array(
        [-1 if gone else place.setdefault(v, len(place)) for v, gone in zip(values, absent, strict=True)],
        dtype=np.int64,
    )
    own = np.empty(len(place), dtype=object)
    own[:] = list(place)
    return own, codes
