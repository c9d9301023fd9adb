"""Stacking beside scikit-learn's with the same estimators; folds in order of time against a plain loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn import ensemble
from sklearn.base import clone
from sklearn.datasets import load_iris, make_multilabel_classification, make_regression
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import KFold, PredefinedSplit, StratifiedKFold, TimeSeriesSplit
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC

from fullspan.estimators import (
    DecisionTreeClassifier,
    DecisionTreeRegressor,
    StackingClassifier,
    StackingRegressor,
    load,
)

X, Y = load_iris(return_X_y=True)
NAMES = np.array(["x", "y", "z"])[Y]
X_REG, Y_REG = make_regression(80, 4, noise=10.0, random_state=0)
CLASSIFIERS = [("nb", GaussianNB()), ("tree", DecisionTreeClassifier(max_depth=2, random_state=0))]
REGRESSORS = [("ridge", Ridge()), ("tree", DecisionTreeRegressor(max_depth=3, random_state=0))]
FINAL = LogisticRegression(max_iter=1000)


@pytest.mark.parametrize("passthrough", [False, True])
@pytest.mark.parametrize("method", ["auto", "predict"])
@pytest.mark.parametrize("cv", [3, StratifiedKFold(4, shuffle=True, random_state=1)], ids=["3", "shuffled"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_classifier_is_scikit_learns(n_classes: int, cv: Any, method: str, passthrough: bool) -> None:
    rows = Y < n_classes
    ours, theirs = (
        kind(CLASSIFIERS, FINAL, cv=cv, stack_method=method, passthrough=passthrough).fit(
            X[rows], NAMES[rows]
        )
        for kind in (StackingClassifier, ensemble.StackingClassifier)
    )
    np.testing.assert_array_equal(ours.transform(X), theirs.transform(X))
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
    np.testing.assert_array_equal(ours.predict_proba(X), theirs.predict_proba(X))
    np.testing.assert_array_equal(ours.decision_function(X), theirs.decision_function(X))
    np.testing.assert_array_equal(ours.get_feature_names_out(), theirs.get_feature_names_out())
    assert ours.stack_method_ == theirs.stack_method_


@pytest.mark.parametrize("final", [None, LinearRegression()])
def test_regressor_is_scikit_learns(final: Any) -> None:
    weights = np.random.default_rng(0).uniform(0.5, 2, len(Y_REG))
    ours, theirs = (
        kind(REGRESSORS, final, cv=KFold(3), passthrough=True).fit(X_REG, Y_REG, sample_weight=weights)
        for kind in (StackingRegressor, ensemble.StackingRegressor)
    )
    np.testing.assert_allclose(ours.predict(X_REG), theirs.predict(X_REG), rtol=1e-12)
    np.testing.assert_array_equal(ours.transform(X_REG), theirs.transform(X_REG))


def test_several_labels_at_once() -> None:
    rows, labels = make_multilabel_classification(100, n_classes=3, random_state=0)
    parts = [("near", KNeighborsClassifier()), ("tree", DecisionTreeClassifier(max_depth=3, random_state=0))]
    ours, theirs = (
        kind(parts, KNeighborsClassifier()).fit(rows, labels)
        for kind in (StackingClassifier, ensemble.StackingClassifier)
    )
    np.testing.assert_array_equal(ours.transform(rows), theirs.transform(rows))
    np.testing.assert_array_equal(ours.predict(rows), theirs.predict(rows))
    np.testing.assert_array_equal(ours.predict_proba(rows), theirs.predict_proba(rows))


def test_sparse_rows_are_passed_through() -> None:
    thin = sparse.csr_array(np.where(X_REG > 0, X_REG, 0))
    stack = StackingRegressor(REGRESSORS, Ridge(), passthrough=True, cv=3).fit(thin, Y_REG)
    table = stack.transform(thin)
    assert sparse.issparse(table) and table.format == "csr" and table.shape == (80, 6)
    np.testing.assert_array_equal(table[:, 2:].toarray(), thin.toarray())


def test_fitted_estimators_are_used_as_they_are() -> None:
    fitted = [(name, clone(each).fit(X[::2], Y[::2])) for name, each in CLASSIFIERS]
    stack = StackingClassifier(fitted, FINAL, cv="prefit").fit(X[1::2], Y[1::2])
    assert stack.estimators_[0] is fitted[0][1]
    alone = np.hstack([each.predict_proba(X[1::2]) for _, each in fitted])
    np.testing.assert_allclose(stack.final_estimator_.coef_, clone(FINAL).fit(alone, Y[1::2]).coef_)


def out_of_fold(estimator: Any, splits: list[Any], weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows predicted and their predictions, in the rows' order."""
    rows = np.concatenate([test for _, test in splits])
    predicted = np.concatenate(
        [
            clone(estimator).fit(X_REG[a], Y_REG[a], sample_weight=weights[a]).predict(X_REG[b])
            for a, b in splits
        ]
    )
    order = np.argsort(rows)
    return rows[order], predicted[order]


@pytest.mark.parametrize(
    "cv",
    [TimeSeriesSplit(4), TimeSeriesSplit(3, gap=2), PredefinedSplit([-1, 0, 1, -1] * 20)],
    ids=["time", "gap", "predefined"],
)
@pytest.mark.parametrize("passthrough", [False, True])
def test_rows_that_no_fold_predicts_do_not_train_the_final_estimator(cv: Any, passthrough: bool) -> None:
    weights = np.random.default_rng(0).uniform(0.5, 2, len(Y_REG))
    stack = StackingRegressor(REGRESSORS, Ridge(), cv=cv, passthrough=passthrough)
    stack.fit(X_REG, Y_REG, sample_weight=weights)
    splits = list(cv.split(X_REG))
    rows, first = out_of_fold(REGRESSORS[0][1], splits, weights)
    _, second = out_of_fold(REGRESSORS[1][1], splits, weights)
    assert 0 < len(rows) < len(Y_REG)
    table = np.column_stack([first, second, *([X_REG[rows]] if passthrough else [])])
    final = Ridge().fit(table, Y_REG[rows], sample_weight=weights[rows])
    np.testing.assert_allclose(stack.final_estimator_.coef_, final.coef_, rtol=1e-10)
    # The estimators themselves have seen all rows.
    everything = clone(REGRESSORS[0][1]).fit(X_REG, Y_REG, sample_weight=weights)
    np.testing.assert_allclose(stack.estimators_[0].coef_, everything.coef_)


def test_no_row_is_predicted_by_an_estimator_that_saw_later_ones() -> None:
    seen: list[tuple[float, float]] = []

    class Watches(Ridge):
        def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
            self.latest_ = X[:, 0].max()
            return super().fit(X, y, sample_weight)

        def predict(self, X: Any) -> Any:
            seen.append((self.latest_, X[-1, 0]))
            return super().predict(X)

    times = np.arange(40.0)[:, None]
    StackingRegressor([("w", Watches())], Ridge(), cv=TimeSeriesSplit(3)).fit(times, times.ravel())
    assert len(seen) == 3
    # The first fold also holds the rows that are not used; its last row is one of its own.
    assert seen[0][0] == 9.0 and [last for last, _ in seen[1:]] == [19.0, 29.0]


def test_a_class_that_the_first_folds_lack() -> None:
    y = np.repeat([0, 1, 2], 50)
    order = np.argsort(np.r_[np.arange(100), np.arange(50) + 60], kind="stable")
    with pytest.warns(RuntimeWarning, match="Number of classes in training fold"):
        stack = StackingClassifier(CLASSIFIERS, FINAL, cv=TimeSeriesSplit(4)).fit(X[order], y[order])
    assert stack.predict_proba(X).shape == (150, 3)


def test_methods_are_those_of_the_final_estimator() -> None:
    stack = StackingClassifier(CLASSIFIERS, LinearSVC())
    assert hasattr(stack, "decision_function") and not hasattr(stack, "predict_proba")


@pytest.mark.parametrize("n_jobs", [1, 3])
def test_threads_change_nothing(n_jobs: int) -> None:
    default = StackingClassifier(CLASSIFIERS, FINAL).fit(X, Y).predict_proba(X)
    threaded = StackingClassifier(CLASSIFIERS, FINAL, n_jobs=n_jobs).fit(X, Y).predict_proba(X)
    np.testing.assert_array_equal(threaded, default)


def test_saved_and_loaded(tmp_path: Any) -> None:
    trees = [(f"tree{i}", DecisionTreeClassifier(max_features=1, random_state=i)) for i in range(2)]
    stack = StackingClassifier(trees, DecisionTreeClassifier(max_depth=3), cv=3).fit(X, NAMES)
    stack.save(tmp_path / "stack")
    again = load(tmp_path / "stack")
    np.testing.assert_array_equal(again.predict_proba(X), stack.predict_proba(X))
    np.testing.assert_array_equal(again.get_feature_names_out(), stack.get_feature_names_out())
