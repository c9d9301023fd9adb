"""What happens around the rounds of a fit: metrics, early stopping, callbacks, custom objectives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullspan.estimators.boosting.metrics import is_maximised
from fullspan.estimators.boosting.objectives import Objective
from fullspan.estimators.boosting.training import Rows, scores

Array = NDArray[Any]


class Watch:
    """Metrics, early stopping and callbacks after each round."""

    def __init__(
        self, estimator: Any, evals: list[Rows], metrics: list[Any], objective: Objective, verbose: Any
    ) -> None:
        self.estimator, self.evals, self.metrics, self.objective = estimator, evals, metrics, objective
        self.every = int(verbose) if verbose and evals and estimator.verbosity != 0 else 0
        self.patience = estimator.early_stopping_rounds
        self.round = 0
        if self.patience is not None and not evals:
            raise ValueError("Must have at least 1 validation dataset for early stopping.")
        self.log = estimator._evals_result

    def after_round(self) -> bool:
        """Whether to stop."""
        found = scores(self.objective, self.evals, self.metrics) if self.evals else {}
        for name, values in found.items():
            for metric, value in values.items():
                self.log.setdefault(name, {}).setdefault(metric, []).append(value)
        if self.every and self.round % self.every == 0:
            parts = [f"{n}-{m}:{v:.5f}" for n, values in found.items() for m, v in values.items()]
            print(f"[{self.round}]\t" + "\t".join(parts))
        stop = self._stops(found) if self.patience is not None else False
        for callback in self.estimator.callbacks or []:
            stop = bool(callback.after_iteration(self.estimator, self.round, self.log)) or stop
        self.round += 1
        return stop

    def _stops(self, found: dict[str, dict[str, float]]) -> bool:
        assert self.patience is not None
        metric, value = list(list(found.values())[-1].items())[-1]
        best = self.estimator._best_score
        better = best is None or (value > best if is_maximised(metric) else value < best)
        if better:
            self.estimator._best_score, self.estimator._best_iteration = value, self.round
        assert self.estimator._best_iteration is not None
        return bool(self.round - self.estimator._best_iteration >= self.patience)

    def finish(self) -> None:
        for callback in self.estimator.callbacks or []:
            if hasattr(callback, "after_training"):
                callback.after_training(self.estimator)


def custom_gradients(
    objective: Callable[..., Any],
) -> Callable[[Array, Array, Array | None], tuple[Array, Array]]:
    """A user's ``(y_true, y_pred[, sample_weight]) -> (grad, hess)`` on raw scores, as columns."""

    def gradients(y: Array, margin: Array, weight: Array | None) -> tuple[Array, Array]:
        target = y[:, 0] if y.shape[1] == 1 else y
        raw = margin[:, 0] if margin.shape[1] == 1 else margin
        if weight is None:
            g, h = objective(target, raw)
        else:
            try:
                g, h = objective(target, raw, sample_weight=weight)
            except TypeError as error:
                if "sample_weight" not in str(error):
                    raise
                g, h = (np.asarray(d).reshape(margin.shape) * weight[:, None] for d in objective(target, raw))
        g = np.asarray(g, np.float32).reshape(margin.shape)
        h = np.asarray(h, np.float32).reshape(margin.shape)
        if not (np.isfinite(g).all() and np.isfinite(h).all()):
            raise ValueError("objective returned gradients or hessians that are not finite")
        return g, h

    return gradients
