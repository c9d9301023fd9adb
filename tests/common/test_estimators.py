"""Checks that every estimator passes: scikit-learn's own, and those of this project."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone, is_classifier, is_clusterer
from sklearn.datasets import make_classification, make_regression
from sklearn.exceptions import SkipTestWarning
from sklearn.utils._test_common.instance_generator import PER_ESTIMATOR_XFAIL_CHECKS
from sklearn.utils.estimator_checks import parametrize_with_checks

from fullspan import estimators
from fullspan.estimators import (
    PCA,
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    BaggingRegressor,
    DecisionTreeClassifier,
    DecisionTreeRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    IncrementalPCA,
    KernelPCA,
    KNeighborsClassifier,
    KNeighborsRegressor,
    LogisticRegression,
    RandomForestClassifier,
    RandomForestRegressor,
    SelfOrganizingMap,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
    XGBClassifier,
    XGBRegressor,
)

CLASSIFIERS = [(f"tree{seed}", DecisionTreeClassifier(max_depth=3, random_state=seed)) for seed in (0, 1)]
REGRESSORS = [(f"tree{seed}", DecisionTreeRegressor(max_depth=3, random_state=seed)) for seed in (0, 1)]
# One instance of every public estimator, small where its defaults are large.
ESTIMATORS = [
    DecisionTreeClassifier(),
    DecisionTreeRegressor(),
    BaggingClassifier(n_estimators=5),
    BaggingRegressor(n_estimators=5),
    RandomForestClassifier(n_estimators=5),
    RandomForestRegressor(n_estimators=5),
    AdaBoostClassifier(n_estimators=5),
    AdaBoostRegressor(n_estimators=5),
    GradientBoostingClassifier(n_estimators=5),
    GradientBoostingRegressor(n_estimators=5),
    VotingClassifier(CLASSIFIERS),
    VotingRegressor(REGRESSORS),
    StackingClassifier(CLASSIFIERS, DecisionTreeClassifier(max_depth=2), cv=3),
    StackingRegressor(REGRESSORS, DecisionTreeRegressor(max_depth=2), cv=3),
    XGBClassifier(n_estimators=5),
    XGBRegressor(n_estimators=5),
    KNeighborsClassifier(),
    KNeighborsRegressor(),
    SelfOrganizingMap(3, 3, max_iter=5),
    SelfOrganizingMap(3, 3, algorithm="online", max_iter=5),
    LogisticRegression(),
    LogisticRegression(l1_ratio=0.5),
    PCA(2),  # more than rows allow are arbitrary, and differ where rows are repeated
    IncrementalPCA(),
    KernelPCA(),
]


def _expected_failures(estimator: Any) -> dict[str, str]:
    """Those that scikit-learn lists for its own estimator of the same name."""
    listed = {twin.__name__: failures for twin, failures in PER_ESTIMATOR_XFAIL_CHECKS.items()}
    return listed.get(type(estimator).__name__, {})  # type: ignore[no-any-return]


@parametrize_with_checks(ESTIMATORS, expected_failed_checks=_expected_failures)
def test_scikit_learn_checks(estimator: Any, check: Any) -> None:
    with warnings.catch_warnings():
        # Checks of the array API need packages that are no dependency of ours.
        warnings.simplefilter("ignore", SkipTestWarning)
        check(estimator)


def _data(estimator: Any) -> tuple[np.ndarray, np.ndarray]:
    if is_classifier(estimator) or is_clusterer(estimator):
        return make_classification(120, 6, n_informative=4, random_state=0)  # type: ignore[no-any-return]
    X, y = make_regression(120, 6, noise=1.0, random_state=0)
    return X, np.exp(y / np.abs(y).max())


def _output(fitted: Any, X: np.ndarray) -> np.ndarray:
    return np.asarray(fitted.predict(X) if hasattr(fitted, "predict") else fitted.transform(X))


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda estimator: type(estimator).__name__)
def test_saved_and_loaded_predicts_the_same(estimator: Any, tmp_path: Path) -> None:
    X, y = _data(estimator)
    fitted = clone(estimator).fit(X, y)
    fitted.save(tmp_path / "estimator")
    loaded = estimators.load(tmp_path / "estimator")
    assert type(loaded) is type(fitted)
    assert np.array_equal(_output(loaded, X), _output(fitted, X))
    assert repr(loaded) == repr(fitted)  # its parameters


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda estimator: type(estimator).__name__)
def test_fitting_again_gives_the_same(estimator: Any) -> None:
    X, y = _data(estimator)
    seeded = clone(estimator)
    if "random_state" in seeded.get_params():
        seeded.set_params(random_state=7)
    first = _output(clone(seeded).fit(X, y), X)
    assert np.array_equal(_output(clone(seeded).fit(X, y), X), first)
