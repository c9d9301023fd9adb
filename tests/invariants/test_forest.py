"""What must not change a forest, and what must change it in one way only."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import sklearn.ensemble

from fullspan import estimators
from fullspan.estimators import RandomForestClassifier, RandomForestRegressor


def data(n: int = 2_300, n_classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 5)).astype(np.float32)
    return X, np.digitize(X[:, 0] * X[:, 1] + rng.standard_normal(n), [0, 1, 2][: n_classes - 1])


def same(first: Any, second: Any) -> bool:
    return all(
        np.array_equal(a, b, equal_nan=True) if isinstance(a, np.ndarray) else a == b
        for one, other in zip(first.estimators_, second.estimators_, strict=True)
        for a, b in zip(vars(one.tree_).values(), vars(other.tree_).values(), strict=True)
    )


@pytest.mark.parametrize("kind", [RandomForestClassifier, RandomForestRegressor])
@pytest.mark.parametrize("n", [150, 2_300])
def test_threads_do_not_matter(kind: Any, n: int) -> None:
    X, y = data(n)
    one = kind(4, random_state=0, n_jobs=1).fit(X, y)
    three = kind(4, random_state=0, n_jobs=3).fit(X, y)
    assert same(one, three)
    assert np.array_equal(one.predict(X), three.predict(X))
    assert not same(one, kind(4, random_state=1).fit(X, y))


@pytest.mark.parametrize("n", [150, 2_300])
def test_growing_on_equals_growing_at_once(n: int) -> None:
    X, y = data(n)
    grown = RandomForestClassifier(2, random_state=5, warm_start=True).fit(X, y)
    grown.set_params(n_estimators=5).fit(X, y)
    assert same(grown, RandomForestClassifier(5, random_state=5).fit(X, y))


@pytest.mark.parametrize("n_classes", [2, 4])
def test_scale_of_the_weights_does_not_matter(n_classes: int) -> None:
    X, y = data(n_classes=n_classes)
    weight = np.random.default_rng(1).integers(1, 5, len(X)).astype(float)
    parameters = {"bootstrap": False, "random_state": 0, "n_estimators": 2}
    once = RandomForestClassifier(**parameters).fit(X, y, weight)
    twice = RandomForestClassifier(**parameters).fit(X, y, 2 * weight)
    assert np.array_equal(once.predict_proba(X), twice.predict_proba(X))


@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_weight_of_two_is_a_row_twice(n_classes: int) -> None:
    """Every row is in both data sets, so that the bins are the same."""
    X, y = data(n_classes=n_classes)
    X = X.round(1)
    weight = 1.0 + (np.arange(len(X)) % 3 == 0)
    again = np.repeat(np.arange(len(X)), weight.astype(int))
    parameters = {"bootstrap": False, "random_state": 0, "n_estimators": 2}
    weighted = RandomForestClassifier(**parameters).fit(X, y, weight)
    repeated = RandomForestClassifier(**parameters).fit(X[again], y[again])
    assert np.array_equal(weighted.predict_proba(X), repeated.predict_proba(X))


def test_order_of_rows_does_not_matter_without_a_bootstrap() -> None:
    X, y = data(n_classes=3)
    order = np.random.default_rng(2).permutation(len(X))
    parameters = {"bootstrap": False, "random_state": 0, "n_estimators": 2}
    given = RandomForestClassifier(**parameters).fit(X, y)
    shuffled = RandomForestClassifier(**parameters).fit(X[order], y[order])
    assert same(given, shuffled)


def test_rows_that_were_never_left_out_do_not_count_as_zeros() -> None:
    X, y = data()
    with pytest.warns(UserWarning, match="Some inputs do not have OOB scores"):
        forest = RandomForestRegressor(3, random_state=0, oob_score=True).fit(X, 5.0 + y)
    samples = forest.estimators_samples_
    left_out = np.array([~np.isin(np.arange(len(X)), drawn) for drawn in samples])
    each = np.array([tree.predict(X) for tree in forest.estimators_])
    expected = (each * left_out).sum(axis=0) / np.maximum(left_out.sum(axis=0), 1)
    np.testing.assert_allclose(forest.oob_prediction_, expected)
    seen = left_out.any(axis=0)
    assert forest.oob_prediction_[seen].min() >= 5.0
    assert (forest.oob_prediction_[~seen] == 0.0).all()


def test_forest_is_the_mean_of_its_trees() -> None:
    X, y = data(n_classes=3)
    X[::11, 0] = np.nan
    forest = RandomForestClassifier(4, random_state=0).fit(X, y)
    mean = np.mean([tree.predict_proba(X) for tree in forest.estimators_], axis=0)
    np.testing.assert_allclose(forest.predict_proba(X), mean, rtol=1e-14)
    leaves = forest.apply(X)
    for tree, column in zip(forest.estimators_, leaves.T, strict=True):
        assert np.array_equal(tree.apply(X), column)


def test_full_trees_learn_distinct_rows_by_heart() -> None:
    X, y = data()
    X = np.arange(len(X) * 5, dtype=np.float32).reshape(len(X), 5) % 251
    X[:, 4] = np.arange(len(X)) // 251
    forest = RandomForestClassifier(2, bootstrap=False, random_state=0).fit(X, y)
    assert forest.score(X, y) == 1.0
    assert all(tree.tree_.impurity[tree.tree_.children_left < 0].max() == 0 for tree in forest.estimators_)


def test_copies_predict_the_same(tmp_path: Path) -> None:
    X, y = data()
    forest = RandomForestClassifier(3, random_state=0, categorical_features=None).fit(X, y)
    forest.save(tmp_path / "forest")
    expected = forest.predict_proba(X)
    for copied in (
        pickle.loads(pickle.dumps(forest)),
        copy.deepcopy(forest),
        estimators.load(tmp_path / "forest"),
    ):
        assert np.array_equal(copied.predict_proba(X), expected)


def test_saved_forests_are_no_larger_than_scikit_learns(tmp_path: Path) -> None:
    X, y = data()
    ours = RandomForestClassifier(10, random_state=0).fit(X, y)
    theirs = sklearn.ensemble.RandomForestClassifier(10, random_state=0).fit(X, y)
    ours.save(tmp_path / "ours")
    joblib.dump(theirs, tmp_path / "theirs")
    nodes = [sum(tree.tree_.node_count for tree in forest.estimators_) for forest in (ours, theirs)]
    sizes = [(tmp_path / name).stat().st_size / n for name, n in zip(("ours", "theirs"), nodes, strict=True)]
    assert sizes[0] <= sizes[1] * 1.02
