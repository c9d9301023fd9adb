# mypy: allow-untyped-decorators, allow-untyped-calls
"""The nearest points to each of many, in a kd-tree whose nodes have 16 children.

Distances to the boxes of a node's children are computed at once; those that may hold a neighbour go on a
stack, the nearest on top. Queries come in the order of the leaves they lie in: what one needs, the last one
has brought into the cache. Each looks at its own leaf first, so that few boxes are near enough afterwards.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fullspan.core.kernels import helper, kernel
from fullspan.core.simd import LANES, address, bits_of_mask, lowest_bit, store
from fullspan.estimators.neighbors._distance_kernels import (
    BOX_BYTES,
    VECTOR_BYTES,
    box_distances,
    point_distances,
    root,
)

_CHUNK = 256  # queries that a thread takes at a time
_SORTED = 32  # so many neighbours are kept in order; more in a heap
LEVEL_BITS = 4  # of a node's code: its level; the rest is its number in that level


@helper(counts_references=False)
def _comes_after(distance: float, point: int, other_distance: float, other: int) -> bool:
    """The order of neighbours: by distance, then by number."""
    return distance > other_distance or (distance == other_distance and point > other)


@helper(counts_references=False)
def _insert(distance: float, point: int, distances: Any, points: Any) -> None:
    """Put a neighbour into its place among those in order; the last one drops out."""
    j = len(distances) - 1
    while j > 0 and _comes_after(distances[j - 1], points[j - 1], distance, point):
        distances[j], points[j] = distances[j - 1], points[j - 1]
        j -= 1
    distances[j], points[j] = distance, point


@helper(counts_references=False)
def _sink(distance: float, point: int, distances: Any, points: Any, n: int) -> None:
    """Replace the first of a heap, whose last in order comes first."""
    j = 0
    while 2 * j + 1 < n:
        child = 2 * j + 1
        if child + 1 < n and _comes_after(
            distances[child + 1], points[child + 1], distances[child], points[child]
        ):
            child += 1
        if not _comes_after(distances[child], points[child], distance, point):
            break
        distances[j], points[j] = distances[child], points[child]
        j = child
    distances[j], points[j] = distance, point


@helper(counts_references=False)
def _keep(distance: float, point: int, distances: Any, points: Any) -> float:
    """Take a neighbour in; the distance that the next one must be below."""
    k = len(distances)
    if k <= _SORTED:
        _insert(distance, point, distances, points)
        return distances[k - 1]  # type: ignore[no-any-return]
    _sink(distance, point, distances, points, k)
    return distances[0]  # type: ignore[no-any-return]


@helper(counts_references=False)
def _in_order(distances: Any, points: Any) -> None:
    """Sort what a heap kept."""
    if len(distances) > _SORTED:
        for n in range(len(distances) - 1, 0, -1):
            distance, point = distances[n], points[n]
            distances[n], points[n] = distances[0], points[0]
            _sink(distance, point, distances, points, n)


@helper(counts_references=False)
def _scan_leaf(leaf: int, q: Any, tree: Any, metric: Any, limit: float, found: Any, lanes: Any) -> float:
    """Look at a leaf's points; how near a neighbour has to be afterwards."""
    blocks, block, m, ids = tree[:4]
    norm, p, periods = metric
    distances, points = found
    place = address(blocks) + leaf * m * block * 8
    for vector in range(block // LANES):
        far = point_distances(place + vector * VECTOR_BYTES, block * 8, q, m, norm, p, periods, lanes)
        near = bits_of_mask(far < limit)
        if near == 0:
            continue
        store(address(lanes), far)
        first = leaf * block + vector * LANES
        while near:
            lane = lowest_bit(near)
            near &= near - 1
            if lanes[lane] < limit:
                limit = min(limit, _keep(lanes[lane], ids[first + lane], distances, points))
    return limit


@helper(counts_references=False)
def _push_children(
    code: int, q: Any, tree: Any, metric: Any, reach: float, stack: Any, top: int, lanes: Any
) -> int:
    """Put the children that may hold a neighbour on the stack, the nearest on top; how many it holds."""
    m, boxes, box_starts = tree[2], tree[4], tree[5]
    norm, p, periods = metric
    far, codes = stack
    level, node = code & (1 << LEVEL_BITS) - 1, code >> LEVEL_BITS
    place = address(boxes) + (box_starts[level] + node) * m * BOX_BYTES
    distances = box_distances(place, q, m, norm, p, periods, lanes)
    near = bits_of_mask(distances < reach)
    if near == 0:
        return top
    store(address(lanes), distances)
    base = top
    while near:
        lane = lowest_bit(near)
        near &= near - 1
        distance = lanes[lane]
        j = top
        while j > base and far[j - 1] < distance:
            far[j], codes[j] = far[j - 1], codes[j - 1]
            j -= 1
        far[j], codes[j] = distance, ((node * LANES + lane) << LEVEL_BITS) + level - 1
        top += 1
    return top


@helper(counts_references=False)
def _descend(q: Any, home: int, tree: Any, metric: Any, reaches: Any, found: Any, work: Any) -> None:
    """Find the nearest points of one query, from a leaf where it may begin (-1: none) or from the root."""
    limit, slack = reaches
    far, codes, lanes = work
    if home >= 0:
        limit = _scan_leaf(home, q, tree, metric, limit, found, lanes)
    far[0], codes[0] = 0.0, len(tree[5]) - 1
    top = 1
    while top > 0:
        top -= 1
        code = codes[top]
        if far[top] >= limit * slack:
            continue
        if code & (1 << LEVEL_BITS) - 1:
            top = _push_children(code, q, tree, metric, limit * slack, (far, codes), top, lanes)
        elif code >> LEVEL_BITS != home:
            limit = _scan_leaf(code >> LEVEL_BITS, q, tree, metric, limit, found, lanes)


@helper(counts_references=False)
def _heap_push(far: Any, codes: Any, n: int, distance: float, code: int) -> None:
    j = n
    while j > 0 and far[(j - 1) // 2] > distance:
        far[j], codes[j] = far[(j - 1) // 2], codes[(j - 1) // 2]
        j = (j - 1) // 2
    far[j], codes[j] = distance, code


@helper(counts_references=False)
def _heap_pop(far: Any, codes: Any, n: int) -> None:
    """Take the first of n away."""
    distance, code = far[n - 1], codes[n - 1]
    j = 0
    while 2 * j + 1 < n - 1:
        child = 2 * j + 1
        if child + 1 < n - 1 and far[child + 1] < far[child]:
            child += 1
        if far[child] >= distance:
            break
        far[j], codes[j] = far[child], codes[child]
        j = child
    far[j], codes[j] = distance, code


@helper(counts_references=False)
def _best_first(q: Any, max_leaves: int, tree: Any, metric: Any, reaches: Any, found: Any, work: Any) -> None:
    """Look at the leaves in the order of their boxes' distances, at most so many (best bin first)."""
    limit, slack = reaches
    far, codes, lanes = work
    pushed = (far[-LANES:], codes[-LANES:])  # the heap has room for all nodes before these
    far[0], codes[0] = 0.0, len(tree[5]) - 1
    n = 1
    while n > 0 and max_leaves > 0:
        distance, code = far[0], codes[0]
        if distance >= limit * slack:
            break
        _heap_pop(far, codes, n)
        n -= 1
        if code & (1 << LEVEL_BITS) - 1:
            count = _push_children(code, q, tree, metric, limit * slack, pushed, 0, lanes)
            for i in range(count):
                _heap_push(far, codes, n, pushed[0][i], pushed[1][i])
                n += 1
        else:
            max_leaves -= 1
            limit = _scan_leaf(code >> LEVEL_BITS, q, tree, metric, limit, found, lanes)


@kernel(counts_references=False)
def nearest(
    thread: int,
    n_threads: int,
    queries: Any,
    order: Any,
    homes: Any,
    tree: Any,
    metric: Any,
    reaches: Any,
    max_leaves: int,
    found: Any,
    work: Any,
) -> None:
    """The nearest points of each query, nearest first.

    Parameters
    ----------
    queries : array of shape (n_queries, m)
    order : int array of shape (n_queries,)
        The order to take them in.
    homes : int array of shape (n_queries,)
        A leaf near each; -1 for none.
    tree : tuple
        Blocks of points, points of a block, m, ids, boxes and where each level of them starts.
    metric : tuple
        Norm, p, and periods (none of them, or one for each dimension with 0 for none).
    reaches : tuple
        A neighbour is below the first, as a power; the second makes boxes count as farther.
    max_leaves : int
        Leaves to look at; -1 for all that may hold a neighbour.
    found : tuple of arrays of shape (n_queries, k)
        Distances and points: filled with infinity and the number of points.
    work : tuple
        For each thread: distances and codes of nodes to visit, and 16 numbers.
    """
    norm, p, _ = metric
    all_distances, all_points = found
    all_far, all_codes, all_lanes = work
    own = (all_far[thread], all_codes[thread], all_lanes[thread])
    n_chunks = -(-len(queries) // _CHUNK)
    for chunk in range(thread, n_chunks, n_threads):
        for turn in range(chunk * _CHUNK, min((chunk + 1) * _CHUNK, len(queries))):
            row = order[turn]
            q = queries[row]
            distances, points = all_distances[row], all_points[row]
            if max_leaves < 0:
                _descend(q, homes[row], tree, metric, reaches, (distances, points), own)
            else:
                _best_first(q, max_leaves, tree, metric, reaches, (distances, points), own)
            _in_order(distances, points)
            for i in range(len(distances)):
                if distances[i] < np.inf:
                    distances[i] = root(distances[i], norm, p)
