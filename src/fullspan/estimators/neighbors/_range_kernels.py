# mypy: allow-untyped-decorators, allow-untyped-calls
"""All points within a distance of each of many, or in a rectangle; how many there are at several distances.

A subtree whose box lies inside as a whole is taken without a look at its points: they lie side by side.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fullspan.core.kernels import helper, kernel
from fullspan.core.simd import (
    LANES,
    address,
    bits_of_mask,
    load_float64,
    lowest_bit,
    spread_float64,
    store,
)
from fullspan.estimators.neighbors._distance_kernels import (
    BOX_BYTES,
    VECTOR_BYTES,
    box_distances,
    farthest_distances,
    point_distances,
    root,
)
from fullspan.estimators.neighbors._query_kernels import LEVEL_BITS

CHUNK = 256  # queries that a thread takes at a time
RECTANGLE = 4  # in place of a norm: a query is the lower ends of a rectangle, then the upper ones


@helper(counts_references=False)
def _children(place: int, q: Any, m: int, metric: Any, limit: float, lanes: Any) -> tuple[int, int]:
    """Which of 16 boxes may hold points within the limit, and which hold only such: as bits."""
    norm, p, periods = metric
    if norm != RECTANGLE:
        near = box_distances(place, q, m, norm, p, periods, lanes) <= limit
        far = farthest_distances(place, q, m, norm, p, periods, lanes) <= limit
        return bits_of_mask(near), bits_of_mask(far)
    touches = inside = (1 << LANES) - 1
    for j in range(m):
        low = load_float64(place + j * BOX_BYTES)
        high = load_float64(place + j * BOX_BYTES + VECTOR_BYTES)
        touches &= bits_of_mask((low <= q[m + j]) & (high >= q[j]))
        inside &= bits_of_mask((low >= q[j]) & (high <= q[m + j]))
    return touches, inside & touches


@helper(counts_references=False)
def _points(place: int, stride: int, q: Any, m: int, metric: Any, limit: float, lanes: Any) -> int:
    """Which of 16 points are within the limit, as bits; their distances are in `lanes`."""
    norm, p, periods = metric
    if norm != RECTANGLE:
        distances = point_distances(place, stride, q, m, norm, p, periods, lanes)
        store(address(lanes), distances)
        return bits_of_mask(distances <= limit)  # type: ignore[no-any-return]
    inside = (1 << LANES) - 1
    for j in range(m):
        x = load_float64(place + j * stride)
        inside &= bits_of_mask((x >= q[j]) & (x <= q[m + j]))
    return inside


@helper(counts_references=False)
def _take_leaf(
    leaf: int, q: Any, tree: Any, metric: Any, limit: float, after: int, out: Any, at: int, lanes: Any
) -> int:
    """Write a leaf's points within the limit from `at` on, if there is something to write to; the new end."""
    blocks, block, m, ids = tree[:4]
    points, distances = out
    norm, p, _ = metric
    place = address(blocks) + leaf * m * block * 8
    for vector in range(block // LANES):
        first = leaf * block + vector * LANES
        within = _points(place + vector * VECTOR_BYTES, block * 8, q, m, metric, limit, lanes)
        while within:
            lane = lowest_bit(within)
            within &= within - 1
            # Those behind the last point are infinitely far away, but an infinite limit has them too.
            if after < first + lane < len(ids):
                if len(points):
                    points[at] = ids[first + lane]
                if len(distances):
                    distances[at] = root(lanes[lane], norm, p)
                at += 1
    return at


@helper(counts_references=False)
def _take_range(start: int, end: int, ids: Any, points: Any, at: int) -> int:
    if len(points):
        for place in range(start, end):
            points[at + place - start] = ids[place]
    return at + end - start


@helper(counts_references=False)
def _search(
    q: Any, tree: Any, metric: Any, limit: float, after: int, whole: bool, out: Any, at: int, work: Any
) -> int:
    """Write one query's points, from `at` on; the new end."""
    block, m, ids, boxes, box_starts = tree[1:]
    codes, lanes = work
    codes[0] = len(box_starts) - 1
    top = 1
    while top > 0:
        top -= 1
        level, node = codes[top] & (1 << LEVEL_BITS) - 1, codes[top] >> LEVEL_BITS
        if level == 0:
            at = _take_leaf(node, q, tree, metric, limit, after, out, at, lanes)
            continue
        place = address(boxes) + (box_starts[level] + node) * m * BOX_BYTES
        near, inside = _children(place, q, m, metric, limit, lanes)
        size = block << 4 * (level - 1)
        while near:
            lane = lowest_bit(near)
            near &= near - 1
            child = node * LANES + lane
            start, end = child * size, min((child + 1) * size, len(ids))
            if start >= len(ids) or end <= after + 1:  # no such child, or it holds no points that count
                continue
            if whole and inside >> lane & 1 and start > after:
                at = _take_range(start, end, ids, out[0], at)
            else:
                codes[top] = (child << LEVEL_BITS) + level - 1
                top += 1
    return at


@kernel(counts_references=False)
def within(
    thread: int,
    n_threads: int,
    queries: Any,
    tree: Any,
    metric: Any,
    limits: Any,
    only_after: bool,
    whole: bool,
    starts: Any,
    out: Any,
    work: Any,
) -> None:
    """Count each query's points within its limit, or write them.

    Parameters
    ----------
    queries : array of shape (n_queries, m), or (n_queries, 2 * m) of rectangles
    tree, metric : tuple
        As of `nearest`; the norm may be RECTANGLE.
    limits : array of shape (n_queries,)
        Powers of distances; the limit itself is within.
    only_after : bool
        The queries are the tree's own points in their order, and only those behind each count.
    whole : bool
        Subtrees may be taken as a whole: nobody asks for distances.
    starts : int array of shape (n_queries + 1,)
        Where each query's points begin; without `out`, their number is written to the place behind.
    out : tuple
        Points and distances, each of which may be empty.
    work : tuple
        For each thread: codes of nodes to visit, and 16 numbers.
    """
    own = (work[0][thread], work[1][thread])
    counting = len(out[0]) == 0
    for chunk in range(thread, -(-len(queries) // CHUNK), n_threads):
        for row in range(chunk * CHUNK, min((chunk + 1) * CHUNK, len(queries))):
            after = row if only_after else -1
            begin = 0 if counting else starts[row]
            end = _search(queries[row], tree, metric, limits[row], after, whole, out, begin, own)
            if counting:
                starts[row + 1] = end


@helper(counts_references=False)
def _place(limits: Any, low: int, high: int, distance: float) -> int:
    """The first of the limits from `low` to before `high` that is not less than a distance."""
    while low < high:
        middle = (low + high) // 2
        if limits[middle] < distance:
            low = middle + 1
        else:
            high = middle
    return low


@helper(counts_references=False)
def _add_leaf(
    leaf: int, q: Any, tree: Any, metric: Any, limits: Any, bounds: Any, weights: Any, sums: Any, lanes: Any
) -> None:
    """Add a leaf's points to the first limits that they are within."""
    blocks, block, m, ids = tree[:4]
    low, high = bounds
    own, others = weights
    if high == 0:
        return
    place = address(blocks) + leaf * m * block * 8
    for vector in range(block // LANES):
        first = leaf * block + vector * LANES
        within = _points(place + vector * VECTOR_BYTES, block * 8, q, m, metric, limits[high - 1], lanes)
        while within:
            lane = lowest_bit(within)
            within &= within - 1
            if first + lane < len(ids):
                weight = others[first + lane] if len(others) else 1.0
                sums[_place(limits, low, high, lanes[lane])] += own * weight


@helper(counts_references=False)
def _spread_over(
    q: Any, tree: Any, metric: Any, limits: Any, weights: Any, node_weights: Any, sums: Any, work: Any
) -> None:
    """Add all points to the first limits that they are within, as seen from one query."""
    block, m, ids, boxes, box_starts = tree[1:]
    norm, p, periods = metric
    codes, lows, lanes, others = work
    own = weights[0]
    codes[0], lows[0] = len(box_starts) - 1, 0
    top = 1
    while top > 0:
        top -= 1
        low = lows[top]
        level, node = codes[top] & (1 << LEVEL_BITS) - 1, codes[top] >> LEVEL_BITS
        if level == 0:
            _add_leaf(node, q, tree, metric, limits, (low, len(limits)), weights, sums, lanes)
            continue
        place = address(boxes) + (box_starts[level] + node) * m * BOX_BYTES
        near = box_distances(place, q, m, norm, p, periods, lanes)
        far = farthest_distances(place, q, m, norm, p, periods, lanes)
        children = bits_of_mask((near <= limits[len(limits) - 1]) & (near < spread_float64(np.inf)))
        store(address(lanes), near)
        store(address(others), far)
        size = block << 4 * (level - 1)
        while children:
            lane = lowest_bit(children)
            children &= children - 1
            child = node * LANES + lane
            first = _place(limits, low, len(limits), lanes[lane])
            last = _place(limits, first, len(limits), others[lane])
            if first == last:
                if len(node_weights[0]):
                    total = node_weights[0][node_weights[1][level - 1] + child]
                else:
                    total = min((child + 1) * size, len(ids)) - child * size + 0.0
                sums[first] += own * total
            else:
                codes[top], lows[top] = (child << LEVEL_BITS) + level - 1, first
                top += 1


@kernel(counts_references=False)
def count_within(
    thread: int,
    n_threads: int,
    queries: Any,
    tree: Any,
    metric: Any,
    limits: Any,
    weights: Any,
    node_weights: Any,
    sums: Any,
    work: Any,
) -> None:
    """For each limit, the pairs of a query and a point that are within it but not within the one before.

    Parameters
    ----------
    queries, tree, metric
        As of `nearest`.
    limits : array of shape (n_limits,)
        Powers of distances, in order.
    weights : tuple
        Of the queries, and of the tree's points in the order of its leaves; each may be empty, for 1.
    node_weights : tuple
        Sums of the points' weights in each leaf, then in nodes level by level, and where each level starts.
    sums : array of shape (n_chunks, n_limits + 1)
        Sums of products of weights, for each 256 queries, so that no number of threads changes them. The
        last column is of no use.
    work : tuple
        For each thread: codes of nodes to visit, first limits for these, and twice 16 numbers.
    """
    own = (work[0][thread], work[1][thread], work[2][thread], work[3][thread])
    for chunk in range(thread, -(-len(queries) // CHUNK), n_threads):
        for row in range(chunk * CHUNK, min((chunk + 1) * CHUNK, len(queries))):
            weight = weights[0][row] if len(weights[0]) else 1.0
            _spread_over(
                queries[row], tree, metric, limits, (weight, weights[1]), node_weights, sums[chunk], own
            )
