"""AdaBoost beside scikit-learn's: the same stumps, errors and weights; the algorithms by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn import ensemble, tree
from sklearn.datasets import load_iris, make_classification, make_regression
from sklearn.linear_model import LinearRegression, LogisticRegression

from fullspan import estimators
from fullspan.estimators import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    DecisionTreeClassifier,
    DecisionTreeRegressor,
    load,
)
from fullspan.estimators.stumps import Stumps

X, Y = make_classification(400, 6, n_informative=4, n_redundant=0, flip_y=0.1, random_state=0)
X_IRIS, Y_IRIS = load_iris(return_X_y=True)
X_REG, Y_REG = make_regression(120, 5, noise=10.0, random_state=0)


def fit_both(name: str, X: Any, y: Any, weights: Any = None, **params: Any) -> tuple[Any, Any]:
    params = {"n_estimators": 25, "random_state": 3, **params}
    theirs = getattr(ensemble, name)(**params)
    with np.errstate(divide="ignore"):  # theirs take the logarithm of weights, zero ones too
        theirs.fit(X, y, weights)
    return getattr(estimators, name)(**params).fit(X, y, weights), theirs


def assert_same_model(ours: Any, theirs: Any, X: Any) -> None:
    assert len(ours) == len(theirs)
    np.testing.assert_allclose(ours.estimator_errors_, theirs.estimator_errors_, rtol=1e-10)
    np.testing.assert_allclose(ours.estimator_weights_, theirs.estimator_weights_, rtol=1e-9)
    np.testing.assert_allclose(ours.feature_importances_, theirs.feature_importances_, rtol=1e-8, atol=1e-12)
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
    for mine, other in zip(ours.staged_predict(X), theirs.staged_predict(X), strict=True):
        np.testing.assert_array_equal(mine, other)


def assert_same_trees(ours: Any, theirs: Any) -> None:
    for one, other in zip(ours.estimators_, theirs.estimators_, strict=True):
        assert one.random_state == other.random_state
        for name in ("feature", "threshold", "children_left", "n_node_samples", "missing_go_to_left"):
            np.testing.assert_array_equal(getattr(one.tree_, name), getattr(other.tree_, name), err_msg=name)
        for name in ("value", "impurity", "weighted_n_node_samples"):
            np.testing.assert_allclose(
                getattr(one.tree_, name), getattr(other.tree_, name), rtol=1e-9, atol=1e-12, err_msg=name
            )
        assert one.n_features_in_ == other.n_features_in_ and one.max_features_ == other.max_features_


@pytest.mark.parametrize("weighted", [False, True])
def test_stumps_are_scikit_learns(weighted: bool) -> None:
    weights = np.random.default_rng(1).integers(0, 4, len(Y)).astype(np.float64) if weighted else None
    names = np.array(["no", "yes"])[Y]
    ours, theirs = fit_both("AdaBoostClassifier", X, names, weights, n_estimators=40)
    assert_same_model(ours, theirs, X)
    assert_same_trees(ours, theirs)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), rtol=1e-9)
    np.testing.assert_allclose(ours.decision_function(X), theirs.decision_function(X), rtol=1e-9, atol=1e-12)


def test_stumps_of_columns_with_many_equal_values() -> None:
    rng = np.random.default_rng(0)
    rough = np.column_stack([X.round(1), X[:, :2].round(0), rng.integers(0, 2, len(Y)), np.zeros(len(Y))])
    rough = np.column_stack([rough, rough[:, 0]])  # two columns that are equally good, always
    ours, theirs = fit_both("AdaBoostClassifier", rough, Y)
    assert_same_model(ours, theirs, rough)
    assert_same_trees(ours, theirs)


def test_more_values_than_bins() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(5000, 3))
    labels = (rows[:, 0] + 0.5 * rows[:, 1] ** 2 + rng.normal(size=5000) > 0.4).astype(int)
    ours, theirs = fit_both("AdaBoostClassifier", rows, labels, n_estimators=15)
    assert_same_trees(ours, theirs)
    np.testing.assert_allclose(ours.estimator_errors_, theirs.estimator_errors_, rtol=1e-10)


def plain_best_stump(X: np.ndarray, y: np.ndarray, weights: np.ndarray) -> float:
    """Least weighted Gini impurity of all splits, by trying them."""
    best = np.inf
    for column in X.astype(np.float32).T:
        for value in np.unique(column)[:-1]:
            left = column <= value
            impurity = 0.0
            for side in (left, ~left):
                first, second = weights[side & (y == 0)].sum(), weights[side & (y == 1)].sum()
                impurity += 2 * first * second / (first + second)
            best = min(best, impurity)
    return best


def test_the_quick_search_finds_the_best_split() -> None:
    rng = np.random.default_rng(2)
    weights = rng.exponential(size=len(Y)) ** 3
    with Stumps.ready_for(DecisionTreeClassifier(max_depth=1), X, Y, weights > 0) as stumps:
        stump = DecisionTreeClassifier(max_depth=1)
        wrong = stumps.fit(stump, weights)
    tree_ = stump.tree_
    assert tree_.weighted_n_node_samples[1:] @ tree_.impurity[1:] == pytest.approx(
        plain_best_stump(X, Y, weights), rel=1e-10
    )
    np.testing.assert_array_equal(wrong, stump.predict(X) != Y)


def test_equal_splits_are_left_to_the_tree() -> None:
    twice = np.column_stack([X[:, 0], X[:, 0]])
    with Stumps.ready_for(DecisionTreeClassifier(max_depth=1), twice, Y, np.ones(len(Y), bool)) as stumps:
        assert stumps.fit(DecisionTreeClassifier(max_depth=1), np.full(len(Y), 1 / len(Y))) is None
    for other in (
        DecisionTreeClassifier(max_depth=2),
        DecisionTreeClassifier(max_depth=1, criterion="entropy"),
        DecisionTreeClassifier(max_depth=1, class_weight={0: 2, 1: 1}),
        tree.DecisionTreeClassifier(max_depth=1),
    ):
        assert Stumps.ready_for(other, X, Y, np.ones(len(Y), bool)) is None
    assert Stumps.ready_for(DecisionTreeClassifier(max_depth=1), X_IRIS, Y_IRIS, np.ones(150, bool)) is None


def test_three_classes_are_scikit_learns() -> None:
    ours, theirs = fit_both("AdaBoostClassifier", X_IRIS, Y_IRIS)
    assert_same_model(ours, theirs, X_IRIS)
    assert_same_trees(ours, theirs)
    for method in ("staged_predict_proba", "staged_decision_function"):
        for mine, other in zip(getattr(ours, method)(X_IRIS), getattr(theirs, method)(X_IRIS), strict=True):
            np.testing.assert_allclose(mine, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("rate", [0.3, 1.0])
def test_other_estimators(rate: float) -> None:
    part = LogisticRegression(max_iter=500)
    ours, theirs = (
        kind(part, n_estimators=6, learning_rate=rate).fit(X, Y)
        for kind in (AdaBoostClassifier, ensemble.AdaBoostClassifier)
    )
    np.testing.assert_allclose(ours.estimator_weights_, theirs.estimator_weights_, rtol=1e-9)
    with pytest.raises(AttributeError, match="Unable to compute feature importances"):
        _ = ours.feature_importances_


@pytest.mark.parametrize("loss", ["linear", "square", "exponential"])
def test_regressor_is_scikit_learns(loss: str) -> None:
    weights = np.random.default_rng(0).integers(0, 3, len(Y_REG))
    for each in (None, weights):
        ours, theirs = fit_both("AdaBoostRegressor", X_REG, Y_REG, each, loss=loss)
        np.testing.assert_allclose(ours.estimator_errors_, theirs.estimator_errors_, rtol=1e-10)
        np.testing.assert_allclose(ours.estimator_weights_, theirs.estimator_weights_, rtol=1e-10)
        for mine, other in zip(ours.staged_predict(X_REG), theirs.staged_predict(X_REG), strict=True):
            np.testing.assert_allclose(mine, other, rtol=1e-10)


def test_samme_by_hand() -> None:
    """Algorithm 2 of Zhu et al. round by round."""
    model = AdaBoostClassifier(n_estimators=10, learning_rate=0.7, random_state=0).fit(X_IRIS, Y_IRIS)
    weights = np.full(150, 1 / 150)
    staged = model.staged_sample_weights(X_IRIS, Y_IRIS)
    for stump, alpha, error, seen in zip(
        model.estimators_, model.estimator_weights_, model.estimator_errors_, staged, strict=True
    ):
        np.testing.assert_allclose(seen, weights, rtol=1e-9)
        wrong = stump.predict(X_IRIS) != Y_IRIS
        assert error == pytest.approx(weights[wrong].sum())
        assert alpha == pytest.approx(0.7 * (np.log((1 - error) / error) + np.log(3 - 1)))
        weights = weights * np.exp(alpha * wrong)
        weights /= weights.sum()


def test_r2_by_hand() -> None:
    """Drucker's algorithm with the square loss: weights fall with beta to the power of one minus the loss."""
    model = AdaBoostRegressor(n_estimators=6, loss="square", random_state=0).fit(X_REG, Y_REG)
    weights = np.full(120, 1 / 120)
    for part, alpha, seen in zip(
        model.estimators_, model.estimator_weights_, model.staged_sample_weights(X_REG, Y_REG), strict=True
    ):
        np.testing.assert_allclose(seen, weights, rtol=1e-9)
        misses = np.abs(part.predict(X_REG) - Y_REG)
        losses = (misses / misses.max()) ** 2
        average = weights @ losses
        beta = average / (1 - average)
        assert alpha == pytest.approx(np.log(1 / beta))
        weights = weights * beta ** (1 - losses)
        weights /= weights.sum()


def test_a_perfect_estimator_ends_boosting() -> None:
    model = AdaBoostClassifier(DecisionTreeClassifier(), n_estimators=10).fit(X, Y)
    assert len(model) == 1 and model.estimator_errors_[0] == 0 and model.estimator_weights_[0] == 1
    exact = AdaBoostRegressor(DecisionTreeRegressor(), n_estimators=5).fit(X_REG, np.full(120, 2.0))
    assert len(exact) == 1 and exact.predict(X_REG[:1])[0] == 2.0


def test_one_no_better_than_chance_ends_boosting() -> None:
    rng = np.random.default_rng(0)
    noise, labels = rng.integers(0, 2, (200, 1)).astype(float), rng.integers(0, 2, 200)
    model = AdaBoostClassifier(n_estimators=500, random_state=0).fit(noise, labels)
    # After the first stump the weighted error is a half, but for rounding.
    assert len(model) < 500
    assert (model.estimator_errors_[: len(model)] < 0.5).all()
    assert (model.estimator_weights_[len(model) :] == 0).all()


@pytest.mark.parametrize("container", [sparse.csr_array, sparse.csc_array])
def test_sparse_rows(container: Any) -> None:
    thin = np.where(X > 0.5, X, 0.0)
    ours, theirs = fit_both("AdaBoostClassifier", container(thin), Y, n_estimators=8)
    np.testing.assert_allclose(ours.estimator_errors_, theirs.estimator_errors_, rtol=1e-10)
    np.testing.assert_array_equal(ours.predict(container(thin)), theirs.predict(container(thin)))
    line = AdaBoostRegressor(LinearRegression(), n_estimators=3, random_state=0).fit(container(thin), Y)
    assert line.predict(container(thin)).shape == (400,)


def test_staged_scores() -> None:
    model = AdaBoostClassifier(n_estimators=5, random_state=0).fit(X, Y)
    assert list(model.staged_score(X, Y))[-1] == model.score(X, Y)


@pytest.mark.parametrize("name", ["AdaBoostClassifier", "AdaBoostRegressor"])
def test_saved_and_loaded(name: str, tmp_path: Any) -> None:
    model = getattr(estimators, name)(n_estimators=4, random_state=0).fit(X, Y)
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
