"""Our trees are scikit-learn's, node for node: features, thresholds, values, impurities to the last bit."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import sklearn.tree
from sklearn.datasets import load_diabetes, load_digits, load_iris
from sklearn.utils._sorting import _py_simultaneous_sort

from fullspan.core.kernels import kernel
from fullspan.estimators import DecisionTreeClassifier, DecisionTreeRegressor
from fullspan.estimators.tree._sorting_kernels import SORT_STACK, introsort
from fullspan.estimators.tree.export import export_graphviz, export_text
from fullspan.estimators.tree.plotting import plot_tree

CLASSIFICATION = ("gini", "entropy")
REGRESSION = ("squared_error", "absolute_error", "poisson")


def _same(ours: Any, theirs: Any) -> None:
    assert ours.node_count == theirs.node_count
    assert ours.max_depth == theirs.max_depth
    assert ours.n_leaves == theirs.n_leaves
    for name in ("children_left", "children_right", "feature", "threshold", "n_node_samples"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)
    for name in ("missing_go_to_left", "weighted_n_node_samples", "impurity", "value"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)


def _compare(X: Any, y: Any, sample_weight: Any = None, **params: Any) -> tuple[Any, Any]:
    is_regression = params.get("criterion", "gini") in REGRESSION
    kind = "DecisionTreeRegressor" if is_regression else "DecisionTreeClassifier"
    ours = (DecisionTreeRegressor if is_regression else DecisionTreeClassifier)(random_state=3, **params)
    theirs = getattr(sklearn.tree, kind)(random_state=3, **params)
    ours.fit(X, y, sample_weight)
    theirs.fit(X, y, sample_weight)
    _same(ours.tree_, theirs.tree_)
    return ours, theirs


def _mixed(n: int = 300, missing: float = 0.0, seed: int = 0) -> tuple[Any, Any, Any]:
    """Columns with few, some and no equal values, one constant; classes; positive numbers, some equal."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 7))
    X[:, 0] = np.round(X[:, 0], 1)
    X[:, 1] = rng.integers(0, 3, n)
    X[:, 2] = 1.0
    X[:, 3] = X[:, 4]
    classes = (X[:, 4] + X[:, 1] + rng.normal(size=n) > 1).astype(int) + (X[:, 5] > 1)
    y = np.abs(X[:, 4] * 2 + X[:, 0] + rng.normal(size=n))
    y[: n // 4] = np.round(y[: n // 4])
    X[rng.random(X.shape) < missing] = np.nan
    return X, classes, y


PARAMETERS = [
    {},
    {"splitter": "random"},
    {"max_features": 2},
    {"max_features": "sqrt", "splitter": "random"},
    {"max_depth": 4, "min_samples_leaf": 5},
    {"max_depth": 1},
    {"min_samples_split": 0.1, "min_samples_leaf": 0.02, "max_features": 0.5},
    {"max_leaf_nodes": 17},
    {"max_leaf_nodes": 400, "splitter": "random", "max_features": 3},
    {"min_weight_fraction_leaf": 0.03, "min_impurity_decrease": 0.002},
    {"ccp_alpha": 0.005, "max_leaf_nodes": 30},
]


@pytest.mark.parametrize("missing", [0.0, 0.15])
@pytest.mark.parametrize("params", PARAMETERS, ids=str)
@pytest.mark.parametrize("criterion", CLASSIFICATION + REGRESSION)
def test_trees_are_equal(criterion: str, params: dict[str, Any], missing: float) -> None:
    X, classes, y = _mixed(missing=missing)
    target = y if criterion in REGRESSION else classes
    ours, theirs = _compare(X, target, criterion=criterion, **params)
    np.testing.assert_array_equal(ours.feature_importances_, theirs.feature_importances_)
    other = np.random.default_rng(1).normal(size=(50, 7))
    other[::7] = np.nan
    np.testing.assert_array_equal(ours.predict(other), theirs.predict(other))
    np.testing.assert_array_equal(ours.apply(other), theirs.apply(other))
    assert (ours.decision_path(other) != theirs.decision_path(other)).nnz == 0


@pytest.mark.parametrize("weights", ["whole", "real", "with zeros", "negative"])
@pytest.mark.parametrize("criterion", CLASSIFICATION + REGRESSION)
def test_trees_are_equal_with_weights(criterion: str, weights: str) -> None:
    X, classes, y = _mixed(missing=0.1, seed=1)
    rng = np.random.default_rng(2)
    weight = {
        "whole": rng.integers(1, 4, len(X)).astype(float),
        "real": rng.random(len(X)),
        "with zeros": rng.integers(0, 2, len(X)) * rng.random(len(X)),
        "negative": np.where(rng.random(len(X)) < 0.03, -0.2, 1.0),
    }[weights]
    if weights == "negative" and criterion != "gini":
        pytest.skip("impurities of negative weights mean nothing; gini stands for the rule that rejects them")
    target = y if criterion in REGRESSION else classes
    for params in ({}, {"max_features": 2}, {"max_leaf_nodes": 12}, {"min_weight_fraction_leaf": 0.05}):
        _compare(X, target, weight, criterion=criterion, **params)


@pytest.mark.parametrize("criterion", CLASSIFICATION + REGRESSION)
def test_trees_with_several_outputs_are_equal(criterion: str) -> None:
    X, classes, y = _mixed(seed=2)
    target = np.c_[y, y[::-1] + 1] if criterion in REGRESSION else np.c_[classes, classes[::-1] > 0]
    for params in ({}, {"max_features": 2, "splitter": "random"}, {"max_leaf_nodes": 20}):
        ours, theirs = _compare(X, target, criterion=criterion, **params)
        np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
        if criterion in CLASSIFICATION:
            for mine, their in zip(ours.predict_proba(X), theirs.predict_proba(X), strict=True):
                np.testing.assert_array_equal(mine, their)


@pytest.mark.parametrize("splitter", ["best", "random"])
@pytest.mark.parametrize("criterion", ["gini", *REGRESSION])
def test_monotonic_trees_are_equal(criterion: str, splitter: str) -> None:
    X, classes, y = _mixed(seed=3, missing=0.05)
    signs = [1, -1, 0, 0, 1, -1, 0]
    target = y if criterion in REGRESSION else classes > 0
    for more in ({}, {"max_leaf_nodes": 15}, {"max_depth": 3, "max_features": 4}):
        _compare(X, target, criterion=criterion, splitter=splitter, monotonic_cst=signs, **more)


@pytest.mark.parametrize("splitter", ["best", "random"])
@pytest.mark.parametrize("criterion", CLASSIFICATION + REGRESSION)
def test_trees_on_sparse_data_are_equal(criterion: str, splitter: str) -> None:
    rng = np.random.default_rng(4)
    X = sp.random_array((200, 12), density=0.3, rng=rng, format="csc", dtype=np.float32)
    X.data = np.round(X.data * 4 - 2, 1)
    dense = X.toarray()
    y = np.abs(dense[:, 0] + dense[:, 1] + rng.normal(size=200))
    target = y if criterion in REGRESSION else (y > 1).astype(int)
    for params in ({}, {"max_features": 4}, {"max_leaf_nodes": 9}):
        ours, theirs = _compare(X, target, criterion=criterion, splitter=splitter, **params)
        np.testing.assert_array_equal(ours.predict(X.tocsr()), theirs.predict(X.tocsr()))
        assert (ours.decision_path(X.tocsr()) != theirs.decision_path(X.tocsr())).nnz == 0


def test_trees_on_known_data_are_equal() -> None:
    for data, criterion in itertools.product((load_iris, load_digits), CLASSIFICATION):
        X, y = data(return_X_y=True)
        _compare(X, y, criterion=criterion)
        _compare(X, y, criterion=criterion, max_features="sqrt", class_weight="balanced")
    X, y = load_diabetes(return_X_y=True)
    for criterion in REGRESSION:
        _compare(X, y, criterion=criterion)


def test_trees_of_many_rows_are_equal() -> None:
    # Nodes of presorted columns with rare equal values, with many, and small ones.
    rng = np.random.default_rng(5)
    X = rng.normal(size=(6000, 5)).astype(np.float32)
    X[:, 0] = np.sort(X[:, 0])[::-1]
    X[:, 1] = np.round(X[:, 1] * 3)
    y = X[:, 2] * X[:, 3] + rng.normal(size=len(X))
    _compare(X, y, criterion="squared_error")
    _compare(X, (y > 0).astype(int), criterion="gini")
    _compare(X, (y > 0).astype(int), criterion="gini", max_leaf_nodes=200)


def test_column_layout_and_type_change_nothing() -> None:
    X, classes, _ = _mixed()
    expected = DecisionTreeClassifier(random_state=0).fit(X, classes).tree_
    for layout in (np.asfortranarray(X), X.astype(np.float32), np.repeat(X, 2, axis=0)[::2], X.tolist()):
        _same(DecisionTreeClassifier(random_state=0).fit(layout, classes).tree_, expected)


def test_zeros_of_both_signs_are_equal() -> None:
    X = np.array([[-0.0], [0.0], [-0.0], [1.0], [0.0], [1.0]] * 5)
    y = np.tile([0, 1, 0, 1, 1, 1], 5)
    _compare(X, y, criterion="gini")


def test_values_that_hardly_differ_are_not_told_apart() -> None:
    X = np.array([[0.0], [5e-8], [1e-7], [1.0], [1.0 + 2e-7], [3.0]])
    _compare(X, [0, 1, 0, 1, 0, 1], criterion="gini")


@pytest.mark.parametrize("criterion", CLASSIFICATION + REGRESSION)
@pytest.mark.parametrize("max_leaf_nodes", [None, 25])
def test_pruning_is_equal(criterion: str, max_leaf_nodes: int | None) -> None:
    X, classes, y = _mixed(seed=6)
    target = y if criterion in REGRESSION else classes
    ours, theirs = _compare(X, target, criterion=criterion, max_leaf_nodes=max_leaf_nodes)
    path, their_path = (t.cost_complexity_pruning_path(X, target) for t in (ours, theirs))
    np.testing.assert_array_equal(path.ccp_alphas, their_path.ccp_alphas)
    np.testing.assert_array_equal(path.impurities, their_path.impurities)
    for alpha in path.ccp_alphas[:: max(1, len(path.ccp_alphas) // 5)]:
        _compare(X, target, criterion=criterion, max_leaf_nodes=max_leaf_nodes, ccp_alpha=abs(alpha))


@kernel()
def _sort(values, samples, stack):
    introsort(values, samples, np.int64(0), np.int64(len(values)), stack)


def _deep() -> np.ndarray:
    """Values that lead the median of three astray, so that quicksort goes too deep."""
    n = 2048
    order = [0.0] * n
    for i in range(n // 2):
        order[i] = float(i if i % 2 else n // 2 + i)
        order[n // 2 + i] = 2.0 * i + 1
    return np.array(order, np.float32)


@pytest.mark.parametrize("kind", ["continuous", "few values", "one value", "sorted", "reversed", "deep"])
def test_rows_are_sorted_by_the_same_moves(kind: str) -> None:
    rng = np.random.default_rng(0)
    for n in (1, 2, 15, 16, 17, 100, 1000):
        values = {
            "continuous": rng.normal(size=n),
            "few values": rng.integers(0, 4, n),
            "one value": np.ones(n),
            "sorted": np.sort(rng.integers(0, 50, n)),
            "reversed": np.sort(rng.integers(0, 50, n))[::-1],
            "deep": _deep(),
        }[kind].astype(np.float32)
        mine, their = values.copy(), values.copy()
        my_rows = np.arange(len(values), dtype=np.int32)
        their_rows = np.arange(len(values))
        _sort(mine, my_rows, np.empty(SORT_STACK, np.int64))
        _py_simultaneous_sort(their, their_rows, len(values), use_three_way_partition=True)
        np.testing.assert_array_equal(mine, their)
        np.testing.assert_array_equal(my_rows, their_rows)


def test_classes_keep_their_type_and_order() -> None:
    X, classes, _ = _mixed()
    names = np.array(["low", "high", "middle"])[classes]
    ours, theirs = _compare(X, names, criterion="gini", max_depth=3)
    np.testing.assert_array_equal(ours.classes_, theirs.classes_)
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
    np.testing.assert_array_equal(ours.predict_proba(X), theirs.predict_proba(X))
    with np.errstate(divide="ignore"):
        np.testing.assert_array_equal(ours.predict_log_proba(X), theirs.predict_log_proba(X))


@pytest.mark.parametrize("criterion", ["gini", "squared_error"])
def test_exports_are_equal(criterion: str) -> None:
    X, classes, y = _mixed()
    several = np.c_[classes, classes > 0] if criterion == "gini" else np.c_[y, -y]
    names = [f"column {j}" for j in range(7)]
    for target in (y if criterion in REGRESSION else classes, several):
        ours, theirs = _compare(X, target, criterion=criterion, max_depth=3)
        for options in (
            {},
            {"max_depth": 1, "filled": True, "rounded": True, "feature_names": names},
            {"proportion": True, "node_ids": True, "label": "root", "special_characters": True},
            {"leaves_parallel": True, "rotate": True, "impurity": False, "precision": 1, "filled": True},
        ):
            text = export_graphviz(ours, **options)
            assert text == sklearn.tree.export_graphviz(theirs, **options)
    ours, theirs = _compare(X, y if criterion in REGRESSION else classes, criterion=criterion, max_depth=4)
    for options in ({}, {"max_depth": 1, "spacing": 1}, {"decimals": 4, "feature_names": names}):
        assert export_text(ours, **options) == sklearn.tree.export_text(theirs, **options)
    if criterion == "gini":
        weights = {"show_weights": True, "class_names": ["a", "b", "c"]}
        assert export_text(ours, **weights) == sklearn.tree.export_text(theirs, **weights)


def test_plots_say_the_same() -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    X, classes, _ = _mixed()
    ours, theirs = _compare(X, classes, criterion="gini", max_depth=4)
    figure, axes = plt.subplots(1, 2)
    for options in (
        {},
        {"max_depth": 2, "filled": True, "class_names": True},
        {"rounded": True, "fontsize": 7},
    ):
        mine = plot_tree(ours, ax=axes[0], **options)
        their = sklearn.tree.plot_tree(theirs, ax=axes[1], **options)
        assert [a.get_text() for a in mine] == [a.get_text() for a in their]
        boxes = [a for a in mine if a.get_bbox_patch() is not None]
        places = [(round(x, 6), round(y, 6)) for x, y in (a.get_position() for a in boxes)]
        assert len(set(places)) == len(places), "no two nodes stand in one place"
    plt.close(figure)


def test_absolute_errors_against_medians_by_hand() -> None:
    # Three rows of weights 3, 2 and 1: the weighted median of 1, 2, 10 is between 1 and 2.
    tree = DecisionTreeRegressor(criterion="absolute_error", max_depth=1)
    tree.fit([[0], [0], [0]], [1.0, 2.0, 10.0], sample_weight=[3.0, 2.0, 1.0])
    assert tree.tree_.value.item() == 1.5
    assert tree.tree_.impurity.item() == (3 * 0.5 + 2 * 0.5 + 1 * 8.5) / 6
