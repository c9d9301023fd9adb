"""The regression trees of gradient boosting, grown again and again on the same rows."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from scipy.sparse import csc_array, csr_array, issparse

from fullspan.estimators.tree.cart import DecisionTreeRegressor
from fullspan.estimators.tree.growing import columns_of, grow, targets_of
from fullspan.estimators.tree.pruning import pruned


class Grower:
    """Grows trees on the same rows, whose columns are laid out once."""

    def __init__(self, X: Any, template: DecisionTreeRegressor) -> None:
        self.rows = csr_array(X) if issparse(X) else np.ascontiguousarray(X)
        self.template = template
        self.template.n_features_in_ = X.shape[1]
        self.template.max_features_ = self.template._resolved_max_features(X.shape[1])
        self.template.n_outputs_ = 1
        self.columns = columns_of(
            _sorted_csc(X) if issparse(X) else X,
            presorted=self.template._sorts_columns(X.shape[1]),
        )

    def grow(self, residual: np.ndarray, weight: np.ndarray, seed: int) -> DecisionTreeRegressor:
        """A fitted tree: what the template's `fit` would make of the residuals, if it drew that seed."""
        made = copy.copy(self.template)
        one = np.ones(1, np.int64)
        rules = made._rules(len(residual), np.sum(weight), one)
        targets = targets_of(residual[:, None], weight, one, rules.criterion)
        tree = grow(self.columns, targets, rules, seed)
        made.tree_ = tree if made.ccp_alpha == 0.0 else pruned(tree, made.ccp_alpha)
        return made


def _sorted_csc(X: Any) -> Any:
    columns = csc_array(X)
    columns.sort_indices()
    return columns
