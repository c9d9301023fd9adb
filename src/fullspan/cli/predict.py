"""Predict a column for new rows with what `fullspan fit` kept."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from pydantic import Field

from fullspan.core.config import Argument, Config, InputPath, OutputPath
from fullspan.core.errors import CheckpointError, ConfigError


class PredictConfig(Config):
    """Options of `fullspan predict`."""

    run: Annotated[InputPath, Argument()] = Field(description="run of `fullspan fit`, or its model file")
    data: Annotated[InputPath, Argument()] = Field(description="table: .parquet, .csv, .jsonl or .json")
    out: OutputPath | None = Field(
        None, description="file to write: .parquet, .jsonl or .csv; without it CSV is printed"
    )


def command(config: PredictConfig) -> None:
    """Predict a column for new rows with what `fullspan fit` kept.

    The rows come back with the columns `prediction` and, for classes, `probability_<class>`.
    """
    from fullspan import estimators
    from fullspan.estimators.table import TableModel
    from fullspan.tables.duck import query, write_table

    model = estimators.load(_model_file(config.run))
    if not isinstance(model, TableModel):
        raise CheckpointError(f"{config.run} holds a {type(model).__name__}, not a model of `fullspan fit`")
    if config.out is not None and config.out.resolve() == config.data.resolve():
        raise ConfigError(f"out is {config.out}, which is read too", "write to another file")
    table = query("SELECT * FROM data", {"data": config.data})
    predictions = model.predict(table)
    for name in predictions.column_names:
        column = name
        while column in table.column_names:
            column += "_"
        table = table.append_column(column, predictions[name])
    if config.out is None:
        from pyarrow import csv

        csv.write_csv(table, sys.stdout.buffer)
        return
    print(f"wrote {config.out}: {write_table(table, config.out)} rows, predictions of {model.target!r}")


def _model_file(run: Path) -> Path:
    from fullspan.pipelines.fitting import MODEL_FILE

    if run.is_dir() and not (run / MODEL_FILE).exists():
        raise CheckpointError(
            f"{run} holds no {MODEL_FILE}", "give the directory of a finished `fullspan fit`"
        )
    return run / MODEL_FILE if run.is_dir() else run
