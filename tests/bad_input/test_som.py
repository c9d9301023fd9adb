"""What maps refuse, and the words they do it with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fullspan.core.errors import CheckpointError, ConfigError, DataError
from fullspan.core.partitions import LocalPartitions
from fullspan.estimators import SelfOrganizingMap, load
from fullspan.estimators.som.batch import fit_partitions
from fullspan.estimators.som.plotting import plot_clusters

X = np.random.default_rng(0).normal(size=(12, 3))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"x": 0}, "'x' parameter"),
        ({"sigma": 0.0}, "'sigma' parameter"),
        ({"learning_rate": -1.0}, "'learning_rate' parameter"),
        ({"neighborhood_function": "boom"}, "'neighborhood_function' parameter"),
        ({"activation_distance": "nowhere"}, "'activation_distance' parameter"),
        ({"decay_function": "strawberry"}, "'decay_function' parameter"),
        ({"sigma_decay_function": "strawberry"}, "'sigma_decay_function' parameter"),
        ({"topology": "triangular"}, "'topology' parameter"),
        ({"init": np.zeros((2, 2, 3))}, r"init must be finite and of shape \(4, 3, 3\)"),
        ({"init": np.full((4, 3, 3), np.nan)}, "init must be finite"),
        ({"topology": "hexagonal", "boundary": "toroidal"}, "needs an even y, got 3"),
    ],
)
def test_wrong_parameters(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        SelfOrganizingMap(**{"x": 4, "y": 3, **options}).fit(X)


def test_wrong_data() -> None:
    som = SelfOrganizingMap(2, 2)
    with pytest.raises(ValueError, match="infinity"):
        som.fit(np.where(X > 1, np.inf, X))
    with pytest.raises(ValueError, match="row 3 of X has no value"):
        som.fit(np.where(np.arange(12)[:, None] == 3, np.nan, X))
    with pytest.raises(DataError, match="column 1 of X has no value"):
        som.fit(np.where(np.arange(3) == 1, np.nan, X))
    with pytest.raises(ValueError, match="continuous"):
        som.fit(X, X[:, 0])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        som.fit(X, np.zeros(3, int))
    som.fit(X)
    with pytest.raises(ValueError, match="X has 2 features"):
        som.quantization_error(X[:, :2])
    with pytest.raises(ValueError, match="scaling must be 'sum' or 'mean', got 'puppies'"):
        som.distance_map(scaling="puppies")
    with pytest.raises(ValueError, match="X has 12 rows and labels has 1"):
        som.labels_map(X, ["a"])
    with pytest.raises(ValueError, match="n_clusters must be from 1 to 4"):
        som.cluster_units(5)
    with pytest.raises(ValueError, match="fitted without labels"):
        som.score(X, np.zeros(12))
    with pytest.raises(ValueError, match="fitted without labels"):
        plot_clusters(som)


@pytest.mark.parametrize(
    ("points", "error", "named"),
    [
        ({0: (5, 0)}, ValueError, "the map is 5 by 5"),
        ({0: (-1, 0)}, ValueError, "the map is 5 by 5"),
        ({2: (0, 0)}, ValueError, "names row 2"),
        ({-1: (0, 0)}, ValueError, "names row -1"),
        ({"oops": (0, 0)}, TypeError, "'oops'"),
    ],
)
def test_wrong_fixed_points(points: Any, error: type[Exception], named: str) -> None:
    with pytest.raises(error, match=named):
        SelfOrganizingMap(5, 5, algorithm="online").fit([[4.0, 2.0], [3.0, 1.0]], fixed_points=points)


def test_wrong_parts() -> None:
    for options, named in (
        ({"algorithm": "online"}, "algorithm='batch'"),
        ({"init": "sample"}, "init='sample'"),
    ):
        with pytest.raises(ConfigError, match=named):
            fit_partitions(SelfOrganizingMap(2, 2, **options), LocalPartitions([(X, None)]))
    labels = np.zeros(12, int)
    for parts, named in (
        ([(X, None), (X[:, :2], None)], r"different numbers of columns: \[2, 3\]"),
        ([(X, None), (X, labels)], "some parts have labels"),
        ([(X * np.inf, None)], "infinite values"),
        ([(labels, None)], "two dimensions"),
    ):
        with pytest.raises(DataError, match=named):
            fit_partitions(SelfOrganizingMap(2, 2), LocalPartitions(parts))


def test_damaged_file(tmp_path: Path) -> None:
    file = tmp_path / "map"
    SelfOrganizingMap(2, 2).fit(X).save(file)
    file.write_bytes(file.read_bytes()[:-60])
    with pytest.raises(CheckpointError, match="damaged"):
        load(file)
    with pytest.raises(CheckpointError, match="sigma_decay_function"):
        SelfOrganizingMap(2, 2, sigma_decay_function=max).save(file)
