# mypy: allow-untyped-decorators, allow-untyped-calls
"""Sorts points into the leaves of a kd-tree, and puts boxes around them.

The tree is a perfect binary one, cut off after the last point: leaf `c` holds the points at places
``c * block`` to ``(c + 1) * block - 1``, and node `c` of level `j` the leaves ``c << j`` to
``((c + 1) << j) - 1``. So places say everything, and there are no pointers. A node is split where its points
spread widest, at the value of the point that must come first on the right; equal values may lie on both
sides, so that duplicates need no leaves of their own.

Above, levels are shared out by nodes; subtrees that fit a core's cache are built by one thread each, on a
copy of their points.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fullspan.core.kernels import FINITE_ANY_ORDER, helper, kernel
from fullspan.core.simd import HAS_AVX512, LANES, address, compress, count, load_float64, load_int32, store
from fullspan.core.threads import barrier

_FEW = 1024  # among so many values a split is found by counting; of more, most are put aside first
_LOOKED_AT = 64  # points of a node whose spread decides where it is split
_TRIES = 60  # halvings of an interval until only equal values are left in it


@helper(counts_references=False)
def _sort(values: Any, n: int) -> None:
    for i in range(1, n):
        x = values[i]
        j = i
        while j > 0 and values[j - 1] > x:
            values[j] = values[j - 1]
            j -= 1
        values[j] = x


@helper(counts_references=False)
def _narrow(source: Any, target: Any, n: int, low: float, high: float) -> tuple[int, int]:
    """Keep the values from `low` to `high`; how many are below, and how many are kept."""
    below = kept = 0
    for i in range(n):
        x = source[i]
        below += int(x < low)
        target[kept] = x
        kept += int(x >= low) & int(x <= high)
    return below, kept


@helper(counts_references=False)
def _pivots(values: Any, n: int, rank: int, sample: Any) -> tuple[float, float, float]:
    """Two values that most likely have that of the rank between them, and one near it."""
    size = 64 if n < 8192 else 128 if n < 131072 else 384
    stride = n // size
    for i in range(size):
        sample[i] = values[i * stride]
    _sort(sample, size)
    near = rank * size // n
    gap = int(np.sqrt(size)) + 1
    return sample[max(near - gap, 0)], sample[min(near + gap, size - 1)], sample[near]


@helper(fastmath=FINITE_ANY_ORDER, counts_references=False)
def _ends(values: Any, n: int) -> tuple[float, float]:
    """The least and the greatest."""
    low = high = values[0]
    for i in range(n):
        x = values[i]
        low = x if x < low else low
        high = x if x > high else high
    return low, high


@helper(counts_references=False)
def _count_below(values: Any, n: int, limit: float) -> int:
    """How many of the values are less than a limit; behind them there must be 15 that are not."""
    found = 0
    for place in range(address(values), address(values) + 8 * n, 8 * LANES):
        found += count(load_float64(place) < limit)
    return found


@helper(counts_references=False)
def _parted(values: Any, n: int, rank: int, sample: Any) -> tuple[float, int]:
    """A value that `rank` of the values are less than, and these; with equal values it may be fewer."""
    for i in range(n, n + LANES):
        values[i] = np.inf
    low, high = _ends(values, n)
    for _ in range(_TRIES):
        middle = 0.5 * low + 0.5 * high
        below = _count_below(values, n, middle)
        if below == rank:
            return middle, rank
        if middle <= low or middle >= high:
            break
        if below < rank:
            low = middle
        else:
            high = middle
    # Equal values, or values on very different scales: the smallest one with more than `rank` up to it.
    value = np.inf
    for i in range(n):
        x = values[i]
        if low <= x < value and _count_below(values, n, np.nextafter(x, np.inf)) > rank:
            value = x
    return value, _count_below(values, n, value)


@helper(counts_references=False)
def _ranked(keys: Any, pools: Any, n: int, rank: int, sample: Any) -> tuple[float, int]:
    """A value that splits off `rank` keys, and how many are less: others are equal. Keys stay as they are."""
    below = 0
    source, target, other = keys, pools[0], pools[1]
    while n > _FEW:
        low, high, near = _pivots(source, n, rank, sample)
        less, kept = _narrow(source, target, n, low, high)
        if not less <= rank < less + kept or kept == n:
            less, kept = _narrow(source, target, n, near, near)
            if less <= rank < less + kept:
                return near, below + less
            if rank < less:
                less, kept = _narrow(source, target, n, -np.inf, np.nextafter(near, -np.inf))
            else:
                less, kept = _narrow(source, target, n, np.nextafter(near, np.inf), np.inf)
        below += less
        rank -= less
        n = kept
        source, target, other = target, other, target
    value, less = _parted(source, n, rank, sample)
    return value, below + less


@helper(fastmath=FINITE_ANY_ORDER, counts_references=False)
def _spread(rows: Any, m: int, j: int, ids: Any, start: int, size: int, stride: int) -> float:
    low = high = rows[ids[start] * m + j]
    for i in range(size):
        x = rows[ids[start + i * stride] * m + j]
        low = x if x < low else low
        high = x if x > high else high
    return high - low  # type: ignore[no-any-return]


@helper(counts_references=False)
def _widest(rows: Any, m: int, ids: Any, start: int, n: int, stride: int) -> tuple[int, float]:
    """The dimension in which points spread widest, and how far; of each so many-th point."""
    best, widest = 0, -1.0
    for j in range(m):
        spread = _spread(rows, m, j, ids, start, n // stride, stride)
        if spread > widest:
            best, widest = j, spread
    return best, widest


@helper(counts_references=False)
def _distribute(
    ids: Any, keys: Any, start: int, middle: int, end: int, value: float, equal: int, moved: Any
) -> None:
    """Ids with keys less than a value to the left, and so many of those with the value itself."""
    left, right, i = start, 0, 0
    if HAS_AVX512 and equal == 0:
        while i + LANES <= end - start:
            goes = load_float64(address(keys) + 8 * i) < value
            points = load_int32(address(ids) + 4 * (start + i))
            store(address(ids) + 4 * left, compress(points, goes))
            store(address(moved) + 4 * right, compress(points, ~goes))
            leaving = count(goes)
            left += leaving
            right += LANES - leaving
            i += LANES
    while i < end - start:
        point = ids[start + i]
        x = keys[i]
        is_equal = int(x == value) & int(equal > 0)
        equal -= is_equal
        goes_left = int(x < value) | is_equal
        moved[right] = point
        ids[left] = point
        left += goes_left
        right += 1 - goes_left
        i += 1
    for i in range(right):
        ids[middle + i] = moved[i]


@helper(counts_references=False)
def _split(rows: Any, m: int, ids: Any, start: int, middle: int, end: int, scratch: Any) -> tuple[int, float]:
    """Sort a node's points into the left and the right half; where it was split."""
    keys, pools, moved, sample = scratch
    n = end - start
    dimension, spread = _widest(rows, m, ids, start, n, max(1, n // _LOOKED_AT))
    if spread <= 0:
        dimension, spread = _widest(rows, m, ids, start, n, 1)
    for i in range(n):
        keys[i] = rows[ids[start + i] * m + dimension]
    if spread <= 0:
        return dimension, keys[0]
    value, less = _ranked(keys, pools, n, middle - start, sample)
    _distribute(ids, keys, start, middle, end, value, middle - start - less, moved)
    return dimension, value


@helper(counts_references=False)
def _split_level(
    rows: Any, m: int, ids: Any, n: int, block: int, level: int, nodes: Any, splits: Any, scratch: Any
) -> None:
    """Split nodes of a level, from the first of `nodes` to before the second in steps of the third.

    The fourth is the number of the node with which the ids begin.
    """
    first, last, step, begins = nodes
    dimensions, values, starts = splits
    size = block << level
    for node in range(first, last, step):
        start = (node - begins) * size
        middle, end = start + size // 2, min(start + size, n)
        at = starts[level] + node
        if middle < end:
            dimensions[at], values[at] = _split(rows, m, ids, start, middle, end, scratch)
        else:
            dimensions[at], values[at] = 0, np.inf


@helper(counts_references=False)
def _fill_leaf(leaf: int, rows: Any, m: int, ids: Any, n: int, block: int, blocks: Any) -> None:
    """Copy points; after the last one, those that are infinitely far away."""
    for j in range(m):
        row = (leaf * m + j) * block
        for lane in range(n):
            blocks[row + lane] = rows[ids[lane] * m + j]
        for lane in range(n, block):
            blocks[row + lane] = np.inf


@helper(fastmath=FINITE_ANY_ORDER, counts_references=False)
def _box_leaf(leaf: int, m: int, n: int, block: int, blocks: Any, boxes: Any) -> None:
    """The leaf's box, as a child of its node."""
    for j in range(m):
        row = (leaf * m + j) * block
        low = high = blocks[row]
        for lane in range(n):
            x = blocks[row + lane]
            low = x if x < low else low
            high = x if x > high else high
        place = ((leaf // LANES) * m + j) * 2 * LANES + leaf % LANES
        boxes[place], boxes[place + LANES] = low, high


@helper(counts_references=False)
def _box_nodes(boxes: Any, m: int, n_leaves: int, box_starts: Any) -> None:
    """Boxes of nodes that have nodes below, from those of their children."""
    count = -(-n_leaves // LANES)
    for level in range(1, len(box_starts) - 1):
        for node in range(count):
            for j in range(m):
                below = ((box_starts[level] + node) * m + j) * 2 * LANES
                low, high = np.inf, -np.inf
                for lane in range(LANES):
                    low = min(low, boxes[below + lane])
                    high = max(high, boxes[below + LANES + lane])
                place = ((box_starts[level + 1] + node // LANES) * m + j) * 2 * LANES + node % LANES
                boxes[place], boxes[place + LANES] = low, high
        count = -(-count // LANES)


@kernel(counts_references=False)
def build_tree(
    thread: int,
    n_threads: int,
    meeting: Any,
    rows: Any,
    shape: Any,
    ids: Any,
    splits: Any,
    blocks: Any,
    boxes: Any,
    box_starts: Any,
    scratch: Any,
) -> None:
    """Build all of it.

    Parameters
    ----------
    rows : array of shape (n * m,)
        The points, one after the other.
    shape : tuple
        n, m, points of a leaf, levels above the leaves, and the level from which on a thread builds alone.
    ids : int32 array of shape (n,)
        0 to n - 1; afterwards the points in the order of the leaves.
    splits : tuple
        Dimension and value of each node, level by level, and where each level starts.
    blocks : array of shape (n_leaves * m * block,)
        The points again: of each leaf, one dimension after the other.
    boxes, box_starts
        Of nodes with 16 children: [node, m, 2, 16], and where the nodes of each level of these start; level
        1 has the leaves as children. Filled with empty boxes.
    scratch : tuple
        For each thread: keys, two pools of keys, ids and a sample; a copy of a subtree's rows and its ids.
    """
    n, m, block, n_levels, alone = shape
    all_keys, all_pools, all_moved, all_samples, all_copies, all_local = scratch
    for level in range(n_levels, alone, -1):
        size = block << level
        count = -(-n // size)
        for node in range(thread, count, n_threads):
            start, end = node * size, min(node * size + size, n)
            own = (all_keys[thread], all_pools[thread], all_moved[thread], all_samples[thread])
            _split_level(
                rows, m, ids[start:end], end - start, block, level, (node, node + 1, 1, node), splits, own
            )
        barrier(meeting, thread, n_threads)
    size = block << alone
    copy, local = all_copies[thread], all_local[thread]
    for subtree in range(thread, -(-n // size), n_threads):
        start, end = subtree * size, min(subtree * size + size, n)
        for i in range(end - start):
            local[i] = i
            row = np.int64(ids[start + i]) * m
            for j in range(m):
                copy[i * m + j] = rows[row + j]
        own = (all_keys[thread], all_pools[thread], all_moved[thread], all_samples[thread])
        for level in range(alone, 0, -1):
            first = subtree << (alone - level)
            last = min((subtree + 1) << (alone - level), -(-n // (block << level)))
            _split_level(copy, m, local, end - start, block, level, (first, last, 1, first), splits, own)
        moved = all_moved[thread]
        for i in range(end - start):
            moved[i] = ids[start + local[i]]
        for i in range(end - start):
            ids[start + i] = moved[i]
        for leaf in range(start // block, -(-end // block)):
            begins = leaf * block - start
            here = min(block, end - start - begins)
            _fill_leaf(leaf, copy, m, local[begins:], here, block, blocks)
            if len(box_starts) > 1:
                _box_leaf(leaf, m, here, block, blocks, boxes)
    barrier(meeting, thread, n_threads)
    if thread == 0:
        _box_nodes(boxes, m, -(-n // block), box_starts)


@kernel(counts_references=False)
def find_homes(thread: int, n_threads: int, queries: Any, n_levels: int, splits: Any, homes: Any) -> None:
    """The leaf on whose side of every split each query lies."""
    dimensions, values, starts = splits
    begin = len(queries) * thread // n_threads
    for row in range(begin, len(queries) * (thread + 1) // n_threads):
        node = 0
        for level in range(n_levels, 0, -1):
            at = starts[level] + node
            node = 2 * node + (queries[row, dimensions[at]] > values[at])
        homes[row] = node
