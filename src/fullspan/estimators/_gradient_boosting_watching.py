"""What watches gradient boosting at work: rows set aside, whose loss ends it, and the printed report."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from fullspan.estimators.friedman import Objective


class HeldOut:
    """Rows set aside, whose loss says when to stop."""

    def __init__(self, model: Any, X: Any, y: np.ndarray, weight: np.ndarray) -> None:
        self.model, self.X, self.y, self.weight = model, X, y, weight
        self.raw = model._raw_predict(X)
        self.last = np.full(model.n_iter_no_change, np.inf)

    def improves(self, stage: int, objective: Objective) -> bool:
        """Whether the loss after a new stage is less than one of the last ones, by the tolerance."""
        self.model._add_stage(stage, self.X, self.raw)
        loss = objective.score(self.y, self.raw, self.weight)
        if not np.any(loss + self.model.tol < self.last):
            return False
        self.last[stage % len(self.last)] = loss
        return True


class Reporter:
    """Prints how far boosting is: each stage, or with `verbose=1` fewer and fewer of them."""

    def __init__(self, model: Any, first: int) -> None:
        self.model, self.first = model, first
        self.every = 1
        self.started = time.time()
        titles = ["Train Loss", *(["OOB Improve"] if model.subsample < 1 else []), "Remaining Time"]
        print(f"{'Iter':>10s} " + "".join(f"{title:>16s} " for title in titles))

    def update(self, stage: int) -> None:
        done = stage - self.first + 1
        if done % self.every:
            return
        model = self.model
        left = (model.n_estimators - stage - 1) * (time.time() - self.started) / done
        shown = f"{left / 60:.2f}m" if left > 60 else f"{left:.2f}s"
        improved = f"{model.oob_improvement_[stage]:>16.4f} " if model.subsample < 1 else ""
        print(f"{stage + 1:>10d} {model.train_score_[stage]:>16.4f} {improved}{shown:>16s}")
        if model.verbose == 1 and done // (self.every * 10) > 0:
            self.every *= 10
