"""What growing on bins reads and writes, as named tuples of arrays: Numba takes them as they are."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Rows(NamedTuple):
    """The training rows of one tree."""

    codes: NDArray[np.uint8]  # [n_samples, n_features] numbers of bins, 255 for a missing value
    stats: NDArray[np.float64]  # [n_samples, 2] see `_split_kernels`
    cuts: NDArray[np.float64]  # [n_features, 255] where bins end
    categorical: NDArray[np.bool_]  # [n_features]


class Rules(NamedTuple):
    """When a node is split, and how."""

    criterion: int
    n_classes: int  # 1 in a regression
    max_features: int
    max_depth: int
    min_samples_split: int
    min_samples_leaf: int
    min_weight_leaf: float
    min_impurity_decrease: float
    all_weight: float  # the root's; looked at only if there is a least decrease


class Work(NamedTuple):
    """Buffers of one growing tree; `width` is 2 for a regression or two classes, or the number of classes."""

    order: NDArray[np.int32]  # [n_rows] rows, those of a node side by side
    spare: NDArray[np.int32]  # [n_rows]
    rows_near: NDArray[np.uint8]  # [most rows of a node to copy together, n_features]
    stats_near: NDArray[np.float64]  # [as many, 2]
    totals: NDArray[np.float64]  # [width] the node's sums
    features: NDArray[np.int64]  # [n_features] ascending between nodes
    swaps: NDArray[np.int64]  # [n_features] how to get there again
    chosen: NDArray[np.int64]  # [GROUP] features whose histograms are filled
    known: NDArray[np.uint64]  # [n_features bits] constant features of the node
    histograms: NDArray[np.float64]  # [GROUP * BINS * width] zeros between features
    seen: NDArray[np.uint8]  # [GROUP * BINS] likewise
    counts: NDArray[np.int64]  # [GROUP * BINS] likewise
    bins: tuple[NDArray[np.generic], ...]  # see `find_split`
    best: NDArray[np.float64]  # [1] score of the best split
    found: NDArray[np.int64]  # [5] the split, see `_split_kernels`
    found_categories: NDArray[np.uint64]  # [8]
    goes_left: NDArray[np.uint8]  # [BINS]


class Growth(NamedTuple):
    """The tree as far as it is grown."""

    counts: NDArray[np.int64]  # [2] nodes; nodes that wait
    integers: NDArray[np.int64]  # [n_nodes, 5] see below
    floats: NDArray[np.float64]  # [n_nodes, 3] see below
    values: NDArray[np.float64]  # [n_nodes, n_classes]
    words: NDArray[np.uint64]  # [n_nodes, 4] bits of the categories that go left; [n_nodes, 0] without any
    stack: NDArray[np.int64]  # [depth, 7] of the nodes that wait, see below
    stack_known: NDArray[np.uint64]  # [depth, n_features bits] features known to be constant there


# Places in `Growth.counts`.
N_NODES, N_WAITING = range(2)
# Columns of `Growth.integers`, of `Growth.floats` and of `Growth.stack`.
LEFT, RIGHT, SPLIT_FEATURE, N_SAMPLES, MISSING_GOES_LEFT = range(5)
THRESHOLD, IMPURITY, NODE_WEIGHT = range(3)
START, STOP, PARENT, KEY, NEAR, DEPTH, CONSTANTS = range(7)
