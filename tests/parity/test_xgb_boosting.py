"""Boosting against XGBoost: quality, categories, constraints, metrics, early stopping, dart, copies."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.base import clone
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.tree import DecisionTreeRegressor

from fullspan.estimators import XGBClassifier, XGBRanker, XGBRegressor, load

RNG = np.random.default_rng(1)
N = 600
X = RNG.normal(size=(N, 5)).astype(np.float32)
X[RNG.random(X.shape) < 0.1] = np.nan
FULL = np.nan_to_num(X)
SIGNAL = 1.5 * FULL[:, 0] + FULL[:, 1] ** 2 + FULL[:, 2] * FULL[:, 3] + RNG.normal(size=N) * 0.3
CLASS = (SIGNAL > 0.8).astype(int)
TRAIN, TEST = slice(0, 400), slice(400, N)


@pytest.mark.parametrize(
    "parameters",
    [
        {"tree_method": "hist"},
        {"tree_method": "approx"},
        {"tree_method": "exact"},
        {"grow_policy": "lossguide", "max_leaves": 12, "max_depth": 0},
        {"subsample": 0.6, "colsample_bytree": 0.8, "colsample_bylevel": 0.8},
        {"subsample": 0.4, "sampling_method": "gradient_based"},
        {"tree_method": "exact", "subsample": 0.6, "colsample_bynode": 0.6},
        {"booster": "dart", "rate_drop": 0.2, "skip_drop": 0.3},
        {"booster": "dart", "one_drop": True, "sample_type": "weighted", "normalize_type": "forest"},
        {"num_parallel_tree": 3, "subsample": 0.6, "learning_rate": 0.5},
    ],
    ids=lambda p: "-".join(f"{k}={v}" for k, v in p.items()),
)
def test_as_good_as_xgboost(parameters: dict[str, Any]) -> None:
    losses: dict[type, list[float]] = {XGBClassifier: [], xgboost.XGBClassifier: []}
    for seed in range(4):
        # On one small set, bins alone change the loss by a tenth either way.
        rng = np.random.default_rng(seed)
        rows = rng.normal(size=(2000, 5))
        margin = 1.5 * rows[:, 0] + rows[:, 1] ** 2 + rows[:, 2] * rows[:, 3] + rng.normal(size=2000) * 0.3
        y = (margin > 0.8).astype(int)
        for kind, found in losses.items():
            given = {"n_estimators": 12, "max_depth": 4, "random_state": seed, "n_jobs": 1} | parameters
            if kind is not XGBClassifier:
                given.pop("sampling_method", None)  # XGBoost has it on GPUs
                if given.get("tree_method") == "exact":
                    given.pop("colsample_bynode", None)
            model = kind(**given).fit(rows[:1000], y[:1000])
            found.append(log_loss(y[1000:], model.predict_proba(rows[1000:])))
    ours, theirs = (np.mean(found) for found in losses.values())
    assert ours < 1.1 * theirs


def _frame() -> tuple[pd.DataFrame, np.ndarray]:
    letters = RNG.choice(list("abcdefghij"), N)
    effect = {letter: np.sin(5 * i) for i, letter in enumerate("abcdefghij")}
    frame = pd.DataFrame(
        {
            "x": FULL[:, 0],
            "letter": pd.Categorical(letters),
            "number": pd.Categorical(RNG.choice([5, 7, 9], N)),
            "flag": RNG.random(N) < 0.5,
        }
    )
    frame.loc[::17, "letter"] = np.nan
    y = np.array([effect.get(v, 0.0) for v in frame.letter]) + 0.3 * frame.x + 0.5 * (frame.number == 9)
    return frame, y.to_numpy()


@pytest.mark.parametrize("method", ["hist", "approx"])
@pytest.mark.parametrize("one_hot", [1, 100])
def test_categories(method: str, one_hot: int) -> None:
    frame, y = _frame()
    parameters = {
        "n_estimators": 20, "max_depth": 4, "enable_categorical": True, "tree_method": method,
        "max_cat_to_onehot": one_hot, "n_jobs": 2,
    }  # fmt: skip
    ours = XGBRegressor(**parameters).fit(frame[TRAIN], y[TRAIN])
    peer = xgboost.XGBRegressor(**parameters).fit(frame[TRAIN], y[TRAIN])
    found, wanted = (np.mean((m.predict(frame[TEST]) - y[TEST]) ** 2) for m in (ours, peer))
    assert found < 1.3 * wanted + 1e-3
    assert len(ours.get_booster().model.categories)
    # The order of the categories at prediction does not matter: they are known by value.
    turned = frame[TEST].assign(letter=frame[TEST].letter.cat.set_categories(list("jihgfedcba")))
    assert np.array_equal(ours.predict(turned), ours.predict(frame[TEST]))


def test_codes_as_categories_by_feature_types() -> None:
    frame, y = _frame()
    codes = np.column_stack([frame.x, frame.letter.cat.codes.replace(-1, np.nan)]).astype(np.float32)
    by_type = XGBRegressor(n_estimators=10, feature_types=["q", "c"], enable_categorical=True).fit(codes, y)
    by_frame = XGBRegressor(n_estimators=10, enable_categorical=True).fit(frame[["x", "letter"]], y)
    assert np.array_equal(by_type.predict(codes), by_frame.predict(frame[["x", "letter"]]))
    # A code that training has not seen is no error: it goes with the categories that are not listed.
    assert np.isfinite(by_type.predict([[0.0, 77.0], [0.0, -1.0], [0.0, np.nan]])).all()


@pytest.mark.parametrize("method", ["exact", "hist", "approx"])
@pytest.mark.parametrize("policy", ["depthwise", "lossguide"])
def test_monotone_constraints_hold(method: str, policy: str) -> None:
    if method == "exact" and policy == "lossguide":
        with pytest.raises(ValueError, match="grow_policy"):
            XGBRegressor(tree_method=method, grow_policy=policy).fit(X, SIGNAL)
        return
    signs = {"up": 1, "down": -1}
    frame = pd.DataFrame(FULL[:, :3], columns=["up", "down", "free"])
    y = np.sin(4 * FULL[:, 0]) + FULL[:, 0] - np.sin(4 * FULL[:, 1]) - FULL[:, 1] + FULL[:, 2]
    for constraints in (signs, (1, -1, 0), "(1,-1)"):
        model = XGBRegressor(
            n_estimators=30,
            tree_method=method,
            grow_policy=policy,
            monotone_constraints=constraints,
            max_depth=5,
        ).fit(frame, y)
        for feature, sign in ((0, 1), (1, -1)):
            grid = np.repeat(FULL[:10, :3], 50, axis=0)
            grid[:, feature] = np.tile(np.linspace(-3, 3, 50), 10)
            curves = model.predict(pd.DataFrame(grid, columns=frame.columns)).reshape(10, 50)
            assert (sign * np.diff(curves, axis=1) >= 0).all()


@pytest.mark.parametrize("method", ["exact", "hist"])
def test_interaction_constraints_hold(method: str) -> None:
    y = FULL[:, 0] * FULL[:, 1] + FULL[:, 2] * FULL[:, 3]
    model = XGBRegressor(
        n_estimators=15, tree_method=method, interaction_constraints=[[0, 1], [2, 3, 4]], max_depth=4
    ).fit(FULL, y)
    interactions = model.shap_interaction_values(FULL[:50])
    assert np.abs(interactions[:, :2, 2:5]).max() < 1e-6
    assert np.abs(interactions[:, 0, 1]).max() > 0.05


def test_early_stopping_predicts_at_the_best_round() -> None:
    parameters = {"n_estimators": 200, "learning_rate": 0.5, "max_depth": 4, "early_stopping_rounds": 5}
    sets = [(X[TRAIN], CLASS[TRAIN]), (X[TEST], CLASS[TEST])]
    model = XGBClassifier(**parameters, eval_metric=["auc", "logloss"]).fit(
        X[TRAIN], CLASS[TRAIN], eval_set=sets, verbose=False
    )
    curve = model.evals_result()["validation_1"]["logloss"]
    assert set(model.evals_result()) == {"validation_0", "validation_1"}
    assert model.best_iteration == int(np.argmin(curve))
    assert model.best_score == min(curve)
    assert len(curve) == model.best_iteration + 6 < 200
    best = (0, model.best_iteration + 1)
    assert np.array_equal(model.predict_proba(X), model.predict_proba(X, iteration_range=best))
    assert not np.array_equal(model.predict_proba(X), model.predict_proba(X, iteration_range=(0, len(curve))))
    assert curve[model.best_iteration] == pytest.approx(
        log_loss(CLASS[TEST], model.predict_proba(X[TEST])), rel=1e-4
    )
    rising = XGBClassifier(**parameters, eval_metric="auc").fit(
        X[TRAIN], CLASS[TRAIN], eval_set=sets, verbose=False
    )
    assert rising.best_score == max(rising.evals_result()["validation_1"]["auc"])
    with pytest.raises(AttributeError, match="best_iteration"):
        _ = XGBClassifier(n_estimators=2).fit(X, CLASS).best_iteration


METRICS: dict[str, tuple[str, Any]] = {
    "rmse": ("reg:squarederror", SIGNAL),
    "mae": ("reg:squarederror", SIGNAL),
    "mape": ("reg:squarederror", SIGNAL),
    "mphe": ("reg:pseudohubererror", SIGNAL),
    "rmsle": ("reg:squaredlogerror", np.exp(SIGNAL / 4)),
    "gamma-deviance": ("reg:gamma", np.exp(SIGNAL / 4)),
    "gamma-nloglik": ("reg:gamma", np.exp(SIGNAL / 4)),
    "poisson-nloglik": ("count:poisson", np.floor(np.exp(np.clip(SIGNAL, -3, 3) / 2))),
    "tweedie-nloglik@1.5": ("reg:tweedie", np.exp(SIGNAL / 4)),
    "quantile": ("reg:quantileerror", SIGNAL),
    "logloss": ("binary:logistic", CLASS),
    "error": ("binary:logistic", CLASS),
    "error@0.3": ("binary:logistic", CLASS),
    "auc": ("binary:logistic", CLASS),
    "aucpr": ("binary:logistic", CLASS),
    "auc of classes": ("multi:softprob", np.digitize(SIGNAL, [0, 1])),
    "aucpr of classes": ("multi:softprob", np.digitize(SIGNAL, [0, 1])),
    "mlogloss": ("multi:softprob", np.digitize(SIGNAL, [0, 1])),
    "merror": ("multi:softprob", np.digitize(SIGNAL, [0, 1])),
}


@pytest.mark.parametrize("metric", METRICS)
def test_metrics_are_xgboosts(metric: str) -> None:
    objective, y = METRICS[metric]
    metric = metric.partition(" ")[0]
    weight = np.random.default_rng(2).uniform(0.5, 2, N)
    parameters: dict[str, Any] = {
        "n_estimators": 3, "max_depth": 2, "tree_method": "exact", "n_jobs": 1, "objective": objective,
        "eval_metric": metric, "base_score": 0.5,
    }  # fmt: skip
    if objective.startswith("multi"):
        del parameters["base_score"]
    if metric == "quantile":
        parameters["quantile_alpha"] = [0.2, 0.6]
    kinds = (XGBRegressor, xgboost.XGBRegressor)
    if objective.startswith(("binary", "multi")):
        kinds = (XGBClassifier, xgboost.XGBClassifier)
    found = []
    for kind in kinds:
        model = kind(**parameters).fit(
            X, y, eval_set=[(X, y)], sample_weight_eval_set=[weight], verbose=False
        )
        found.append(model.evals_result()["validation_0"][metric])
    if metric == "quantile":
        # XGBoost's exact trees keep Newton's leaves: only the first value is the same model's.
        return
    np.testing.assert_allclose(*found, rtol=2e-5)


@pytest.mark.parametrize("metric", ["ndcg", "ndcg@3", "ndcg@3-", "map", "map@4", "pre@3", "auc", "aucpr"])
def test_ranking_metrics_are_xgboosts(metric: str) -> None:
    y = (SIGNAL > 1.5).astype(int)
    query = np.repeat(np.arange(N // 10), 10)
    found = []
    for kind in (XGBRanker, xgboost.XGBRanker):
        model = kind(n_estimators=3, max_depth=2, tree_method="exact", n_jobs=1, eval_metric=metric).fit(
            X, y, qid=query, eval_set=[(X, y)], eval_qid=[query]
        )
        found.append(model.evals_result()["validation_0"][metric])
    np.testing.assert_allclose(*found, rtol=1e-6)


def test_any_regressor_may_be_the_weak_learner() -> None:
    weak = DecisionTreeRegressor(max_depth=3)
    model = XGBClassifier(n_estimators=20, weak_learner=weak).fit(FULL[TRAIN], CLASS[TRAIN])
    assert roc_auc_score(CLASS[TEST], model.predict_proba(FULL[TEST])[:, 1]) > 0.85
    assert not hasattr(weak, "tree_")
    again = XGBClassifier(n_estimators=20, weak_learner=weak).fit(FULL[TRAIN], CLASS[TRAIN])
    assert np.array_equal(again.predict_proba(FULL), model.predict_proba(FULL))
    with pytest.raises(ValueError, match="apply needs trees"):
        model.apply(FULL)


@pytest.mark.parametrize("method", ["exact", "hist", "approx"])
def test_threads_do_not_change_the_model(method: str) -> None:
    parameters = {"n_estimators": 4, "tree_method": method, "subsample": 0.7, "colsample_bynode": 0.7}
    one, two = (XGBRegressor(**parameters, n_jobs=n).fit(X, SIGNAL).predict(X) for n in (1, 2))
    assert np.array_equal(one, two)


def test_dart_weights_drop_and_predictions_agree() -> None:
    model = XGBRegressor(booster="dart", rate_drop=0.3, n_estimators=20, max_depth=3)
    model.fit(X, SIGNAL, eval_set=[(X, SIGNAL)], verbose=False)
    weights = model.get_booster().model.tree_weight
    assert (weights < 1).any()
    rmse = model.evals_result()["validation_0"]["rmse"][-1]
    assert rmse == pytest.approx(np.sqrt(np.mean((model.predict(X) - SIGNAL) ** 2)), rel=1e-5)
    assert rmse < 0.6 * SIGNAL.std()


def test_early_stopping_of_dart_gives_the_trees_their_weights_of_then() -> None:
    model = XGBRegressor(
        booster="dart", rate_drop=0.4, n_estimators=60, learning_rate=0.6, early_stopping_rounds=4
    ).fit(X[TRAIN], SIGNAL[TRAIN], eval_set=[(X[TEST], SIGNAL[TEST])], verbose=False)
    assert len(model.evals_result()["validation_0"]["rmse"]) == model.best_iteration + 5
    rmse = np.sqrt(np.mean((model.predict(X[TEST]) - SIGNAL[TEST]) ** 2))
    assert rmse == pytest.approx(model.best_score, rel=1e-5)


def test_copies_predict_the_same(tmp_path: Any) -> None:
    frame, y = _frame()
    model = XGBRegressor(n_estimators=5, enable_categorical=True, eval_metric="mae")
    model.fit(frame, y, eval_set=[(frame, y)], verbose=False)
    wanted = model.predict(frame)
    model.save(tmp_path / "model")
    for copied in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model), load(tmp_path / "model")):
        assert np.array_equal(copied.predict(frame), wanted)
        assert copied.evals_result() == model.evals_result()
    assert clone(model).enable_categorical


def test_callbacks_see_each_round_and_may_stop() -> None:
    class StopAfterThree:
        seen: list[int] = []  # noqa: RUF012
        ended = False

        def after_iteration(self, model: Any, epoch: int, evals_log: dict[str, Any]) -> bool:
            self.seen.append(epoch)
            assert len(evals_log["validation_0"]["rmse"]) == epoch + 1
            return epoch == 2

        def after_training(self, model: Any) -> None:
            self.ended = True

    callback = StopAfterThree()
    model = XGBRegressor(n_estimators=20, callbacks=[callback])
    model.fit(X, SIGNAL, eval_set=[(X, SIGNAL)], verbose=False)
    assert callback.seen == [0, 1, 2]
    assert callback.ended
    assert model.get_booster().model.n_trees == 3


def test_progress_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    XGBRegressor(n_estimators=4).fit(X, SIGNAL, eval_set=[(X, SIGNAL)], verbose=2)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["[0]", "[2]", "[3]"]  # the last round too
    assert lines[0].split("\t")[1].startswith("validation_0-rmse:")


def test_one_class_and_constant_columns() -> None:
    alone = XGBClassifier(n_estimators=3).fit(X, np.full(N, "only"))
    assert (alone.predict(X) == "only").all()
    assert np.array_equal(alone.predict_proba(X), np.ones((N, 1), dtype=np.float32))
    same = np.zeros((N, 2), dtype=np.float32)
    model = XGBRegressor(n_estimators=3).fit(same, SIGNAL)
    np.testing.assert_allclose(model.predict(same), SIGNAL.mean(), rtol=1e-4)
    assert (model.feature_importances_ == 0).all()
    empty = np.full((N, 2), np.nan, dtype=np.float32)
    for method in ("exact", "hist", "approx"):
        missing = XGBRegressor(n_estimators=3, tree_method=method).fit(empty, SIGNAL)
        np.testing.assert_allclose(missing.predict(empty), SIGNAL.mean(), rtol=1e-4)


def test_a_fit_on_a_models_margins_goes_on_where_it_stopped() -> None:
    """Few rows: gradients are not rounded at random, so that equal splits stay equal."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, 5))
    y = X[:, 0] + rng.normal(size=100)
    whole = XGBRegressor(n_estimators=8, base_score=0.5).fit(X, y)
    first = XGBRegressor(n_estimators=4, base_score=0.5).fit(X, y)
    margin = first.predict(X, output_margin=True)
    rest = XGBRegressor(n_estimators=4, base_score=0.5).fit(X, y, base_margin=margin)
    np.testing.assert_allclose(rest.predict(X, base_margin=margin), whole.predict(X), rtol=1e-5)
