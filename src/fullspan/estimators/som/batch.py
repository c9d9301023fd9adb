"""The batch algorithm: each epoch, units move to the average of all rows, weighed by the neighbourhood.

Kohonen's batch map needs only the sum and the number of the rows that each unit won; both add up over parts
of the data. `fit` itself runs this over one part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fullspan.core.errors import ConfigError, DataError
from fullspan.core.partitions import LocalPartitions, Partitions, total
from fullspan.estimators.som._kernels import add_rows
from fullspan.estimators.som.grid import RATE_DECAYS, SPREAD_DECAYS, Grid, decayed
from fullspan.estimators.som.search import nearest, without_gaps

if TYPE_CHECKING:
    from fullspan.estimators.som.map import SelfOrganizingMap

_NEIGHBORHOOD_BYTES = 1 << 24
_ROWS_AT_ONCE = 1 << 13


class BatchWorker:
    """One part of the rows, (X, y) or (X, None), and the statistics that a batch map asks of it.

    Parameters
    ----------
    part : tuple
        X is a float array of shape (n_rows, n_features), NaN where a value is missing.
    metric : str
    n_threads : int
    forced : array of shape (n_rows,), optional
        The unit that must win each row, -1 for the nearest.
    """

    def __init__(self, part: Any, metric: str, n_threads: int, forced: Any = None) -> None:
        self.X, self.y = np.asarray(part[0]), part[1]
        if self.X.ndim != 2 or self.X.dtype.kind != "f":
            raise DataError("X of a part must be a float array of two dimensions")
        if not len(self.X) or np.isinf(self.X).any() or np.isnan(self.X).all(axis=1).any():
            raise DataError("X of a part has no rows, infinite values, or a row without any value")
        self.metric, self.n_threads, self.forced = metric, n_threads, forced
        self.gaps = False
        self.units: NDArray[np.int64] = np.empty(0, np.int64)

    def describe(self) -> tuple[int, int, bool]:
        """How many rows and columns, and whether values are missing."""
        return *self.X.shape, bool(np.isnan(self.X).any())

    def center(self, gaps: bool) -> tuple[Any, Any]:
        """Sum and number of the values of each column. From now on all parts have gaps, or none."""
        self.gaps = gaps
        rows = (without_gaps(X, gaps) for X in self._blocks())
        sums, counts = zip(
            *((x.sum(axis=0), k.sum(axis=0) if gaps else len(x)) for x, k in rows), strict=True
        )
        return sum(sums), sum(counts) + np.zeros(self.X.shape[1])

    def scatter(self, mean: NDArray[np.float64]) -> tuple[Any, Any]:
        """Products of each two centred columns, summed over the rows that have both; and their number."""
        products = np.zeros((len(mean), len(mean)))
        pairs: Any = products.copy() if self.gaps else 0.0
        for X in self._blocks():
            rows, known = without_gaps(X, self.gaps)
            rows = rows - mean
            if self.gaps:
                rows *= known
            products += rows.T @ rows
            pairs = pairs + (known.T @ known if self.gaps else len(rows))
        return products, pairs

    def sums(self, weights: NDArray[np.float64]) -> tuple[Any, Any]:
        """Of each unit: the sum of the rows that it won, [n_units, n_features], and their number."""
        units, _ = nearest(self.X, weights, self.metric, self.gaps, self.n_threads)
        if self.forced is not None:
            units = np.where(self.forced >= 0, self.forced, units)
        sums = np.zeros_like(weights)
        counts = np.zeros((len(weights), weights.shape[1] if self.gaps else 1))
        start = 0
        for X in self._blocks():
            rows, known = without_gaps(X, self.gaps)
            add_rows(rows, known, units[start : start + len(X)], self.gaps, sums, counts)
            start += len(X)
        return sums, counts

    def finish(self, weights: NDArray[np.float64]) -> tuple[Any, float]:
        """How many rows each unit wins, and the sum of the distances to the winners."""
        self.units, distance = nearest(self.X, weights, self.metric, self.gaps, self.n_threads)
        return np.bincount(self.units, minlength=len(weights)), float(distance.sum())

    def winners(self) -> NDArray[np.int64]:
        """Of each row, as `finish` found them."""
        return self.units

    def classes(self) -> Any:
        return None if self.y is None else np.unique(self.y)

    def votes(self, classes: Any, n_units: int) -> Any:
        """How many rows of each class each unit has won, [n_units, n_classes]."""
        return count_votes(self.units, self.y, classes, n_units)

    def _blocks(self) -> list[NDArray[Any]]:
        return [self.X[first : first + _ROWS_AT_ONCE] for first in range(0, len(self.X), _ROWS_AT_ONCE)]


def count_votes(units: NDArray[np.int64], y: Any, classes: Any, n_units: int) -> Any:
    """How many rows of each class each unit has won, [n_units, n_classes]."""
    place = units * len(classes) + np.searchsorted(classes, y)
    return np.bincount(place, minlength=n_units * len(classes)).reshape(n_units, -1)


def fit_partitions(som: SelfOrganizingMap, partitions: Partitions) -> SelfOrganizingMap:
    """Fit a map by the batch algorithm to data in parts: up to rounding, what one fit to all rows gives.

    Parameters
    ----------
    som : SelfOrganizingMap
        With ``algorithm="batch"`` and an `init` of "pca" or an array.
    partitions : Partitions
        Each part is (X, y): a float array of shape (n_rows, n_features), NaN where a value is missing, and
        n_rows labels or None.

    Returns
    -------
    SelfOrganizingMap
        `som`, fitted; without `labels_`, which stay with the parts.

    Raises
    ------
    ConfigError
        If a parameter needs all rows in one place.
    DataError
        If the parts have different columns, or only some have labels.

    Examples
    --------
    >>> import numpy as np
    >>> from fullspan.core.partitions import LocalPartitions
    >>> from fullspan.estimators import SelfOrganizingMap
    >>> parts = [(np.zeros((5, 2)), None), (np.ones((5, 2)), None)]
    >>> with LocalPartitions(parts) as partitions:
    ...     som = fit_partitions(SelfOrganizingMap(2, 1), partitions)
    >>> som.hits_.ravel()
    array([5, 5])
    """
    som._validate_params()
    if som.n_clusters is not None:
        raise ConfigError("fitting over parts does not take n_clusters", "call `cluster_units` afterwards")
    if som.algorithm != "batch":
        raise ConfigError(
            "fitting over parts needs algorithm='batch'", "online steps see one row after another"
        )
    if isinstance(som.init, str) and som.init != "pca":
        raise ConfigError(
            f"fitting over parts does not take init={som.init!r}", "use 'pca' or give the weights"
        )
    partitions.start(BatchWorker, som.activation_distance, 1)
    fit_batch(som, partitions)
    classes = partitions.call("classes")
    if any(each is None for each in classes) and not all(each is None for each in classes):
        raise DataError("some parts have labels and some have none")
    if classes[0] is not None:
        known = np.unique(np.concatenate(classes))
        som._set_labels(known, total(partitions, "votes", known, som._grid().n_units))
    return som


def fit_local(som: SelfOrganizingMap, X: NDArray[Any], forced: Any, n_threads: int) -> NDArray[np.int64]:
    """The batch algorithm on rows in this process; returns their nearest units."""
    with LocalPartitions([(X, None)]) as partitions:
        partitions.start(BatchWorker, som.activation_distance, n_threads, forced)
        fit_batch(som, partitions, X)
        (units,) = partitions.call("winners")
    return np.asarray(units)


def fit_batch(som: SelfOrganizingMap, partitions: Partitions, X: NDArray[Any] | None = None) -> None:
    """Set weights, hits and error. The workers are started; X is needed where `init` draws rows."""
    shapes = partitions.call("describe")
    widths = sorted({width for _, width, _ in shapes})
    if len(widths) > 1:
        raise DataError(f"the parts have different numbers of columns: {widths}")
    som.n_features_in_, som.gaps_ = widths[0], any(gaps for *_, gaps in shapes)
    weights = initial_weights(som, partitions, X)
    grid = som._grid()
    t = np.arange(som.max_iter, dtype=np.float64)
    rates: Any = np.ones(som.max_iter)
    if som.learning_rate is not None:
        rates = decayed(som.decay_function, RATE_DECAYS, som.learning_rate, t, som.max_iter)
    spreads = decayed(som.sigma_decay_function, SPREAD_DECAYS, som._spread(), t, som.max_iter)
    for rate, spread in zip(rates, spreads, strict=True):
        sums, counts = total(partitions, "sums", weights)
        target = _averages(grid, som.neighborhood_function, spread, weights, sums, counts)
        weights = weights + rate * (target - weights) if som.learning_rate is not None else target
    hits, distance = total(partitions, "finish", weights)
    som._set_map(weights, hits, distance, som.max_iter)


def _averages(
    grid: Grid,
    kind: str,
    spread: float,
    weights: NDArray[np.float64],
    sums: NDArray[np.float64],
    counts: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The averages of the rows around each unit; of a unit without any, its weights.

    A Mexican hat is negative further out, so that its sum of weights can be zero or less: units then move by
    the hat's pull over the sum of its magnitudes, and those that are pushed more than pulled stay.
    """
    out = weights.copy()
    size = max(1, _NEIGHBORHOOD_BYTES // (8 * grid.n_units))
    for first in range(0, grid.n_units, size):
        units = range(first, min(first + size, grid.n_units))
        here = slice(units.start, units.stop)
        near = grid.neighborhoods(kind, spread, units)
        pull, weight = near @ sums, near @ counts
        magnitude = np.abs(near, out=near) @ counts if kind == "mexican_hat" else weight
        moved = weights[here] + (pull - weight * weights[here]) / np.where(weight > 0, magnitude, 1.0)
        out[here] = np.where(weight > 0, moved, weights[here])
    return out


def initial_weights(
    som: SelfOrganizingMap, partitions: Partitions, X: NDArray[Any] | None
) -> NDArray[np.float64]:
    """What the first epoch begins with, [n_units, n_features]."""
    grid = som._grid()
    sums, counts = total(partitions, "center", som.gaps_)
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        raise DataError(f"column {empty[0]} of X has no value at all", "leave the column out")
    mean = sums / counts
    if not isinstance(som.init, str):
        weights = np.array(som.init, dtype=np.float64)
        if weights.shape != (som.x, som.y, som.n_features_in_) or not np.isfinite(weights).all():
            raise ValueError(
                f"init must be finite and of shape {(som.x, som.y, som.n_features_in_)}, got {weights.shape}"
            )
        return weights.reshape(grid.n_units, -1)
    if som.init == "pca":
        return _plane(grid, mean, *total(partitions, "scatter", mean))
    assert X is not None
    drawn = X[som._random().randint(len(X), size=grid.n_units)]
    return np.asarray(np.where(np.isnan(drawn), mean, drawn), dtype=np.float64)


def _plane(grid: Grid, mean: Any, products: Any, pairs: Any) -> NDArray[np.float64]:
    """Units spread evenly over the two first principal components, a standard deviation to each side."""
    values, vectors = np.linalg.eigh(products / np.maximum(pairs - 1, 1))
    axes = np.zeros((2, len(mean)))
    n = min(2, len(mean))
    axes[:n] = vectors.T[::-1][:n]
    axes[:n] *= np.sqrt(np.maximum(values[::-1][:n], 0.0))[:, None]
    axes *= np.where(axes[np.arange(2), np.abs(axes).argmax(axis=1)] < 0, -1.0, 1.0)[:, None]
    if grid.y > grid.x:
        axes = axes[::-1]
    sides = [np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in (grid.x, grid.y)]
    across, up = (side.ravel() for side in np.meshgrid(*sides, indexing="ij"))
    return np.asarray(mean + across[:, None] * axes[0] + up[:, None] * axes[1])
