"""Any scikit-learn regressor as the weak learner."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from fullspan.estimators.boosting._data import Rows
from fullspan.estimators.boosting.ensemble import TreeEnsemble
from fullspan.estimators.boosting.objective import Objective
from fullspan.estimators.boosting.settings import Settings
from fullspan.estimators.saving import Saveable

Array = NDArray[Any]


class WeakModel(Saveable):
    """Margins from `base_score` on, by fitted regressors.

    Parameters
    ----------
    n_features, n_groups : int
    base_score : float64 array of shape (n_groups,)
    learners : list of regressors
        Learner i adds to output ``i % n_groups``.
    rates : list of float
        The learning rate of each.
    """

    def __init__(
        self, n_features: int, n_groups: int, base_score: Array, learners: list[Any], rates: list[float]
    ) -> None:
        self.n_features, self.n_groups, self.base_score = n_features, n_groups, base_score
        self.learners, self.rates = learners, rates

    def margin(
        self, X: Any, first: int = 0, last: int | None = None, base_margin: Array | None = None
    ) -> NDArray[np.float32]:
        """Raw scores [n_samples, n_groups] of the learners ``first:last``."""
        out = np.empty((X.shape[0], self.n_groups), dtype=np.float32)
        out[:] = self.base_score if base_margin is None else base_margin
        for i, learner in list(enumerate(self.learners))[first:last]:
            step = np.asarray(learner.predict(X), np.float32)
            out[:, i % self.n_groups] += np.float32(self.rates[i]) * step
        return out


class WeakBooster:
    """Any regressor as the weak learner: fitted to Newton's steps, weighted by the hessians."""

    def __init__(
        self, settings: Settings, objective: Objective, rows: Rows, base_score: Array, weak_learner: Any
    ) -> None:
        self.rows, self.objective, self.weak_learner = rows, objective, weak_learner
        self.seed = settings.config.seed
        self.weak = WeakModel(
            rows.X.shape[1],
            objective.n_outputs,
            np.asarray(base_score, np.float64),
            [],
            [],
        )
        self.learning_rate = settings.learning_rate

    def training_margin(self) -> Array:
        return self.rows.margin

    def step(self, g: Array, h: Array, margin: Array) -> list[TreeEnsemble]:
        first = len(self.weak.learners)
        for output in range(self.objective.n_outputs):
            learner = clone(self.weak_learner)
            if "random_state" in learner.get_params() and learner.random_state is None:
                learner.set_params(random_state=self.seed + len(self.weak.learners))
            hessian = np.maximum(h[:, output], np.float32(1e-16))
            learner.fit(self.rows.X, -g[:, output] / hessian, sample_weight=hessian)
            self.weak.learners.append(learner)
            self.weak.rates.append(self.learning_rate)
        self.rows.margin = self.weak.margin(self.rows.X, first, base_margin=self.rows.margin)
        return []

    def advance(self, evals: list[Rows], new: list[TreeEnsemble]) -> None:
        first = len(self.weak.learners) - self.objective.n_outputs
        for one in evals:
            one.margin = self.weak.margin(one.X, first, base_margin=one.margin)

    def set_learning_rate(self, learning_rate: float) -> None:
        self.learning_rate = learning_rate

    def model(self) -> WeakModel:
        return self.weak
