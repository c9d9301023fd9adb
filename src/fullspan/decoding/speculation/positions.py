"""Trees from heads that each guess the token at one position, whatever the others guess (Medusa)."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fullspan.decoding.speculation.drafters import DraftRow
from fullspan.decoding.speculation.tree import Tree

# A node: its parent's number, and the rank of its token among its position's guesses.
Shape = list[tuple[int, int]]


def best_shape(accuracy: Sequence[Sequence[float]], n_nodes: int) -> Shape:
    """The tree of `n_nodes` proposals that is expected to have the most of them accepted.

    Its nodes are the paths of ranks with the greatest products of accuracies, as if positions were
    independent (Cai et al. 2024, "Medusa", section 2.3.3).

    Parameters
    ----------
    accuracy : sequence of sequence of float
        By position and rank: how often that guess is right.
    n_nodes : int

    Examples
    --------
    >>> best_shape([[0.6, 0.2], [0.5, 0.1]], 3)
    [(0, 0), (1, 0), (0, 1)]
    """
    shape: Shape = []
    # The number of a node, once chosen, is its place in `shape` plus one: 0 is the root.
    waiting = [(-accuracy[0][0], 0, 0, 0, 1.0)] if accuracy else []
    while waiting and len(shape) < n_nodes:
        score, depth, parent, rank, before = heapq.heappop(waiting)
        if score >= 0:
            break
        shape.append((parent, rank))
        if rank + 1 < len(accuracy[depth]):
            brother = -before * accuracy[depth][rank + 1]
            heapq.heappush(waiting, (brother, depth, parent, rank + 1, before))
        if depth + 1 < len(accuracy):
            child = score * accuracy[depth + 1][0]
            heapq.heappush(waiting, (child, depth + 1, len(shape), 0, -score))
    return shape


def shape_from_paths(paths: Sequence[Sequence[int]]) -> Shape:
    """A tree from paths of ranks, parents before children, as Medusa's own configurations have them.

    Examples
    --------
    >>> shape_from_paths([(0,), (1,), (0, 0)])
    [(0, 0), (0, 1), (1, 0)]
    """
    numbers: dict[tuple[int, ...], int] = {(): 0}
    shape: Shape = []
    for path in map(tuple, paths):
        if path in numbers or path[:-1] not in numbers or min(path) < 0:
            raise ValueError(f"the path {path} is there already, or comes before the one that it goes on")
        shape.append((numbers[path[:-1]], path[-1]))
        numbers[path] = len(shape)
    return shape


def depth_of(shape: Shape) -> tuple[int, int]:
    """The positions and ranks that a tree needs."""
    depths = [0]
    for parent, _ in shape:
        depths.append(depths[parent] + 1)
    return max(depths), 1 + max((rank for _, rank in shape), default=0)


def fill(shape: Shape, row: DraftRow, guesses: NDArray[np.int64]) -> Tree:
    """A tree of a shape with the guesses [positions, ranks] of a row; nothing behind its end tokens."""
    tree = Tree(row.ids[-1])
    nodes: list[int | None] = [0]
    for parent, rank in shape:
        place = nodes[parent]
        if place is None or tree.depths[place] >= row.room or (tree.tokens[place] in row.end_ids and place):
            nodes.append(None)
            continue
        nodes.append(tree.add(place, int(guesses[tree.depths[place], rank])))
    return tree


def ranked(logits: NDArray[np.float32], n_ranks: int) -> NDArray[np.int64]:
    """The places of the greatest logits [..., n], in order, int64 [..., n_ranks].

    Examples
    --------
    >>> ranked(np.float32([[1, 3, 2]]), 2).tolist()
    [[1, 2]]
    """
    n_ranks = min(n_ranks, logits.shape[-1])
    some = np.argpartition(-logits, n_ranks - 1, axis=-1)[..., :n_ranks]
    order = np.argsort(-np.take_along_axis(logits, some, -1), axis=-1, kind="stable")
    return np.take_along_axis(some, order, -1).astype(np.int64)
