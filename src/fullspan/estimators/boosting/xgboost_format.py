"""What XGBoost's model files hold, and what their reader and writer share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullspan.estimators.boosting.linear import LinearModel
from fullspan.estimators.boosting.objective import Objective
from fullspan.estimators.saving import Saveable

Array = NDArray[Any]

VERSION = [3, 2, 0]
# Stands for None in texts of counts.
NO_LIMIT = 4294967295
# Where XGBoost keeps each objective's parameters.
PARAMETER_GROUPS = {
    "reg:squarederror": "reg_loss_param",
    "reg:logistic": "reg_loss_param",
    "reg:gamma": "reg_loss_param",
    "binary:logistic": "reg_loss_param",
    "binary:logitraw": "reg_loss_param",
    "reg:pseudohubererror": "pseudo_huber_param",
    "reg:quantileerror": "quantile_loss_param",
    "reg:tweedie": "tweedie_regression_param",
    "count:poisson": "poisson_regression_param",
    "survival:aft": "aft_loss_param",
    "multi:softprob": "softmax_multiclass_param",
    "multi:softmax": "softmax_multiclass_param",
    "rank:ndcg": "lambdarank_param",
    "rank:pairwise": "lambdarank_param",
    "rank:map": "lambdarank_param",
}


class Content(Saveable):
    """What a model file holds.

    Parameters
    ----------
    model : TreeEnsemble, LinearModel or WeakModel
    objective : Objective
    n_parallel : int
        Trees of each output in a round.
    feature_names, feature_types : list of str, optional
        Types are "float", "int", "i" (yes or no), "q" or "c" (codes of categories).
    categories : dict, optional
        From a column to the values that its codes stand for, where a DataFrame was fitted.
    attributes : dict of str, optional
        Whatever else is kept with the model.
    """

    def __init__(
        self,
        model: Any,
        objective: Objective,
        n_parallel: int = 1,
        feature_names: list[str] | None = None,
        feature_types: list[str] | None = None,
        categories: dict[int, Array] | None = None,
        attributes: dict[str, str] | None = None,
    ) -> None:
        self.model = model
        self.objective = objective
        self.n_parallel = n_parallel
        self.feature_names, self.feature_types = feature_names, feature_types
        self.categories = categories or {}
        self.texts = attributes or {}

    @property
    def is_linear(self) -> bool:
        return isinstance(self.model, LinearModel)

    @property
    def is_categorical(self) -> NDArray[np.bool_]:
        """Which columns hold categories."""
        mask = np.array([kind == "c" for kind in self.feature_types or []], dtype=bool)
        return mask if len(mask) else np.zeros(self.model.n_features, dtype=bool)
