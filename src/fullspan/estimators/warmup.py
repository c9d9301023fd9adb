"""Compiles the estimators' kernels by fitting each estimator to a few rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from fullspan import estimators
from fullspan.core.progress import progress

_N_ROWS = 64


def warm_up() -> None:
    """Fit, predict and explain with small data, so that everything compiled is on disk afterwards."""
    steps = list(_steps())
    with progress(len(steps), "compiling the estimators' kernels", unit="estimators") as advance:
        for name, step in steps:
            step()
            advance(note=name)


def _steps() -> Iterator[tuple[str, Callable[[], Any]]]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(_N_ROWS, 3))
    X[::7, 0] = np.nan
    X[:, 2] = rng.integers(0, 3, _N_ROWS)  # categories
    whole = np.nan_to_num(X)
    two, three, value = np.arange(_N_ROWS) % 2, np.arange(_N_ROWS) % 3, X[:, 1]
    category = np.array([False, False, True])
    kinds = ["q", "q", "c"]

    def fit(estimator: Any, X: Any, y: np.ndarray) -> Any:
        return estimator.fit(X, y).predict(X)

    yield "tree", lambda: fit(estimators.DecisionTreeClassifier(categorical_features=category), X, three)
    yield "tree", lambda: fit(estimators.DecisionTreeRegressor(categorical_features=category), X, value)
    sparse = csr_matrix(np.where(whole > 0, whole, 0.0))
    yield "tree", lambda: fit(estimators.DecisionTreeClassifier(), sparse, two)
    yield "forest", lambda: fit(estimators.RandomForestClassifier(3, categorical_features=category), X, three)
    yield "forest", lambda: fit(estimators.RandomForestRegressor(3, categorical_features=category), X, value)
    # From 2,000 rows on forests grow on histograms.
    many, classes = np.tile(X, (40, 1)), np.tile(two, 40)
    yield (
        "forest",
        lambda: fit(estimators.RandomForestClassifier(1, categorical_features=category), many, classes),
    )
    yield "AdaBoost", lambda: fit(estimators.AdaBoostClassifier(n_estimators=2), whole, three)
    yield "AdaBoost", lambda: fit(estimators.AdaBoostClassifier(n_estimators=2), whole, two)
    yield "AdaBoost", lambda: fit(estimators.AdaBoostRegressor(n_estimators=2), whole, value)
    yield "GBDT", lambda: fit(estimators.GradientBoostingClassifier(n_estimators=2), whole, three)
    stochastic = estimators.GradientBoostingClassifier(n_estimators=2, subsample=0.5)
    yield "GBDT", lambda: fit(stochastic, whole, two)
    exponential = estimators.GradientBoostingClassifier(n_estimators=2, loss="exponential")
    yield "GBDT", lambda: fit(exponential, whole, two)
    yield "GBDT", lambda: fit(estimators.GradientBoostingRegressor(n_estimators=2), whole, value)
    for y in (two, three):
        model = estimators.XGBClassifier(n_estimators=2, enable_categorical=True, feature_types=kinds)
        yield "XGB", lambda model=model, y=y: fit(model, X, y)  # type: ignore[misc]
        yield "XGB", lambda model=model: model.shap_values(X)  # type: ignore[misc]
    for method in ("hist", "exact"):
        regressor = estimators.XGBRegressor(n_estimators=2, tree_method=method)
        yield f"XGB {method}", lambda model=regressor: fit(model, X, value)  # type: ignore[misc]
