"""SHAP values of tree models, beside sums over all sets of features written out from the definition."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import KNeighborsClassifier

from fullspan.core.errors import ConfigError
from fullspan.estimators import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    BaggingRegressor,
    DecisionTreeClassifier,
    DecisionTreeRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    XGBRegressor,
    shap_interaction_values,
    shap_values,
)
from fullspan.estimators.tree import Tree

RNG = np.random.default_rng(0)
N_FEATURES = 4
X = RNG.normal(size=(60, N_FEATURES)).round(1)
SIGNAL = X[:, 0] * X[:, 1] + np.where(X[:, 2] > 0, X[:, 3], 1.0)
CLASSES = np.digitize(SIGNAL, [0.0, 1.0])
WEIGHT = RNG.uniform(0.2, 3.0, 60)
ROWS = X[:3].astype(np.float32)


def expected_value(tree: Tree, values: np.ndarray, x: np.ndarray, known: frozenset[int], node: int) -> Any:
    """What a tree says when only some features are known."""
    left, right = int(tree.children_left[node]), int(tree.children_right[node])
    if left < 0:
        return values[node]
    feature = int(tree.feature[node])
    if feature in known:
        child = left if goes_left(tree, node, x[feature]) else right
        return expected_value(tree, values, x, known, child)
    cover = tree.weighted_n_node_samples
    return sum(
        cover[child] / cover[node] * expected_value(tree, values, x, known, child) for child in (left, right)
    )


def goes_left(tree: Tree, node: int, value: float) -> bool:
    if np.isnan(value):
        return bool(tree.missing_go_to_left[node])
    if tree.category_start is None or tree.category_words is None:
        return bool(value <= tree.threshold[node])
    words = tree.category_words[tree.category_start[node] : tree.category_start[node + 1]]
    if not len(words):
        return bool(value <= tree.threshold[node])
    return bool(int(words[int(value) // 64]) >> (int(value) % 64) & 1)


def subsets(features: list[int]) -> Iterator[frozenset[int]]:
    for size in range(len(features) + 1):
        yield from (frozenset(chosen) for chosen in combinations(features, size))


def by_definition(say: Callable[[frozenset[int]], np.ndarray], n: int) -> tuple[np.ndarray, np.ndarray]:
    """SHAP values and interactions [n_outputs, n + 1 (, n + 1)] of a game among n features."""
    answers = {known: np.atleast_1d(say(known)) for known in subsets(list(range(n)))}
    n_outputs = len(answers[frozenset()])
    values, pairs = np.zeros((n_outputs, n + 1)), np.zeros((n_outputs, n + 1, n + 1))
    for i in range(n):
        for known in subsets([f for f in range(n) if f != i]):
            share = math.factorial(len(known)) * math.factorial(n - len(known) - 1) / math.factorial(n)
            values[:, i] += share * (answers[known | {i}] - answers[known])
    for i, j in combinations(range(n), 2):
        for known in subsets([f for f in range(n) if f not in (i, j)]):
            share = math.factorial(len(known)) * math.factorial(n - len(known) - 2)
            share /= 2 * math.factorial(n - 1)
            both = answers[known | {i, j}] - answers[known | {i}] - answers[known | {j}] + answers[known]
            pairs[:, i, j] += share * both
    pairs += pairs.transpose(0, 2, 1)
    values[:, n] = answers[frozenset()]
    diagonal = np.arange(n + 1)
    pairs[:, diagonal, diagonal] = values - pairs.sum(axis=2)
    return values, pairs


def tree_says(model: Any, x: np.ndarray, known: frozenset[int]) -> np.ndarray:
    tree = model.tree_
    return expected_value(tree, tree.value.reshape(tree.node_count, -1), x, known, 0)


def mean_says(model: Any, x: np.ndarray, known: frozenset[int]) -> np.ndarray:
    return np.mean([tree_says(tree, x, known) for tree in model.estimators_], axis=0)


def bag_says(model: Any, x: np.ndarray, known: frozenset[int]) -> np.ndarray:
    answers = []
    for tree, features in zip(model.estimators_, model.estimators_features_, strict=True):
        seen = frozenset(place for place, feature in enumerate(features) if feature in known)
        answers.append(tree_says(tree, x[features], seen))
    return np.mean(answers, axis=0)


def stages_say(model: Any, x: np.ndarray, known: frozenset[int]) -> np.ndarray:
    start = model._first_raw(x[None])[0]
    return start + model.learning_rate * np.array(
        [sum(tree_says(tree, x, known)[0] for tree in column) for column in model.estimators_.T]
    )


def votes_say(model: Any, x: np.ndarray, known: frozenset[int]) -> np.ndarray:
    total = np.zeros(model.n_classes_)
    for tree, weight in zip(model.estimators_, model.estimator_weights_, strict=False):
        says = tree.tree_.value[:, 0].argmax(axis=1)
        votes = np.where(
            says[:, None] == np.arange(model.n_classes_), weight, -weight / (model.n_classes_ - 1)
        )
        total += expected_value(tree.tree_, votes, x, known, 0)
    total /= model.estimator_weights_.sum()
    return total[1:] - total[:1] if model.n_classes_ == 2 else total


FEW: dict[str, Any] = {"n_estimators": 3, "random_state": 0}
SMALL: dict[str, Any] = {"max_depth": 4, "random_state": 0}
MODELS = {
    "classes": (DecisionTreeClassifier(**SMALL), CLASSES, "predict_proba", tree_says),
    "numbers": (DecisionTreeRegressor(**SMALL), SIGNAL, "predict", tree_says),
    "targets": (DecisionTreeRegressor(**SMALL), np.stack([SIGNAL, X[:, 1]], 1), "predict", tree_says),
    "forest": (RandomForestClassifier(**FEW, max_depth=4), CLASSES, "predict_proba", mean_says),
    "forest-numbers": (RandomForestRegressor(**FEW, max_depth=4), SIGNAL, "predict", mean_says),
    "bag": (
        BaggingClassifier(DecisionTreeClassifier(max_depth=3), 3, max_features=3, random_state=1),
        CLASSES,
        "predict_proba",
        bag_says,
    ),
    "bag-numbers": (
        BaggingRegressor(DecisionTreeRegressor(max_depth=3), 3, bootstrap_features=True, random_state=1),
        SIGNAL,
        "predict",
        bag_says,
    ),
    "friedman": (GradientBoostingRegressor(**FEW, loss="huber"), SIGNAL, "predict", stages_say),
    "friedman-two": (GradientBoostingClassifier(**FEW), CLASSES > 0, "decision_function", stages_say),
    "friedman-three": (GradientBoostingClassifier(**FEW), CLASSES, "decision_function", stages_say),
    "friedman-zero": (GradientBoostingRegressor(**FEW, init="zero"), SIGNAL, "predict", stages_say),
    "adaboost-two": (AdaBoostClassifier(**FEW), CLASSES > 0, "decision_function", votes_say),
    "adaboost-three": (
        AdaBoostClassifier(DecisionTreeClassifier(max_depth=2), **FEW),
        CLASSES,
        "decision_function",
        votes_say,
    ),
}


@pytest.mark.parametrize("name", list(MODELS))
def test_values_and_interactions_by_the_definition(name: str) -> None:
    model, y, method, says = MODELS[name]
    model.fit(X, y, sample_weight=WEIGHT)
    values, pairs = shap_values(model, ROWS), shap_interaction_values(model, ROWS)
    np.testing.assert_allclose(values.sum(axis=-1), getattr(model, method)(ROWS), atol=1e-12)
    for row, x in enumerate(ROWS):
        wanted, wanted_pairs = by_definition(lambda known, x=x: says(model, x, known), N_FEATURES)
        np.testing.assert_allclose(values[row], wanted.reshape(values[row].shape), atol=1e-12)
        np.testing.assert_allclose(pairs[row], wanted_pairs.reshape(pairs[row].shape), atol=1e-12)


def test_missing_and_categorical_values() -> None:
    table = pd.DataFrame(
        {
            "kind": pd.Categorical(np.array(list("abcdefg"))[np.arange(60) % 7]),
            "x": np.where(X[:, 1] > 1, np.nan, X[:, 1]),
            "colour": pd.Categorical(np.array(["red", "green", None], dtype=object)[CLASSES]),
        }
    )
    y = SIGNAL + 3 * (table["kind"].isin(["a", "d", "f"]))
    tree = DecisionTreeRegressor(max_depth=4, categorical_features="from_dtype", random_state=0).fit(table, y)
    assert tree.tree_.category_words is not None and len(tree.tree_.category_words) > 1
    rows = table.head(12).copy()
    values = shap_values(tree, rows)
    np.testing.assert_allclose(values.sum(axis=1), tree.predict(rows), atol=1e-12)
    for row, x in enumerate(tree._validate_X_predict(rows, True)):
        wanted, _ = by_definition(lambda known, x=x: tree_says(tree, x, known), 3)
        np.testing.assert_allclose(values[row], wanted[0], atol=1e-12)


def test_sparse_rows_count_as_dense_ones() -> None:
    rare = np.where(np.abs(X) > 0.7, X, 0.0)
    for model in (
        DecisionTreeClassifier(**SMALL),
        RandomForestClassifier(**FEW),
        GradientBoostingClassifier(**FEW),
        BaggingClassifier(**FEW),
        AdaBoostClassifier(**FEW),
    ):
        model.fit(rare, CLASSES)
        np.testing.assert_array_equal(shap_values(model, sparse.csc_array(rare)), shap_values(model, rare))


def test_several_targets_of_classes_are_a_list() -> None:
    model = RandomForestClassifier(**FEW).fit(X, np.stack([CLASSES, CLASSES > 0], axis=1))
    values, probabilities = shap_values(model, ROWS), model.predict_proba(ROWS)
    assert [each.shape for each in values] == [(3, 3, N_FEATURES + 1), (3, 2, N_FEATURES + 1)]
    for each, wanted in zip(values, probabilities, strict=True):
        np.testing.assert_allclose(each.sum(axis=-1), wanted, atol=1e-12)


def test_thresholds_between_float32_numbers() -> None:
    pair = np.array([[4.0], [np.nextafter(np.float32(4), np.float32(5))]], np.float32)
    tree = DecisionTreeRegressor().fit(pair, [0.0, 1.0])
    assert float(np.float32(tree.tree_.threshold[0])) != tree.tree_.threshold[0]  # the middle
    assert shap_values(tree, pair).tolist() == [[-0.5, 0.5], [0.5, 0.5]]


def test_models_of_one_leaf_and_of_one_class() -> None:
    alone = np.zeros(60)
    for model in (DecisionTreeClassifier(), AdaBoostClassifier(n_estimators=2), RandomForestRegressor(2)):
        model.fit(X, alone)
        values = shap_values(model, ROWS)
        assert not values[..., :-1].any()
        assert shap_interaction_values(model, ROWS).shape == (*values.shape, N_FEATURES + 1)


def test_xgb_models_explain_themselves() -> None:
    model = XGBRegressor(n_estimators=2, max_depth=2).fit(X, SIGNAL)
    np.testing.assert_array_equal(shap_values(model, ROWS), model.shap_values(ROWS))
    np.testing.assert_array_equal(shap_interaction_values(model, ROWS), model.shap_interaction_values(ROWS))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (LinearRegression(), "LinearRegression"),
        (AdaBoostRegressor(n_estimators=2), "AdaBoostRegressor"),
        (BaggingClassifier(KNeighborsClassifier(), 2), "KNeighborsClassifier"),
        (
            GradientBoostingRegressor(init=LinearRegression(), n_estimators=2),
            "begins with a LinearRegression",
        ),
    ],
)
def test_what_is_no_sum_of_trees_is_refused(model: Any, message: str) -> None:
    model.fit(X, CLASSES)
    with pytest.raises(ConfigError, match=message) as refused:
        shap_values(model, ROWS)
    assert refused.value.hint
