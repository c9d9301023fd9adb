"""The estimators that `fullspan fit` compares, with settings that suit most tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

BASELINE = "baseline"
"""Predicts the mean or the shares of the classes: what an estimator has to beat."""


_MOST_AT_A_SPLIT = 200
# Of very many rows each tree of a forest or bag, and each round of gbdt, gets as many drawn at random: the
# next one gets others, and together they cost what a user waits for. `fit_report.remarks` says so.
ROWS_OF_A_PART = {"forest": 100_000, "bagging": 10_000, "gbdt": 20_000}
_MANY_ROWS = 50_000


@dataclass(frozen=True)
class Candidate:
    """What an estimator takes as it is.

    Attributes
    ----------
    takes_missing : bool
        Missing values; otherwise they become the column's median.
    takes_categories : bool
        Categories as sets; otherwise their codes, by frequency, count as numbers.
    takes_weights : bool
        Weights of rows.
    takes_scales : bool
        Features of any scale; otherwise each is divided by its standard deviation.
    takes_values : bool
        Regressions; otherwise classes only.
    """

    takes_missing: bool
    takes_categories: bool
    takes_weights: bool = True
    takes_scales: bool = True
    takes_values: bool = True


CANDIDATES = {
    "tree": Candidate(takes_missing=True, takes_categories=True),
    "forest": Candidate(takes_missing=True, takes_categories=True),
    "bagging": Candidate(takes_missing=True, takes_categories=False),
    "adaboost": Candidate(takes_missing=False, takes_categories=False),
    "gbdt": Candidate(takes_missing=False, takes_categories=False),
    "xgb": Candidate(takes_missing=True, takes_categories=True),
    "knn": Candidate(takes_missing=False, takes_categories=False, takes_weights=False, takes_scales=False),
    "logistic": Candidate(takes_missing=True, takes_categories=True, takes_values=False),
}


def make_estimator(name: str, classify: bool, is_category: np.ndarray, n_rows: int, seed: int) -> Any:
    """An unfitted estimator.

    Parameters
    ----------
    name : str
        One of `CANDIDATES`, or `BASELINE`.
    classify : bool
        Classifier or regressor.
    is_category : ndarray of bool [n_features]
    n_rows : int
        How many it will be fitted on.
    seed : int
    """
    from fullspan import estimators

    categories = is_category if is_category.any() else None
    part = min(1.0, ROWS_OF_A_PART.get(name, n_rows) / n_rows)
    match name:
        case "tree":
            tree = estimators.DecisionTreeClassifier if classify else estimators.DecisionTreeRegressor
            return tree(min_samples_leaf=10, random_state=seed, categorical_features=categories)
        case "forest":
            forest = estimators.RandomForestClassifier if classify else estimators.RandomForestRegressor
            # Of very many columns a third at each split would take minutes and tell little more.
            share = "sqrt" if classify else min(1 / 3, _MOST_AT_A_SPLIT / len(is_category))
            return forest(
                200 if n_rows <= _MANY_ROWS else 100,
                max_features=share,
                max_samples=None if part == 1 else part,
                min_samples_leaf=2,
                random_state=seed,
                categorical_features=categories,
            )
        case "bagging":
            bagging = estimators.BaggingClassifier if classify else estimators.BaggingRegressor
            return bagging(n_estimators=50, max_samples=part, random_state=seed)
        case "adaboost":
            adaboost = estimators.AdaBoostClassifier if classify else estimators.AdaBoostRegressor
            return adaboost(n_estimators=100, random_state=seed)
        case "gbdt":
            gbdt = estimators.GradientBoostingClassifier if classify else estimators.GradientBoostingRegressor
            return gbdt(subsample=part, random_state=seed)
        case "xgb":
            xgb = estimators.XGBClassifier if classify else estimators.XGBRegressor
            kinds = ["c" if category else "q" for category in is_category]
            return xgb(
                n_estimators=200,
                learning_rate=0.1,
                random_state=seed,
                enable_categorical=True,
                feature_types=kinds,
            )
        case "knn":
            knn = estimators.KNeighborsClassifier if classify else estimators.KNeighborsRegressor
            return knn(min(15, n_rows), weights="distance")
        case "logistic":
            from fullspan.estimators.linear.columns import ColumnsLogisticRegression

            return ColumnsLogisticRegression(categorical_features=categories)
        case _:
            from sklearn.dummy import DummyClassifier, DummyRegressor

            return DummyClassifier(strategy="prior") if classify else DummyRegressor()
