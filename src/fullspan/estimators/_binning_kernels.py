# mypy: allow-untyped-decorators, allow-untyped-calls
"""Codes of float32 values: a binary search of 16 features of a row at a time.

Shapes: n rows, F features in G groups of W ≤ 16; a table [G, 16, 256] holds each feature's cuts (or categories),
ascending, and infinity after them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fullspan.core.kernels import helper, kernel
from fullspan.core.simd import (
    address,
    gather_float32,
    lane_numbers,
    load_int32,
    select,
    spread_int32,
    store_bytes,
)

_ROWS = 512  # that a thread takes in turn
_ENTRIES = 256
_FOUR = np.int32(2)  # as a shift: bytes of a float32


@kernel()
def find_infinity(thread: int, n_threads: int, X: Any, out: Any) -> None:
    """out[thread, f] = 1 where a column has an infinite value."""
    for first in range(thread * _ROWS, len(X), n_threads * _ROWS):
        for i in range(first, min(first + _ROWS, len(X))):
            for f in range(X.shape[1]):
                out[thread, f] |= np.uint8(abs(X[i, f]) == np.inf)


@helper()
def _codes(row: int, table: int, is_category: int, last_lane: int, unknown: Any, missing: Any) -> Any:
    """Codes of 16 values that stand one after another.

    row, table, is_category : addresses of the values, of the group's table [16, 256], and of 16 int32
    """
    lanes = lane_numbers()
    inside = select(lanes < np.int32(last_lane), lanes, spread_int32(np.int32(last_lane)))
    x = gather_float32(row, inside << _FOUR)
    start = lanes * np.int32(_ENTRIES)
    found = start
    # How many entries are less than x: the answer's bits, the highest first.
    for bit in range(7, -1, -1):
        step = np.int32(1) << np.int32(bit)
        entry = gather_float32(table, (found + (step - np.int32(1))) << _FOUR)
        found = select(x > entry, found + step, found)
    code = found - start
    category = load_int32(is_category) != np.int32(0)
    differs = ~(gather_float32(table, found << _FOUR) == x)
    code = select(category & differs, spread_int32(np.int32(unknown)), code)
    return select(x == x, code, spread_int32(np.int32(missing)))


@kernel()
def write_codes(
    thread: int,
    n_threads: int,
    X: Any,
    table: Any,
    is_category: Any,
    width: int,
    unknown: int,
    missing: int,
    out: Any,
) -> None:
    """out uint8 [F, n] = codes of X [n, F]; is_category int32 [G, 16]."""
    n, n_features = X.shape
    buffer = np.empty((_ROWS, 16), np.uint8)
    for first in range(thread * _ROWS, n, n_threads * _ROWS):
        n_rows = min(_ROWS, n - first)
        for group in range(len(table)):
            feature = group * width
            n_here = min(width, n_features - feature)
            for i in range(n_rows):
                row = address(X) + 4 * ((first + i) * n_features + feature)
                codes = _codes(
                    row, address(table[group]), address(is_category[group]), n_here - 1, unknown, missing
                )
                store_bytes(address(buffer) + 16 * i, codes)
            for f in range(n_here):
                column = out[feature + f]
                for i in range(n_rows):
                    column[first + i] = buffer[i, f]


@kernel()
def write_blocks(
    thread: int,
    n_threads: int,
    X: Any,
    table: Any,
    is_category: Any,
    width: int,
    unknown: int,
    missing: int,
    out: Any,
) -> None:
    """out uint8 [G, N, 16] = codes of X [n, F], those of W features of a row beside each other."""
    n, n_features = X.shape
    for first in range(thread * _ROWS, n, n_threads * _ROWS):
        for group in range(len(table)):
            feature = group * width
            n_here = min(width, n_features - feature)
            block = address(out[group])
            for i in range(first, min(first + _ROWS, n)):
                row = address(X) + 4 * (i * n_features + feature)
                codes = _codes(
                    row, address(table[group]), address(is_category[group]), n_here - 1, unknown, missing
                )
                store_bytes(block + 16 * i, codes)
