"""Trees of several outputs at once against XGBoost's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xgboost

from fullspan.estimators import XGBClassifier, XGBRegressor

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 6)).astype(np.float32)
Y = np.column_stack([X[:, 0] + X[:, 1] ** 2, X[:, 0] * X[:, 2], -X[:, 3]]) + 0.1 * RNG.normal(size=(300, 3))
GAPS = np.where(RNG.random(X.shape) < 0.1, np.float32(np.nan), X)
MULTI: dict[str, Any] = {"multi_strategy": "multi_output_tree", "n_jobs": 1}


@pytest.mark.parametrize(
    "own",
    [{}, {"grow_policy": "lossguide", "max_leaves": 9, "max_depth": 0}, {"gamma": 5.0, "reg_alpha": 1.0}],
    ids=lambda own: "-".join(own) or "plain",
)
def test_trees_are_xgboosts_where_the_bins_are(own: dict[str, Any]) -> None:
    rows = np.where(np.isnan(GAPS), GAPS, GAPS > 0)  # two values and none: the same bins whatever the sketch
    parameters = MULTI | {"n_estimators": 6, "max_depth": 3} | own
    ours = XGBRegressor(**parameters).fit(rows, Y)
    peer = xgboost.XGBRegressor(**parameters).fit(rows, Y)
    np.testing.assert_allclose(ours.predict(rows), peer.predict(rows), atol=1e-5)


def test_as_good_as_xgboost_and_one_shape_for_all_outputs() -> None:
    parameters = MULTI | {"n_estimators": 15, "max_depth": 4}
    ours = XGBRegressor(**parameters).fit(GAPS[:200], Y[:200])
    peer = xgboost.XGBRegressor(**parameters).fit(GAPS[:200], Y[:200])
    found, wanted = (np.mean((m.predict(GAPS[200:]) - Y[200:]) ** 2) for m in (ours, peer))
    assert found < 1.1 * wanted
    model = ours.get_booster().model
    assert ours.get_booster().num_boosted_rounds() == 15
    first = [model.trees(k, k + 1) for k in range(3)]
    for other in first[1:]:
        assert np.array_equal(other.threshold, first[0].threshold)
        assert not np.array_equal(other.value, first[0].value)
    np.testing.assert_allclose(
        ours.shap_values(GAPS).sum(axis=-1), ours.predict(GAPS, output_margin=True), atol=1e-4
    )


@pytest.mark.parametrize(
    "own",
    [
        {"subsample": 0.6, "colsample_bynode": 0.6, "feature_weights": np.arange(6.0)},
        {"booster": "dart", "rate_drop": 0.3},
        {"num_parallel_tree": 2, "subsample": 0.7},
        {"interaction_constraints": [[0, 1], [2, 3, 4, 5]]},
        {"subsample": 0.5, "sampling_method": "gradient_based"},
    ],
    ids=lambda own: "-".join(own),
)
def test_other_settings_go_with_it(own: dict[str, Any]) -> None:
    model = XGBRegressor(**MULTI, n_estimators=12, max_depth=3, **own)
    model.fit(X, Y, eval_set=[(X, Y)], verbose=False)
    curve = model.evals_result()["validation_0"]["rmse"]
    assert curve[-1] < 0.75 * Y.std()
    assert curve[-1] == pytest.approx(np.sqrt(np.mean((model.predict(X) - Y) ** 2)), rel=1e-5)


def test_classes_and_quantiles() -> None:
    y = np.digitize(Y[:, 0], [0.0, 1.0])
    model = XGBClassifier(**MULTI, n_estimators=10).fit(X, y)
    assert model.score(X, y) > 0.95
    bounds = XGBRegressor(
        **MULTI, n_estimators=20, objective="reg:quantileerror", quantile_alpha=[0.1, 0.9], learning_rate=0.5
    ).fit(X, Y[:, 0])
    low, high = bounds.predict(X).T
    assert 0.6 < np.mean((low <= Y[:, 0]) & (Y[:, 0] <= high)) <= 1
    assert np.mean(low <= high) > 0.9
    with pytest.raises(ValueError, match="categories"):
        XGBRegressor(**MULTI, feature_types=["c"] * 6, enable_categorical=True).fit(np.floor(np.abs(X)), Y)
