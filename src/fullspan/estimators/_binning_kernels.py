# mypy: allow-untyped-decorators, allow-untyped-calls
"""Codes of float32 values: which of up to 255 intervals (or categories) each one is in.

Shapes: n rows, F features in G groups of W ≤ 16; a table [G, 16, 256] holds each feature's cuts (or
categories), ascending, and infinity after them; ends [G, 16, 16] holds every 16th of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fullspan.core.kernels import helper, kernel
from fullspan.core.simd import address, count, load_float32, spread_float32

_ROWS = 512  # that a thread takes in turn


@kernel()
def find_infinity(thread: int, n_threads: int, X: Any, out: Any) -> None:
    """out[thread, f] = 1 where a column has an infinite value."""
    for first in range(thread * _ROWS, len(X), n_threads * _ROWS):
        for i in range(first, min(first + _ROWS, len(X))):
            for f in range(X.shape[1]):
                out[thread, f] |= np.uint8(abs(X[i, f]) == np.inf)


@helper()
def _place_of(x: Any, ends: int, entries: int) -> Any:
    """How many of a feature's 256 entries are less than a value, and where the 16 stand that it is among."""
    value = spread_float32(x)
    part = entries + 64 * count(load_float32(ends) < value)
    return ((part - entries) >> 2) + count(load_float32(part) < value), part


@helper()
def write_codes_of_group(
    X: Any, first: int, n_rows: int, ends: Any, table: Any, lanes: Any, n_lanes: int, unknown: int, out: Any
) -> None:
    """out uint8 [n_rows, ≥ n_lanes] = codes of n_rows rows of X from the first on.

    lanes int32 [3, 16]: which column a lane's value is in, whether it is a category (its code is `unknown`
    where it equals no entry), and the code of NaN.
    """
    n_categorical = 0
    for lane in range(n_lanes):
        n_categorical += lanes[1, lane]
    for i in range(n_rows):
        for lane in range(n_lanes):
            x = X[first + i, lanes[0, lane]]
            place, _ = _place_of(x, address(ends) + 64 * lane, address(table) + 1024 * lane)
            out[i, lane] = place if x == x else lanes[2, lane]
    if n_categorical == 0:
        return
    for i in range(n_rows):
        for lane in range(n_lanes):
            x = np.floor(X[first + i, lanes[0, lane]])
            if lanes[1, lane] != 0 and x == x:
                place, part = _place_of(x, address(ends) + 64 * lane, address(table) + 1024 * lane)
                known = count(load_float32(part) == spread_float32(x)) != 0
                out[i, lane] = place if known else unknown


@kernel()
def write_codes(
    thread: int, n_threads: int, X: Any, ends: Any, table: Any, lanes: Any, width: int, unknown: int, out: Any
) -> None:
    """out uint8 [F, n] = codes of X [n, F]; lanes int32 [G, 3, 16] as for `write_codes_of_group`."""
    n, n_features = X.shape
    buffer = np.empty((_ROWS, 16), np.uint8)
    for first in range(thread * _ROWS, n, n_threads * _ROWS):
        n_rows = min(_ROWS, n - first)
        for group in range(len(table)):
            n_lanes = min(width, n_features - group * width)
            write_codes_of_group(
                X, first, n_rows, ends[group], table[group], lanes[group], n_lanes, unknown, buffer
            )
            for f in range(n_lanes):
                column = out[group * width + f]
                for i in range(n_rows):
                    column[first + i] = buffer[i, f]


@kernel()
def write_blocks(
    thread: int, n_threads: int, X: Any, ends: Any, table: Any, lanes: Any, width: int, unknown: int, out: Any
) -> None:
    """out uint8 [G, N, 16] = codes of X [n, F], those of W features of a row beside each other."""
    n, n_features = X.shape
    for first in range(thread * _ROWS, n, n_threads * _ROWS):
        for group in range(len(table)):
            n_lanes = min(width, n_features - group * width)
            rows = out[group, first : first + _ROWS]
            n_rows = min(_ROWS, n - first)
            write_codes_of_group(
                X, first, n_rows, ends[group], table[group], lanes[group], n_lanes, unknown, rows
            )
