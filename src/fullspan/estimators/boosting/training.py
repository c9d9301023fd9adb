"""Rounds of boosting: gradients, a tree (or a pass, or a weak learner) for each output, new margins."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullspan.estimators.boosting._data import Rows
from fullspan.estimators.boosting.ensemble import TreeEnsemble
from fullspan.estimators.boosting.linear import CoordinateDescent, LinearModel
from fullspan.estimators.boosting.objective import Objective
from fullspan.estimators.boosting.settings import Settings
from fullspan.estimators.boosting.tree_booster import TreeBooster
from fullspan.estimators.boosting.weak import WeakBooster, WeakModel

Array = NDArray[Any]
Model = TreeEnsemble | LinearModel | WeakModel


class LinearBooster:
    """gblinear."""

    def __init__(
        self,
        settings: Settings,
        objective: Objective,
        rows: Rows,
        base_score: Array,
        start: LinearModel | None,
    ) -> None:
        self.rows = rows
        self.linear = start or LinearModel(rows.X.shape[1], objective.n_outputs, base_score)
        config = settings.config
        self.descent = CoordinateDescent(
            rows.X, settings.learning_rate, config.reg_lambda, config.reg_alpha, settings.shuffle, config.seed
        )
        self.total = float(len(rows.y) if rows.weight is None else rows.weight.sum(dtype=np.float64))

    def training_margin(self) -> Array:
        self.rows.margin = self.linear.margin(self.rows.X, self.rows.base_margin)
        return self.rows.margin

    def step(self, g: Array, h: Array, margin: Array) -> list[TreeEnsemble]:
        self.descent.update(
            self.linear,
            g.astype(np.float32),
            h.astype(np.float32),
            self.total,
            self.linear.n_rounds,
        )
        return []

    def advance(self, evals: list[Rows], new: list[TreeEnsemble]) -> None:
        for one in evals:
            one.margin = self.linear.margin(one.X, one.base_margin)

    def set_learning_rate(self, learning_rate: float) -> None:
        self.descent.learning_rate = learning_rate

    def model(self) -> LinearModel:
        return self.linear


class Training:
    """One fit, a round at a time.

    Parameters
    ----------
    settings : Settings
    objective : Objective
    rows : Rows
    evals : list of Rows
        Their margins are brought up to date after each round.
    base_score : array of shape (n_outputs,)
    start : TreeEnsemble or LinearModel, optional
        To go on from.
    weak_learner : regressor, optional
    custom : callable, optional
        ``(y, margin, weight) -> gradients, hessians`` in place of the objective's own.
    stack : ExitStack
        Ends the threads.
    """

    def __init__(
        self,
        settings: Settings,
        objective: Objective,
        rows: Rows,
        evals: list[Rows],
        base_score: Array,
        start: Any,
        weak_learner: Any,
        custom: Any,
        stack: ExitStack,
    ) -> None:
        self.settings, self.objective, self.rows, self.evals = settings, objective, rows, evals
        self.custom, self.n_done = custom, 0
        self.booster: TreeBooster | LinearBooster | WeakBooster
        if weak_learner is not None:
            self.booster = WeakBooster(settings, objective, rows, base_score, weak_learner)
        elif settings.booster == "gblinear":
            self.booster = LinearBooster(settings, objective, rows, base_score, start)
        else:
            self.booster = TreeBooster(settings, objective, rows, base_score, start, stack)
        for one in [rows, *evals]:
            one.start(base_score)
            if start is not None:
                one.margin = start.margin(one.X, base_margin=one.base_margin)

    def round(self) -> None:
        """Boost once."""
        booster, rows = self.booster, self.rows
        if self.custom is None and isinstance(booster, TreeBooster) and booster.has_fast_rounds():
            new = booster.fast_step()
        else:
            margin = booster.training_margin()
            if self.custom is None:
                g, h = self.objective.gradients(margin, rows.y, rows.weight, self.n_done)
            else:
                g, h = self.custom(rows.y, margin, rows.weight)
            new = booster.step(g, h, margin)
        booster.advance(self.evals, new)
        self.n_done += 1

    def model(self) -> Model:
        """What has been fitted so far."""
        return self.booster.model()

    def set_learning_rate(self, learning_rate: float) -> None:
        """Change the learning rate of the rounds to come."""
        self.booster.set_learning_rate(learning_rate)
