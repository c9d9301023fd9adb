"""Trees grown from histograms of quantised gradients.

::

    config = GrowConfig(max_leaves=255, max_depth=0, grow_policy="lossguide", learning_rate=0.1)
    with HistGrower(config, Binner.fit(X), X) as grower:
        for round in range(50):
            g, h = ...                                   # float32 [n], weights in them; 0 where left out
            tree, node_of_row = grower.grow(g, h, round) # TreeArrays, int32 [n]
            margin += tree.value[node_of_row]            # the learning rate is in the values

Gradients and hessians are rounded to 8 bits (to more where a few are far larger than the rest), up or down at
random so that sums stay unbiased, after Shi et al. 2022, "Quantized training of gradient boosting decision
trees". Only the choice of splits sees rounded numbers: leaf values come from the sums of g and h as they are.
Whole gradients and hessians of up to 127 and 255 are not rounded at all. All sums are integers, so that the
tree is the same for any number of threads or parts of the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np

from fullspan.core.errors import ConfigError, DataError
from fullspan.core.simd import HAS_AVX512
from fullspan.core.threads import Crew, new_barrier
from fullspan.estimators.binning import Binner
from fullspan.estimators.boosting import _hist_grow as growth
from fullspan.estimators.boosting import _hist_splits as splits
from fullspan.estimators.boosting._hist_gradients import (
    FINE,
    add_leaf_values,
    extremes,
    leaf_sums,
    logistic_gradients,
    quantise,
    quantise_wide,
    squared_gradients,
    survey,
)
from fullspan.estimators.boosting._hist_grow import Desk, Features, Grown, Limits, Room, Rows, grow_tree
from fullspan.estimators.boosting._hist_kernels import BINS, MOST_FEATURES, ROW_CHUNK

_MOST_ROWS = 2**31 - 2**16
_MOST_ROWS_OF_VECTORS = 2**27
_HISTOGRAM_BYTES = 2**28
_PADDING = 64  # rows: what is read ahead, and written beside
_FINEST = 2.0**31
_LANES = 16
_TINY = 1e-30


@dataclass(frozen=True)
class GrowConfig:
    """What decides the shape of a tree; names and meanings are XGBoost's.

    Parameters
    ----------
    max_leaves, max_depth : int
        No limit where 0.
    grow_policy : {"depthwise", "lossguide"}
    learning_rate, reg_lambda, reg_alpha, gamma, min_child_weight, max_delta_step : float
    monotone : tuple of int, optional
        -1, 0 or 1 for each feature.
    interactions : tuple of tuples of int, optional
        Sets of features that may meet on a path.
    max_cat_to_onehot, max_cat_threshold : int
    colsample_bytree, colsample_bylevel, colsample_bynode : float
    seed : int
    n_threads : int, optional
        One for each usable core by default; the tree does not depend on it.
    """

    max_leaves: int = 0
    max_depth: int = 6
    grow_policy: str = "depthwise"
    learning_rate: float = 0.3
    reg_lambda: float = 1.0
    reg_alpha: float = 0.0
    gamma: float = 0.0
    min_child_weight: float = 1.0
    max_delta_step: float = 0.0
    monotone: tuple[int, ...] | None = None
    interactions: tuple[tuple[int, ...], ...] | None = None
    max_cat_to_onehot: int = 4
    max_cat_threshold: int = 64
    colsample_bytree: float = 1.0
    colsample_bylevel: float = 1.0
    colsample_bynode: float = 1.0
    seed: int = 0
    n_threads: int | None = None


@dataclass
class TreeArrays:
    """One tree, its arrays those of a `TreeEnsemble` with one tree."""

    left: np.ndarray
    right: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    default_left: np.ndarray
    value: np.ndarray
    gain: np.ndarray
    cover: np.ndarray
    category_start: np.ndarray
    categories: np.ndarray
    bin: np.ndarray
    """Of a numeric split: the last bin that goes left."""


class HistGrower:
    """Grows trees over one matrix of features; use it in a ``with`` block, which ends its threads.

    Parameters
    ----------
    config : GrowConfig
    binner : Binner
    X : array of shape (n_samples, n_features)
        Taken as float32; NaN is a missing value.

    Raises
    ------
    ConfigError
        If a constraint does not fit the features.
    DataError
        If there are too many rows, or a category is negative.
    """

    def __init__(self, config: GrowConfig, binner: Binner, X: np.ndarray) -> None:
        self.config = config
        self.binner = binner
        self.n = len(X)
        if self.n > _MOST_ROWS:
            raise DataError(f"X has {self.n} rows, at most {_MOST_ROWS} fit", "fit parts of the data")
        for feature, known in enumerate(binner.categories):
            if len(known) and known[0] < 0:
                raise DataError(
                    f"feature {feature} has the category {known[0]:g}", "number categories from 0"
                )
        self.crew = Crew(config.n_threads)
        n_features = binner.n_features
        n_blocks = -(-n_features // MOST_FEATURES)
        self.width = -(-n_features // n_blocks)
        self.blocks = binner.blocks(
            np.ascontiguousarray(X, dtype=np.float32), self.width, _PADDING, self.crew
        )
        self.wide = np.zeros(1, dtype=np.int64)
        self.vector = HAS_AVX512 and self.n < _MOST_ROWS_OF_VECTORS
        self._features = self._describe_features()
        self._room: Room | None = None
        self._g: np.ndarray | None = None
        self._h: np.ndarray | None = None
        threads = self.crew.n_threads
        self._order = np.zeros(self.n + (threads + 2) * _PADDING, dtype=np.int32)

    def _describe_features(self) -> Features:
        config, n_features = self.config, self.binner.n_features
        monotone = np.zeros(n_features, dtype=np.int8)
        if config.monotone is not None:
            if len(config.monotone) != n_features:
                raise ConfigError(
                    f"monotone has {len(config.monotone)} entries, the data has {n_features} features"
                )
            monotone[:] = config.monotone
            if (monotone[self.binner.is_categorical] != 0).any():
                feature = int(np.flatnonzero(self.binner.is_categorical & (monotone != 0))[0])
                raise ConfigError(f"feature {feature} holds categories, which cannot be monotone")
        sets = np.zeros((len(config.interactions or ()), n_features), dtype=np.uint8)
        for row, members in zip(sets, config.interactions or (), strict=True):
            unknown = [member for member in members if not 0 <= member < n_features]
            if unknown:
                raise ConfigError(f"interactions names feature {unknown[0]} of {n_features}")
            row[list(members)] = 1
        facts = np.zeros((n_features, 3), dtype=np.int64)
        facts[:, growth.N_BINS] = self.binner.n_bins
        facts[:, growth.IS_CATEGORICAL] = self.binner.is_categorical
        facts[:, growth.MONOTONE] = monotone
        every = np.arange(n_features, dtype=np.int64)
        return Features(facts, sets, every, n_features, n_features, np.uint32(0))

    def close(self) -> None:
        """End the threads."""
        self.crew.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def grow(self, g: np.ndarray, h: np.ndarray, round: int) -> tuple[TreeArrays, np.ndarray]:
        """Grow one tree.

        Parameters
        ----------
        g, h : float32 arrays of shape (n_samples,)
            Gradients and hessians of the objective at the present margin, weights in them; 0 where a row is
            left out. Negative hessians count as 0.
        round : int
            Which tree it is: columns and roundings are drawn anew for each.

        Returns
        -------
        tree : TreeArrays
        node_of_row : int32 array of shape (n_samples,)
            The leaf that each row is in.

        Raises
        ------
        DataError
            If a gradient or hessian is not finite.
        """
        own_g, own_h = self._gradients()
        own_g[: self.n], own_h[: self.n] = g, h
        return self._grow(round)

    def boost_logistic(
        self, y: np.ndarray, weight: np.ndarray | None, margin: np.ndarray, round: int
    ) -> TreeArrays:
        """Grow one tree for the logistic loss, and add its values to the margin.

        The same as `grow` with the gradients of that loss, but for the last bits of an exponential.

        Parameters
        ----------
        y : float32 array of shape (n_samples,)
            From 0 to 1.
        weight : float32 array of shape (n_samples,), optional
        margin : float32 array of shape (n_samples,)
            Changed in place. Use `padded` for it and the others to spare a copy in each round.
        round : int
        """
        return self._boost(logistic_gradients, y, weight, margin, round)

    def boost_squared(
        self, y: np.ndarray, weight: np.ndarray | None, margin: np.ndarray, round: int
    ) -> TreeArrays:
        """The same for the squared loss."""
        return self._boost(squared_gradients, y, weight, margin, round)

    def _boost(
        self, gradients: Any, y: np.ndarray, weight: np.ndarray | None, margin: np.ndarray, round: int
    ) -> TreeArrays:
        g, h = self._gradients()
        given = padded(y if weight is None else weight)
        self.crew.run(gradients, padded(margin), padded(y), given, weight is not None, g, h)
        tree, node_of_row = self._grow(round)
        self.crew.run(add_leaf_values, tree.value, node_of_row, margin)
        return tree

    def _gradients(self) -> tuple[np.ndarray, np.ndarray]:
        """Room for g and h, with more at the end for whole vectors."""
        if self._g is None or self._h is None:
            self._g, self._h = (np.zeros(self.n + _LANES, dtype=np.float32) for _ in range(2))
        return self._g, self._h

    def _quantise(self, round: int) -> tuple[_Scales, int, Any]:
        """Round the gradients into the blocks; gives their units, their packed sum and the round's salt."""
        (g, h), crew = self._gradients(), self.crew
        most = np.zeros((crew.n_threads, 2), dtype=np.float32)
        crew.run(extremes, self.n, g, h, most)
        found = np.zeros((crew.n_threads, 5), dtype=np.int64)
        finer = finer_units(most.max(axis=0))
        crew.run(survey, self.n, g, h, finer, found)
        scales = _Scales.of(most.max(axis=0), found.sum(axis=0), finer, self.n)
        salt = np.uint32(_mixed(self.config.seed * 0x9E3779B1 + round * 0x85EBCA77 + 1))
        sums = np.zeros(crew.n_threads, dtype=np.int64)
        if scales.wide:
            if len(self.wide) == 1:
                self.wide = np.zeros(self.blocks.shape[1], dtype=np.int64)
            crew.run(quantise_wide, self.n, g, h, scales.g, scales.h, salt, 0, self.wide, sums)
        else:
            units = np.float32(scales.g), np.float32(scales.h)
            words = self.blocks.view(np.uint16)
            crew.run(quantise, self.n, g, h, *units, salt, 0, words, sums)
        return scales, int(sums.sum()), salt

    def _grow(self, round: int) -> tuple[TreeArrays, np.ndarray]:
        config = self.config
        scales, total, salt = self._quantise(round)
        most = self._most_leaves(total & 0xFFFFFFFF, scales)
        limits = Limits(
            most,
            config.max_depth,
            config.grow_policy == "lossguide",
            np.float32(config.gamma),
            config.max_cat_to_onehot,
            config.max_cat_threshold,
        )
        has_categories = bool(self.binner.is_categorical.any())
        grown = _new_grown(2 * most - 1, has_categories)
        # Where rows are put aside while they are parted, and at the end the number of each row's leaf.
        spare = np.empty(len(self._order), dtype=np.int32)
        node_of_row = spare[: self.n]
        rows = Rows(self.blocks, self.wide, self._order, spare, scales.wide, self.width, self.vector)
        room = self._working_room(most)
        self.crew.run(
            grow_tree,
            rows,
            self._features_of_tree(round, salt),
            limits,
            self._settings(scales),
            room,
            self._new_desk(most, len(room.hist), has_categories, total),
            grown,
            node_of_row,
        )
        n_nodes = int(grown.n_nodes[0])
        fine = np.array([_FINEST / max(scales.most_g, 1e-300), _FINEST / max(scales.most_h, 1e-300)])
        sums = np.zeros((self.crew.n_threads, n_nodes, 2), dtype=np.int64)
        self.crew.run(leaf_sums, self.n, *self._gradients(), fine, node_of_row, sums)
        return self._finish(grown, n_nodes, sums.sum(axis=0) / fine), node_of_row

    def _most_leaves(self, total_h: int, scales: _Scales) -> int:
        """A bound on the leaves, from the settings and from how heavy a leaf must be."""
        config = self.config
        most = self.n
        if config.max_leaves:
            most = min(most, config.max_leaves)
        if config.max_depth and config.max_depth < 31:
            most = min(most, 2**config.max_depth)
        least = max(config.min_child_weight * scales.h, 1.0)
        return max(min(most, int(total_h / least) + 1), 1)

    def _settings(self, scales: _Scales) -> np.ndarray:
        config = self.config
        settings = np.zeros(splits.N_SETTINGS, dtype=np.float32)
        settings[splits.UNIT_G] = 1 / scales.g
        settings[splits.UNIT_H] = 1 / scales.h
        settings[splits.LAMBDA] = config.reg_lambda
        settings[splits.ALPHA] = config.reg_alpha
        # No side without hessian: half a unit stands for "more than nothing".
        settings[splits.MIN_HESSIAN] = max(config.min_child_weight, 0.5 / scales.h)
        settings[splits.MAX_STEP] = config.max_delta_step
        settings[splits.BOUNDED] = config.max_delta_step > 0 or bool(
            self._features.facts[:, growth.MONOTONE].any()
        )
        return settings

    def _features_of_tree(self, round: int, salt: Any) -> Features:
        """The features that this tree, its levels and its nodes may use."""
        config, n_features = self.config, self.binner.n_features
        features = self._features.features
        if config.colsample_bytree < 1:
            wanted = max(1, int(config.colsample_bytree * n_features))
            drawn = np.random.default_rng([config.seed, round]).permutation(n_features)[:wanted]
            features = np.sort(drawn).astype(np.int32)
        n_level = max(1, int(config.colsample_bylevel * len(features)))
        n_node = max(1, int(config.colsample_bynode * n_level))
        return self._features._replace(features=features, n_level=n_level, n_node=n_node, salt=salt)

    def _working_room(self, most_leaves: int) -> Room:
        """Room for histograms: one for each leaf that waits, or fewer, and then some are built again."""
        threads, (n_blocks, _, _) = self.crew.n_threads, self.blocks.shape
        size = self.width * BINS
        slots = max(3, min(most_leaves + 1, _HISTOGRAM_BYTES // (8 * n_blocks * size)))
        if self._room is None or len(self._room.hist) < slots:
            self._room = Room(
                np.empty((slots, n_blocks, size), dtype=np.int64),
                np.empty((threads if n_blocks % threads else 1, 2, size), dtype=np.int64),
                new_barrier(threads),
                np.zeros((2, threads), dtype=np.int64),
                np.zeros((threads, 2, 4), dtype=np.int64),
                np.zeros((threads, 2), dtype=np.float32),
                np.zeros((threads, 2, BINS), dtype=np.uint8),
            )
        return self._room

    def _new_desk(self, most: int, n_slots: int, has_categories: bool, total: int) -> Desk:
        """Each thread's account of the leaves, in which the root has all rows."""
        threads, n_features = self.crew.n_threads, self.binner.n_features
        n_sets = len(self._features.sets)
        numbers = np.zeros((threads, most, growth.PIECES + 2 * threads), dtype=np.int64)
        root = numbers[:, 0]
        root[:, growth.TOTAL] = total
        root[:, growth.SLOT] = -1
        root[:, growth.N_ROWS] = self.n
        first = 0
        for thread in range(threads):
            count = _rows_of_thread(self.n, thread, threads)
            root[:, growth.PIECES + 2 * thread] = first
            root[:, growth.PIECES + 2 * thread + 1] = count
            first += count + _PADDING
        reals = np.zeros((threads, most, 3), dtype=np.float32)
        reals[:, 0, growth.LOWEST], reals[:, 0, growth.HIGHEST] = -np.inf, np.inf
        marks = np.zeros((threads, most if n_sets else 1, n_sets + n_features), dtype=np.uint8)
        marks[:, :, :n_sets] = 1
        return Desk(
            numbers,
            reals,
            np.zeros((threads, most if has_categories else 1, BINS), dtype=np.uint8),
            marks,
            np.zeros((threads, most), dtype=np.int64),
            np.zeros((threads, n_slots), dtype=np.uint8),
            np.zeros((threads, 2, n_features), dtype=np.int64),
            np.zeros((threads, 2, BINS), dtype=np.int32),
            np.zeros((threads, BINS), dtype=np.int64),
            np.zeros((threads, 2, BINS), dtype=np.float32),
            np.zeros((threads, BINS), dtype=np.uint8),
            np.zeros((threads, BINS), dtype=np.int32),
        )

    def _finish(self, grown: Grown, n_nodes: int, sums: np.ndarray) -> TreeArrays:
        """Values and covers from the leaves' own sums; bins become thresholds and sets of categories."""
        config = self.config
        numbers = grown.numbers[:n_nodes].astype(np.int32)
        left, right, bins, kind = numbers[:, [growth.LEFT, growth.RIGHT, growth.NODE_BIN, growth.NODE_KIND]].T
        for node in range(n_nodes - 1, -1, -1):
            if left[node] >= 0:
                sums[node] = sums[left[node]] + sums[right[node]]
        g, h = sums.T
        weight = -np.sign(g) * np.maximum(np.abs(g) - config.reg_alpha, 0)
        divisor = h + config.reg_lambda
        weight = np.divide(weight, divisor, out=np.zeros(n_nodes), where=divisor > 0)
        if config.max_delta_step > 0:
            weight = np.clip(weight, -config.max_delta_step, config.max_delta_step)
        weight = np.clip(weight, grown.reals[:n_nodes, growth.LOWEST], grown.reals[:n_nodes, growth.HIGHEST])
        feature = np.where(left >= 0, numbers[:, growth.NODE_FEATURE], 0)
        threshold = np.zeros(n_nodes, dtype=np.float32)
        default_left = kind == splits.MISSING_LEFT
        category_start = np.zeros(n_nodes + 1, dtype=np.int64)
        categories = []
        for node in np.flatnonzero(left >= 0):
            if kind[node] == splits.CATEGORIES:
                right_codes = np.flatnonzero(grown.goes_left[node] == 0)
                known = self.binner.categories[feature[node]]
                categories.append(known[right_codes[right_codes < len(known)]].astype(np.int32))
                category_start[node + 1] = len(categories[-1])
                default_left[node] = grown.goes_left[node, splits.MISSING] != 0
            else:
                threshold[node] = threshold_after(self.binner.cuts[feature[node]], int(bins[node]))
        return TreeArrays(
            left=np.ascontiguousarray(left),
            right=np.ascontiguousarray(right),
            feature=feature,
            threshold=threshold,
            default_left=default_left,
            value=(weight * config.learning_rate).astype(np.float32),
            gain=np.where(left >= 0, grown.reals[:n_nodes, growth.GAIN], 0).astype(np.float32),
            cover=h.astype(np.float32),
            category_start=np.cumsum(category_start),
            categories=np.concatenate(categories) if categories else np.empty(0, dtype=np.int32),
            bin=bins.copy(),
        )


def threshold_after(cuts: np.ndarray, bin_: int) -> np.float32:
    """The float32 t for which ``x < t`` is the same as ``x <= cuts[bin_]`` for every float32 x."""
    if bin_ >= len(cuts):
        return np.finfo(np.float32).max
    nearest = np.float32(cuts[bin_])
    if nearest > cuts[bin_]:
        return nearest
    return np.nextafter(nearest, np.float32(np.inf))


@dataclass(frozen=True)
class _Scales:
    """How many units one is of g and h, and their largest values; wide: whether 8 bits are too few."""

    g: float
    h: float
    wide: bool
    most_g: float
    most_h: float

    @classmethod
    def of(cls, most: np.ndarray, found: np.ndarray, finer: np.ndarray, n: int) -> _Scales:
        """Choose from what `extremes` and `survey` have found in the n rows, so that no sum overflows."""
        most_g, most_h = most.astype(np.float64).tolist()
        sum_g, sum_h = (found[:2] + n) / finer.astype(np.float64)
        mean_g, mean_h = found[2:4] / n / (FINE / 2**10) ** 2
        room_g, room_h = 2.0**31 - 2 * n - 2, 2.0**32 - 2 * n - 2
        limit_g, limit_h = room_g / sum_g, room_h / sum_h
        if found[4] == 0 and min(limit_g, limit_h) >= 1:
            return cls(1.0, 1.0, most_g > 127 or most_h > 255, most_g, most_h)
        # Rounding adds noise: at most a fiftieth to the variance, or the wide form is taken.
        if (mean_g < 1 / 45**2 and most_g > 0) or (mean_h < 1 / 90**2 and most_h > 0):
            return cls(min(limit_g, 2.0**100), min(limit_h, 2.0**100), True, most_g, most_h)
        scale_g = min(127 / max(most_g, _TINY), limit_g)
        scale_h = min(255 / max(most_h, _TINY), limit_h)
        return cls(scale_g, scale_h, False, most_g, most_h)


def finer_units(most: np.ndarray) -> np.ndarray:
    """Units for `survey`: float32 [2], for which the largest |g| and h become `FINE`.

    Raises
    ------
    DataError
        If those are not finite.
    """
    if not np.isfinite(most).all():
        raise DataError("gradients and hessians must be finite numbers")
    return (FINE / np.maximum(most.astype(np.float64), _TINY)).astype(np.float32)


def padded(values: np.ndarray) -> np.ndarray:
    """The values as float32 that kernels may read beyond by one vector; the same array if it is such."""
    if values.dtype == np.float32 and values.flags.c_contiguous and isinstance(values.base, np.ndarray):
        base = values.base
        if base.dtype == np.float32 and base.ndim == 1 and len(base) == len(values) + _LANES:
            return values
    room = np.zeros(len(values) + _LANES, dtype=np.float32)
    room[: len(values)] = values
    return room[: len(values)]


def _new_grown(n_nodes: int, has_categories: bool) -> Grown:
    numbers = np.full((n_nodes, 5), -1, dtype=np.int64)
    reals = np.zeros((n_nodes, 3), dtype=np.float32)
    reals[0, growth.LOWEST], reals[0, growth.HIGHEST] = -np.inf, np.inf
    goes_left = np.zeros((max(n_nodes, 2) if has_categories else 1, BINS), dtype=np.uint8)
    return Grown(numbers, reals, goes_left, np.zeros(1, dtype=np.int64))


def _rows_of_thread(n: int, thread: int, threads: int) -> int:
    """How many rows are in every `threads`-th chunk, from chunk `thread` on."""
    chunks, rest = divmod(n, ROW_CHUNK)
    whole = len(range(thread, chunks, threads))
    return whole * ROW_CHUNK + (rest if chunks % threads == thread else 0)


def _mixed(x: int) -> int:
    """Bits of a whole number that look random."""
    return int(np.random.SeedSequence(x & 0xFFFFFFFFFFFFFFFF).generate_state(1)[0])
