"""Bagging beside scikit-learn's: the same rows and features drawn, the same predictions, on any threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn import config_context, ensemble, tree
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import load_iris, make_classification, make_regression
from sklearn.linear_model import Perceptron
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier

from fullspan import estimators
from fullspan.estimators import (
    BaggingClassifier,
    BaggingRegressor,
    DecisionTreeClassifier,
    DecisionTreeRegressor,
    load,
)
from fullspan.estimators.tree.sharing import SharedRows

X, Y = load_iris(return_X_y=True)
NAMES = np.array(["x", "y", "z"])[Y]
X_REG, Y_REG = make_regression(90, 5, noise=10.0, random_state=0)
WEIGHTS = np.random.default_rng(0).uniform(0.2, 2, 150)
OOB = {"oob_score": True, "n_estimators": 30}
SETTINGS: list[dict[str, Any]] = [
    {},
    {"max_samples": 0.5, "max_features": 0.6},
    {"max_samples": 30, "bootstrap": False, "max_features": 2, "bootstrap_features": True},
    {"bootstrap_features": True, **OOB},
]


def fit_both(name: str, X: Any, y: Any, weights: Any = None, **params: Any) -> tuple[Any, Any]:
    params = {"n_estimators": 8, "random_state": 5, **params}
    theirs = getattr(ensemble, name)(**params)
    return getattr(estimators, name)(**params).fit(X, y, weights), theirs.fit(X, y, weights)


def assert_same_draws(ours: Any, theirs: Any) -> None:
    for name in ("estimators_samples_", "estimators_features_"):
        np.testing.assert_array_equal(np.array(getattr(ours, name)), np.array(getattr(theirs, name)))


@pytest.mark.parametrize("params", SETTINGS, ids=lambda params: "-".join(params) or "default")
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["equal", "weighted"])
@pytest.mark.filterwarnings("ignore:When fitting BaggingClassifier with sample_weight")
def test_classifier_is_scikit_learns(params: dict[str, Any], weights: Any) -> None:
    ours, theirs = fit_both("BaggingClassifier", X, NAMES, weights, **params)
    assert_same_draws(ours, theirs)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), rtol=1e-12)
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
    if params.get("oob_score"):
        assert ours.oob_score_ == theirs.oob_score_
        np.testing.assert_allclose(ours.oob_decision_function_, theirs.oob_decision_function_, rtol=1e-12)


@pytest.mark.parametrize("params", SETTINGS, ids=lambda params: "-".join(params) or "default")
def test_regressor_is_scikit_learns(params: dict[str, Any]) -> None:
    ours, theirs = fit_both("BaggingRegressor", X_REG, Y_REG, **params)
    assert_same_draws(ours, theirs)
    np.testing.assert_allclose(ours.predict(X_REG), theirs.predict(X_REG), rtol=1e-12)
    if params.get("oob_score"):
        assert ours.oob_score_ == pytest.approx(theirs.oob_score_, rel=1e-12)
        np.testing.assert_allclose(ours.oob_prediction_, theirs.oob_prediction_, rtol=1e-12)


@pytest.mark.parametrize(
    "part",
    [GaussianNB(), KNeighborsClassifier(), Perceptron()],
    ids=lambda p: type(p).__name__,
)
def test_other_estimators(part: Any) -> None:
    ours, theirs = fit_both("BaggingClassifier", X, NAMES, estimator=part, max_features=3, **OOB)
    np.testing.assert_array_equal(ours.predict_proba(X), theirs.predict_proba(X))
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(ours.predict_log_proba(X), theirs.predict_log_proba(X), rtol=1e-12)
    assert ours.oob_score_ == theirs.oob_score_
    assert hasattr(ours, "decision_function") == hasattr(theirs, "decision_function")
    if hasattr(theirs, "decision_function"):
        np.testing.assert_allclose(ours.decision_function(X), theirs.decision_function(X), rtol=1e-12)


def test_a_class_that_some_copies_never_saw() -> None:
    y = np.where(np.arange(150) == 7, 2, Y % 2)
    ours, theirs = fit_both("BaggingClassifier", X, y, estimator=KNeighborsClassifier(1), max_samples=20)
    assert min(len(each.classes_) for each in ours.estimators_) == 2
    np.testing.assert_array_equal(ours.predict_proba(X), theirs.predict_proba(X))
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(ours.predict_log_proba(X), theirs.predict_log_proba(X))


@pytest.mark.parametrize("n_jobs", [None, 1, 2, 3])
@pytest.mark.parametrize("name", ["BaggingClassifier", "BaggingRegressor"])
def test_threads_change_nothing(name: str, n_jobs: int | None) -> None:
    kind = getattr(estimators, name)
    one = kind(random_state=1, n_jobs=1, **OOB).fit(X, Y)
    other = kind(random_state=1, n_jobs=n_jobs, **OOB).fit(X, Y)
    np.testing.assert_array_equal(other.predict(X), one.predict(X))
    assert other.oob_score_ == one.oob_score_


def test_warm_start_goes_on_where_it_stopped() -> None:
    once = BaggingClassifier(n_estimators=9, random_state=2).fit(X, Y)
    twice = BaggingClassifier(n_estimators=4, random_state=2, warm_start=True).fit(X, Y)
    twice.set_params(n_estimators=9).fit(X, Y)
    assert_same_draws(twice, once)
    np.testing.assert_array_equal(twice.predict_proba(X), once.predict_proba(X))
    with pytest.warns(UserWarning, match="Warm-start fitting without increasing n_estimators"):
        twice.fit(X, Y)
    with pytest.raises(ValueError, match="n_estimators=3 must be larger or equal to"):
        twice.set_params(n_estimators=3).fit(X, Y)


def test_sparse_rows_and_missing_values_reach_the_estimator() -> None:
    thin = sparse.csc_array(np.where(X > 1, X, 0))
    ours = BaggingClassifier(n_estimators=5, random_state=0, max_features=2).fit(thin, Y)
    dense = BaggingClassifier(n_estimators=5, random_state=0, max_features=2).fit(thin.toarray(), Y)
    assert np.mean(ours.predict(thin) == dense.predict(thin.toarray())) > 0.98
    holes = X.copy()
    holes[::5, 1] = np.nan
    assert BaggingClassifier(random_state=0).fit(holes, Y).score(holes, Y) > 0.95


def test_metadata_is_routed() -> None:
    class Notes(ClassifierMixin, BaseEstimator):
        def fit(self, X: Any, y: Any, sample_weight: Any = None, note: Any = None) -> Any:
            self.classes_, self.note_, self.weight_ = np.unique(y), note, sample_weight
            return self

        def predict(self, X: Any) -> np.ndarray:
            return np.zeros(len(X), np.int64)

    with config_context(enable_metadata_routing=True):
        part = Notes().set_fit_request(note=True, sample_weight=False)
        bag = BaggingClassifier(part, n_estimators=2, random_state=0).fit(X, Y, note=np.arange(150))
    for each, rows in zip(bag.estimators_, bag.estimators_samples_, strict=True):
        np.testing.assert_array_equal(each.note_, rows)
        assert each.weight_ is None


def test_copies_have_seeds_of_their_own() -> None:
    bag = BaggingClassifier(DecisionTreeClassifier(max_features=1), n_estimators=3, random_state=0).fit(X, Y)
    seeds = [each.random_state for each in bag.estimators_]
    assert len(set(seeds)) == 3
    rows = bag.estimators_samples_[1]
    again = clone(bag.estimators_[1]).fit(X, Y, sample_weight=np.bincount(rows, minlength=150))
    np.testing.assert_array_equal(again.predict(X), bag.estimators_[1].predict(X))


def test_trees_of_the_other_library_do_as_well() -> None:
    mine = BaggingRegressor(DecisionTreeRegressor(), random_state=0).fit(X_REG, Y_REG)
    theirs = BaggingRegressor(tree.DecisionTreeRegressor(), random_state=0).fit(X_REG, Y_REG)
    np.testing.assert_allclose(mine.predict(X_REG), theirs.predict(X_REG), rtol=1e-12)


@pytest.mark.parametrize("name", ["BaggingClassifier", "BaggingRegressor"])
def test_saved_and_loaded(name: str, tmp_path: Any) -> None:
    bag = getattr(estimators, name)(n_estimators=4, max_features=2, random_state=0).fit(X, Y)
    bag.save(tmp_path / "bag")
    again = load(tmp_path / "bag")
    np.testing.assert_array_equal(again.predict(X), bag.predict(X))
    assert_same_draws(again, bag)


@pytest.mark.parametrize(
    ("params", "tree"),
    [
        ({}, {}),
        ({"max_features": 0.5}, {"max_features": "sqrt"}),
        ({"max_features": 3, "bootstrap_features": True, "bootstrap": False}, {}),
        ({"max_samples": 0.4}, {"splitter": "random"}),
    ],
    ids=["all", "some-features", "repeated-features", "random-splits"],
)
@pytest.mark.parametrize("kind", ["dense", "missing", "sparse"])
def test_columns_sorted_once_for_all_copies_give_the_same_trees(
    kind: str, params: dict[str, Any], tree: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = make_classification(120, 6, n_informative=4, n_classes=3, random_state=5)
    X[np.abs(X) < 0.3] = np.nan if kind == "missing" else 0.0
    X = sparse.csr_array(X) if kind == "sparse" else X
    model = BaggingClassifier(DecisionTreeClassifier(**tree), 4, random_state=3, n_jobs=1, **params)
    shared = model.fit(X, y).estimators_
    monkeypatch.setattr(SharedRows, "ready_for", lambda *arguments: None)
    alone = model.fit(X, y).estimators_
    for one, other in zip(shared, alone, strict=True):
        assert one.n_features_in_ == other.n_features_in_ and one.max_features_ == other.max_features_
        np.testing.assert_array_equal(one.classes_, other.classes_)
        for name in ("feature", "threshold", "children_left", "value", "n_node_samples", "impurity"):
            np.testing.assert_array_equal(getattr(one.tree_, name), getattr(other.tree_, name), err_msg=name)


@pytest.mark.parametrize(
    ("tree", "X", "y", "message"),
    [
        ({"min_samples_leaf": 0}, [[0.0], [1.0]], [0, 1], "'min_samples_leaf' parameter"),
        ({}, [[np.inf], [1.0]], [0, 1], "infinity"),
        ({"criterion": "poisson"}, [[0.0], [1.0]], [-1, 1], "negative"),
    ],
)
def test_trees_refuse_what_their_own_fit_refuses(tree: Any, X: Any, y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BaggingRegressor(DecisionTreeRegressor(**tree), 2).fit(X, y)
