"""A forest fitted to parts in processes of their own is the one fitted to all rows, bit for bit."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from fullspan.core.errors import ConfigError, DataError
from fullspan.core.partitions import LocalPartitions, ProcessPartitions
from fullspan.estimators import RandomForestClassifier
from fullspan.estimators.forest_partitions import fit_partitions


def data(n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((2_400, 6)).astype(np.float32)
    X[:, 4] = X[:, 4].round()
    X[:, 5] = 1.0  # constant: further features are drawn
    y = np.digitize(X[:, 0] * X[:, 1] + X[:, 4] + rng.standard_normal(2_400), [0.0, 1.5][: n_classes - 1])
    X[rng.random(X.shape) < 0.02] = np.nan
    return X, y


def parts(X: np.ndarray, y: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    ends = [0, 700, 750, len(X)]
    return [(X[a:b], y[a:b]) for a, b in itertools.pairwise(ends)]


def assert_same_trees(given: Any, expected: Any) -> None:
    for one, other in zip(given.estimators_, expected.estimators_, strict=True):
        for name, value in vars(other.tree_).items():
            np.testing.assert_array_equal(getattr(one.tree_, name), value, err_msg=name)


def test_processes_give_the_same_forest() -> None:
    X, y = data(2)
    X_names = np.array(["no", "yes"])[y]
    whole = RandomForestClassifier(3, random_state=0).fit(X, X_names)
    with ProcessPartitions(parts(X, X_names)) as three:
        parted = fit_partitions(RandomForestClassifier(3, random_state=0), three)
    assert_same_trees(parted, whole)
    assert np.array_equal(parted.predict(X), whole.predict(X))
    for samples, expected in zip(parted.estimators_samples_, whole.estimators_samples_, strict=True):
        assert np.array_equal(samples, expected)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize(
    "parameters",
    [
        {"max_features": 1, "max_depth": 6},
        {"criterion": "entropy", "min_samples_leaf": 4, "max_samples": 0.5},
        {"bootstrap": False, "min_impurity_decrease": 1e-3, "max_features": None},
        {"min_weight_fraction_leaf": 0.01, "ccp_alpha": 1e-3},
    ],
    ids=str,
)
def test_parameters_give_the_same_forest(n_classes: int, parameters: dict[str, Any]) -> None:
    X, y = data(n_classes)
    whole = RandomForestClassifier(2, random_state=3, **parameters).fit(X, y)
    with LocalPartitions(parts(X, y)) as three:
        parted = fit_partitions(RandomForestClassifier(2, random_state=3, **parameters), three)
    assert_same_trees(parted, whole)


def test_levels_may_take_several_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = data(2)
    whole = RandomForestClassifier(2, random_state=0).fit(X, y)
    monkeypatch.setattr("fullspan.estimators.forest_partitions._HISTOGRAM_BYTES", 100_000)
    with LocalPartitions(parts(X, y)) as three:
        assert_same_trees(fit_partitions(RandomForestClassifier(2, random_state=0), three), whole)


def test_what_does_not_work_over_parts_is_said() -> None:
    X, y = data(2)
    with LocalPartitions(parts(X, y)) as three:
        with pytest.raises(ConfigError, match="class_weight, oob_score"):
            fit_partitions(RandomForestClassifier(class_weight="balanced", oob_score=True), three)
    with LocalPartitions([(X, y), (X[:, :3], y)]) as ragged, pytest.raises(DataError, match=r"\[3, 6\]"):
        fit_partitions(RandomForestClassifier(), ragged)
