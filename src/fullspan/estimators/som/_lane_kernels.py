# mypy: allow-untyped-decorators, allow-untyped-calls
"""Online steps in float32, 32 units side by side in two vectors.

`lanes[block, feature, lane]` is the weight of unit ``32 * block + lane``; the last block is filled up.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fullspan.core.kernels import FINITE_ANY_ORDER, helper, kernel
from fullspan.core.simd import address, load_float32, spread_float32, store
from fullspan.core.simd_products import multiply_add
from fullspan.estimators.som._kernels import _neighborhood

BLOCK = 32
_FAST: Any = {"fastmath": FINITE_ANY_ORDER, "counts_references": False}


@helper(**_FAST)
def _pass(row: Any, following: Any, lanes: Any, share: Any, squares: Any) -> None:
    """Move all units towards a row, each by its share; `squares` gets their distances from the next row."""
    n_features = len(row)
    for block in range(len(lanes)):
        place, g = address(lanes) + block * n_features * 128, address(share) + block * 128
        share_0, share_1 = load_float32(g), load_float32(g + 64)
        total_0, total_1 = spread_float32(np.float32(0)), spread_float32(np.float32(0))
        for f in range(n_features):
            x, after = spread_float32(row[f]), spread_float32(following[f])
            w_0, w_1 = load_float32(place), load_float32(place + 64)
            w_0 = multiply_add(share_0, x - w_0, w_0)
            w_1 = multiply_add(share_1, x - w_1, w_1)
            store(place, w_0)
            store(place + 64, w_1)
            d_0, d_1 = after - w_0, after - w_1
            total_0, total_1 = multiply_add(d_0, d_0, total_0), multiply_add(d_1, d_1, total_1)
            place += 128
        out = address(squares) + block * 128
        store(out, total_0)
        store(out + 64, total_1)


@helper(**_FAST)
def _least(squares: Any, n_units: int) -> int:
    """The first of the nearest units."""
    least = squares[0]
    for unit in range(n_units):
        least = min(least, squares[unit])
    for unit in range(n_units):
        if squares[unit] == least:
            return unit
    return 0


@kernel(**_FAST)
def online_steps_in_lanes(
    rows: Any,
    winners: Any,
    lanes: Any,
    rates: Any,
    spreads: Any,
    kind: int,
    shape: Any,
    along_x: Any,
    along_y: Any,
    near: Any,
    share: Any,
    squares: Any,
) -> None:
    """As `online_steps`, of Euclidean distances without gaps."""
    last, n_units = len(rows) - 1, len(near)
    share[:] = np.float32(0)
    _pass(rows[0], rows[0], lanes, share, squares)
    for t in range(len(rows)):
        if winners[t] < 0:
            winners[t] = _least(squares, n_units)
        _neighborhood(winners[t], spreads[t], kind, shape, along_x, along_y, near)
        for unit in range(n_units):
            share[unit] = np.float32(rates[t] * near[unit])
        _pass(rows[t], rows[min(t + 1, last)], lanes, share, squares)
