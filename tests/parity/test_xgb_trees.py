"""Boosting against XGBoost: exact trees split for split, objectives, base scores, ranking, linear models."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import xgboost

from fullspan.estimators import XGBClassifier, XGBRanker, XGBRegressor
from fullspan.estimators.boosting.ensemble import TreeEnsemble

RNG = np.random.default_rng(0)
N = 300
X = RNG.normal(size=(N, 5)).astype(np.float32)
X[:, 3] = np.round(X[:, 3])
SIGNAL = 1.5 * X[:, 0] + X[:, 1] ** 2 + X[:, 2] * X[:, 3] + RNG.normal(size=N) * 0.3
WEIGHT = RNG.uniform(0.5, 2, N).astype(np.float32)
GAPS = np.where(RNG.random(X.shape) < 0.2, np.float32(np.nan), X)
COMMON: dict[str, Any] = {"n_estimators": 6, "max_depth": 4, "tree_method": "exact", "n_jobs": 1}


def _peer_tree(tree: dict[str, Any], node: int = 0) -> Any:
    left = tree["left_children"][node]
    if left == -1:
        return np.float32(tree["split_conditions"][node])
    return (
        tree["split_indices"][node],
        np.float32(tree["split_conditions"][node]),
        bool(tree["default_left"][node]),
        _peer_tree(tree, left),
        _peer_tree(tree, tree["right_children"][node]),
    )


def _our_tree(e: TreeEnsemble, root: int, node: int = 0) -> Any:
    i = root + node
    if e.left[i] == -1:
        return e.value[i]
    return (
        int(e.feature[i]),
        e.threshold[i],
        bool(e.default_left[i]),
        _our_tree(e, root, e.left[i]),
        _our_tree(e, root, e.right[i]),
    )


def _peer_trees(model: xgboost.XGBModel) -> list[Any]:
    raw = json.loads(bytes(model.get_booster().save_raw("json")))
    return [_peer_tree(t) for t in raw["learner"]["gradient_booster"]["model"]["trees"]]


@pytest.mark.parametrize("rows", [X, GAPS], ids=["whole", "gaps"])
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"gamma": 3.0},
        {"reg_alpha": 2.0, "reg_lambda": 0.5},
        {"max_delta_step": 0.2},
        {"min_child_weight": 20},
        {"min_child_weight": 0, "reg_lambda": 0},
        {"monotone_constraints": (1, -1, 0, 0, 1)},
        {"interaction_constraints": "[[0, 1], [1, 2, 3]]"},
    ],
    ids=lambda parameters: "-".join(parameters) or "plain",
)
def test_exact_trees_are_xgboosts_bit_for_bit(parameters: dict[str, Any], rows: np.ndarray) -> None:
    ours = XGBRegressor(**COMMON, **parameters).fit(rows, SIGNAL)
    peer = xgboost.XGBRegressor(**COMMON, **parameters).fit(rows, SIGNAL)
    ensemble = ours.get_booster().model
    found = [_our_tree(ensemble, int(start)) for start in ensemble.tree_start[:-1]]
    assert found == _peer_trees(peer)
    assert np.array_equal(ours.predict(rows), peer.predict(rows))
    # Values that training has not seen, and none at all.
    fresh = np.vstack([RNG.normal(size=(50, 5)) * 2, np.full((1, 5), np.nan)])
    assert np.array_equal(ours.predict(fresh), peer.predict(fresh))


OBJECTIVES = {
    "reg:squarederror": SIGNAL,
    "reg:pseudohubererror": SIGNAL,
    "reg:squaredlogerror": np.exp(SIGNAL / 3),
    "reg:logistic": 1 / (1 + np.exp(-SIGNAL)),
    "reg:gamma": np.exp(SIGNAL / 4),
    "reg:tweedie": np.exp(SIGNAL / 4) * (SIGNAL > 0),
    "count:poisson": np.floor(np.exp(np.clip(SIGNAL, -3, 3) / 2)),
    "survival:cox": np.sign(SIGNAL + 2) * np.exp(np.abs(SIGNAL) / 4),
}


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_regression_objectives(objective: str, weighted: bool) -> None:
    parameters = COMMON | {"objective": objective, "max_depth": 3}
    weight = WEIGHT if weighted else None
    y = OBJECTIVES[objective]
    ours = XGBRegressor(**parameters).fit(GAPS, y, sample_weight=weight)
    peer = xgboost.XGBRegressor(**parameters).fit(GAPS, y, sample_weight=weight)
    np.testing.assert_allclose(
        ours.predict(GAPS, output_margin=True), peer.predict(GAPS, output_margin=True), atol=2e-5
    )
    np.testing.assert_allclose(ours.intercept_, peer.intercept_, rtol=2e-6)


@pytest.mark.parametrize("scale", [None, 2.5])
@pytest.mark.parametrize("objective", ["binary:logistic", "binary:hinge", "binary:logitraw"])
def test_binary_objectives(objective: str, scale: float | None) -> None:
    if objective == "binary:hinge" and scale is not None:
        pytest.skip("XGBoost has no scale_pos_weight for the hinge loss")
    parameters = COMMON | {"objective": objective, "max_depth": 3, "scale_pos_weight": scale}
    y = (SIGNAL > 1).astype(int)
    ours = XGBClassifier(**parameters).fit(GAPS, y, sample_weight=WEIGHT)
    peer = xgboost.XGBClassifier(**parameters).fit(GAPS, y, sample_weight=WEIGHT)
    np.testing.assert_allclose(
        ours.predict(GAPS, output_margin=True), peer.predict(GAPS, output_margin=True), atol=1e-5
    )


@pytest.mark.parametrize("objective", ["multi:softprob", "multi:softmax"])
def test_classes(objective: str) -> None:
    parameters = COMMON | {"objective": objective, "max_depth": 3, "num_parallel_tree": 2}
    y = np.digitize(SIGNAL, [0.0, 2.0])
    ours = XGBClassifier(**parameters).fit(GAPS, y, sample_weight=WEIGHT)
    peer = xgboost.XGBClassifier(**parameters).fit(GAPS, y, sample_weight=WEIGHT)
    np.testing.assert_allclose(ours.predict_proba(GAPS), peer.predict_proba(GAPS), atol=1e-6)
    assert np.array_equal(ours.predict(GAPS), peer.predict(GAPS))
    assert ours.n_classes_ == 3


@pytest.mark.parametrize("objective", ["rank:ndcg", "rank:pairwise", "rank:map"])
def test_ranking(objective: str) -> None:
    y = np.digitize(SIGNAL, [0.0, 1.0, 2.0])
    if objective == "rank:map":
        y = (y > 1).astype(int)
    query = np.repeat(np.arange(N // 20), 20)
    weight = np.random.default_rng(3).uniform(0.5, 2, N // 20)
    parameters = COMMON | {"objective": objective, "max_depth": 3}
    ours = XGBRanker(**parameters).fit(GAPS, y, qid=query, sample_weight=weight)
    peer = xgboost.XGBRanker(**parameters).fit(GAPS, y, qid=query, sample_weight=weight)
    np.testing.assert_allclose(ours.predict(GAPS), peer.predict(GAPS), atol=1e-5)
    by_size = XGBRanker(**parameters).fit(GAPS, y, group=[20] * (N // 20), sample_weight=weight)
    assert np.array_equal(by_size.predict(GAPS), ours.predict(GAPS))


@pytest.mark.parametrize(
    "own",
    [
        {"lambdarank_pair_method": "mean"},
        {"lambdarank_pair_method": "mean", "lambdarank_num_pair_per_sample": 3, "objective": "rank:pairwise"},
        {"lambdarank_unbiased": True},
        {"lambdarank_unbiased": True, "lambdarank_bias_norm": 0.5, "lambdarank_pair_method": "mean"},
    ],
    ids=lambda own: "-".join(own),
)
def test_pairs_at_random_and_biases_of_positions_are_xgboosts(own: dict[str, Any]) -> None:
    y = np.digitize(SIGNAL, [0.0, 1.0, 2.0])
    query = np.repeat(np.arange(N // 20), 20)
    parameters = COMMON | {"max_depth": 3} | own
    ours = XGBRanker(**parameters).fit(X, y, qid=query)
    peer = xgboost.XGBRanker(**parameters).fit(X, y, qid=query)
    np.testing.assert_allclose(ours.predict(X), peer.predict(X), atol=1e-6)


def test_several_outputs() -> None:
    y = np.column_stack([SIGNAL, -(SIGNAL**2)])
    ours = XGBRegressor(**COMMON).fit(GAPS, y)
    peer = xgboost.XGBRegressor(**COMMON).fit(GAPS, y)
    np.testing.assert_allclose(ours.predict(GAPS), peer.predict(GAPS), rtol=1e-5, atol=1e-6)
    assert ours.intercept_.shape == (2,)
    labels = (y > np.median(y, axis=0)).astype(int)
    ours_labels = XGBClassifier(**COMMON).fit(GAPS, labels)
    peer_labels = xgboost.XGBClassifier(**COMMON).fit(GAPS, labels)
    np.testing.assert_allclose(ours_labels.predict_proba(GAPS), peer_labels.predict_proba(GAPS), atol=1e-6)
    assert np.array_equal(ours_labels.predict(GAPS), peer_labels.predict(GAPS))


@pytest.mark.parametrize("objective", ["reg:absoluteerror", "reg:quantileerror"])
def test_leaves_take_quantiles_of_residuals(objective: str) -> None:
    # Two values: the trees are the same whatever the bins.
    rows = (X > 0).astype(np.float32)
    parameters: dict[str, Any] = {"n_estimators": 5, "max_depth": 3, "objective": objective, "n_jobs": 1}
    if objective == "reg:quantileerror":
        parameters["quantile_alpha"] = [0.25, 0.75]
    for weight in (None, WEIGHT):
        ours = XGBRegressor(**parameters).fit(rows, SIGNAL, sample_weight=weight)
        peer = xgboost.XGBRegressor(**parameters).fit(rows, SIGNAL, sample_weight=weight)
        np.testing.assert_allclose(ours.intercept_, peer.intercept_, rtol=1e-6)
        if objective == "reg:absoluteerror" and weight is None:
            np.testing.assert_allclose(ours.predict(rows), peer.predict(rows), atol=1e-5)
        difference = ours.predict(rows) - SIGNAL.reshape(-1, *[1] * (ours.predict(rows).ndim - 1))
        theirs = peer.predict(rows) - SIGNAL.reshape(-1, *[1] * (ours.predict(rows).ndim - 1))
        assert np.abs(difference).mean() < 1.02 * np.abs(theirs).mean()


def test_linear_models_are_xgboosts() -> None:
    parameters = {
        "booster": "gblinear",
        "n_estimators": 10,
        "n_jobs": 1,
        "reg_lambda": 0.01,
        "reg_alpha": 0.002,
    }
    ours = XGBRegressor(**parameters).fit(GAPS, SIGNAL, sample_weight=WEIGHT)
    peer = xgboost.XGBRegressor(**parameters).fit(GAPS, SIGNAL, sample_weight=WEIGHT)
    np.testing.assert_allclose(ours.coef_, peer.coef_, atol=1e-5)
    np.testing.assert_allclose(ours.predict(GAPS), peer.predict(GAPS), atol=1e-5)
    np.testing.assert_allclose(ours.feature_importances_, peer.feature_importances_, rtol=1e-4)


def test_a_custom_objective() -> None:
    def squared(y: np.ndarray, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return raw - y, np.ones_like(raw)

    ours = XGBRegressor(**COMMON | {"objective": squared}).fit(GAPS, SIGNAL)
    peer = xgboost.XGBRegressor(**COMMON | {"objective": squared}).fit(GAPS, SIGNAL)
    np.testing.assert_allclose(ours.predict(GAPS), peer.predict(GAPS), atol=1e-5)
    weighted = XGBRegressor(**COMMON | {"objective": squared}).fit(GAPS, SIGNAL, sample_weight=WEIGHT)
    plain = XGBRegressor(**COMMON | {"base_score": 0.5}).fit(GAPS, SIGNAL, sample_weight=WEIGHT)
    np.testing.assert_allclose(weighted.predict(GAPS), plain.predict(GAPS), atol=1e-5)


@pytest.mark.parametrize("distribution", ["normal", "logistic", "extreme"])
def test_survival_times_between_bounds(distribution: str) -> None:
    low = np.exp(SIGNAL / 3).astype(np.float32)
    high = low.copy()
    high[::3] = np.inf
    high[1::5] = low[1::5] + 1
    own = {"aft_loss_distribution": distribution, "aft_loss_distribution_scale": 1.3}
    ours = XGBRegressor(**COMMON, objective="survival:aft", **own).fit(GAPS, np.column_stack([low, high]))
    data = xgboost.DMatrix(GAPS, label_lower_bound=low, label_upper_bound=high)
    options = {"objective": "survival:aft", "tree_method": "exact", "max_depth": 4, "nthread": 1, **own}
    peer = xgboost.train(options, data, 6)
    np.testing.assert_allclose(ours.predict(GAPS), peer.predict(data), rtol=1e-4)


def test_missing_may_be_a_number_and_absence_in_sparse_matrices() -> None:
    marked = np.where(np.isnan(GAPS), np.float32(-999), GAPS)
    ours = XGBRegressor(**COMMON).fit(GAPS, SIGNAL)
    by_number = XGBRegressor(**COMMON, missing=-999.0).fit(marked, SIGNAL)
    assert np.array_equal(ours.predict(GAPS), by_number.predict(marked))
    assert (marked == -999).any()
    held = sp.csr_matrix(np.where(np.isnan(GAPS), 0, GAPS))
    sparse = XGBRegressor(**COMMON).fit(held, SIGNAL)
    peer = xgboost.XGBRegressor(**COMMON).fit(held, SIGNAL)
    assert np.array_equal(sparse.predict(held), peer.predict(held))
    zeros = XGBRegressor(**COMMON, missing=0.0).fit(held.toarray(), SIGNAL)
    assert np.array_equal(zeros.predict(held.toarray()), sparse.predict(held))


def test_base_margins_take_the_place_of_the_base_score() -> None:
    start = (SIGNAL + 1).astype(np.float32)
    ours = XGBRegressor(**COMMON).fit(GAPS, SIGNAL, base_margin=start)
    peer = xgboost.XGBRegressor(**COMMON).fit(GAPS, SIGNAL, base_margin=start)
    np.testing.assert_allclose(
        ours.predict(GAPS, base_margin=start), peer.predict(GAPS, base_margin=start), atol=1e-5
    )


def test_training_goes_on_from_a_model(tmp_path: Any) -> None:
    whole = XGBRegressor(**COMMON).fit(GAPS, SIGNAL)
    half = XGBRegressor(**COMMON | {"n_estimators": 3}).fit(GAPS, SIGNAL)
    half.save_model(tmp_path / "half.ubj")
    path = tmp_path / "half.ubj"
    for start in (half, half.get_booster(), half.get_booster().copy(), path, str(path)):
        rest = XGBRegressor(**COMMON | {"n_estimators": 3}).fit(GAPS, SIGNAL, xgb_model=start)
        np.testing.assert_allclose(rest.predict(GAPS), whole.predict(GAPS), atol=1e-6)
        assert rest.get_booster().model.n_trees == 6
    assert half.get_booster().model.n_trees == 3
