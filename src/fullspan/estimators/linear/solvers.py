"""Ways to the least value of an `Objective`: L-BFGS, Newton's method with and without a matrix, coordinates.

All of them stop when no component of the gradient is larger than `tol`, the mean loss being of order one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import linalg, optimize

from fullspan.estimators.linear._kernels import descend
from fullspan.estimators.linear.objective import Objective
from fullspan.estimators.linear.rows import Vector

Report = Callable[[int, float, float], None]
"""Gets the iteration, the value and the largest component of the gradient."""
_HALVINGS = 21
_ENOUGH = 2.0**-11
"""The share of the decrease foreseen by the gradient that a step must bring (Armijo)."""
_SWEEPS = 1000


@dataclass
class Solution:
    """Where a solver ended.

    Attributes
    ----------
    params : ndarray of shape (n_params,)
    n_iter : int
    problem : str
        Empty if it converged; otherwise what was in the way.
    hessian : ndarray of shape (n_params, n_params), or None
        Second derivatives of the mean loss and the penalty, at the last point that was looked at.
    direction : ndarray of shape (n_params,), or None
        The last step that Newton's method would take there.
    """

    params: Vector
    n_iter: int
    problem: str = ""
    hessian: Vector | None = None
    direction: Vector | None = None


def newton(objective: Objective, params: Vector, tol: float, max_iter: int, report: Report) -> Solution:
    """Newton's method (iteratively reweighted least squares), its steps halved where they overshoot.

    A last step is taken where it is already small enough to stop: its price is that of solving one system.
    """
    value, gradient, hessian = objective.value_gradient_hessian(params)
    for n_iter in range(max_iter + 1):
        report(n_iter, value, float(np.max(np.abs(gradient))))
        steep = objective.without_flat_directions(hessian)
        try:
            direction = solve(steep, -gradient)
        except linalg.LinAlgError:
            return Solution(params, n_iter, "singular", hessian)
        slope = float(gradient @ direction)
        if np.max(np.abs(gradient)) <= tol and -slope / 2.0 <= tol:
            return Solution(params + direction, n_iter, "", hessian, direction)
        if n_iter == max_iter:
            return Solution(params, n_iter, "iterations", hessian, direction)
        step = 1.0
        for _ in range(_HALVINGS):
            trial = params + step * direction
            new_value, new_gradient, new_hessian = objective.value_gradient_hessian(trial)
            if _accept(value, new_value, step * slope, gradient, new_gradient):
                break
            step /= 2.0
        else:
            return Solution(params, n_iter, "steps", hessian, direction)
        params, value, gradient, hessian = trial, new_value, new_gradient, new_hessian
    raise AssertionError  # the loop returns


def _accept(value: float, new_value: float, foreseen: float, gradient: Vector, new_gradient: Vector) -> bool:
    change = new_value - value
    if change <= _ENOUGH * foreseen:
        return True
    # As large as its rounding, the change says nothing: then a smaller gradient does.
    tiny = abs(change) <= 16 * np.finfo(np.float64).eps * abs(value)
    return bool(tiny and np.abs(new_gradient).sum() < np.abs(gradient).sum())


def solve(hessian: Vector, right: Vector) -> Vector:
    """Solve a positive definite system, scaled to a diagonal of ones.

    Raises
    ------
    LinAlgError
        If it is singular or as good as that.
    """
    diagonal = np.diag(hessian)
    scale = 1.0 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    scaled = hessian * scale[:, None] * scale
    scaled[np.diag_indices_from(scaled)] = 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("error", linalg.LinAlgWarning)
        try:
            solution: Vector = linalg.solve(scaled, right * scale, assume_a="pos") * scale
        except linalg.LinAlgWarning as warning:
            raise linalg.LinAlgError(str(warning)) from None
    return solution


def lbfgs(objective: Objective, params: Vector, tol: float, max_iter: int, report: Report) -> Solution:
    """SciPy's L-BFGS-B."""
    seen = [0]

    def callback(intermediate_result: optimize.OptimizeResult) -> None:
        seen[0] += 1
        report(seen[0], float(intermediate_result.fun), np.nan)

    found = optimize.minimize(
        objective.value_gradient,
        params,
        method="L-BFGS-B",
        jac=True,
        callback=callback,
        options={"maxiter": max_iter, "maxls": 50, "gtol": tol, "ftol": 64 * np.finfo(np.float64).eps},
    )
    problem = "" if found.status == 0 else "iterations" if found.nit >= max_iter else str(found.message)
    return Solution(found.x, min(int(found.nit), max_iter), problem)


def newton_cg(objective: Objective, params: Vector, tol: float, max_iter: int, report: Report) -> Solution:
    """Newton's method with steps by conjugate gradients, from products with the second derivatives."""
    value, gradient = objective.value_gradient(params)
    for n_iter in range(max_iter + 1):
        largest = float(np.max(np.abs(gradient)))
        report(n_iter, value, largest)
        if largest <= tol:
            return Solution(params, n_iter)
        if n_iter == max_iter:
            return Solution(params, n_iter, "iterations")
        direction = _conjugate(objective, params, gradient)
        slope, step = float(gradient @ direction), 1.0
        for _ in range(_HALVINGS):
            trial = params + step * direction
            new_value, new_gradient = objective.value_gradient(trial)
            if _accept(value, new_value, step * slope, gradient, new_gradient):
                break
            step /= 2.0
        else:
            return Solution(params, n_iter, "steps")
        params, value, gradient = trial, new_value, new_gradient
    raise AssertionError  # the loop returns


def _conjugate(objective: Objective, params: Vector, gradient: Vector) -> Vector:
    """Solve for the step as exactly as the gradient's size deserves (Dembo, Eisenstat and Steihaug 1982)."""
    size = float(np.abs(gradient).sum())
    goal = min(0.5, np.sqrt(size)) * size
    step, residual = np.zeros_like(gradient), -gradient
    towards, square = residual.copy(), float(residual @ residual)
    for _ in range(20 * len(gradient)):
        if np.abs(residual).sum() <= goal:
            break
        product = objective.hessian_product(params, towards)
        curvature = float(towards @ product)
        if curvature <= 3 * np.finfo(np.float64).eps * float(towards @ towards):
            break  # flat: there is nothing to gain beyond what was found
        length = square / curvature
        step += length * towards
        residual = residual - length * product
        before, square = square, float(residual @ residual)
        towards = residual + square / before * towards
    return step if step.any() else -gradient


def coordinate_descent(
    objective: Objective, params: Vector, tol: float, max_iter: int, report: Report
) -> Solution:
    """Newton's method for a penalty with corners: each step by coordinate descent on the quadratic model.

    As in Friedman, Hastie and Tibshirani 2010, with the line search of Yuan, Ho and Lin 2012.
    """
    value, gradient, hessian = objective.value_gradient_hessian(params)
    for n_iter in range(max_iter + 1):
        largest = float(np.max(violations(gradient, params, objective.l1)))
        report(n_iter, value + objective.absolute(params), largest)
        if largest <= tol:
            return Solution(params, n_iter, "", hessian)
        if n_iter == max_iter:
            return Solution(params, n_iter, "iterations", hessian)
        steep = objective.without_flat_directions(hessian)
        direction = _step_with_corners(gradient, steep, params, objective.l1, 0.1 * tol)
        corner = objective.absolute(params)
        foreseen = float(gradient @ direction) + objective.absolute(params + direction) - corner
        step = 1.0
        for _ in range(_HALVINGS):
            trial = params + step * direction
            new_value, new_gradient, new_hessian = objective.value_gradient_hessian(trial)
            change = new_value + objective.absolute(trial) - value - corner
            if change <= _ENOUGH * step * foreseen or abs(change) <= 16 * np.finfo(float).eps * abs(value):
                break
            step /= 2.0
        else:
            return Solution(params, n_iter, "steps", hessian)
        params, value, gradient, hessian = trial, new_value, new_gradient, new_hessian
    raise AssertionError  # the loop returns


def _step_with_corners(gradient: Vector, hessian: Vector, params: Vector, l1: Vector, tol: float) -> Vector:
    """The step to the least of the quadratic model and penalty.

    Intercepts, which are not penalised, follow from the rest: with them left out of descent, columns count
    as if they were centred, and descend quickly wherever their means are.
    """
    cornered, free = np.flatnonzero(l1 > 0.0), np.flatnonzero(l1 == 0.0)
    inner, slope = hessian[np.ix_(cornered, cornered)], gradient[cornered]
    across = hessian[np.ix_(free, cornered)]
    if len(free):
        own = linalg.cho_factor(hessian[np.ix_(free, free)])
        inner = inner - across.T @ linalg.cho_solve(own, across)
        slope = slope - across.T @ linalg.cho_solve(own, gradient[free])
    step, moved = np.zeros(len(cornered)), np.zeros(len(cornered))
    descend(slope, np.ascontiguousarray(inner), params[cornered], l1[cornered], step, moved, tol, _SWEEPS)
    direction = np.zeros_like(params)
    direction[cornered] = step
    if len(free):
        direction[free] = -linalg.cho_solve(own, gradient[free] + across @ step)
    return direction


def violations(gradient: Vector, params: Vector, l1: Vector) -> Vector:
    """How far each parameter is from the condition for the least value."""
    at_corner = np.maximum(np.abs(gradient) - l1, 0.0)
    return np.where(params == 0.0, at_corner, np.abs(gradient + l1 * np.sign(params)))
