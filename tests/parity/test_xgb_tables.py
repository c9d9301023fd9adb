"""Tables, labels and weights of many kinds give XGBoost's models, or what stands for them in plain arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse as sp
import xgboost

from fullspan.estimators import XGBClassifier, XGBRanker, XGBRegressor

RNG = np.random.default_rng(8)
N = 90
X = RNG.normal(size=(N, 3)).astype(np.float32)
X[RNG.random((N, 3)) < 0.2] = 0.0
SIGNAL = X[:, 0] + X[:, 1] ** 2
CLASS = (SIGNAL > 0.7).astype(int)
FEW: dict[str, Any] = {"n_estimators": 3, "max_depth": 3, "n_jobs": 1}


def _same_as_peer(rows: Any, **fit: Any) -> XGBRegressor:
    ours: XGBRegressor = XGBRegressor(**FEW).fit(rows, SIGNAL, **fit)
    peer = xgboost.XGBRegressor(**FEW).fit(rows, SIGNAL, **fit)
    np.testing.assert_allclose(ours.predict(rows), peer.predict(rows), atol=1e-5)
    assert ours.get_booster().feature_names == peer.get_booster().feature_names
    assert ours.get_booster().feature_types == peer.get_booster().feature_types
    return ours


@pytest.mark.filterwarnings("ignore:Sparse arrays from pandas:UserWarning")  # XGBoost's
def test_zeros_of_sparse_columns_are_no_missing_values() -> None:
    sparse = pd.DataFrame.sparse.from_spmatrix(sp.csr_matrix(X), columns=list("abc"))
    model = _same_as_peer(sparse)
    assert np.array_equal(model.predict(sparse), model.predict(pd.DataFrame(X, columns=list("abc"))))


def test_columns_called_by_more_than_texts() -> None:
    mixed = pd.DataFrame(X, columns=[0, "a", 1])
    model = _same_as_peer(mixed)
    assert model.feature_names_in_.tolist() == ["0", "a", "1"]
    _same_as_peer(pd.DataFrame(X, columns=pd.MultiIndex.from_tuples([(0, "a"), (0, "b"), (1, "a")])))


def test_columns_that_hold_no_numbers() -> None:
    frame = pd.DataFrame(X, columns=list("abc"))
    for strange in (["u", "v", "w"] * 30, pd.date_range("2020", periods=N), X[:, 0] + 1j):
        with pytest.raises(ValueError, match=r"must be int, float, bool or category.*d: "):
            XGBRegressor().fit(frame.assign(d=strange), SIGNAL)
    with pytest.raises(ValueError, match=r"must be int, float, bool or category.*d: timestamp"):
        XGBRegressor().fit(pa.Table.from_pandas(frame.assign(d=pd.date_range("2020", periods=N))), SIGNAL)
    with pytest.raises(ValueError, match="feature_names must be unique, 'a' is there twice"):
        XGBRegressor().fit(pd.DataFrame(X, columns=list("aba")), SIGNAL)
    with pytest.raises(ValueError, match="minimum of 1 is required"):
        XGBRegressor().fit(pa.Table.from_pandas(frame[:0]), SIGNAL[:0])


def test_lazy_frames_of_polars() -> None:
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame(X, schema=["a", "b", "c"])
    model = XGBRegressor(**FEW).fit(frame.lazy(), SIGNAL)
    assert np.array_equal(model.predict(frame.lazy()), model.predict(frame))


@pytest.mark.parametrize("booster", ["gbtree", "gblinear"])
def test_no_rows_have_no_predictions(booster: str) -> None:
    model = XGBClassifier(n_estimators=2, booster=booster).fit(X, CLASS)
    for nothing in (X[:0], sp.csr_matrix(X)[:0], pd.DataFrame(X[:0])):
        assert model.predict(nothing).shape == (0,)
        assert model.predict_proba(nothing).shape == (0, 2)
        assert model.shap_values(nothing).shape == (0, 4)


@pytest.mark.parametrize(
    "labels",
    [
        CLASS.astype(object),
        pd.Series(CLASS).astype("Int64"),
        pd.Series(CLASS).convert_dtypes(dtype_backend="pyarrow"),
        pd.Series(CLASS).astype("category"),
        pa.array(CLASS),
    ],
    ids=["objects", "nullable", "arrow-backed", "categories", "arrow"],
)
def test_whole_numbers_stay_whole_as_classes(labels: Any) -> None:
    model = XGBClassifier(**FEW).fit(X, labels)
    assert model.classes_.dtype == CLASS.dtype
    assert np.array_equal(model.predict(X), XGBClassifier(**FEW).fit(X, CLASS).predict(X))


def test_labels_that_are_missing() -> None:
    with pytest.raises(ValueError, match="contains NaN"):
        XGBClassifier().fit(X, pd.Series(CLASS).astype("Int64").mask(CLASS == 1))
    with pytest.raises(ValueError, match="Unknown label type"):
        XGBClassifier().fit(X, np.where(CLASS == 1, None, 0))


def test_weights_in_a_column() -> None:
    weight = np.linspace(0.1, 2, N)
    expected = XGBRegressor(**FEW).fit(X, SIGNAL, sample_weight=weight).predict(X)
    for shape in (weight[:, None], pd.DataFrame({"w": weight}), pd.Series(weight).astype("Float64")):
        assert np.array_equal(_same_as_peer(X, sample_weight=shape).predict(X), expected)


def test_categories_of_a_booster() -> None:
    frame = pd.DataFrame({"x": X[:, 0], "kind": pd.Categorical(np.where(CLASS == 1, "v", "u"))})
    model = XGBRegressor(enable_categorical=True, **FEW).fit(frame, SIGNAL).get_booster()
    assert not model.get_categories().empty()
    (number, nothing), (name, values) = model.get_categories(export_to_arrow=True).to_arrow()
    assert (number, nothing, name, values.to_pylist()) == ("x", None, "kind", ["u", "v"])
    assert XGBRegressor(**FEW).fit(X, SIGNAL).get_booster().get_categories().empty()


def _numbers(line: str) -> dict[str, float]:
    head, *parts = line.split("\t")
    assert head == "[4]"
    return {name: float(value) for name, _, value in (part.rpartition(":") for part in parts)}


@pytest.mark.parametrize(
    ("kind", "y", "parameters"),
    [
        ("XGBRegressor", SIGNAL, {"eval_metric": ["rmse", "mae"]}),
        ("XGBClassifier", np.clip(SIGNAL, 0, 2).astype(int), {}),
        ("XGBRegressor", np.column_stack([SIGNAL, CLASS]), {}),
        ("XGBRanker", CLASS, {"eval_metric": "ndcg@3"}),
    ],
    ids=["metrics", "classes", "outputs", "queries"],
)
def test_lines_of_metrics(kind: str, y: np.ndarray, parameters: dict[str, Any]) -> None:
    query = {"qid": np.repeat(np.arange(9), 10)} if kind == "XGBRanker" else {}
    data = xgboost.DMatrix(X, y, **(query or {"weight": np.linspace(1, 2, N)}))
    ours_kind = {"XGBRegressor": XGBRegressor, "XGBClassifier": XGBClassifier, "XGBRanker": XGBRanker}[kind]
    ours = ours_kind(**FEW, **parameters).fit(X, y, **query).get_booster()
    peer = getattr(xgboost, kind)(**FEW, **parameters).fit(X, y, **query).get_booster()
    sets = [(data, "first"), (data, "second")]
    # Each library sums its own float32 predictions.
    assert _numbers(ours.eval_set(sets, 4)) == pytest.approx(_numbers(peer.eval_set(sets, 4)), abs=1e-5)


def test_a_line_with_a_metric_of_ones_own() -> None:
    ours = XGBClassifier(disable_default_eval_metric=True, **FEW).fit(X, CLASS).get_booster()
    data = xgboost.DMatrix(X, CLASS)

    def largest(prediction: np.ndarray, of: Any) -> tuple[str, float]:
        assert of is data
        return "largest", float(prediction.max())

    line = ours.eval_set([(data, "set")], 4, largest, output_margin=False)
    assert _numbers(line) == {"set-largest": pytest.approx(ours.predict(X).max())}
    with pytest.raises(TypeError, match="data with labels"):
        ours.eval(X)
