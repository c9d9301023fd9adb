"""Self-organizing maps beside MiniSom, and beside the rule itself written out plainly."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import numpy as np
import pytest

from fullspan.core.partitions import LocalPartitions, ProcessPartitions
from fullspan.estimators import SelfOrganizingMap
from fullspan.estimators.som.batch import fit_partitions
from fullspan.estimators.som.grid import Grid

RNG = np.random.default_rng(0)
X = np.add(RNG.normal(size=(60, 4)), [3.0, 0.0, -2.0, 0.0])
WEIGHTS = RNG.normal(size=(7, 5, 4))
# Sums are taken in another order, 180 steps long: some units in the last place each.
CLOSE: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-11}


def plain_online(grid: Grid, kind: str, X: Any, weights: Any, rate: float, spread: float, epochs: int) -> Any:
    """Kohonen's rule, a step at a time; NaN are left out of distances and updates."""
    w = weights.reshape(grid.n_units, -1).copy()
    end = epochs * len(X)
    for t in range(end):
        row = X[t % len(X)]
        known = ~np.isnan(row)
        winner = int(((w[:, known] - row[known]) ** 2).sum(axis=1).argmin())
        h = plain_neighborhood(grid, kind, winner, spread / (1 + 2 * t / end))
        w[:, known] += rate / (1 + 2 * t / end) * h[:, None] * (row[known] - w[:, known])
    return w.reshape(weights.shape)


def plain_batch(grid: Grid, X: Any, weights: Any, spread: float, epochs: int) -> Any:
    """Each unit becomes the average of the known entries, weighed by the distance to their rows' winners."""
    w = weights.reshape(grid.n_units, -1)
    for t in range(epochs):
        apart = np.nansum((X[:, None, :] - w) ** 2, axis=2)
        h = np.stack([plain_neighborhood(grid, "gaussian", u, spread / (1 + 2 * t / epochs))
                      for u in apart.argmin(axis=1)])  # fmt: skip
        w = (h.T @ np.nan_to_num(X)) / (h.T @ ~np.isnan(X))
    return w.reshape(weights.shape)


def plain_neighborhood(grid: Grid, kind: str, winner: int, spread: float) -> Any:
    """From the positions of all copies of the map, where its edges meet."""
    at, height = grid.positions(), np.sqrt(0.75) if grid.hexagonal else 1.0
    copies = itertools.product((-1, 0, 1), repeat=2) if grid.periodic else [(0, 0)]
    gap = np.stack([np.abs(at - at[winner] + (i * grid.x, j * grid.y * height)) for i, j in copies])
    dx, dy = gap[(gap**2).sum(axis=2).argmin(axis=0), np.arange(grid.n_units)].T
    square = dx**2 + dy**2
    if kind == "gaussian":
        return np.exp(-square / (2 * spread**2))
    if kind == "mexican_hat":
        return np.exp(-square / (2 * spread**2)) * (1 - square / spread**2)
    if kind == "bubble":
        inside = square < spread**2 if grid.hexagonal else (dx < spread) & (dy < spread)
        return inside.astype(float)
    if grid.hexagonal:
        return np.maximum(0, 1 - np.sqrt(square) / spread)
    return np.maximum(0, 1 - dx / spread) * np.maximum(0, 1 - dy / spread)


@pytest.mark.parametrize("kind", ["gaussian", "mexican_hat", "bubble", "triangle"])
@pytest.mark.parametrize("topology", ["rectangular", "hexagonal"])
@pytest.mark.parametrize("boundary", ["planar", "toroidal"])
def test_online_steps_follow_the_rule(kind: str, topology: str, boundary: str) -> None:
    weights = WEIGHTS[:, :4]
    grid = Grid(7, 4, topology == "hexagonal", boundary == "toroidal")
    gaps = np.where(RNG.random(X.shape) < 0.2, np.nan, X)
    gaps[np.isnan(gaps).all(axis=1)] = 0.0
    for rows in (X, gaps):
        som = SelfOrganizingMap(
            7, 4, algorithm="online", max_iter=2, sigma=2.2134, sigma_decay_function="asymptotic_decay",
            learning_rate=0.3, neighborhood_function=kind, topology=topology, boundary=boundary,
            init=weights, shuffle=False,
        ).fit(rows)  # fmt: skip
        expected = plain_online(grid, kind, rows, weights, 0.3, 2.2134, 2)
        # A Mexican hat pushes what is far away further: weights, and their rounding, grow large.
        np.testing.assert_allclose(
            som.weights_, expected, rtol=1e-8 if kind == "mexican_hat" else 1e-10, atol=1e-11
        )


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_batch_epochs_follow_the_rule(dtype: Any) -> None:
    """Also where rows are far from zero, so that products in float32 cannot order the units by themselves."""
    far = np.add(X, [1e4, 0.0, 0.0, 0.0]).astype(dtype)
    weights = np.add(WEIGHTS, [1e4, 0.0, 0.0, 0.0])
    gaps = np.where(RNG.random(X.shape) < 0.2, np.nan, far).astype(dtype)
    gaps[np.isnan(gaps).all(axis=1)] = 0.0
    for rows in (far, gaps):
        som = SelfOrganizingMap(
            7, 5, max_iter=4, sigma=2.0, sigma_decay_function="asymptotic_decay", init=weights
        )
        expected = plain_batch(Grid(7, 5, False, False), rows.astype(np.float64), weights, 2.0, 4)
        np.testing.assert_allclose(som.fit(rows).weights_, expected, rtol=1e-9, atol=1e-11)


def test_the_nearest_unit_is_exactly_that_of_the_distances() -> None:
    """Equal units, and units that differ by less than float32 shows: the first of the nearest wins."""
    weights = np.repeat(WEIGHTS.reshape(35, 4), 3, axis=0) + np.tile([0.0, 1e-12, 0.0], 35)[:, None]
    rows = np.concatenate([weights + 1e-9, X, X * 1e-30, X * 1e20])
    som = SelfOrganizingMap(21, 5, max_iter=1).fit(X)
    som.weights_ = weights.reshape(21, 5, 4)
    expected = ((rows[:, None, :] - weights) ** 2).sum(axis=2).argmin(axis=1)
    found = som.predict(rows)
    exact = som.transform(rows)
    assert np.array_equal(found, exact.argmin(axis=1))
    assert (found == expected)[: len(weights) + len(X)].all()


@pytest.mark.parametrize("topology", ["rectangular", "hexagonal"])
@pytest.mark.parametrize("distance", ["euclidean", "cosine", "manhattan"])
@pytest.mark.parametrize("kind", ["gaussian", "bubble"])
def test_same_weights_as_minisom(topology: str, distance: str, kind: str) -> None:
    """Chebyshev is left out: theirs lacks the magnitude of differences."""
    minisom = pytest.importorskip("minisom")
    if topology == "hexagonal" and kind == "bubble":
        pytest.skip("their bubbles are squares on hexagonal maps too")
    options = {"sigma": 2, "learning_rate": 0.5, "topology": topology, "neighborhood_function": kind,
               "activation_distance": distance}  # fmt: skip
    ours = {**options, "sigma_decay_function": "asymptotic_decay"}
    theirs = minisom.MiniSom(7, 5, 4, random_seed=0, **options)
    start = theirs.get_weights().copy()
    theirs.train(X, 180)
    som = SelfOrganizingMap(7, 5, algorithm="online", max_iter=3, shuffle=False, init=start, **ours).fit(X)
    np.testing.assert_allclose(som.weights_, theirs.get_weights(), **CLOSE)
    np.testing.assert_allclose(som.distance_map(), theirs.distance_map(), **CLOSE)
    np.testing.assert_allclose(som.distance_map("mean"), theirs.distance_map("mean"), **CLOSE)
    assert np.array_equal(som.activation_response(X), theirs.activation_response(X))
    assert {k: sorted(v) for k, v in som.win_map(X).items()} == dict(theirs.win_map(X, return_indices=True))
    if distance == "euclidean":  # their errors are Euclidean whatever the map's distance is
        assert som.quantization_error(X) == pytest.approx(theirs.quantization_error(X))
        assert som.topographic_error(X) == pytest.approx(theirs.topographic_error(X))
        assert som.distortion_measure(X) == pytest.approx(theirs.distortion_measure(X))
    batch = minisom.MiniSom(7, 5, 4, random_seed=0, **options)
    batch.train_batch_offline(X, 5)
    np.testing.assert_allclose(SelfOrganizingMap(7, 5, max_iter=5, init=start, **ours).fit(X).weights_,
                               batch.get_weights(), **CLOSE)  # fmt: skip


def test_online_learns_as_well_as_minisom() -> None:
    minisom = pytest.importorskip("minisom")
    rows = RNG.normal(size=(500, 6)) @ RNG.normal(size=(6, 6))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = minisom.MiniSom(8, 8, 6, sigma=4, learning_rate=0.5, random_seed=1)
    theirs.random_weights_init(rows)
    theirs.train(rows, 5000, random_order=True)
    errors = [
        SelfOrganizingMap(8, 8, algorithm="online", max_iter=10, sigma=4.0, random_state=seed,
                          sigma_decay_function="asymptotic_decay").fit(rows).quantization_error_
        for seed in range(3)
    ]  # fmt: skip
    assert max(errors) < 1.05 * theirs.quantization_error(rows)


@pytest.mark.parametrize("with_gaps", [False, True])
def test_parts_in_processes_give_the_map_of_all_rows(with_gaps: bool) -> None:
    rows = np.where(RNG.random(X.shape) < 0.1, np.nan, X) if with_gaps else X
    rows[np.isnan(rows).all(axis=1)] = 0.0
    labels = np.where(X[:, 0] > 3, "high", "low")
    parts = [(rows[a:b], labels[a:b]) for a, b in ((0, 7), (7, 40), (40, 60))]
    whole = SelfOrganizingMap(5, 4, max_iter=5).fit(rows, labels)
    kind = LocalPartitions if with_gaps else ProcessPartitions
    with kind(parts) as partitions:
        som = fit_partitions(SelfOrganizingMap(5, 4, max_iter=5), partitions)
    # Sums over three parts are rounded otherwise than sums over one.
    np.testing.assert_allclose(som.weights_, whole.weights_, rtol=1e-9, atol=1e-12)
    assert np.array_equal(som.hits_, whole.hits_)
    assert np.array_equal(som.predict(rows), whole.predict(rows))
    assert som.quantization_error_ == pytest.approx(whole.quantization_error_)
