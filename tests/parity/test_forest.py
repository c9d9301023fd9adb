"""Forests against scikit-learn's: equal trees where both grow exactly, equal quality on histograms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sklearn.ensemble
from scipy import sparse
from sklearn.datasets import load_iris, make_multilabel_classification, make_regression
from sklearn.ensemble._forest import _generate_sample_indices
from sklearn.inspection import permutation_importance
from sklearn.metrics import mean_poisson_deviance

from fullspan.estimators import RandomForestClassifier, RandomForestRegressor
from fullspan.estimators._bootstrap import bootstrap_rows
from fullspan.estimators._split_kernels import BINS

PEERS = {
    RandomForestClassifier: sklearn.ensemble.RandomForestClassifier,
    RandomForestRegressor: sklearn.ensemble.RandomForestRegressor,
}


def two_classes(n: int, seed: int, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Eight features in many values, of which four matter, two of them together."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 8)).astype(np.float32)
    score = X[:, 0] * X[:, 1] + X[:, 2] + (np.abs(X[:, 3]) > 1)
    return X, (score + noise * rng.logistic(size=n) > 0.3).astype(int)


def numbers(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 6)).astype(np.float32)
    return X, 3 * X[:, 0] * X[:, 1] + X[:, 2] ** 2 + rng.standard_normal(n)


def test_bootstraps_are_those_of_scikit_learn() -> None:
    weight = np.random.default_rng(0).random(777)
    for seed, n, drawn in ((0, 1, 1), (5, 2, 7), (123, 777, 300), (2**31 - 2, 65_536, 9)):
        expected = _generate_sample_indices(seed, n, drawn, None)
        assert np.array_equal(bootstrap_rows(seed, n, drawn, None), expected)
    expected = _generate_sample_indices(9, 777, 400, weight)
    assert np.array_equal(bootstrap_rows(9, 777, 400, weight), expected)


@pytest.mark.parametrize("kind", PEERS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"max_leaf_nodes": 9},
        {"max_samples": 0.4, "min_samples_leaf": 3},
        {"bootstrap": False, "max_depth": 3},
    ],
    ids=str,
)
def test_small_forests_are_scikit_learns(kind: Any, parameters: dict[str, Any]) -> None:
    X, y = load_iris(return_X_y=True)
    ours = kind(5, random_state=3, **parameters).fit(X, y)
    theirs = PEERS[kind](5, random_state=3, **parameters).fit(X, y)
    for tree, expected in zip(ours.estimators_, theirs.estimators_, strict=True):
        assert np.array_equal(tree.tree_.feature, expected.tree_.feature)
        np.testing.assert_allclose(tree.tree_.threshold, expected.tree_.threshold)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X))
    np.testing.assert_allclose(ours.feature_importances_, theirs.feature_importances_)
    assert np.array_equal(ours.apply(X), theirs.apply(X))
    path, starts = ours.decision_path(X)
    expected_path, expected_starts = theirs.decision_path(X)
    assert np.array_equal(starts, expected_starts)
    assert (path != expected_path).nnz == 0


@pytest.mark.parametrize("seed", range(2))
def test_histograms_classify_as_well_as_exact_growth(seed: int) -> None:
    X, y = two_classes(6_000, seed)
    fitted = [
        kind(40, random_state=seed, oob_score=True).fit(X[:3_000], y[:3_000])
        for kind in (RandomForestClassifier, sklearn.ensemble.RandomForestClassifier)
    ]
    ours, theirs = fitted
    # The standard deviation of an accuracy of 0.7 on 3,000 rows is 0.008, that of a difference less.
    assert ours.score(X[3_000:], y[3_000:]) > theirs.score(X[3_000:], y[3_000:]) - 0.03
    assert abs(ours.oob_score_ - theirs.oob_score_) < 0.03
    assert abs(ours.oob_score_ - ours.score(X[3_000:], y[3_000:])) < 0.04
    assert np.abs(ours.feature_importances_ - theirs.feature_importances_).max() < 0.02
    sizes = [np.mean([tree.tree_.node_count for tree in forest.estimators_]) for forest in fitted]
    assert abs(sizes[0] / sizes[1] - 1) < 0.08


@pytest.mark.parametrize("seed", range(2))
def test_histograms_predict_numbers_as_well_as_exact_growth(seed: int) -> None:
    X, y = numbers(4_400, seed)
    ours, theirs = (
        kind(20, random_state=seed, oob_score=True, min_samples_leaf=2).fit(X[:2_400], y[:2_400])
        for kind in (RandomForestRegressor, PEERS[RandomForestRegressor])
    )
    assert abs(ours.score(X[2_400:], y[2_400:]) - theirs.score(X[2_400:], y[2_400:])) < 0.03
    assert abs(ours.oob_score_ - theirs.oob_score_) < 0.03


@pytest.mark.parametrize("criterion", ["gini", "entropy"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_growth_on_few_values_is_exact(criterion: str, n_classes: int) -> None:
    """With all features looked at and no ties, histograms find scikit-learn's partition of the rows."""
    rng = np.random.default_rng(1)
    X = rng.integers(0, 200, (2_200, 4)).astype(np.float32)
    X[rng.random(X.shape) < 0.03] = np.nan
    y = np.digitize(np.nan_to_num(X[:, 0] + X[:, 1], nan=90) + 150 * rng.standard_normal(2_200), [150, 250])
    y = np.minimum(y, n_classes - 1)
    weight = rng.random(2_200)  # no two splits are equally good
    parameters = {"criterion": criterion, "max_features": None, "bootstrap": False, "max_depth": 4}
    ours = RandomForestClassifier(1, **parameters).fit(X, y, weight)
    theirs = sklearn.ensemble.RandomForestClassifier(1, **parameters).fit(X, y, weight)
    tree, expected = ours.estimators_[0].tree_, theirs.estimators_[0].tree_
    assert np.array_equal(tree.feature, expected.feature)
    assert np.array_equal(tree.n_node_samples, expected.n_node_samples)
    np.testing.assert_allclose(tree.impurity, expected.impurity, atol=1e-12)
    np.testing.assert_allclose(tree.weighted_n_node_samples, expected.weighted_n_node_samples)
    np.testing.assert_allclose(tree.value, expected.value, atol=1e-12)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-12)


@pytest.mark.parametrize("criterion", ["squared_error", "poisson"])
def test_regression_on_few_values_is_exact(criterion: str) -> None:
    rng = np.random.default_rng(2)
    X = rng.integers(0, 100, (2_100, 3)).astype(np.float32)
    y = rng.poisson(np.exp(X[:, 0] / 50 + (X[:, 1] > 40))) + 0.1 * rng.random(2_100)
    parameters = {"criterion": criterion, "bootstrap": False, "max_depth": 4, "min_samples_leaf": 20}
    ours = RandomForestRegressor(1, **parameters).fit(X, y).estimators_[0].tree_
    theirs = sklearn.ensemble.RandomForestRegressor(1, **parameters).fit(X, y).estimators_[0].tree_
    assert np.array_equal(ours.feature, theirs.feature)
    assert np.array_equal(ours.n_node_samples, theirs.n_node_samples)
    np.testing.assert_allclose(ours.value, theirs.value)
    np.testing.assert_allclose(ours.impurity, theirs.impurity, atol=1e-10)


def test_minimum_decrease_prunes_as_scikit_learn() -> None:
    X = np.random.default_rng(3).integers(0, 50, (2_000, 3)).astype(np.float32)
    y = (X[:, 0] + X[:, 1] > 60).astype(int) + (X[:, 2] > 45)
    for n_classes in (2, 3):
        target = np.minimum(y, n_classes - 1)
        parameters = {"min_impurity_decrease": 0.004, "max_features": None, "bootstrap": False}
        ours = RandomForestClassifier(1, **parameters, random_state=0).fit(X, target)
        theirs = sklearn.ensemble.RandomForestClassifier(1, **parameters, random_state=0).fit(X, target)
        assert ours.estimators_[0].tree_.node_count == theirs.estimators_[0].tree_.node_count


def test_weight_in_leaves_is_kept() -> None:
    X, y = two_classes(2_500, 4)
    weight = np.random.default_rng(4).random(2_500)
    forest = RandomForestClassifier(1, bootstrap=False, min_weight_fraction_leaf=0.05).fit(X, y, weight)
    leaves = np.bincount(forest.apply(X)[:, 0], weights=weight)
    assert leaves[leaves > 0].min() >= 0.05 * weight.sum()


def test_missing_values_lead_somewhere() -> None:
    """A value that is missing more often in one class is found, though the values say nothing."""
    rng = np.random.default_rng(5)
    X, y = rng.standard_normal((3_000, 4)).astype(np.float32), rng.integers(0, 2, 3_000)
    X[(y == 1) & (rng.random(3_000) < 0.9), 1] = np.nan
    forest = RandomForestClassifier(20, random_state=0, max_features=None).fit(X[:2_000], y[:2_000])
    assert forest.score(X[2_000:], y[2_000:]) > 0.9
    # A feature without missing values in training still meets one later.
    X[:, 0] = np.nan
    assert forest.score(X[2_000:], y[2_000:]) > 0.9


@pytest.mark.parametrize("kind", PEERS, ids=lambda kind: kind.__name__)
def test_categories_are_split_by_their_means(kind: Any) -> None:
    """Forty categories whose order says nothing: one split of subsets tells them apart, thresholds do not."""
    rng = np.random.default_rng(6)
    category = rng.integers(0, 40, 3_000)
    even = rng.permutation(40) % 2
    X = np.column_stack([category, rng.standard_normal(3_000)])
    y = even[category]
    forest = kind(3, max_depth=1, max_features=None, categorical_features=[0], random_state=0).fit(X, y)
    assert np.array_equal(forest.predict(X).round(), y)
    unknown = forest.predict(np.array([[99.0, 0.0], [np.nan, 0.0]]))
    assert unknown[0] == unknown[1]
    small = kind(3, categorical_features=[0], random_state=0).fit(X[:500], y[:500])
    assert np.mean(small.predict(X).round() == y) > 0.95
    assert np.array_equal(
        small.estimators_[1].predict(X[:9]),
        small.estimators_[1].tree_.predict(small._encoder.transform(X[:9])).argmax(axis=1)
        if kind is RandomForestClassifier
        else small.estimators_[1].tree_.predict(small._encoder.transform(X[:9]))[:, 0],
    )
    many = kind(2, categorical_features=[0], random_state=0)
    many.fit(np.arange(3_000)[:, None] % 300, np.arange(3_000) % 300 % 2)
    assert np.array_equal(many.predict([[7], [8]]).round(), [1, 0])
    words = np.array(["red", "green", "blue", "grey"], dtype=object)[category % 4]
    mixed = np.column_stack([words, X[:, 1].astype(object)])
    fitted = kind(3, categorical_features=[True, False], random_state=0).fit(mixed, category % 4 == 2)
    assert (fitted.predict(mixed).round() == (category % 4 == 2)).all()


def test_sparse_rows_grow_the_same_forest() -> None:
    rng = np.random.default_rng(7)
    X = (rng.random((2_100, 70)) < 0.1) * rng.integers(1, 9, (2_100, 70)).astype(np.float32)
    y = (X[:, :5].sum(axis=1) > 3).astype(int)
    dense = RandomForestClassifier(3, random_state=0).fit(X, y)
    for container in (sparse.csr_matrix, sparse.csc_array):
        given = RandomForestClassifier(3, random_state=0).fit(container(X), y)
        assert np.array_equal(given.predict_proba(container(X)), dense.predict_proba(X))
        assert np.array_equal(given.apply(sparse.csr_matrix(X)), dense.apply(X))


def test_several_outputs() -> None:
    X, y = make_multilabel_classification(200, random_state=0)
    ours, theirs = (
        kind(5, random_state=0, oob_score=True, class_weight="balanced")
        for kind in (RandomForestClassifier, PEERS[RandomForestClassifier])
    )
    with pytest.warns(UserWarning, match="Some inputs do not have OOB scores"):
        ours.fit(X, y)
    with pytest.warns(UserWarning, match="Some inputs do not have OOB scores"):
        theirs.fit(X, y)
    for given, expected in zip(ours.predict_proba(X), theirs.predict_proba(X), strict=True):
        np.testing.assert_allclose(given, expected)
    np.testing.assert_allclose(ours.oob_decision_function_, theirs.oob_decision_function_)
    assert ours.oob_score_ == pytest.approx(theirs.oob_score_)


@pytest.mark.parametrize("class_weight", ["balanced", "balanced_subsample", {0: 1.0, 1: 5.0}], ids=str)
def test_class_weights_on_histograms(class_weight: Any) -> None:
    X, y = two_classes(3_000, 8)
    rare = (y == 0) | (np.arange(3_000) % 8 == 0)
    X, y = X[rare], y[rare]
    X, y = np.concatenate([X, X]), np.concatenate([y, y])
    parameters = {"class_weight": class_weight, "random_state": 0, "max_depth": 6}
    shares = [
        kind(20, **parameters).fit(X, y).predict_proba(X)[:, 1].mean()
        for kind in (RandomForestClassifier, sklearn.ensemble.RandomForestClassifier)
    ]
    assert abs(shares[0] - shares[1]) < 0.03
    assert shares[0] > y.mean() + 0.1


def test_poisson_forest_beats_squares_on_counts() -> None:
    rng = np.random.default_rng(9)
    X = rng.random((5_000, 5)).astype(np.float32)
    y = rng.poisson(np.exp(3 * X[:, 0] - 2 * X[:, 1] - 1))
    deviance = {
        criterion: mean_poisson_deviance(
            y[2_500:],
            RandomForestRegressor(20, criterion=criterion, min_samples_leaf=10, random_state=0)
            .fit(X[:2_500], y[:2_500])
            .predict(X[2_500:])
            .clip(1e-6),
        )
        for criterion in ("poisson", "squared_error")
    }
    assert deviance["poisson"] < deviance["squared_error"] + 0.03
    assert deviance["poisson"] < 0.7 * mean_poisson_deviance(y[2_500:], np.full(2_500, y[:2_500].mean()))


def test_permutation_importances_find_what_matters() -> None:
    X = np.random.default_rng(0).standard_normal((600, 6))
    y = X[:, 0] + X[:, 1] > 0
    forest = RandomForestClassifier(25, random_state=0).fit(X, y)
    for found in (
        forest.oob_permutation_importance(X, y, random_state=0),
        permutation_importance(forest, X, y, n_repeats=2, random_state=0),
    ):
        assert found.importances_mean[:2].min() > 0.05
        assert np.abs(found.importances_mean[2:]).max() < 0.03
    X, y = make_regression(400, 4, n_informative=1, shuffle=False, random_state=0)
    numbers = RandomForestRegressor(10, random_state=0).fit(X, y)
    found = numbers.oob_permutation_importance(X, y, random_state=0)
    assert found.importances.shape == (4, 10)
    assert found.importances_mean.argmax() == 0


def test_codes_are_bytes() -> None:
    """The missing value's code and the histograms' size belong together."""
    assert BINS == np.iinfo(np.uint8).max + 1
