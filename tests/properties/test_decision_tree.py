"""What holds for every decision tree, whatever the data."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fullspan.estimators import DecisionTreeClassifier, DecisionTreeRegressor
from fullspan.estimators.tree.categories import CategoryEncoder

TABLES = st.tuples(st.integers(2, 40), st.integers(1, 4), st.integers(2, 6), st.integers(0, 2**31))


def _table(shape: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows with many equal values, some missing; classes; whole numbers, so that sums are exact."""
    n, n_features, n_values, seed = shape
    rng = np.random.default_rng(seed)
    X = rng.integers(0, n_values, (n, n_features)).astype(np.float32)
    X[rng.random(X.shape) < 0.1] = np.nan
    return X, rng.integers(0, 3, n), rng.integers(0, 20, n).astype(float)


@settings(max_examples=40, deadline=None)
@given(TABLES, st.sampled_from([None, 3, 8]))
def test_nodes_part_the_rows(shape: tuple[int, int, int, int], max_leaf_nodes: int | None) -> None:
    X, _, y = _table(shape)
    model = DecisionTreeRegressor(random_state=0, max_leaf_nodes=max_leaf_nodes).fit(X, y)
    tree = model.tree_
    path = model.decision_path(X).toarray().astype(bool)
    np.testing.assert_array_equal(path.sum(axis=0), tree.n_node_samples)
    for node in np.flatnonzero(tree.children_left >= 0):
        left, right = tree.children_left[node], tree.children_right[node]
        assert tree.n_node_samples[node] == tree.n_node_samples[left] + tree.n_node_samples[right]
        assert min(tree.n_node_samples[[left, right]]) > 0
    for node in range(tree.node_count):
        assert tree.value[node].item() == pytest.approx(y[path[:, node]].mean(), rel=1e-12)
        assert tree.impurity[node] == pytest.approx(y[path[:, node]].var(), abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(TABLES)
def test_weights_are_repetitions(shape: tuple[int, int, int, int]) -> None:
    X, classes, y = _table(shape)
    weight = np.random.default_rng(shape[3]).integers(0, 4, len(X))
    weight[0] = 1
    for model, target in ((DecisionTreeClassifier, classes), (DecisionTreeRegressor, y)):
        present = np.isin(target, target[weight > 0])
        rows, target, times = X[present], target[present], weight[present]
        weighted = model(random_state=0).fit(rows, target, times.astype(float)).tree_
        repeated = model(random_state=0).fit(rows.repeat(times, axis=0), target.repeat(times)).tree_
        np.testing.assert_array_equal(weighted.feature, repeated.feature)
        np.testing.assert_array_equal(weighted.threshold, repeated.threshold)
        np.testing.assert_allclose(weighted.value, repeated.value, rtol=1e-12)


@settings(max_examples=40, deadline=None)
@given(TABLES, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(shape: tuple[int, int, int, int], random: Any) -> None:
    X, classes, y = _table(shape)
    order = list(range(len(X)))
    random.shuffle(order)
    for model, target in ((DecisionTreeClassifier, classes), (DecisionTreeRegressor, y)):
        first = model(random_state=1).fit(X, target).tree_
        second = model(random_state=1).fit(X[order], target[order]).tree_
        np.testing.assert_array_equal(first.feature, second.feature)
        np.testing.assert_array_equal(first.threshold, second.threshold)
        np.testing.assert_array_equal(first.value, second.value)


@settings(max_examples=40, deadline=None)
@given(TABLES)
def test_dense_and_sparse_rows_give_one_tree(shape: tuple[int, int, int, int]) -> None:
    import scipy.sparse as sp

    X, classes, _ = _table(shape)
    X = np.nan_to_num(X) - 2
    dense = DecisionTreeClassifier(random_state=0).fit(X, classes)
    sparse = DecisionTreeClassifier(random_state=0).fit(sp.csc_matrix(X), classes)
    np.testing.assert_array_equal(dense.tree_.threshold, sparse.tree_.threshold)
    np.testing.assert_array_equal(dense.predict(X), sparse.predict(sp.csr_matrix(X)))


def _impurity(model: Any, target: np.ndarray) -> float:
    """Times the number of rows."""
    if isinstance(model, DecisionTreeRegressor):
        return float(len(target) * target.var()) if len(target) else 0.0
    shares = np.bincount(target) / max(1, len(target))
    return float(len(target) * (1 - (shares**2).sum()))


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 40), st.integers(2, 7), st.integers(0, 2**31))
def test_categorical_splits_are_the_best_of_all_subsets(n: int, n_categories: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    X = rng.integers(0, n_categories, (n, 1))
    cases: list[tuple[Any, np.ndarray]] = [
        (DecisionTreeRegressor, rng.normal(size=n)),
        (DecisionTreeClassifier, rng.integers(0, 2, n)),
    ]
    for kind, target in cases:
        model = kind(max_depth=1, categorical_features=[0]).fit(X, target)
        present = np.unique(X)
        best = _impurity(model, target)
        for size in range(1, len(present)):
            for subset in itertools.combinations(present, size):
                inside = np.isin(X[:, 0], subset)
                best = min(best, _impurity(model, target[inside]) + _impurity(model, target[~inside]))
        leaves = model.apply(X)
        reached = sum(_impurity(model, target[leaves == leaf]) for leaf in np.unique(leaves))
        assert reached == pytest.approx(best, abs=1e-9)


def test_categories_by_name_and_by_dtype() -> None:
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    colors = rng.choice(["red", "green", "blue", "grey"], 200)
    size = rng.normal(size=200)
    y = np.isin(colors, ["red", "grey"]) * 2.0 + (size > 0)
    table = pandas.DataFrame({"color": pandas.Categorical(colors), "size": size})
    by_dtype = DecisionTreeRegressor(categorical_features="from_dtype").fit(table, y)
    by_name = DecisionTreeRegressor(categorical_features=["color"]).fit(table.astype({"color": str}), y)
    by_mask = DecisionTreeRegressor(categorical_features=[True, False]).fit(
        np.column_stack([colors.astype(object), size.astype(object)]), y
    )
    for model in (by_dtype, by_name):
        assert model.get_n_leaves() == 4
        assert list(model.feature_names_in_) == ["color", "size"]
        np.testing.assert_array_equal(model.predict(table), y)
    np.testing.assert_array_equal(by_mask.predict(table.to_numpy()), y)
    assert list(by_dtype.categories_[0]) == ["blue", "green", "grey", "red"]
    assert by_dtype.categories_[1] is None


def test_unknown_and_missing_categories_go_where_missing_ones_went() -> None:
    X = np.array([["a"], ["a"], ["b"], ["b"], [None], [None], [None]], dtype=object)
    y = np.array([0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    model = DecisionTreeRegressor(categorical_features=[0]).fit(X, y)
    assert list(model.predict([["a"], ["b"], [None], [np.nan], ["c"]])) == [0.0, 1.0, 1.0, 1.0, 1.0]
    # Without any in the data, to the side with more rows.
    model = DecisionTreeRegressor(categorical_features=[0]).fit([*X[:4].tolist(), ["b"]], [0, 0, 1, 1, 1])
    assert list(model.predict([["a"], ["b"], [None], ["c"]])) == [0.0, 1.0, 1.0, 1.0]


def test_many_classes_and_categories_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    X = rng.integers(0, 300, (3000, 1))
    groups = rng.integers(0, 5, 300)
    y = groups[X[:, 0]]
    model = DecisionTreeClassifier(categorical_features=[0], random_state=0).fit(X, y)
    assert model.score(X, y) == 1.0
    assert model.get_n_leaves() == 5
    # As numbers, the same categories need a leaf for nearly each.
    assert DecisionTreeClassifier(random_state=0).fit(X, y).get_n_leaves() > 150


def test_categories_survive_saving_and_pruning(tmp_path: Any) -> None:
    from fullspan import estimators

    rng = np.random.default_rng(0)
    X = np.column_stack([rng.integers(0, 100, 500), rng.normal(size=500)])
    y = np.sin(X[:, 0]) + X[:, 1] + rng.normal(size=500) / 3
    full = DecisionTreeRegressor(categorical_features=[0], random_state=0).fit(X, y)
    pruned = DecisionTreeRegressor(categorical_features=[0], random_state=0, ccp_alpha=0.02).fit(X, y)
    grown_best_first = DecisionTreeRegressor(categorical_features=[0], max_leaf_nodes=9).fit(X, y)
    assert 1 < pruned.get_n_leaves() < full.get_n_leaves()
    for model in (full, pruned, grown_best_first):
        leaves = model.apply(X)
        for leaf in np.unique(leaves):
            assert model.tree_.value[leaf].item() == pytest.approx(y[leaves == leaf].mean(), rel=1e-9)
        model.save(tmp_path / "tree")
        np.testing.assert_array_equal(estimators.load(tmp_path / "tree").predict(X), model.predict(X))
    encoder = CategoryEncoder([0]).fit(X)
    assert encoder.n_categories().tolist() == [100, 0]
