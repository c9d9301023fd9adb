"""Minimal cost-complexity pruning (Breiman, Friedman, Olshen and Stone 1984, chapter 3)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fullspan.estimators.tree._pruning_kernels import kept_nodes, prune
from fullspan.estimators.tree.structure import LEAF, UNDEFINED, Tree


def pruning_path(tree: Tree) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The prices per leaf at which branches fall, and the leaves' total impurity from each on.

    Parameters
    ----------
    tree : Tree

    Returns
    -------
    alphas, impurities : float64 arrays of shape (n_steps + 1,)
        The first entries, 0 and the tree's own impurity, stand for the whole tree.
    """
    _, alphas, impurities = _pruned_leaves(tree, np.inf)
    return alphas, impurities


def pruned(tree: Tree, alpha: float) -> Tree:
    """The smallest subtree that minimises impurity plus `alpha` times the number of leaves.

    Parameters
    ----------
    tree : Tree
    alpha : float

    Returns
    -------
    Tree
        Nodes in depth-first order.
    """
    leaves, _, _ = _pruned_leaves(tree, alpha)
    kept = np.empty(tree.node_count, np.int64)
    kept = kept[: kept_nodes(tree.children_left, tree.children_right, leaves, kept)]
    leaf = leaves[kept]
    number = np.full(tree.node_count, LEAF)
    number[kept] = np.arange(len(kept))
    start, words = tree.category_start, tree.category_words
    if start is not None and words is not None:
        start, words = _kept_words(start, words, kept, leaf)
    return Tree(
        tree.n_features,
        tree.n_classes,
        np.where(leaf, LEAF, number[tree.children_left[kept]]),
        np.where(leaf, LEAF, number[tree.children_right[kept]]),
        np.where(leaf, UNDEFINED, tree.feature[kept]),
        np.where(leaf, UNDEFINED, tree.threshold[kept]),
        tree.impurity[kept],
        tree.n_node_samples[kept],
        tree.weighted_n_node_samples[kept],
        tree.value[kept],
        np.where(leaf, 0, tree.missing_go_to_left[kept]),
        start,
        words,
    )


def _pruned_leaves(
    tree: Tree, limit: float
) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]]:
    weight = tree.weighted_n_node_samples
    risk = weight * tree.impurity / weight[0]
    leaves = np.empty(tree.node_count, np.bool_)
    alphas, risks = np.empty(tree.node_count), np.empty(tree.node_count)
    count = prune(tree.children_left, tree.children_right, risk, float(limit), leaves, alphas, risks)
    return leaves, alphas[:count], risks[:count]


def _kept_words(
    start: NDArray[np.int64], words: NDArray[np.uint64], kept: NDArray[np.int64], leaf: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """The bits of the categorical splits that remain."""
    lengths = np.where(leaf, 0, np.diff(start)[kept])
    parts = [words[start[node] : start[node] + length] for node, length in zip(kept, lengths, strict=True)]
    return np.concatenate([[0], np.cumsum(lengths)]), np.concatenate([words[:0], *parts])
