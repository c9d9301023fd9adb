"""What the ensembles refuse, and what they say."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import ShuffleSplit
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils._param_validation import InvalidParameterError

from fullspan.core.errors import CheckpointError
from fullspan.estimators import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    BaggingRegressor,
    DecisionTreeClassifier,
    DecisionTreeRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3))
Y = np.arange(40) % 2
TREES = [("a", DecisionTreeClassifier()), ("b", DecisionTreeClassifier())]
LINES = [("a", LinearRegression())]


def refused(estimator: Any, message: str, X: Any = X, y: Any = Y, **fit_params: Any) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        estimator.fit(X, y, **fit_params)


@pytest.mark.parametrize("kind", [VotingClassifier, StackingClassifier])
@pytest.mark.parametrize(
    ("estimators", "message"),
    [
        ([], "'estimators' should be a non-empty list of (string, estimator) tuples"),
        ([DecisionTreeClassifier()], "'estimators' should be a non-empty list"),
        ([("a", DecisionTreeClassifier())] * 2, "Names provided are not unique: ['a', 'a']"),
        ([("a__b", DecisionTreeClassifier())], "Estimator names must not contain __: got ['a__b']"),
        ([("n_jobs", DecisionTreeClassifier())], "Estimator names conflict with constructor arguments"),
        ([("a", "drop")], "All estimators are dropped. At least one is required to be an estimator."),
    ],
)
def test_wrong_lists_of_estimators(kind: Any, estimators: Any, message: str) -> None:
    refused(kind(estimators), message)


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (VotingClassifier(LINES), "The estimator LinearRegression should be a classifier."),
        (VotingRegressor(TREES), "The estimator DecisionTreeClassifier should be a regressor."),
        (StackingRegressor(TREES), "The estimator DecisionTreeClassifier should be a regressor."),
        (
            StackingClassifier(TREES, LinearRegression()),
            "'final_estimator' parameter should be a classifier.",
        ),
        (
            StackingRegressor(LINES, LogisticRegression()),
            "'final_estimator' parameter should be a regressor.",
        ),
        (
            VotingClassifier(TREES, weights=[1]),
            "Number of `estimators` and weights must be equal; got 1 weights, 2",
        ),
        (
            VotingClassifier(TREES, voting="loud"),
            "The 'voting' parameter of VotingClassifier must be a str among",
        ),
        (
            StackingClassifier(LINES, stack_method="predict_proba"),
            "Underlying estimator a does not implement the method predict_proba.",
        ),
        (
            StackingClassifier(TREES, cv=ShuffleSplit(5, random_state=0)),
            "in more than one fold; stacking needs one or none",
        ),
        (StackingClassifier(TREES, cv=50), "Cannot have number of splits n_splits=50 greater than"),
    ],
)
def test_contradictions_among_estimators(estimator: Any, message: str) -> None:
    refused(estimator, message)


def test_estimators_that_should_be_fitted_are_not() -> None:
    with pytest.raises(ValueError, match="This DecisionTreeClassifier instance is not fitted yet"):
        StackingClassifier(TREES, cv="prefit").fit(X, Y)


@pytest.mark.parametrize("kind", [VotingClassifier, StackingClassifier])
def test_targets_that_are_no_classes(kind: Any) -> None:
    refused(kind(TREES), "Unknown label type", y=X[:, 0])
    refused(kind(TREES), "Input y contains NaN.", y=np.where(Y, np.nan, 0.0))


def test_what_fits_refuse_comes_before_what_estimators_cannot_answer() -> None:
    class WithoutWeights(RegressorMixin, BaseEstimator):  # type: ignore[misc]
        def fit(self, X: Any, y: Any) -> Any:
            return self

    model = StackingRegressor([("a", WithoutWeights()), *LINES[1:]], cv=3)
    with pytest.raises(TypeError, match="WithoutWeights does not support sample weights"):
        model.fit(X, Y, sample_weight=np.ones(40))
    refused(model, "Underlying estimator a does not implement the method")


def test_several_targets_at_once() -> None:
    with pytest.raises(NotImplementedError, match="Multilabel and multi-output classification are not supp"):
        VotingClassifier(TREES).fit(X, np.column_stack([Y, 1 - Y]))


ALL = [
    BaggingClassifier(n_estimators=2),
    BaggingRegressor(LinearRegression(), n_estimators=2),
    AdaBoostClassifier(n_estimators=2),
    AdaBoostRegressor(n_estimators=2),
    GradientBoostingClassifier(n_estimators=2),
    GradientBoostingRegressor(n_estimators=2),
]


@pytest.mark.parametrize("estimator", ALL, ids=lambda estimator: type(estimator).__name__)
def test_rows_that_cannot_be_used(estimator: Any) -> None:
    infinite = X.copy()
    infinite[3, 1] = np.inf
    refused(estimator, "contains infinity", X=infinite)
    refused(estimator, "inconsistent numbers of samples: [40, 39]", y=Y[1:])
    refused(estimator, "Expected 2D array, got 1D array instead", X=X[:, 0])
    fitted = estimator.fit(X, Y)
    with pytest.raises(ValueError, match=r"X has 2 features, but .* is expecting 3 features as input"):
        fitted.predict(X[:, :2])


@pytest.mark.parametrize("estimator", ALL[2:], ids=lambda estimator: type(estimator).__name__)
def test_missing_values_where_they_are_not_supported(estimator: Any) -> None:
    refused(estimator, "Input X contains NaN", X=np.where(X > 2, np.nan, X))


@pytest.mark.parametrize("estimator", ALL, ids=lambda estimator: type(estimator).__name__)
def test_parameters_out_of_range(estimator: Any) -> None:
    wrong = type(estimator)(n_estimators=0)
    with pytest.raises(InvalidParameterError, match="The 'n_estimators' parameter of"):
        wrong.fit(X, Y)


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (BaggingClassifier(max_features=4), "max_features must be <= n_features"),
        (
            BaggingClassifier(max_samples=50, bootstrap=False),
            "Effective max_samples=50 must be <= n_samples=40",
        ),
        (
            BaggingClassifier(bootstrap=False, oob_score=True),
            "Out of bag estimation only available if bootstrap",
        ),
        (
            BaggingClassifier(oob_score=True, warm_start=True),
            "Out of bag estimate only available if warm_start",
        ),
        (BaggingRegressor(max_samples=0.0), "The 'max_samples' parameter of BaggingRegressor must be"),
        (AdaBoostClassifier(KNeighborsClassifier()), "KNeighborsClassifier doesn't support sample_weight."),
        (AdaBoostClassifier(learning_rate=0), "The 'learning_rate' parameter of AdaBoostClassifier must be"),
        (AdaBoostRegressor(loss="cubic"), "The 'loss' parameter of AdaBoostRegressor must be a str among"),
        (
            GradientBoostingClassifier(loss="hinge"),
            "The 'loss' parameter of GradientBoostingClassifier must be",
        ),
        (GradientBoostingRegressor(subsample=1.5), "The 'subsample' parameter of GradientBoostingRegressor"),
        (GradientBoostingRegressor(alpha=1.0), "The 'alpha' parameter of GradientBoostingRegressor must be"),
        (
            GradientBoostingClassifier(init=LinearRegression()),
            "The 'init' parameter of GradientBoostingClassifier",
        ),
    ],
)
def test_contradictory_parameters(estimator: Any, message: str) -> None:
    refused(estimator, message)


def test_negative_weights() -> None:
    weights = np.where(np.arange(40) == 5, -1.0, 1.0)
    for estimator in (AdaBoostClassifier(), AdaBoostRegressor()):
        refused(estimator, "Negative values in data passed to `sample_weight`", sample_weight=weights)
    refused(BaggingClassifier(), "robabilities are not non-negative", sample_weight=weights)


def test_worse_than_chance() -> None:
    wrong = DummyClassifier(strategy="constant", constant=1)
    refused(AdaBoostClassifier(wrong), "worse than random", y=np.where(np.arange(40) < 30, 0, 1))


def test_weights_that_overflow_end_boosting() -> None:
    labels = np.where(np.arange(40) < 39, Y, 1 - Y)
    with pytest.warns(UserWarning, match="Sample weights have reached infinite values, at iteration"):
        AdaBoostClassifier(n_estimators=30, learning_rate=400.0, random_state=0).fit(X, labels)


def test_one_class() -> None:
    one = np.zeros(40)
    message = "y contains 1 class after sample_weight trimmed classes with zero weights"
    refused(GradientBoostingClassifier(), message, y=one)
    refused(GradientBoostingClassifier(), message, sample_weight=Y)
    assert set(BaggingClassifier().fit(X, one).predict(X)) == {0.0}
    assert set(AdaBoostClassifier().fit(X, one).predict(X)) == {0.0}
    boosted = AdaBoostClassifier().fit(X, one)
    assert boosted.predict_proba(X).shape == (40, 1)
    assert [each.tolist() for each in boosted.staged_predict_proba(X)] == [[[1.0]] * 40]
    assert [each.tolist() for each in boosted.staged_predict(X)] == [[0.0] * 40]


def test_losses_for_two_classes_only() -> None:
    refused(
        GradientBoostingClassifier(loss="exponential"),
        "loss='exponential' is only suitable for a binary classification problem, you have n_classes=3",
        y=np.arange(40) % 3,
    )


def test_early_stopping_that_loses_a_class() -> None:
    labels = np.r_[np.zeros(36), np.ones(2), np.full(2, 2)]
    with pytest.raises(ValueError, match=r"missing some classes|should be greater or equal to the number of"):
        GradientBoostingClassifier(n_iter_no_change=2, validation_fraction=0.9).fit(X, labels)


def test_first_estimators_that_take_no_weights() -> None:
    weights = np.ones(40)
    near = GradientBoostingClassifier(init=KNeighborsClassifier())
    refused(near, "The initial estimator KNeighborsClassifier does not support sample", sample_weight=weights)
    chain = GradientBoostingRegressor(init=make_pipeline(StandardScaler(), LinearRegression()))
    refused(chain, "The initial estimator Pipeline does not support sample weights", sample_weight=weights)


def test_fewer_stages_than_there_are() -> None:
    model = GradientBoostingRegressor(n_estimators=3, warm_start=True).fit(X, Y)
    refused(
        model.set_params(n_estimators=2), "n_estimators=2 must be larger or equal to estimators_.shape[0]=3"
    )


def test_constant_and_empty_columns() -> None:
    flat = np.ones((40, 2))
    for estimator in ALL[2:]:
        if isinstance(estimator, AdaBoostClassifier):
            refused(estimator, "worse than random", X=flat)
            continue
        assert np.isfinite(estimator.fit(flat, Y).predict(flat)).all()
    refused(ALL[0], "Found array with 0 feature(s)", X=np.empty((40, 0)))


def test_what_cannot_be_saved_is_named(tmp_path: Any) -> None:
    for model, place in (
        (VotingClassifier([("near", KNeighborsClassifier())]), "VotingClassifier.estimators"),
        (BaggingClassifier(KNeighborsClassifier()), "BaggingClassifier.estimator"),
        (StackingRegressor([("tree", DecisionTreeRegressor())]), "StackingRegressor.final_estimator_"),
    ):
        model.fit(X, Y)
        with pytest.raises(CheckpointError, match=re.escape(place)):
            model.save(tmp_path / "model")
