"""Gradient boosting beside scikit-learn's: the same trees, scores and predictions for the same seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn import ensemble
from sklearn.datasets import make_classification, make_regression
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression, LogisticRegression

import fullspan.estimators as ours
from fullspan.estimators.gradient_boosting import GradientBoostingClassifier, GradientBoostingRegressor

X_REG, Y_REG = make_regression(150, 5, noise=20.0, random_state=0)
X_TWO, Y_TWO = make_classification(150, 5, n_informative=4, n_redundant=0, flip_y=0.1, random_state=1)
X_THREE, Y_THREE = make_classification(
    150, 5, n_informative=4, n_redundant=0, n_classes=3, flip_y=0.1, random_state=2
)
WEIGHTS = np.random.default_rng(3).uniform(0.5, 2.0, 150)


def assert_same_model(ours: Any, theirs: Any, X: Any) -> None:
    assert ours.estimators_.shape == theirs.estimators_.shape
    for one, other in zip(ours.estimators_.ravel(), theirs.estimators_.ravel(), strict=True):
        for name in ("feature", "threshold", "children_left", "children_right", "n_node_samples"):
            np.testing.assert_array_equal(getattr(one.tree_, name), getattr(other.tree_, name), err_msg=name)
        np.testing.assert_allclose(one.tree_.value, other.tree_.value, rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(ours.train_score_, theirs.train_score_, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(ours.apply(X), theirs.apply(X))
    np.testing.assert_allclose(ours.feature_importances_, theirs.feature_importances_, rtol=1e-8, atol=1e-12)
    for method in ("predict", "predict_proba", "decision_function"):
        if hasattr(theirs, method):
            mine = getattr(ours, method)(X)
            np.testing.assert_allclose(mine, getattr(theirs, method)(X), rtol=1e-8, atol=1e-10)


def fit_both(name: str, X: Any, y: Any, weights: Any = None, **params: Any) -> tuple[Any, Any]:
    params = {"n_estimators": 15, "random_state": 7, **params}
    one = getattr(ours, name)(**params).fit(X, y, sample_weight=weights)
    return one, getattr(ensemble, name)(**params).fit(X, y, sample_weight=weights)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["equal", "weighted"])
@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "huber", "quantile"])
def test_regressor_is_scikit_learns(loss: str, weights: Any) -> None:
    one, other = fit_both("GradientBoostingRegressor", X_REG, Y_REG, weights, loss=loss, alpha=0.8)
    assert_same_model(one, other, X_REG)
    for mine, theirs in zip(one.staged_predict(X_REG), other.staged_predict(X_REG), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["equal", "weighted"])
@pytest.mark.parametrize(
    ("loss", "X", "y"),
    [("log_loss", X_TWO, Y_TWO), ("exponential", X_TWO, Y_TWO), ("log_loss", X_THREE, Y_THREE)],
    ids=["two", "exponential", "three"],
)
def test_classifier_is_scikit_learns(loss: str, X: Any, y: Any, weights: Any) -> None:
    names = np.array(["a", "b", "c"])[y]
    one, other = fit_both("GradientBoostingClassifier", X, names, weights, loss=loss)
    assert one.init_.constant_ == pytest.approx(other.init_.class_prior_)
    np.testing.assert_array_equal(one.predict(X), other.predict(X))
    one.predict, other.predict = (lambda X: 0), (lambda X: 0)  # labels are no numbers
    assert_same_model(one, other, X)
    for method in ("staged_predict_proba", "staged_decision_function"):
        for mine, theirs in zip(getattr(one, method)(X), getattr(other, method)(X), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    "params",
    [
        {"subsample": 0.6},
        {"subsample": 0.5, "loss": "huber"},
        {"max_features": 2, "max_depth": 5},
        {"max_leaf_nodes": 6, "max_depth": None},
        {"ccp_alpha": 50.0},
        {"min_samples_leaf": 0.05, "min_samples_split": 0.2, "min_impurity_decrease": 1.0},
        {"min_weight_fraction_leaf": 0.1, "learning_rate": 0.9},
        {"init": "zero"},
        {"init": LinearRegression()},
        {"n_iter_no_change": 2, "n_estimators": 60, "learning_rate": 0.8, "validation_fraction": 0.3},
        # The held-out loss has each stage's own threshold.
        {"loss": "huber", "n_iter_no_change": 2, "n_estimators": 80, "learning_rate": 0.2, "tol": 1.0},
    ],
    ids=lambda params: "-".join(params),
)
def test_parameters_are_scikit_learns(params: dict[str, Any]) -> None:
    one, other = fit_both("GradientBoostingRegressor", X_REG, Y_REG, **params)
    assert_same_model(one, other, X_REG)
    assert one.n_estimators_ == other.n_estimators_
    for name in ("oob_improvement_", "oob_scores_", "oob_score_", "max_features_"):
        assert hasattr(one, name) == hasattr(other, name)
        if hasattr(other, name):
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-8)


def test_classes_with_rows_drawn_are_scikit_learns() -> None:
    one, other = fit_both(
        "GradientBoostingClassifier", X_THREE, Y_THREE, subsample=0.7, max_features="sqrt", init="zero"
    )
    assert_same_model(one, other, X_THREE)
    np.testing.assert_allclose(one.oob_improvement_, other.oob_improvement_, rtol=1e-7)
    one, other = fit_both(
        "GradientBoostingClassifier", X_TWO, Y_TWO, init=LogisticRegression(), subsample=0.7
    )
    assert_same_model(one, other, X_TWO)


@pytest.mark.parametrize("container", [sparse.csr_array, sparse.csc_array, sparse.coo_array])
def test_sparse_rows_give_the_same(container: Any) -> None:
    X = np.where(X_TWO > 0.3, X_TWO, 0.0)
    dense = GradientBoostingClassifier(n_estimators=8, random_state=0).fit(X, Y_TWO)
    thin, other = fit_both("GradientBoostingClassifier", container(X), Y_TWO, n_estimators=8, random_state=0)
    assert_same_model(thin, other, container(X))
    np.testing.assert_allclose(thin.predict_proba(container(X)), dense.predict_proba(X), rtol=1e-10)


@pytest.mark.parametrize("subsample", [1.0, 0.5])
def test_warm_start_goes_on_where_it_stopped(subsample: float) -> None:
    once = GradientBoostingRegressor(n_estimators=12, subsample=subsample, random_state=3).fit(X_REG, Y_REG)
    twice = GradientBoostingRegressor(
        n_estimators=5, subsample=subsample, random_state=3, warm_start=True
    ).fit(X_REG, Y_REG)
    twice.set_params(n_estimators=12).fit(X_REG, Y_REG)
    np.testing.assert_allclose(twice.predict(X_REG), once.predict(X_REG), rtol=1e-10)
    np.testing.assert_allclose(twice.train_score_, once.train_score_, rtol=1e-10)
    if subsample < 1:
        np.testing.assert_allclose(twice.oob_scores_, once.oob_scores_, rtol=1e-10)
    # A cold fit forgets the stages.
    twice.set_params(warm_start=False, n_estimators=3).fit(X_REG, Y_REG)
    assert twice.estimators_.shape == (3, 1)


def test_monitor_ends_boosting() -> None:
    seen = []

    def monitor(stage: int, model: Any, arrays: dict[str, Any]) -> bool:
        seen.append((stage, arrays["raw"].shape, float(model.train_score_[stage])))
        return stage == 3

    model = GradientBoostingRegressor(n_estimators=20).fit(X_REG, Y_REG, monitor=monitor)
    assert [stage for stage, _, _ in seen] == [0, 1, 2, 3]
    assert seen[0][1] == (150, 1)
    assert len(model.estimators_) == model.n_estimators_ == len(model.train_score_) == 4


def test_verbose_prints_stages(capsys: pytest.CaptureFixture[str]) -> None:
    GradientBoostingRegressor(n_estimators=30, verbose=1, subsample=0.8).fit(X_REG, Y_REG)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["Iter", "Train", "Loss", "OOB", "Improve", "Remaining", "Time"]
    assert [int(line.split()[0]) for line in lines[1:]] == [*range(1, 11), 20, 30]


def test_no_stage_helps_a_constant_target() -> None:
    model = GradientBoostingRegressor(n_estimators=3).fit(X_REG, np.full(150, 4.0))
    np.testing.assert_array_equal(model.predict(X_REG), 4.0)
    np.testing.assert_array_equal(model.feature_importances_, 0.0)


def test_unfitted() -> None:
    for method in ("predict", "predict_proba", "decision_function", "apply"):
        with pytest.raises(NotFittedError):
            getattr(GradientBoostingClassifier(), method)(X_TWO)


@pytest.mark.parametrize("name", ["GradientBoostingClassifier", "GradientBoostingRegressor"])
def test_saved_and_loaded(name: str, tmp_path: Any) -> None:
    model = getattr(ours, name)(n_estimators=5, subsample=0.8, random_state=1).fit(X_THREE, Y_THREE)
    model.save(tmp_path / "model.zip")
    again = ours.load(tmp_path / "model.zip")
    np.testing.assert_array_equal(again.predict(X_THREE), model.predict(X_THREE))
    np.testing.assert_array_equal(again.feature_importances_, model.feature_importances_)
    # It goes on as the model itself would.
    for each in (model, again):
        each.set_params(warm_start=True, n_estimators=8).fit(X_THREE, Y_THREE)
    np.testing.assert_array_equal(again.predict(X_THREE), model.predict(X_THREE))
