"""K-neighbours estimators against scikit-learn's, whose cases these follow; and matches of descriptors."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.neighbors
from scipy.sparse import csc_array, csr_array, csr_matrix
from sklearn.datasets import load_digits, load_iris, load_sample_image

from fullspan import estimators
from fullspan.core.errors import CheckpointError
from fullspan.estimators import KDTree, KNeighborsClassifier, KNeighborsRegressor, match
from fullspan.estimators.neighbors.knn import _RowTree

RNG = np.random.default_rng(0)
X, Q = RNG.normal(size=(400, 4)), RNG.normal(size=(60, 4))
VALUE = np.column_stack([X[:, 0] ** 2, X[:, 1] - X[:, 2]])
LABEL = np.column_stack([np.digitize(X[:, 0], [-0.5, 0.5]), (X[:, 1] > 0) + 5])


def inverse_squares(distances: np.ndarray) -> np.ndarray:
    return 1 / (distances**2 + 1e-3)


WEIGHTS = ["uniform", "distance", inverse_squares]


def pair(kind: str, **options: Any) -> tuple[Any, Any]:
    return getattr(estimators, kind)(**options), getattr(sklearn.neighbors, kind)(**options)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize(
    ("metric", "p"), [("minkowski", 2), ("minkowski", 1), ("minkowski", 3), ("chebyshev", 2), ("l1", 2)]
)
@pytest.mark.parametrize("algorithm", ["kd_tree", "auto", "brute"])
def test_predictions_are_scikit_learns(algorithm: str, metric: str, p: float, weights: Any) -> None:
    options = {"n_neighbors": 7, "weights": weights, "algorithm": algorithm, "metric": metric, "p": p}
    for y in (LABEL, LABEL[:, 0], np.array(list("abc"))[LABEL[:, 0]]):
        ours, theirs = (each.fit(X, y) for each in pair("KNeighborsClassifier", **options))
        assert isinstance(ours._tree, _RowTree) == (algorithm != "brute")
        assert np.array_equal(ours.predict(Q), theirs.predict(Q))
        chances = [each.predict_proba(Q) for each in (ours, theirs)]
        for a, b in zip(*(each if y.ndim == 2 else [each] for each in chances), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-12)
    for y in (VALUE, VALUE[:, 0]):
        ours, theirs = (each.fit(X, y) for each in pair("KNeighborsRegressor", **options))
        np.testing.assert_allclose(ours.predict(Q), theirs.predict(Q), rtol=1e-10)


def test_neighbours_and_graphs_are_scikit_learns() -> None:
    ours, theirs = (each.fit(X, VALUE) for each in pair("KNeighborsRegressor", n_neighbors=6))
    for rows, k in ((Q, None), (Q, 3), (None, 4), (X, 1)):
        for a, b in zip(ours.kneighbors(rows, k), theirs.kneighbors(rows, k), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
        only = ours.kneighbors(rows, k, return_distance=False)
        assert np.array_equal(only, theirs.kneighbors(rows, k, return_distance=False))
        for mode in ("connectivity", "distance"):
            difference = ours.kneighbors_graph(rows, k, mode) - theirs.kneighbors_graph(rows, k, mode)
            assert abs(difference).max() < 1e-12
    # Of rows that are there twice, another may be left out than the row itself, but never two.
    twice = KNeighborsRegressor(3).fit(np.repeat(X[:50], 5, axis=0), np.zeros(250))
    distances, indices = twice.kneighbors()
    assert (distances == 0).all() and all(len(set(row)) == 3 for row in indices)


@pytest.mark.parametrize("kind", [csr_matrix, csr_array, csc_array])
def test_sparse_rows_are_compared_one_by_one_and_saved(kind: Any, tmp_path: Path) -> None:
    rows = kind(np.where(X > 0.5, X, 0.0))
    model = KNeighborsClassifier(3).fit(rows, LABEL[:, 0])
    assert model._tree is None and np.array_equal(
        model.predict(rows),
        sklearn.neighbors.KNeighborsClassifier(3, algorithm="brute").fit(rows, LABEL[:, 0]).predict(rows),
    )
    model.save(tmp_path / "model")
    assert np.array_equal(estimators.load(tmp_path / "model").predict(rows), model.predict(rows))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert KNeighborsClassifier(3, algorithm="kd_tree").fit(rows, LABEL[:, 0])._tree is None
    with pytest.raises(ValueError, match="does not work with sparse"):
        KNeighborsClassifier(3, algorithm="kd_tree").fit(X, LABEL[:, 0]).predict(rows)


@pytest.mark.parametrize("metric", ["cosine", "precomputed", "haversine", "nan_euclidean", "own", "w"])
def test_other_metrics_go_to_scikit_learn(metric: Any) -> None:
    rows, queries = X[:, :2], Q[:, :2]
    params = {"w": [1.0, 3.0]} if metric == "w" else None
    if metric == "precomputed":
        rows, queries = (np.abs(each[:, :1] - X[:, 0]) for each in (X, Q))
    elif metric == "nan_euclidean":
        rows = np.where(rows > 1, np.nan, rows)
    named = {"own": lambda a, b: float(np.abs(a - b).max()), "w": "minkowski"}.get(metric, metric)
    ours, theirs = (
        each.fit(rows, VALUE) for each in pair("KNeighborsRegressor", metric=named, metric_params=params)
    )
    np.testing.assert_allclose(ours.predict(queries), theirs.predict(queries), rtol=1e-12)
    assert not isinstance(ours._tree, _RowTree)


def test_real_tables() -> None:
    for data, best in ((load_iris(), 0.95), (load_digits(), 0.95)):
        for algorithm in ("kd_tree", "auto"):
            model = KNeighborsClassifier(5, algorithm=algorithm).fit(data.data[::2], data.target[::2])
            assert model.score(data.data[1::2], data.target[1::2]) > best


def test_threads_and_a_change_of_mind() -> None:
    model = KNeighborsRegressor(5, n_jobs=2).fit(X, VALUE)
    assert np.array_equal(model.predict(Q), KNeighborsRegressor(5).fit(X, VALUE).predict(Q))
    assert model.algorithm == "auto"
    model.set_params(n_neighbors=1)
    np.testing.assert_allclose(model.predict(X), VALUE)
    assert KNeighborsRegressor(300).fit(X, VALUE)._tree is None  # nearly all rows: no use for a tree


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_neighbors": 0}, "n_neighbors"),
        ({"weights": "near"}, "weights"),
        ({"algorithm": "octree"}, "algorithm"),
        ({"algorithm": "kd_tree", "metric": "cosine"}, "Metric 'cosine' not valid"),
        ({"algorithm": "kd_tree", "p": 0.5}, "does not support 0 < p < 1"),
        ({"algorithm": "kd_tree", "metric_params": {"w": np.ones(4)}}, "'w'"),
    ],
)
def test_bad_parameters(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KNeighborsClassifier(**options).fit(X, LABEL)


def test_bad_tables_and_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Input X contains NaN"):
        KNeighborsClassifier().fit(np.where(X > 2, np.nan, X), LABEL)
    with pytest.raises(ValueError, match="Expected n_neighbors <= n_samples_fit"):
        KNeighborsRegressor(9).fit(X[:8], VALUE[:8]).predict(Q)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        KNeighborsRegressor().fit(X, VALUE[:10])
    with pytest.raises(ValueError, match="Unknown label type"):
        KNeighborsClassifier().fit(X, VALUE[:, 0])
    with pytest.raises(CheckpointError, match="_tree is a sklearn"):
        KNeighborsClassifier(algorithm="ball_tree").fit(X, LABEL).save(tmp_path / "model")
    rows = csr_matrix(X)
    model = KNeighborsClassifier(algorithm="brute").fit(rows, LABEL)
    model._fit_X.indices[0] = 10**6  # reads far outside if it is believed
    model.save(tmp_path / "damaged")
    with pytest.raises(CheckpointError, match="damaged"):
        estimators.load(tmp_path / "damaged")


def patches(image: np.ndarray, step: int) -> np.ndarray:
    """Plain descriptors: patches of 6 x 6 pixels."""
    windows = np.lib.stride_tricks.sliding_window_view(image, (6, 6))[::step, ::step]
    return windows.reshape(-1, 36).astype(np.float32)


def test_matches_pass_the_ratio_test_and_no_others_do() -> None:
    photograph = load_sample_image("china.jpg").mean(axis=2)[:160, :220]
    a, b = patches(photograph[:, 12:], 6), patches(photograph[:, :-12], 6)
    pairs, distances = match(a, b, ratio=0.7)
    every, where = KDTree(b).query(a, 2)
    chosen = every[:, 0] < 0.7 * every[:, 1]
    assert pairs.tolist() == [[i, where[i, 0]] for i in np.flatnonzero(chosen)]
    assert np.array_equal(distances, every[chosen, 0]) and 100 < len(pairs) < len(a)
    columns = len(range(0, 208 - 5, 6))
    shifted = pairs[:, 1] - pairs[:, 0] == 2  # 12 pixels are two steps
    inside = pairs[:, 0] % columns < columns - 2
    assert shifted[inside].mean() > 0.95
    # Two equal descriptors leave no match clear, and with a few leaves most are found.
    assert len(match(a, np.concatenate([b, b]))[0]) == 0
    few = {tuple(each) for each in match(a, b, 0.7, max_leaves=20)[0]}
    assert len(few & {tuple(each) for each in pairs}) > 0.8 * len(pairs)


@pytest.mark.parametrize(
    ("a", "b", "options", "message"),
    [
        (X, X[:1], {}, "descriptors_b has 1 rows"),
        (X, X[:, :2], {}, "descriptors_a has 4 columns, descriptors_b 2"),
        (X[0], X, {}, "descriptors_a must be a table"),
        (X, X * np.nan, {}, "must be finite"),
        (X, X, {"ratio": 0}, "ratio=0"),
        (X, X, {"ratio": 1.1}, "ratio=1.1"),
    ],
)
def test_bad_descriptors(a: Any, b: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        match(a, b, **options)
