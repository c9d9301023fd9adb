# mypy: allow-untyped-defs, allow-untyped-decorators, allow-untyped-calls
"""Sending rows down grown trees, sixteen bytes a node and eight rows side by side."""

from __future__ import annotations

import numpy as np

from fullspan.core.kernels import kernel

_FEATURE, _LEFT, _RIGHT, _THRESHOLD = range(4)
# A bit beside the feature's number.
_MISSING_LEFT = 1 << 30
_NUMBER = _MISSING_LEFT - 1
_LANES = 8


@kernel()
def pack_tree(left, right, feature, threshold, missing_left, packed, packed_thresholds):
    """Write the nodes as (feature and flag, left, right, threshold as float32), each four bytes.

    A float32 number is at most a float64 threshold just when it is at most the next float32 below. A leaf
    leads to itself.
    """
    for node in range(len(left)):
        if left[node] == -1:
            packed[node, _FEATURE] = _MISSING_LEFT
            packed[node, _LEFT] = node
            packed[node, _RIGHT] = node
            packed_thresholds[node, _THRESHOLD] = np.inf
            continue
        packed[node, _LEFT] = left[node]
        packed[node, _RIGHT] = right[node]
        packed[node, _FEATURE] = feature[node] | (_MISSING_LEFT if missing_left[node] else 0)
        nearest = np.float32(threshold[node])
        if nearest > threshold[node]:
            nearest = np.nextafter(nearest, np.float32(-np.inf))
        packed_thresholds[node, _THRESHOLD] = nearest


@kernel()
def find_leaves(x, rows, packed, thresholds, leaves):
    """The leaf of each of the `rows` of x; of all rows if there are no numbers in `rows`."""
    n = len(leaves)
    all_rows = len(rows) == 0
    lane_rows = np.empty(_LANES, np.int64)
    nodes = np.empty(_LANES, np.int64)
    for first in range(0, n, _LANES):
        for lane in range(_LANES):
            i = min(first + lane, n - 1)
            lane_rows[lane] = i if all_rows else rows[i]
            nodes[lane] = 0
        moved = True
        while moved:
            moved = False
            for lane in range(_LANES):
                node = np.uint64(nodes[lane])
                head = packed[node, _FEATURE]
                value = x[np.uint64(lane_rows[lane]), np.uint64(head & _NUMBER)]
                go = (value <= thresholds[node, _THRESHOLD]) | (
                    (value != value) & ((head & _MISSING_LEFT) != 0)
                )
                following = np.int64(packed[node, _LEFT] if go else packed[node, _RIGHT])
                moved |= following != nodes[lane]
                nodes[lane] = following
        for lane in range(min(_LANES, n - first)):
            leaves[first + lane] = nodes[lane]


@kernel()
def add_values(leaves, rows, value, out):
    """Add each row's leaf's values to its row of `out`: to row `rows[i]`, or i if `rows` is empty."""
    all_rows = len(rows) == 0
    for i in range(len(leaves)):
        to = i if all_rows else rows[i]
        for q in range(out.shape[1]):
            out[to, q] += value[leaves[i], q]
