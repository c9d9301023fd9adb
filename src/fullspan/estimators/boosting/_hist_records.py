"""What the kernels of histogram growth hand about: named tuples of arrays, and what their columns are.

Shapes: as in `_hist_kernels`; L leaves at most, M = 2L - 1 nodes, P sets of features that may interact.
"""

from __future__ import annotations

from typing import Any, NamedTuple

# Columns of a leaf's whole numbers; from PIECES on, where each thread's rows begin and how many they are.
TOTAL, LEFT_SUMS, NODE, DEPTH, SLOT, FEATURE, BIN, KIND, N_ROWS, PIECES = range(10)
# Columns of its other numbers, and of a node's.
GAIN, LOWEST, HIGHEST = range(3)
# Columns of a node's whole numbers.
LEFT, RIGHT, NODE_FEATURE, NODE_BIN, NODE_KIND = range(5)
# Columns of a feature's facts.
N_BINS, IS_CATEGORICAL, MONOTONE = range(3)
# What is found for a leaf.
FOUND_FEATURE, FOUND_BIN, FOUND_KIND, FOUND_LEFT = range(4)


class Rows(NamedTuple):
    """The rows; where in `order` a thread has its own, the account of the leaves says."""

    blocks: Any  # uint8 [B, N, 16]
    columns: Any  # uint8 [C, N], copies of the codes of some features
    column_of: Any  # int64 [F], the feature's place among the columns, or -1
    wide: Any  # int64 [N] where is_wide
    order: Any  # int32
    spare: Any  # int32, as long; node_of_row is its beginning, written when nothing is parted any more
    is_wide: Any
    width: Any  # features of a block
    vector: Any  # whether rows are parted by vectors


class Features(NamedTuple):
    """What may be split: of a tree's features a level takes n_level and a node n_node, as `salt` has it."""

    facts: Any  # int64 [F, 3]
    sets: Any  # uint8 [P, F]
    features: Any  # int64
    n_level: Any
    n_node: Any
    salt: Any


class Limits(NamedTuple):
    """When to stop; how many categories are tried one by one, and how many are told apart."""

    max_leaves: Any
    max_depth: Any  # 0: any
    lossguide: Any  # else level by level
    least_gain: Any
    most_one_hot: Any
    most_right: Any


class Room(NamedTuple):
    """What threads share."""

    hist: Any  # int64 [S, B, W * 256]
    partial: Any  # int64 [T, 2, W * 256]
    meeting: Any
    n_left: Any  # int64 [2, T]
    found: Any  # int64 [T, 2, 4], for two children
    worth: Any  # float32 [T, 2]
    goes_left: Any  # uint8 [T, 2, 256]
    parted: Any  # int64 [F], how many rows have been parted by a feature


class Desk(NamedTuple):
    """What each thread has for itself; T comes first in all shapes."""

    numbers: Any  # int64 [L, PIECES + 2T], the account of the leaves
    reals: Any  # float32 [L, 3]
    goes_left: Any  # uint8 [L or 1, 256], of leaves that will be split by categories
    marks: Any  # uint8 [L or 1, P + F]: sets that hold all features of the path, then those features
    heap: Any  # int64 [L]
    taken: Any  # uint8 [S]
    chosen: Any  # int64 [2, F]
    below: Any  # int32 [2, 256]
    order: Any  # int64 [256]
    worths: Any  # float32 [2, 256]
    codes: Any  # uint8 [256]
    left: Any  # int32 [256]


class Grown(NamedTuple):
    """The tree."""

    numbers: Any  # int64 [M, 5]
    reals: Any  # float32 [M, 3]
    goes_left: Any  # uint8 [M or 1, 256]
    n_nodes: Any  # int64 [1]
