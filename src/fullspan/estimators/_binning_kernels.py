# mypy: allow-untyped-decorators, allow-untyped-calls
"""Codes of float32 values: a binary search of 16 features of a row at a time.

Shapes: n rows, F features in G groups of W ≤ 16; a table [G, 16, 256] holds each feature's cuts (or
categories), ascending, and infinity after them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fullspan.core.kernels import helper, kernel
from fullspan.core.simd import (
    address,
    floor,
    gather_float32,
    lane_numbers,
    load_int32,
    select,
    spread_int32,
    store_bytes,
)

_ROWS = 512  # that a thread takes in turn
_ENTRY_BITS, _FLOAT_BITS = np.int32(8), np.int32(2)  # as shifts: 256 entries, 4 bytes


@kernel()
def find_infinity(thread: int, n_threads: int, X: Any, out: Any) -> None:
    """out[thread, f] = 1 where a column has an infinite value."""
    for first in range(thread * _ROWS, len(X), n_threads * _ROWS):
        for i in range(first, min(first + _ROWS, len(X))):
            for f in range(X.shape[1]):
                out[thread, f] |= np.uint8(abs(X[i, f]) == np.inf)


@helper()
def codes_of_lanes(row: int, table: int, lanes: int, unknown: Any) -> Any:
    """Codes of 16 features of a row: how many of a feature's entries are less than its value.

    row, table, lanes : addresses of the row, of the group's table [16, 256], and of what is known of the
    lanes, int32 [3, 16]: where a lane's value stands in the row in bytes, whether it is a category (its code
    is `unknown` where it equals no entry), and the code of NaN.
    """
    category = load_int32(lanes + 64) != np.int32(0)
    x = gather_float32(row, load_int32(lanes))
    x = select(category, floor(x), x)
    start = lane_numbers() << _ENTRY_BITS
    found = start
    # The answer's bits, the highest first.
    for bit in range(7, -1, -1):
        step = np.int32(1) << np.int32(bit)
        entry = gather_float32(table, (found + (step - np.int32(1))) << _FLOAT_BITS)
        found = select(x > entry, found + step, found)
    code = found - start
    differs = ~(gather_float32(table, found << _FLOAT_BITS) == x)
    code = select(category & differs, spread_int32(np.int32(unknown)), code)
    return select(x == x, code, load_int32(lanes + 128))


@kernel()
def write_codes(
    thread: int, n_threads: int, X: Any, table: Any, lanes: Any, width: int, unknown: int, out: Any
) -> None:
    """out uint8 [F, n] = codes of X [n, F]; lanes int32 [G, 3, 16] as for `codes_of_lanes`."""
    n, n_features = X.shape
    buffer = np.empty((_ROWS, 16), np.uint8)
    for first in range(thread * _ROWS, n, n_threads * _ROWS):
        n_rows = min(_ROWS, n - first)
        for group in range(len(table)):
            entries, known = address(table[group]), address(lanes[group])
            for i in range(n_rows):
                row = address(X) + 4 * n_features * (first + i)
                store_bytes(address(buffer) + 16 * i, codes_of_lanes(row, entries, known, unknown))
            for f in range(min(width, n_features - group * width)):
                column = out[group * width + f]
                for i in range(n_rows):
                    column[first + i] = buffer[i, f]


@kernel()
def write_blocks(thread: int, n_threads: int, X: Any, table: Any, lanes: Any, unknown: int, out: Any) -> None:
    """out uint8 [G, N, 16] = codes of X [n, F], those of W features of a row beside each other."""
    n, n_features = X.shape
    for first in range(thread * _ROWS, n, n_threads * _ROWS):
        for group in range(len(table)):
            entries, known, block = address(table[group]), address(lanes[group]), address(out[group])
            for i in range(first, min(first + _ROWS, n)):
                row = address(X) + 4 * n_features * i
                store_bytes(block + 16 * i, codes_of_lanes(row, entries, known, unknown))
