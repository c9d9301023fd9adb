"""Learn to predict a column of a table: compare estimators, keep the best, report."""

from __future__ import annotations

import sys
from pathlib import Path

from fullspan.pipelines.fit_config import FitConfig


def command(config: FitConfig) -> None:
    """Learn to predict a column of a table: compare estimators, keep the best, report.

    \b
      fullspan fit people.parquet --target income
      fullspan fit people.csv --target left --model all --ignore exit_date
      fullspan fit sales.csv --target units --order-by day
      fullspan fit --run runs/20261122-093000-fit --resume

    What each column is (number, category, time) is inferred. Every estimator is fitted on some parts of the
    rows and measured on the others; the best is fitted on all rows and kept, with a report. Ctrl-C loses no
    finished fit: --run DIRECTORY --resume goes on.
    """
    from fullspan.pipelines.fitting import FitStopped, fit, resume_command

    try:
        path = fit(config)
    except FitStopped as stopped:
        fits = f"{stopped.kept} finished fit{'' if stopped.kept == 1 else 's'}"
        print(f"stopped; {stopped.run} keeps {fits}", file=sys.stderr)
        print(f"go on with: {resume_command(stopped.run)}", file=sys.stderr)
        raise SystemExit(130) from None
    _show(path)


def _show(path: Path) -> None:
    import json

    from fullspan.pipelines.fit_report import leaderboard, remarks
    from fullspan.pipelines.fitting import MODEL_FILE

    found = json.loads((path / "fit.json").read_text("utf-8"))
    columns, rows = leaderboard(found)
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
    for row in [columns, *rows]:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        print("  ".join([row[0].ljust(widths[0]), *cells]))
    kept = f"fitted on all {found['n_rows']:,} rows"
    print(f"best: {found['best']}, by {columns[1]} over {found['folds']} folds; {kept}")
    for line in remarks(found):
        print(f"note: {line}")
    print(f"model:  {path / MODEL_FILE}")
    print(f"report: {path / 'report.html'}")
    print(f"predict with it: {found['command']}")
