"""Features in at most 255 bins, for trees that are grown from histograms.

Bin b of a numeric feature holds ``cuts[b - 1] < x <= cuts[b]``, so a split after bin b sends ``x <= cuts[b]``
to the left. A feature with few distinct values is cut halfway between neighbours: growing on its bins is then
the same as growing on its values. Others are cut at weighted quantiles of a sample.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from fullspan.core.device import usable_cores
from fullspan.core.errors import ConfigError, DataError
from fullspan.core.threads import Crew
from fullspan.estimators._binning_kernels import find_infinity, write_blocks, write_codes
from fullspan.estimators.saving import Saveable

MISSING = 255
"""The code of a missing value in every feature."""

UNKNOWN = 254
"""In blocks: the code of a category that has none of its own."""

MOST_BINS = 255
SAMPLE_ROWS = 200_000


class Binner(Saveable):
    """Where the bins of each feature end; made by `Binner.fit`.

    Parameters
    ----------
    cuts : list of float64 arrays
        Of each numeric feature, ascending; empty for a categorical one.
    categories : list of arrays
        Of each categorical feature: the value that each code stands for, ascending; empty for a numeric one.
    is_categorical : bool array of shape (n_features,)

    Attributes
    ----------
    n_bins : int64 array of shape (n_features,)
        The number of codes of each feature, without that of missing values, which is 255.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[1.0], [2.0], [4.0], [np.nan]], dtype=np.float32)
    >>> binner = Binner.fit(X)
    >>> binner.cuts[0].tolist()
    [1.5, 3.0]
    >>> binner.transform(X).tolist()
    [[0, 1, 2, 255]]
    """

    def __init__(
        self, cuts: list[np.ndarray], categories: list[np.ndarray], is_categorical: np.ndarray
    ) -> None:
        self.cuts = cuts
        self.categories = categories
        self.is_categorical = is_categorical
        self.n_bins = np.array(
            [
                max(len(values), 1) if categorical else len(ends) + 1
                for ends, values, categorical in zip(cuts, categories, is_categorical, strict=True)
            ],
            dtype=np.int64,
        )

    @property
    def n_features(self) -> int:
        return len(self.n_bins)

    @classmethod
    def fit(
        cls,
        X: np.ndarray,
        max_bins: int = MOST_BINS,
        sample_weight: np.ndarray | None = None,
        categorical: np.ndarray | None = None,
        n_threads: int | None = None,
        seed: int = 0,
    ) -> Binner:
        """Find the bins of each column.

        Parameters
        ----------
        X : float32 or float64 array of shape (n_samples, n_features)
            NaN is a missing value.
        max_bins : int
            From 2 to 255.
        sample_weight : array of shape (n_samples,), optional
            The quantiles are of the weighted distribution.
        categorical : bool array of shape (n_features,), optional
            Which columns hold whole numbers that stand for categories (fractions are cut off). At most 254
            categories, the most frequent ones, get a code of their own.
        n_threads : int, optional
            One for each usable core by default.
        seed : int
            Of the sample of at most 200,000 rows whose quantiles are taken.

        Raises
        ------
        ConfigError
            If `max_bins` is out of range.
        DataError
            If a column holds an infinite value; the message names the column.
        """
        if not 2 <= max_bins <= MOST_BINS:
            raise ConfigError(f"max_bins must be between 2 and {MOST_BINS}, got {max_bins}")
        n, n_features = X.shape
        mask = (
            np.zeros(n_features, dtype=bool) if categorical is None else np.asarray(categorical, dtype=bool)
        )
        rows = sample_rows(n, seed)
        weight = None if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
        _refuse_infinity(X, n_threads)
        sampled_weight = weight if weight is None or rows is None else weight[rows]

        def bins_of(feature: int) -> tuple[np.ndarray, np.ndarray]:
            nothing = np.empty(0)
            if mask[feature]:
                return nothing, find_categories(X[:, feature], weight, min(max_bins, MOST_BINS - 1))
            column = X[:, feature]
            sampled = column if rows is None else column[rows]
            return find_cuts(sampled, sampled_weight, max_bins, column), nothing

        found = in_threads(bins_of, range(n_features), n_threads)
        return cls([cuts for cuts, _ in found], [values for _, values in found], mask)

    def transform(self, X: np.ndarray, n_threads: int | None = None) -> np.ndarray:
        """Codes of the values.

        Parameters
        ----------
        X : float32 or float64 array of shape (n_samples, n_features)
        n_threads : int, optional
            One for each usable core by default.

        Returns
        -------
        codes : uint8 array of shape (n_features, n_samples)
            255 where a value is missing, or is a category that has no code.
        """
        self._check_width(X)
        codes = np.empty((self.n_features, len(X)), dtype=np.uint8)
        if X.dtype == np.float32:
            table, lanes = self._table(16)
            with Crew(n_threads) as crew:
                X = np.ascontiguousarray(X)
                crew.run(write_codes, X, ends_of(table), table, lanes, 16, MISSING, codes)
            return codes

        def write(feature: int) -> None:
            column = X[:, feature]
            if self.is_categorical[feature]:
                column, known = np.floor(column), self.categories[feature]
                place = np.searchsorted(known, column)
                there = place < len(known)
                there[there] = known[place[there]] == column[there]
                codes[feature] = np.where(there, place, MISSING)
            else:
                place = np.searchsorted(self.cuts[feature], column, side="left")
                codes[feature] = np.where(np.isnan(column), MISSING, place)

        in_threads(write, range(self.n_features), n_threads)
        return codes

    def blocks(self, X: np.ndarray, width: int, padding: int, crew: Crew) -> np.ndarray:
        """Codes with those of a row beside each other, in blocks of `width` features.

        Parameters
        ----------
        X : C-contiguous float32 array of shape (n_samples, n_features)
        width : int
            At most 16.
        padding : int
            Rows of zeros at the end.
        crew : Crew

        Returns
        -------
        blocks : uint8 array of shape (n_blocks, n_samples + padding, 16)
            255 where a value is missing, 254 where a category has no code.
        """
        self._check_width(X)
        table, lanes = self._table(width)
        blocks = np.zeros((len(table), len(X) + padding, 16), dtype=np.uint8)
        crew.run(write_blocks, X, ends_of(table), table, lanes, width, UNKNOWN, blocks)
        return blocks

    def _check_width(self, X: np.ndarray) -> None:
        if X.shape[1] != self.n_features:
            raise DataError(f"X has {X.shape[1]} columns, the bins are those of {self.n_features}")

    def _table(self, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Cuts or categories of all features, and what the kernels need to know of each lane."""
        n_groups = -(-self.n_features // width)
        table = np.full((n_groups, 16, 256), np.inf, dtype=np.float32)
        lanes = np.zeros((n_groups, 3, 16), dtype=np.int32)
        for feature, categorical in enumerate(self.is_categorical):
            group, lane = divmod(feature, width)
            lanes[group, :, lane] = feature, categorical, MISSING
            entries = self.categories[feature] if categorical else float32_below(self.cuts[feature])
            table[group, lane, : len(entries)] = entries
        return table, lanes


def ends_of(table: np.ndarray) -> np.ndarray:
    """Every 16th of each feature's 256 entries, which narrows the search to 16."""
    return np.ascontiguousarray(table[..., 15::16])


def float32_below(cuts: np.ndarray) -> np.ndarray:
    """The largest float32 up to each cut: a float32 is above the one when it is above the other."""
    nearest = cuts.astype(np.float32)
    return np.where(nearest > cuts, np.nextafter(nearest, np.float32(-np.inf)), nearest)


def sample_rows(n: int, seed: int) -> np.ndarray | None:
    """Ascending numbers of the rows whose quantiles are taken, one of each stretch; None for all rows."""
    if n <= SAMPLE_ROWS:
        return None
    jitter = np.random.default_rng(seed).random(SAMPLE_ROWS)
    return np.asarray(((np.arange(SAMPLE_ROWS) + jitter) * (n / SAMPLE_ROWS)).astype(np.int64))


def find_cuts(
    sampled: np.ndarray, weight: np.ndarray | None, max_bins: int, column: np.ndarray | None = None
) -> np.ndarray:
    """Ends of the bins of one numeric feature, the last bin's left out.

    Parameters
    ----------
    sampled : array of shape (n_sampled,)
        Values, NaN among them.
    weight : float64 array of shape (n_sampled,), optional
    max_bins : int
    column : array, optional
        All values: where the sample has few distinct ones, those that it missed are looked for here.
    """
    there = ~np.isnan(sampled)
    if weight is not None:
        there &= weight > 0
        weight = weight[there]
    values = sampled if there.all() else sampled[there]
    if weight is None:
        values = np.sort(values)
    else:
        order = np.argsort(values, kind="stable")
        values, weight = values[order], weight[order]
    n_distinct = int(np.count_nonzero(values[1:] != values[:-1])) + (len(values) > 0)
    if n_distinct <= max_bins:
        distinct = np.unique(values)
        if column is not None and len(column) > len(sampled):
            distinct = _with_rare_values(distinct, column, max_bins)
        if len(distinct) <= max_bins:
            return midpoints(distinct[:-1], distinct[1:])
    # In each bin, about the same weight; a bin ends with the last one of equal values.
    targets = np.arange(1, max_bins) / max_bins * (1 - 1e-12)
    if weight is None:
        places = np.ceil(targets * len(values)).astype(np.int64) - 1
    else:
        below = np.cumsum(weight)
        places = np.searchsorted(below, targets * below[-1])
    lower = np.unique(values[places])
    ends = np.searchsorted(values, lower, side="right")
    lower, ends = lower[ends < len(values)], ends[ends < len(values)]
    return midpoints(lower, values[ends])


def midpoints(lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Halfway between, but never as high as the upper number, though rounding may take it there."""
    low, high = lower.astype(np.float64), upper.astype(np.float64)
    middle = low / 2 + high / 2
    return np.where(middle < high, middle, low)


def find_categories(column: np.ndarray, weight: np.ndarray | None, most: int) -> np.ndarray:
    """The most frequent categories of a column, ascending."""
    there = ~np.isnan(column)
    values, inverse, counts = np.unique(np.floor(column[there]), return_inverse=True, return_counts=True)
    if len(values) > most:
        share = counts if weight is None else np.bincount(inverse, weight[there], len(values))
        values = np.sort(values[np.argsort(-share, kind="stable")[:most]])
    return values.astype(np.float64)


def in_threads(work: Callable[[int], Any], items: Sequence[int], n_threads: int | None) -> list[Any]:
    """What `work` returns for each item, in order."""
    n_threads = min(n_threads or usable_cores(), len(items))
    if n_threads <= 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(n_threads) as pool:
        return list(pool.map(work, items))


def _with_rare_values(distinct: np.ndarray, column: np.ndarray, max_bins: int) -> np.ndarray:
    """`distinct` and the values that the sample missed; the sample's own where those are too many."""
    missed = np.unique(column[~(np.isin(column, distinct) | np.isnan(column))])
    return distinct if len(distinct) + len(missed) > max_bins else np.union1d(distinct, missed)


def _refuse_infinity(X: np.ndarray, n_threads: int | None) -> None:
    with Crew(n_threads) as crew:
        found = np.zeros((crew.n_threads, X.shape[1]), dtype=np.uint8)
        crew.run(find_infinity, X, found)
    if found.any():
        feature = int(np.flatnonzero(found.any(axis=0))[0])
        raise DataError(
            f"column {feature} holds an infinite value",
            "replace it by a large number or by NaN, which is a missing value",
        )
