"""Predicting with many trees: blocks of rows on threads, the trees of a block one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from fullspan.estimators._forest_predict_kernels import add_values, find_leaves, pack_tree
from fullspan.estimators.tree.structure import Tree

_BLOCK = 8192
"""Rows of a block: its features stay in the second cache while the trees take turns."""
_SPARSE_BLOCK = 1024
_ALL_ROWS = np.empty(0, np.int64)

# Packed nodes live as long as their trees, and are never saved or pickled with them.
_packed: WeakKeyDictionary[Tree, NDArray[np.int32]] = WeakKeyDictionary()


def sum_of_values(trees: Sequence[Tree], X: Any, n_threads: int) -> NDArray[np.float64]:
    """Sum of the trees' values for each row, in the order of the trees.

    Parameters
    ----------
    trees : sequence of Tree
    X : float32 array or csr matrix of shape (n_samples, n_features)
    n_threads : int

    Returns
    -------
    float64 array of shape (n_samples, n_outputs * max_n_classes)
    """
    out = np.zeros((X.shape[0], trees[0].value[0].size))

    def add(block: slice, rows: NDArray[np.float32]) -> None:
        leaves = np.empty(len(rows), np.int64)
        for tree in trees:
            leaves_of(tree, rows, leaves)
            add_values(leaves, _ALL_ROWS, _flat(tree.value), out[block])

    _in_blocks(add, X, n_threads)
    return out


def all_leaves(trees: Sequence[Tree], X: Any, n_threads: int) -> NDArray[np.int64]:
    """The leaf of each row in each tree, of shape (n_samples, n_trees)."""
    out = np.empty((len(trees), X.shape[0]), np.int64)

    def write(block: slice, rows: NDArray[np.float32]) -> None:
        for number, tree in enumerate(trees):
            leaves_of(tree, rows, out[number, block])

    _in_blocks(write, X, n_threads)
    return out.T


def add_to_rows(
    tree: Tree, X: Any, numbers: NDArray[np.int64], out: NDArray[np.float64], n_threads: int
) -> None:
    """Add the tree's values for rows `numbers` of X to those rows of `out`."""

    def add(part: NDArray[np.int64]) -> None:
        add_values(leaves_of_rows(tree, X, part), part, _flat(tree.value), out)

    _on_threads(add, np.array_split(numbers, n_threads), n_threads)


def leaves_of_rows(tree: Tree, X: Any, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """The leaves of the rows `numbers` of a float32 array or csr matrix."""
    leaves = np.empty(len(numbers), np.int64)
    if sp.issparse(X):
        for first in range(0, len(numbers), _SPARSE_BLOCK):
            block = slice(first, first + _SPARSE_BLOCK)
            leaves_of(tree, X[numbers[block]].toarray(), leaves[block])
    elif len(numbers):
        leaves_of(tree, X, leaves, numbers)
    return leaves


def leaves_of(
    tree: Tree, rows: NDArray[np.float32], leaves: NDArray[np.int64], numbers: NDArray[np.int64] = _ALL_ROWS
) -> None:
    """Write the leaf of each row of a float32 array, or of those with the given numbers."""
    if tree.category_words is not None:
        leaves[:] = tree.apply(rows[numbers] if len(numbers) else rows)
        return
    nodes = _pack(tree)
    find_leaves(rows, numbers, nodes, nodes.view(np.float32), leaves)


def _flat(value: NDArray[np.float64]) -> NDArray[np.float64]:
    return value.reshape(len(value), -1)


def _pack(tree: Tree) -> NDArray[np.int32]:
    nodes = _packed.get(tree)
    if nodes is None:
        nodes = np.empty((tree.node_count, 4), np.int32)
        pack_tree(
            tree.children_left,
            tree.children_right,
            tree.feature,
            tree.threshold,
            tree.missing_go_to_left,
            nodes,
            nodes.view(np.float32),
        )
        _packed[tree] = nodes
    return nodes


def _in_blocks(work: Callable[[slice, NDArray[np.float32]], None], X: Any, n_threads: int) -> None:
    sparse = sp.issparse(X)
    n = X.shape[0]
    size = _SPARSE_BLOCK if sparse else max(1, min(_BLOCK, -(-n // n_threads)))
    blocks = [slice(first, min(first + size, n)) for first in range(0, n, size)]

    def run(block: slice) -> None:
        work(block, X[block].toarray() if sparse else X[block])

    _on_threads(run, blocks, n_threads)


def _on_threads(work: Callable[[Any], None], parts: Sequence[Any], n_threads: int) -> None:
    if n_threads == 1 or len(parts) <= 1:
        for part in parts:
            work(part)
        return
    with ThreadPoolExecutor(min(n_threads, len(parts))) as pool:
        list(pool.map(work, parts))
