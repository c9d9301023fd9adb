"""Growth from histograms against a plain grower that looks at every split of every node."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from fullspan.core.errors import ConfigError, DataError
from fullspan.estimators.binning import MISSING, Binner
from fullspan.estimators.boosting import hist
from fullspan.estimators.boosting.hist import GrowConfig, HistGrower, TreeArrays
from fullspan.estimators.boosting.hist_plan import threshold_table

F32 = np.float32


@pytest.fixture(autouse=True)
def several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many threads as are asked for, small as the data are."""
    monkeypatch.setattr(hist, "_FEW_VALUES", 0)


@dataclass
class Node:
    """A node of the plain grower's tree."""

    rows: np.ndarray
    depth: int
    low: Any
    high: Any
    path: frozenset[int] = frozenset()
    split: Any = None
    children: list[int] = field(default_factory=list)


class PlainGrower:
    """The specification: float32 gains of whole-number sums, first of equals wins."""

    def __init__(self, config: GrowConfig, binner: Binner, X: np.ndarray) -> None:
        self.c, self.binner, self.codes = config, binner, binner.transform(X).astype(int)
        self.monotone = config.monotone or (0,) * len(self.codes)

    def weight(self, g: Any, h: Any, low: Any, high: Any) -> Any:
        g, h = F32(g), F32(h)
        w = -F32(np.sign(g)) * max(abs(g) - F32(self.c.reg_alpha), F32(0)) / (h + F32(self.c.reg_lambda))
        if self.c.max_delta_step > 0:
            w = min(max(w, -F32(self.c.max_delta_step)), F32(self.c.max_delta_step))
        return F32(min(max(w, low), high))

    def worth(self, g: Any, h: Any, low: Any, high: Any) -> Any:
        g, h = F32(g), F32(h)
        if not h > 0:
            return F32(0)
        if self.c.max_delta_step == 0 and not any(self.monotone):
            s = max(abs(g) - F32(self.c.reg_alpha), F32(0))
            return s * s / (h + F32(self.c.reg_lambda))
        w = self.weight(g, h, low, high)
        return -(F32(2) * g * w + (h + F32(self.c.reg_lambda)) * w * w)

    def pair(self, left: Any, total: Any, node: Node, direction: int) -> Any:
        """What two sides are worth, or None where the split is not allowed."""
        (gl, hl), (gr, hr) = left, (total[0] - left[0], total[1] - left[1])
        least = max(self.c.min_child_weight, 0.5)
        if hl < least or hr < least:
            return None
        wl, wr = self.weight(gl, hl, node.low, node.high), self.weight(gr, hr, node.low, node.high)
        if (wr - wl) * direction < 0:
            return None
        return self.worth(gl, hl, node.low, node.high) + self.worth(gr, hr, node.low, node.high)

    def candidates(self, feature: int, node: Node, g: np.ndarray, h: np.ndarray) -> Any:
        """(codes that go right, sums on the left) of every split by a feature, in the order of preference."""
        codes, n_bins = self.codes[feature][node.rows], int(self.binner.n_bins[feature])
        sums = np.stack([np.bincount(codes, x[node.rows], 256) for x in (g, h)])
        total, missing = sums.sum(axis=1), sums[:, MISSING]
        if not self.binner.is_categorical[feature]:
            for missing_left in (False, True) if (codes == MISSING).any() else (False,):
                for b in range(n_bins):
                    left = sums[:, : b + 1].sum(axis=1) + missing_left * missing
                    yield {*range(b + 1, n_bins), *([] if missing_left else [MISSING])}, left
        elif n_bins <= self.c.max_cat_to_onehot:
            for c in range(n_bins):
                for extra in ([], [MISSING]) if (codes == MISSING).any() else ([],):
                    yield {c, *extra}, total - sums[:, c] - (missing if extra else 0)
        else:
            h_ = (sums[1, :n_bins] + self.c.reg_lambda).astype(F32)
            keys = np.divide(-sums[0, :n_bins].astype(F32), h_, out=np.zeros(n_bins, F32), where=h_ > 0)
            order = np.argsort(keys, kind="stable")
            most = min(self.c.max_cat_threshold, n_bins - 1)
            for k in range(1, most + 1):
                yield set(order[:k]), total - sums[:, order[:k]].sum(axis=1)
            for k in range(1, most + 1):
                yield {*order[: n_bins - k], MISSING}, sums[:, order[n_bins - k :]].sum(axis=1)

    def allowed(self, node: Node) -> list[int]:
        every = list(range(len(self.codes)))
        if self.c.interactions is None or not node.path:
            return every
        met = [set(members) for members in self.c.interactions if node.path <= set(members)]
        return [f for f in every if f in node.path or any(f in members for members in met)]

    def best(self, node: Node, g: np.ndarray, h: np.ndarray) -> Any:
        if self.c.max_depth and node.depth >= self.c.max_depth:
            return None
        total = (g[node.rows].sum(), h[node.rows].sum())
        found = None
        for feature in self.allowed(node):
            for right, left in self.candidates(feature, node, g, h):
                worth = self.pair(left, total, node, self.monotone[feature])
                if worth is not None and (found is None or worth > found[0]):
                    found = (worth, feature, right, left, total)
        if found is None:
            return None
        gain = found[0] - self.worth(*total, node.low, node.high)
        return (gain, *found[1:]) if gain > F32(1e-6) and gain >= F32(self.c.gamma) else None

    def grow(self, g: np.ndarray, h: np.ndarray) -> tuple[list[Node], np.ndarray]:
        g, h = g.astype(float), h.astype(float)
        nodes = [Node(np.arange(len(g)), 0, F32(-np.inf), F32(np.inf))]
        waiting: list[Any] = []

        def wait(number: int) -> None:
            nodes[number].split = found = self.best(nodes[number], g, h)
            if found is not None:
                first = -found[0] if self.c.grow_policy == "lossguide" else 0
                heapq.heappush(waiting, (first, number))

        wait(0)
        n_leaves = 1
        while waiting and not (self.c.max_leaves and n_leaves >= self.c.max_leaves):
            node = nodes[heapq.heappop(waiting)[1]]
            _, feature, right, left, total = node.split
            goes_right = np.isin(self.codes[feature][node.rows], list(right))
            bounds = [(node.low, node.high), (node.low, node.high)]
            if self.monotone[feature]:
                wl = self.weight(*left, node.low, node.high)
                wr = self.weight(total[0] - left[0], total[1] - left[1], node.low, node.high)
                middle = (wl + wr) * F32(0.5)
                bounds = [(node.low, middle), (middle, node.high)]
                if self.monotone[feature] < 0:
                    bounds = [(middle, node.high), (node.low, middle)]
            for side, (low, high) in zip((~goes_right, goes_right), bounds, strict=True):
                path = node.path | {feature}
                nodes.append(Node(node.rows[side], node.depth + 1, low, high, path))
                node.children.append(len(nodes) - 1)
                wait(len(nodes) - 1)
            n_leaves += 1
        leaf_of_row = np.empty(len(g), int)
        for number, node in enumerate(nodes):
            if not node.children:
                leaf_of_row[node.rows] = number
        return nodes, leaf_of_row


def make_data(n_features: int, n: int = 1500, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of every kind, and gradients that depend on them: whole numbers, which are not rounded."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, n_features)).astype(np.float32)
    X[rng.random(n) < 0.2, 1] = np.nan
    X[:, 2] = rng.integers(0, 12, n)
    signal = 3 * X[:, 0] + 2 * (X[:, 2] % 3) - 4 * np.isnan(X[:, 1]) + np.nan_to_num(X[:, 1]) * X[:, 0]
    g = np.clip(np.rint(4 * signal + 8 * rng.normal(size=n)), -120, 120).astype(np.float32)
    return X, g, rng.integers(1, 9, n).astype(np.float32)


def assert_same_tree(
    tree: TreeArrays, node_of_row: np.ndarray, nodes: list[Node], leaf_of_row: np.ndarray
) -> None:
    assert len(tree.left) == len(nodes) > 3
    np.testing.assert_array_equal(tree.left, [n.children[0] if n.children else -1 for n in nodes])
    assert [int(f) for f, n in zip(tree.feature, nodes, strict=True) if n.children] == [
        n.split[1] for n in nodes if n.children
    ]
    np.testing.assert_allclose(tree.gain, [n.split[0] if n.children else 0 for n in nodes], rtol=1e-6)
    np.testing.assert_array_equal(node_of_row, leaf_of_row)


LOSSGUIDE = GrowConfig(max_leaves=24, max_depth=0, grow_policy="lossguide")
CASES = {
    "loss-guided": LOSSGUIDE,
    "by levels": GrowConfig(max_depth=4, reg_alpha=3.0, gamma=5.0, min_child_weight=40),
    "level and leaves": GrowConfig(max_depth=5, max_leaves=11, reg_lambda=0.0),
    "bounded steps": replace(LOSSGUIDE, max_delta_step=0.4),
    "monotone": replace(LOSSGUIDE, monotone=(1, -1) + (0,) * 1),
    "interactions": replace(LOSSGUIDE, interactions=((0, 1), (2,))),
    "a category or the rest": replace(LOSSGUIDE, max_cat_to_onehot=20),
    "few categories told apart": replace(LOSSGUIDE, max_cat_threshold=2),
}


@pytest.mark.parametrize("case", CASES)
def test_trees_are_those_of_the_plain_grower(case: str) -> None:
    X, g, h = make_data(3)
    binner = Binner.fit(X, max_bins=40, categorical=np.array([False, False, case != "monotone"]))
    with HistGrower(replace(CASES[case], n_threads=2), binner, X) as grower:
        tree, node_of_row = grower.grow(g, h, 0)
    nodes, leaf_of_row = PlainGrower(CASES[case], binner, X).grow(g, h)
    assert_same_tree(tree, node_of_row, nodes, leaf_of_row)


@pytest.mark.parametrize(("n_features", "scale"), [(3, 1), (16, 1), (30, 1), (16, 1000)])
def test_any_number_of_threads_gives_the_same_bytes(n_features: int, scale: int) -> None:
    """Blocks that threads share or not; gradients in 8 bits or (scaled) in the wide form; vectors or none."""
    X, g, h = make_data(n_features, n=5000)
    X = X[np.argsort(X[:, 0])]
    binner = Binner.fit(X, categorical=np.arange(n_features) == 2)
    found = set()
    for n_threads, vector in ((1, True), (2, False), (3, True)):
        with HistGrower(replace(LOSSGUIDE, n_threads=n_threads), binner, X) as grower:
            grower.vector = vector
            tree, node_of_row = grower.grow(g * np.float32(scale), h, 0)
            assert len(grower.wide) == (1 if scale == 1 else grower.blocks.shape[1])
        found.add(b"".join(x.tobytes() for x in (*vars(tree).values(), node_of_row)))
    assert len(found) == 1


def test_wide_gradients_are_whole_numbers_too() -> None:
    X, g, h = make_data(3)
    g = g * 1000 + 1
    binner = Binner.fit(X, max_bins=20)
    with HistGrower(LOSSGUIDE, binner, X) as grower:
        tree, node_of_row = grower.grow(g, h, 0)
    assert_same_tree(tree, node_of_row, *PlainGrower(LOSSGUIDE, binner, X).grow(g, h))


def test_few_histograms_give_the_same_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no room for every leaf's histogram, some are built again."""
    X, g, h = make_data(16)
    binner = Binner.fit(X)
    trees = []
    for fewest in (64, 3):
        monkeypatch.setattr(hist, "_HISTOGRAM_BYTES", 1)
        monkeypatch.setattr(hist, "_FEWEST_HISTOGRAMS", fewest)
        with HistGrower(replace(LOSSGUIDE, n_threads=3), binner, X) as grower:
            trees.append(grower.grow(g, h, 0))
    for name, value in vars(trees[0][0]).items():
        np.testing.assert_array_equal(value, getattr(trees[1][0], name))


def test_a_crowded_machine_gets_one_thread_and_the_same_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    X, g, h = make_data(16)
    binner = Binner.fit(X)
    with HistGrower(replace(LOSSGUIDE, n_threads=3), binner, X) as grower:
        monkeypatch.setattr(hist, "_LONG_ENOUGH", 1e9)
        expected = [grower.grow(g, h, round_)[0] for round_ in range(12)]
        monkeypatch.setattr(hist, "_LONG_ENOUGH", -1.0)
        monkeypatch.setattr(hist, "_CROWDED", 1e9)
        threads = []
        for round_ in range(12):
            threads.append(grower.crew.n_threads)
            tree, _ = grower.grow(g, h, round_)
            for name, value in vars(expected[round_]).items():
                assert getattr(tree, name).tobytes() == value.tobytes()
    assert threads == [3] + [1] + [3] + [1] * 2 + [3] + [1] * 4 + [3] + [1]


def test_leaf_values_come_from_unrounded_sums() -> None:
    rng = np.random.default_rng(0)
    X, g, h = make_data(3)
    g, h = (g * rng.random(len(g))).astype(np.float32), (h * rng.random(len(g))).astype(np.float32)
    config = replace(LOSSGUIDE, reg_alpha=0.5, reg_lambda=2.0, learning_rate=0.3)
    with HistGrower(config, Binner.fit(X), X) as grower:
        tree, node_of_row = grower.grow(g, h, 0)
    for leaf in np.unique(node_of_row):
        rows = node_of_row == leaf
        sum_g, sum_h = g[rows].sum(dtype=float), h[rows].sum(dtype=float)
        expected = -0.3 * np.sign(sum_g) * max(abs(sum_g) - 0.5, 0) / (sum_h + 2)
        assert tree.value[leaf] == pytest.approx(expected, rel=1e-5, abs=1e-6)
        assert tree.cover[leaf] == pytest.approx(sum_h, rel=1e-5)
    np.testing.assert_allclose(tree.cover[0], h.sum(), rtol=1e-5)


@pytest.mark.parametrize("weight_spread", [0.0, 3.0])
def test_rounding_costs_no_quality(weight_spread: float) -> None:
    """Training loss of 10 trees near that with far finer units, heavy-tailed weights included."""
    X, g, _ = make_data(16, n=4000)
    rng = np.random.default_rng(1)
    y = (g + 20 * rng.normal(size=len(g)) > 0).astype(np.float32)
    weight = np.exp(weight_spread * rng.normal(size=len(g))).astype(np.float32)
    binner = Binner.fit(X)
    losses = []
    for fine in (False, True):
        margin = np.zeros(len(g), dtype=np.float32)
        with HistGrower(replace(LOSSGUIDE, max_leaves=8, reg_lambda=0.0), binner, X) as grower:
            for round_ in range(10):
                p = 1 / (1 + np.exp(-margin))
                grad, hess = weight * (p - y), weight * p * (1 - p)
                if fine:  # whole numbers in the wide form; without lambda, units cancel
                    unit = np.float32(2**29 / weight.sum())
                    grad, hess = np.rint(grad * unit), np.rint(hess * unit)
                tree, rows = grower.grow(grad, hess, round_)
                margin += tree.value[rows]
        losses.append(np.average(np.logaddexp(0, margin) - y * margin, weights=weight))
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_columns_are_sampled_by_tree_level_and_node() -> None:
    X, g, h = make_data(16, n=3000)
    binner = Binner.fit(X)
    config = GrowConfig(
        max_depth=4, colsample_bytree=0.5, colsample_bylevel=0.5, colsample_bynode=0.5, seed=3
    )
    used = []
    with HistGrower(config, binner, X) as grower:
        for round_ in range(6):
            tree, _ = grower.grow(g, h, round_)
            split = tree.left >= 0
            used.append(set(tree.feature[split]))
            depth = np.zeros(len(split), int)
            for node in np.flatnonzero(split):
                depth[[tree.left[node], tree.right[node]]] = depth[node] + 1
            for level in range(4):
                assert len(set(tree.feature[split & (depth == level)])) <= 4
        again, _ = grower.grow(g, h, 5)
    assert all(len(features) <= 8 for features in used) and len(set().union(*used)) > 8
    np.testing.assert_array_equal(again.feature, tree.feature)


def test_thresholds_are_xgboosts() -> None:
    """A row goes left when x < threshold, for every float32 x between two of the data's values."""
    X = np.array([[1.0], [np.nextafter(np.float32(1), np.float32(2))], [2.0]], dtype=np.float32)
    binner = Binner.fit(X)
    for bin_, cut in enumerate(binner.cuts[0]):
        threshold = threshold_table(binner)[0, bin_]
        np.testing.assert_array_equal(X < threshold, X <= cut)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"monotone": (1,)}, "monotone has 1 entries"),
        ({"monotone": (0, 0, 1)}, "feature 2 holds categories"),
        ({"interactions": ((0, 5),)}, "names feature 5 of 3"),
    ],
)
def test_constraints_that_do_not_fit(change: dict[str, Any], said: str) -> None:
    X, _, _ = make_data(3, n=20)
    binner = Binner.fit(X, categorical=np.array([False, False, True]))
    with pytest.raises(ConfigError, match=said):
        HistGrower(replace(LOSSGUIDE, **change), binner, X)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_gradients_must_be_finite(bad: float) -> None:
    X, g, h = make_data(3, n=50)
    g[7] = bad
    with HistGrower(LOSSGUIDE, Binner.fit(X), X) as grower, pytest.raises(DataError, match="finite"):
        grower.grow(g, h, 0)
