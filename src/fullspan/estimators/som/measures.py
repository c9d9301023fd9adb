"""What a fitted map says of data and of itself: errors, hits, labels, distances between neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from fullspan.estimators.som.search import distances, nearest

if TYPE_CHECKING:
    from fullspan.estimators.som.grid import Grid


class MapMeasures:
    """Methods of `SelfOrganizingMap` that look at a fitted map, named as in MiniSom."""

    weights_: NDArray[np.float64]
    unit_labels_: NDArray[Any]
    activation_distance: str
    neighborhood_function: str

    if TYPE_CHECKING:

        def _grid(self) -> Grid: ...
        def _spread(self) -> float: ...
        def _checked(self, X: Any) -> tuple[NDArray[Any], bool]: ...
        def _threads(self) -> int: ...

    @property
    def _codebook(self) -> NDArray[np.float64]:
        """Contiguous, [n_units, n_features]."""
        check_is_fitted(self, "weights_")
        return np.ascontiguousarray(self.weights_.reshape(-1, self.weights_.shape[-1]), dtype=np.float64)

    def _nearest(self, X: Any) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        codebook = self._codebook
        rows, gaps = self._checked(X)
        return nearest(rows, codebook, self.activation_distance, gaps, self._threads())

    def transform(self, X: Any) -> NDArray[np.float64]:
        """Distances to all units.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            NaN where a value is missing: distances are over the known entries.

        Returns
        -------
        array of shape (n_samples, x * y)
            Column ``i * y + j`` is that of unit (i, j).
        """
        codebook = self._codebook
        rows, gaps = self._checked(X)
        return distances(rows, codebook, self.activation_distance, gaps, self._threads())

    def score(self, X: Any, y: Any = None) -> float:
        """The share of rows that `predict` labels rightly; without y, minus the quantization error.

        Raises
        ------
        ValueError
            If there is a y, but the map was fitted without labels.
        """
        if y is None:
            return -self.quantization_error(X)
        if not hasattr(self, "unit_labels_"):
            raise ValueError("the map was fitted without labels: fit(X, y), or score(X) without y")
        return float(np.mean(self.unit_labels_.ravel()[self._nearest(X)[0]] == np.asarray(y)))

    def winners(self, X: Any) -> NDArray[np.int64]:
        """Coordinates (i, j) of each row's nearest unit, of shape (n_samples, 2)."""
        return np.column_stack(np.divmod(self._nearest(X)[0], self._grid().y))

    def quantization(self, X: Any) -> NDArray[np.float64]:
        """The weights of each row's nearest unit, of shape (n_samples, n_features)."""
        codebook = self._codebook
        return codebook[self._nearest(X)[0]]

    def quantization_error(self, X: Any) -> float:
        """The mean distance of rows from their nearest units."""
        return float(self._nearest(X)[1].mean())

    def topographic_error(self, X: Any) -> float:
        """The share of rows whose two nearest units are no neighbours; NaN for a map of one unit.

        Neighbours touch at an edge, or at a corner of a rectangular map (Kiviluoto 1996).
        """
        found = self.transform(X)
        if found.shape[1] == 1:
            return float("nan")
        rows = np.arange(len(found))
        first = found.argmin(axis=1)
        found[rows, first] = np.inf
        second = found.argmin(axis=1)
        return float(1 - (self._grid().neighbors()[first] == second[:, None]).any(axis=1).mean())

    def distortion_measure(self, X: Any) -> float:
        """Sum over rows and units of the distance, weighed by the neighbourhood of the row's nearest unit.

        The neighbourhood has the width that training starts with.
        """
        found = self.transform(X)
        n_units = found.shape[1]
        near = self._grid().neighborhoods(self.neighborhood_function, self._spread(), range(n_units))
        return float((near[found.argmin(axis=1)] * found).sum())

    def activation_response(self, X: Any) -> NDArray[np.int64]:
        """How many rows each unit wins, of shape (x, y)."""
        grid = self._grid()
        return np.bincount(self._nearest(X)[0], minlength=grid.n_units).reshape(grid.x, grid.y)

    def win_map(self, X: Any) -> dict[tuple[int, int], list[int]]:
        """The numbers of the rows that each unit wins; units that win none are left out."""
        won: dict[tuple[int, int], list[int]] = {}
        for number, (i, j) in enumerate(self.winners(X).tolist()):
            won.setdefault((i, j), []).append(number)
        return won

    def labels_map(self, X: Any, labels: Any) -> dict[tuple[int, int], dict[Any, int]]:
        """How many rows of each label each unit wins; units that win none are left out."""
        coordinates, names = self.winners(X).tolist(), np.asarray(labels).tolist()
        if len(coordinates) != len(names):
            raise ValueError(f"X has {len(coordinates)} rows and labels has {len(names)}")
        counts: dict[tuple[int, int], dict[Any, int]] = {}
        for (i, j), label in zip(coordinates, names, strict=True):
            here = counts.setdefault((i, j), {})
            here[label] = here.get(label, 0) + 1
        return counts

    def distance_map(self, scaling: str = "sum") -> NDArray[np.float64]:
        """The U-matrix: distances of each unit's weights from its neighbours', the largest 1.

        Parameters
        ----------
        scaling : {"sum", "mean"}
            Over a unit's neighbours; units at an edge have fewer.

        Returns
        -------
        array of shape (x, y)
        """
        if scaling not in ("sum", "mean"):
            raise ValueError(f"scaling must be 'sum' or 'mean', got {scaling!r}")
        codebook, neighbors = self._codebook, self._grid().neighbors()
        there = neighbors >= 0
        apart = np.linalg.norm(codebook[neighbors] - codebook[:, None, :], axis=2) * there
        found = apart.sum(axis=1)
        if scaling == "mean":
            found = found / np.maximum(there.sum(axis=1), 1)
        return np.asarray(found / (found.max() or 1.0)).reshape(self.weights_.shape[:2])

    def cluster_units(self, n_clusters: int) -> NDArray[np.int64]:
        """Group the units by their weights, merging the nearest ones first (Vesanto and Alhoniemi 2000).

        Parameters
        ----------
        n_clusters : int
            At most as many as there are units.

        Returns
        -------
        array of shape (x, y)
            Clusters from 0 on; numbered by the first unit of each.
        """
        return clustered(self._codebook, n_clusters).reshape(self.weights_.shape[:2])


def clustered(codebook: NDArray[np.float64], n_clusters: int) -> NDArray[np.int64]:
    """The cluster of each unit by Ward's criterion, numbered by the first unit of each."""
    from sklearn.cluster import AgglomerativeClustering

    if not 1 <= n_clusters <= len(codebook):
        raise ValueError(
            f"n_clusters must be from 1 to {len(codebook)}, the number of units, got {n_clusters}"
        )
    if len(codebook) == 1:
        return np.zeros(1, np.int64)
    found = AgglomerativeClustering(n_clusters, linkage="ward").fit_predict(codebook)
    _, first, number = np.unique(found, return_index=True, return_inverse=True)
    return np.asarray(np.argsort(np.argsort(first))[number])
