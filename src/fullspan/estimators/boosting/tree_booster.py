"""booster="gbtree" and "dart": a tree for each output in each round."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from fullspan.core.errors import DataError
from fullspan.estimators.binning import Binner
from fullspan.estimators.boosting._data import Rows
from fullspan.estimators.boosting.approx import ApproxGrower
from fullspan.estimators.boosting.ensemble import TreeEnsemble, densified
from fullspan.estimators.boosting.exact import ExactGrower
from fullspan.estimators.boosting.feature_sampling import WeightedPlan
from fullspan.estimators.boosting.hist import HistGrower
from fullspan.estimators.boosting.multi_tree import MultiGrower
from fullspan.estimators.boosting.objective import Objective, residual_quantile
from fullspan.estimators.boosting.settings import Settings, sampled

Array = NDArray[Any]

# Methods of `HistGrower`.
_FAST_ROUNDS = {
    "binary:logistic": "boost_logistic",
    "reg:logistic": "boost_logistic",
    "reg:squarederror": "boost_squared",
}


class TreeBooster:
    """gbtree and dart."""

    def __init__(
        self,
        settings: Settings,
        objective: Objective,
        rows: Rows,
        base_score: Array,
        start: TreeEnsemble | None,
        stack: ExitStack,
    ) -> None:
        self.settings, self.objective, self.rows = settings, objective, rows
        self.base_score = np.asarray(base_score, dtype=np.float64)
        self.trees: list[TreeEnsemble] = [] if start is None else [start]
        self.n_trees = 0 if start is None else start.n_trees
        weights = [] if start is None else [start.tree_weight]
        self.weight = np.concatenate([np.empty(0, np.float32), *weights]).astype(np.float32)
        self.grower = stack.enter_context(_grower(settings, rows, objective.n_outputs))
        self.dropped: Array = np.empty(0, dtype=np.int64)
        self.dropped_margins: list[Array] = []
        self.random = np.random.default_rng([settings.config.seed, 2, self.n_trees])
        self.fast: tuple[Array, Array | None, Array] | None = None

    @property
    def is_dart(self) -> bool:
        return self.settings.booster == "dart"

    def training_margin(self) -> Array:
        """Margins to take gradients at: without the dropped trees."""
        if not self.is_dart:
            return self.rows.margin
        self.dropped = self.settings.dropout.dropped(self.weight, self.random)
        ensemble = self._joined() if len(self.dropped) else None
        zero = np.zeros_like(self.rows.margin)
        self.dropped_margins = []
        margin = self.rows.margin.copy()
        for tree in self.dropped:
            assert ensemble is not None
            one = ensemble.trees(tree, tree + 1)
            one.tree_weight[:] = 1
            self.dropped_margins.append(one.margin(self.rows.X, base_margin=zero))
            margin -= self.weight[tree] * self.dropped_margins[-1]
        return margin

    def has_fast_rounds(self) -> bool:
        """Whether the grower can do whole rounds by itself: gradients, tree and margins."""
        fast = _FAST_ROUNDS.get(self.objective.name)
        simple = self.settings.booster == "gbtree" and self.settings.n_parallel == 1
        return (
            fast is not None
            and simple
            and self.settings.subsample >= 1
            and self.objective.n_outputs == 1
            and isinstance(self.grower, HistGrower)
        )

    def fast_step(self) -> list[TreeEnsemble]:
        """A round in compiled code, for the commonest objectives."""
        if self.fast is None:
            weight = self.objective.row_weights(self.rows.y, self.rows.weight)
            self.fast = (
                np.ascontiguousarray(self.rows.y[:, 0], np.float32),
                None if weight is None else np.ascontiguousarray(weight[:, 0], np.float32),
                np.ascontiguousarray(self.rows.margin[:, 0], np.float32),
            )
            self.rows.margin = self.fast[2][:, None]
        boost = getattr(self.grower, _FAST_ROUNDS[self.objective.name])
        grown = boost(*self.fast, self.n_trees)
        tree = _as_ensemble(grown, self.rows.X.shape[1], 1, 0, self.base_score)
        self.trees.append(tree)
        self.weight = np.append(self.weight, np.float32(1))
        self.n_trees += 1
        return [tree]

    def step(self, g: Array, h: Array, margin: Array) -> list[TreeEnsemble]:
        """Grow this round's trees and add them to the training margins."""
        grown = self._grown(g, h)
        new: list[TreeEnsemble] = []
        values: list[tuple[int, Array]] = []
        for output, arrays, leaf, chosen in grown:
            one = _as_ensemble(
                arrays, self.rows.X.shape[1], self.objective.n_outputs, output, self.base_score
            )
            alpha = self.objective.leaf_quantile(output)
            if alpha is not None:
                self._refresh(one, leaf, chosen, output, alpha, margin)
            new.append(one)
            values.append((output, one.value[leaf]))
        old_factor, new_weight = self.settings.dropout.factors(
            len(self.dropped), len(new), self.settings.learning_rate
        )
        self._reweigh(old_factor)
        for one in new:
            one.tree_weight[:] = new_weight
        for output, value in values:
            self.rows.margin[:, output] += np.float32(new_weight) * value
        self.weight = np.append(self.weight, np.full(len(new), new_weight, dtype=np.float32))
        self.trees += new
        self.n_trees += len(new)
        return new

    def _grown(self, g: Array, h: Array) -> list[tuple[int, Any, Array, Array | None]]:
        """This round's trees: output, arrays, the leaf of each row, and which rows it was shown."""
        out: list[tuple[int, Any, Array, Array | None]] = []
        n_outputs, n_parallel = self.objective.n_outputs, self.settings.n_parallel
        if isinstance(self.grower, MultiGrower):
            for parallel in range(n_parallel):
                tree = self.n_trees + parallel
                all_g, all_h, chosen = sampled(self.settings, g, h, tree)
                grown, leaf = self.grower.grow(all_g, all_h, tree)
                out += [(output, one, leaf, chosen) for output, one in enumerate(grown)]
            return sorted(out, key=lambda one: one[0])
        for output in range(n_outputs):
            for parallel in range(n_parallel):
                tree = self.n_trees + output * n_parallel + parallel
                column_g, column_h = (np.ascontiguousarray(d[:, output]) for d in (g, h))
                tree_g, tree_h, chosen = sampled(self.settings, column_g, column_h, tree)
                out.append((output, *self.grower.grow(tree_g, tree_h, tree), chosen))
        return out

    def _reweigh(self, factor: float) -> None:
        for tree, margin in zip(self.dropped, self.dropped_margins, strict=True):
            changed = np.float32(self.weight[tree] * np.float32(factor))
            self.rows.margin += (changed - self.weight[tree]) * margin
            self.weight[tree] = changed

    def _refresh(
        self, tree: TreeEnsemble, leaf: Array, chosen: Array | None, output: int, alpha: float, margin: Array
    ) -> None:
        """Give each leaf the quantile of its rows' residuals."""
        y = self.rows.y[:, min(output, self.rows.y.shape[1] - 1)]
        rows = np.arange(len(y)) if chosen is None else np.flatnonzero(chosen)
        order = rows[np.argsort(leaf[rows], kind="stable")]
        leaves, starts = np.unique(leaf[order], return_index=True)
        for node, members in zip(leaves, np.split(order, starts[1:]), strict=True):
            weight = None if self.rows.weight is None else self.rows.weight[members]
            quantile = residual_quantile(y[members] - margin[members, output], alpha, weight)
            tree.value[node] = quantile * np.float32(self.settings.config.learning_rate)

    def advance(self, evals: list[Rows], new: list[TreeEnsemble]) -> None:
        """Bring the margins of the evaluation sets up to date."""
        if not evals:
            return
        if self.is_dart:
            ensemble = self._joined()
            for one in evals:
                one.margin = ensemble.margin(one.X, base_margin=one.base_margin)
            return
        added = TreeEnsemble.concat(new)
        for one in evals:
            one.margin = added.margin(one.X, base_margin=one.margin)

    def set_learning_rate(self, learning_rate: float) -> None:
        rate = learning_rate / self.settings.n_parallel
        config = replace(self.settings.config, learning_rate=rate)
        self.settings = replace(self.settings, learning_rate=learning_rate, config=config)
        holder = self.grower.plan if isinstance(self.grower, HistGrower) else self.grower
        holder.config = config

    def _joined(self) -> TreeEnsemble:
        ensemble = TreeEnsemble.concat(self.trees)
        ensemble.tree_weight[:] = self.weight
        return ensemble

    def model(self) -> TreeEnsemble:
        if not self.trees:
            return _empty(self.rows.X.shape[1], self.objective.n_outputs, self.base_score)
        return self._joined()


class _Closing:
    """Growers that have nothing to close, in a with block."""

    def __init__(self, grower: Any) -> None:
        self.grower = grower

    def __enter__(self) -> Any:
        return self.grower

    def __exit__(self, *error: object) -> None:
        pass


def _grower(settings: Settings, rows: Rows, n_outputs: int) -> Any:
    if settings.tree_method == "exact":
        return _Closing(ExactGrower(settings.config, rows.X, settings.feature_weights))
    dense = rows.X if isinstance(rows.X, np.ndarray) else _dense(rows.X)
    categorical = np.zeros(dense.shape[1], bool) if rows.categorical is None else rows.categorical
    weights = settings.feature_weights
    if settings.tree_method == "approx":
        return _Closing(ApproxGrower(settings.config, dense, settings.max_bins, categorical, weights))
    weight = rows.weight
    if weight is not None and rows.groups is not None:
        weight = np.repeat(weight, np.diff(rows.groups.start))
    if settings.multi_output and n_outputs > 1:
        if categorical.any():
            raise ValueError("multi_strategy='multi_output_tree' takes no categories")
        return _Closing(MultiGrower(settings.config, dense, settings.max_bins, weight, weights))
    binner = Binner.fit(
        dense, settings.max_bins, weight, categorical, settings.config.n_threads, settings.config.seed
    )
    grower = HistGrower(settings.config, binner, dense)
    if weights is not None:
        grower.plan = WeightedPlan(settings.config, binner, weights)
    return grower


def _dense(X: Any) -> NDArray[np.float32]:
    """A sparse matrix as an array, which is given up again when it has been put into bins.

    Raises
    ------
    DataError
        If it does not fit into the memory.
    """
    needed, free = 4 * X.shape[0] * X.shape[1], psutil.virtual_memory().available
    if needed > free:
        raise DataError(
            f"X takes {needed / 2**30:.1f} GB when it is not sparse, {free / 2**30:.1f} are free",
            "tree_method='exact' leaves it sparse",
        )
    return densified(X)


def _as_ensemble(grown: Any, n_features: int, n_groups: int, group: int, base_score: Array) -> TreeEnsemble:
    """One tree, from a grower's arrays, as an ensemble that adds to one output."""
    return TreeEnsemble(
        n_features,
        n_groups,
        base_score=base_score,
        tree_start=[0, len(grown.left)],
        tree_group=[group],
        tree_weight=[1.0],
        left=grown.left,
        right=grown.right,
        feature=grown.feature,
        threshold=grown.threshold,
        default_left=grown.default_left,
        value=grown.value,
        gain=grown.gain,
        cover=grown.cover,
        category_start=grown.category_start,
        categories=grown.categories,
    )


def _empty(n_features: int, n_groups: int, base_score: Array) -> TreeEnsemble:
    nothing: list[float] = []
    return TreeEnsemble(
        n_features, n_groups, base_score=base_score, tree_start=[0], tree_group=nothing, tree_weight=nothing,
        left=nothing, right=nothing, feature=nothing, threshold=nothing, default_left=nothing, value=nothing,
        gain=nothing, cover=nothing,
    )  # fmt: skip
