"""Boosting over data in parts: the trees of the in-memory fit, bit for bit.

A part keeps its bins, margins and the leaf of each of its rows; what it gives are whole numbers (histograms,
counts, sums in fine units) and two maxima a round, so that their sums do not depend on how rows are parted.
The driver sees no row. See `fullspan.core.partitions` for the protocol.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from fullspan.core.errors import ConfigError
from fullspan.core.partitions import Partitions, total
from fullspan.estimators.binning import Binner, sample_rows
from fullspan.estimators.boosting import _hist_partition_kernels as growth
from fullspan.estimators.boosting import _hist_records as records
from fullspan.estimators.boosting import _hist_splits as splits
from fullspan.estimators.boosting._hist_gradients import LOGISTIC, SQUARED, add_leaf_values
from fullspan.estimators.boosting._hist_kernels import BINS, MOST_FEATURES
from fullspan.estimators.boosting._hist_records import Grown
from fullspan.estimators.boosting.hist import HistGrower, gradients_of
from fullspan.estimators.boosting.hist_plan import (
    GrowConfig,
    Scales,
    TreeArrays,
    TreePlan,
    finer_units,
    new_grown,
)

_LOSSES = {"logistic": LOGISTIC, "squared": SQUARED}


class HistPart:
    """A part of the rows; the driver calls its methods by name.

    Parameters
    ----------
    part : tuple
        X of shape (n_samples, n_features), y, weights or None, and how many rows the parts before it have.
    """

    def __init__(self, part: tuple[np.ndarray, np.ndarray, np.ndarray | None, int]) -> None:
        self.X, self.y, self.weight, self.first_row = part

    def count(self) -> int:
        """How many rows there are here."""
        return len(self.X)

    def sample(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Those of the given rows of the whole, and their weights, that are here."""
        mine = rows[(rows >= self.first_row) & (rows < self.first_row + len(self.X))] - self.first_row
        return self.X[mine], None if self.weight is None else self.weight[mine]

    def begin(self, config: GrowConfig, binner: Binner, objective: str, base_score: float) -> None:
        """Bin the rows."""
        self.grower = HistGrower(config, binner, self.X)
        self.margin = np.full(len(self.X), base_score, dtype=np.float32)
        self.source = gradients_of(_LOSSES[objective], self.margin, self.y, self.weight)

    def gradients(self) -> np.ndarray:
        """Begin a round; gives the largest |g| and h."""
        return self.grower.extremes(self.source)

    def survey(self, finer: np.ndarray) -> np.ndarray:
        """Sums that the choice of units needs."""
        return self.grower.survey(self.source, finer)

    def quantise(self, scales: Scales, salt: Any) -> int:
        """Round the gradients, and put all rows into the root."""
        grower = self.grower
        self.spare = np.empty(len(grower.order), dtype=np.int32)
        grower.order[: grower.n] = np.arange(grower.n)
        packed = grower.quantise(self.source, scales, salt, self.first_row)
        self.rows = grower.rows(self.spare, scales.wide)
        self.leaves = {0: (0, grower.n)}
        return packed

    def histogram(self, node: int) -> np.ndarray:
        """The histogram of a leaf's rows here."""
        out = np.zeros((len(self.grower.blocks), self.grower.width * BINS), dtype=np.int64)
        growth.leaf_histogram(self.rows, *self.leaves[node], out)
        return out

    def split(self, node: int, feature: int, bin_: int, kind: int, goes_left: np.ndarray, left: int) -> int:
        """Part a leaf's rows here; its children are `left` and the next. Gives how many go left."""
        first, n = self.leaves.pop(node)
        n_left = int(growth.part_leaf(self.rows, feature, first, n, bin_, kind, goes_left))
        self.leaves[left], self.leaves[left + 1] = (first, n_left), (first + n_left, n - n_left)
        return n_left

    def leaf_sums(self, scales: Scales, n_nodes: int) -> np.ndarray:
        """Sums of the leaves' gradients in the finest units."""
        self.node_of_row = np.empty(self.grower.n, dtype=np.int32)
        for node, (first, n) in self.leaves.items():
            self.node_of_row[self.grower.order[first : first + n]] = node
        return self.grower.leaf_sums(self.source, scales, n_nodes, self.node_of_row)

    def update(self, values: np.ndarray) -> None:
        """Add the leaves' values to the margins."""
        self.grower.crew.run(add_leaf_values, values, self.node_of_row, self.margin)


def fit_binner(
    parts: Partitions, max_bins: int = 255, categorical: np.ndarray | None = None, seed: int = 0
) -> Binner:
    """Bins of rows in parts: of all rows up to 200,000, else of the sample that `Binner.fit` takes.

    Parameters
    ----------
    parts : Partitions
        Started with `HistPart`.
    max_bins, categorical, seed
        As in `Binner.fit`.
    """
    n = total(parts, "count")
    rows = sample_rows(n, seed)
    found = parts.call("sample", np.arange(n) if rows is None else rows)
    weights = [weight for _, weight in found if weight is not None]
    X = np.concatenate([X for X, _ in found])
    return Binner.fit(X, max_bins, np.concatenate(weights) if weights else None, categorical, seed=seed)


def boost(
    parts: Partitions,
    config: GrowConfig,
    binner: Binner,
    objective: Literal["logistic", "squared"],
    n_rounds: int,
    base_score: float = 0.0,
) -> list[TreeArrays]:
    """Grow trees over rows in parts.

    Parameters
    ----------
    parts : Partitions
        Started with `HistPart`.
    config : GrowConfig
    binner : Binner
    objective : {"logistic", "squared"}
    n_rounds : int
    base_score : float
        The margin before the first tree.

    Returns
    -------
    list of TreeArrays
        Those that `HistGrower.boost_logistic` or `boost_squared` give for the parts' rows one after another.

    Raises
    ------
    ConfigError
        If there is no such objective.

    Examples
    --------
    >>> import numpy as np
    >>> from fullspan.core.partitions import LocalPartitions
    >>> X = np.arange(8, dtype=np.float32)[:, None]
    >>> y = (X[:, 0] > 4).astype(np.float32)
    >>> with LocalPartitions([(X[:5], y[:5], None, 0), (X[5:], y[5:], None, 5)]) as parts:
    ...     parts.start(HistPart)
    ...     config = GrowConfig(max_depth=1, min_child_weight=0.0)
    ...     trees = boost(parts, config, fit_binner(parts), "logistic", 1)
    >>> round(float(trees[0].threshold[0]), 3)
    4.5
    """
    if objective not in _LOSSES:
        raise ConfigError(f"objective must be one of {', '.join(_LOSSES)}, got {objective!r}")
    parts.call("begin", config, binner, objective, base_score)
    driver = _Driver(parts, TreePlan(config, binner), total(parts, "count"))
    return [driver.grow(round) for round in range(n_rounds)]


@dataclass
class _Leaf:
    """A leaf that waits to be split: its account, and its histogram."""

    account: np.ndarray
    reals: np.ndarray
    marks: np.ndarray
    goes_left: np.ndarray
    hist: np.ndarray

    @classmethod
    def new(cls, node: int, n_marks: int, hist: np.ndarray) -> _Leaf:
        account = np.zeros(records.PIECES + 2, dtype=np.int64)
        account[records.NODE] = node
        reals = np.array([0, -np.inf, np.inf], dtype=np.float32)
        return cls(account, reals, np.zeros(n_marks, np.uint8), np.zeros(BINS, np.uint8), hist)


class _Driver:
    """Decides the splits from sums over all parts, in the order that `grow_tree` takes them in."""

    def __init__(self, parts: Partitions, plan: TreePlan, n: int) -> None:
        self.parts, self.plan, self.n = parts, plan, n
        n_features = plan.binner.n_features
        self.width = -(-n_features // -(-n_features // MOST_FEATURES))

    def grow(self, round: int) -> TreeArrays:
        """One round: gradients, one tree, new margins."""
        plan, parts = self.plan, self.parts
        most_g_and_h = np.max(parts.call("gradients"), axis=0)
        finer = finer_units(most_g_and_h)
        self.scales = Scales.of(most_g_and_h, total(parts, "survey", finer), finer, self.n)
        salt = plan.salt(round)
        packed = total(parts, "quantise", self.scales, salt)
        most = plan.most_leaves(self.n, packed & 0xFFFFFFFF, self.scales)
        self.limits, self.settings = plan.limits(most), plan.settings(self.scales)
        self.features = plan.features_of_tree(round, salt)
        grown = new_grown(2 * most - 1, plan.has_categories)
        n_nodes = self._split_all(grown, packed)
        sums = total(parts, "leaf_sums", self.scales, n_nodes)
        tree = plan.finish(grown, n_nodes, sums / self.scales.finest())
        parts.call("update", tree.value)
        return tree

    def _split_all(self, grown: Grown, packed: int) -> int:
        """Split leaves until none may be; gives the number of nodes."""
        root = _Leaf.new(0, sum(self.features.sets.shape), total(self.parts, "histogram", 0))
        root.account[records.TOTAL], root.account[records.N_ROWS] = packed, self.n
        root.marks[: len(self.features.sets)] = 1
        waiting: list[tuple[float, int, _Leaf]] = []
        self._wait(waiting, root)
        n_leaves = n_nodes = 1
        while waiting and n_leaves < self.limits.max_leaves:
            leaf = heapq.heappop(waiting)[2]
            for child in self._split(leaf, grown, n_nodes):
                node = int(child.account[records.NODE])
                grown.reals[node, records.LOWEST :] = child.reals[records.LOWEST :]
                self._wait(waiting, child)
            n_leaves += 1
            n_nodes += 2
        return n_nodes

    def _wait(self, waiting: list[tuple[float, int, _Leaf]], leaf: _Leaf) -> None:
        """Put a leaf among those that wait, if it has a split."""
        account, settings, limits = leaf.account, self.settings, self.limits
        weight = np.float32(account[records.TOTAL] & 0xFFFFFFFF) * settings[splits.UNIT_H]
        too_light = weight < settings[splits.MIN_HESSIAN] + settings[splits.MIN_HESSIAN]
        too_deep = limits.max_depth and account[records.DEPTH] >= limits.max_depth
        if too_light or too_deep or account[records.N_ROWS] < 2:
            return
        if growth.search_node(
            leaf.hist,
            self.width,
            self.features,
            limits,
            settings,
            account,
            leaf.reals,
            leaf.marks,
            leaf.goes_left,
        ):
            first = -float(leaf.reals[records.GAIN]) if limits.lossguide else 0.0
            heapq.heappush(waiting, (first, int(account[records.NODE]), leaf))

    def _split(self, leaf: _Leaf, grown: Grown, n_nodes: int) -> tuple[_Leaf, _Leaf]:
        """Split a leaf in every part; its two children."""
        account = leaf.account
        node, feature, kind = (int(account[at]) for at in (records.NODE, records.FEATURE, records.KIND))
        bin_ = int(account[records.BIN])
        grown.numbers[node] = n_nodes, n_nodes + 1, feature, bin_, kind
        grown.reals[node, records.GAIN] = leaf.reals[records.GAIN]
        goes_left = (np.arange(BINS) <= bin_).astype(np.int32)
        goes_left[splits.MISSING] = kind == splits.MISSING_LEFT
        if kind == splits.CATEGORIES:
            grown.goes_left[node] = leaf.goes_left
            goes_left[:] = leaf.goes_left
        n_left = total(self.parts, "split", node, feature, bin_, kind, goes_left, n_nodes)
        hist = total(self.parts, "histogram", n_nodes)
        other = _Leaf.new(n_nodes + 1, len(leaf.marks), leaf.hist - hist)
        other.account[records.N_ROWS] = account[records.N_ROWS] - n_left
        growth.split_node(
            self.features,
            self.settings,
            account,
            other.account,
            leaf.reals,
            other.reals,
            leaf.marks,
            other.marks,
        )
        account[records.NODE], account[records.N_ROWS], leaf.hist = n_nodes, n_left, hist
        return leaf, other
