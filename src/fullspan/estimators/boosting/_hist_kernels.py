# mypy: allow-untyped-decorators, allow-untyped-calls
"""Rows in blocks of 16 bytes, and sums of quantised gradients by bin: what growing a tree stands on.

A block of a row holds the codes of up to 14 features and, in bytes 14 and 15, the row's gradient (int8) and
hessian (uint8). A histogram entry is one int64: the gradients' sum in the upper half, the hessians' in the
lower, so that a row costs one addition a feature, and any order of rows gives the same sum. A block's
histogram is 28 KB and stays in the first cache. Gradients with a heavy tail take the wide form instead: an
int64 a row beside the blocks.

Shapes: n rows, N rows with padding, F features, B blocks of W features, S histogram slots, T threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fullspan.core.kernels import helper, kernel
from fullspan.core.simd import (
    address,
    compress,
    count,
    gather_int32,
    lane_numbers,
    load_int32,
    prefetch,
    select,
    spread_int32,
    store,
    store_where,
)

MOST_FEATURES = 14  # of a block
BINS = 256
ROW_CHUNK = 2048  # rows that one thread takes in turn, so that sorted rows are spread over threads
_AHEAD = np.uint64(24)  # rows: their blocks are asked for this long before they are needed
_CODE = np.int32(255)
_SHIFT = np.int64(32)


@helper(counts_references=False)
def mixed(x: Any) -> Any:
    """Bits of a uint32 that look random (Wellons' lowbias32)."""
    x = np.uint32(x)
    x ^= x >> np.uint32(16)
    x = np.uint32(x * np.uint32(0x7FEB352D))
    x ^= x >> np.uint32(15)
    x = np.uint32(x * np.uint32(0x846CA68B))
    x ^= x >> np.uint32(16)
    return np.uint32(x)


@helper(counts_references=False)
def add_rows(blocks: Any, block: int, order: Any, first: int, last: int, width: int, sums: Any) -> None:
    """Add rows ``order[first:last]`` of a block to its histogram.

    sums : int64 [W * 256]
    """
    rows = blocks[block]
    place, i = address(rows), np.uint64(first)
    if width == MOST_FEATURES:
        # Two rows at a time: the second's loads need not wait for all of the first's stores. Calls in here
        # would cost more than what they do.
        while i + np.uint64(1) < np.uint64(last):
            prefetch(place + np.int64(order[i + _AHEAD]) * 16)
            prefetch(place + np.int64(order[i + _AHEAD + np.uint64(1)]) * 16)
            one, two = np.uint64(order[i]), np.uint64(order[i + np.uint64(1)])
            value, other = _value(rows, one), _value(rows, two)
            for f in range(MOST_FEATURES):
                sums[np.uint64(f * BINS) + np.uint64(rows[one, f])] += value
                sums[np.uint64(f * BINS) + np.uint64(rows[two, f])] += other
            i += np.uint64(2)
    while i < np.uint64(last):
        prefetch(place + np.int64(order[i + _AHEAD]) * 16)
        row = np.uint64(order[i])
        value = _value(rows, row)
        for f in range(width):
            sums[np.uint64(f * BINS) + np.uint64(rows[row, f])] += value
        i += np.uint64(1)


@helper(counts_references=False)
def add_rows_wide(
    blocks: Any, block: int, wide: Any, order: Any, first: int, last: int, width: int, sums: Any
) -> None:
    """The same with gradients that stand beside the blocks."""
    rows = blocks[block]
    place, beside = address(rows), address(wide)
    for i in range(first, last):
        soon = np.int64(order[np.uint64(i) + _AHEAD])
        prefetch(place + soon * 16)
        prefetch(beside + soon * 8)
        row = np.uint64(order[i])
        value = wide[row]
        for f in range(width):
            sums[np.uint64(f * BINS) + np.uint64(rows[row, f])] += value


@helper(counts_references=False)
def _value(rows: Any, row: Any) -> Any:
    """A row's gradient and hessian in one word."""
    return (np.int64(np.int8(rows[row, 14])) << _SHIFT) + np.int64(rows[row, 15])


@helper(counts_references=False)
def part_by_cut(
    codes: int, stride_bits: int, order: Any, first: int, n: int, spare: Any, turn: int, last: int
) -> int:
    """Part ``order[first : first + n]`` into rows that go left and rows that go right, each in their order.

    A code c goes left if ``(c + turn) % 256 <= last``: with turn 1 a missing value is below all others.

    codes : address of the split feature's code of row 0; those of other rows are ``1 << stride_bits`` apart
    spare : int32, where rows that go right are put aside
    Returns how many go left.
    """
    start, aside = address(order) + 4 * first, address(spare)
    n_left = n_right = 0
    shift, turn_, last_ = np.int32(stride_bits), np.int32(turn), np.int32(last)
    for i in range(0, n, 16):
        rows, valid = _next_rows(start, i, n)
        lefts = ((gather_int32(codes, rows << shift) + turn_) & _CODE) <= last_
        n_left, n_right = _part_lanes(rows, lefts, valid, i + 16 <= n, start, aside, n_left, n_right)
    _bring_back(order, spare, first, n_left, n_right)
    return n_left


@helper(counts_references=False)
def part_by_table(codes: int, stride_bits: int, order: Any, first: int, n: int, spare: Any, left: Any) -> int:
    """The same by a table: int32 [256], one where a code goes left."""
    table = address(left)
    start, aside = address(order) + 4 * first, address(spare)
    n_left = n_right = 0
    shift = np.int32(stride_bits)
    for i in range(0, n, 16):
        rows, valid = _next_rows(start, i, n)
        code = gather_int32(codes, rows << shift) & _CODE
        lefts = gather_int32(table, code << np.int32(2)) > np.int32(0)
        n_left, n_right = _part_lanes(rows, lefts, valid, i + 16 <= n, start, aside, n_left, n_right)
    _bring_back(order, spare, first, n_left, n_right)
    return n_left


@helper(counts_references=False)
def _next_rows(start: int, i: int, n: int) -> Any:
    """Numbers i to i + 15 of the n at `start`, and which of them there are; row 0 for the others."""
    valid = lane_numbers() < np.int32(min(n - i, 16))
    return select(valid, load_int32(start + 4 * i), spread_int32(np.int32(0))), valid


@helper(counts_references=False)
def _part_lanes(
    rows: Any, lefts: Any, valid: Any, full: bool, start: int, aside: int, n_left: int, n_right: int
) -> Any:
    """Append 16 rows to those on the left, from `start` on, and to those on the right, from `aside` on."""
    if full:
        # What the whole vector overwrites has been read.
        store(start + 4 * n_left, compress(rows, lefts))
        store(aside + 4 * n_right, compress(rows, ~lefts))
        n_here = count(lefts)
        return n_left + n_here, n_right + 16 - n_here
    lefts, rights = lefts & valid, ~lefts & valid
    n_here = count(lefts)
    store_where(start + 4 * n_left, compress(rows, lefts), lane_numbers() < np.int32(n_here))
    store(aside + 4 * n_right, compress(rows, rights))
    return n_left + n_here, n_right + count(rights)


@helper(counts_references=False)
def _bring_back(order: Any, spare: Any, first: int, n_left: int, n_right: int) -> None:
    """Put the rows on the right behind those on the left."""
    for i in range(n_right):
        order[first + n_left + i] = spare[i]


@helper(counts_references=False)
def part_rows(block: Any, feature: int, order: Any, first: int, n: int, spare: Any, left: Any) -> int:
    """The same, a row at a time.

    block : uint8 [N, 16]
    """
    n_left = n_right = 0
    for i in range(first, first + n):
        row = order[i]
        goes_left = left[block[np.uint64(row), feature]]
        order[first + n_left] = row
        spare[n_right] = row
        n_left += goes_left
        n_right += 1 - goes_left
    _bring_back(order, spare, first, n_left, n_right)
    return n_left


@kernel()
def copy_column(thread: int, n_threads: int, n: int, blocks: Any, width: int, feature: int, out: Any) -> None:
    """out uint8 [N] = a feature's codes beside each other."""
    block, within = feature // width, feature % width
    for first in range(thread * ROW_CHUNK, n, n_threads * ROW_CHUNK):
        for i in range(first, min(first + ROW_CHUNK, n)):
            out[i] = blocks[block, i, within]
