"""tree_method="approx": new bins for each tree, at quantiles that the hessians weigh."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullspan.estimators.binning import Binner
from fullspan.estimators.boosting.feature_sampling import WeightedPlan
from fullspan.estimators.boosting.hist import GrowConfig, HistGrower, TreeArrays


class ApproxGrower:
    """Grows one tree at a time on one training set; the interface is `HistGrower`'s.

    Parameters
    ----------
    config : GrowConfig
    X : float32 array of shape (n_samples, n_features)
    max_bins : int
    categorical : bool array of shape (n_features,)
    feature_weights : float64 array of shape (n_features,), optional

    References
    ----------
    T. Chen, C. Guestrin, "XGBoost: a scalable tree boosting system", KDD 2016, section 3.3.
    """

    def __init__(
        self,
        config: GrowConfig,
        X: NDArray[np.float32],
        max_bins: int,
        categorical: NDArray[np.bool_],
        feature_weights: NDArray[np.float64] | None = None,
    ) -> None:
        self.feature_weights = feature_weights
        self.config, self.X, self.max_bins, self.categorical = config, X, max_bins, categorical

    def grow(
        self, g: NDArray[np.float32], h: NDArray[np.float32], round: int
    ) -> tuple[TreeArrays, NDArray[Any]]:
        """One tree, and the leaf of each row."""
        weight = h if h.any() else None
        binner = Binner.fit(
            self.X, self.max_bins, weight, self.categorical, self.config.n_threads, self.config.seed
        )
        with HistGrower(self.config, binner, self.X) as grower:
            if self.feature_weights is not None:
                grower.plan = WeightedPlan(self.config, binner, self.feature_weights)
            return grower.grow(g, h, round)
