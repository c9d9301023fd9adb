"""Exported trees run in onnxruntime and predict what the estimators predict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fullspan import estimators
from fullspan.core.errors import CheckpointError
from fullspan.estimators.onnx_export import export_onnx

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    """Rows with missing values, and a number to predict."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 5)).astype(np.float32)
    y = X[:, 0] + np.abs(X[:, 1]) + 0.1 * rng.normal(size=400)
    X[rng.random(X.shape) < 0.05] = np.nan
    return X, y


def run(estimator: Any, X: np.ndarray, path: Path) -> list[np.ndarray]:
    export_onnx(estimator, path)
    outputs: list[np.ndarray] = onnxruntime.InferenceSession(path).run(None, {"X": X})
    return outputs


REGRESSORS: dict[str, Any] = {
    "tree": lambda: estimators.DecisionTreeRegressor(random_state=0),
    "forest": lambda: estimators.RandomForestRegressor(10, random_state=0),
    "xgb": lambda: estimators.XGBRegressor(n_estimators=10),
    "xgb poisson": lambda: estimators.XGBRegressor(n_estimators=10, objective="count:poisson"),
    "xgb dart": lambda: estimators.XGBRegressor(n_estimators=10, booster="dart", rate_drop=0.3),
}
CLASSIFIERS: dict[str, Any] = {
    "tree": lambda: estimators.DecisionTreeClassifier(random_state=0),
    "forest": lambda: estimators.RandomForestClassifier(10, random_state=0),
    "xgb": lambda: estimators.XGBClassifier(n_estimators=10),
}


@pytest.mark.parametrize("make", REGRESSORS.values(), ids=REGRESSORS.keys())
def test_regressors(make: Any, data: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    X, y = data
    estimator = make().fit(X, np.abs(y))
    (prediction,) = run(estimator, X, tmp_path / "m.onnx")
    # onnxruntime adds up the trees in another order.
    np.testing.assert_allclose(prediction[:, 0], estimator.predict(X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("make", CLASSIFIERS.values(), ids=CLASSIFIERS.keys())
def test_classifiers(make: Any, n_classes: int, data: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    X, y = data
    numbers = np.digitize(y, np.quantile(y, np.arange(1, n_classes) / n_classes))
    estimator = make().fit(X, numbers)
    labels, probabilities = run(estimator, X, tmp_path / "m.onnx")
    np.testing.assert_allclose(probabilities, estimator.predict_proba(X), atol=1e-6)
    np.testing.assert_array_equal(labels, probabilities.argmax(axis=1))


def test_names_of_classes(data: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    X, y = data
    names = np.where(y > 0.5, "groß", "klein")
    estimator = estimators.DecisionTreeClassifier(max_depth=3, random_state=0).fit(X, names)
    labels, _ = run(estimator, X, tmp_path / "m.onnx")
    np.testing.assert_array_equal(labels, estimator.predict(X))


def test_what_onnx_cannot_express_is_refused(data: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    X, y = data
    several = estimators.DecisionTreeRegressor(max_depth=2).fit(X, np.column_stack([y, -y]))
    with pytest.raises(CheckpointError, match="several columns"):
        export_onnx(several, tmp_path / "m.onnx")
    ada = estimators.AdaBoostClassifier(n_estimators=2).fit(np.nan_to_num(X), y > 0)
    with pytest.raises(CheckpointError, match="a AdaBoostClassifier cannot be written as ONNX"):
        export_onnx(ada, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []
