"""Fast margins of many rows, for any ensemble whose nodes fit into 4 bytes.

What a tree asks of a feature is how its value compares with some threshold, so all that matters of a value is
how many of the feature's thresholds (over all trees) it reaches: one byte, found once a row. A feature with
more than 254 thresholds has several such bytes, and so has one whose missing values go left in some nodes and
right in others. The sums are those of the plain loop over trees, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fullspan.core.threads import Crew
from fullspan.estimators.binning import ends_of
from fullspan.estimators.boosting._predict_kernels import CHILD_BITS, LANE_BITS, add_margins_of_codes

if TYPE_CHECKING:
    from fullspan.estimators.boosting.ensemble import TreeEnsemble

_MOST_THRESHOLDS = 254
_MISSING = 255
_UNKNOWN = 254


@dataclass
class PackedTrees:
    """Trees as `add_margins_of_codes` takes them."""

    table: np.ndarray
    lanes: np.ndarray
    n_lanes: int
    nodes: np.ndarray
    sets: np.ndarray
    values: np.ndarray
    starts: np.ndarray
    depths: np.ndarray
    groups: np.ndarray

    def add_margins(self, X: np.ndarray, out: np.ndarray, n_threads: int | None = None) -> None:
        """Add what the trees give for the rows of X to `out`.

        Parameters
        ----------
        X : C-contiguous float32 array of shape (n_samples, n_features)
        out : C-contiguous float32 array of shape (n_samples, n_groups)
        n_threads : int, optional
            One for each usable core by default.
        """
        with Crew(n_threads) as crew:
            crew.run(
                add_margins_of_codes,
                X,
                ends_of(self.table),
                self.table,
                self.lanes,
                self.n_lanes,
                self.nodes,
                self.sets,
                self.values,
                self.starts,
                self.depths,
                self.groups,
                _UNKNOWN,
                out,
            )


def pack(ensemble: TreeEnsemble, first_tree: int = 0, last_tree: int | None = None) -> PackedTrees | None:
    """Trees ``first_tree:last_tree`` in the packed form, or None if they do not fit into it.

    They do not if one has more than 4096 nodes, if all together look at too many different thresholds, if a
    feature has more than 254 categories, or if values are float64; and trees without a split need no codes.
    """
    last_tree = ensemble.n_trees if last_tree is None else last_tree
    start = ensemble.tree_start[first_tree : last_tree + 1]
    sizes = np.diff(start)
    if len(sizes) == 0 or sizes.max() > 2**CHILD_BITS or ensemble.value.dtype != np.float32:
        return None
    part = slice(int(start[0]), int(start[-1]))
    tree_of_node = np.repeat(np.arange(len(sizes)), sizes)
    root = (start[:-1] - start[0])[tree_of_node]
    left, right = ensemble.left[part].astype(np.int64), ensemble.right[part].astype(np.int64)
    inner = left >= 0
    number = _paired_numbers(left, right, inner, root)
    categories = np.diff(ensemble.category_start[part.start : part.stop + 1]) > 0
    asked = _lanes_asked(ensemble, part, inner, categories)
    if asked is None:
        return None
    table, lanes, n_lanes, lane, code = asked
    n_nodes = len(left)
    target = root + number
    child = np.where(inner, number[np.where(inner, root + left, 0)], number)
    word = (child << (8 + LANE_BITS)) | (lane << 8) | np.where(inner, code, 255)
    nodes = np.zeros(n_nodes, dtype=np.uint32)
    nodes[target] = word
    values = np.zeros(n_nodes, dtype=np.float32)
    weight = ensemble.tree_weight[first_tree:last_tree][tree_of_node]
    values[target] = np.asarray(ensemble.value[part], np.float32) * weight
    sets = np.zeros((0, 8), dtype=np.int32)
    if categories.any():
        sets = np.zeros((n_nodes, 8), dtype=np.int32)
        sets[target] = _sets_of_nodes(ensemble, part, inner, categories, code, table, lane)
    groups = ensemble.tree_group[first_tree:last_tree]
    depths = _depths(np.where(inner, root + left, -1), right - left, start - start[0], tree_of_node)
    words = nodes.view(np.int32)
    return PackedTrees(table, lanes, n_lanes, words, sets, values, start - start[0], depths, groups)


def _depths(left: np.ndarray, beside: np.ndarray, start: np.ndarray, tree_of_node: np.ndarray) -> np.ndarray:
    """How many steps it is from each tree's root to its lowest leaf: int32 [trees].

    left counts from the first tree's root, -1 at leaves; the right child is `beside` it.
    """
    depths = np.zeros(len(start) - 1, dtype=np.int32)
    at, depth = start[:-1], 0
    while len(at := at[left[at] >= 0]):
        depth += 1
        depths[tree_of_node[at]] = depth
        children = left[at]
        at = np.concatenate([children, children + beside[at]])
    return depths


def _paired_numbers(left: np.ndarray, right: np.ndarray, inner: np.ndarray, root: np.ndarray) -> np.ndarray:
    """New numbers of nodes in their trees, for which a right child follows its sibling."""
    if (right[inner] == left[inner] + 1).all():
        return np.asarray(np.arange(len(left)) - root)
    number = np.zeros(len(left), dtype=np.int64)
    pairs = np.flatnonzero(inner)
    # The k-th split of a tree gets the children 2k + 1 and 2k + 2.
    before = np.concatenate([[0], np.cumsum(inner)])
    place = before[pairs] - before[root[pairs]]
    number[root[pairs] + left[pairs]] = 2 * place + 1
    number[root[pairs] + right[pairs]] = 2 * place + 2
    return number


def _lanes_asked(
    ensemble: TreeEnsemble, part: slice, inner: np.ndarray, categories: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int, np.ndarray, np.ndarray] | None:
    """The kernel's table, lanes and how many it has; each node's lane and largest code that goes left."""
    feature, threshold = ensemble.feature[part], ensemble.threshold[part]
    default_left = ensemble.default_left[part]
    lane, code = (np.zeros(len(feature), dtype=np.int64) for _ in range(2))
    entries: list[np.ndarray] = []
    facts: list[tuple[int, bool, int]] = []
    key = np.where(categories, 2, default_left) + 3 * feature.astype(np.int64)
    order = np.flatnonzero(inner)
    if len(order) == 0:
        return None
    # By key, and by threshold within it: one integer that sorts as the two.
    bits = threshold[order].view(np.int32)
    order = order[np.argsort((key[order] << 32) + (bits ^ ((bits >> 31) & 0x7FFFFFFF)))]
    kinds, starts = np.unique(key[order], return_index=True)
    for kind, nodes in zip(kinds.tolist(), np.split(order, starts[1:]), strict=True):
        at, way = divmod(kind, 3)
        if way == 2:
            known = _known_categories(ensemble, part, nodes)
            if len(known) > _MOST_THRESHOLDS:
                return None
            lane[nodes] = len(entries)
            entries.append(known.astype(np.float32))
            facts.append((at, True, _MISSING))
            continue
        ascending = threshold[nodes]
        is_new = np.concatenate([[True], ascending[1:] != ascending[:-1]])
        distinct, place = ascending[is_new], np.cumsum(is_new) - 1
        lane[nodes] = len(entries) + place // _MOST_THRESHOLDS
        code[nodes] = place % _MOST_THRESHOLDS
        for first in range(0, len(distinct), _MOST_THRESHOLDS):
            # A value reaches a threshold when it is above the number before it.
            reached = np.nextafter(distinct[first : first + _MOST_THRESHOLDS], np.float32(-np.inf))
            entries.append(reached)
            facts.append((at, False, 0 if way else _MISSING))
    n_groups = max(-(-len(entries) // 16), 1)
    if 16 * n_groups > 2**LANE_BITS:
        return None
    table = np.full((n_groups, 16, 256), np.inf, dtype=np.float32)
    lanes = np.zeros((n_groups, 3, 16), dtype=np.int32)
    for index, (values, fact) in enumerate(zip(entries, facts, strict=True)):
        table[index // 16, index % 16, : len(values)] = values
        lanes[index // 16, :, index % 16] = fact
    return table, lanes, len(entries), lane, code


def _known_categories(ensemble: TreeEnsemble, part: slice, nodes: np.ndarray) -> np.ndarray:
    """All categories that some of the nodes sends to the right."""
    start = ensemble.category_start[part.start :]
    listed = [ensemble.categories[start[node] : start[node + 1]] for node in nodes]
    return np.unique(np.concatenate(listed))


def _sets_of_nodes(
    ensemble: TreeEnsemble,
    part: slice,
    inner: np.ndarray,
    categories: np.ndarray,
    code: np.ndarray,
    table: np.ndarray,
    lane: np.ndarray,
) -> np.ndarray:
    """int32 [nodes, 8]: the codes that go right, a bit each."""
    goes_right = np.zeros((len(code), 256), dtype=np.uint8)
    numeric = inner & ~categories
    goes_right[numeric] = np.arange(256) > code[numeric, None]
    start = ensemble.category_start[part.start :]
    for node in np.flatnonzero(categories):
        known = table[lane[node] // 16, lane[node] % 16]
        listed = ensemble.categories[start[node] : start[node + 1]]
        goes_right[node, np.searchsorted(known, listed.astype(np.float32))] = 1
        goes_right[node, _MISSING] = not ensemble.default_left[part.start + node]
    return np.packbits(goes_right, axis=1, bitorder="little").view(np.int32)
