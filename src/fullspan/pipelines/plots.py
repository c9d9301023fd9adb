"""Plots as SVG text, to stand inside a report."""

from __future__ import annotations

import io
import re
import unicodedata
from dataclasses import dataclass
from typing import Any

# Black in matplotlib; in the page it is the colour of the text, so that plots suit a dark page too.
_INK = "#000000"
_LONGEST_NAME = 32


@dataclass(frozen=True)
class Plot:
    """A plot as SVG text (one <svg> a panel), with what to read from it."""

    title: str
    caption: str
    svg: str


def new_figure(width: float = 6.8, height: float = 3.2) -> tuple[Any, Any]:
    """A figure and its axes, in matplotlib's object interface: no global state, no display."""
    import matplotlib

    matplotlib.use("svg")
    # Text stays text: smaller, and it can be searched and read aloud.
    matplotlib.rcParams["svg.fonttype"] = "none"
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.subplots()
    axes.patch.set_alpha(0)
    axes.set_axisbelow(True)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def new_panels(height: float = 3.2) -> tuple[list[Any], list[Any]]:
    """Two figures that stand side by side where the page is wide enough, and their axes."""
    first, second = new_figure(4.2, height), new_figure(4.2, height)
    return [first[0], second[0]], [first[1], second[1]]


def as_svg(*figures: Any) -> str:
    """The figures' <svg> elements: an XML prologue has no place inside HTML."""
    return "".join(_element(figure) for figure in figures)


def _element(figure: Any) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()[text.getvalue().index("<svg") :].replace(_INK, "currentColor")
    # Names of the parts would be the same in every plot of a page; those that are referred to are not.
    return re.sub(r' id="(?:figure|axes|patch|matplotlib|text|line2d|legend|xtick|ytick)[\w.]*"', "", svg)


def shown_name(name: str) -> str:
    """A column's or a class's name as a label: one line, not too long, nothing taken for mathematics.

    Examples
    --------
    >>> shown_name("price in $ or $$")
    'price in \\\\$ or \\\\$\\\\$'
    >>> shown_name("a" * 40)
    'aaaaaaaaaaaaaaaaaaaaaa…aaaaaaaaa'
    """
    plain = "".join(" " if unicodedata.category(c).startswith("C") else c for c in name)
    if len(plain) > _LONGEST_NAME:
        plain = f"{plain[: _LONGEST_NAME - 10]}…{plain[-9:]}"
    return plain.replace("$", r"\$")
