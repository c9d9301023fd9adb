"""Predict a column for new rows with what `fullspan fit` kept."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from fullspan.core.config import Argument, Config, InputPath, OutputPath
from fullspan.core.errors import CheckpointError, ConfigError, DataError

if TYPE_CHECKING:
    import pyarrow as pa


class PredictConfig(Config):
    """Options of `fullspan predict`."""

    run: Annotated[InputPath, Argument()] = Field(description="run of `fullspan fit`, or its model file")
    data: Annotated[InputPath, Argument()] = Field(
        description="table: .parquet, .csv, .tsv, .jsonl or .json; - reads CSV from standard input"
    )
    out: OutputPath | None = Field(
        None, description="file to write: .parquet, .jsonl or .csv; without it CSV is printed"
    )


def command(config: PredictConfig) -> None:
    """Predict a column for new rows with what `fullspan fit` kept.

    \b
      fullspan predict runs/20261122-093000-fit new.csv
      fullspan predict runs/20261122-093000-fit new.parquet --out predictions.parquet
      head -100 new.csv | fullspan predict runs/20261122-093000-fit - > predictions.csv

    The rows come back with the columns `prediction` and, for classes, `probability_<class>`. Columns that
    the model does not know are passed on; texts that it has not met count as missing.
    """
    from fullspan.tables.duck import read_file, write_table, writer_of

    if config.out is not None:
        writer_of(config.out)
        if config.out.resolve() == config.data.resolve():
            raise ConfigError(f"--out: {config.out} is read too", "write to another file")
    model = _load(config.run)
    with _file(config.data) as file:
        table = read_file(file, model.encoder.texts)
    if table.num_rows == 0:
        raise DataError(f"{config.data} has no rows to predict")
    predictions = model.predict(table)
    for name, texts in model.unknown(table).items():
        print(
            f"note: {len(texts):,} of {table.num_rows:,} rows have a {name!r} that the model does not know, "
            f"such as {texts[0].as_py()!r}; it counts as missing",
            file=sys.stderr,
        )
    table = _joined(table, predictions)
    if config.out is None:
        _print(table)
        return
    print(f"wrote {config.out}: {write_table(table, config.out)} rows, predictions of {model.target!r}")


def _load(run: Path) -> Any:
    from fullspan import estimators
    from fullspan.estimators.table import TableModel
    from fullspan.pipelines.fitting import MODEL_FILE, resume_command

    file = run / MODEL_FILE if run.is_dir() else run
    if file.suffix in (".csv", ".tsv", ".parquet", ".jsonl", ".json", ".gz"):
        raise ConfigError(f"{run} is a table, expected a run of `fullspan fit`", "fullspan predict RUN DATA")
    if run.is_dir() and not file.exists():
        hint = "give the directory of a finished `fullspan fit`"
        if (run / "folds").is_dir():
            hint = f"finish it: {resume_command(run)}"
        raise CheckpointError(f"{run} holds no {MODEL_FILE}", hint)
    model = estimators.load(file)
    if not isinstance(model, TableModel):
        raise CheckpointError(
            f"{file} holds a {type(model).__name__}, not a model of `fullspan fit`",
            "in Python: fullspan.estimators.load(path).predict(X)",
        )
    return model


@contextlib.contextmanager
def _file(data: Path) -> Iterator[Path]:
    """The table's file; what comes from standard input is written to one."""
    if str(data) != "-":
        yield data
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "standard-input.csv")
        with file.open("wb") as handle:
            shutil.copyfileobj(sys.stdin.buffer, handle)
        yield file


def _joined(table: pa.Table, predictions: pa.Table) -> pa.Table:
    """The rows with their predictions beside them; a name that is taken gets an underscore."""
    for name in predictions.column_names:
        column = name
        while column in table.column_names:
            column += "_"
        table = table.append_column(column, predictions[name])
    return table


def _print(table: pa.Table) -> None:
    """Write CSV to standard output, as a file of --out would be; a reader that stops early is no error."""
    from fullspan.tables.duck import write_table

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "predictions.csv")
        write_table(table, file)
        sys.stdout.flush()
        try:
            with file.open("rb") as handle:
                shutil.copyfileobj(handle, sys.stdout.buffer)
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            # The interpreter flushes again when it ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
