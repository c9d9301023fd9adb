# mypy: allow-untyped-decorators, allow-untyped-calls
"""Margins of many rows: values become codes once, then 64 rows at a time walk down trees of 4-byte nodes.

A node is a word: the left child's number in the upper 12 bits (the right child is the next one), the lane of
the codes that it looks at in the next 12, and in the lowest 8 the largest code that goes left. A leaf is its
own left child. With categories, a node has 256 bits besides: which codes go right.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fullspan.core.kernels import helper, kernel
from fullspan.core.simd import (
    address,
    count,
    gather_float32,
    gather_int32,
    lane_numbers,
    load_float32,
    select,
    spread_int32,
    store,
    store_bytes,
)
from fullspan.estimators._binning_kernels import codes_of_lanes

ROWS = 64  # that walk together
_BLOCK = 256
LANE_BITS, CHILD_BITS = 12, 12
_CODE = np.int32(255)
_LANE_SHIFT, _CHILD_SHIFT = np.int32(8), np.int32(20)
_LANE_MASK = np.int32(4095)
_WORD = np.int32(2)  # as a shift: 4 bytes
_SET = np.int32(5)  # as a shift: 32 bytes
_ONE = np.int32(1)


@helper()
def _step(at: Any, rows: Any, codes: int, nodes: int, sets: int) -> Any:
    """The next node of 16 rows; `rows` are the offsets of their codes."""
    node = gather_int32(nodes, at << _WORD)
    code = gather_int32(codes, rows + ((node >> _LANE_SHIFT) & _LANE_MASK)) & _CODE
    left = node >> _CHILD_SHIFT
    if sets != 0:
        word = gather_int32(sets, (at << _SET) + ((code >> _SET) << _WORD))
        return left + ((word >> (code & np.int32(31))) & _ONE)
    return select(code > (node & _CODE), left + _ONE, left)


@helper()
def _walk(codes: int, stride: int, nodes: int, sets: int, values: int, out: int) -> None:
    """Add the values of the leaves that 64 rows reach to the 64 numbers at `out`."""
    lanes = lane_numbers() * np.int32(stride)
    sixteen = spread_int32(np.int32(16 * stride))
    rows_0 = lanes
    rows_1 = rows_0 + sixteen
    rows_2 = rows_1 + sixteen
    rows_3 = rows_2 + sixteen
    a = b = c = d = spread_int32(np.int32(0))
    while True:
        e, f = _step(a, rows_0, codes, nodes, sets), _step(b, rows_1, codes, nodes, sets)
        g, h = _step(c, rows_2, codes, nodes, sets), _step(d, rows_3, codes, nodes, sets)
        moved = (a ^ e) | (b ^ f) | (c ^ g) | (d ^ h)
        a, b, c, d = e, f, g, h
        if count(moved != np.int32(0)) == 0:
            break
    store(out, load_float32(out) + gather_float32(values, a << _WORD))
    store(out + 64, load_float32(out + 64) + gather_float32(values, b << _WORD))
    store(out + 128, load_float32(out + 128) + gather_float32(values, c << _WORD))
    store(out + 192, load_float32(out + 192) + gather_float32(values, d << _WORD))


@kernel()
def add_margins_of_codes(
    thread: int,
    n_threads: int,
    X: Any,
    table: Any,
    lanes: Any,
    nodes: Any,
    sets: Any,
    values: Any,
    starts: Any,
    groups: Any,
    unknown: int,
    out: Any,
) -> None:
    """Add what the trees give for the rows of X to out float32 [n, outputs], tree after tree.

    X : float32 [n, F]; table float32 [G, 16, 256] and lanes int32 [G, 3, 16] as for `codes_of_lanes`
    nodes : int32 [nodes]; sets : int32 [nodes, 8], or [0, 8] without categories; values : float32 [nodes]
    starts : int64 [trees + 1]; groups : int32 [trees], the output that a tree adds to
    """
    n, n_features = X.shape
    stride = 16 * len(table)
    codes = np.empty(_BLOCK * stride + 64, np.uint8)
    sums = np.empty((out.shape[1], _BLOCK), np.float32)
    for first in range(thread * _BLOCK, n, n_threads * _BLOCK):
        n_rows = min(_BLOCK, n - first)
        for i in range(n_rows):
            row = address(X) + 4 * n_features * (first + i)
            for group in range(len(table)):
                found = codes_of_lanes(row, address(table[group]), address(lanes[group]), unknown)
                store_bytes(address(codes) + i * stride + 16 * group, found)
            for output in range(out.shape[1]):
                sums[output, i] = out[first + i, output]
        for tree in range(len(groups)):
            root = starts[tree]
            sets_of_tree = address(sets) + 32 * root if len(sets) else np.int64(0)
            for i in range(0, n_rows, ROWS):
                _walk(
                    address(codes) + i * stride,
                    stride,
                    address(nodes) + 4 * root,
                    sets_of_tree,
                    address(values) + 4 * root,
                    address(sums[groups[tree]]) + 4 * i,
                )
        for i in range(n_rows):
            for output in range(out.shape[1]):
                out[first + i, output] = sums[output, i]
