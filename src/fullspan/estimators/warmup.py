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
    yield from _trees_and_forests(X)
    yield from _additive(np.nan_to_num(X))
    yield from _neighbors(np.nan_to_num(X))
    yield from _xgb(X)
    yield from _maps(X)
    yield from _linear(np.nan_to_num(X))


def _fit(estimator: Any, X: Any, y: np.ndarray) -> Any:
    return estimator.fit(X, y).predict(X)


def _targets() -> tuple[np.ndarray, np.ndarray]:
    """Two classes, and three."""
    return np.arange(_N_ROWS) % 2, np.arange(_N_ROWS) % 3


def _trees_and_forests(X: np.ndarray) -> Iterator[tuple[str, Callable[[], Any]]]:
    (two, three), value = _targets(), X[:, 1]
    whole = np.nan_to_num(X)
    category = np.array([False, False, True])
    yield "tree", lambda: _fit(estimators.DecisionTreeClassifier(categorical_features=category), X, three)
    yield "tree", lambda: _fit(estimators.DecisionTreeRegressor(categorical_features=category), X, value)
    yield "tree", lambda: _fit(estimators.DecisionTreeRegressor(criterion="absolute_error"), X, value)
    sparse = csr_matrix(np.where(whole > 0, whole, 0.0))
    yield "tree", lambda: _fit(estimators.DecisionTreeClassifier(ccp_alpha=0.01), sparse, two)
    yield (
        "forest",
        lambda: _fit(estimators.RandomForestClassifier(3, categorical_features=category), X, three),
    )
    yield "forest", lambda: _fit(estimators.RandomForestRegressor(3, categorical_features=category), X, value)
    # From 2,000 rows on forests grow on histograms. A table's columns often lie one behind the other.
    many, classes = np.tile(X, (40, 1)), np.tile(two, 40)
    binned = estimators.RandomForestClassifier(1, categorical_features=category)
    yield "forest", lambda: _fit(binned, many, classes)
    yield "forest", lambda: _fit(estimators.RandomForestClassifier(1), many, classes)
    yield "forest", lambda: _fit(estimators.RandomForestClassifier(1), np.asfortranarray(many), classes)


def _additive(X: np.ndarray) -> Iterator[tuple[str, Callable[[], Any]]]:
    (two, three), value = _targets(), X[:, 1]
    for y in (three, two):
        yield "AdaBoost", lambda y=y: _fit(estimators.AdaBoostClassifier(n_estimators=2), X, y)  # type: ignore[misc]
    yield "AdaBoost", lambda: _fit(estimators.AdaBoostRegressor(n_estimators=2), X, value)
    yield "GBDT", lambda: _fit(estimators.GradientBoostingClassifier(n_estimators=2), X, three)
    stochastic = estimators.GradientBoostingClassifier(n_estimators=2, subsample=0.5)
    yield "GBDT", lambda: _fit(stochastic, X, two)
    exponential = estimators.GradientBoostingClassifier(n_estimators=2, loss="exponential")
    yield "GBDT", lambda: _fit(exponential, X, two)
    yield "GBDT", lambda: _fit(estimators.GradientBoostingRegressor(n_estimators=2), X, value)


def _neighbors(X: np.ndarray) -> Iterator[tuple[str, Callable[[], Any]]]:
    def ask() -> None:
        tree = estimators.KDTree(X)
        tree.query(X, 2)
        tree.query_pairs(1.0)
        tree.count_neighbors(tree, [1.0])

    yield "kd-tree", ask


def _xgb(X: np.ndarray) -> Iterator[tuple[str, Callable[[], Any]]]:
    (two, three), value = _targets(), X[:, 1]
    kinds = ["q", "q", "c"]
    for y in (two, three):
        model = estimators.XGBClassifier(n_estimators=2, enable_categorical=True, feature_types=kinds)
        yield "XGB", lambda model=model, y=y: _fit(model, X, y)  # type: ignore[misc]
        # Many rows are looked up by the codes of their thresholds.
        yield "XGB", lambda model=model: model.predict(np.tile(X, (1000, 1)))  # type: ignore[misc]
        yield "XGB", lambda model=model: model.apply(X)  # type: ignore[misc]
        yield "XGB", lambda model=model: model.shap_values(X)  # type: ignore[misc]
        yield "XGB", lambda model=model: model.shap_interaction_values(X)  # type: ignore[misc]
    several = np.column_stack([value, -value])
    for options, y in (
        ({}, value),
        ({"tree_method": "exact"}, value),
        ({"tree_method": "approx"}, value),
        ({"booster": "gblinear"}, value),
        ({"objective": "reg:absoluteerror"}, value),
        ({"multi_strategy": "multi_output_tree"}, several),
    ):
        regressor = estimators.XGBRegressor(n_estimators=2, **options)
        data = np.nan_to_num(X) if "booster" in options else X
        named = " ".join(options.values())
        yield f"XGB {named}".strip(), lambda model=regressor, X=data, y=y: _fit(model, X, y)  # type: ignore[misc]
    queries = np.arange(_N_ROWS) // 8
    for objective in ("rank:ndcg", "rank:pairwise"):
        ranker = estimators.XGBRanker(n_estimators=2, objective=objective)
        yield "XGB ranking", lambda model=ranker: model.fit(X, three, qid=queries)  # type: ignore[misc]


def _linear(X: np.ndarray) -> Iterator[tuple[str, Callable[[], Any]]]:
    two, three = _targets()
    for rows in (X, X.astype(np.float32), csr_matrix(X), csr_matrix(X.astype(np.float32))):
        yield "logistic", lambda rows=rows: _fit(estimators.LogisticRegression(max_iter=20), rows, two)  # type: ignore[misc]
        saga = estimators.LogisticRegression(solver="saga", max_iter=200, tol=0.1)
        yield "logistic", lambda rows=rows, model=saga: _fit(model, rows, two)  # type: ignore[misc]
    yield "logistic", lambda: _fit(estimators.LogisticRegression(), X, three)
    yield "logistic", lambda: _fit(estimators.LogisticRegression(l1_ratio=1), X, two)


def _maps(X: np.ndarray) -> Iterator[tuple[str, Callable[[], Any]]]:
    whole = np.nan_to_num(X)
    yield "map", lambda: estimators.SelfOrganizingMap(2, 2, max_iter=1).fit(X).transform(X)
    for data in (whole, whole.astype(np.float32)):
        som = estimators.SelfOrganizingMap(2, 2, algorithm="online", max_iter=1)
        yield "map", lambda som=som, data=data: som.fit(data)  # type: ignore[misc]
