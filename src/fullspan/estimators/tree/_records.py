"""What the growing kernels read and write, as named tuples of arrays: Numba takes them as they are."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

GINI, ENTROPY, SQUARED, ABSOLUTE, POISSON = range(5)


class Columns(NamedTuple):
    """The features, dense (`values`) or sparse (`data`, `indices`, `indptr`: csc)."""

    values: NDArray[np.float32]  # [n_features, n_samples], codes for categories; [n_features, 0] if sparse
    packed: NDArray[np.uint64]  # [n_features, n_samples] as `presort` leaves them; [0, 0] if not presorted
    data: NDArray[np.float32]
    indices: NDArray[np.int32]
    indptr: NDArray[np.int64]  # empty if dense
    has_missing: NDArray[np.bool_]  # [n_features]
    n_categories: NDArray[np.int64]  # [n_features]; 0 for numeric features


class Targets(NamedTuple):
    """What is predicted, and how much each row counts."""

    y: NDArray[np.float64]  # [n_samples, n_outputs]; classes are whole numbers
    codes: NDArray[np.int32]  # [n_samples] the classes of a single output; otherwise empty
    weight: NDArray[np.float64]  # [n_samples]
    n_classes: NDArray[np.int64]  # [n_outputs]; ones in regression
    total_weight: float
    order_matters: bool  # whether sums of weights and targets round


class Rules(NamedTuple):
    """When a node is split, and how."""

    criterion: int
    random_splits: bool
    max_features: int
    max_depth: int
    min_samples_split: int
    min_samples_leaf: int
    min_weight_leaf: float
    max_leaf_nodes: int  # -1: depth first, without a limit
    min_impurity_decrease: float
    monotonic: NDArray[np.int8]  # [n_features], or empty


class Work(NamedTuple):
    """Buffers of one growing tree.

    For those that are None, the code that uses them is left out when the kernel is compiled.
    """

    samples: NDArray[np.int32]  # [n_rows] rows, those of a node side by side
    values: NDArray[np.float32]  # [n_rows] their values of the feature at hand
    bits: NDArray[np.uint32]  # [n_rows] the same memory
    spare_samples: NDArray[np.int32]  # [n_rows]
    spare_values: NDArray[np.float32]  # [n_rows]
    spare_packed: NDArray[np.uint64]  # [n_rows] if presorted
    goes_left: NDArray[np.uint8]  # [n_samples] if presorted
    position: NDArray[np.int32] | None  # [n_samples] where each row stands in `samples`, if sparse
    features: NDArray[np.int64]  # [2, n_features] a permutation, constant ones in front; the constant ones
    random: NDArray[np.int64]  # [1] state of the generator
    stack: NDArray[np.int64]  # of the sort
    sums: NDArray[np.float64]  # [3, n_outputs, max_n_classes], see below
    scalars: NDArray[np.float64]  # see below
    split: NDArray[np.float64]  # [9] what `find_split` found, see below
    absolute: NDArray[np.float64] | None  # [7, n_rows + 1], see below, for the absolute error
    absolute_ranks: NDArray[np.int64]  # [2, n_rows] for it, too
    categories: NDArray[np.int64] | None  # [4, most categories], see below, if there are any
    category_sums: NDArray[np.float64]  # [2 + n_outputs * max_n_classes, most categories]
    directions: NDArray[np.float64]  # [3, n_outputs * max_n_classes] scratch of their ranking


class Growth(NamedTuple):
    """The tree as far as it is grown; with a limited number of leaves nodes wait in a heap, too."""

    counts: NDArray[np.int64]  # see below
    integers: NDArray[np.int64]  # [n_nodes, 5] see below
    floats: NDArray[np.float64]  # [n_nodes, 3] see below
    values: NDArray[np.float64]  # [n_nodes, n_outputs * max_n_classes]
    words: NDArray[np.uint64]  # [n_nodes, words for the most categories] bits of the categories that go left
    # Nodes to look at: start, end, depth, parent, is left, constant features; impurity, lower, upper.
    waiting: NDArray[np.int64]  # [n_nodes + 1, 6]
    bounds: NDArray[np.float64]  # [n_nodes + 1, 3]
    # By node, once it was looked at: start, end, position of the right child, depth, whether it can be split;
    # impurities of the children, improvement, lower, upper, middle value.
    places: NDArray[np.int64]  # [n_nodes, 5]
    figures: NDArray[np.float64]  # [n_nodes, 6]
    heap: NDArray[np.int64]  # [n_nodes]


# Places in `Growth.counts`.
N_NODES, N_WAITING, N_HEAP, SPLITS_LEFT = range(4)
# Columns of `Growth.integers` and `Growth.floats`.
LEFT, RIGHT, FEATURE, N_SAMPLES, MISSING_LEFT = range(5)
THRESHOLD, IMPURITY, NODE_WEIGHT = range(3)
# Places in `Work.split`: the right child's first row (the node's end if there is no split), and so on.
SPLIT_POSITION, SPLIT_FEATURE, SPLIT_THRESHOLD, SPLIT_MISSING_LEFT, QUALITY = range(5)
IMPROVEMENT, IMPURITY_LEFT, IMPURITY_RIGHT, N_CONSTANT = range(5, 9)
# Rows of `Work.sums`. NumPy's integers: for each of Python's, Numba would compile its callees once more.
TOTAL, IN_LEFT, IN_RIGHT = np.arange(3)
# Places in `Work.scalars`: weights, sum of squares, where the right child starts.
WEIGHT, WEIGHT_LEFT, WEIGHT_RIGHT, SQUARES, POSITION = range(5)
# Rows of `Work.absolute`: by position in `samples`; by rank; two Fenwick trees.
LEFT_ERRORS, RIGHT_ERRORS, LEFT_MEDIANS, RIGHT_MEDIANS, SORTED_Y, TREE_WEIGHT, TREE_WEIGHTED_Y = range(7)
# Rows of `Work.categories`: ranks; ranks in the best split's feature; categories by rank; rows of each.
RANK, BEST_RANK, ORDER, COUNT = range(4)
