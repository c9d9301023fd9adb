"""Voting beside scikit-learn's with the same estimators, and what votes mean, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn import config_context, ensemble
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import load_iris, make_regression
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from fullspan.estimators import DecisionTreeClassifier, VotingClassifier, VotingRegressor, load

X, Y = load_iris(return_X_y=True)
NAMES = np.array(["x", "y", "z"])[Y]
X_REG, Y_REG = make_regression(60, 4, noise=5.0, random_state=0)
CLASSIFIERS = [
    ("log", LogisticRegression(max_iter=500)),
    ("near", KNeighborsClassifier(7)),
    ("tree", DecisionTreeClassifier(max_depth=2, random_state=0)),
]
REGRESSORS = [("line", LinearRegression()), ("near", KNeighborsRegressor(3))]


@pytest.mark.parametrize("weights", [None, [1, 2, 4], [0.4, 0.5, 0.1]])
@pytest.mark.parametrize("voting", ["hard", "soft"])
@pytest.mark.parametrize("dropped", [False, True])
def test_classifier_is_scikit_learns(voting: str, weights: Any, dropped: bool) -> None:
    pair = [
        kind(CLASSIFIERS, voting=voting, weights=weights)
        for kind in (VotingClassifier, ensemble.VotingClassifier)
    ]
    for each in pair:
        each.set_params(**({"near": "drop"} if dropped else {})).fit(X[::2], NAMES[::2])
    ours, theirs = pair
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
    np.testing.assert_array_equal(ours.transform(X), theirs.transform(X))
    np.testing.assert_array_equal(ours.get_feature_names_out(), theirs.get_feature_names_out())
    assert list(ours.named_estimators_) == list(theirs.named_estimators_)
    assert (ours.named_estimators_["near"] == "drop") is dropped
    if voting == "soft":
        np.testing.assert_array_equal(ours.predict_proba(X), theirs.predict_proba(X))


@pytest.mark.parametrize("weights", [None, [1, 3]])
def test_regressor_is_scikit_learns(weights: Any) -> None:
    ours = VotingRegressor(REGRESSORS, weights=weights).fit(X_REG, Y_REG)
    theirs = ensemble.VotingRegressor(REGRESSORS, weights=weights).fit(X_REG, Y_REG)
    np.testing.assert_array_equal(ours.predict(X_REG), theirs.predict(X_REG))
    np.testing.assert_array_equal(ours.transform(X_REG), theirs.transform(X_REG))
    np.testing.assert_array_equal(ours.get_feature_names_out(), theirs.get_feature_names_out())


class Says(ClassifierMixin, BaseEstimator):
    """Always says the same."""

    def __init__(self, code: int = 0) -> None:
        self.code = code

    def fit(self, X: Any, y: Any) -> Says:
        self.classes_ = np.unique(y)
        return self

    def predict(self, X: Any) -> np.ndarray:
        return np.full(len(X), self.code)


def test_the_first_class_wins_a_tie_and_weights_break_it() -> None:
    voters = [("one", Says(2)), ("two", Says(1))]
    assert VotingClassifier(voters).fit(X, NAMES).predict(X[:1]) == ["y"]
    assert VotingClassifier(voters, weights=[1.5, 1]).fit(X, NAMES).predict(X[:1]) == ["z"]


def test_sample_weights_reach_every_estimator() -> None:
    weights = np.where(Y == 2, 1e-9, 1.0)
    vote = VotingClassifier([("a", GaussianNB()), ("b", DecisionTreeClassifier(max_depth=1))], voting="soft")
    vote.fit(X, Y, sample_weight=weights)
    alone = [clone(each).fit(X, Y, sample_weight=weights).predict_proba(X) for _, each in vote.estimators]
    np.testing.assert_allclose(vote.predict_proba(X), np.mean(alone, axis=0))
    with pytest.raises(TypeError, match="KNeighborsClassifier does not support sample weights"):
        VotingClassifier([("near", KNeighborsClassifier())]).fit(X, Y, sample_weight=weights)


def test_metadata_is_routed_by_name() -> None:
    weights = np.random.default_rng(0).uniform(size=len(Y))
    with config_context(enable_metadata_routing=True):
        parts = [
            ("weighted", GaussianNB().set_fit_request(sample_weight=True)),
            ("plain", GaussianNB().set_fit_request(sample_weight=False)),
        ]
        vote = VotingClassifier(parts, voting="soft").fit(X, Y, sample_weight=weights)
    weighted = GaussianNB().fit(X, Y, sample_weight=weights).predict_proba(X)
    plain = GaussianNB().fit(X, Y).predict_proba(X)
    np.testing.assert_allclose(vote.transform(X), np.hstack([weighted, plain]))


@pytest.mark.parametrize("n_jobs", [None, 1, 3])
def test_threads_change_nothing(n_jobs: int | None) -> None:
    trees = [(f"tree{i}", DecisionTreeClassifier(max_features=1, random_state=i)) for i in range(5)]
    vote = VotingClassifier(trees, voting="soft", n_jobs=n_jobs).fit(X, Y)
    alone = [each.fit(X, Y).predict_proba(X) for _, each in trees]
    np.testing.assert_array_equal(vote.predict_proba(X), np.mean(alone, axis=0))


def test_saved_and_loaded(tmp_path: Any) -> None:
    trees = [(f"tree{i}", DecisionTreeClassifier(max_features=1, random_state=i)) for i in range(3)]
    vote = VotingClassifier(trees).set_params(tree1="drop").fit(X, NAMES)
    vote.save(tmp_path / "vote")
    again = load(tmp_path / "vote")
    np.testing.assert_array_equal(again.predict(X), vote.predict(X))
    assert again.named_estimators_["tree1"] == "drop"
    np.testing.assert_array_equal(again.le_.transform(["z", "x"]), [2, 0])


def test_verbose_says_which_estimator_is_at_work(capsys: pytest.CaptureFixture[str]) -> None:
    VotingRegressor(REGRESSORS, verbose=True).fit(X_REG, Y_REG)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert "(1 of 2) Processing line" in lines[0] and "(2 of 2) Processing near" in lines[1]
