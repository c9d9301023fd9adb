"""What decides a tree, apart from the rows: settings, features, units, and how sums become a tree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fullspan.core.errors import ConfigError, DataError
from fullspan.estimators.binning import Binner
from fullspan.estimators.boosting import _hist_records as records
from fullspan.estimators.boosting import _hist_splits as splits
from fullspan.estimators.boosting._hist_gradients import FINE
from fullspan.estimators.boosting._hist_kernels import BINS
from fullspan.estimators.boosting._hist_records import Features, Grown, Limits

_FEW_ROWS = 4096
_FINEST_BITS = 30
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


class TreePlan:
    """Settings of growth over the bins of some features.

    Parameters
    ----------
    config : GrowConfig
    binner : Binner

    Raises
    ------
    ConfigError
        If a constraint does not fit the features.
    DataError
        If a category is negative.
    """

    def __init__(self, config: GrowConfig, binner: Binner) -> None:
        self.config = config
        self.binner = binner
        for feature, known in enumerate(binner.categories):
            if len(known) and known[0] < 0:
                raise DataError(
                    f"feature {feature} has the category {known[0]:g}", "number categories from 0"
                )
        self.features = self.describe_features()
        self.has_categories = bool(binner.is_categorical.any())
        self.thresholds = threshold_table(binner)

    def describe_features(self) -> Features:
        """Features and the constraints on them, as kernels take them."""
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
        facts[:, records.N_BINS] = self.binner.n_bins
        facts[:, records.IS_CATEGORICAL] = self.binner.is_categorical
        facts[:, records.MONOTONE] = monotone
        every = np.arange(n_features, dtype=np.int64)
        return Features(facts, sets, every, n_features, n_features, np.uint32(0))

    def salt(self, round: int) -> Any:
        """What a round's random choices start from."""
        mixed = np.random.SeedSequence([self.config.seed & 0xFFFFFFFF, round]).generate_state(1)[0]
        return np.uint32(mixed)

    def limits(self, most_leaves: int) -> Limits:
        """When to stop."""
        config = self.config
        return Limits(
            most_leaves,
            config.max_depth,
            config.grow_policy == "lossguide",
            np.float32(config.gamma),
            config.max_cat_to_onehot,
            config.max_cat_threshold,
        )

    def most_leaves(self, n: int, total_h: int, scales: Scales) -> int:
        """A bound on the leaves, from the settings and from how heavy a leaf must be."""
        config = self.config
        most = n
        if config.max_leaves:
            most = min(most, config.max_leaves)
        if config.max_depth and config.max_depth < 31:
            most = min(most, 2**config.max_depth)
        least = max(config.min_child_weight * scales.h, 1.0)
        return max(min(most, int(total_h / least) + 1), 1)

    def settings(self, scales: Scales) -> np.ndarray:
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
            self.features.facts[:, records.MONOTONE].any()
        )
        return settings

    def features_of_tree(self, round: int, salt: Any) -> Features:
        """The features that this tree, its levels and its nodes may use."""
        config, n_features = self.config, self.binner.n_features
        features = self.features.features
        if config.colsample_bytree < 1:
            wanted = max(1, int(config.colsample_bytree * n_features))
            drawn = np.random.default_rng([config.seed, round]).permutation(n_features)[:wanted]
            features = np.sort(drawn).astype(np.int32)
        n_level = max(1, int(config.colsample_bylevel * len(features)))
        n_node = max(1, int(config.colsample_bynode * n_level))
        return self.features._replace(features=features, n_level=n_level, n_node=n_node, salt=salt)

    def finish(self, grown: Grown, n_nodes: int, sums: np.ndarray) -> TreeArrays:
        """Values and covers from the leaves' own sums; bins become thresholds and sets of categories."""
        config = self.config
        numbers = grown.numbers[:n_nodes].astype(np.int32)
        left, right, bins, kind = numbers[
            :, [records.LEFT, records.RIGHT, records.NODE_BIN, records.NODE_KIND]
        ].T
        # Children come after their parents.
        for node in np.flatnonzero(left >= 0)[::-1].tolist():
            sums[node] = sums[left[node]] + sums[right[node]]
        g, h = sums.T
        weight = -np.sign(g) * np.maximum(np.abs(g) - config.reg_alpha, 0)
        divisor = h + config.reg_lambda
        weight = np.divide(weight, divisor, out=np.zeros(n_nodes), where=divisor > 0)
        if config.max_delta_step > 0:
            weight = np.clip(weight, -config.max_delta_step, config.max_delta_step)
        weight = np.clip(
            weight, grown.reals[:n_nodes, records.LOWEST], grown.reals[:n_nodes, records.HIGHEST]
        )
        feature = np.where(left >= 0, numbers[:, records.NODE_FEATURE], 0)
        threshold = np.zeros(n_nodes, dtype=np.float32)
        default_left = kind == splits.MISSING_LEFT
        category_start = np.zeros(n_nodes + 1, dtype=np.int64)
        categories = []
        numeric = (left >= 0) & (kind != splits.CATEGORIES)
        threshold[numeric] = self.thresholds[feature[numeric], bins[numeric]]
        for node in np.flatnonzero((left >= 0) & (kind == splits.CATEGORIES)).tolist():
            right_codes = np.flatnonzero(grown.goes_left[node] == 0)
            known = self.binner.categories[feature[node]]
            categories.append(known[right_codes[right_codes < len(known)]].astype(np.int32))
            category_start[node + 1] = len(categories[-1])
            default_left[node] = grown.goes_left[node, splits.MISSING] != 0
        return TreeArrays(
            left=np.ascontiguousarray(left),
            right=np.ascontiguousarray(right),
            feature=feature,
            threshold=threshold,
            default_left=default_left,
            value=(weight * config.learning_rate).astype(np.float32),
            gain=np.where(left >= 0, grown.reals[:n_nodes, records.GAIN], 0).astype(np.float32),
            cover=h.astype(np.float32),
            category_start=np.cumsum(category_start),
            categories=np.concatenate(categories) if categories else np.empty(0, dtype=np.int32),
            bin=bins.copy(),
        )


def threshold_table(binner: Binner) -> np.ndarray:
    """float32 [F, 256]: t for which ``x < t`` says the same of every float32 x as that its bin is up to b."""
    table = np.full((binner.n_features, BINS), np.finfo(np.float32).max, dtype=np.float32)
    for row, cuts in zip(table, binner.cuts, strict=True):
        nearest = cuts.astype(np.float32)
        row[: len(cuts)] = np.where(nearest > cuts, nearest, np.nextafter(nearest, np.float32(np.inf)))
    return table


@dataclass(frozen=True)
class Scales:
    """How many units one is of g and h, and their largest values.

    wide: whether 8 bits are too few; nearest: whether to round to the nearest unit, not at random. Random
    rounding keeps the sums of many rows right. Few rows have units so fine that it is not needed, and splits
    that are equally good stay so.
    """

    g: float
    h: float
    wide: bool
    most_g: float
    most_h: float
    nearest: bool = False

    def finest(self) -> np.ndarray:
        """How many units one is of g and h, powers of two for which the largest are below 2^30.

        What a float32 tells apart is lost only where it is 2^30 times smaller than the largest.
        """
        _, exponents = np.frexp(np.maximum([self.most_g, self.most_h], _TINY))
        return np.asarray(2.0 ** np.minimum(_FINEST_BITS - exponents, 100), dtype=np.float32)

    @classmethod
    def of(cls, most: np.ndarray, found: np.ndarray, finer: np.ndarray, n: int) -> Scales:
        """Choose from what `extremes` and `survey` have found in the n rows, so that no sum overflows."""
        most_g, most_h = most.astype(np.float64).tolist()
        sum_g, sum_h = (found[:2] + n) / finer.astype(np.float64)
        mean_g, mean_h = found[2:4] / n / (FINE / 2**10) ** 2
        room_g, room_h = 2.0**31 - 2 * n - 2, 2.0**32 - 2 * n - 2
        limit_g, limit_h = room_g / sum_g, room_h / sum_h
        if found[4] == 0 and min(limit_g, limit_h) >= 1:
            return cls(1.0, 1.0, most_g > 127 or most_h > 255, most_g, most_h)
        # Rounding adds noise: at most a fiftieth to the variance, or the wide form is taken. Few rows have no
        # use for speed, and a row of weight two is then the same as two rows.
        if n <= _FEW_ROWS or (mean_g < 1 / 45**2 and most_g > 0) or (mean_h < 1 / 90**2 and most_h > 0):
            limits = min(limit_g, 2.0**100), min(limit_h, 2.0**100)
            return cls(*limits, True, most_g, most_h, nearest=n <= _FEW_ROWS)
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


def new_grown(n_nodes: int, has_categories: bool) -> Grown:
    numbers = np.full((n_nodes, 5), -1, dtype=np.int64)
    reals = np.zeros((n_nodes, 3), dtype=np.float32)
    reals[0, records.LOWEST], reals[0, records.HIGHEST] = -np.inf, np.inf
    goes_left = np.zeros((max(n_nodes, 2) if has_categories else 1, BINS), dtype=np.uint8)
    return Grown(numbers, reals, goes_left, np.zeros(1, dtype=np.int64))
