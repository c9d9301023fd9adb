"""Loops of self-organizing maps: neighbourhoods, online steps, exact distances, and the nearest of near ones.

Units are numbered ``column * y + row``, as a C array of shape (x, y) has them. `known` is 1.0 where a row has
a value and 0.0 where it is missing; without gaps nobody looks at it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fullspan.core.kernels import FINITE_ANY_ORDER, helper, kernel

GAUSSIAN, MEXICAN_HAT, BUBBLE, TRIANGLE = range(4)
EUCLIDEAN, COSINE, MANHATTAN, CHEBYSHEV = range(4)
_FAST: Any = {"fastmath": FINITE_ANY_ORDER, "counts_references": False}
_FAR = np.finfo(np.float64).max
_TINY = 1e-8  # no cosine is of nothing


@helper(**_FAST)
def _along(steps: float, spread: float, kind: int) -> float:
    """A neighbourhood's factor for a distance along one axis."""
    if kind == BUBBLE:
        return 1.0 if steps < spread else 0.0
    if kind == TRIANGLE:
        return max(0.0, 1.0 - steps / spread)
    return np.exp(-0.5 * (steps / spread) ** 2)  # type: ignore[no-any-return]


@helper(**_FAST)
def _round(kind: int, square: float, spread: float) -> float:
    """The bubble or triangle of a hexagonal map: a disc, a cone."""
    if kind == BUBBLE:
        return 1.0 if square < spread * spread else 0.0
    return max(0.0, 1.0 - np.sqrt(square) / spread)  # type: ignore[no-any-return]


@helper(**_FAST)
def _around(steps: int, size: int, periodic: bool) -> int:
    """How far that is, by the shorter way around where edges meet."""
    steps = abs(steps)
    return min(steps, size - steps) if periodic else steps


@helper(**_FAST)
def _neighborhood(
    unit: int, spread: float, kind: int, shape: Any, along_x: Any, along_y: Any, out: Any
) -> None:
    """How much each unit learns when `unit` wins.

    Distances along x count in halves, since odd rows of hexagons are shifted by one.
    """
    x, y, hexagonal, periodic = shape
    column, row = unit // y, unit % y
    height = np.sqrt(0.75) if hexagonal else 1.0
    for half in range(0, 2 * x, 1 if hexagonal else 2):
        along_x[half] = _along(0.5 * half, spread, kind)
    for step in range(y):
        along_y[step] = _along(height * step, spread, kind)
    for j in range(y):
        along_y[y + j] = along_y[_around(j - row, y, periodic)]
    for i in range(x):
        half = 2 * (i - column) - (row % 2 if hexagonal else 0)  # to even rows
        even = _around(half, 2 * x, periodic)
        odd = _around(half + 1, 2 * x, periodic) if hexagonal else even
        factor_even, factor_odd = along_x[even], along_x[odd]
        for j in range(y):
            out[i * y + j] = (factor_odd if j % 2 else factor_even) * along_y[y + j]
        if kind == MEXICAN_HAT or (hexagonal and kind != GAUSSIAN):
            for j in range(y):
                half, step = odd if j % 2 else even, _around(j - row, y, periodic)
                square = 0.25 * half * half + (0.75 if hexagonal else 1.0) * step * step  # exact
                if kind == MEXICAN_HAT:
                    out[i * y + j] *= 1.0 - square / (spread * spread)
                else:
                    out[i * y + j] = _round(kind, square, spread)


@kernel(**_FAST)
def fill_neighborhoods(
    first: int, spread: float, kind: int, shape: Any, along_x: Any, along_y: Any, out: Any
) -> None:
    """One row of `out` for each unit from `first` on: how much all units learn when it wins."""
    for i in range(len(out)):
        _neighborhood(first + i, spread, kind, shape, along_x, along_y, out[i])


@helper(**_FAST)
def _squares(row: Any, known: Any, weights: Any, gaps: bool) -> float:
    total = 0.0
    if gaps:
        for f in range(len(row)):
            difference = known[f] * (row[f] - weights[f])
            total += difference * difference
    else:
        for f in range(len(row)):
            difference = row[f] - weights[f]
            total += difference * difference
    return total


@helper(**_FAST)
def _cosine(row: Any, known: Any, weights: Any, gaps: bool) -> float:
    product, ours, theirs = 0.0, 0.0, 0.0
    for f in range(len(row)):
        weight = known[f] * weights[f] if gaps else weights[f]
        product += row[f] * weight
        ours += row[f] * row[f]
        theirs += weight * weight
    return 1.0 - product / (np.sqrt(ours) * np.sqrt(theirs) + _TINY)  # type: ignore[no-any-return]


@helper(**_FAST)
def _distance(row: Any, known: Any, weights: Any, metric: int, gaps: bool) -> float:
    """What orders the units; of the Euclidean distance, its square. Missing entries of rows are zero."""
    if metric == EUCLIDEAN:
        return _squares(row, known, weights, gaps)  # type: ignore[no-any-return]
    if metric == COSINE:
        return _cosine(row, known, weights, gaps)  # type: ignore[no-any-return]
    total = 0.0
    for f in range(len(row)):
        difference = abs(row[f] - weights[f])
        if gaps:
            difference *= known[f]
        total = total + difference if metric == MANHATTAN else max(total, difference)
    return total


@helper(**_FAST)
def _pull(row: Any, known: Any, weights: Any, share: float, following: Any, gaps: bool) -> float:
    """Move a unit's weights towards a row; returns their squared distance from the row that follows."""
    total = 0.0
    if gaps:
        for f in range(len(row)):
            weights[f] += share * known[f] * (row[f] - weights[f])
    else:
        for f in range(len(row)):
            moved = weights[f] + share * (row[f] - weights[f])
            weights[f] = moved
            difference = following[f] - moved
            total += difference * difference
    return total


@kernel(**_FAST)
def online_steps(
    rows: Any,
    known: Any,
    winners: Any,
    weights: Any,
    rates: Any,
    spreads: Any,
    kind: int,
    metric: int,
    gaps: bool,
    shape: Any,
    along_x: Any,
    along_y: Any,
    share: Any,
) -> None:
    """A step for each row. `winners` has the units that must win or -1, and gets those that won.

    The pass over the weights that one row moves also finds the nearest unit of the next row.
    """
    best, least = 0, _FAR
    fused = metric == EUCLIDEAN and not gaps
    for unit in range(len(weights)):
        d = _distance(rows[0], known[0], weights[unit], metric, gaps)
        if d < least:
            best, least = unit, d
    for t in range(len(rows)):
        if winners[t] < 0:
            winners[t] = best
        _neighborhood(winners[t], spreads[t], kind, shape, along_x, along_y, share)
        best, least = 0, _FAR
        after = min(t + 1, len(rows) - 1)
        seen = t if gaps else 0
        seen_after = after if gaps else 0
        for unit in range(len(weights)):
            d = _pull(rows[t], known[seen], weights[unit], rates[t] * share[unit], rows[after], gaps)
            if not fused:
                d = _distance(rows[after], known[seen_after], weights[unit], metric, gaps)
            if d < least:
                best, least = unit, d


@kernel(**_FAST)
def all_distances(rows: Any, known: Any, weights: Any, metric: int, gaps: bool, out: Any) -> None:
    """`out[row, unit]`: the distance, of the Euclidean one its square."""
    for i in range(len(rows)):
        for unit in range(len(weights)):
            out[i, unit] = _distance(rows[i], known[i if gaps else 0], weights[unit], metric, gaps)


@kernel(**_FAST)
def nearest_of(
    scores: Any, slack: Any, rows: Any, known: Any, weights: Any, gaps: bool, unit: Any, square: Any
) -> None:
    """The nearest unit of each row, the first of equal ones, and its squared distance.

    `scores` are rounded: every unit whose score is within the row's slack of the least is measured exactly.
    """
    for i in range(len(scores)):
        least = scores[i, 0]
        for u in range(scores.shape[1]):
            least = min(least, scores[i, u])
        limit = least + slack[i]
        square[i] = _FAR
        for u in range(scores.shape[1]):
            if scores[i, u] <= limit:
                d = _squares(rows[i], known[i if gaps else 0], weights[u], gaps)
                if d < square[i]:
                    unit[i], square[i] = u, d


@kernel(**_FAST)
def add_rows(rows: Any, known: Any, unit: Any, gaps: bool, sums: Any, counts: Any) -> None:
    """Add each row to its unit's sum. Where rows have gaps, `counts` is by feature."""
    for i in range(len(rows)):
        u = unit[i]
        for f in range(rows.shape[1]):
            sums[u, f] += rows[i, f]
        if gaps:
            for f in range(rows.shape[1]):
                counts[u, f] += known[i, f]
        else:
            counts[u, 0] += 1.0
