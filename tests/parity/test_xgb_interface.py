"""Boosting under XGBoost's scikit-learn interface: the Booster, callbacks, other names, forests, tables."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xgboost
from sklearn.metrics import log_loss, mean_absolute_error, roc_auc_score
from sklearn.model_selection import GridSearchCV

from fullspan.estimators import (
    Booster,
    XGBClassifier,
    XGBModel,
    XGBRanker,
    XGBRegressor,
    XGBRFClassifier,
    XGBRFRegressor,
    load,
)
from fullspan.estimators.boosting.callback import (
    EarlyStopping,
    EvaluationMonitor,
    LearningRateScheduler,
    TrainingCallback,
    TrainingCheckPoint,
)

RNG = np.random.default_rng(5)
N = 120
X = RNG.normal(size=(N, 4)).astype(np.float32)
SIGNAL = X[:, 0] * 1.5 + X[:, 1] ** 2 + RNG.normal(size=N) * 0.3
CLASS = (SIGNAL > 0.8).astype(int)
FRAME = pd.DataFrame(
    {
        "small": X[:, 0] * 1e-7,
        "large": X[:, 1] * 1e9,
        "kind": pd.Categorical(RNG.choice(list("uvw"), N)),
        "whole": RNG.integers(0, 9, N),
        "flag": X[:, 2] > 0,
    }
)
EXACT: dict[str, Any] = {"n_estimators": 6, "max_depth": 3, "tree_method": "exact", "n_jobs": 1}


def _both(parameters: dict[str, Any], rows: Any, path: Path) -> tuple[xgboost.Booster, Booster]:
    """XGBoost's model, and ours read from its file."""
    peer = xgboost.XGBRegressor(n_jobs=1, **parameters).fit(rows, SIGNAL)
    peer.save_model(path / "model.ubj")
    return peer.get_booster(), Booster(model_file=path / "model.ubj")


def test_dumps_scores_and_tables_are_xgboosts(tmp_path: Path) -> None:
    peer, ours = _both({"n_estimators": 3, "max_depth": 4, "enable_categorical": True}, FRAME, tmp_path)
    for form, stats in (("text", False), ("text", True), ("json", False), ("json", True), ("dot", True)):
        assert ours.get_dump(dump_format=form, with_stats=stats) == peer.get_dump(
            dump_format=form, with_stats=stats
        )
    assert json.loads(ours.get_dump(dump_format="json")[0])["nodeid"] == 0
    for kind in ("weight", "gain", "cover", "total_gain", "total_cover"):
        found, wanted = ours.get_score(importance_type=kind), peer.get_score(importance_type=kind)
        assert found.keys() == wanted.keys()
        np.testing.assert_allclose(list(found.values()), list(wanted.values()), rtol=1e-6)
    assert (ours.feature_names, ours.feature_types) == (peer.feature_names, peer.feature_types)
    np.testing.assert_allclose(
        ours.get_split_value_histogram("small", as_pandas=False),
        peer.get_split_value_histogram("small", as_pandas=False),
        rtol=1e-6,
    )
    # XGBoost cannot make a table of splits by yes and no.
    peer, ours = _both(
        {"n_estimators": 2, "max_depth": 4, "enable_categorical": True}, FRAME.drop(columns="flag"), tmp_path
    )
    pd.testing.assert_frame_equal(ours.trees_to_dataframe(), peer.trees_to_dataframe())
    ours.dump_model(tmp_path / "ours.txt", with_stats=True)
    peer.dump_model(tmp_path / "theirs.txt", with_stats=True)
    assert (tmp_path / "ours.txt").read_text() == (tmp_path / "theirs.txt").read_text()
    (tmp_path / "map").write_text("0 a q\n1 b q\n2 c c\n3 d int\n")
    assert ours.get_dump(tmp_path / "map") == peer.get_dump(str(tmp_path / "map"))


def test_dumps_of_linear_models_are_xgboosts(tmp_path: Path) -> None:
    peer, ours = _both({"n_estimators": 3, "booster": "gblinear"}, X, tmp_path)
    for form in ("text", "json"):
        assert ours.get_dump(dump_format=form) == peer.get_dump(dump_format=form)
    assert ours.get_score() == peer.get_score()
    contributions = ours.predict(X, pred_interactions=True)
    np.testing.assert_allclose(contributions.sum(axis=(1, 2)), ours.predict(X), rtol=1e-4, atol=1e-5)


def test_predictions_of_a_booster() -> None:
    model = XGBClassifier(**EXACT).fit(X, np.digitize(SIGNAL, [0, 1]))
    booster, peer_rows = model.get_booster(), xgboost.DMatrix(X)
    assert np.array_equal(booster.predict(X), model.predict_proba(X))
    # What XGBoost's users hand over is understood.
    assert np.array_equal(booster.predict(peer_rows), model.predict_proba(X))
    assert np.array_equal(booster.predict(X, output_margin=True), model.predict(X, output_margin=True))
    assert np.array_equal(booster.predict(X, pred_contribs=True), model.shap_values(X))
    assert np.array_equal(booster.predict(X, pred_interactions=True), model.shap_interaction_values(X))
    assert np.array_equal(booster.predict(X, pred_leaf=True), model.apply(X))
    assert booster.predict(X, pred_leaf=True, strict_shape=True).shape == (N, 6, 3, 1)
    marked = np.where(X > 2, np.float32(-1e9), X)
    gaps = np.where(X > 2, np.nan, X)
    assert np.array_equal(booster.inplace_predict(marked, missing=-1e9), booster.predict(gaps))
    with pytest.raises(ValueError, match="Feature shape mismatch, expected: 4, got 3"):
        booster.predict(X[:, :3])
    named = XGBRegressor(**EXACT).fit(FRAME[["small", "large"]], SIGNAL).get_booster()
    with pytest.raises(ValueError, match="feature_names mismatch"):
        named.predict(FRAME[["large", "small"]])
    assert len(named.predict(FRAME[["large", "small"]], validate_features=False)) == N
    assert named.predict(X[:, :2], strict_shape=True).shape == (N, 1)


def test_slices_and_copies_of_a_booster(tmp_path: Path) -> None:
    model = XGBRegressor(**EXACT).fit(X, SIGNAL)
    booster = model.get_booster()
    assert booster.num_boosted_rounds() == len(list(booster)) == 6
    assert booster.num_features() == 4
    assert np.array_equal(booster[:2].predict(X), model.predict(X, iteration_range=(0, 2)))
    parts = booster[0:6:2].predict(X) + booster[1:6:2].predict(X)
    np.testing.assert_allclose(parts - model.intercept_, model.predict(X), atol=1e-5)
    assert booster[3].num_boosted_rounds() == 1
    assert booster[...].num_boosted_rounds() == booster[4:...][:2].num_boosted_rounds() + 4 == 6
    with pytest.raises(ValueError, match="base_margin has 2 columns, the model has 1"):
        booster.predict(X, base_margin=np.zeros((N, 2)))
    for wrong, error in ((slice(3, 1), ValueError), (slice(0, 7), IndexError), ((1, 2), ValueError)):
        with pytest.raises(error):
            booster[wrong]
    booster.set_attr(note="kept", gone="x")
    booster.set_attr(gone=None)
    assert booster.attributes() == {"note": "kept"}
    booster.save(tmp_path / "saved")
    raw = bytes(booster.save_raw("json"))
    for copied in (
        booster.copy(),
        pickle.loads(pickle.dumps(booster)),
        load(tmp_path / "saved"),
        Booster(model_file=raw),
        Booster(model_file=bytes(booster.save_raw())),
    ):
        assert np.array_equal(copied.predict(X), booster.predict(X))
        assert copied.attr("note") == "kept"
    # XGBoost reads it, too.
    assert np.array_equal(xgboost.Booster(model_file=bytearray(raw)).predict(xgboost.DMatrix(X)),
                          booster.predict(X))  # fmt: skip


def test_configurations_say_what_was_set() -> None:
    model = XGBRegressor(n_estimators=2, nthread=1, monotone_constraints=(1, 0, 0, -1)).fit(X, SIGNAL)
    config = json.loads(model.get_booster().save_config())["learner"]
    assert config["generic_param"]["nthread"] == "1"
    assert config["learner_model_param"]["num_feature"] == "4"
    assert float(config["gradient_booster"]["tree_train_param"]["eta"]) == pytest.approx(0.3)
    assert json.loads(config["learner_model_param"]["base_score"]) == pytest.approx(model.intercept_)
    model.set_params(nthread=2, learning_rate=0.1)
    config = json.loads(model.get_booster().save_config())["learner"]
    assert config["generic_param"]["nthread"] == "2"
    assert config["gradient_booster"]["tree_train_param"]["learning_rate"] == "0.100000001"


def test_parameters_under_other_names() -> None:
    plain = XGBRegressor(**EXACT, learning_rate=0.1, reg_lambda=3.0).fit(X, SIGNAL)
    other = XGBRegressor(**EXACT, eta=0.1, **{"lambda": 3.0}).fit(X, SIGNAL)
    assert np.array_equal(plain.predict(X), other.predict(X))
    assert other.get_params()["eta"] == 0.1
    search = GridSearchCV(XGBRegressor(**EXACT), {"eta": [0.01, 0.3]}, cv=2).fit(X, SIGNAL)
    assert len(set(search.cv_results_["mean_test_score"])) == 2
    assert search.best_params_ == {"eta": 0.3}
    with pytest.warns(UserWarning, match='"foo" } are not used'):
        XGBRegressor(n_estimators=1, foo=3).fit(X, SIGNAL)
    with pytest.raises(ValueError, match="updater"):
        XGBRegressor(updater="grow_fast").fit(X, SIGNAL)
    by_updater = XGBRegressor(n_estimators=6, max_depth=3, updater="grow_colmaker").fit(X, SIGNAL)
    assert np.array_equal(by_updater.predict(X), XGBRegressor(**EXACT).fit(X, SIGNAL).predict(X))
    assert isinstance(
        XGBRegressor(random_state=np.random.RandomState(3)).get_xgb_params()["random_state"], int
    )
    assert "n_estimators" not in XGBRegressor().get_xgb_params()
    with pytest.warns(FutureWarning, match="sample_weight"):
        XGBRegressor(n_estimators=1).fit(X, SIGNAL, np.ones(N))


def test_any_objective_without_a_kind_of_estimator() -> None:
    classes = np.digitize(SIGNAL, [0, 1])
    model = XGBModel(**EXACT, objective="multi:softprob", num_class=3).fit(X, classes)
    assert np.array_equal(model.predict(X), XGBClassifier(**EXACT).fit(X, classes).predict_proba(X))


def test_early_stopping_by_a_callback(tmp_path: Path) -> None:
    train, test = slice(0, 80), slice(80, N)
    sets = [(X[test], SIGNAL[test]), (X[train], SIGNAL[train])]
    stop = EarlyStopping(3, metric_name="rmse", data_name="validation_0", save_best=True)
    model = XGBRegressor(
        n_estimators=80, learning_rate=0.8, eval_metric=["rmse", "mae"], callbacks=[stop]
    ).fit(X[train], SIGNAL[train], eval_set=sets, verbose=False)
    curve = model.evals_result()["validation_0"]["rmse"]
    best = int(np.argmin(curve))
    assert model.best_iteration == best == len(curve) - 4
    assert model.get_booster().num_boosted_rounds() == best + 1
    assert stop.stopping_history["validation_0"]["rmse"] == curve
    # Rounds are counted from the beginning of the model that it goes on from.
    more = XGBRegressor(n_estimators=30, learning_rate=0.8, early_stopping_rounds=2).fit(
        X[train], SIGNAL[train], eval_set=sets[:1], verbose=False, xgb_model=model
    )
    assert more.best_iteration >= best + 1
    assert more.get_booster().num_boosted_rounds() == best + 1 + len(
        more.evals_result()["validation_0"]["rmse"]
    )
    stuck = EarlyStopping(2, min_delta=100.0)
    few = XGBRegressor(n_estimators=30, callbacks=[stuck])
    few.fit(X, SIGNAL, eval_set=[(X, SIGNAL)], verbose=False)
    assert few.best_iteration == 0
    assert few.get_booster().num_boosted_rounds() == 3
    upwards = EarlyStopping(1, maximize=True)
    XGBRegressor(n_estimators=30, callbacks=[upwards]).fit(X, SIGNAL, eval_set=[(X, SIGNAL)], verbose=False)
    assert len(upwards.stopping_history["validation_0"]["rmse"]) == 2
    for wrong in ({"data_name": "nowhere"}, {"metric_name": "none"}):
        with pytest.raises(ValueError, match="named: no"):
            XGBRegressor(n_estimators=3, callbacks=[EarlyStopping(2, **wrong)]).fit(
                X, SIGNAL, eval_set=[(X, SIGNAL)], verbose=False
            )
    with pytest.raises(ValueError, match="min_delta"):
        EarlyStopping(2, min_delta=-1.0)
    with pytest.raises(ValueError, match="slicing needs trees"):
        XGBRegressor(n_estimators=5, booster="gblinear", callbacks=[EarlyStopping(1, save_best=True)]).fit(
            X, SIGNAL, eval_set=[(X, SIGNAL)], verbose=False
        )


def test_xgboosts_own_callbacks_do_their_work() -> None:
    stop = xgboost.callback.EarlyStopping(rounds=2)
    train, test = slice(0, 80), slice(80, N)
    model = XGBRegressor(n_estimators=60, learning_rate=0.9, callbacks=[stop])
    model.fit(X[train], SIGNAL[train], eval_set=[(X[test], SIGNAL[test])], verbose=False)
    assert model.get_booster().num_boosted_rounds() == model.best_iteration + 3


@pytest.mark.parametrize("method", ["exact", "hist", "approx", "gblinear", "dart"])
def test_the_learning_rate_can_change(method: str) -> None:
    own = {"booster": method} if method in ("gblinear", "dart") else {"tree_method": method, "max_depth": 2}
    rates = [0.5, 0.25, 0.1, 0.1]
    scheduled = XGBRegressor(
        n_estimators=4, learning_rate=1.0, callbacks=[LearningRateScheduler(rates)], **own
    )
    scheduled.fit(X, SIGNAL)
    stopped = XGBRegressor(n_estimators=1, learning_rate=1.0, **own).fit(X, SIGNAL)
    for rate in (0.5, 0.25, 0.1):
        stopped = XGBRegressor(n_estimators=1, learning_rate=rate, **own).fit(X, SIGNAL, xgb_model=stopped)
    np.testing.assert_allclose(scheduled.predict(X), stopped.predict(X), atol=0.02)
    if method in ("exact", "dart"):
        by_peer = xgboost.XGBRegressor(
            n_estimators=4, learning_rate=1.0, n_jobs=1, tree_method="exact", max_depth=3,
            callbacks=[xgboost.callback.LearningRateScheduler(rates)],
        ).fit(X, SIGNAL)  # fmt: skip
        ours = XGBRegressor(
            n_estimators=4, learning_rate=1.0, tree_method="exact", max_depth=3,
            callbacks=[LearningRateScheduler(lambda epoch: rates[epoch])],
        ).fit(X, SIGNAL)  # fmt: skip
        np.testing.assert_allclose(ours.predict(X), by_peer.predict(X), atol=1e-5)
    with pytest.raises(TypeError, match="learning_rates"):
        LearningRateScheduler(0.1)  # type: ignore[arg-type]


def test_other_callbacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []

    class Refuse(TrainingCallback):
        def before_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            return epoch == 3

    callbacks = [
        EvaluationMonitor(period=2, logger=lines.append), TrainingCheckPoint(tmp_path, interval=1), Refuse()
    ]  # fmt: skip
    model = XGBRegressor(n_estimators=6, callbacks=callbacks)
    model.fit(X, SIGNAL, eval_set=[(X, SIGNAL)], verbose=False)
    assert model.get_booster().num_boosted_rounds() == 3
    assert [line.split("\t")[0] for line in lines] == ["[0]", "[2]"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model_1.ubj", "model_2.ubj"]
    assert Booster(model_file=tmp_path / "model_1.ubj").num_boosted_rounds() == 2
    assert not capsys.readouterr().out


def test_metrics_of_ones_own() -> None:
    model = XGBRegressor(**EXACT, eval_metric=["mae", mean_absolute_error])
    model.fit(X, SIGNAL, eval_set=[(X, SIGNAL)], verbose=False)
    log = model.evals_result()["validation_0"]
    np.testing.assert_allclose(log["mae"], log["mean_absolute_error"], rtol=1e-6)
    weight = RNG.uniform(0.5, 2, N)
    weighed = XGBClassifier(**EXACT, eval_metric=["logloss", log_loss])
    weighed.fit(X, CLASS, eval_set=[(X, CLASS)], sample_weight_eval_set=[weight], verbose=False)
    log = weighed.evals_result()["validation_0"]
    np.testing.assert_allclose(log["logloss"], log["log_loss"], rtol=1e-5)

    def squared(y: np.ndarray, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return raw - y, np.ones_like(raw)

    seen: list[float] = []

    def largest(y: np.ndarray, raw: np.ndarray) -> float:
        seen.append(float(raw.max()))
        return 0.0

    # Beside an objective of one's own, metrics are given raw scores.
    XGBClassifier(n_estimators=4, learning_rate=1.5, objective=squared, eval_metric=largest).fit(
        X, CLASS * 3 // 3, eval_set=[(X, CLASS)], verbose=False
    )
    assert max(seen) > 1
    query = np.repeat(np.arange(N // 10), 10)
    degrees = CLASS.copy()
    degrees[::10], degrees[1::10] = 0, 1
    ranker = XGBRanker(**EXACT, eval_metric=roc_auc_score).fit(
        X, degrees, qid=query, eval_set=[(X, degrees)], eval_qid=[query]
    )
    assert ranker.evals_result()["validation_0"]["roc_auc_score"][-1] > 0.6
    with pytest.raises(NotImplementedError, match="multiple custom metrics"):
        XGBRegressor(eval_metric=[mean_absolute_error, log_loss]).fit(X, SIGNAL)
    with pytest.raises(TypeError, match="Invalid type for the `eval_metric`"):
        XGBRegressor(eval_metric=["mae", 123]).fit(X, SIGNAL)


def test_random_forests_in_one_round() -> None:
    forest = XGBRFRegressor(n_estimators=8, max_depth=4).fit(X, SIGNAL)
    assert forest.get_booster().num_boosted_rounds() == 1
    assert len(forest.get_booster().get_dump()) == 8
    assert forest.score(X, SIGNAL) > 0.6
    assert forest.get_params()["colsample_bynode"] == 0.8
    assert forest.get_xgb_params()["num_parallel_tree"] == 8
    classifier = XGBRFClassifier(n_estimators=8, max_depth=4).fit(X, np.digitize(SIGNAL, [0, 1]))
    assert len(classifier.get_booster().get_dump()) == 24
    assert classifier.score(X, np.digitize(SIGNAL, [0, 1])) > 0.6
    for own in ({"early_stopping_rounds": 2}, {"callbacks": []}):
        with pytest.raises(NotImplementedError, match="random forest"):
            XGBRFRegressor(**own).fit(X, SIGNAL)


@pytest.mark.parametrize("method", ["exact", "hist", "approx"])
def test_features_with_more_weight_are_used_more(method: str) -> None:
    rows = np.random.default_rng(1).normal(size=(200, 20))
    y = rows.sum(axis=1)
    weights = np.arange(20.0)
    model = XGBRegressor(
        n_estimators=30, max_depth=4, tree_method=method, colsample_bynode=0.3, feature_weights=weights
    ).fit(rows, y)
    used = model.get_booster().model.importances("weight")
    assert used[0] == 0
    assert np.polyfit(weights, used, 1)[0] > 0.3
    with pytest.raises(ValueError, match="feature_weights has shape"):
        XGBRegressor(feature_weights=np.ones(3)).fit(rows, y)
    with pytest.raises(ValueError, match="feature_weights must be finite"):
        XGBRegressor(feature_weights=-weights).fit(rows, y)


def test_arrow_tables_stand_for_frames() -> None:
    model = XGBRegressor(n_estimators=4, enable_categorical=True, max_cat_to_onehot=1).fit(FRAME, SIGNAL)
    table = pa.Table.from_pandas(FRAME, preserve_index=False)
    assert np.array_equal(model.predict(table), model.predict(FRAME))
    other = XGBRegressor(n_estimators=4, enable_categorical=True, max_cat_to_onehot=1).fit(table, SIGNAL)
    assert np.array_equal(other.predict(FRAME), model.predict(FRAME))
    assert other.get_booster().feature_types == model.get_booster().feature_types
    # Words are known by value, whatever their codes, and as plain strings too.
    turned = table.set_column(2, "kind", pa.array(FRAME.kind.astype(str).tolist()))
    assert np.array_equal(model.predict(turned), model.predict(FRAME))
    with pytest.raises(ValueError, match=r"'kind'.*'new'"):
        model.predict(table.set_column(2, "kind", pa.array(["new"] * N).dictionary_encode()))
    with pytest.raises(ValueError, match="feature_names mismatch"):
        model.predict(FRAME[FRAME.columns[::-1]])
    column = XGBRegressor(n_estimators=2).fit(FRAME["whole"], SIGNAL)
    assert column.n_features_in_ == 1
    assert np.array_equal(column.predict(FRAME["whole"]), column.predict(FRAME[["whole"]]))


def test_going_on_with_a_model_keeps_what_its_codes_stand_for() -> None:
    parameters = {"n_estimators": 3, "enable_categorical": True, "max_cat_to_onehot": 1, "n_jobs": 1}
    first = XGBRegressor(**parameters).fit(FRAME, SIGNAL)
    turned = FRAME.assign(kind=FRAME.kind.cat.reorder_categories(list("wvu")))
    more = XGBRegressor(**parameters).fit(turned, SIGNAL, xgb_model=first)
    wanted = XGBRegressor(**parameters).fit(FRAME, SIGNAL, xgb_model=first)
    assert np.array_equal(more.predict(FRAME), wanted.predict(FRAME))


def test_files_keep_the_kind_of_estimator_and_the_classes(tmp_path: Path) -> None:
    names = np.where(CLASS == 1, "high", "low")
    XGBClassifier(n_estimators=3).fit(X, names).save_model(tmp_path / "model.json")
    again = XGBClassifier().load_model(tmp_path / "model.json")
    assert again.classes_.tolist() == ["high", "low"]
    assert (again.predict(X) == names).mean() > 0.9
    with pytest.raises(TypeError, match="Expecting: regressor, got: classifier"):
        XGBRegressor().load_model(tmp_path / "model.json")
    peer = xgboost.XGBClassifier()
    peer.load_model(tmp_path / "model.json")
    np.testing.assert_allclose(peer.predict_proba(X), again.predict_proba(X), atol=1e-6)


def test_unbiased_models_are_read_by_xgboost(tmp_path: Path) -> None:
    query = np.repeat(np.arange(N // 10), 10)
    model = XGBRanker(**EXACT, lambdarank_unbiased=True).fit(X, CLASS, qid=query)
    for extension in ("json", "ubj"):
        model.save_model(tmp_path / f"model.{extension}")
        peer = xgboost.XGBRanker()
        peer.load_model(tmp_path / f"model.{extension}")
        assert np.array_equal(peer.predict(X), model.predict(X))


def test_queries_in_a_column_of_the_frame() -> None:
    query = np.repeat(np.arange(N // 10), 10)
    frame = pd.DataFrame(X, columns=list("abcd"))
    plain = XGBRanker(**EXACT).fit(frame, CLASS, qid=query, eval_set=[(frame, CLASS)], eval_qid=[query])
    packed = frame.assign(qid=query)
    model = XGBRanker(**EXACT).fit(packed, CLASS, eval_set=[(packed, CLASS)])
    assert np.array_equal(model.predict(packed), plain.predict(frame))
    assert np.array_equal(model.apply(packed), plain.apply(frame))
    # The score is the metric that is watched.
    assert model.score(packed, CLASS) == plain.score(frame, CLASS, qid=query)
    assert model.score(packed, CLASS) == pytest.approx(plain.evals_result()["validation_0"]["ndcg@32"][-1])
    with pytest.raises(ValueError, match="remove one of them"):
        XGBRanker().fit(packed, CLASS, qid=query)
    with pytest.raises(ValueError, match="Either `group` or `qid`"):
        XGBRanker().fit(packed, CLASS, eval_set=[(frame, CLASS)])
