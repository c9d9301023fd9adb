"""Wrong data and parameters of the boosting estimators: the error names the parameter or the column."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from fullspan.core.errors import CheckpointError, DataError
from fullspan.estimators import XGBClassifier, XGBRanker, XGBRegressor

X = np.random.default_rng(0).normal(size=(40, 3))
Y = X[:, 0]
CLASS = (Y > 0).astype(int)


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"learning_rate": -1}, "learning_rate"),
        ({"subsample": 0.0}, "subsample"),
        ({"subsample": 1.5}, "subsample"),
        ({"colsample_bytree": 0.0}, "colsample_bytree"),
        ({"max_depth": -1}, "max_depth"),
        ({"max_bin": 1}, "max_bin"),
        ({"reg_lambda": -1.0}, "reg_lambda"),
        ({"n_estimators": -3}, "n_estimators"),
        ({"tree_method": "gpu_hist"}, "tree_method"),
        ({"booster": "forest"}, "booster"),
        ({"grow_policy": "wild"}, "grow_policy"),
        ({"importance_type": "luck"}, "importance_type"),
        ({"objective": "reg:sqarederror"}, "did you mean 'reg:squarederror'"),
        ({"eval_metric": "rmsee"}, "did you mean 'rmse'"),
        ({"objective": "reg:quantileerror"}, "quantile_alpha"),
        ({"objective": "reg:quantileerror", "quantile_alpha": [1.5]}, "quantile_alpha"),
        ({"objective": "reg:tweedie", "tweedie_variance_power": 2.5}, "tweedie_variance_power"),
        ({"objective": "reg:pseudohubererror", "huber_slope": 0.0}, "huber_slope"),
        ({"base_score": [1.0, 2.0]}, "base_score"),
        ({"objective": "reg:logistic", "base_score": 2.0}, "base_score"),
        ({"objective": "count:poisson", "base_score": -1.0}, "base_score"),
        ({"monotone_constraints": (1, 0, 0, 1)}, "monotone_constraints"),
        ({"monotone_constraints": (2, 0, 0)}, "monotone_constraints"),
        ({"monotone_constraints": {"nobody": 1}}, "monotone_constraints.*nobody"),
        ({"monotone_constraints": "(1"}, "monotone_constraints"),
        ({"interaction_constraints": [[0, 7]]}, "interaction_constraints.*7"),
        ({"interaction_constraints": [["nobody"]]}, "interaction_constraints.*nobody"),
        ({"feature_types": ["q"]}, "feature_types"),
        ({"feature_types": ["q", "c", "q"]}, "enable_categorical"),
        ({"feature_types": ["q", "x", "q"]}, "feature_types"),
        # What is not built.
        ({"multi_strategy": "multi_output_tree", "tree_method": "exact"}, "multi_strategy.*exact"),
        ({"multi_strategy": "multi_output_tree", "monotone_constraints": "(1)"}, "monotone_constraints"),
        ({"device": "cuda"}, "device"),
        ({"feature_weights": [1, -1, 1]}, "feature_weights"),
    ],
    ids=lambda v: "-".join(v) if isinstance(v, dict) else "",
)
def test_wrong_parameters(parameters: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        XGBRegressor(**parameters).fit(X, np.abs(Y) / 4)


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"max_depth": 0}, "max_leaves and max_depth"),
        ({"tree_method": "exact", "grow_policy": "lossguide"}, "grow_policy='lossguide'.*exact"),
        ({"tree_method": "exact", "max_leaves": 5}, "max_leaves.*exact"),
        ({"tree_method": "exact", "max_depth": 0}, "max_depth.*exact"),
        ({"booster": "gblinear", "max_depth": 3}, "max_depth.*gblinear"),
        ({"rate_drop": 0.5}, "rate_drop.*dart"),
        ({"feature_selector": "shuffle"}, "feature_selector.*gblinear"),
        ({"early_stopping_rounds": 3}, "Must have at least 1 validation dataset for early stopping"),
        ({"importance_type": "gain", "booster": "gblinear"}, "importance_type"),
    ],
    ids=lambda v: "-".join(v) if isinstance(v, dict) else "",
)
def test_contradictory_parameters(parameters: dict[str, Any], named: str) -> None:
    with pytest.raises((ValueError, AttributeError), match=named):
        _ = XGBRegressor(n_estimators=2, **parameters).fit(X, Y).feature_importances_


def test_a_weak_learner_goes_with_no_tree_parameters() -> None:
    from sklearn.tree import DecisionTreeRegressor

    for parameters in ({"max_depth": 3}, {"booster": "gblinear"}):
        with pytest.raises(ValueError, match="weak_learner"):
            XGBRegressor(weak_learner=DecisionTreeRegressor(), **parameters).fit(X, Y)
    with pytest.raises(ValueError, match="weak_learner"):
        XGBRegressor(weak_learner="a tree").fit(X, Y)


@pytest.mark.parametrize("method", ["exact", "hist", "approx"])
def test_infinite_values(method: str) -> None:
    bad = X.copy()
    bad[3, 1] = np.inf
    with pytest.raises(ValueError, match="infinity"):
        XGBRegressor(tree_method=method).fit(bad, Y)
    model = XGBRegressor(tree_method=method, n_estimators=2).fit(X, Y)
    with pytest.raises(ValueError, match="infinity"):
        model.predict(bad)
    with pytest.raises(ValueError, match=r"infinity other than `missing`"):
        XGBRegressor(missing=-np.inf).fit(bad, Y)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_targets_that_are_no_numbers(value: float) -> None:
    bad = Y.copy()
    bad[0] = value
    with pytest.raises(ValueError, match="Input y contains NaN"):
        XGBRegressor().fit(X, bad)
    with pytest.raises(ValueError, match="y"):
        XGBClassifier().fit(X, bad)


@pytest.mark.parametrize(
    ("objective", "y"),
    [
        ("reg:logistic", Y * 9),
        ("reg:gamma", Y),
        ("count:poisson", Y),
        ("reg:tweedie", Y),
        ("reg:squaredlogerror", Y * 9),
        ("survival:aft", Y),
        ("survival:aft", np.column_stack([np.abs(Y) + 1, np.abs(Y)])),
    ],
)
def test_targets_the_objective_is_not_for(objective: str, y: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"^y must"):
        XGBRegressor(objective=objective).fit(X, y)


def test_weights_and_margins() -> None:
    with pytest.raises(ValueError, match="sample_weight"):
        XGBRegressor().fit(X, Y, sample_weight=np.full(40, -1.0))
    with pytest.raises(ValueError, match="sample_weight"):
        XGBRegressor().fit(X, Y, sample_weight=np.ones(3))
    with pytest.raises(ValueError, match="must contain at least one non-zero"):
        XGBRegressor().fit(X, Y, sample_weight=np.zeros(40))
    with pytest.raises(ValueError, match="base_margin"):
        XGBRegressor().fit(X, Y, base_margin=np.ones(3))
    with pytest.raises(ValueError, match="sample_weight_eval_set"):
        XGBRegressor().fit(X, Y, eval_set=[(X, Y)], sample_weight_eval_set=[])
    with pytest.raises(ValueError, match="inconsistent"):
        XGBRegressor().fit(X, Y[:7])


def test_features_at_predict() -> None:
    model = XGBRegressor(n_estimators=2).fit(pd.DataFrame(X, columns=list("abc")), Y)
    with pytest.raises(ValueError, match="feature names"):
        model.predict(pd.DataFrame(X, columns=list("cba")))
    with pytest.raises(ValueError, match="feature names"):
        model.predict(pd.DataFrame(X[:, :2], columns=list("ab")))
    with pytest.raises(ValueError, match="2 features"):
        XGBRegressor(n_estimators=2).fit(X, Y).predict(X[:, :2])
    for rounds in ((0, 9), (3, 1), (-1, 1)):
        with pytest.raises(ValueError, match="iteration_range"):
            model.predict(pd.DataFrame(X, columns=list("abc")), iteration_range=rounds)


def test_categories() -> None:
    frame = pd.DataFrame({"kind": pd.Categorical(list("uvwx") * 10), "x": X[:, 0]})
    with pytest.raises(ValueError, match=r"enable_categorical.*kind"):
        XGBRegressor().fit(frame, Y)
    model = XGBRegressor(enable_categorical=True, n_estimators=2).fit(frame, Y)
    with pytest.raises(ValueError, match=r"enable_categorical.*kind"):
        model.set_params(enable_categorical=False).predict(frame)
    model.set_params(enable_categorical=True)
    with pytest.raises(ValueError, match="importance_type"):
        _ = model.set_params(importance_type="luck").feature_importances_
    strange = frame.assign(kind=pd.Categorical(["new", *frame.kind[1:]]))
    with pytest.raises(ValueError, match=r"'kind'.*'new'"):
        model.predict(strange)
    with pytest.raises(ValueError, match="exact"):
        XGBRegressor(enable_categorical=True, tree_method="exact").fit(frame, Y)
    with pytest.raises(ValueError, match="gblinear"):
        XGBRegressor(enable_categorical=True, booster="gblinear").fit(frame, Y)
    with pytest.raises(ValueError, match=r"monotone"):
        XGBRegressor(enable_categorical=True, monotone_constraints=(1, 0)).fit(frame, Y)
    codes = np.column_stack([X[:, 0], np.full(40, 0.5)])
    with pytest.raises(ValueError, match="column 1 is categorical"):
        XGBRegressor(feature_types=["q", "c"], enable_categorical=True).fit(codes, Y)


def test_classes() -> None:
    with pytest.raises(ValueError, match="Unknown label type"):
        XGBClassifier().fit(X, Y)
    with pytest.raises(ValueError, match="eval_set holds the class 7"):
        XGBClassifier().fit(X, CLASS, eval_set=[(X, np.full(40, 7))])
    hinge = XGBClassifier(objective="binary:hinge", n_estimators=2).fit(X, CLASS)
    with pytest.raises(ValueError, match="binary:hinge"):
        hinge.predict_proba(X)


def test_custom_objectives() -> None:
    def broken(y: np.ndarray, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.full_like(raw, np.nan), np.ones_like(raw)

    with pytest.raises(ValueError, match="objective"):
        XGBRegressor(objective=broken).fit(X, Y)


def test_queries() -> None:
    degrees = np.arange(40) % 3
    with pytest.raises(ValueError, match="Either `group` or `qid`"):
        XGBRanker().fit(X, degrees)
    with pytest.raises(ValueError, match="must be sorted"):
        XGBRanker().fit(X, degrees, qid=np.arange(40)[::-1])
    with pytest.raises(ValueError, match="group"):
        XGBRanker().fit(X, degrees, group=[10, 10])
    with pytest.raises(ValueError, match="Either `group` or `qid`"):
        XGBRanker().fit(X, degrees, group=[40], eval_set=[(X, degrees)])
    with pytest.raises(ValueError, match="sample_weight"):
        XGBRanker().fit(X, degrees, group=[20, 20], sample_weight=np.ones(40))
    with pytest.raises(ValueError, match="sample_weight has no positive entry"):
        XGBRanker().fit(X, degrees, group=[20, 20], sample_weight=np.zeros(2))
    with pytest.raises(ValueError, match="ranking"):
        XGBRanker(objective="reg:squarederror").fit(X, degrees, group=[40])
    with pytest.raises(ValueError, match="rank:map"):
        XGBRanker(objective="rank:map").fit(X, degrees, group=[40])
    with pytest.raises(ValueError, match="between 0 and 31"):
        XGBRanker().fit(X, degrees * 40, group=[40])


def test_models_to_go_on_from() -> None:
    model = XGBRegressor(n_estimators=2).fit(X[:, :2], Y)
    with pytest.raises(ValueError, match="xgb_model has 2 features"):
        XGBRegressor().fit(X, Y, xgb_model=model)
    with pytest.raises(ValueError, match="xgb_model is a TreeEnsemble"):
        XGBRegressor(booster="gblinear").fit(X[:, :2], Y, xgb_model=model)
    with pytest.raises(CheckpointError, match="nowhere"):
        XGBRegressor().fit(X, Y, xgb_model="nowhere.json")


def test_sparse_input_is_not_changed() -> None:
    held = sp.random(40, 3, 0.5, format="csr", random_state=0)
    before = held.copy()
    XGBRegressor(n_estimators=2, missing=held.data[0]).fit(held, Y)
    XGBRegressor(n_estimators=2, booster="gblinear").fit(held, Y)
    assert (held != before).nnz == 0


def test_sparse_input_larger_than_the_memory() -> None:
    wide = sp.csr_matrix((400_000, 2**21), dtype=np.float32)
    with pytest.raises(DataError, match="GB when it is not sparse"):
        XGBRegressor(n_estimators=1).fit(wide, np.arange(400_000.0))
