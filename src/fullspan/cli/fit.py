"""Learn to predict a column of a table: compare estimators, keep the best, report."""

from __future__ import annotations

import json

from fullspan.pipelines.fitting import FitConfig


def command(config: FitConfig) -> None:
    """Learn to predict a column of a table: compare estimators, keep the best, report.

    Ctrl-C loses no finished fit; the same command goes on with --run DIRECTORY --resume, where DIRECTORY is
    what it printed first.
    """
    from fullspan.pipelines.fitting import MODEL_FILE, fit

    path = fit(config)
    found = json.loads((path / "fit.json").read_text("utf-8"))
    for column, reason in found["left_out"].items():
        print(f"left out {column!r}: {reason}")
    names = list(found["leaderboard"][0]["scores"])
    print(f"{'model':<10}" + "".join(f"{name:>10}" for name in names) + f"{'seconds':>10}")
    for line in found["leaderboard"]:
        scores = "".join(f"{line['scores'][name]:>10.4f}" for name in names)
        print(f"{line['model']:<10}{scores}{line['seconds']:>10.1f}")
    rows = f"{found['n_rows']} rows"
    print(f"best:   {found['best']}, by {names[0]} over {config.folds} folds; fitted on all {rows}")
    print(f"model:  {path / MODEL_FILE}")
    print(f"report: {path / 'report.html'}")
    print(f"predict with it: fullspan predict {path} NEW_DATA")
