"""Wrong input to decision trees: each error names what is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.exceptions import NotFittedError

from fullspan.core.errors import CheckpointError
from fullspan.estimators import DecisionTreeClassifier, DecisionTreeRegressor, load
from fullspan.estimators.tree.export import export_graphviz, export_text
from fullspan.estimators.tree.plotting import plot_tree

X = np.arange(12.0).reshape(6, 2)
Y = np.array([0, 1, 0, 1, 0, 1])
BOTH = [DecisionTreeClassifier, DecisionTreeRegressor]


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_depth", 0),
        ("max_depth", 1.5),
        ("min_samples_split", 1),
        ("min_samples_split", 1.1),
        ("min_samples_leaf", 0),
        ("min_samples_leaf", 1.0),
        ("min_weight_fraction_leaf", 0.6),
        ("max_features", 0),
        ("max_features", "all"),
        ("max_leaf_nodes", 1),
        ("min_impurity_decrease", -1.0),
        ("ccp_alpha", -0.1),
        ("splitter", "worst"),
        ("criterion", "mse"),
        ("random_state", "seed"),
        ("categorical_features", "all"),
    ],
)
def test_wrong_parameters_are_named(kind: Any, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"The '{name}' parameter of {kind.__name__} must be"):
        kind(**{name: value}).fit(X, Y)


@pytest.mark.parametrize("kind", BOTH)
def test_wrong_tables_are_refused(kind: Any) -> None:
    with pytest.raises(ValueError, match="infinity"):
        kind().fit(np.where(X == 3, np.inf, X), Y)
    with np.errstate(over="ignore"), pytest.raises(ValueError, match="float32"):
        kind().fit(X * 1e300, Y)
    with pytest.raises(ValueError, match="Input X contains NaN"):
        kind().fit(sp.csc_matrix(np.where(X == 3, np.nan, X)), Y)
    with pytest.raises(ValueError, match="0 sample"):
        kind().fit(X[:0], Y[:0])
    with pytest.raises(ValueError, match="0 feature"):
        kind().fit(X[:, :0], Y)
    with pytest.raises(ValueError, match="does not match number of samples"):
        kind().fit(X, Y[:-1])
    with pytest.raises(ValueError, match="Input y contains NaN"):
        kind().fit(X, [0, 1, 0, 1, np.nan, 1])
    with pytest.raises(ValueError, match="sample_weight"):
        kind().fit(X, Y, np.ones(3))
    with pytest.raises(ValueError, match="Expected 2D array"):
        kind().fit(X[:, 0], Y)


@pytest.mark.parametrize("kind", BOTH)
def test_wrong_tables_are_refused_in_prediction(kind: Any) -> None:
    with pytest.raises(NotFittedError):
        kind().predict(X)
    model = kind().fit(X, Y)
    with pytest.raises(ValueError, match="X has 1 features, but"):
        model.predict(X[:, :1])
    with pytest.raises(ValueError, match="infinity"):
        model.predict(np.full((1, 2), np.inf))
    with pytest.raises(ValueError, match="should be in CSR sparse format"):
        model.tree_.apply(sp.csc_matrix(X.astype(np.float32)))
    with pytest.raises(ValueError, match=r"should be np\.float32"):
        model.tree_.apply(X)


def test_wrong_targets_are_refused() -> None:
    with pytest.raises(ValueError, match="Unknown label type"):
        DecisionTreeClassifier().fit(X, Y + 0.5)
    with pytest.raises(ValueError, match="could not convert string"):
        DecisionTreeRegressor().fit(X, ["a", "b"] * 3)
    with pytest.raises(ValueError, match="y are negative"):
        DecisionTreeRegressor(criterion="poisson").fit(X, -Y)
    with pytest.raises(ValueError, match="Sum of y is not positive"):
        DecisionTreeRegressor(criterion="poisson").fit(X, Y * 0)
    with pytest.raises(ValueError, match="number of elements in class_weight"):
        DecisionTreeClassifier(class_weight=[{0: 1.0}]).fit(X, np.c_[Y, Y])


def test_wrong_constraints_are_refused() -> None:
    with pytest.raises(ValueError, match="monotonic_cst has shape 1"):
        DecisionTreeRegressor(monotonic_cst=[1]).fit(X, Y)
    with pytest.raises(ValueError, match="array-like of -1, 0 or 1"):
        DecisionTreeRegressor(monotonic_cst=[1, 2]).fit(X, Y)
    with pytest.raises(ValueError, match="multiclass"):
        DecisionTreeClassifier(monotonic_cst=[1, 0]).fit(X, [0, 1, 2] * 2)
    with pytest.raises(ValueError, match="multiple outputs"):
        DecisionTreeRegressor(monotonic_cst=[1, 0]).fit(X, np.c_[Y, Y])
    with pytest.raises(ValueError, match="Categorical features cannot have monotonic"):
        DecisionTreeRegressor(monotonic_cst=[1, 0], categorical_features=[0]).fit(X, Y)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([True], "boolean mask must have shape"),
        ([2], "must be in \\[0, n_features - 1\\]"),
        ([-1], "must be in \\[0, n_features - 1\\]"),
        ([0.5], "array-like of bool, int or str"),
        (["color"], "fitted on data without feature names"),
    ],
)
def test_wrong_categorical_features_are_refused(features: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DecisionTreeRegressor(categorical_features=features).fit(X, Y)
    with pytest.raises(ValueError, match="sparse"):
        DecisionTreeRegressor(categorical_features=features).fit(sp.csc_matrix(X), Y)


def test_wrong_column_names_are_refused() -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(X, columns=["a", "b"])
    with pytest.raises(ValueError, match="'c' which is not a valid feature name"):
        DecisionTreeRegressor(categorical_features=["c"]).fit(table, Y)


@pytest.mark.parametrize("kind", BOTH)
def test_what_cannot_be_split_becomes_a_leaf(kind: Any) -> None:
    for table, target in ((np.ones((6, 2)), Y), (np.full((6, 2), np.nan), Y), (X, Y * 0), (X[:1], Y[:1])):
        model = kind().fit(table, target)
        assert model.get_n_leaves() == 1
        assert model.predict(table).shape == (len(table),)
        assert np.isfinite(model.feature_importances_).all()


def test_exports_refuse_other_objects_and_wrong_names() -> None:
    model = DecisionTreeClassifier().fit(X, Y)
    for export in (export_text, export_graphviz, plot_tree):
        with pytest.raises(NotFittedError):
            export(DecisionTreeClassifier())
    for export in (export_text, plot_tree):
        with pytest.raises(ValueError, match="'decision_tree' parameter"):
            export(model.tree_)
    with pytest.raises(ValueError, match="feature_names must contain 2 elements, got 1"):
        export_text(model, feature_names=["a"])
    with pytest.raises(ValueError, match="Got 1 while the tree was fitted with 2 classes"):
        export_text(model, class_names=["a"])
    with pytest.raises(ValueError, match="Length of feature_names, 1 does not match"):
        export_graphviz(model, feature_names=["a"])
    with pytest.raises(ValueError, match="must be strings"):
        export_graphviz(model, feature_names=["a", 1])


def test_a_damaged_file_is_refused(tmp_path: Any) -> None:
    path = tmp_path / "tree"
    DecisionTreeClassifier().fit(X, Y).save(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match="tree"):
        load(path)
