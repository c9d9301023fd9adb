"""Logistic regression over data in parts: sums of losses and their derivatives decide each step."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import _check_sample_weight, check_X_y

from fullspan.core.errors import ConfigError, DataError
from fullspan.core.partitions import Partitions
from fullspan.estimators.linear.fitting import Plan, fit_parts
from fullspan.estimators.linear.logistic import LogisticRegression
from fullspan.estimators.linear.rows import Rows, Vector
from fullspan.estimators.linear.targets import class_factors, class_totals, encode


def fit_partitions(model: LogisticRegression, partitions: Partitions) -> LogisticRegression:
    """Fit a logistic regression to data in parts.

    Parameters
    ----------
    model : LogisticRegression
        Any solver but "sag" and "saga", which go row by row.
    partitions : Partitions
        Each part is (X, y) or (X, y, sample_weight).

    Returns
    -------
    LogisticRegression
        `model`, fitted: to rounding as by `fit` on all rows with ``tol`` small.

    Raises
    ------
    ConfigError
        For a solver that needs all rows in one place.
    DataError
        If the parts have different columns.

    Examples
    --------
    >>> import numpy as np
    >>> from fullspan.core.partitions import LocalPartitions
    >>> X = np.arange(8.0)[:, None]
    >>> y = np.array([0, 0, 1, 0, 1, 0, 1, 1])
    >>> with LocalPartitions([(X[:3], y[:3]), (X[3:], y[3:])]) as parts:
    ...     model = fit_partitions(LogisticRegression(), parts)
    >>> model.predict([[0.0], [7.0]])
    array([0, 1])
    """
    model._validate_params()
    if model.solver in ("sag", "saga"):
        raise ConfigError(f"fitting over parts does not take solver={model.solver!r}", "leave it at 'auto'")
    penalty = model._penalty()
    partitions.start(_Worker, model.fit_intercept)
    found = partitions.call("describe")
    widths = sorted({width for _, width, _ in found})
    if len(widths) > 1:
        raise DataError(f"the parts have different numbers of columns: {widths}")
    classes = np.unique(np.concatenate([part for _, _, part in found]))
    model._check_classes(classes)
    totals = np.sum(partitions.call("class_totals", classes), axis=0)
    factors = class_factors(model.class_weight, classes, totals)
    weighted = any(partitions.call("begin", factors))
    n_vectors = 1 if len(classes) == 2 else len(classes)
    shape = (n_vectors, widths[0] + model.fit_intercept)
    plan = Plan(model.solver, model.tol, model.max_iter, model.verbose)
    totals = totals * factors
    fit = fit_parts(partitions, shape, widths[0], float(totals.sum()), penalty, plan, None)
    model.n_features_in_, model.classes_ = widths[0], classes
    model._keep(fit, penalty, totals, sum(size for size, _, _ in found), np.float64, weighted)
    return model


class _Worker:
    """One part; once the classes are known, its `Rows` answer."""

    def __init__(self, part: tuple[Any, ...], fit_intercept: bool) -> None:
        X, y, *weight = part
        self.X, self.y = check_X_y(X, y, accept_sparse="csr", dtype=[np.float64, np.float32], order="C")
        self.weight = np.empty(0)
        if weight and weight[0] is not None:
            self.weight = _check_sample_weight(weight[0], self.X, dtype=np.float64, ensure_non_negative=True)
        self.fit_intercept = fit_intercept

    def describe(self) -> tuple[int, int, NDArray[Any]]:
        return self.X.shape[0], self.X.shape[1], encode(self.y)[0]

    def class_totals(self, classes: NDArray[Any]) -> Vector:
        self.codes = np.searchsorted(classes, self.y)
        return class_totals(self.codes, self.weight, len(classes))

    def begin(self, factors: Vector) -> bool:
        """Make the rows; returns whether they are weighted."""
        if np.any(factors != 1.0):
            self.weight = factors[self.codes] * (self.weight if len(self.weight) else 1.0)
        self.rows = Rows(self.X, self.codes, self.weight, len(factors), self.fit_intercept)
        return bool(len(self.weight))

    def __getattr__(self, name: str) -> Any:
        if name == "rows":
            raise AttributeError(name)
        return getattr(self.rows, name)
