"""Which features a tree, a level or a node may be split by, drawn with equal or with given chances."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullspan.estimators.binning import Binner
from fullspan.estimators.boosting._hist_records import Features
from fullspan.estimators.boosting.hist import GrowConfig
from fullspan.estimators.boosting.hist_plan import TreePlan


def drawn(
    random: np.random.Generator,
    features: NDArray[np.int64],
    share: float,
    weights: NDArray[np.float64] | None = None,
) -> NDArray[np.int64]:
    """A share of the features, ascending, at least one.

    Parameters
    ----------
    random : Generator
    features : int64 array
    share : float
        All of them for 1.
    weights : float64 array of shape (n_features,), optional
        The chances of all features, not of `features` alone, to be drawn first; those of 0 come last.

    References
    ----------
    P. Efraimidis, P. Spirakis, "Weighted random sampling with a reservoir", IPL 97 (2006).

    Examples
    --------
    >>> drawn(np.random.default_rng(0), np.arange(4), 0.5, np.array([0.0, 1, 0, 1])).tolist()
    [1, 3]
    """
    if share >= 1:
        return features
    n = max(1, int(share * len(features)))
    if weights is None:
        return np.sort(random.choice(features, n, replace=False))
    with np.errstate(divide="ignore"):
        keys = np.log(random.random(len(features))) / weights[features]
    return np.sort(features[np.argsort(-keys, kind="stable")[:n]])


class WeightedPlan(TreePlan):
    """A plan of histogram trees whose features have different chances: drawn once for each tree.

    Parameters
    ----------
    config : GrowConfig
        All of its `colsample_*` shares are multiplied.
    binner : Binner
    weights : float64 array of shape (n_features,)
    """

    def __init__(self, config: GrowConfig, binner: Binner, weights: NDArray[np.float64]) -> None:
        self.share = config.colsample_bytree * config.colsample_bylevel * config.colsample_bynode
        self.weights = weights
        every = replace(config, colsample_bytree=1.0, colsample_bylevel=1.0, colsample_bynode=1.0)
        super().__init__(every, binner)

    def features_of_tree(self, round: int, salt: Any) -> Features:
        random = np.random.default_rng([self.config.seed, round])
        features = drawn(random, np.arange(self.binner.n_features), self.share, self.weights)
        everything = super().features_of_tree(round, salt)
        return everything._replace(
            features=features.astype(everything.features.dtype), n_level=len(features), n_node=len(features)
        )
