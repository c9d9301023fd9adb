"""Runs HiveQL on DuckDB over files, and reads and writes tables as Parquet, JSONL and CSV."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fullspan.core.errors import ConfigError, DataError, did_you_mean
from fullspan.core.files import replacing
from fullspan.tables.duck_files import csv_reason, csv_relation, escape_glob, json_relation, quote_path
from fullspan.tables.scope import first_line, quote, quote_string

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_SUFFIXES = (".parquet", ".jsonl", ".ndjson", ".json", ".csv", ".tsv")
_WRITERS = {
    ".parquet": "(FORMAT parquet, COMPRESSION zstd)",
    ".jsonl": "(FORMAT json)",
    ".ndjson": "(FORMAT json)",
    ".csv": "(FORMAT csv, HEADER)",
}


def suffix_of(path: Path) -> str:
    """The suffix that tells the format: ``.csv`` for ``table.csv.gz``."""
    name = path.name.lower()
    return Path(name.removesuffix(".gz")).suffix


def connect(
    tables: Mapping[str, Path | pa.Table], writable: Path | None = None, texts: Collection[str] = ()
) -> duckdb.DuckDBPyConnection:
    """A connection in which the tables are views, and which can read nothing else.

    Parameters
    ----------
    tables : mapping of str to path or pyarrow.Table
        Files by suffix: Parquet, JSONL, JSON, CSV.
    writable : path, optional
        The one file that COPY may write.
    texts : collection of str, optional
        Columns of CSV files whose values stay texts as they are written.

    Raises
    ------
    DataError
        If a file is missing, empty or broken, or its suffix is unknown.
    """
    import duckdb

    from fullspan.tables.hiveql import add_macros

    connection = duckdb.connect()
    try:
        connection.execute("SET autoinstall_known_extensions = false")
        connection.execute("SET autoload_known_extensions = false")
        spill = Path(tempfile.gettempdir(), f"fullspan-sql-{os.getpid()}")
        connection.execute(f"SET temp_directory = {quote_string(str(spill))}")
        add_macros(connection)
        paths = [str(path.resolve()) for path in tables.values() if isinstance(path, Path)]
        # DuckDB asks both for the pattern that it is given and for the file that this finds.
        files = [*paths, *map(escape_glob, paths)]
        files += [str(writable.resolve())] if writable else []
        connection.execute(f"SET allowed_paths = [{', '.join(map(quote_string, files))}]")
        connection.execute("SET enable_external_access = false")
        for name, source in tables.items():
            if isinstance(source, Path):
                _add_file(connection, name, source, texts)
            else:
                connection.register(name, source)
        connection.execute("SET lock_configuration = true")
    except BaseException:
        connection.close()
        raise
    return connection


def _add_file(connection: duckdb.DuckDBPyConnection, name: str, path: Path, texts: Collection[str]) -> None:
    import duckdb

    if path.is_dir():
        raise DataError(f"table {name}: {path} is a folder, expected a file")
    suffix = suffix_of(path)
    if suffix not in _SUFFIXES:
        raise DataError(f"table {name}: no reader for {path}", "give a .parquet, .jsonl, .json or .csv file")
    if not path.is_file():
        near = (
            did_you_mean(path.name, [p.name for p in path.parent.glob("*")]) if path.parent.is_dir() else ""
        )
        raise DataError(f"table {name}: no such file: {path}", near if near.startswith("did you") else "")
    if path.stat().st_size == 0:
        raise DataError(f"table {name}: {path} is empty")
    try:
        if suffix == ".parquet":
            relation = f"read_parquet({quote_path(path)})"
        elif suffix in (".csv", ".tsv"):
            relation = csv_relation(connection, path, "," if suffix == ".csv" else "\t", texts)
        else:
            relation = json_relation(connection, path, "auto" if suffix == ".json" else "newline_delimited")
        connection.execute(f"CREATE TEMP VIEW {quote(name)} AS SELECT * FROM {relation}")
    except DataError as error:
        raise DataError(f"table {name}: cannot read {path}: {error.message}", error.hint) from None
    except duckdb.Error as error:
        raise DataError(f"table {name}: cannot read {path}: {first_line(error)}") from None


def schema(connection: duckdb.DuckDBPyConnection, name: str) -> dict[str, str]:
    """Columns and types of a table."""
    relation = connection.sql(f"SELECT * FROM {quote(name)}")
    return {column: str(type_) for column, type_ in zip(relation.columns, relation.types, strict=True)}


def prepare(connection: duckdb.DuckDBPyConnection, query: str, names: Mapping[str, object]) -> str:
    """Translate a HiveQL query over the connection's tables."""
    from fullspan.tables.hiveql import translate

    return translate(query, {name: schema(connection, name) for name in names})


def query(hiveql: str, tables: Mapping[str, Path | str | pa.Table], texts: Collection[str] = ()) -> pa.Table:
    """Run a HiveQL query and return its rows.

    Parameters
    ----------
    hiveql : str
        One query; see `fullspan.tables.hiveql.translate`.
    tables : mapping of str to path or pyarrow.Table
        What the query's table names stand for.
    texts : collection of str, optional
        Columns of CSV files whose values stay texts as they are written.

    Raises
    ------
    ConfigError
        If the query is not valid or not translated.
    DataError
        If a file cannot be read, or a value cannot be converted.

    Examples
    --------
    >>> import pyarrow as pa
    >>> rows = pa.table({"name": ["a", "b"], "marks": [[3, 4], []]})
    >>> query("SELECT name, m FROM t LATERAL VIEW OUTER explode(marks) v AS m", {"t": rows}).to_pylist()
    [{'name': 'a', 'm': 3}, {'name': 'a', 'm': 4}, {'name': 'b', 'm': None}]
    """
    import duckdb

    sources = {name: Path(source) if isinstance(source, str) else source for name, source in tables.items()}
    with connect(sources, texts=texts) as connection:
        sql = prepare(connection, hiveql, sources)
        try:
            return connection.sql(sql).to_arrow_table()
        except duckdb.Error as error:
            raise _run_error(error) from None


def read_file(path: Path, texts: Collection[str] = ()) -> pa.Table:
    """Read a Parquet, CSV, JSONL or JSON file.

    Parameters
    ----------
    path : pathlib.Path
    texts : collection of str, optional
        Columns of a CSV file whose values stay texts as they are written.

    Raises
    ------
    DataError
        If the file cannot be read.

    Examples
    --------
    >>> read_file(Path("people.xls"))
    Traceback (most recent call last):
    ...
    fullspan.core.errors.DataError: no reader for people.xls
    hint: give a .parquet, .jsonl, .json or .csv file
    """
    try:
        return query("SELECT * FROM data", {"data": path}, texts)
    except DataError as error:
        raise DataError(error.message.removeprefix("table data: "), error.hint) from None


def query_to_file(hiveql: str, tables: Mapping[str, Path], out: Path) -> tuple[int, list[str]]:
    """Run a HiveQL query into a file, which is there whole or not at all.

    Returns
    -------
    tuple of int and list of str
        How many rows were written, and the names of the columns.

    Raises
    ------
    ConfigError, DataError
        As `query`; also if the suffix of `out` is unknown.
    """
    writer_of(out)
    with replacing(out) as beside, connect(tables, writable=beside) as connection:
        sql = prepare(connection, hiveql, tables)
        return _copy(connection, sql, beside)


def write_table(table: pa.Table, out: Path) -> int:
    """Write an Arrow table as Parquet, JSONL or CSV by suffix; returns the number of rows."""
    writer_of(out)
    with replacing(out) as beside, connect({"rows": table}, writable=beside) as connection:
        return _copy(connection, "SELECT * FROM rows", beside)[0]


def writer_of(out: Path) -> str:
    """How DuckDB writes a file with this suffix.

    Raises
    ------
    ConfigError
        If the suffix is unknown.
    """
    writer = _WRITERS.get(out.suffix.lower())
    if writer is None:
        raise ConfigError(f"no writer for {out}", f"name a file that ends in {', '.join(_WRITERS)}")
    return writer


def _copy(connection: duckdb.DuckDBPyConnection, sql: str, out: Path) -> tuple[int, list[str]]:
    import duckdb

    try:
        columns = connection.sql(sql).columns
        written = connection.execute(
            f"COPY ({sql}) TO {quote_string(str(out.resolve()))} {writer_of(out)}"
        ).fetchone()
        return (int(written[0]) if written else 0), list(columns)
    except duckdb.Error as error:
        raise _run_error(error) from None


def _run_error(error: duckdb.Error) -> DataError:
    text = csv_reason(error)
    _, found, reason = text.partition("HiveQL: ")
    return DataError(reason if found else f"the query failed: {text}")
