"""Model files of XGBoost and LightGBM, and SHAP values, against the originals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost

from fullspan.core.errors import CheckpointError
from fullspan.estimators import XGBClassifier, XGBRanker, XGBRegressor
from fullspan.estimators.boosting import lightgbm_format, ubjson
from fullspan.estimators.boosting.ensemble import TreeEnsemble
from fullspan.estimators.boosting.shap import shap_interactions, shap_values

RNG = np.random.default_rng(0)
N = 150
X = RNG.normal(size=(N, 4)).astype(np.float32)
X[RNG.random(X.shape) < 0.1] = np.nan
FULL = np.nan_to_num(X)
SIGNAL = FULL[:, 0] * 1.5 + FULL[:, 1] ** 2 + RNG.normal(size=N) * 0.3
CLASSES = np.digitize(SIGNAL, [0, 2])
FRAME = pd.DataFrame(
    {
        "a": X[:, 0],
        "letter": pd.Categorical(RNG.choice(list("uvwxyz"), N)),
        "number": pd.Categorical(RNG.choice([10, 20, 30], N)),
        "b": X[:, 1],
    }
)
COUNTS = np.floor(np.exp(np.clip(SIGNAL, -2, 3) / 2))
CATEGORICAL = {"enable_categorical": True, "n_estimators": 5}

# A fitted model of XGBoost's, by name: class, parameters, rows, targets.
PEERS: dict[str, tuple[Any, dict[str, Any], Any, Any]] = {
    "squared": (xgboost.XGBRegressor, {"n_estimators": 5}, X, SIGNAL),
    "outputs": (xgboost.XGBRegressor, {"n_estimators": 3}, X, np.column_stack([SIGNAL, -SIGNAL])),
    "vectors": (
        xgboost.XGBRegressor,
        {"n_estimators": 3, "multi_strategy": "multi_output_tree"},
        X,
        np.column_stack([SIGNAL, -SIGNAL]),
    ),
    "binary": (xgboost.XGBClassifier, {"n_estimators": 4}, X, SIGNAL > 0),
    "classes": (xgboost.XGBClassifier, {"n_estimators": 3, "num_parallel_tree": 2}, X, CLASSES),
    "dart": (xgboost.XGBRegressor, {"booster": "dart", "rate_drop": 0.5, "n_estimators": 8}, X, SIGNAL),
    "linear": (xgboost.XGBClassifier, {"booster": "gblinear", "n_estimators": 5}, X, CLASSES),
    "partition": (xgboost.XGBRegressor, CATEGORICAL | {"max_cat_to_onehot": 2}, FRAME, SIGNAL),
    "onehot": (xgboost.XGBRegressor, CATEGORICAL | {"max_cat_to_onehot": 9}, FRAME, SIGNAL),
    "pruned": (xgboost.XGBRegressor, {"tree_method": "exact", "gamma": 3.0, "n_estimators": 3}, X, SIGNAL),
    **{
        name: (xgboost.XGBRegressor, {"objective": name, "n_estimators": 3} | extra, X, y)
        for name, extra, y in (
            ("reg:quantileerror", {"quantile_alpha": [0.1, 0.5]}, SIGNAL),
            ("reg:absoluteerror", {}, SIGNAL),
            ("reg:pseudohubererror", {"huber_slope": 2.0}, SIGNAL),
            ("reg:squaredlogerror", {}, np.exp(SIGNAL / 3)),
            ("reg:logistic", {}, 1 / (1 + np.exp(-SIGNAL))),
            ("reg:gamma", {}, np.exp(SIGNAL / 3)),
            ("reg:tweedie", {"tweedie_variance_power": 1.3}, COUNTS),
            ("count:poisson", {}, COUNTS),
            ("survival:cox", {}, np.exp(SIGNAL / 3)),
        )
    },
}


def _ours(peer: Any) -> Any:
    return {"XGBRegressor": XGBRegressor, "XGBClassifier": XGBClassifier, "XGBRanker": XGBRanker}[
        type(peer).__name__
    ](enable_categorical=True)


@pytest.mark.parametrize("extension", ["json", "ubj"])
@pytest.mark.parametrize("name", PEERS)
def test_xgboost_files_predict_the_same_both_ways(name: str, extension: str, tmp_path: Path) -> None:
    kind, parameters, rows, y = PEERS[name]
    peer = kind(n_jobs=1, **parameters).fit(rows, y)
    peer.save_model(tmp_path / f"theirs.{extension}")
    ours = _ours(peer).load_model(tmp_path / f"theirs.{extension}")
    wanted = peer.predict(rows, output_margin=True)
    found = ours.predict(rows, output_margin=True)
    if name == "dart":
        # XGBoost adds and takes away the base score where it predicts from arrays, but not from a DMatrix.
        wanted = peer.get_booster().predict(xgboost.DMatrix(rows), output_margin=True)
    assert np.array_equal(found, wanted)
    np.testing.assert_allclose(ours.predict(rows), peer.predict(rows), rtol=1e-6, atol=1e-6)
    if isinstance(peer, xgboost.XGBClassifier):
        np.testing.assert_allclose(ours.predict_proba(rows), peer.predict_proba(rows), rtol=2e-6)

    ours.save_model(tmp_path / f"ours.{extension}")
    back = kind(enable_categorical=True, n_jobs=1)
    back.load_model(tmp_path / f"ours.{extension}")
    assert np.array_equal(back.predict(rows, output_margin=True), peer.predict(rows, output_margin=True))
    again = _ours(peer).load_model(tmp_path / f"ours.{extension}")
    assert np.array_equal(again.predict(rows, output_margin=True), found)


def test_our_models_are_read_by_xgboost(tmp_path: Path) -> None:
    query = np.repeat(np.arange(15), 10)
    models = [
        XGBRegressor(n_estimators=4).fit(X, SIGNAL),
        XGBRegressor(n_estimators=6, booster="dart", rate_drop=0.5).fit(X, SIGNAL),
        XGBClassifier(n_estimators=4).fit(X, CLASSES),
        XGBRegressor(n_estimators=4, enable_categorical=True, max_cat_to_onehot=1).fit(FRAME, SIGNAL),
        XGBRanker(n_estimators=4).fit(X, CLASSES, qid=query),
    ]
    for number, ours in enumerate(models):
        rows = FRAME if number == 3 else X
        for extension in ("json", "ubj"):
            path = tmp_path / f"{number}.{extension}"
            ours.save_model(path)
            peer = getattr(xgboost, type(ours).__name__)(enable_categorical=True)
            peer.load_model(path)
            np.testing.assert_allclose(
                peer.predict(rows, output_margin=True), ours.predict(rows, output_margin=True), atol=1e-6
            )


def test_early_stopping_is_kept_in_files(tmp_path: Path) -> None:
    ours = XGBRegressor(n_estimators=50, learning_rate=0.8, early_stopping_rounds=2)
    ours.fit(X[:100], SIGNAL[:100], eval_set=[(X[100:], SIGNAL[100:])], verbose=False)
    ours.save_model(tmp_path / "model.json")
    peer = xgboost.XGBRegressor()
    peer.load_model(tmp_path / "model.json")
    assert peer.best_iteration == ours.best_iteration
    assert np.array_equal(peer.predict(X), ours.predict(X))
    again = XGBRegressor().load_model(tmp_path / "model.json")
    assert (again.best_iteration, again.best_score) == (ours.best_iteration, ours.best_score)


@pytest.mark.parametrize("name", ["squared", "classes", "dart", "partition", "pruned", "linear"])
def test_shap_values_and_importances_are_xgboosts(name: str, tmp_path: Path) -> None:
    kind, parameters, rows, y = PEERS[name]
    peer = kind(n_jobs=1, **parameters).fit(rows, y)
    peer.save_model(tmp_path / "model.ubj")
    ours = _ours(peer).load_model(tmp_path / "model.ubj")
    booster, data = peer.get_booster(), xgboost.DMatrix(rows, enable_categorical=True)
    values = ours.shap_values(rows)
    np.testing.assert_allclose(values, booster.predict(data, pred_contribs=True), atol=2e-6)
    np.testing.assert_allclose(values.sum(axis=-1), ours.predict(rows, output_margin=True), atol=2e-6)
    if name == "linear":
        return
    quick = ours.get_booster().predict(rows, pred_contribs=True, approx_contribs=True)
    wanted = booster.predict(data, pred_contribs=True, approx_contribs=True)
    np.testing.assert_allclose(quick, wanted, atol=2e-6)
    pairs = ours.shap_interaction_values(rows)
    np.testing.assert_allclose(pairs, booster.predict(data, pred_interactions=True), atol=2e-6)
    np.testing.assert_allclose(pairs.sum(axis=-1), values, atol=2e-6)
    assert np.array_equal(ours.apply(rows), peer.apply(rows))
    for importance in ("gain", "weight", "cover", "total_gain", "total_cover"):
        peer.importance_type = importance
        ours.importance_type = importance
        np.testing.assert_allclose(ours.feature_importances_, peer.feature_importances_, rtol=1e-5)


def test_shap_values_by_the_definition() -> None:
    """Against the sum over all orders in which features become known."""
    from itertools import permutations

    model = XGBRegressor(n_estimators=2, max_depth=4).fit(X[:, :3], SIGNAL)
    ensemble = model.get_booster().model

    def expected(x: np.ndarray, known: set[int], node: int, root: int) -> float:
        i = root + node
        if ensemble.left[i] < 0:
            return float(ensemble.value[i])
        feature = int(ensemble.feature[i])
        sides = [int(ensemble.left[i]), int(ensemble.right[i])]
        if feature in known:
            goes = ensemble.default_left[i] if np.isnan(x[feature]) else x[feature] < ensemble.threshold[i]
            return expected(x, known, sides[0 if goes else 1], root)
        share = [ensemble.cover[root + side] / ensemble.cover[i] for side in sides]
        return sum(s * expected(x, known, side, root) for s, side in zip(share, sides, strict=True))

    for x in X[:5, :3]:
        wanted = np.zeros(3)
        for order in permutations(range(3)):
            known: set[int] = set()
            for feature in order:
                before = sum(expected(x, known, 0, int(r)) for r in ensemble.tree_start[:-1])
                known.add(feature)
                after = sum(expected(x, known, 0, int(r)) for r in ensemble.tree_start[:-1])
                wanted[feature] += (after - before) / 6
        np.testing.assert_allclose(shap_values(ensemble, x[None])[0, 0, :3], wanted, atol=1e-5)


def test_shap_of_a_tree_without_splits() -> None:
    lone = TreeEnsemble(
        2, 1, base_score=[1.0], tree_start=[0, 1], tree_group=[0], tree_weight=[0.5], left=[-1], right=[-1],
        feature=[0], threshold=[0.0], default_left=[False], value=[3.0], gain=[0.0], cover=[7.0],
    )  # fmt: skip
    assert shap_values(lone, np.zeros((1, 2), np.float32)).tolist() == [[[0.0, 0.0, 2.5]]]
    assert (
        shap_interactions(lone, np.zeros((1, 2), np.float32))[0, 0].tolist() == np.diag([0, 0, 2.5]).tolist()
    )


LIGHTGBM: dict[str, tuple[dict[str, Any], Any]] = {
    "regression": ({}, SIGNAL),
    "categories": ({"max_cat_to_onehot": 1, "categorical_feature": [2]}, SIGNAL),
    "binary": ({"objective": "binary", "sigmoid": 1.7}, SIGNAL > 1),
    "multiclass": ({"objective": "multiclass", "num_class": 3, "categorical_feature": [2]}, CLASSES),
    "multiclassova": ({"objective": "multiclassova", "num_class": 3}, CLASSES),
    "poisson": ({"objective": "poisson"}, COUNTS),
    "cross_entropy": ({"objective": "cross_entropy"}, 1 / (1 + np.exp(-SIGNAL))),
    "zero_as_missing": ({"zero_as_missing": True}, SIGNAL),
    "use_missing": ({"use_missing": False}, SIGNAL),
    "forest": ({"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.7}, SIGNAL),
    "dart": ({"boosting": "dart"}, SIGNAL),
    "square root": ({"reg_sqrt": True}, SIGNAL),
    "no splits": ({"min_data_in_leaf": 149}, SIGNAL),
}


@pytest.mark.parametrize("name", LIGHTGBM)
def test_lightgbm_files_predict_the_same_both_ways(name: str, tmp_path: Path) -> None:
    parameters, y = LIGHTGBM[name]
    rows = X.copy()
    rows[:, 2] = np.random.default_rng(5).integers(0, 40, N)
    rows[:50, 3] = 0
    options = {
        "verbose": -1, "min_data_in_leaf": 5, "num_leaves": 9, "min_data_per_group": 5, "cat_smooth": 1,
        "num_threads": 2,
    }  # fmt: skip
    options |= parameters
    categorical = options.pop("categorical_feature", "auto")
    data = lightgbm.Dataset(rows.astype(float), y, categorical_feature=categorical)
    peer = lightgbm.train(options, data, 6)
    peer.save_model(tmp_path / "theirs.txt")
    ours = lightgbm_format.read(tmp_path / "theirs.txt")
    fresh = rows.copy()
    if categorical != "auto":
        fresh[:20, 2], fresh[20:30, 2], fresh[30:40, 2] = 99, -1, np.nan
    fresh[40:50] = 0
    wanted = peer.predict(fresh.astype(float))
    assert np.array_equal(ours.predict(fresh).astype(np.float32), wanted.astype(np.float32))
    if name != "forest":  # LightGBM's contributions to a forest add up to the sum of its trees, not the mean.
        contributions = peer.predict(fresh.astype(float), pred_contrib=True).reshape(N, -1, 5)
        np.testing.assert_allclose(ours.shap_values(fresh), contributions, atol=1e-5)
    lightgbm_format.write(tmp_path / "ours.txt", ours)
    back = lightgbm.Booster(model_file=tmp_path / "ours.txt")
    assert np.array_equal(back.predict(fresh.astype(float)), wanted)


def test_our_trees_are_read_by_lightgbm(tmp_path: Path) -> None:
    model = XGBClassifier(n_estimators=4).fit(X, CLASSES)
    path = tmp_path / "model.txt"
    trees = model.get_booster().model
    lightgbm_format.write(path, lightgbm_format.LightGBMModel(trees, "multiclass num_class:3"))
    peer = lightgbm.Booster(model_file=path)
    np.testing.assert_allclose(peer.predict(X.astype(float)), model.predict_proba(X), atol=1e-6)


def test_a_lightgbm_model_can_be_saved(tmp_path: Path) -> None:
    from fullspan.estimators import load

    peer = lightgbm.train({"verbose": -1, "num_leaves": 5}, lightgbm.Dataset(X.astype(float), SIGNAL), 3)
    peer.save_model(tmp_path / "model.txt")
    model = lightgbm_format.read(tmp_path / "model.txt")
    model.save(tmp_path / "saved")
    assert np.array_equal(load(tmp_path / "saved").predict(X), model.predict(X))


def _xgboost_document() -> dict[str, Any]:
    peer = xgboost.XGBRegressor(n_estimators=1, max_depth=2).fit(X, SIGNAL)
    return json.loads(bytes(peer.get_booster().save_raw("json")))  # type: ignore[no-any-return]


def _at(document: dict[str, Any], *keys: str | int) -> Any:
    for key in keys:
        document = document[key]  # type: ignore[index]
    return document


TREE = ("learner", "gradient_booster", "model", "trees", 0)
# Where a value is changed, to what, and what the error must name.
DAMAGE: list[tuple[tuple[str | int, ...], Any, str]] = [
    (("learner",), {}, "learner_model_param is missing"),
    (("learner", "objective", "name"), "reg:nonsense", "learner.objective.name"),
    (("learner", "gradient_booster", "name"), "gbforest", "learner.gradient_booster.name"),
    (("learner", "learner_model_param", "num_feature"), "0", "split_indices"),
    (("learner", "learner_model_param", "num_feature"), "many", "num_feature"),
    (("learner", "learner_model_param", "base_score"), "[x]", "base_score"),
    ((*TREE, "left_children"), [1, -1], "right_children"),
    ((*TREE, "left_children", 0), 99, "points out of the tree"),
    ((*TREE, "left_children", 0), 0, "points out of the tree"),
    ((*TREE, "left_children", 0), 2, "two parents"),
    ((*TREE, "split_conditions"), ["a"] * 7, "split_conditions"),
    ((*TREE, "split_indices", 0), 1000, "split_indices"),
    ((*TREE, "default_left"), None, "default_left"),
    ((*TREE, "tree_param", "size_leaf_vector"), "3", "size_leaf_vector"),
    ((*TREE, "categories_nodes"), [0], "split_type"),
    (("learner", "gradient_booster", "model", "tree_info", 0), 5, "tree_info"),
    (("learner", "gradient_booster", "model", "trees", 0), 7, "trees"),
    (("learner", "feature_names"), ["a"], "feature_names"),
    (("learner", "attributes"), {"best_iteration": "soon"}, "best_iteration"),
]


@pytest.mark.parametrize(("keys", "value", "named"), DAMAGE, ids=lambda v: str(v)[:40])
def test_damaged_xgboost_files_are_told_by_file_and_key(
    keys: tuple[str | int, ...], value: Any, named: str, tmp_path: Path
) -> None:
    document = _xgboost_document()
    _at(document, *keys[:-1])[keys[-1]] = value
    path = tmp_path / "damaged.json"
    path.write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match=named) as error:
        XGBRegressor().load_model(path)
    assert str(path) in str(error.value)


def test_files_cut_short_or_changed_at_random_are_refused_or_read(tmp_path: Path) -> None:
    document = _xgboost_document()
    whole = bytes(ubjson.encode(document))
    path = tmp_path / "model.ubj"
    random = np.random.default_rng(0)
    for trial in range(300):
        content = bytearray(whole[: int(random.integers(len(whole)))] if trial % 2 else whole)
        for _ in range(3):
            if content:
                content[int(random.integers(len(content)))] = int(random.integers(256))
        path.write_bytes(bytes(content))
        try:
            XGBRegressor().load_model(path).predict(np.zeros((2, 4)))
        except (CheckpointError, ValueError) as error:
            assert isinstance(error, CheckpointError) or "features" in str(error)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"not a model", b"[]", b'{"learner": 3}', b"{L\xff\xff\xff\xff\xff\xff\xff\xff", b"{" * 10**5,
     b"[$d#L\x7f\xff\xff\xff\xff\xff\xff\xff", b'{"a":' * 100000],
    ids=range(9),
)  # fmt: skip
def test_what_is_no_model_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="file"):
        XGBRegressor().load_model(path)
    with pytest.raises(CheckpointError, match="file"):
        lightgbm_format.read(path)
    with pytest.raises(CheckpointError, match="nowhere"):
        XGBRegressor().load_model(tmp_path / "nowhere")


LINES = [
    ("num_leaves=", "num_leaves=x", "num_leaves"),
    ("num_leaves=", "num_leaves=9", "leaf_value"),
    ("split_feature=", "split_feature=77 0 0", "split_feature"),
    ("left_child=", "left_child=44 -1 -2", "left_child"),
    ("left_child=", "left_child=1 1 -2", "two parents"),
    ("threshold=", "threshold=a b c", "threshold"),
    ("decision_type=", "decision_type=14 14 14", "decision_type"),
    ("is_linear=", "is_linear=1", "linear"),
    ("objective=", "objective=riddle", "objective"),
    ("max_feature_idx=", "max_feature_idx=-5", "max_feature_idx"),
    ("num_tree_per_iteration=", "num_tree_per_iteration=7", "num_tree_per_iteration"),
    ("end of trees", "", "end of trees"),
]


@pytest.mark.parametrize(("line", "changed", "named"), LINES)
def test_damaged_lightgbm_files_are_told_by_file_and_key(
    line: str, changed: str, named: str, tmp_path: Path
) -> None:
    data = lightgbm.Dataset(X.astype(float), SIGNAL)
    peer = lightgbm.train({"verbose": -1, "num_leaves": 4}, data, 2)
    path = tmp_path / "damaged.txt"
    text = peer.model_to_string().splitlines()
    found = next(i for i, one in enumerate(text) if one.startswith(line))
    text[found] = changed
    path.write_text("\n".join(text))
    with pytest.raises(CheckpointError, match=named) as error:
        lightgbm_format.read(path)
    assert str(path) in str(error.value)


def test_what_a_format_has_no_place_for_is_refused(tmp_path: Path) -> None:
    from sklearn.tree import DecisionTreeRegressor

    weak = XGBRegressor(n_estimators=2, weak_learner=DecisionTreeRegressor(max_depth=2)).fit(FULL, SIGNAL)
    with pytest.raises(CheckpointError, match="weak learner"):
        weak.save_model(tmp_path / "model.json")
    assert not list(tmp_path.iterdir())
