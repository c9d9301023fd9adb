"""What `fullspan fit` learns from: a table's rows, their target, and which of them are held out together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fullspan.core.errors import ConfigError, DataError, did_you_mean
from fullspan.pipelines.fit_config import FitConfig

if TYPE_CHECKING:
    import pyarrow as pa

    from fullspan.estimators.table import TableEncoder

# Whole numbers are classes if there are few of them, and each comes often enough.
_MOST_CLASSES_OF_NUMBERS = 20
_ROWS_OF_A_CLASS = 5

_ONE_VALUE = "name another column by --target, or give rows with other values"

Fold = tuple[np.ndarray, np.ndarray]
"""Row numbers to fit on, and to hold out."""


@dataclass(frozen=True)
class Problem:
    """The rows that have a target.

    Attributes
    ----------
    table : pyarrow.Table
    y : ndarray [n_rows]
        Class numbers (int64) or values (float64).
    labels : list of bool, int or str, or None
        What the classes stand for; None in a regression.
    encoder : TableEncoder
        The columns to learn from, their categories those of all rows.
    weight : ndarray of float64 [n_rows] or None
    groups : ndarray of int64 [n_rows] or None
        Rows with the same number are held out together.
    order : ndarray of int64 [n_rows] or None
        Row numbers from the earliest on; held-out rows are then later than those fitted on.
    left_out : dict of str to str
        Columns that are not used, and why.
    n_without_target : int
        Rows that were left out because their target is missing.
    folds : int
        Parts of the cross-validation.
    """

    table: pa.Table
    y: np.ndarray
    labels: list[Any] | None
    encoder: TableEncoder
    weight: np.ndarray | None
    groups: np.ndarray | None
    order: np.ndarray | None
    left_out: dict[str, str]
    n_without_target: int
    folds: int


def read_problem(config: FitConfig) -> Problem:
    """Read a table and decide what its columns are.

    Raises
    ------
    ConfigError
        If there is no such column, or the target does not suit the task.
    DataError
        If there are fewer rows than folds, or of one class, or a target or a weight is no finite number.
    """
    import pyarrow.compute as pc

    from fullspan.estimators.table import infer_columns
    from fullspan.tables.duck import read_file

    table = read_file(config.data)
    unused = _columns_not_learnt_from(table, config)
    table = _with_numbers(table, [config.target, *([config.weight] if config.weight else [])])
    n_rows, target = table.num_rows, config.target
    _refuse_infinity(table[target], target)
    has_target = pc.invert(pc.is_null(table[target], nan_is_null=True))
    known = table.filter(has_target)
    folds = config.n_folds(known.num_rows)
    if known.num_rows == 0:
        held = f"column {target!r} holds no value" if n_rows else "the table has no rows"
        raise DataError(f"{config.data}: {held}", "there is nothing to learn from")
    if known.num_rows < folds:
        raise DataError(
            f"{config.data} has {count(known.num_rows, 'row')} with a {target!r}, fewer than {folds} folds",
            "lower --folds or give more rows",
        )
    encoder, left_out = infer_columns(known, target, unused)
    encoder.encode(table)  # a value that no column may hold shows now, with its row's number
    weight = None
    if config.weight is not None:
        weight = _weights(table[config.weight], config.weight)[np.asarray(has_target)]
    y, labels = _encode_target(known[target], config)
    groups = None if config.group is None else _groups(known[config.group], config)
    order = None if config.order_by is None else _order(known[config.order_by], config)
    return Problem(known, y, labels, encoder, weight, groups, order, left_out, n_rows - known.num_rows, folds)


def _columns_not_learnt_from(table: pa.Table, config: FitConfig) -> set[str]:
    """Columns that are named by an option; that of an order may be learnt from, as time is."""
    roles = [("--target", config.target), ("--order-by", config.order_by)]
    unused = [("--weight", config.weight), ("--group", config.group)]
    unused += [("--ignore", name) for name in config.ignore]
    for option, name in [*roles, *unused]:
        if name is not None and name not in table.column_names:
            parts = name.split(",")
            hint = did_you_mean(name, table.column_names)
            if option == "--ignore" and set(parts) <= set(table.column_names):
                hint = f"give the option once for each: {' '.join(f'--ignore {part}' for part in parts)}"
            raise ConfigError(f"{option}: {config.data} has no column {name!r}", hint)
        if name == config.target and option != "--target":
            raise ConfigError(f"{option}: {name!r} is the target")
    return {name for _, name in unused if name is not None}


def _with_numbers(table: pa.Table, names: list[str]) -> pa.Table:
    """The table with these columns as numbers where their texts stand for such, as in 1,234.5, ? and 7."""
    from fullspan.estimators.cells import number_form, read_numbers
    from fullspan.estimators.table import is_text

    for name in names:
        values = table[name]
        if is_text(values.type) and (form := number_form(values)) is not None:
            table = table.set_column(table.column_names.index(name), name, read_numbers(values, form))
    return table


def make_folds(problem: Problem, n: int, seed: int) -> list[Fold]:
    """Row numbers to fit on and to hold out; classes are spread evenly.

    With groups, all rows of a group are on one side. With an order, rows are held out in `n` blocks, each
    predicted from all that is earlier; the first rows are never held out.
    """
    from sklearn.model_selection import (
        GroupKFold,
        KFold,
        StratifiedGroupKFold,
        StratifiedKFold,
        TimeSeriesSplit,
    )

    rows, y, groups = np.arange(len(problem.y)), problem.y, problem.groups
    if problem.order is not None:
        return [(problem.order[a], problem.order[b]) for a, b in TimeSeriesSplit(n).split(rows)]
    if groups is not None:
        grouped = GroupKFold if problem.labels is None else StratifiedGroupKFold
        return list(grouped(n, shuffle=True, random_state=seed).split(rows, y, groups))
    kind = KFold if problem.labels is None else StratifiedKFold
    return list(kind(n, shuffle=True, random_state=seed).split(rows, y))


def _refuse_infinity(values: pa.ChunkedArray, name: str) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_floating(values.type) and pc.any(pc.is_inf(values)).as_py():
        row = pc.index(pc.is_inf(values), True).as_py()
        raise DataError(
            f"--target: column {name!r} holds {values[row].as_py()} in row {row + 1}",
            "make it NULL, so that the row is left out, or a number",
        )


def _encode_target(values: pa.ChunkedArray, config: FitConfig) -> tuple[np.ndarray, list[Any] | None]:
    import pyarrow as pa

    from fullspan.estimators.table import is_text

    name, kind = config.target, values.type
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if not (is_number or pa.types.is_boolean(kind) or is_text(kind)):
        raise ConfigError(
            f"--target: column {name!r} is {kind}, which cannot be predicted", "name one of numbers or texts"
        )
    if not is_number:
        if config.task == "regression":
            raise ConfigError(f"--task: column {name!r} is {kind}; a regression predicts numbers")
        return _classes(values.cast(pa.string()) if is_text(kind) else values, config)
    y = values.cast(pa.float64(), safe=False).to_numpy()
    # Class numbers become floats where a row has none.
    whole = bool((y == np.floor(y)).all() and np.abs(y).max() < 2**53)
    n_values = len(np.unique(y))
    few = n_values == 2 or n_values <= min(_MOST_CLASSES_OF_NUMBERS, len(y) / _ROWS_OF_A_CLASS)
    if config.task == "classification" or (config.task == "auto" and whole and few):
        return _classes(pa.chunked_array([y.astype(np.int64)]) if whole else values.cast(pa.string()), config)
    if y.min() == y.max():
        raise DataError(f"--target: column {name!r} holds one value only: {y[0]:g}", _ONE_VALUE)
    return y, None


def _classes(values: pa.ChunkedArray, config: FitConfig) -> tuple[np.ndarray, list[Any]]:
    """Class numbers, and the classes in their order."""
    import pyarrow as pa
    import pyarrow.compute as pc

    name, folds = config.target, config.n_folds(len(values))
    counts = {c["values"]: c["counts"] for c in pc.value_counts(values).to_pylist()}
    if len(counts) < 2:
        raise DataError(f"--target: column {name!r} holds one class only: {next(iter(counts))!r}", _ONE_VALUE)
    rare = sorted((c for c in counts if counts[c] < folds), key=lambda c: counts[c])
    if rare and config.order_by is None:
        more = f", and {len(rare) - 1} more of its {len(counts)} classes are as rare" if rare[1:] else ""
        lower = f"lower --folds to {counts[rare[0]]}, or " if counts[rare[0]] > 1 else ""
        number = not isinstance(rare[0], str | bool)
        raise DataError(
            f"class {rare[0]!r} of {name!r} has {count(counts[rare[0]], 'row')}, "
            f"fewer than {folds} folds{more}",
            f"{lower}leave such rows out or join them to another class"
            + ("; if it is a quantity: --task regression" if number else ""),
        )
    labels = sorted(counts)
    y = pc.index_in(values, value_set=pa.array(labels, values.type)).to_numpy().astype(np.int64)
    return y, labels


def _weights(values: pa.ChunkedArray, name: str) -> np.ndarray:
    import pyarrow as pa

    try:
        weight: np.ndarray = values.cast(pa.float64(), safe=False).to_numpy()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise ConfigError(f"--weight: column {name!r} is {values.type}, expected numbers") from None
    wrong = ~(np.isfinite(weight) & (weight > 0))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"--weight: column {name!r} holds {weight[row]} in row {row + 1}",
            "weights are more than 0; leave out rows that count for nothing",
        )
    return weight


def _groups(values: pa.ChunkedArray, config: FitConfig) -> np.ndarray:
    """A number for each distinct value, NULL being one of them."""
    codes = values.combine_chunks().dictionary_encode(null_encoding="encode").indices
    groups = np.asarray(codes.to_numpy(zero_copy_only=False), np.int64)
    n_groups, folds = len(np.unique(groups)), config.n_folds(len(values))
    if n_groups < folds:
        raise DataError(
            f"--group: column {config.group!r} has {count(n_groups, 'value')}, fewer than {folds} folds",
            "lower --folds, or name another column",
        )
    return groups


def _order(values: pa.ChunkedArray, config: FitConfig) -> np.ndarray:
    import pyarrow.compute as pc

    from fullspan.estimators.cells import is_unsure_day, number_form, read_numbers, time_form
    from fullspan.estimators.table import as_times, is_text

    if is_text(values.type):
        if is_unsure_day(values):
            raise DataError(
                f"--order-by: does the day or the month come first in {values.drop_null()[0].as_py()!r} "
                f"of {config.order_by!r}?",
                "write days as 2024-01-31",
            )
        if (form := number_form(values)) is not None:
            values = read_numbers(values, form)
        elif (times := as_times(values, time_form(values) or "")) is not None:
            values = times
    if values.null_count:
        raise DataError(
            f"--order-by: column {config.order_by!r} is missing in {count(values.null_count, 'row')}",
            "fill it or leave those rows out",
        )
    folds = config.n_folds(len(values))
    if len(values) <= folds:
        raise DataError(
            f"--order-by: {folds} folds need more than {count(len(values), 'row')}", "lower --folds"
        )
    return np.asarray(pc.sort_indices(values), np.int64)


def count(number: int, noun: str) -> str:
    """``1 row``, ``1,000 rows``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
