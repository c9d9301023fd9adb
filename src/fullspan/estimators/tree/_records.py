"""What the growing kernels read and write, as named tuples of arrays: Numba takes them as they are."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

GINI, ENTROPY, SQUARED, ABSOLUTE, POISSON = range(5)


class Columns(NamedTuple):
    """The features, dense (`values`) or sparse (`data`, `indices`, `indptr`: csc)."""

    values: NDArray[np.float32]  # [n_features, n_samples]; [n_features, 0] if sparse
    packed: NDArray[
        np.uint64
    ]  # [n_features, n_samples] as `presort` leaves them; [0, 0] if rows are sorted by node
    data: NDArray[np.float32]
    indices: NDArray[np.int32]
    indptr: NDArray[np.int64]  # empty if dense
    has_missing: NDArray[np.bool_]  # [n_features]
    n_categories: NDArray[np.int64]  # [n_features]; 0 for numeric features


class Targets(NamedTuple):
    """What is predicted, and how much each row counts."""

    y: NDArray[np.float64]  # [n_samples, n_outputs]
    codes: NDArray[np.int32]  # [n_samples, n_outputs] classes; [0, 0] in regression
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


class Absolute(NamedTuple):
    """What the absolute error needs; all empty for other criteria."""

    left_errors: NDArray[np.float64]
    right_errors: NDArray[np.float64]
    left_medians: NDArray[np.float64]
    right_medians: NDArray[np.float64]
    medians: NDArray[np.float64]  # [n_outputs]
    ranks: NDArray[np.int64]
    sorted_y: NDArray[np.float64]
    sorted_rows: NDArray[np.int64]
    tree_weight: NDArray[np.float64]  # [n_samples + 1] Fenwick tree
    tree_weighted_y: NDArray[np.float64]


class Work(NamedTuple):
    """Buffers of one growing tree."""

    samples: NDArray[np.int32]  # [n_samples] rows, those of a node side by side
    feature_values: NDArray[np.float32]  # [n_samples] of the feature at hand, by position
    features: NDArray[np.int64]  # [n_features] a permutation; constant ones in front
    constants: NDArray[np.int64]  # [n_features]
    random: NDArray[np.int64]  # [1] state of the generator
    stack: NDArray[np.int64]  # of the sort
    spare_samples: NDArray[np.int32]  # [n_samples]
    spare_values: NDArray[np.float32]  # [n_samples]
    spare_packed: NDArray[np.uint64]  # [n_samples] if presorted
    goes_left: NDArray[np.uint8]  # [n_samples] if presorted
    position: NDArray[np.int32]  # [n_samples] where each row stands in `samples`, if sparse
    total: NDArray[np.float64]  # [n_outputs, max_n_classes] of the node
    left: NDArray[np.float64]
    right: NDArray[np.float64]
    scalars: NDArray[np.float64]  # see the names below
    absolute: Absolute


# Places in `Work.scalars`.
WEIGHT, WEIGHT_LEFT, WEIGHT_RIGHT, SQUARES, POSITION = range(5)
