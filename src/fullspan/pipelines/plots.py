"""Plots as SVG text, to stand inside a report."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Plot:
    """A plot as SVG text, with what to read from it."""

    title: str
    caption: str
    svg: str


def new_figure(n_columns: int = 1, height: float = 3.2) -> tuple[Any, list[Any]]:
    """A figure with axes side by side, in matplotlib's object interface: no global state, no display."""
    import matplotlib

    matplotlib.use("svg")
    # Text stays text: smaller, and it can be searched and read aloud.
    matplotlib.rcParams["svg.fonttype"] = "none"
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, height), layout="constrained")
    axes = figure.subplots(1, n_columns, squeeze=False)[0]
    for one in axes:
        one.grid(alpha=0.3)
    return figure, list(axes)


def as_svg(figure: Any) -> str:
    """The figure's <svg> element: an XML prologue has no place inside HTML."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]
