"""Margins by packed trees are those of the plain loop over nodes, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from fullspan.estimators.boosting import ensemble as ensembles
from fullspan.estimators.boosting.ensemble import TreeEnsemble
from fullspan.estimators.boosting.predict import pack


def random_ensemble(seed: int, thresholds: int, categorical: bool, paired: bool = True) -> TreeEnsemble:
    """Random trees of 20 splits over 5 features, for 2 outputs; feature 4 may hold categories."""
    rng = np.random.default_rng(seed)
    values = np.sort(rng.normal(size=thresholds)).astype(np.float32)
    n_trees, n_splits = 30, 20
    left, right, feature, category_start, categories = [], [], [], [0], []
    for _ in range(n_trees):
        lefts, rights = np.full(41, -1), np.full(41, -1)
        leaves, new = [0], 1
        order = np.arange(41) if paired else np.concatenate([[0], 1 + rng.permutation(40)])
        for _ in range(n_splits):
            node = leaves.pop(rng.integers(len(leaves)))
            lefts[node], rights[node] = order[new], order[new + 1]
            leaves += [order[new], order[new + 1]]
            new += 2
        features = rng.integers(0, 5, 41)
        for node in range(41):
            if categorical and features[node] == 4 and lefts[node] >= 0:
                categories += sorted(rng.choice(40, 8, replace=False).tolist())
            category_start.append(len(categories))
        left.append(lefts)
        right.append(rights)
        feature.append(features)
    n = 41 * n_trees
    return TreeEnsemble(
        5, 2, base_score=[0.5, -1.0], tree_start=np.arange(0, n + 1, 41), tree_group=np.arange(n_trees) % 2,
        tree_weight=rng.random(n_trees), left=np.concatenate(left), right=np.concatenate(right),
        feature=np.concatenate(feature), threshold=rng.choice(values, n),
        default_left=rng.random(n) < 0.5, value=rng.normal(size=n).astype(np.float32), gain=np.ones(n),
        cover=np.ones(n), category_start=category_start, categories=categories,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("thresholds", "categorical", "paired"),
    [(20, False, True), (5000, False, False), (50, True, True), (50, True, False)],
)
def test_margins_are_those_of_the_plain_loop(
    thresholds: int, categorical: bool, paired: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees = random_ensemble(0, thresholds, categorical, paired)
    rng = np.random.default_rng(1)
    X = rng.normal(size=(777, 5)).astype(np.float32)
    X[:, 1] = rng.choice(trees.threshold, len(X))  # on the thresholds, where < and <= differ
    X[:, 4] = rng.choice([*range(-2, 45), 3.5, 1e9], len(X)) if categorical else X[:, 4]
    X[rng.random(X.shape) < 0.2] = np.nan
    X[0, :4] = np.inf, -np.inf, np.inf, 0
    for first, last in ((0, None), (3, 17)):
        monkeypatch.setattr(ensembles, "_PACKED_WORK", 10**9)
        plain = trees.margin(X, first, last)
        packed = pack(trees, first, last)
        assert packed is not None
        out = np.empty_like(plain)
        out[:] = trees.base_score
        packed.add_margins(X, out, n_threads=3)
        np.testing.assert_array_equal(out, plain)
        monkeypatch.setattr(ensembles, "_PACKED_WORK", 0)
        np.testing.assert_array_equal(trees.margin(X, first, last), plain)


def test_trees_without_a_split_are_left_to_the_plain_loop() -> None:
    """Of data with next to no positives, a model may be nothing but roots."""
    trees = random_ensemble(0, 20, True)
    roots = trees.tree_start[:-1]
    lone = TreeEnsemble(
        5, 1, base_score=[0.25], tree_start=np.arange(len(roots) + 1), tree_group=trees.tree_group * 0,
        tree_weight=trees.tree_weight, left=trees.left[roots] * 0 - 1, right=trees.left[roots] * 0 - 1,
        feature=trees.feature[roots], threshold=trees.threshold[roots],
        default_left=trees.default_left[roots], value=trees.value[roots], gain=trees.gain[roots],
        cover=trees.cover[roots],
    )  # fmt: skip
    assert pack(lone) is None
    margins = lone.margin(np.zeros((50_000, 5), dtype=np.float32))
    np.testing.assert_allclose(margins, 0.25 + (trees.value[roots] * trees.tree_weight).sum(), rtol=1e-5)


def test_what_does_not_fit_is_left_to_the_plain_loop() -> None:
    trees = random_ensemble(0, 20, True)
    assert pack(trees, 4, 4) is None
    trees.value = trees.value.astype(np.float64)
    assert pack(trees) is None
    trees = random_ensemble(0, 20, True)
    trees.categories = np.arange(len(trees.categories), dtype=np.int32)
    assert pack(trees) is None
