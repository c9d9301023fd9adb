"""A kd-tree's nodes as objects, to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from fullspan.estimators.neighbors._structure import Structure
    from fullspan.estimators.neighbors.kd_tree import KDTree


def _structure(tree: KDTree) -> Structure:
    if tree._structure is None:
        raise ValueError("a tree without points has no nodes")
    return tree._structure


class Node:
    """A node: the points from one place to another in the order of the leaves.

    Attributes
    ----------
    idx, indices : ndarray of shape (children,)
        Its points' rows in the tree's data.
    data_points : ndarray of shape (children, m)
    children : int
        How many points it holds.
    start_idx, end_idx : int
        Its places in the tree's `indices`.
    level : int
        Levels above it.
    """

    split_dim = -1

    def __init__(self, tree: KDTree, level: int, number: int) -> None:
        structure = _structure(tree)
        self._tree, self._height, self._number = tree, level, number
        size = structure.block << level
        self.start_idx, self.end_idx = number * size, min((number + 1) * size, tree.n)
        self.children = self.end_idx - self.start_idx
        self.level = structure.n_levels - level

    @property
    def indices(self) -> np.ndarray:
        """Its points' rows in the tree's data."""
        return self._tree.indices[self.start_idx : self.end_idx]

    idx = indices

    @property
    def data_points(self) -> np.ndarray:
        """Its points."""
        points: np.ndarray = self._tree.data[self.indices]
        return points

    @property
    def lesser(self) -> Node | None:
        """The points on the left of the split; None of a leaf."""
        return None

    @property
    def greater(self) -> Node | None:
        """The points on the right of the split; None of a leaf."""
        return None


class LeafNode(Node):
    """A node without children."""


class InnerNode(Node):
    """A node that is split: points on the left are at most at `split`, those on the right at least.

    Attributes
    ----------
    split_dim : int
    split : float
    less, lesser, greater : Node
    """

    def __init__(self, tree: KDTree, level: int, number: int) -> None:
        super().__init__(tree, level, number)
        structure = _structure(tree)
        at = structure.split_starts[level] + number
        self.split_dim = int(structure.dimensions[at])
        self.split = float(structure.values[at])

    @property
    def lesser(self) -> Node:
        """The points on the left of the split."""
        return node(self._tree, self._height - 1, 2 * self._number)

    less = lesser

    @property
    def greater(self) -> Node:
        """The points on the right of the split."""
        return node(self._tree, self._height - 1, 2 * self._number + 1)


def node(tree: KDTree, level: int, number: int) -> Node:
    """The node with a number among those of its level; level 0 has the leaves.

    A node whose points all lie on the left of its middle is passed over.
    """
    structure = _structure(tree)
    while level and (2 * number + 1) * (structure.block << (level - 1)) >= tree.n:
        level, number = level - 1, 2 * number
    return InnerNode(tree, level, number) if level else LeafNode(tree, 0, number)
