"""multi_strategy="multi_output_tree": trees whose leaves hold a value for each output.

Such a tree is kept as one tree for each output, all with the same splits: what predicts, explains and writes
models knows no others.
"""

from __future__ import annotations

import heapq
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullspan.core.device import usable_cores
from fullspan.estimators.binning import Binner
from fullspan.estimators.boosting._multi_kernels import add_histogram, best_split
from fullspan.estimators.boosting.feature_sampling import drawn
from fullspan.estimators.boosting.hist import GrowConfig, TreeArrays
from fullspan.estimators.boosting.hist_plan import threshold_table

Array = NDArray[Any]
_MISSING = 255


@dataclass
class _Node:
    """A node that may be split."""

    number: int
    depth: int
    rows: Array
    hist: Array  # float64 [n_features, 256, 2, n_outputs]
    sums: Array  # float64 [2, n_outputs]
    path: frozenset[int]
    gain: float = 0.0
    feature: int = -1
    bin: int = -1
    missing_left: bool = False


class MultiGrower:
    """Grows trees for all outputs at once, from histograms of the exact gradients.

    Parameters
    ----------
    config : GrowConfig
    X : float32 array of shape (n_samples, n_features)
    max_bins : int
    weight : array of shape (n_samples,), optional
        Of the quantiles that bins end at.
    feature_weights : float64 array of shape (n_features,), optional
        Chances of the features where only some are drawn.

    References
    ----------
    Z. Zhang, C. Jung, "GBDT-MO: gradient-boosted decision trees for multiple outputs", IEEE TNNLS 32 (2021).
    """

    def __init__(
        self,
        config: GrowConfig,
        X: NDArray[np.float32],
        max_bins: int,
        weight: Array | None,
        feature_weights: NDArray[np.float64] | None,
    ) -> None:
        self.config, self.feature_weights = config, feature_weights
        nothing = np.zeros(X.shape[1], dtype=bool)
        self.binner = Binner.fit(X, max_bins, weight, nothing, config.n_threads, config.seed)
        self.codes = self.binner.transform(X, config.n_threads)
        self.n_threads = config.n_threads or usable_cores()

    def grow(self, g: Array, h: Array, round: int) -> tuple[list[TreeArrays], NDArray[np.int32]]:
        """One tree.

        Parameters
        ----------
        g, h : float32 arrays of shape (n_samples, n_outputs)
            0 where a row is left out.
        round : int
            With the seed it decides which features are drawn.

        Returns
        -------
        trees : list of TreeArrays
            One for each output; they differ in values and covers.
        leaf : int32 array of shape (n_samples,)
            The leaf of each row.
        """
        with ThreadPoolExecutor(self.n_threads) as pool:
            return _Growth(self, g, h, np.random.default_rng([self.config.seed, round]), pool).run()


class _Growth:
    """One tree while it grows."""

    def __init__(
        self, grower: MultiGrower, g: Array, h: Array, random: np.random.Generator, pool: ThreadPoolExecutor
    ) -> None:
        self.grower, self.config, self.g, self.h = grower, grower.config, g, h
        self.random, self.pool = random, pool
        self.n_features = grower.binner.n_features
        self.features = self._drawn(np.arange(self.n_features), self.config.colsample_bytree)
        self.levels: dict[int, Array] = {}
        self.leaf = np.zeros(len(g), dtype=np.int32)
        self.children: list[tuple[int, int]] = []
        self.splits: list[tuple[int, int, bool, float]] = []
        self.sums: list[Array] = []

    def _drawn(self, features: Array, share: float) -> Array:
        return drawn(self.random, features, share, self.grower.feature_weights)

    def run(self) -> tuple[list[TreeArrays], NDArray[np.int32]]:
        rows = np.arange(len(self.g))
        root = self._node(0, rows, self._histogram(rows), frozenset())
        # By gain where the best leaf is split next, else by depth.
        by_gain = self.config.grow_policy == "lossguide"
        waiting = [(-root.gain if by_gain else 0, 0, root)]
        n_leaves = 1
        while waiting:
            _, _, node = heapq.heappop(waiting)
            if node.feature < 0 or (self.config.max_leaves and n_leaves >= self.config.max_leaves):
                continue
            n_leaves += 1
            for child in self._split(node):
                heapq.heappush(waiting, (-child.gain if by_gain else child.depth, child.number, child))
        return [self._finished(k) for k in range(self.g.shape[1])], self.leaf

    def _histogram(self, rows: Array) -> Array:
        hist = np.zeros((self.n_features, 256, 2, self.g.shape[1]))

        def add(feature: int) -> None:
            add_histogram(self.grower.codes[feature], rows, self.g, self.h, hist[feature])

        list(self.pool.map(add, self.features))
        return hist

    def _node(self, depth: int, rows: Array, hist: Array, path: frozenset[int]) -> _Node:
        sums = hist[self.features[0]].sum(axis=0)
        node = _Node(len(self.sums), depth, rows, hist, sums, path)
        self.children.append((-1, -1))
        self.splits.append((0, 0, False, 0.0))
        self.sums.append(sums)
        self.leaf[rows] = node.number
        if not self.config.max_depth or depth < self.config.max_depth:
            self._find(node)
        return node

    def _find(self, node: _Node) -> None:
        config, allowed = self.config, self._allowed(node)
        found = np.zeros((len(allowed), 3))

        def search(k: int) -> None:
            best_split(
                node.hist[allowed[k]], int(self.grower.binner.n_bins[allowed[k]]), node.sums,
                float(config.reg_lambda), float(config.reg_alpha), float(config.max_delta_step),
                float(config.min_child_weight), found[k],
            )  # fmt: skip

        list(self.pool.map(search, range(len(allowed))))
        if not len(allowed):
            return
        best = int(found[:, 0].argmax())
        gain = float(found[best, 0])
        if gain > 0 and gain >= config.gamma:
            node.gain, node.feature = gain, int(allowed[best])
            node.bin, node.missing_left = int(found[best, 1]), bool(found[best, 2])

    def _allowed(self, node: _Node) -> Array:
        if node.depth not in self.levels:
            self.levels[node.depth] = self._drawn(self.features, self.config.colsample_bylevel)
        features = self._drawn(self.levels[node.depth], self.config.colsample_bynode)
        if self.config.interactions is None or not node.path:
            return features
        sets = (set(one) for one in self.config.interactions if node.path <= set(one))
        return np.array([f for f in features if f in set(node.path).union(*sets)], dtype=np.int64)

    def _split(self, node: _Node) -> list[_Node]:
        codes = self.grower.codes[node.feature][node.rows]
        goes_left = np.where(codes == _MISSING, node.missing_left, codes <= node.bin)
        sides = [node.rows[goes_left], node.rows[~goes_left]]
        smaller = int(len(sides[1]) < len(sides[0]))
        hists = [node.hist, node.hist]
        hists[smaller] = self._histogram(sides[smaller])
        hists[1 - smaller] = np.subtract(node.hist, hists[smaller], out=node.hist)
        path = node.path | {node.feature}
        both = zip(sides, hists, strict=True)
        children = [self._node(node.depth + 1, rows, hist, path) for rows, hist in both]
        self.children[node.number] = (children[0].number, children[1].number)
        self.splits[node.number] = (node.feature, node.bin, node.missing_left, node.gain)
        return children

    def _finished(self, output: int) -> TreeArrays:
        config = self.config
        left, right = np.array(self.children, dtype=np.int32).T
        g, h = np.array([sums[:, output] for sums in self.sums]).T
        weight = -np.sign(g) * np.maximum(np.abs(g) - config.reg_alpha, 0)
        divisor = h + config.reg_lambda
        weight = np.divide(weight, divisor, out=np.zeros(len(g)), where=divisor > 0)
        if config.max_delta_step > 0:
            weight = np.clip(weight, -config.max_delta_step, config.max_delta_step)
        thresholds = threshold_table(self.grower.binner)
        inner = left >= 0
        threshold = [
            thresholds[feature, bin_] if there else np.float32(0)
            for (feature, bin_, _, _), there in zip(self.splits, inner, strict=True)
        ]
        return TreeArrays(
            left=np.ascontiguousarray(left),
            right=np.ascontiguousarray(right),
            feature=np.array([split[0] for split in self.splits], dtype=np.int32),
            threshold=np.array(threshold, dtype=np.float32),
            default_left=np.array([split[2] for split in self.splits], dtype=bool),
            value=(weight * config.learning_rate).astype(np.float32),
            gain=np.array([split[3] for split in self.splits], dtype=np.float32),
            cover=h.astype(np.float32),
            category_start=np.zeros(len(left) + 1, dtype=np.int64),
            categories=np.empty(0, dtype=np.int32),
            bin=np.array([split[1] for split in self.splits], dtype=np.int32),
        )
