"""What the coefficients of a logistic regression are known to be: standard errors, tests and intervals."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.special import xlogy
from scipy.stats import chi2, norm

from fullspan.estimators.linear.rows import Vector


@dataclass(frozen=True)
class Summary:
    """Table of a fitted logistic regression; printing it shows it.

    Of K classes each but the first has its own rows: the log-odds of it against the first. (Adding the same
    to all classes' coefficients changes nothing, so that only their differences can be known.)

    Attributes
    ----------
    names : list of str
        Of the columns; the last is the intercept, if there is one.
    classes : ndarray of shape (n_classes,)
    coefficients, standard_errors, z, p_values, lower, upper : ndarray of shape (n_classes - 1, n_names)
        z is a coefficient over its standard error, the p-value that of a coefficient of zero (Wald's test,
        two sides); lower and upper are the ends of the interval.
    level : float
        How often intervals made in this way hold what they estimate.
    n_samples : int
    log_likelihood, null_log_likelihood : float
        Of the fit, and of a model that knows nothing but how frequent classes are.
    notes : list of str
        What to know before believing the figures.

    Examples
    --------
    >>> from fullspan.estimators import LogisticRegression
    >>> X, y = np.arange(8.0).reshape(-1, 1), [0, 0, 1, 0, 1, 0, 1, 1]
    >>> table = LogisticRegression(C=np.inf, tol=1e-8).fit(X, y).summary()
    >>> table.coefficients.round(3), table.p_values.round(3)
    (array([[ 0.594, -2.079]]), array([[0.169, 0.23 ]]))
    """

    names: list[str]
    classes: NDArray[Any]
    coefficients: Vector
    standard_errors: Vector
    level: float
    n_samples: int
    log_likelihood: float
    null_log_likelihood: float
    has_intercept: bool
    notes: list[str] = field(default_factory=list)

    @property
    def z(self) -> Vector:
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.coefficients / self.standard_errors

    @property
    def p_values(self) -> Vector:
        return np.asarray(2.0 * norm.sf(np.abs(self.z)))

    @property
    def lower(self) -> Vector:
        return np.asarray(self.coefficients - norm.ppf(0.5 + self.level / 2.0) * self.standard_errors)

    @property
    def upper(self) -> Vector:
        return np.asarray(self.coefficients + norm.ppf(0.5 + self.level / 2.0) * self.standard_errors)

    @property
    def n_params(self) -> int:
        return int(self.coefficients.size)

    @property
    def pseudo_r2(self) -> float:
        """McFadden's: one less the ratio of the log-likelihoods."""
        return 1.0 - self.log_likelihood / self.null_log_likelihood

    @property
    def aic(self) -> float:
        """Akaike's criterion."""
        return 2.0 * self.n_params - 2.0 * self.log_likelihood

    @property
    def bic(self) -> float:
        """Schwarz's criterion."""
        return float(np.log(self.n_samples)) * self.n_params - 2.0 * self.log_likelihood

    @property
    def likelihood_ratio_p_value(self) -> float:
        """Of all coefficients being zero."""
        freedom = self.n_params - (len(self.classes) - 1) * self.has_intercept
        return float(chi2.sf(2.0 * (self.log_likelihood - self.null_log_likelihood), freedom))

    def __str__(self) -> str:
        width = max([len("intercept"), *(len(name) for name in self.names)])
        low = f"{50 * (1 - self.level):.3g} %"
        high = f"{100 - 50 * (1 - self.level):.3g} %"
        lines = [
            f"logistic regression, {self.n_samples} rows, {len(self.classes)} classes",
            f"log-likelihood {self.log_likelihood:.6g} (of the classes' shares alone "
            f"{self.null_log_likelihood:.6g}), pseudo R2 {self.pseudo_r2:.4f}, AIC {self.aic:.6g}, "
            f"BIC {self.bic:.6g}",
        ]
        rows = zip(
            self.classes[1:], self.coefficients, self.standard_errors, self.z, self.p_values, self.lower,
            self.upper, strict=True,
        )  # fmt: skip
        for label, *columns in rows:
            lines.append(f"\nlog-odds of {label!s} against {self.classes[0]!s}")
            head = ("coef", "std err", "z", "P>|z|", low, high)
            lines.append(" " * width + "".join(f"{title:>12}" for title in head))
            for name, *figures in zip(self.names, *columns, strict=True):
                lines.append(f"{name:<{width}}" + "".join(f"{figure:>12.5g}" for figure in figures))
        return "\n".join([*lines, *(f"\nnote: {note}" for note in self.notes)])


def contrasts(n_vectors: int, width: int) -> Vector:
    """The matrix of each class's parameters less the first one's: [(n_vectors - 1) width, n_params]."""
    of_classes = np.hstack([-np.ones((n_vectors - 1, 1)), np.eye(n_vectors - 1)])
    return np.asarray(np.kron(of_classes, np.eye(width)), np.float64)


def covariance(hessian: Vector, l2: Vector, n_vectors: int, used: NDArray[np.bool_]) -> Vector:
    """Covariance of the estimates, of several classes that of their differences from the first.

    Parameters
    ----------
    hessian : ndarray of shape (n_params, n_params)
        Second derivatives of the summed loss: the observed information.
    l2 : ndarray of shape (n_params,)
        Penalties; with P their diagonal matrix the covariance is (H + P)^-1 H (H + P)^-1, and H^-1 without.
    n_vectors : int
    used : ndarray of bool of shape (n_params,)
        The others are held at zero, and so are their variances.

    Returns
    -------
    ndarray
        Infinite variances where the data say nothing.
    """
    inner = hessian[np.ix_(used, used)]
    penalised = inner + np.diag(l2[used])
    scale = 1.0 / np.sqrt(np.maximum(np.diag(penalised), np.finfo(np.float64).tiny))
    values, vectors = eigh(penalised * scale[:, None] * scale)
    known = values > len(values) * np.finfo(np.float64).eps * values[-1]
    vectors = vectors * scale[:, None]
    root = vectors[:, known] / values[known]
    spread, unknown = np.zeros((len(used), known.sum())), np.zeros((len(used), (~known).sum()))
    spread[used], unknown[used] = root, vectors[:, ~known]
    if n_vectors > 1:
        # A shift of all classes together is unknown by nature, and no difference has a part in it.
        across = contrasts(n_vectors, len(used) // n_vectors)
        spread, unknown = across @ spread, across @ unknown
    found: Vector = spread @ (vectors[:, known].T @ inner @ vectors[:, known]) @ spread.T
    lost = np.abs(unknown).max(axis=1, initial=0.0) > 1e-6 * np.sqrt(np.maximum(np.diag(found), 0.0))
    found[np.ix_(lost, lost)] = np.inf
    return found


def summarise(
    params: Vector,
    hessian: Vector,
    l2: Vector,
    classes: NDArray[Any],
    class_totals: Vector,
    log_likelihood: float,
    names: list[str],
    level: float,
    n_samples: int,
    has_intercept: bool,
    chosen: bool,
    notes: list[str],
) -> Summary:
    """The table of a fit, from its second derivatives.

    Where columns were `chosen` by an L1 penalty, those of coefficients of zero are left out of account.
    """
    n_vectors, _ = params.shape
    used = params.ravel() != 0 if chosen else np.ones(params.size, bool)
    variances = np.diag(covariance(hessian, l2.ravel(), n_vectors, used))
    errors = np.sqrt(np.where(variances > 0.0, variances, np.nan))
    coefficients = params if n_vectors == 1 else params[1:] - params[0]
    even = np.full(len(classes), 1 / len(classes))
    null = xlogy(class_totals, class_totals / class_totals.sum() if has_intercept else even).sum()
    return Summary(
        names, classes, coefficients, errors.reshape(coefficients.shape), level, n_samples, log_likelihood,
        float(null), has_intercept, notes,
    )  # fmt: skip
