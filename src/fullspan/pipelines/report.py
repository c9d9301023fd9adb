"""The report of a run: one HTML file that stands alone, plots inside."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jinja2
import pyarrow
import pyarrow.json
import pyarrow.parquet
from pydantic import Field

from fullspan._version import __version__
from fullspan.core.config import Argument, Config, InputPath, read_yaml
from fullspan.core.errors import RunError
from fullspan.core.files import replacing
from fullspan.core.runs import read_metrics
from fullspan.pipelines.fit_report import (
    columns_table,
    fit_figures,
    fit_plots,
    fitted_from,
    leaderboard,
    remarks,
)
from fullspan.pipelines.plots import Plot, as_svg, new_figure
from fullspan.pipelines.recipe import closing_lines, read_json, step_records

_PREVIEW_ROWS = 3
_MOST_COLUMNS = 200
_CELL_CHARACTERS = 600


class ReportConfig(Config):
    """Options of `fullspan report`."""

    run: Annotated[InputPath, Argument()] = Field(description="The run directory.")


@dataclass(frozen=True)
class Table:
    """The first rows of a file that the run made."""

    name: str
    caption: str
    columns: list[str]
    rows: list[list[str]]


def write_report(run_path: Path) -> Path:
    """Write `report.html` into a run directory from what it holds.

    Metrics become curves and figures, a `fullspan evaluate` result becomes samples side by side,
    tables are previewed, and the steps are listed with the commands that repeat them.

    Returns
    -------
    pathlib.Path
        The report.

    Raises
    ------
    RunError
        If the directory is no run: it holds neither steps nor metrics.
    """
    metrics = {file.parent: read_metrics(file) for file in _below(run_path, "metrics.jsonl")}
    steps = step_records(run_path)
    if not metrics and not steps:
        raise RunError(
            f"{run_path} is not a run directory", "give one that holds metrics.jsonl or steps.json"
        )
    config = _config(run_path)
    evaluation = _read_object(run_path / "evaluation.json")
    fit = _read_object(run_path / "fit.json")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fullspan.pipelines", "."),
        autoescape=True,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    html = environment.get_template("report.html.jinja").render(
        title=config.get("name") or run_path.name,
        description=config.get("description") or (fitted_from(fit) if fit else ""),
        figures=[*(fit_figures(fit) if fit else ()), *_figures(metrics, evaluation)],
        plots=[
            *(fit_plots(run_path, fit) if fit else ()),
            *(plot for path, lines in metrics.items() for plot in _plots(path, lines)),
        ],
        samples=evaluation.get("samples", []),
        leaderboard=list(_leaderboard(fit)),
        tables=[*_columns(fit), *_previews(run_path)],
        steps=[step for step in steps if step["state"] == "done"],
        closing=[*closing_lines(run_path), *([fit["command"]] if fit else [])],
        version=__version__,
        path=run_path,
    )
    report = run_path / "report.html"
    with replacing(report) as beside:
        beside.write_text(html, encoding="utf-8")
    return report


def _below(run_path: Path, name: str) -> list[Path]:
    return sorted([*run_path.glob(name), *run_path.glob(f"*/{name}")])


def _config(run_path: Path) -> dict[str, Any]:
    file = run_path / "config.yaml"
    return read_yaml(file) if file.exists() else {}


def _read_object(file: Path) -> dict[str, Any]:
    return dict(read_json(file)) if file.exists() else {}


def _leaderboard(fit: dict[str, Any]) -> Iterator[Table]:
    if fit:
        columns, rows = leaderboard(fit)
        caption = (
            f"Means over {fit['folds']} folds; no row is predicted by a model that was fitted on it. The "
            "first score decides (± its standard deviation over the folds). The best of several looks a "
            "little better than it is."
        )
        notes = [f"{note[0].upper()}{note[1:]}." for note in remarks(fit)]
        yield Table("Leaderboard", " ".join([caption, *notes]), columns, rows)


def _columns(fit: dict[str, Any]) -> Iterator[Table]:
    if fit:
        columns, rows = columns_table(fit)
        shown = rows[:_MOST_COLUMNS]
        more = f" The first {len(shown)} of {len(rows):,}." if len(rows) > len(shown) else ""
        yield Table(
            "Columns", f"What each column was taken for, by its type and content.{more}", columns, shown
        )


def _figures(
    metrics: dict[Path, list[dict[str, Any]]], evaluation: dict[str, Any]
) -> Iterator[tuple[str, str]]:
    """Label and value of the numbers that a reader looks for first."""
    before, after = evaluation.get("before"), evaluation.get("after")
    if before and after:
        yield "held-out perplexity before", f"{before['perplexity']:.2f}"
        yield "held-out perplexity after", f"{after['perplexity']:.2f}"
        yield "held-out loss (nats a token)", f"{before['loss']:.3f} → {after['loss']:.3f}"
    for lines in metrics.values():
        trained = [line for line in lines if "supervised_tokens" in line]
        if not trained:
            continue
        yield "tokens trained on", f"{sum(line['tokens'] for line in trained):,}"
        yield "of them supervised", f"{sum(line['supervised_tokens'] for line in trained):,}"
        rates = sorted(line["supervised_tokens_per_second"] for line in trained)
        yield "supervised tokens a second (median)", f"{rates[len(rates) // 2]:,.0f}"
        yield "peak memory", f"{max(line['peak_rss_mib'] for line in trained):,.0f} MiB"


def _plots(path: Path, lines: list[dict[str, Any]]) -> Iterator[Plot]:
    train = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    held_out = [(line["step"], line["eval_loss"]) for line in lines if "eval_loss" in line]
    if train:
        caption = "Mean loss of a supervised token, in nats. Held-out examples are never trained on."
        curves = {"training batch": train, "held out": held_out}
        yield Plot(f"Loss ({path.name})", caption, _curves(curves, "loss (nats a token)"))
    speed = [(line["step"], line["tokens_per_second"]) for line in lines if "tokens_per_second" in line]
    memory = [(line["step"], line["peak_rss_mib"]) for line in lines if "peak_rss_mib" in line]
    if speed and memory:
        caption = "Tokens (supervised or not) a second, and the most memory that the process has held."
        svg = _curves({"tokens a second": speed, "peak memory (MiB)": memory}, "")
        yield Plot(f"Speed and memory ({path.name})", caption, svg)


def _curves(curves: dict[str, list[tuple[int, float]]], label: str) -> str:
    figure, axes = new_figure()
    for name, points in curves.items():
        if points:
            steps, values = zip(*points, strict=True)
            axes.plot(steps, values, label=name, marker="o" if len(points) < 20 else None, markersize=4)
    axes.set(xlabel="optimiser step", ylabel=label)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    return as_svg(figure)


def _previews(run_path: Path) -> Iterator[Table]:
    for suffix in ("parquet", "jsonl"):
        for file in sorted(run_path.glob(f"*.{suffix}")):
            # Metrics are shown as curves; an empty or foreign file is nothing to look at.
            if file.name != "metrics.jsonl" and file.stat().st_size:
                with contextlib.suppress(pyarrow.ArrowInvalid):
                    yield _preview(file)


def _preview(file: Path) -> Table:
    if file.suffix == ".parquet":
        table = pyarrow.parquet.read_table(file)
    else:
        table = pyarrow.json.read_json(file)
    rows = table.slice(0, _PREVIEW_ROWS).to_pylist()
    caption = f"{table.num_rows:,} rows; the first {len(rows)}."
    cells = [[_cell(row[column]) for column in table.column_names] for row in rows]
    return Table(file.name, caption, table.column_names, cells)


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _CELL_CHARACTERS else text[:_CELL_CHARACTERS] + " …"
