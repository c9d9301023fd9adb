"""Run a HiveQL query over Parquet, JSONL and CSV files, on DuckDB."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from fullspan.core.config import Argument, Config, InputPath, OutputPath
from fullspan.core.errors import ConfigError


class SqlConfig(Config):
    """Options of `fullspan sql`."""

    query: Annotated[str | None, Argument()] = Field(None, description="One HiveQL query.")
    file: InputPath | None = Field(None, description="File that holds the query.")
    table: list[str] = Field(
        [], description="name=path of a table: .parquet, .jsonl, .json, .csv; may be repeated."
    )
    out: OutputPath | None = Field(
        None, description="File to write: .parquet, .jsonl or .csv; without it rows are shown."
    )
    limit: int = Field(20, ge=1, description="How many rows are shown without --out.")

    @model_validator(mode="after")
    def _check(self) -> SqlConfig:
        if self.query is None and self.file is None:
            raise ConfigError("there is no query", "give it as an argument, or its file with --file")
        if self.query is not None and self.file is not None:
            raise ConfigError("the query is given both as an argument and with --file", "give one of them")
        for path in self.input_files():
            if self.out is not None and self.out.resolve() == path.resolve():
                raise ConfigError(f"--out is {self.out}, which is read too", "write to another file")
        return self

    def tables(self) -> dict[str, Path]:
        """Paths by table name."""
        found: dict[str, Path] = {}
        for item in self.table:
            name, sign, path = item.partition("=")
            if not (name and sign and path):
                raise ConfigError(
                    f"table: expected name=path, got {item!r}", "for example --table people=people.parquet"
                )
            if name.lower() in {known.lower() for known in found}:
                raise ConfigError(f"--table: {name!r} is given twice")
            found[name] = Path(path)
        return found

    def input_files(self) -> list[Path]:
        """The tables and the file with the query."""
        return [*super().input_files(), *self.tables().values()]


def command(config: SqlConfig) -> None:
    """Run a HiveQL query over Parquet, JSONL and CSV files, on DuckDB."""
    from fullspan.tables.duck import query, query_to_file

    text = config.query
    if config.file is not None:
        if not config.file.is_file():
            raise ConfigError(f"--file: no such file: {config.file}")
        text = _read_query(config.file)
    assert text is not None
    if config.out is not None:
        rows, columns = query_to_file(text, config.tables(), config.out)
        print(f"wrote {config.out}: {rows} rows, {len(columns)} columns ({', '.join(columns)})")
        return
    table = query(text, config.tables())
    _show(table.slice(0, config.limit), table.num_rows)


def _read_query(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        name = file.stem if file.stem.isidentifier() else "t"
        hint = f"did you mean --table {name}={file}?"
        raise ConfigError(f"{file} is not UTF-8 text, expected a query", hint) from None


def _show(table: Any, n_rows: int) -> None:
    """A table for the eye on a terminal, CSV in a pipe."""
    if not sys.stdout.isatty():
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(table.column_names)
        writer.writerows([_plain(value) for value in row.values()] for row in table.to_pylist())
        print(f"{table.num_rows} of {n_rows} rows; --limit shows more", file=sys.stderr)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table()
    for name in table.column_names:
        shown.add_column(Text(name))
    for row in table.to_pylist():
        shown.add_row(*[Text("NULL" if value is None else str(value)) for value in row.values()])
    Console().print(shown)
    print(f"{table.num_rows} of {n_rows} rows, {table.num_columns} columns")


def _plain(value: Any) -> Any:
    """Arrays and maps as JSON; NULL is an empty field."""
    nested = isinstance(value, list | tuple | dict)
    return json.dumps(value, ensure_ascii=False, default=str) if nested else value
