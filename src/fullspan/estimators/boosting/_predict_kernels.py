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
    bytes_above,
    compress,
    count,
    gather_float32,
    gather_int32,
    lane_numbers,
    load_float32,
    load_int32,
    mask_of_bits,
    scatter_where,
    select,
    spread_int32,
    store,
)
from fullspan.estimators._binning_kernels import write_codes_of_group

ROWS = 64  # that walk together
_BLOCK = 512
_STEPS = 4  # until rows that have arrived are left out
LANE_BITS, CHILD_BITS = 12, 12
_CODE = np.int32(255)
_LANE_SHIFT, _CHILD_SHIFT = np.int32(8), np.int32(20)
_LANE_MASK = np.int32(4095)
_WORD = np.int32(2)  # as a shift: 4 bytes
_SET = np.int32(5)  # as a shift: 32 bytes
_ONE = np.int32(1)


@helper()
def _step(at: Any, rows: Any, codes: int, nodes: int, sets: int) -> Any:
    """The next node of 16 rows; codes uint8 [lanes, _BLOCK]."""
    node = gather_int32(nodes, at << _WORD)
    lane = (node >> _LANE_SHIFT) & _LANE_MASK
    code = gather_int32(codes, lane * np.int32(_BLOCK) + rows) & _CODE
    left = node >> _CHILD_SHIFT
    if sets != 0:
        word = gather_int32(sets, (at << _SET) + ((code >> _SET) << _WORD))
        return left + ((word >> (code & np.int32(31))) & _ONE)
    return select(code > (node & _CODE), left + _ONE, left)


@helper()
def _pick(chosen: int, one: int, other: int) -> int:
    """The bits of `one` where `chosen` has a 1, of `other` elsewhere."""
    return (chosen & one) | (~chosen & other)


@helper()
def _open_top(nodes: Any, root: int, top: Any) -> None:
    """Number the nodes of a tree's first four levels as a heap; below a leaf stands the leaf itself.

    top : int32 [31]
    """
    top[0] = 0
    for j in range(15):
        child = nodes[root + top[j]] >> _CHILD_SHIFT
        top[2 * j + 1] = child
        top[2 * j + 2] = child + (child != top[j])


@helper()
def _enter(codes: int, nodes: Any, root: int, top: Any, reached: Any) -> Any:
    """Which of the 16 nodes four levels down each of 64 rows reaches: four bits a row, as int64 each.

    codes : address of the rows' codes of the first lane; reached : int64 [15], room
    """
    for j in range(15):
        word = np.int64(nodes[root + top[j]])
        lane = (word >> 8) & 4095
        reached[j] = bytes_above(codes + lane * _BLOCK, word & 255)
    r = reached
    one = r[0]
    two = _pick(one, r[2], r[1])
    three = _pick(one, _pick(two, r[6], r[5]), _pick(two, r[4], r[3]))
    left = _pick(two, _pick(three, r[10], r[9]), _pick(three, r[8], r[7]))
    right = _pick(two, _pick(three, r[14], r[13]), _pick(three, r[12], r[11]))
    return one, two, three, _pick(one, right, left)


@helper()
def _begin_at_top(
    n_rows: int, codes: int, nodes: Any, root: int, top: Any, reached: Any, places: int
) -> None:
    """Write the nodes four levels down that the rows reach to int32 `places`."""
    _open_top(nodes, root, top)
    below = address(top) + 4 * 15
    zero = spread_int32(np.int32(0))
    for i in range(0, n_rows, ROWS):
        one, two, three, four = _enter(codes + i, nodes, root, top, reached)
        for part in range(0, ROWS, 16):
            slot = select(mask_of_bits(one >> part), zero + np.int32(8), zero)
            slot = slot + select(mask_of_bits(two >> part), zero + np.int32(4), zero)
            slot = slot + select(mask_of_bits(three >> part), zero + np.int32(2), zero)
            slot = slot + select(mask_of_bits(four >> part), zero + np.int32(1), zero)
            store(places + 4 * (i + part), gather_int32(below, slot << _WORD))


@helper()
def _walk(n_rows: int, depth: int, codes: int, nodes: int, sets: int, waiting: int, leaves: int) -> None:
    """Move rows, a multiple of 64, from their nodes in int32 `leaves` to the leaves that they reach there.

    Half of the rows reach theirs long before the last one does: after some steps, only those that still
    moved go on, close together. `waiting`, int32 [2, _BLOCK], holds their numbers and their nodes.
    """
    lanes = lane_numbers()
    numbers, places = waiting, waiting + 4 * _BLOCK
    for i in range(0, n_rows, 16):
        store(numbers + 4 * i, lanes + np.int32(i))
        store(places + 4 * i, load_int32(leaves + 4 * i))
    n_waiting = n_rows
    while n_waiting > 0 and depth > 0:
        steps = min(_STEPS, depth)
        kept = 0
        for i in range(0, 4 * n_waiting, 4 * ROWS):
            row_a, row_b = load_int32(numbers + i), load_int32(numbers + i + 64)
            row_c, row_d = load_int32(numbers + i + 128), load_int32(numbers + i + 192)
            a, b = load_int32(places + i), load_int32(places + i + 64)
            c, d = load_int32(places + i + 128), load_int32(places + i + 192)
            e, f, g, h = a, b, c, d
            for _ in range(steps):
                e, f, g, h = a, b, c, d
                a, b = _step(a, row_a, codes, nodes, sets), _step(b, row_b, codes, nodes, sets)
                c, d = _step(c, row_c, codes, nodes, sets), _step(d, row_d, codes, nodes, sets)
            left = np.int32(n_waiting) - np.int32(i >> 2)
            kept = _settle(numbers, kept, row_a, e, a, lanes < left, leaves)
            kept = _settle(numbers, kept, row_b, f, b, lanes < left - np.int32(16), leaves)
            kept = _settle(numbers, kept, row_c, g, c, lanes < left - np.int32(32), leaves)
            kept = _settle(numbers, kept, row_d, h, d, lanes < left - np.int32(48), leaves)
        n_waiting = kept
        depth -= steps


@helper()
def _settle(numbers: int, kept: int, rows: Any, before: Any, at: Any, there: Any, leaves: int) -> Any:
    """Note where 16 rows are, and keep those that moved among the waiting; gives how many wait."""
    scatter_where(leaves, rows << _WORD, at, there)
    moved = (at != before) & there
    store(numbers + 4 * kept, compress(rows, moved))
    store(numbers + 4 * (_BLOCK + kept), compress(at, moved))
    return kept + count(moved)


@kernel()
def add_margins_of_codes(
    thread: int,
    n_threads: int,
    X: Any,
    ends: Any,
    table: Any,
    lanes: Any,
    n_lanes: int,
    nodes: Any,
    sets: Any,
    values: Any,
    starts: Any,
    depths: Any,
    groups: Any,
    unknown: int,
    out: Any,
) -> None:
    """Add what the trees give for the rows of X to out float32 [n, outputs], tree after tree.

    X : float32 [n, F]; ends, table and lanes as for `write_codes_of_group`, n_lanes of them in use
    nodes : int32 [nodes]; sets : int32 [nodes, 8], or [0, 8] without categories; values : float32 [nodes]
    starts : int64 [trees + 1]; depths, groups : int32 [trees], the steps to the lowest leaf, and the output
    that a tree adds to
    """
    n = len(X)
    # A lane more than there are: of each code, the three bytes after it are read too.
    codes = np.empty((16 * len(table) + 1, _BLOCK), np.uint8)
    top, reached = np.empty(31, np.int32), np.empty(15, np.int64)
    waiting = np.empty(2 * _BLOCK + 16, np.int32)
    leaves = np.empty(_BLOCK, np.int32)
    sums = np.empty((out.shape[1], _BLOCK), np.float32)
    for first in range(thread * _BLOCK, n, n_threads * _BLOCK):
        n_rows = min(_BLOCK, n - first)
        padded = -(-n_rows // ROWS) * ROWS
        for group in range(len(table)):
            n_lanes_here = min(16, n_lanes - 16 * group)
            write_codes_of_group(
                X, first, n_rows, ends[group], table[group], lanes[group], n_lanes_here, unknown,
                codes[16 * group :].T,
            )  # fmt: skip
        for i in range(n_rows):
            for output in range(out.shape[1]):
                sums[output, i] = out[first + i, output]
        for tree in range(len(groups)):
            root = starts[tree]
            depth = depths[tree]
            if len(sets):
                leaves[:] = 0
            else:
                _begin_at_top(padded, address(codes), nodes, root, top, reached, address(leaves))
                depth -= 4
            _walk(
                padded,
                depth,
                address(codes),
                address(nodes) + 4 * root,
                address(sets) + 32 * root if len(sets) else np.int64(0),
                address(waiting),
                address(leaves),
            )
            of_leaves, total = address(values) + 4 * root, address(sums[groups[tree]])
            for i in range(0, 4 * padded, 64):
                value = gather_float32(of_leaves, load_int32(address(leaves) + i) << _WORD)
                store(total + i, load_float32(total + i) + value)
        for i in range(n_rows):
            for output in range(out.shape[1]):
                out[first + i, output] = sums[output, i]
