"""What all objectives of boosting share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullspan.estimators import losses
from fullspan.estimators.saving import Saveable

Array = NDArray[Any]
EPS = np.float32(1e-6)


class Objective(Saveable):
    """One objective. Margins have shape (n_samples, n_outputs), float32 throughout.

    Parameters
    ----------
    name : str
        XGBoost's.
    n_outputs : int
        Trees (or linear models) in each round.
    parameters : dict, optional
        The objective's own, such as ``{"quantile_alpha": [0.1, 0.9]}``.
    """

    # Of the reg_loss family: y == 1 weighs scale_pos_weight.
    weighs_positives = False
    default_metric = "rmse"

    def __init__(self, name: str, n_outputs: int = 1, parameters: dict[str, Any] | None = None) -> None:
        self.name = name
        self.n_outputs = n_outputs
        self.parameters = parameters or {}

    @property
    def loss(self) -> losses.Loss:
        """The loss of one output."""
        return losses.SquaredError()

    def check_y(self, y: Array) -> None:
        self.loss.check_y(y)

    def gradients(self, margin: Array, y: Array, weight: Array | None, round: int) -> tuple[Array, Array]:
        """Gradients and hessians [n_samples, n_outputs], weights in them."""
        g, h = self.derivatives(margin, y)
        w = self.row_weights(y, weight)
        return (g, h) if w is None else (g * w, h * w)

    def derivatives(self, margin: Array, y: Array) -> tuple[Array, Array]:
        """Without weights; y has as many columns as there are outputs, or one."""
        return self.loss.gradient_hessian(y, margin)

    def row_weights(self, y: Array, weight: Array | None) -> Array | None:
        scale = np.float32(self.parameters.get("scale_pos_weight", 1.0))
        rows = None if weight is None else weight[:, None]
        if not self.weighs_positives or scale == 1:
            return rows
        factor = np.where(y == 1, scale, np.float32(1))
        return factor if rows is None else rows * factor

    def base_score(self, y: Array, weight: Array | None) -> Array:
        """XGBoost's estimate of the best constant, as a prediction (a margin for classes)."""
        if self.weighs_positives and abs(self.parameters.get("scale_pos_weight", 1.0) - 1) > EPS:
            return self.stump(y, weight)
        return np.average(y, axis=0, weights=weight).astype(np.float32)

    def stump(self, y: Array, weight: Array | None) -> Array:
        """One Newton step from a margin of zero, as a prediction."""
        g, h = self.gradients(np.zeros((len(y), self.n_outputs), np.float32), y, weight, 0)
        step = -g.sum(axis=0, dtype=np.float64) / np.maximum(h.sum(axis=0, dtype=np.float64), EPS)
        return np.asarray(self.prediction(step.astype(np.float32)[None])[0])

    def to_margin(self, base_score: Array) -> Array:
        """Margins of base scores.

        Raises
        ------
        ValueError
            If the link is not defined for one.
        """
        return base_score

    def prediction(self, margin: Array) -> Array:
        """What margins predict."""
        return np.asarray(self.loss.inverse_link(margin))

    def leaf_quantile(self, output: int) -> float | None:
        """The quantile of the residuals that leaves take instead of Newton's step, if any."""
        return None


def residual_quantile(values: Array, alpha: float, weight: Array | None) -> np.float32:
    """XGBoost's quantile: interpolated between ranks of n + 1, or with weights the first to reach alpha."""
    values = np.asarray(values, np.float32)
    n = len(values)
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    if weight is not None:
        reached = np.cumsum(weight[order], dtype=np.float32)
        return np.float32(ordered[min(int(np.searchsorted(reached, np.float32(reached[-1] * alpha))), n - 1)])
    if alpha <= 1 / (n + 1):
        return np.float32(ordered[0])
    if alpha >= n / (n + 1):
        return np.float32(ordered[-1])
    rank = alpha * (n + 1)
    k = int(np.floor(rank)) - 1
    return np.float32(ordered[k] + (rank - 1 - k) * (ordered[k + 1] - ordered[k]))
