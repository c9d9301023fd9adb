"""How DuckDB is told to read text files, so that no line is dropped and no value rewritten by a guess."""

from __future__ import annotations

import contextlib
import csv
import gzip
import itertools
import json
import re
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fullspan.core.errors import DataError
from fullspan.tables.scope import children, first_line, quote, quote_string

if TYPE_CHECKING:
    import duckdb
    from duckdb.sqltypes import DuckDBPyType

_BIGGEST = 2**63 - 1
# No clock times, time zones and UUIDs: Hive has no types for them. No dates of an unsure order (01/02/2024).
_CSV_TYPES = (
    "auto_type_candidates = ['BOOLEAN', 'BIGINT', 'HUGEINT', 'DOUBLE', 'DATE', 'TIMESTAMP', 'VARCHAR'], "
    "dateformat = '%Y-%m-%d', timestampformat = '%Y-%m-%d %H:%M:%S'"
)
_LINES_FOR_A_DELIMITER = 20
_SCALARS_OF_STRINGS = ("date", "time", "timestamp", "uuid")


def escape_glob(path: str) -> str:
    """A path as a pattern that matches nothing but itself.

    Examples
    --------
    >>> escape_glob("data[1]*.csv")
    'data[[]1][*].csv'
    """
    return re.sub(r"[*?[]", r"[\g<0>]", path)


def quote_path(path: Path) -> str:
    """A file's path as DuckDB's readers take it."""
    return quote_string(escape_glob(str(path.resolve())))


def csv_relation(
    connection: duckdb.DuckDBPyConnection, path: Path, delimiter: str, texts: Collection[str] = ()
) -> str:
    """The call that reads a CSV file: the first line names the columns, every other is a row of as many.

    Types are found from all rows. Whole numbers that no bigint holds stay text, and so do yes and no, which
    come back as they were written. Where the delimiter parts no columns, semicolons, tabs or bars may do it.

    Parameters
    ----------
    connection : duckdb.DuckDBPyConnection
    path : pathlib.Path
    delimiter : str
    texts : collection of str, optional
        Columns that stay text whatever they hold.

    Raises
    ------
    DataError
        With the line's number, if a row has more or fewer columns or its quotes are broken.
    """
    import duckdb

    delimiter = _delimiter(path, delimiter)
    header = _header(path, delimiter)
    file = quote_path(path)
    dialect = (
        f"header = true, delim = '{delimiter}', quote = '\"', escape = '\"', comment = '', skip = 0, "
        "strict_mode = true, null_padding = false"
    )
    detected = f"{dialect}, sample_size = -1, {_CSV_TYPES}"
    try:
        found = connection.sql(f"SELECT * FROM read_csv({file}, {detected})")
    except duckdb.Error as error:
        # Finding the types fails without a line; reading text under the header's names tells it.
        names = ", ".join(f"'c{i}': 'VARCHAR'" for i in range(len(header)))
        try:
            connection.execute(
                f"SELECT max(COLUMNS(*)) FROM read_csv({file}, auto_detect = false, {dialect}, "
                f"columns = {{{names}}})"
            ).fetchall()
        except duckdb.Error as precise:
            raise DataError(csv_reason(precise)) from None
        raise DataError(first_line(error)) from None
    if len(found.columns) != len(header):
        raise DataError(f"line 1 names {len(header)} columns, {len(found.columns)} were found")
    kinds = {name: type_.id for name, type_ in zip(found.columns, found.types, strict=True)}
    as_text = {name for name, kind in kinds.items() if kind == "hugeint" or name in texts}
    flags = [name for name, kind in kinds.items() if kind == "boolean" and name not in as_text]
    as_text.update(_not_true_or_false(connection, f"read_csv({file}, {_typed(detected, flags)})", flags))
    return f"read_csv({file}, {_typed(detected, sorted(as_text))})"


def _typed(options: str, texts: list[str]) -> str:
    """Options of a reader of CSV with some columns kept as texts."""
    if not texts:
        return options
    types = ", ".join(f"{quote_string(name)}: 'VARCHAR'" for name in texts)
    return f"{options}, types = {{{types}}}"


def _not_true_or_false(connection: duckdb.DuckDBPyConnection, relation: str, names: list[str]) -> list[str]:
    """Of columns that DuckDB takes for booleans, those that are written in other words: yes, no, t, f."""
    if not names:
        return []
    tests = ", ".join(f"bool_and(lower({quote(name)}) IN ('true', 'false'))" for name in names)
    found = connection.execute(f"SELECT {tests} FROM {relation}").fetchone() or ()
    return [name for name, plain in zip(names, found, strict=True) if plain is False]


def _delimiter(path: Path, usual: str) -> str:
    """What parts the columns: another sign if the usual one does not, and the first lines agree on it."""
    for sign in (usual, ";", "\t", "|"):
        with contextlib.suppress(OSError, EOFError, UnicodeError, csv.Error):
            lines = list(itertools.islice(_lines(path, sign), _LINES_FOR_A_DELIMITER))
            widths = {len(line) for line in lines}
            if lines and len(lines[0]) > 1 and (sign == usual or len(widths) == 1):
                return sign
    return usual


def _lines(path: Path, delimiter: str) -> Iterator[list[str]]:
    opened = gzip.open if path.name.lower().endswith(".gz") else open
    with opened(path, "rt", encoding="utf-8-sig", newline="") as handle:
        yield from csv.reader(handle, delimiter=delimiter, strict=True)


def _header(path: Path, delimiter: str) -> list[str]:
    try:
        header = next(_lines(path, delimiter))
    except (OSError, EOFError, UnicodeError, csv.Error) as error:
        raise DataError(f"line 1: {error}") from None
    if not header:
        raise DataError("line 1 is blank", "the first line names the columns")
    return header


def csv_reason(error: duckdb.Error) -> str:
    """``line 3: expected 2 columns, found 1`` from DuckDB's page of advice."""
    text = str(error)
    line = re.search(r"CSV Error on Line: (\d+)", text)
    columns = re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", text)
    where = f"line {line[1]}: " if line else ""
    if columns:
        return f"{where}expected {columns[1]} columns, found {columns[2]}"
    if "unterminated quote" in text:
        return f"{where}a quoted value does not end where its column does"
    return where + first_line(error)


def json_relation(connection: duckdb.DuckDBPyConnection, path: Path, format_: str) -> str:
    """The call that reads a file of JSON objects: columns from all of them, and strings as they are written.

    Raises
    ------
    DataError
        If a whole number does not fit a bigint: DuckDB would round it to a double.
    """
    file = f"{quote_path(path)}, format = '{format_}', maximum_object_size = 134217728"
    detected = f"read_json({file}, sample_size = -1)"
    found = connection.sql(f"SELECT * FROM {detected}")
    _refuse_big_integers(connection, file)
    typed = {name: _as_written(type_) for name, type_ in zip(found.columns, found.types, strict=True)}
    if list(typed.values()) == [str(type_) for type_ in found.types]:
        return detected
    columns = ", ".join(f"{quote_string(name)}: {quote_string(type_)}" for name, type_ in typed.items())
    return f"read_json({file}, columns = {{{columns}}})"


def _as_written(type_: DuckDBPyType) -> str:
    """The type with VARCHAR wherever DuckDB took a string for a date, a time or a UUID."""
    if type_.id.startswith(_SCALARS_OF_STRINGS):
        return "VARCHAR"
    if type_.id not in ("struct", "map", "list"):
        return str(type_)
    inside = [(name, _as_written(child)) for name, child in children(type_)]
    if inside == [(name, str(child)) for name, child in children(type_)]:
        return str(type_)
    if type_.id == "struct":
        return f"STRUCT({', '.join(f'{quote(name)} {child}' for name, child in inside)})"
    if type_.id == "map":
        return f"MAP({', '.join(child for _, child in inside)})"
    return f"{inside[0][1]}[]"


def _refuse_big_integers(connection: duckdb.DuckDBPyConnection, file: str) -> None:
    objects = f"SELECT row_number() OVER () AS row, json FROM read_json_objects({file})"
    # The pattern only picks the rows to look at: it also matches digits in strings and fractions.
    suspects = connection.execute(
        f"SELECT row, json FROM ({objects}) WHERE regexp_matches(json, '\\d{{19}}')"
    )
    while batch := suspects.fetchmany(1000):
        for row, text in batch:
            big: list[str] = []
            json.loads(text, parse_int=partial(_note_big, big))
            if big:
                raise DataError(
                    f"row {row}: {big[0]} is no bigint (at most {_BIGGEST})", "write such numbers as strings"
                )


def _note_big(big: list[str], digits: str) -> None:
    """Keep the digits of an integer that no bigint holds."""
    if len(digits) > 20 or not -_BIGGEST - 1 <= int(digits) <= _BIGGEST:
        big.append(digits)
