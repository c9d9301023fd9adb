"""Trees grown by looking at every split of every feature: tree_method="exact".

Columns are sorted once. A level of the tree is one pass over each column in both directions, so that missing
values are tried on either side (Chen & Guestrin 2016, algorithms 1 and 3). Sums are float64 in the order of
the rows, gains float32, ties go to the first feature: XGBoost's rules, which give XGBoost's trees.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from fullspan.core.device import usable_cores
from fullspan.estimators.boosting._exact_kernels import (
    EPS,
    best_splits,
    node_statistics,
    send_rows,
    weights_and_gains,
)
from fullspan.estimators.boosting.ensemble import TreeEnsemble
from fullspan.estimators.boosting.feature_sampling import drawn

if TYPE_CHECKING:
    from fullspan.estimators.boosting.hist import GrowConfig

_MOST = np.finfo(np.float32).max


class ExactGrower:
    """Grows one tree at a time on one training set.

    Parameters
    ----------
    config : GrowConfig
    X : float32 array or sparse matrix of shape (n_samples, n_features)
        NaN is missing; so is what a sparse matrix does not hold.
    feature_weights : float64 array of shape (n_features,), optional
        Chances of the features where only some are drawn.

    References
    ----------
    T. Chen, C. Guestrin, "XGBoost: a scalable tree boosting system", KDD 2016.
    """

    def __init__(
        self, config: GrowConfig, X: Any, feature_weights: NDArray[np.float64] | None = None
    ) -> None:
        self.config, self.feature_weights = config, feature_weights
        self.n, self.n_features = X.shape
        self.columns = [_sorted_column(*column) for column in _columns(X)]
        self.n_threads = config.n_threads or usable_cores()

    def grow(
        self, g: NDArray[np.float32], h: NDArray[np.float32], round: int
    ) -> tuple[TreeEnsemble, NDArray[np.int32]]:
        """One tree for gradients g and hessians h.

        Parameters
        ----------
        g, h : float32 array of shape (n_samples,)
            Both are 0 for rows that are left out of the sample.
        round : int
            Different for each tree; with the seed it decides which columns are sampled.

        Returns
        -------
        tree : TreeEnsemble
            With one tree.
        leaf : int32 array of shape (n_samples,)
            The leaf of each row.
        """
        with ThreadPoolExecutor(self.n_threads) as pool:
            growth = _Growth(self, g, h, np.random.default_rng([self.config.seed, round]), pool)
            nodes = growth.run()
        kept = nodes.pruned(self.config.gamma)
        new_index = np.full(len(nodes.left), -1, dtype=np.int32)
        new_index[kept] = np.arange(len(kept), dtype=np.int32)
        return nodes.ensemble(kept, new_index, self.n_features), nodes.leaf_kept(new_index)[growth.node]


class _Nodes:
    """Nodes of a tree while it grows, children after parents."""

    def __init__(self) -> None:
        self.parent: list[int] = []
        self.left: list[int] = []
        self.right: list[int] = []
        self.feature: list[int] = []
        self.threshold: list[np.float32] = []
        self.default_left: list[bool] = []
        self.gain: list[np.float32] = []
        self.value: list[np.float32] = []
        self.cover: list[np.float32] = []

    def add(self, parent: int, value: np.float32, cover: np.float32) -> int:
        self.parent.append(parent)
        self.left.append(-1)
        self.right.append(-1)
        self.feature.append(0)
        self.default_left.append(False)
        self.threshold.append(np.float32(0))
        self.gain.append(np.float32(0))
        self.value.append(value)
        self.cover.append(cover)
        return len(self.left) - 1

    def split(
        self, node: int, feature: int, threshold: np.float32, default_left: bool, gain: np.float32
    ) -> None:
        self.feature[node], self.threshold[node] = feature, threshold
        self.default_left[node], self.gain[node] = default_left, gain

    def pruned(self, gamma: float) -> list[int]:
        """Take back, from below, splits into leaves that gain less than gamma; the nodes that remain."""
        for node in reversed(range(len(self.left))):
            left, right = self.left[node], self.right[node]
            if left >= 0 and self.left[left] < 0 and self.left[right] < 0 and self.gain[node] < gamma:
                self.left[node] = self.right[node] = -1
                self.split(node, 0, np.float32(0), False, np.float32(0))
        remain = [True] * len(self.left)
        for node in range(1, len(self.left)):
            parent = self.parent[node]
            remain[node] = remain[parent] and self.left[parent] >= 0
        return [node for node, there in enumerate(remain) if there]

    def leaf_kept(self, new_index: NDArray[np.int32]) -> NDArray[np.int32]:
        """Of each grown node, the new index of itself or of the nearest ancestor that remains."""
        out = new_index.copy()
        for node in range(1, len(out)):
            if out[node] < 0:
                out[node] = out[self.parent[node]]
        return out

    def ensemble(self, kept: list[int], new_index: NDArray[np.int32], n_features: int) -> TreeEnsemble:
        def child(column: list[int]) -> NDArray[np.int32]:
            old = np.array(column)[kept]
            return np.where(old >= 0, new_index[old], -1)

        return TreeEnsemble(
            n_features,
            1,
            base_score=[0.0],
            tree_start=[0, len(kept)],
            tree_group=[0],
            tree_weight=[1.0],
            left=child(self.left),
            right=child(self.right),
            feature=np.array(self.feature)[kept],
            threshold=np.array(self.threshold)[kept],
            default_left=np.array(self.default_left)[kept],
            value=np.array(self.value)[kept],
            gain=np.array(self.gain)[kept],
            cover=np.array(self.cover)[kept],
        )


class _Growth:
    """One tree, level by level. A slot is the place of a node among those of the level that may be split."""

    def __init__(
        self,
        grower: ExactGrower,
        g: NDArray[np.float32],
        h: NDArray[np.float32],
        random: np.random.Generator,
        pool: ThreadPoolExecutor,
    ) -> None:
        self.grower, self.config, self.pool, self.random = grower, grower.config, pool, random
        self.g, self.h = g, h
        self.node = np.zeros(grower.n, dtype=np.int32)
        monotone = grower.config.monotone
        self.constrained = monotone is not None and bool(np.any(monotone))
        self.monotone = np.zeros(grower.n_features, np.int8)
        if monotone is not None:
            self.monotone[:] = monotone
        self.tree_features = self._drawn(np.arange(grower.n_features), grower.config.colsample_bytree)
        self.regularisation = (
            float(grower.config.reg_lambda),
            float(grower.config.reg_alpha),
            np.float32(grower.config.max_delta_step),
        )

    def run(self) -> _Nodes:
        nodes = _Nodes()
        lower, upper = np.array([-_MOST], np.float32), np.array([_MOST], np.float32)
        sums, weight, gain = self._statistics(self.node, lower, upper)
        nodes.add(-1, self._step(weight[0]), np.float32(sums[1][0]))
        level, paths = [0], [frozenset[int]()]
        slot = self.node.copy()
        for _ in range(self.config.max_depth):
            found, feature, threshold, default_left = self._find(slot, sums, gain, lower, upper, paths)
            chosen = np.flatnonzero(found > EPS)
            if not len(chosen):
                break
            feature[found <= EPS] = -1
            went = self._send(slot, feature, threshold, default_left)
            # The children of the k-th chosen slot become slots 2k and 2k + 1 of the next level.
            base = np.full(len(level), -1, dtype=np.int32)
            base[chosen] = 2 * np.arange(len(chosen), dtype=np.int32)
            base = np.append(base, np.int32(-1))  # for rows in no slot
            slot = np.where(base[slot] >= 0, base[slot] + (went == 0), -1).astype(np.int32)
            # XGBoost bounds the weight of a child as it did its parent's, and halves the room afterwards.
            lower, upper = np.repeat(lower[chosen], 2), np.repeat(upper[chosen], 2)
            sums, weight, gain = self._statistics(slot, lower, upper)
            next_level, next_paths = [], []
            for k, s in enumerate(chosen):
                parent, path = level[s], paths[s] | {int(feature[s])}
                nodes.split(parent, int(feature[s]), threshold[s], bool(default_left[s]), found[s])
                nodes.left[parent] = len(nodes.left)
                nodes.right[parent] = len(nodes.left) + 1
                for child in (2 * k, 2 * k + 1):
                    next_level.append(
                        nodes.add(parent, self._step(weight[child]), np.float32(sums[1][child]))
                    )
                    next_paths.append(path)
            self._tighten(self.monotone[feature[chosen]], weight, lower, upper)
            level, paths = next_level, next_paths
            self.node[slot >= 0] = np.array(level, dtype=np.int32)[slot[slot >= 0]]
        return nodes

    def _step(self, weight: np.float32) -> np.float32:
        return np.float32(weight * np.float32(self.config.learning_rate))

    def _statistics(
        self, slot: NDArray[np.int32], lower: NDArray[np.float32], upper: NDArray[np.float32]
    ) -> tuple[tuple[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float32], NDArray[np.float32]]:
        """Sums of gradients and hessians, the weight and the gain of each slot."""
        sum_g, sum_h = np.zeros(len(lower)), np.zeros(len(lower))
        node_statistics(slot, self.g, self.h, sum_g, sum_h)
        out = np.empty((len(lower), 2), dtype=np.float32)
        weights_and_gains(sum_g, sum_h, lower, upper, *self.regularisation, self.constrained, out)
        return (sum_g, sum_h), out[:, 0], np.ascontiguousarray(out[:, 1])

    def _find(
        self,
        slot: NDArray[np.int32],
        sums: tuple[NDArray[np.float64], NDArray[np.float64]],
        node_gain: NDArray[np.float32],
        lower: NDArray[np.float32],
        upper: NDArray[np.float32],
        paths: Sequence[frozenset[int]],
    ) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32], NDArray[np.bool_]]:
        """Gain, feature, threshold and default direction of the best split of each slot."""
        n_slots = len(paths)
        allowed = self._allowed(paths)
        features = np.flatnonzero(allowed.any(axis=1))
        gain = np.zeros((len(features), n_slots), dtype=np.float32)
        threshold = np.zeros((len(features), n_slots), dtype=np.float32)
        default_left = np.zeros((len(features), n_slots), dtype=np.bool_)

        def search(k: int) -> None:
            rows, values = self.grower.columns[features[k]]
            forward = len(rows) < self.grower.n and len(rows) > 0 and values[0] != values[-1]
            best_splits(
                rows, values, forward, slot, self.g, self.h, *sums, node_gain, lower, upper,
                allowed[features[k]], int(self.monotone[features[k]]), *self.regularisation,
                float(self.config.min_child_weight), self.constrained, gain[k], threshold[k], default_left[k],
            )  # fmt: skip

        list(self.pool.map(search, range(len(features))))
        if not len(features):
            nothing = np.zeros(n_slots, dtype=np.float32)
            return nothing, nothing.astype(np.int32), nothing, nothing.astype(np.bool_)
        best = gain.argmax(axis=0)  # the first of equals
        pick = (best, np.arange(n_slots))
        return gain[pick], features[best].astype(np.int32), threshold[pick], default_left[pick]

    def _drawn(self, features: NDArray[np.int64], share: float) -> NDArray[np.int64]:
        return drawn(self.random, features, share, self.grower.feature_weights)

    def _allowed(self, paths: Sequence[frozenset[int]]) -> NDArray[np.bool_]:
        """Which features each slot may be split by [n_features, n_slots]."""
        config = self.config
        at_level = self._drawn(self.tree_features, config.colsample_bylevel)
        out = np.zeros((self.grower.n_features, len(paths)), dtype=np.bool_)
        for s, path in enumerate(paths):
            out[self._drawn(at_level, config.colsample_bynode), s] = True
            if config.interactions is not None and path:
                together = set(path).union(*(one for one in config.interactions if path <= set(one)))
                others = np.ones(self.grower.n_features, dtype=bool)
                others[sorted(together)] = False
                out[others, s] = False
        return out

    def _send(
        self,
        slot: NDArray[np.int32],
        feature: NDArray[np.int32],
        threshold: NDArray[np.float32],
        default_left: NDArray[np.bool_],
    ) -> NDArray[np.int8]:
        """1 for the rows that go left, 0 for those that go right; of rows in no slot it says nothing."""
        went = np.append(default_left, False)[slot].astype(np.int8)
        for one in np.unique(feature[feature >= 0]):
            rows, values = self.grower.columns[one]
            send_rows(rows, values, one, feature, threshold, slot, went)
        return went

    def _tighten(
        self,
        monotone: NDArray[np.int8],
        weight: NDArray[np.float32],
        lower: NDArray[np.float32],
        upper: NDArray[np.float32],
    ) -> None:
        """Hold the children of a monotone split on their sides of the middle between their weights."""
        middle = (weight[0::2] + weight[1::2]) / np.float32(2)
        left, right = np.arange(0, len(weight), 2), np.arange(1, len(weight), 2)
        up, down = monotone > 0, monotone < 0
        upper[left[up]] = lower[right[up]] = middle[up]
        lower[left[down]] = upper[right[down]] = middle[down]


def _columns(X: Any) -> list[tuple[NDArray[np.int32], NDArray[np.float32]]]:
    """Rows and values of what is present in each column."""
    if sp.issparse(X):
        X = X.tocsc()
        parts = [slice(X.indptr[j], X.indptr[j + 1]) for j in range(X.shape[1])]
        columns = [(X.indices[part], X.data[part]) for part in parts]
    else:
        rows = np.arange(X.shape[0], dtype=np.int32)
        columns = [(rows, X[:, j]) for j in range(X.shape[1])]
    return [(rows[~np.isnan(values)], values[~np.isnan(values)]) for rows, values in columns]


def _sorted_column(
    rows: NDArray[np.int32], values: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    order = np.argsort(values, kind="stable")
    return rows[order].astype(np.int32), np.ascontiguousarray(values[order], np.float32)
