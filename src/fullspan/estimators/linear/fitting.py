"""How a logistic regression is fitted: which solver, from where, and what is found out on the way."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from fullspan.core.partitions import LocalPartitions, Partitions, total
from fullspan.estimators.linear.objective import Objective
from fullspan.estimators.linear.rows import Rows, Vector
from fullspan.estimators.linear.saga import average_gradient_descent
from fullspan.estimators.linear.solvers import (
    Report,
    Solution,
    coordinate_descent,
    lbfgs,
    newton,
    newton_cg,
    violations,
)

# With more parameters than these, second derivatives cost more than the steps that they save.
_MOST_FOR_NEWTON = 400
_MOST_AT_ONCE = 1000
"""Parameters with an L1 penalty; of more, those that may be other than zero are looked for first."""
_ROWS_FOR_A_START = 20_000
_START_STEP = 20
_ROWS_A_PARAMETER = 20
"""Fewer rows for each parameter say too little for a start."""
_START_TOL = 1e-3
_METHODS: dict[str, Callable[..., Solution]] = {
    "newton-cholesky": newton,
    "newton-cg": newton_cg,
    "lbfgs": lbfgs,
    "coordinate": coordinate_descent,
}
# A step that changes a score by as much as this, where the gradient has vanished, leads to infinity.
_ENDLESS = 0.1


@dataclass(frozen=True)
class Penalty:
    """What the coefficients cost, beside the loss summed over all rows.

    Attributes
    ----------
    l2 : float
        Of half of a coefficient's square.
    l1 : float
        Of its absolute value.
    intercept_scaling : float or None
        With a number the intercept costs what the coefficient of a column with that constant would
        (LIBLINEAR's way); it is free by default.
    """

    l2: float
    l1: float
    intercept_scaling: float | None = None

    def spread(self, shape: tuple[int, int], n_features: int, total_weight: float) -> tuple[Vector, Vector]:
        """L2 and L1 penalties of each parameter, for a loss that is a mean."""
        out = []
        for strength, power in ((self.l2, 2), (self.l1, 1)):
            of_all = np.zeros(shape)
            of_all[:, :n_features] = strength / total_weight
            if self.intercept_scaling is not None:
                of_all[:, n_features:] = strength / total_weight / self.intercept_scaling**power
            out.append(of_all.ravel())
        return out[0], out[1]


@dataclass(frozen=True)
class Plan:
    """How to look for the least value.

    Attributes
    ----------
    solver : str
        One of LogisticRegression's; ``"auto"`` chooses by the data.
    tol, max_iter
        When to stop.
    verbose : int
        With 1 or more, each iteration is printed.
    """

    solver: str
    tol: float
    max_iter: int
    verbose: int

    def method(self, n_params: int, has_l1: bool) -> str:
        """A name in `_METHODS`."""
        if has_l1:
            return "coordinate"
        if self.solver in ("auto", "liblinear"):
            return "newton-cholesky" if n_params <= _MOST_FOR_NEWTON else "lbfgs"
        return self.solver

    def report(self, method: str) -> Report:
        def report(n_iter: int, value: float, gradient: float) -> None:
            if self.verbose:
                print(f"{method} {n_iter}: objective {value:.10g}, gradient {gradient:.3g}", flush=True)

        return report


@dataclass
class Fit:
    """A fitted logistic regression.

    Attributes
    ----------
    params : ndarray of shape (n_vectors, n_features + fit_intercept)
    n_iter : int
    method : str
        What found them.
    problem : str
        Why it stopped early, or nothing.
    fell_back : bool
        Newton's method met a singular matrix, and L-BFGS went on.
    separable : bool
        A plane parts the classes: without a penalty there is no best one.
    loss : float
        Summed over the rows, without the penalty.
    hessian : ndarray of shape (n_params, n_params), or None
        Second derivatives of the summed loss without the penalty, where a solver has found them.
    """

    params: Vector
    n_iter: int
    method: str
    problem: str
    fell_back: bool
    separable: bool
    loss: float
    hessian: Vector | None


def fit_rows(
    rows: Rows, penalty: Penalty, plan: Plan, start: Vector | None, random_state: np.random.RandomState
) -> Fit:
    """Fit to rows in this process.

    Parameters
    ----------
    rows : Rows
    penalty : Penalty
    plan : Plan
    start : ndarray of shape (n_vectors, n_features + fit_intercept), or None
        Where to begin; zeros by default, or what a part of many rows says.
    random_state : RandomState
        Orders the rows for `sag` and `saga`.
    """
    shape = (rows.n_vectors, rows.width)
    total_weight = float(rows.weight.sum()) if len(rows.weight) else float(rows.n_samples)
    if plan.solver in ("sag", "saga"):
        return _fit_average_gradients(rows, penalty, plan, start, random_state, total_weight)
    if start is None and plan.solver == "auto":
        start = _early_start(rows, penalty, plan)
    if penalty.l1 and shape[0] * shape[1] > _MOST_AT_ONCE:
        return _fit_few_columns(rows, penalty, plan, start, total_weight)
    with LocalPartitions([rows]) as parts:
        parts.start(_itself)
        return fit_parts(parts, shape, rows.n_features, total_weight, penalty, plan, start)


def fit_parts(
    parts: Partitions,
    shape: tuple[int, int],
    n_features: int,
    total_weight: float,
    penalty: Penalty,
    plan: Plan,
    start: Vector | None,
) -> Fit:
    """Fit to parts whose workers are `Rows`."""
    l2, l1 = penalty.spread(shape, n_features, total_weight)
    objective = Objective(functools.partial(total, parts), total_weight, shape, l2, l1)
    method = plan.method(shape[0] * shape[1], bool(penalty.l1))
    params = np.zeros(shape[0] * shape[1]) if start is None else np.array(start, np.float64).ravel()
    solution = _METHODS[method](objective, params, plan.tol, plan.max_iter, plan.report(method))
    fell_back = method == "newton-cholesky" and solution.problem in ("singular", "steps")
    if fell_back:
        rest = lbfgs(
            objective, solution.params, plan.tol, plan.max_iter - solution.n_iter, plan.report("lbfgs")
        )
        solution = replace(rest, n_iter=solution.n_iter + rest.n_iter)
        method = "lbfgs"
    separable = objective.n_wrong == 0 or (not penalty.l2 and not penalty.l1 and _leads_on(parts, solution))
    hessian = solution.hessian
    if hessian is not None:
        hessian = (hessian - np.diag(l2)) * total_weight
    return Fit(
        solution.params.reshape(shape), solution.n_iter, method, solution.problem, fell_back, separable,
        objective.loss, hessian,
    )  # fmt: skip


def _itself(rows: Rows) -> Rows:
    return rows


def _leads_on(parts: Partitions, solution: Solution) -> bool:
    """Whether Newton's last step makes some rows' loss ever smaller and no row's larger."""
    if solution.direction is None:
        return False
    margins = parts.call("least_margin", solution.direction)
    least, greatest = min(low for low, _ in margins), max(high for _, high in margins)
    return bool(greatest > _ENDLESS and least >= -1e-3 * greatest)


def _early_start(rows: Rows, penalty: Penalty, plan: Plan) -> Vector | None:
    """What every twentieth row says, if there are many."""
    n_params = rows.n_vectors * rows.width
    if rows.n_samples < max(_ROWS_FOR_A_START, _ROWS_A_PARAMETER * _START_STEP * n_params):
        return None
    few = rows.every(_START_STEP)
    shrunk = replace(penalty, l2=penalty.l2 / _START_STEP, l1=penalty.l1 / _START_STEP)
    begun = fit_rows(
        few, shrunk, replace(plan, tol=max(plan.tol, _START_TOL), max_iter=20), None, np.random.RandomState(0)
    )
    return begun.params if np.isfinite(begun.params).all() and not begun.separable else None


def _fit_average_gradients(
    rows: Rows,
    penalty: Penalty,
    plan: Plan,
    start: Vector | None,
    random_state: np.random.RandomState,
    total_weight: float,
) -> Fit:
    params = np.zeros(rows.n_vectors * rows.width) if start is None else np.array(start, np.float64).ravel()
    solution = average_gradient_descent(
        rows, params, penalty.l2 / total_weight, penalty.l1 / total_weight, plan.tol, plan.max_iter,
        random_state, plan.solver == "saga", plan.report(plan.solver),
    )  # fmt: skip
    loss, n_wrong, _ = rows.loss_gradient(solution.params)
    params = solution.params.reshape(rows.n_vectors, rows.width)
    return Fit(params, solution.n_iter, plan.solver, solution.problem, False, n_wrong == 0, loss, None)


def _fit_few_columns(
    rows: Rows, penalty: Penalty, plan: Plan, start: Vector | None, total_weight: float
) -> Fit:
    """With an L1 penalty and many columns: fit to those that may have coefficients other than zero.

    The gradient over all columns says which are missing; those that want it most come in, until none does.
    """
    shape = (rows.n_vectors, rows.width)
    l2, l1 = penalty.spread(shape, rows.n_features, total_weight)
    params = np.zeros(shape) if start is None else np.array(start, np.float64)
    n_iter, problem = 0, ""
    while True:
        loss, n_wrong, gradient = rows.loss_gradient(params.ravel())
        wanted = violations(gradient / total_weight + l2 * params.ravel(), params.ravel(), l1)
        by_column = wanted.reshape(shape).max(axis=0)
        if by_column.max() <= plan.tol or n_iter >= plan.max_iter:
            problem = "" if by_column.max() <= plan.tol else "iterations"
            break
        used = (params[:, : rows.n_features] != 0).any(axis=0)
        missing = np.where(used, -1.0, by_column[: rows.n_features])
        most = max(100, int(used.sum()))
        newcomers = np.argsort(-missing, kind="stable")[:most]
        used[newcomers[missing[newcomers] > 0.0]] = True
        columns = np.flatnonzero(used)
        kept = np.append(columns, rows.n_features) if rows.fit_intercept else columns
        part = Rows(
            rows.X[:, columns] if rows.sparse else np.ascontiguousarray(rows.X[:, columns]),
            rows.codes, rows.weight, rows.n_vectors if rows.n_vectors > 1 else 2, rows.fit_intercept,
            rows.n_threads,
        )  # fmt: skip
        with LocalPartitions([part]) as parts:
            parts.start(_itself)
            found = fit_parts(
                parts, (shape[0], len(kept)), len(columns), total_weight, penalty,
                replace(plan, tol=plan.tol / 2, max_iter=plan.max_iter - n_iter), params[:, kept],
            )  # fmt: skip
        n_iter += max(found.n_iter, 1)
        params[:, kept] = found.params
    return Fit(params, n_iter, "coordinate", problem, False, n_wrong == 0, loss, None)
