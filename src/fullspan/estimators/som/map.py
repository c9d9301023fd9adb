"""Kohonen's self-organizing map."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    ClusterMixin,
    TransformerMixin,
    _fit_context,
)
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d, validate_data

from fullspan.core.device import threads_of
from fullspan.core.partitions import LocalPartitions
from fullspan.estimators.saving import Saveable
from fullspan.estimators.som._kernels import online_steps
from fullspan.estimators.som._lane_kernels import BLOCK, online_steps_in_lanes
from fullspan.estimators.som.batch import BatchWorker, count_votes, fit_local, initial_weights
from fullspan.estimators.som.grid import (
    METRICS,
    NEIGHBORHOODS,
    RATE_DECAYS,
    SPREAD_DECAYS,
    Decay,
    Grid,
    decayed,
    from_lanes,
    into_lanes,
)
from fullspan.estimators.som.measures import MapMeasures, clustered
from fullspan.estimators.som.search import nearest, without_gaps

_ONLINE_RATE = 0.5
_STEPS_AT_ONCE = 1 << 13


class SelfOrganizingMap(
    Saveable,
    MapMeasures,
    ClassNamePrefixFeaturesOutMixin,  # type: ignore[misc]
    TransformerMixin,  # type: ignore[misc]
    ClusterMixin,  # type: ignore[misc]
    BaseEstimator,  # type: ignore[misc]
):
    """A map of units that learn rows and stay like their neighbours (Kohonen 1982, 2013).

    Parameters
    ----------
    x, y : int, default=10
        Columns and rows of units.
    algorithm : {"batch", "online"}, default="batch"
        "batch" moves all units once an epoch, to the average of the rows around them; the result does not
        depend on the order of rows. "online" makes a step for each row, as MiniSom does.
    max_iter : int, default=20
        How often all rows are seen.
    sigma : float, optional
        Width of the neighbourhood at the start, in units; half of the longer side by default.
    sigma_decay_function : str or callable, default="linear_decay_to_one"
        With t the time and T its end: "linear_decay_to_one"; "inverse_decay_to_one",
        sigma / (1 + t (sigma - 1) / T); "exponential_decay_to_one", sigma^(1 - t / T); "asymptotic_decay",
        sigma / (1 + 2 t / T); "constant"; or a function of (sigma, t, T). Time counts epochs in the batch
        algorithm, steps in the online one.
    learning_rate : float, optional
        How far units move at the start: 0.5 by default online. The batch algorithm moves them all the way
        unless a rate is given.
    decay_function : str or callable, default="asymptotic_decay"
        Of the learning rate: "asymptotic_decay", "inverse_decay_to_zero", rate / (1 + 100 t / T),
        "linear_decay_to_zero", "exponential_decay" (to 1 %), "constant", or a function of (rate, t, T).
    neighborhood_function : {"gaussian", "mexican_hat", "bubble", "triangle"}, default="gaussian"
        Bubbles and triangles are squares and pyramids on rectangular maps, discs and cones on hexagonal
        ones.
    topology : {"rectangular", "hexagonal"}, default="rectangular"
    boundary : {"planar", "toroidal"}, default="planar"
        Whether opposite edges meet. A toroidal hexagonal map needs an even y.
    activation_distance : {"euclidean", "cosine", "manhattan", "chebyshev"}, default="euclidean"
    init : {"pca", "sample"} or array of shape (x, y, n_features), default="pca"
        Units spread over the plane of the first two principal components, drawn rows, or given weights.
    shuffle : bool, default=True
        Whether each epoch of the online algorithm has an order of its own.
    n_clusters : int, optional
        Into how many clusters the units that win rows are grouped after `fit` (see `cluster_units`).
    random_state : int, RandomState instance or None, default=None
        Of drawn rows and orders.
    n_jobs : int, optional
        Threads that look for nearest units; one for each usable core by default. Results do not depend on it.

    Attributes
    ----------
    weights_ : array of shape (x, y, n_features)
    labels_ : array of shape (n_samples,)
        The nearest unit of each row seen in `fit`, i * y + j for unit (i, j); or that unit's cluster.
    hits_ : array of shape (x, y)
        How many of these rows each unit has.
    quantization_error_ : float
        The mean distance of these rows from their units.
    classes_, unit_labels_ : arrays of shape (n_classes,) and (x, y)
        If labels were given.
    unit_clusters_ : array of shape (x, y)
        If `n_clusters` was given.
    n_iter_ : int
        Epochs done.
    gaps_ : bool
        Whether values were missing.
    n_features_in_, feature_names_in_
        As everywhere in scikit-learn.

    Notes
    -----
    Missing values (NaN): distances are over the entries that a row has, and only these move the weights.
    Online, data in float32 are learnt in float32, some times as fast; everything else is float64.
    Memory beside the data: 16 bytes a weight, 24 bytes a row, 2 MB for each thread.

    A triangle's peak is 1, where MiniSom has sigma²; that only scales the learning rate.

    References
    ----------
    T. Kohonen, "Self-Organized Formation of Topologically Correct Feature Maps", 1982, and "Essentials of the
    Self-Organizing Map", 2013.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> som = SelfOrganizingMap(6, 5, random_state=0).fit(X, y)
    >>> som.transform(X).shape
    (150, 30)
    >>> float(round((som.predict(X) == y).mean(), 2)) > 0.9
    True
    """

    _parameter_constraints: dict[str, list[Any]] = {  # noqa: RUF012
        "x": [Interval(Integral, 1, None, closed="left")],
        "y": [Interval(Integral, 1, None, closed="left")],
        "algorithm": [StrOptions({"batch", "online"})],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "sigma": [Interval(Real, 0, None, closed="neither"), None],
        "sigma_decay_function": [StrOptions(set(SPREAD_DECAYS)), callable],
        "learning_rate": [Interval(Real, 0, None, closed="neither"), None],
        "decay_function": [StrOptions(set(RATE_DECAYS)), callable],
        "neighborhood_function": [StrOptions(set(NEIGHBORHOODS))],
        "topology": [StrOptions({"rectangular", "hexagonal"})],
        "boundary": [StrOptions({"planar", "toroidal"})],
        "activation_distance": [StrOptions(set(METRICS))],
        "init": [StrOptions({"pca", "sample"}), "array-like"],
        "shuffle": ["boolean"],
        "n_clusters": [Interval(Integral, 1, None, closed="left"), None],
        "random_state": ["random_state"],
        "n_jobs": [Integral, None],
    }

    def __init__(
        self,
        x: int = 10,
        y: int = 10,
        *,
        algorithm: str = "batch",
        max_iter: int = 20,
        sigma: float | None = None,
        sigma_decay_function: str | Decay = "linear_decay_to_one",
        learning_rate: float | None = None,
        decay_function: str | Decay = "asymptotic_decay",
        neighborhood_function: str = "gaussian",
        topology: str = "rectangular",
        boundary: str = "planar",
        activation_distance: str = "euclidean",
        init: Any = "pca",
        shuffle: bool = True,
        n_clusters: int | None = None,
        random_state: Any = None,
        n_jobs: int | None = None,
    ) -> None:
        self.x = x
        self.y = y
        self.algorithm = algorithm
        self.max_iter = max_iter
        self.sigma = sigma
        self.sigma_decay_function = sigma_decay_function
        self.learning_rate = learning_rate
        self.decay_function = decay_function
        self.neighborhood_function = neighborhood_function
        self.topology = topology
        self.boundary = boundary
        self.activation_distance = activation_distance
        self.init = init
        self.shuffle = shuffle
        self.n_clusters = n_clusters
        self.random_state = random_state
        self.n_jobs = n_jobs

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any = None, fixed_points: dict[int, tuple[int, int]] | None = None) -> Self:
        """Learn the rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            NaN where a value is missing.
        y : array-like of shape (n_samples,), optional
            Labels. Each unit gets the one that most of its rows have, and `predict` returns those.
        fixed_points : dict, optional
            Of numbers of rows and the units (i, j) that must win them.

        Raises
        ------
        ValueError
            If a row or a column of X has no value at all, if y is continuous, if a fixed point is not in the
            data or on the map, or if fewer units than `n_clusters` win a row.
        """
        rows, gaps = self._checked(X, reset=True)
        labels = None if y is None else _checked_labels(rows, y)
        forced = self._forced(fixed_points, len(rows))
        if self.algorithm == "batch":
            self.labels_ = fit_local(self, rows, forced, self._threads())
        else:
            self._begin(rows, gaps)
            codebook, random = self._codebook, self._random()
            for epoch in range(self.max_iter):
                order = random.permutation(len(rows)) if self.shuffle else np.arange(len(rows))
                self._steps(codebook, rows, order, forced, epoch * len(rows), self.max_iter * len(rows))
            self.labels_, distance = nearest(rows, codebook, self.activation_distance, gaps, self._threads())
            hits = np.bincount(self.labels_, minlength=len(codebook))
            self._set_map(codebook, hits, float(distance.sum()), self.max_iter)
        for name in {"classes_", "unit_labels_", "unit_clusters_"} & vars(self).keys():
            delattr(self, name)
        if self.n_clusters is not None:
            won = self.hits_.ravel() > 0
            self.unit_clusters_ = self._for_all_units(clustered(self._codebook[won], self.n_clusters), won)
        if labels is not None:
            classes = np.unique(labels)
            self._set_labels(classes, count_votes(self.labels_, labels, classes, self._grid().n_units))
        self.labels_ = self._clusters_of(self.labels_)
        return self

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """One online step for each row, in their order.

        Call number c takes the learning rate and the width of epoch c of `max_iter`; later calls those of the
        last epoch. The first call begins from its rows as `init` says; one after `fit` goes on from there.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : ignored
        """
        first = not hasattr(self, "weights_")
        rows, gaps = self._checked(X, reset=first)
        if first:
            self._begin(rows, gaps)
        codebook, epoch = self._codebook, min(self.n_iter_, self.max_iter - 1)
        n = len(rows)
        self._steps(codebook, rows, np.arange(n), None, epoch * n, self.max_iter * n)
        units, distance = nearest(rows, codebook, self.activation_distance, gaps, self._threads())
        hits = np.bincount(units, minlength=len(codebook))
        self.labels_ = self._clusters_of(units)
        self._set_map(codebook, hits, float(distance.sum()), self.n_iter_ + 1)
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """The nearest unit of each row; or its cluster or label, if `fit` made clusters or had labels.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        array of shape (n_samples,)
        """
        units, _ = self._nearest(X)
        if hasattr(self, "unit_labels_"):
            return np.asarray(self.unit_labels_.ravel()[units])
        return self._clusters_of(units)

    def _clusters_of(self, units: NDArray[np.int64]) -> NDArray[np.int64]:
        return self.unit_clusters_.ravel()[units] if hasattr(self, "unit_clusters_") else units

    def _steps(
        self, codebook: NDArray[np.float64], X: Any, order: Any, forced: Any, start: int, end: int
    ) -> None:
        """Online steps over X[order], at times from `start` on of `end`."""
        grid, kind = self._grid(), NEIGHBORHOODS[self.neighborhood_function]
        metric = METRICS[self.activation_distance]
        near, room = np.empty(grid.n_units), grid.room()
        rate = _ONLINE_RATE if self.learning_rate is None else float(self.learning_rate)
        in_lanes = X.dtype == np.float32 and self.activation_distance == "euclidean" and not self.gaps_
        lanes = into_lanes(codebook) if in_lanes else np.empty((0, 0, 0), np.float32)
        share, squares = np.empty((2, BLOCK * len(lanes)), np.float32)
        for first in range(0, len(order), _STEPS_AT_ONCE):
            chosen = order[first : first + _STEPS_AT_ONCE]
            winners = np.full(len(chosen), -1) if forced is None else forced[chosen]
            t = np.arange(start + first, start + first + len(chosen), dtype=np.float64)
            rates = decayed(self.decay_function, RATE_DECAYS, rate, t, end)
            spreads = decayed(self.sigma_decay_function, SPREAD_DECAYS, self._spread(), t, end)
            if in_lanes:
                online_steps_in_lanes(
                    X[chosen], winners, lanes, rates, spreads, kind, grid.shape, *room, near, share, squares
                )
            else:
                rows, known = without_gaps(X[chosen], self.gaps_)
                online_steps(
                    rows,
                    known,
                    winners,
                    codebook,
                    rates,
                    spreads,
                    kind,
                    metric,
                    self.gaps_,
                    grid.shape,
                    *room,
                    near,
                )
        if in_lanes:
            codebook[:] = from_lanes(lanes, grid.n_units)

    def _begin(self, X: NDArray[Any], gaps: bool) -> None:
        self.gaps_ = gaps
        with LocalPartitions([(X, None)]) as partitions:
            partitions.start(BatchWorker, self.activation_distance, 1)
            weights = initial_weights(self, partitions, X)
        self._set_map(weights, None, None, 0)

    def _set_map(self, codebook: Any, hits: Any, distance: float | None, n_iter: int) -> None:
        self.weights_ = codebook.reshape(self.x, self.y, -1)
        self._n_features_out = self.x * self.y
        self.n_iter_ = n_iter
        if distance is not None:
            self.hits_ = hits.reshape(self.x, self.y)
            self.quantization_error_ = distance / int(hits.sum())

    def _set_labels(self, classes: NDArray[Any], votes: NDArray[np.int64]) -> None:
        """Give units the label of most of their rows."""
        won: NDArray[np.bool_] = np.asarray(votes.any(axis=1))
        self.classes_ = classes
        self.unit_labels_ = self._for_all_units(classes[votes[won].argmax(axis=1)], won)

    def _for_all_units(self, values: NDArray[Any], won: NDArray[np.bool_]) -> NDArray[Any]:
        """Values of the units that won rows; the others get that of the most similar one, [x, y]."""
        codebook = self._codebook
        like, _ = nearest(codebook, codebook[won], "euclidean", False, 1)
        return values[like].reshape(self.x, self.y)

    def _grid(self) -> Grid:
        hexagonal, periodic = self.topology == "hexagonal", self.boundary == "toroidal"
        if hexagonal and periodic and self.y % 2:
            raise ValueError(
                f"a toroidal hexagonal map needs an even y, got {self.y}: first and last row would not fit"
            )
        return Grid(self.x, self.y, hexagonal, periodic)

    def _spread(self) -> float:
        return max(self.x, self.y) / 2 if self.sigma is None else float(self.sigma)

    def _random(self) -> Any:
        return check_random_state(self.random_state)

    def _threads(self) -> int:
        return threads_of(self.n_jobs)

    def _checked(self, X: Any, reset: bool = False) -> tuple[NDArray[Any], bool]:
        """Rows as floats, and whether any value is missing."""
        if not reset:
            check_is_fitted(self, "weights_")
        self._grid()
        rows = validate_data(
            self, X, reset=reset, dtype=(np.float64, np.float32), order="C", ensure_all_finite="allow-nan"
        )
        missing = np.isnan(rows)
        if missing.all(axis=1).any():
            raise ValueError(
                f"row {missing.all(axis=1).argmax()} of X has no value at all (NaN): leave it out"
            )
        return rows, bool(missing.any())

    def _forced(self, fixed_points: dict[int, tuple[int, int]] | None, n_rows: int) -> Any:
        """The unit that must win each row, -1 for the nearest; None if all are free."""
        if not fixed_points:
            return None
        forced = np.full(n_rows, -1)
        for row, (i, j) in fixed_points.items():
            if not isinstance(row, Integral):
                raise TypeError(f"keys of fixed_points are numbers of rows, got {row!r}")
            if not 0 <= row < n_rows:
                raise ValueError(f"fixed_points names row {row}, X has rows 0 to {n_rows - 1}")
            if not (0 <= i < self.x and 0 <= j < self.y):
                raise ValueError(f"fixed_points puts row {row} at {(i, j)}, the map is {self.x} by {self.y}")
            forced[row] = i * self.y + j
        return forced

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


def _checked_labels(rows: NDArray[Any], y: Any) -> NDArray[Any]:
    labels = column_or_1d(y, warn=True)
    check_consistent_length(rows, labels)
    check_classification_targets(labels)
    return np.asarray(labels)
