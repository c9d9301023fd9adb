# mypy: allow-untyped-decorators, allow-untyped-calls
"""Distances from one point to 16 points, or to 16 boxes, at once.

All are p-th powers of distances (of the maximum norm: distances), summed in scipy's order. Each bound takes
the same steps as the distance to a point inside the box, and rounding never reverses an order: so no bound
lies beyond a distance that it bounds, not even by the last bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fullspan.core.kernels import helper
from fullspan.core.simd import LANES, address, load_float64, select, spread_float64, store

MAXIMUM, MANHATTAN, EUCLIDEAN, OTHER = 0, 1, 2, 3  # the norms for p = inf, 1, 2 and any other
VECTOR_BYTES = 8 * LANES
BOX_BYTES = 2 * VECTOR_BYTES  # of a node and a dimension: 16 lower ends, then 16 upper ends


@helper(counts_references=False)
def greater(a: Any, b: Any) -> Any:
    """The greater of the lanes of two vectors."""
    return select(a > b, a, b)


@helper(counts_references=False)
def lesser(a: Any, b: Any) -> Any:
    """The lesser of the lanes of two vectors."""
    return select(a < b, a, b)


@helper(counts_references=False)
def absolute(a: Any) -> Any:
    """Without the sign."""
    return greater(a, spread_float64(0.0) - a)


@helper(counts_references=False)
def _to_power(x: Any, p: float, lanes: Any) -> Any:
    """Each lane to the power of p, by way of a row of 16 numbers in memory."""
    store(address(lanes), x)
    for lane in range(LANES):
        lanes[lane] = lanes[lane] ** p
    return load_float64(address(lanes))


@helper(counts_references=False)
def _add(total: Any, x: Any, norm: int, p: float, lanes: Any) -> Any:
    """A sum with one dimension's distance, which is not negative, added as the norm says."""
    if norm == EUCLIDEAN:
        return total + x * x
    if norm == MANHATTAN:
        return total + x
    if norm == MAXIMUM:
        return greater(total, x)
    return total + _to_power(x, p, lanes)


@helper(counts_references=False)
def point_distances(
    points: int, stride: int, q: Any, m: int, norm: int, p: float, periods: Any, lanes: Any
) -> Any:
    """To 16 points, whose numbers of a dimension lie side by side, `stride` bytes behind the last one's."""
    if norm == EUCLIDEAN and len(periods) == 0:
        return _squared_distances(points, stride, q, m)
    total = spread_float64(0.0)
    for j in range(m):
        x = absolute(load_float64(points + j * stride) - q[j])
        if len(periods) and periods[j] > 0:
            x = select(x > 0.5 * periods[j], periods[j] - x, x)
        total = _add(total, x, norm, p, lanes)
    return total


@helper(counts_references=False)
def _squared_distances(points: int, stride: int, q: Any, m: int) -> Any:
    a = b = c = d = spread_float64(0.0)
    whole = m - m % 4
    for j in range(0, whole, 4):
        w = load_float64(points + j * stride) - q[j]
        x = load_float64(points + (j + 1) * stride) - q[j + 1]
        y = load_float64(points + (j + 2) * stride) - q[j + 2]
        z = load_float64(points + (j + 3) * stride) - q[j + 3]
        a = a + w * w
        b = b + x * x
        c = c + y * y
        d = d + z * z
    total = a + b + c + d
    for j in range(whole, m):
        w = load_float64(points + j * stride) - q[j]
        total = total + w * w
    return total


@helper(counts_references=False)
def _least(low: Any, high: Any, x: float) -> Any:
    """From a number to 16 intervals."""
    return greater(greater(low - x, x - high), spread_float64(0.0))


@helper(counts_references=False)
def box_distances(boxes: int, q: Any, m: int, norm: int, p: float, periods: Any, lanes: Any) -> Any:
    """To the nearest places of 16 boxes; infinite for an empty one (from infinity to minus infinity)."""
    if norm == EUCLIDEAN and len(periods) == 0:
        return _squared_box_distances(boxes, q, m)
    total = spread_float64(0.0)
    for j in range(m):
        low = load_float64(boxes + j * BOX_BYTES)
        high = load_float64(boxes + j * BOX_BYTES + VECTOR_BYTES)
        x = _least(low, high, q[j])
        if len(periods) and periods[j] > 0:
            around = lesser(periods[j] - absolute(q[j] - low), periods[j] - absolute(high - q[j]))
            # No point is nearer than half of the way around unless its own difference is less than that.
            x = select(low > high, x, lesser(x, greater(around, spread_float64(0.0))))
        total = _add(total, x, norm, p, lanes)
    return total


@helper(counts_references=False)
def _squared_box_distances(boxes: int, q: Any, m: int) -> Any:
    a = b = c = d = spread_float64(0.0)
    whole = m - m % 4
    for j in range(0, whole, 4):
        place = boxes + j * BOX_BYTES
        w = _least(load_float64(place), load_float64(place + VECTOR_BYTES), q[j])
        place += BOX_BYTES
        x = _least(load_float64(place), load_float64(place + VECTOR_BYTES), q[j + 1])
        place += BOX_BYTES
        y = _least(load_float64(place), load_float64(place + VECTOR_BYTES), q[j + 2])
        place += BOX_BYTES
        z = _least(load_float64(place), load_float64(place + VECTOR_BYTES), q[j + 3])
        a = a + w * w
        b = b + x * x
        c = c + y * y
        d = d + z * z
    total = a + b + c + d
    for j in range(whole, m):
        place = boxes + j * BOX_BYTES
        w = _least(load_float64(place), load_float64(place + VECTOR_BYTES), q[j])
        total = total + w * w
    return total


@helper(counts_references=False)
def farthest_distances(boxes: int, q: Any, m: int, norm: int, p: float, periods: Any, lanes: Any) -> Any:
    """To the farthest corners of 16 boxes; infinite for an empty one."""
    total = spread_float64(0.0)
    a = b = c = d = total
    whole = m - m % 4 if norm == EUCLIDEAN and len(periods) == 0 else 0
    for j in range(m):
        low = load_float64(boxes + j * BOX_BYTES)
        high = load_float64(boxes + j * BOX_BYTES + VECTOR_BYTES)
        x = greater(absolute(low - q[j]), absolute(high - q[j]))
        if len(periods) and periods[j] > 0:
            x = select(low > high, x, lesser(x, spread_float64(0.5 * periods[j])))
        if j >= whole:
            total = _add(total, x, norm, p, lanes)
            continue
        # As for points: four sums for squares, which are added before the last dimensions.
        if j % 4 == 0:
            a = a + x * x
        elif j % 4 == 1:
            b = b + x * x
        elif j % 4 == 2:
            c = c + x * x
        else:
            d = d + x * x
        if j == whole - 1:
            total = a + b + c + d
    return total


@helper(counts_references=False)
def power(distance: float, norm: int, p: float) -> float:
    """A distance as these functions measure it."""
    if norm == EUCLIDEAN:
        return distance * distance
    return distance**p if norm == OTHER else distance


@helper(counts_references=False)
def root(power: float, norm: int, p: float) -> float:
    """The distance."""
    if norm == EUCLIDEAN:
        return np.sqrt(power)  # type: ignore[no-any-return]
    return power ** (1.0 / p) if norm == OTHER else power
