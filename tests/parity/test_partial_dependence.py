"""`sklearn.inspection.partial_dependence` by recursion: our trees give what scikit-learn's own give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn import ensemble, tree
from sklearn.inspection import partial_dependence

from fullspan import estimators

RNG = np.random.default_rng(3)
X = RNG.normal(size=(150, 4))
SIGNAL = X[:, 0] * X[:, 1] + np.sin(X[:, 2])
WEIGHT = RNG.integers(0, 4, 150).astype(float)


@pytest.mark.parametrize(
    ("package", "name", "y", "parameters"),
    [
        (tree, "DecisionTreeRegressor", SIGNAL, {"max_depth": 5}),
        (ensemble, "RandomForestRegressor", SIGNAL, {"n_estimators": 4}),
        (ensemble, "GradientBoostingRegressor", SIGNAL, {"n_estimators": 4}),
        (ensemble, "GradientBoostingClassifier", np.digitize(SIGNAL, [-0.5, 0.5]), {"n_estimators": 4}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_averages_are_scikit_learns(package: Any, name: str, y: Any, parameters: dict[str, Any]) -> None:
    peer = getattr(package, name)(random_state=0, **parameters).fit(X, y, WEIGHT)
    ours = getattr(estimators, name)(random_state=0, **parameters).fit(X, y, WEIGHT)
    for features in ([0], [(1, 2)]):
        for method in ("recursion", "auto"):
            wanted = partial_dependence(peer, X, features, method=method, grid_resolution=12)
            found = partial_dependence(ours, X, features, method=method, grid_resolution=12)
            np.testing.assert_allclose(found["average"], wanted["average"], rtol=1e-9, atol=1e-12)


def test_categories_are_known_by_value() -> None:
    kinds = RNG.choice([10.0, 20.0, 30.0], 150)
    rows = np.column_stack([kinds, X[:, 0]])
    model = estimators.DecisionTreeRegressor(max_depth=4, categorical_features=[0], random_state=0)
    model.fit(rows, SIGNAL + (kinds == 20) * 5)
    average = partial_dependence(model, rows, [0], categorical_features=[0], method="recursion")["average"][0]
    # The second of the three categories adds five.
    assert average[1] - average[0] == pytest.approx(5, abs=0.8)
    assert average[1] - average[2] == pytest.approx(5, abs=0.8)


def test_an_own_first_model_is_warned_of() -> None:
    model = estimators.GradientBoostingRegressor(n_estimators=2, init=tree.DecisionTreeRegressor(max_depth=1))
    model.fit(X, SIGNAL)
    with pytest.warns(UserWarning, match="non-constant init"):
        partial_dependence(model, X, [0], method="recursion", grid_resolution=3)
