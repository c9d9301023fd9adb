"""What `fullspan fit` says about a table before it learns: what was inferred, and what may be otherwise."""

from __future__ import annotations

import shlex

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fullspan.estimators.cells import is_mark, without_marks
from fullspan.estimators.table import columns_by_name, is_text
from fullspan.pipelines.fit_config import FitConfig
from fullspan.pipelines.problem import Problem, count

_FEW_ROWS = 20
_CLASSES = ("-", "none")  # which are missing among numbers


def described(problem: Problem, config: FitConfig) -> list[str]:
    """What was inferred, in lines for a person."""
    n = len(problem.y)
    without = (
        f" ({count(problem.n_without_target, 'row')} without one left out)"
        if problem.n_without_target
        else ""
    )
    task = "regression" if problem.labels is None else f"classification, {len(problem.labels)} classes"
    lines = [f"target: {config.target!r}, {task}; {count(n, 'row')}{without}"]
    kinds = [column.kind for column in problem.encoder.columns]
    plurals = {"number": "numbers", "category": "categories", "time": "times"}
    found = [
        f"{kinds.count(kind)} {kind if kinds.count(kind) == 1 else plural}"
        for kind, plural in plurals.items()
        if kind in kinds
    ]
    lines.append(f"columns to learn from: {', '.join(found)}")
    lines += [f"left out {name!r}: {reason}" for name, reason in problem.left_out.items()]
    lines += _read_from_texts(problem)
    lines += _maybe_keys(problem)
    times = [column.name for column in problem.encoder.columns if column.kind == "time"]
    if times and config.order_by is None:
        lines.append(f"if new rows will be later than these, add --order-by {shlex.quote(times[0])}")
    labels = map(str, problem.labels or ())
    marks = [label for label in labels if is_mark(label) and label.lower() not in _CLASSES]
    if marks:
        lines.append(f"{marks[0]!r} is a class of {config.target!r}; leave such rows out if it is none")
    return lines


def _read_from_texts(problem: Problem) -> list[str]:
    """By the form of their texts: which columns were taken for numbers or times."""
    values = columns_by_name(problem.table)
    by_form: dict[tuple[str, str], list[str]] = {}
    for column in problem.encoder.columns:
        if column.form and is_text(values[column.name].type):
            by_form.setdefault((column.kind, column.form), []).append(column.name)
    lines = []
    for (kind, _), names in by_form.items():
        texts = values[names[0]]
        known = without_marks(texts).drop_null()
        example = max(known.slice(0, 1000).to_pylist(), key=len)
        shown = ", ".join(map(repr, names[:5])) + (" …" if len(names) > 5 else "")
        marks = [text for text in pc.unique(texts.drop_null()).to_pylist() if is_mark(text)]
        missing = f"; {marks[0]!r} is a missing value" if marks else ""
        lines.append(f"read as {kind}s: {shown}, such as {example!r}{missing}")
    return lines


def _maybe_keys(problem: Problem) -> list[str]:
    """Columns that may only number the rows: whole numbers, ascending by one."""
    values = columns_by_name(problem.table)
    names = []
    for column in problem.encoder.columns:
        numbers = values[column.name]
        if pa.types.is_integer(numbers.type) and not numbers.null_count and len(numbers) > _FEW_ROWS:
            steps = np.diff(numbers.to_numpy())
            if (steps > 0).all() and pc.max(numbers).as_py() - pc.min(numbers).as_py() < 2 * len(numbers):
                names.append(column.name)
    return [
        f"{name!r} ascends from row to row; if it only numbers them, add --ignore {shlex.quote(name)}"
        for name in names
    ]
