"""What a fit of logistic regression minimises: the mean loss of rows, wherever they are, and a penalty."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fullspan.estimators.linear.rows import Vector


class Objective:
    """Mean loss plus ``sum(l2 params² / 2) + sum(l1 |params|)``.

    Multiplied by C and the sum of weights this is C times the summed loss plus the coefficients' penalty.

    Parameters
    ----------
    ask : callable
        ``ask(method, *arguments)`` gives the sum over all parts of a statistic of `Rows`.
    total_weight : float
        Of all rows.
    shape : tuple of int
        Vectors of parameters, and the length of each.
    l2, l1 : ndarray of shape (n_params,)
        Penalties of the parameters; 0 for an intercept that is free.

    Attributes
    ----------
    n_wrong : float
        Rows that were not on their own class's side at the parameters that were looked at last.
    loss : float
        The summed loss there.
    """

    def __init__(
        self, ask: Callable[..., Any], total_weight: float, shape: tuple[int, int], l2: Vector, l1: Vector
    ) -> None:
        self._ask, self.total_weight, self.shape, self.l2, self.l1 = ask, total_weight, shape, l2, l1
        self.n_wrong, self.loss = np.inf, np.inf

    def value_gradient(self, params: Vector) -> tuple[float, Vector]:
        """The smooth part, without `l1`, and its gradient."""
        self.loss, self.n_wrong, gradient = self._ask("loss_gradient", params)
        return self._smooth(params), gradient / self.total_weight + self.l2 * params

    def value_gradient_hessian(self, params: Vector) -> tuple[float, Vector, Vector]:
        """As `value_gradient`, and the smooth part's second derivatives."""
        self.loss, self.n_wrong, gradient, hessian = self._ask("loss_gradient_hessian", params)
        hessian = hessian / self.total_weight
        hessian[np.diag_indices_from(hessian)] += self.l2
        return self._smooth(params), gradient / self.total_weight + self.l2 * params, hessian

    def hessian_product(self, params: Vector, vector: Vector) -> Vector:
        product: Vector = self._ask("hessian_product", params, vector) / self.total_weight + self.l2 * vector
        return product

    def absolute(self, params: Vector) -> float:
        """The part that is not smooth."""
        return float(self.l1 @ np.abs(params))

    def without_flat_directions(self, hessian: Vector) -> Vector:
        """The second derivatives, with curvature where adding to all classes alike changes nothing.

        Gradients have no part in those directions, so Newton steps have none either: the classes' parameters
        that are not penalised go on adding up to what they began with.
        """
        n, width = self.shape
        flat = np.flatnonzero(self.l2[:width] + self.l1[:width] == 0.0)
        if n == 1 or not len(flat):
            return hessian
        steep = hessian.copy()
        for j in flat:
            own = np.arange(n) * width + j
            steep[np.ix_(own, own)] += max(float(np.mean(hessian[own, own])), np.finfo(float).tiny) / n
        return steep

    def _smooth(self, params: Vector) -> float:
        return float(self.loss) / self.total_weight + float(self.l2 @ params**2) / 2.0
