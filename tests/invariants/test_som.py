"""What holds for every map: MiniSom's own expectations, and those of the options that it lacks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fullspan.core.partitions import LocalPartitions
from fullspan.estimators import SelfOrganizingMap, load
from fullspan.estimators.som import grid
from fullspan.estimators.som.batch import fit_partitions
from fullspan.estimators.som.grid import Grid
from fullspan.estimators.som.plotting import plot_clusters, plot_components, plot_hits, plot_u_matrix

RNG = np.random.default_rng(0)
X = RNG.normal(size=(80, 3))
TWO = np.array([[4.0, 2.0], [3.0, 1.0]])


def with_weights(weights: Any, **options: Any) -> SelfOrganizingMap:
    """A map that is fitted but has the weights given."""
    weights = np.asarray(weights, dtype=float)
    x, y, n_features = weights.shape
    som = SelfOrganizingMap(x, y, max_iter=1, **options).fit(np.zeros((1, n_features)))
    som.weights_ = weights
    return som


def test_decays_at_start_and_end() -> None:
    assert grid.asymptotic_decay(1.0, 2, 3) == 1 / (1 + 2 / 1.5)
    assert grid.inverse_decay_to_zero(1.0, 2, 3) == pytest.approx(0.03 / 2.03)
    assert grid.linear_decay_to_zero(1.0, 2, 3) == pytest.approx(1 / 3)
    assert grid.exponential_decay(2.0, 3, 3) == pytest.approx(0.02)
    for to_one in (grid.inverse_decay_to_one, grid.linear_decay_to_one, grid.exponential_decay_to_one):
        assert to_one(5.0, 0, 3) == 5.0
        assert to_one(5.0, 3, 3) == pytest.approx(1.0)
    assert grid.constant(2.0, 1, 3) == 2.0


@pytest.mark.parametrize("kind", ["gaussian", "mexican_hat", "bubble", "triangle"])
@pytest.mark.parametrize("hexagonal", [False, True])
def test_neighborhoods_peak_at_the_winner_and_are_symmetric(kind: str, hexagonal: bool) -> None:
    near = Grid(5, 5, hexagonal, False).neighborhoods(kind, 1.0, range(25))
    assert (near.diagonal() == 1.0).all() and (near.argmax(axis=1) == np.arange(25)).all()
    np.testing.assert_array_equal(near, near.T)
    if kind in ("bubble", "triangle") and not hexagonal:
        assert near.sum() == 25  # of width 1: the winner alone


@pytest.mark.parametrize("hexagonal", [False, True])
def test_neighbors_are_the_units_next_to_each_other(hexagonal: bool) -> None:
    flat, torus = (Grid(4, 6, hexagonal, periodic) for periodic in (False, True))
    apart = np.linalg.norm(flat.positions()[:, None] - flat.positions(), axis=2)
    next_to = (apart > 0) & (apart < (1.01 if hexagonal else 1.42))
    assert [set(row[row >= 0]) for row in flat.neighbors()] == [set(np.flatnonzero(row)) for row in next_to]
    assert (torus.neighbors() >= 0).all()  # no edges
    # Neighbours of the torus are what a bubble around each unit holds.
    bubble = torus.neighborhoods("bubble", 1.1, range(24)) - np.eye(24)
    assert [set(row) for row in torus.neighbors()] == [set(np.flatnonzero(row)) for row in bubble]
    # A ring of two: the other unit, once.
    assert [row[row >= 0].tolist() for row in Grid(2, 1, False, True).neighbors()] == [[1], [0]]


def test_measures_of_given_weights() -> None:
    weights = np.zeros((5, 5, 1))
    weights[2, 3], weights[1, 1] = 5.0, 2.0
    som = with_weights(weights)
    assert som.winners([[5.0], [2.0]]).tolist() == [[2, 3], [1, 1]]
    assert som.quantization([[4.0], [2.0]]).tolist() == [[5.0], [2.0]]
    assert som.win_map([[5.0], [2.0]]) == {(2, 3): [0], (1, 1): [1]}
    assert som.labels_map([[5.0], [2.0], [5.0]], ["a", "b", "a"]) == {(2, 3): {"a": 2}, (1, 1): {"b": 1}}
    assert som.activation_response([[5.0], [2.0]]).sum() == 2
    assert som.quantization_error([[5.0], [2.0]]) == 0.0
    assert som.quantization_error([[4.0], [1.0]]) == 1.0
    rows = np.arange(-5.0, 5.0).reshape(-1, 1)
    assert np.array_equal(som.transform(rows), np.abs(rows - weights.reshape(1, -1)))


@pytest.mark.parametrize("topology", ["rectangular", "hexagonal"])
def test_topographic_error_counts_rows_between_distant_units(topology: str) -> None:
    weights = np.zeros((5, 5, 1))
    weights[4, 4], weights[0, 0], weights[2, 2], weights[2, 3] = 15.0, 14.0, 10.0, 9.0
    som = with_weights(weights, topology=topology)
    assert som.topographic_error([[10.0]]) == 0.0
    assert som.topographic_error([[15.0]]) == 1.0
    assert som.topographic_error([[10.0], [15.0]]) == 0.5
    around = with_weights(weights[:, [4, 0, 1, 2, 3, 3]], topology=topology, boundary="toroidal")
    assert around.topographic_error([[15.0]]) == (0.0 if topology == "rectangular" else 1.0)
    assert np.isnan(with_weights(weights[:1, :1]).topographic_error([[1.0]]))


def test_distance_map() -> None:
    stripes = [[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]]
    np.testing.assert_allclose(with_weights(stripes).distance_map(), [[1.0, 1.0], [1.0, 1.0]])
    hexagons = with_weights(stripes, topology="hexagonal").distance_map()
    np.testing.assert_allclose(hexagons, [[0.5, 1.0], [1.0, 0.5]])
    chess = with_weights(np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]])[:, :, None])
    expected = np.array([[2 / 3, 3 / 5, 2 / 3], [3 / 5, 4 / 8, 3 / 5], [2 / 3, 3 / 5, 2 / 3]])
    np.testing.assert_allclose(chess.distance_map("mean"), expected / expected.max())
    assert with_weights(np.ones((2, 2, 1))).distance_map().tolist() == [[0.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize("kind", ["gaussian", "mexican_hat", "bubble", "triangle"])
@pytest.mark.parametrize("algorithm", ["online", "batch"])
@pytest.mark.parametrize("distance", ["euclidean", "cosine", "manhattan", "chebyshev"])
def test_training_brings_units_nearer(kind: str, algorithm: str, distance: str) -> None:
    start = RNG.normal(size=(5, 5, 3)) + 4
    options: dict[str, Any] = {"neighborhood_function": kind, "activation_distance": distance, "sigma": 1.0}
    som = SelfOrganizingMap(5, 5, algorithm=algorithm, max_iter=5, init=start, random_state=0, **options).fit(
        X
    )
    assert np.isfinite(som.weights_).all()
    assert som.quantization_error_ < with_weights(start, activation_distance=distance).quantization_error(X)


def test_fixed_points_win_their_rows() -> None:
    for algorithm in ("online", "batch"):
        som = SelfOrganizingMap(5, 5, algorithm=algorithm, max_iter=20, sigma=1.0, init=np.zeros((5, 5, 2)))
        som.fit(TWO, fixed_points={0: (0, 0), 1: (4, 4)})
        assert som.winners(TWO).tolist() == [[0, 0], [4, 4]]


def test_batch_does_not_depend_on_the_order_of_rows_nor_on_threads() -> None:
    many = RNG.normal(size=(9000, 3))
    one = SelfOrganizingMap(9, 8, max_iter=3, n_jobs=1).fit(many)
    two = SelfOrganizingMap(9, 8, max_iter=3, n_jobs=2).fit(many)
    assert np.array_equal(one.weights_, two.weights_)
    other = SelfOrganizingMap(9, 8, max_iter=3).fit(many[RNG.permutation(9000)])
    np.testing.assert_allclose(other.weights_, one.weights_, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("options", [{}, {"boundary": "toroidal"}, {"topology": "hexagonal"}])
def test_float32_takes_the_same_steps(options: dict[str, Any]) -> None:
    many = RNG.normal(size=(300, 7)).astype(np.float32)
    fits = [
        SelfOrganizingMap(8, 5, algorithm="online", max_iter=2, random_state=0, **options).fit(rows)
        for rows in (many, many.astype(np.float64))
    ]
    # 600 steps, each rounded to seven digits, that mostly forget the errors of those before.
    np.testing.assert_allclose(fits[0].weights_, fits[1].weights_, atol=2e-5)
    assert fits[0].quantization_error_ == pytest.approx(fits[1].quantization_error_, rel=1e-5)


def test_pca_spans_the_data() -> None:
    rows = RNG.normal(size=(200, 2)) * [5.0, 1.0] + [10.0, -3.0]
    with_pca = SelfOrganizingMap(6, 4, max_iter=1, sigma=1e-3, algorithm="online", learning_rate=1e-12)
    weights = with_pca.fit(rows).weights_
    np.testing.assert_allclose(weights.mean(axis=(0, 1)), rows.mean(axis=0), atol=1e-8)
    np.testing.assert_allclose(np.ptp(weights[:, 0], axis=0).max(), 2 * 5, rtol=0.15)
    # Where the map is higher than wide, its long side follows the first component.
    turned = SelfOrganizingMap(4, 6, max_iter=1, sigma=1e-3, algorithm="online", learning_rate=1e-12).fit(
        rows
    )
    np.testing.assert_allclose(turned.weights_, weights.transpose(1, 0, 2), atol=1e-8)


def test_partial_fit_goes_on_with_online_steps() -> None:
    start = RNG.normal(size=(4, 3, 3))
    options: dict[str, Any] = {
        "init": start,
        "decay_function": "constant",
        "sigma_decay_function": "constant",
    }
    som = SelfOrganizingMap(4, 3, sigma=1.5, **options)
    for rows in (X[:30], X[30:]):
        som.partial_fit(rows)
    whole = SelfOrganizingMap(4, 3, sigma=1.5, algorithm="online", max_iter=1, shuffle=False, **options).fit(
        X
    )
    np.testing.assert_allclose(som.weights_, whole.weights_, rtol=1e-12)
    assert som.n_iter_ == 2
    before = whole.quantization_error(X + 5)
    assert whole.partial_fit(X + 5).quantization_error_ < before


def test_labels_of_units_and_rows() -> None:
    X = np.repeat([[0.0, 0.0], [5.0, 5.0], [9.0, 0.0]], 10, axis=0) + RNG.normal(size=(30, 2)) / 10
    y = np.repeat(["a", "b", "c"], 10)
    som = SelfOrganizingMap(5, 4).fit(X, y)
    assert som.score(X, y) == 1.0 and som.classes_.tolist() == ["a", "b", "c"]
    assert set(som.unit_labels_.ravel()) == {"a", "b", "c"}
    assert (som.hits_ == 0).any()  # units without rows have labels too
    assert som.score(X) == -som.quantization_error_
    assert np.array_equal(som.fit_predict(X), som.labels_)
    assert not hasattr(som.fit(X), "unit_labels_") and som.predict(X).dtype == np.int64


def test_clusters_of_units_that_win_rows() -> None:
    rows = np.repeat([[0.0, 0.0], [5.0, 5.0], [9.0, 0.0]], 10, axis=0) + RNG.normal(size=(30, 2)) / 10
    som = SelfOrganizingMap(6, 5, n_clusters=3).fit(rows)
    assert [set(som.labels_[i : i + 10]) for i in (0, 10, 20)] == [{int(som.labels_[i])} for i in (0, 10, 20)]
    assert set(som.labels_) == set(som.unit_clusters_.ravel()) == {0, 1, 2}
    assert np.array_equal(som.predict(rows), som.labels_)
    with pytest.raises(ValueError, match="n_clusters must be from 1 to"):
        SelfOrganizingMap(6, 5, n_clusters=9).fit(rows[:4])


def test_partial_fit_after_labels_keeps_them(tmp_path: Any) -> None:
    som = SelfOrganizingMap(3, 3, topology="hexagonal").fit(X, X[:, 0] > 0)
    som.partial_fit(X[:5]).save(tmp_path / "map")
    loaded = load(tmp_path / "map")
    assert np.array_equal(loaded.predict(X), som.predict(X)) and loaded.predict(X).dtype == bool
    with LocalPartitions([(X[:50], None), (X[50:], None)]) as parts:
        assert not hasattr(fit_partitions(SelfOrganizingMap(3, 3), parts), "unit_labels_")


def test_pictures_have_a_shape_for_each_unit() -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    for topology, corners in (("rectangular", 5), ("hexagonal", 7)):
        som = SelfOrganizingMap(4, 3, topology=topology).fit(X, np.sign(X[:, 0]).astype(int))
        for draw in (plot_u_matrix, plot_hits, plot_clusters, lambda som: plot_clusters(som, 3)):
            axes = draw(som)
            paths = axes.collections[-1].get_paths()
            assert len(paths) == 12 and len(paths[0].vertices) == corners
            plt.close()
        assert [panel.get_title() for panel in plot_components(som, [2, 0]).axes[:2]] == ["x2", "x0"]
        plt.close()
