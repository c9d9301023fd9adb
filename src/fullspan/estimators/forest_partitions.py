"""Random forests over data in parts: the forest that one fit to all rows would give, bit for bit.

Every statistic is an integer: how often rows of each class were drawn, by bins of the features that a node
looks at. Their sums decide the splits of a whole level of several trees at a time.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, column_or_1d

from fullspan.core.errors import ConfigError, DataError
from fullspan.core.partitions import Partitions, total
from fullspan.estimators._binned_growth import CRITERIA, MOST_CLASSES, padded_cuts
from fullspan.estimators._bootstrap import bootstrap_rows, bootstrap_size
from fullspan.estimators._forest_partition_kernels import (
    children_keys,
    decide,
    describe_nodes,
    draw_features,
    fill_histograms,
    root_keys,
    split_rows,
)
from fullspan.estimators._split_kernels import BINS
from fullspan.estimators.binning import Binner, sample_rows
from fullspan.estimators.combining import LARGEST_SEED
from fullspan.estimators.forest import RandomForestClassifier
from fullspan.estimators.tree._records import Rules
from fullspan.estimators.tree.pruning import pruned
from fullspan.estimators.tree.structure import LEAF, UNDEFINED, Tree

_HISTOGRAM_BYTES = 1 << 26
"""Of what each worker returns in a round."""
_TREES_AT_ONCE = 16


def fit_partitions(forest: RandomForestClassifier, partitions: Partitions) -> RandomForestClassifier:
    """Fit a forest of one output, without weights, to data in parts.

    Parameters
    ----------
    forest : RandomForestClassifier
        Its trees are those that ``forest.fit`` grows on all rows in the order of the parts, with the same
        number as `random_state`, from 2,000 rows on (fewer are not put into bins by ``fit``).
    partitions : Partitions
        Each part is (X, y): a float array of shape (n_rows, n_features), NaN where a value is missing, and
        n_rows classes.

    Returns
    -------
    RandomForestClassifier
        `forest`, fitted.

    Raises
    ------
    ConfigError
        If a parameter of the forest needs all rows in one place; the message names it.
    DataError
        If the parts have different columns.

    Examples
    --------
    >>> import numpy as np
    >>> from fullspan.core.partitions import LocalPartitions
    >>> X = np.arange(40.0).reshape(-1, 1)
    >>> with LocalPartitions([(X[:25], X[:25, 0] > 7), (X[25:], X[25:, 0] > 7)]) as parts:
    ...     forest = fit_partitions(RandomForestClassifier(5, random_state=0), parts)
    >>> forest.predict([[3.0], [20.0]])
    array([False,  True])
    """
    forest._validate_params()
    _refuse(forest)
    partitions.start(_Worker)
    found = partitions.call("describe")
    widths = {width for _, _, width, _ in found}
    if len(widths) > 1:
        raise DataError(f"the parts have different numbers of columns: {sorted(widths)}")
    sizes = np.array([size for _, size, _, _ in found])
    n_samples = int(sizes.sum())
    first_rows = dict(zip((token for token, *_ in found), np.cumsum(sizes) - sizes, strict=True))
    _describe_fit(forest, n_samples, widths.pop(), np.unique(np.concatenate([part[3] for part in found])))
    if forest.n_classes_ > MOST_CLASSES:
        raise ConfigError(
            f"fitting over parts takes at most {MOST_CLASSES} classes, y has {forest.n_classes_}"
        )

    # The rows that `Binner.fit` would look at, gathered here: at most 200,000.
    sampled = sample_rows(n_samples, 0)
    binner = Binner.fit(np.concatenate(partitions.call("sample", first_rows, sampled)))
    partitions.call("bin", binner, forest.classes_, first_rows, n_samples)
    forest._n_samples_bootstrap = (
        bootstrap_size(n_samples, forest.max_samples, None) if forest.bootstrap else None
    )
    random_state = check_random_state(forest.random_state)
    n_classes = np.array([forest.n_classes_])
    trees = [forest._tree(n_classes, random_state.randint(LARGEST_SEED)) for _ in range(forest.n_estimators)]
    for first in range(0, len(trees), _TREES_AT_ONCE):
        _grow(partitions, trees[first : first + _TREES_AT_ONCE], forest, binner)
    forest.estimators_ = trees
    return forest


def _describe_fit(
    forest: RandomForestClassifier, n_samples: int, n_features: int, classes: NDArray[Any]
) -> None:
    """What `fit` knows of the data."""
    forest._n_samples, forest.n_features_in_, forest.n_outputs_ = n_samples, n_features, 1
    forest.classes_, forest.n_classes_ = classes, len(classes)
    forest._sample_weight, forest._encoder = None, None
    forest.estimator_ = forest._tree()


def _refuse(forest: RandomForestClassifier) -> None:
    """Say which parameters are not for parts."""
    unfit = [
        name
        for name, unset in {
            "class_weight": None,
            "max_leaf_nodes": None,
            "monotonic_cst": None,
            "categorical_features": None,
            "oob_score": False,
            "warm_start": False,
        }.items()
        if getattr(forest, name) is not unset
    ]
    if unfit:
        raise ConfigError(
            f"fitting over parts does not take {', '.join(unfit)}",
            "leave it unset, or fit to all rows at once",
        )


class _Worker:
    """One part: its rows as codes, and which of them are in each node."""

    def __init__(self, part: tuple[Any, Any]) -> None:
        X, y = part
        self.X: NDArray[np.float32] = check_array(X, dtype=np.float32, ensure_all_finite="allow-nan")
        self.y = column_or_1d(y)
        check_classification_targets(self.y)
        self.token = uuid.uuid4().hex

    def describe(self) -> tuple[str, int, int, NDArray[Any]]:
        return self.token, len(self.X), self.X.shape[1], np.unique(self.y)

    def sample(self, first_rows: dict[str, int], sampled: NDArray[np.int64] | None) -> NDArray[np.float32]:
        """Those of the rows with the given numbers that are here; all rows without numbers."""
        if sampled is None:
            return self.X
        here = sampled - first_rows[self.token]
        return np.asarray(self.X[here[(here >= 0) & (here < len(self.X))]])

    def bin(self, binner: Binner, classes: NDArray[Any], first_rows: dict[str, int], n_samples: int) -> None:
        self.codes = np.ascontiguousarray(binner.transform(self.X).T)
        self.labels = np.searchsorted(classes, self.y).astype(np.int64)
        self.pair = len(classes) <= 2
        self.width = 2 if self.pair else len(classes)
        self.first, self.n_samples = first_rows[self.token], n_samples

    def begin(self, seeds: list[int], n_drawn: int | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draw this part's share of each tree's rows; returns the roots' sums and numbers of rows."""
        self.counts, self.orders = [], []
        self.segments: dict[tuple[int, int], tuple[int, int]] = {}
        sums = np.zeros((len(seeds), self.width), np.int64)
        for tree, seed in enumerate(seeds):
            counts = np.ones(len(self.X), np.int32)
            if n_drawn is not None:
                # Every part draws all rows and keeps its own: the draws do not depend on where rows are.
                drawn = bootstrap_rows(seed, self.n_samples, n_drawn, None) - self.first
                drawn = drawn[(drawn >= 0) & (drawn < len(self.X))]
                counts = np.bincount(drawn, minlength=len(self.X)).astype(np.int32)
            order = np.flatnonzero(counts).astype(np.int32)
            of_class = np.bincount(self.labels, counts, minlength=self.width).astype(np.int64)
            sums[tree] = [of_class.sum(), of_class[1]] if self.pair else of_class
            self.counts.append(counts)
            self.orders.append(order)
            self.segments[tree, 0] = (0, len(order))
        return sums, np.array([len(order) for order in self.orders])

    def split(
        self, trees: NDArray[np.int64], nodes: NDArray[np.int64], children: NDArray[np.int64],
        features: NDArray[np.int64], goes_left: NDArray[np.uint8],
    ) -> None:  # fmt: skip
        """Send the rows of nodes to their children."""
        for i, (tree, node) in enumerate(zip(trees.tolist(), nodes.tolist(), strict=True)):
            start, stop = self.segments.pop((tree, node))
            middle = split_rows(self.codes, self.orders[tree], start, stop, features[i], goes_left[i])
            self.segments[tree, int(children[i, 0])] = (start, middle)
            self.segments[tree, int(children[i, 1])] = (middle, stop)

    def histograms(
        self, trees: NDArray[np.int64], nodes: NDArray[np.int64], features: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Int64 [n_nodes, n_features drawn, 256, width + 1]: see `fill_histograms`."""
        out = np.zeros((*features.shape, BINS, self.width + 1), np.int64)
        segments = np.array(
            [self.segments[key] for key in zip(trees.tolist(), nodes.tolist(), strict=True)]
        ).reshape(-1, 2)
        for tree in np.unique(trees).tolist():
            of_tree = np.flatnonzero(trees == tree)
            here = np.zeros((len(of_tree), *out.shape[1:]), np.int64)
            fill_histograms(
                self.codes, self.labels, self.counts[tree], self.orders[tree],
                segments[of_tree, 0].copy(), segments[of_tree, 1].copy(), features[of_tree], self.pair, here,
            )  # fmt: skip
            out[of_tree] = here
        return out


@dataclass
class _Nodes:
    """Nodes of one level of several trees, as parallel arrays."""

    tree: NDArray[np.int64]
    number: NDArray[np.int64]
    key: NDArray[np.uint64]
    totals: NDArray[np.float64]
    n_rows: NDArray[np.int64]

    def __getitem__(self, which: Any) -> _Nodes:
        return _Nodes(
            self.tree[which], self.number[which], self.key[which], self.totals[which], self.n_rows[which]
        )


@dataclass
class _Growing:
    """A tree under construction, its nodes level by level."""

    left: list[int] = field(default_factory=list)
    right: list[int] = field(default_factory=list)
    feature: list[int] = field(default_factory=list)
    threshold: list[float] = field(default_factory=list)
    missing_left: list[int] = field(default_factory=list)
    impurity: list[float] = field(default_factory=list)
    n_rows: list[int] = field(default_factory=list)
    weight: list[float] = field(default_factory=list)
    value: list[NDArray[np.float64]] = field(default_factory=list)
    n_promised: int = 1

    def promise_children(self, node: int) -> tuple[int, int]:
        """The numbers that the children of `node` will be added with."""
        self.left[node], self.right[node] = self.n_promised, self.n_promised + 1
        self.n_promised += 2
        return self.left[node], self.right[node]

    def add(self, impurity: float, n_rows: int, weight: float, value: NDArray[np.float64]) -> int:
        """A new leaf; returns its number."""
        self.left.append(LEAF)
        self.right.append(LEAF)
        self.feature.append(UNDEFINED)
        self.threshold.append(float(UNDEFINED))
        self.missing_left.append(0)
        self.impurity.append(impurity)
        self.n_rows.append(n_rows)
        self.weight.append(weight)
        self.value.append(value)
        return len(self.left) - 1

    def finished(self, n_features: int, n_classes: int) -> Tree:
        """The tree, its nodes numbered depth first with left children before right ones."""
        order, waiting = [], [0]
        while waiting:
            node = waiting.pop()
            order.append(node)
            if self.left[node] != LEAF:
                waiting += [self.right[node], self.left[node]]
        number = np.full(len(order) + 1, LEAF)  # the last for LEAF itself
        number[order] = np.arange(len(order))
        return Tree(
            n_features,
            np.array([n_classes]),
            number[np.array(self.left)[order]],
            number[np.array(self.right)[order]],
            np.array(self.feature)[order],
            np.array(self.threshold)[order],
            np.array(self.impurity)[order],
            np.array(self.n_rows)[order],
            np.array(self.weight)[order],
            np.array(self.value)[order][:, None, :],
            np.array(self.missing_left)[order],
        )


def _grow(partitions: Partitions, trees: list[Any], forest: RandomForestClassifier, binner: Binner) -> None:
    """Grow the trees side by side and give them their `tree_`."""
    n_classes = int(forest.n_classes_)
    seeds = [tree.random_state for tree in trees]
    sums, n_rows = total(partitions, "begin", seeds, forest._n_samples_bootstrap)
    keys = np.empty(len(trees), np.uint64)
    root_keys(np.array(seeds, np.uint64), keys)
    growing = [_Growing() for _ in trees]
    totals = sums.astype(np.float64)
    weight = totals[:, 0] if n_classes <= 2 else totals.sum(axis=1)
    rules = [
        tree._rules(forest._n_samples, each, np.array([n_classes]))
        for tree, each in zip(trees, weight, strict=True)
    ]
    level = _Nodes(np.arange(len(trees)), np.zeros(len(trees), np.int64), keys, totals, n_rows)
    impurities = _describe(level, growing, CRITERIA[forest.criterion], n_classes)
    depth = 0
    while len(level.tree):
        may_split = _may_split(level, impurities, depth, rules[0], n_classes)
        level = level[may_split]
        children = []
        # Of one level, as many nodes in a round as give histograms of moderate size.
        size = max(1, _HISTOGRAM_BYTES // (rules[0].max_features * BINS * (totals.shape[1] + 1) * 8))
        for first in range(0, len(level.tree), size):
            part = level[first : first + size]
            children.append(_split(partitions, part, growing, forest, binner, rules[0], weight))
        level = _joined(children) if children else level
        impurities = _describe(level, growing, CRITERIA[forest.criterion], n_classes)
        depth += 1
    for tree, grown in zip(trees, growing, strict=True):
        finished = grown.finished(forest.n_features_in_, n_classes)
        tree.tree_ = finished if tree.ccp_alpha == 0.0 else pruned(finished, tree.ccp_alpha)


def _describe(nodes: _Nodes, growing: list[_Growing], criterion: int, n_classes: int) -> NDArray[np.float64]:
    """Add the nodes to their trees as leaves; returns their impurities."""
    impurities, weights = np.empty(len(nodes.tree)), np.empty(len(nodes.tree))
    values = np.empty((len(nodes.tree), n_classes))
    describe_nodes(criterion, n_classes, nodes.totals, impurities, weights, values)
    for i, tree in enumerate(nodes.tree.tolist()):
        number = growing[tree].add(impurities[i], int(nodes.n_rows[i]), weights[i], values[i])
        assert number == nodes.number[i]
    return impurities


def _may_split(
    nodes: _Nodes, impurities: NDArray[np.float64], depth: int, rules: Rules, n_classes: int
) -> NDArray[np.bool_]:
    weight = nodes.totals[:, 0] if n_classes <= 2 else nodes.totals.sum(axis=1)
    may = nodes.n_rows >= max(rules.min_samples_split, 2 * rules.min_samples_leaf)
    may &= weight >= 2.0 * rules.min_weight_leaf
    may &= impurities > np.finfo(np.float64).eps
    return may & (depth < rules.max_depth)


def _split(
    partitions: Partitions,
    nodes: _Nodes,
    growing: list[_Growing],
    forest: RandomForestClassifier,
    binner: Binner,
    rules: Rules,
    all_weight: NDArray[np.float64],
) -> _Nodes:
    """Split those of the nodes that can be, and return their children."""
    n, width, n_features = len(nodes.tree), nodes.totals.shape[1], binner.n_features
    verdict, feature = np.full(n, -1), np.zeros(n, np.int64)
    threshold, missing_left = np.zeros(n), np.zeros(n, np.uint8)
    goes_left, left_totals = np.zeros((n, BINS), np.uint8), np.zeros((n, width))
    left_rows, cuts = np.zeros(n, np.int64), padded_cuts(binner)
    limits = (rules.min_samples_leaf, rules.min_weight_leaf, rules.min_impurity_decrease)
    drawn = 0
    while drawn < n_features and (verdict == -1).any():
        # Only where all features drawn so far are constant, further ones are, one by one.
        asked = np.flatnonzero(verdict == -1)
        chosen = np.empty((len(asked), min(rules.max_features, n_features) if drawn == 0 else 1), np.int64)
        draw_features(nodes.key[asked], drawn, n_features, chosen)
        drawn += chosen.shape[1]
        histograms = total(partitions, "histograms", nodes.tree[asked], nodes.number[asked], chosen)
        out = (
            verdict[asked], feature[asked], threshold[asked], missing_left[asked], goes_left[asked],
            np.zeros((len(asked), 8), np.uint64), left_totals[asked], left_rows[asked],
        )  # fmt: skip
        decide(
            histograms, chosen, nodes.totals[asked], nodes.n_rows[asked], all_weight[nodes.tree[asked]], cuts,
            binner.is_categorical, CRITERIA[forest.criterion], limits, out,
        )  # fmt: skip
        verdict[asked], feature[asked], threshold[asked], missing_left[asked], goes_left[asked] = out[:5]
        left_totals[asked], left_rows[asked] = out[6:]
    split = np.flatnonzero(verdict == 1)
    parents = nodes[split]
    numbers = np.empty((len(split), 2), np.int64)
    for i, tree in enumerate(parents.tree.tolist()):
        grown, node = growing[tree], int(parents.number[i])
        numbers[i] = grown.promise_children(node)
        grown.feature[node], grown.threshold[node] = int(feature[split[i]]), float(threshold[split[i]])
        grown.missing_left[node] = int(missing_left[split[i]])
    partitions.call("split", parents.tree, parents.number, numbers, feature[split], goes_left[split])
    keys = np.empty((len(split), 2), np.uint64)
    children_keys(parents.key, keys)
    sums = np.stack([left_totals[split], parents.totals - left_totals[split]], axis=1)
    rows = np.stack([left_rows[split], parents.n_rows - left_rows[split]], axis=1)
    return _Nodes(
        np.repeat(parents.tree, 2), numbers.ravel(), keys.ravel(), sums.reshape(-1, width), rows.ravel()
    )


def _joined(parts: list[_Nodes]) -> _Nodes:
    return _Nodes(
        np.concatenate([part.tree for part in parts]),
        np.concatenate([part.number for part in parts]),
        np.concatenate([part.key for part in parts]),
        np.concatenate([part.totals for part in parts]),
        np.concatenate([part.n_rows for part in parts]),
    )
