"""Maximum likelihood and maximum a posteriori, with standard errors and intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import stats
from scipy.optimize import brentq

from fullspan.estimators.probability.families import Family, Normal, StudentT, Values, checked_weights
from fullspan.estimators.probability.likelihood import Censored, Coordinates, Likelihood, Objective
from fullspan.estimators.probability.vectors import Categorical, MultivariateNormal

_NO_TAILS = 1e10
_FURTHEST = 40.0  # coordinates: logarithms and logits of parameters, or scales


@dataclass(frozen=True)
class Estimate:
    """Parameters fitted to data.

    Attributes
    ----------
    family : Family
    parameters : dict of str to float
    covariance : array of shape (n_parameters, n_parameters)
        Of the parameters: the inverse of the observed information, NaN for those at a boundary.
    log_likelihood : float
        With priors, the log posterior density without its constant.
    n : float
        The sum of the weights.
    at_boundary : tuple of str
        Parameters at the edge of what they may be, where standard errors and Wald intervals mean nothing.
    """

    family: Any
    parameters: dict[str, float]
    covariance: Values
    log_likelihood: float
    n: float
    at_boundary: tuple[str, ...] = ()
    _objective: Objective | None = field(default=None, repr=False)

    @property
    def standard_errors(self) -> dict[str, float]:
        """The roots of the variances."""
        with np.errstate(invalid="ignore"):
            return dict(zip(self.parameters, np.sqrt(np.diag(self.covariance)).tolist(), strict=True))

    @property
    def aic(self) -> float:
        """Akaike's criterion."""
        return 2 * len(self.parameters) - 2 * self.log_likelihood

    @property
    def bic(self) -> float:
        """Schwarz' criterion."""
        return float(len(self.parameters) * np.log(self.n) - 2 * self.log_likelihood)

    def distribution(self) -> Any:
        """scipy's distribution with these parameters."""
        return self.family.distribution(np.array(list(self.parameters.values())))

    def interval(self, level: float = 0.95, kind: str = "wald") -> dict[str, tuple[float, float]]:
        """Confidence intervals of all parameters.

        Parameters
        ----------
        level : float
            Between 0 and 1.
        kind : {"wald", "profile"}
            "wald": standard errors to both sides. "profile": all values whose likelihood, the other
            parameters being fitted anew, is not too much below the largest. That takes longer, knows the
            parameters' bounds, and also holds near them.

        Raises
        ------
        ValueError
            If level or kind is none of these, or the family has no profile intervals.
        """
        if not 0 < level < 1:
            raise ValueError(f"level must be between 0 and 1, got {level}")
        if kind == "wald":
            z = float(stats.norm.ppf(0.5 + 0.5 * level))
            errors = self.standard_errors
            return {name: (v - z * errors[name], v + z * errors[name]) for name, v in self.parameters.items()}
        if kind != "profile":
            raise ValueError(f"kind must be 'wald' or 'profile', got {kind!r}")
        if self._objective is None:
            raise ValueError(f"{type(self.family).__name__} has no profile intervals: use kind='wald'")
        depth = 0.5 * float(stats.chi2.ppf(level, 1))
        return {
            name: (_profile_end(self, i, -1.0, depth), _profile_end(self, i, 1.0, depth))
            for i, name in enumerate(self.parameters)
        }

    def summary(self, level: float = 0.95) -> str:
        """A table of estimates, standard errors and Wald intervals."""
        intervals, errors = self.interval(level), self.standard_errors
        lines = [f"{type(self.family).__name__}, n = {self.n:g}, log-likelihood {self.log_likelihood:.6g}"]
        lines.append(f"{'':12}{'estimate':>12}{'std. error':>12}{f'{100 * level:g} % interval':>26}")
        for name, value in self.parameters.items():
            low, high = intervals[name]
            note = "  at its boundary" if name in self.at_boundary else ""
            lines.append(f"{name:12}{value:12.6g}{errors[name]:12.4g}{low:14.6g}{high:12.6g}{note}")
        return "\n".join(lines)


def mle(family: Family | Categorical | MultivariateNormal, data: Any, weights: Any = None) -> Estimate:
    """The parameters under which the data are most likely.

    Parameters
    ----------
    family : Family, Categorical or MultivariateNormal
    data : array-like of shape (n,) or (n, n_features), or Censored
        Censored data for the continuous families of one number.
    weights : array-like of shape (n,), optional
        How often each row counts.

    Returns
    -------
    Estimate
        A normal's variance is divided by n, not n - 1.

    Raises
    ------
    ValueError
        If a value is not in the family's support, or no parameters are the most likely ones: of constant
        data, of a single value, of data that are all censored on one side.

    Examples
    --------
    >>> from fullspan.estimators.probability import Gamma
    >>> estimate = mle(Gamma(), [1.0, 2.0, 2.5, 4.0])
    >>> {name: round(value, 3) for name, value in estimate.parameters.items()}
    {'a': 4.468, 'scale': 0.532}
    """
    if isinstance(family, Categorical | MultivariateNormal):
        if isinstance(data, Censored):
            raise ValueError(f"{type(family).__name__} takes no censored data")
        return Estimate(*family.fit(data, weights))
    return _fit(family, data, weights, None)


def map_estimate(family: Family, data: Any, prior: Mapping[str, Any], weights: Any = None) -> Estimate:
    """The parameters of the largest posterior density.

    Parameters
    ----------
    family : Family
    data : array-like of shape (n,), or Censored
    prior : mapping of str to scipy.stats distribution
        Independent priors of some parameters, by name; the others' are flat.
    weights : array-like of shape (n,), optional

    Returns
    -------
    Estimate
        Its covariance is that of the Laplace approximation of the posterior.

    Raises
    ------
    ValueError
        As `mle`; and if a prior is of no parameter.

    Notes
    -----
    A mode depends on the parametrisation: this is the mode of the density of the named parameters, so a
    prior of the scale of an exponential is not one of its rate.

    Examples
    --------
    >>> from scipy import stats
    >>> from fullspan.estimators.probability import Bernoulli
    >>> mode = map_estimate(Bernoulli(), [1, 1, 1], {"p": stats.beta(2, 2)}).parameters["p"]
    >>> round(mode, 9)  # (3 + 1) / (3 + 2)
    0.8
    """
    if unknown := sorted(set(prior) - set(family.parameters)):
        raise ValueError(
            f"{type(family).__name__} has no parameter {unknown[0]!r}: {', '.join(family.parameters)}"
        )
    return _fit(family, data, weights, prior)


def _fit(family: Family, data: Any, weights: Any, prior: Mapping[str, Any] | None) -> Estimate:
    x, w, hidden = _checked(family, data, weights)
    shown, shown_w = x, w
    if hidden is not None:
        shown = np.concatenate([x, _guesses(hidden[0], hidden[1])])
        shown_w = np.concatenate([w, hidden[2]])
    if not prior:
        _refuse_without_maximum(family, x, hidden)
    if isinstance(family, Normal):
        family = Normal(float(np.average(shown, weights=shown_w)))
    terms = family.terms(x)
    if family.sufficient and len(x):
        likelihood = Likelihood(
            family, tuple(np.average(t, weights=w) for t in terms), w.sum(), hidden, prior
        )
    else:
        likelihood = Likelihood(family, terms, w, hidden, prior)
    start = family.start(_into_support(family, shown), shown_w)
    return estimate_from(likelihood, start, float(shown_w.sum()))


def estimate_from(likelihood: Likelihood, start: Values, n: float) -> Estimate:
    """The maximum of a likelihood, from parameters near it."""
    family = likelihood.family
    plain = likelihood.hidden is None and not likelihood.prior
    start = _with_room(family, start, inside=not (plain and family.closed()))
    if plain and family.closed() and (edges := _edges(family, start)):
        objective = Objective(likelihood, Coordinates(family, start))
        covariance = np.full((len(start), len(start)), np.nan)
        return _estimate(likelihood, start, covariance, n, edges, objective)
    objective = Objective(likelihood, Coordinates(family, start))
    if plain and family.closed():
        u = objective.coordinates.to_u(start)
    else:
        starts = [start] + [np.array([df, *start[1:]]) for df in (1.0, 50.0) if isinstance(family, StudentT)]
        ends = [objective.maximise(objective.coordinates.to_u(each)) for each in starts]
        u, found = max(ends, key=lambda end: objective.value(end[0]))
        if isinstance(family, StudentT) and (limit := _without_tails(objective, u, n)) is not None:
            return limit
        if not found:
            raise ValueError(_nowhere(family, objective.coordinates.to_theta(u)))
    theta = start if plain and family.closed() else objective.coordinates.to_theta(u)
    return _estimate(likelihood, theta, _covariance(objective, u, theta), n, (), objective)


def _estimate(
    likelihood: Likelihood,
    theta: Values,
    covariance: Values,
    n: float,
    edges: tuple[str, ...],
    objective: Objective,
) -> Estimate:
    parameters = dict(zip(likelihood.family.parameters, theta.tolist(), strict=True))
    return Estimate(likelihood.family, parameters, covariance, likelihood.value(theta), n, edges, objective)


def _checked(family: Family, data: Any, weights: Any) -> tuple[Values, Values, Any]:
    """Known values and their weights, and bounds and weights of censored ones."""
    bounds = data if isinstance(data, Censored) else None
    lower = bounds.lower if bounds is not None else np.asarray(data, dtype=np.float64)
    if lower.ndim != 1 or not len(lower):
        raise ValueError(f"data must be one value or more in one dimension, got the shape {lower.shape}")
    w = checked_weights(weights, len(lower))
    known = lower == bounds.upper if bounds is not None else np.ones(len(lower), bool)
    if bounds is not None and family.discrete:
        raise ValueError(f"{type(family).__name__} takes no censored data: it is a discrete family")
    wrong = known & ~family.inside(lower)
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"{type(family).__name__} takes {family.support}; row {row} is {lower[row]}")
    used = w > 0
    hidden = None
    if bounds is not None and (used & ~known).any():
        which = used & ~known
        hidden = bounds.lower[which], bounds.upper[which], w[which]
    return lower[known & used], w[known & used], hidden


def _guesses(lower: Values, upper: Values) -> Values:
    """A value within each bounds, to begin with."""
    low, high = np.where(np.isinf(lower), upper, lower), np.where(np.isinf(upper), lower, upper)
    return np.asarray(0.5 * (low + high))


def _into_support(family: Family, x: Values) -> Values:
    """Bounds may be where values may not."""
    inside = family.inside(x)
    if inside.all():
        return x
    return x[inside] if inside.any() else np.full(len(x), 0.5)


def _refuse_without_maximum(family: Family, x: Values, hidden: Any) -> None:
    """Say which data have no most likely parameters."""
    name = type(family).__name__
    if hidden is not None and not len(x):
        for bound, side in ((np.isinf(hidden[0]), "left"), (np.isinf(hidden[1]), "right")):
            if bound.all():
                raise ValueError(
                    f"every value is censored on the {side}: {name} has no most likely parameters"
                )
    if hidden is None and len(family.links) > 1 and not family.discrete and np.ptp(x) == 0:
        what = "there is only one value" if len(x) == 1 else f"all values are {x[0]:g}"
        raise ValueError(
            f"{what}: the likelihood of {name} grows without end as its distribution narrows; "
            "give a prior to map_estimate, or more data"
        )


def _with_room(family: Family, start: Values, inside: bool) -> Values:
    """Keep parameters off their bounds where an optimiser starts from them."""
    start = start.copy()
    for i, link in enumerate(family.links):
        if link == "positive" and start[i] <= 0 and (inside or not family.discrete):
            if not inside:
                raise ValueError(f"all values are 0: {type(family).__name__} has no most likely parameters")
            start[i] = 1.0
        if link == "unit" and inside:
            start[i] = np.clip(start[i], 0.01, 0.99)
    return start


def _edges(family: Family, theta: Values) -> tuple[str, ...]:
    limits = {"positive": (0.0,), "unit": (0.0, 1.0), "real": ()}
    triples = zip(family.parameters, family.links, theta.tolist(), strict=True)
    return tuple(name for name, link, value in triples if value in limits[link])


def _without_tails(objective: Objective, u: Values, n: float) -> Estimate | None:
    """The limit of infinite degrees of freedom, if nothing is more likely than that."""
    limit = u.copy()
    limit[0] = np.log(10 * _NO_TAILS)
    free = np.array([False, True, True])
    limit, _ = objective.maximise(limit, free)
    value = objective.value(limit)
    if objective.likelihood.prior.get("df") is not None or value < objective.value(u) - 1e-6:
        return None
    theta = objective.coordinates.to_theta(limit)
    covariance = np.full((3, 3), np.nan)
    jacobian = objective.coordinates.jacobian(theta)[1:]
    covariance[1:, 1:] = np.linalg.inv(-objective.hessian(limit)[1:, 1:]) * np.outer(jacobian, jacobian)
    theta[0] = np.inf
    parameters = dict(zip(objective.likelihood.family.parameters, theta.tolist(), strict=True))
    return Estimate(objective.likelihood.family, parameters, covariance, value, n, ("df",), objective)


def _covariance(objective: Objective, u: Values, theta: Values) -> Values:
    jacobian = objective.coordinates.jacobian(theta)
    if objective.likelihood.family.smooth:
        inner = np.linalg.inv(-objective.hessian(u))
    elif objective.likelihood.hidden is None:
        # Kinks have no second derivatives: the expected information, 1 / scale² for both parameters.
        return np.diag(np.full(2, theta[1] ** 2 / np.sum(objective.likelihood.w)))
    else:
        scores = objective.likelihood.row_scores(theta, 1e-3 * np.abs(jacobian))
        return np.asarray(np.linalg.inv(scores.T @ scores))
    return np.asarray(inner * np.outer(jacobian, jacobian))


def _nowhere(family: Family, theta: Values) -> str:
    reached = ", ".join(
        f"{name} = {v:.3g}" for name, v in zip(family.parameters, theta.tolist(), strict=True)
    )
    return (
        f"the likelihood of {type(family).__name__} has no maximum that could be found; the search ended at "
        f"{reached}: give a prior to map_estimate, or more data"
    )


def _profile_end(estimate: Estimate, i: int, direction: float, depth: float) -> float:
    """Where the profile likelihood of a parameter has fallen by `depth`, to one side."""
    objective = estimate._objective
    assert objective is not None
    family: Family = estimate.family
    best = np.array(list(estimate.parameters.values()))
    best = np.where(np.isinf(best), 10 * _NO_TAILS, best)
    limits = {"positive": (0.0, np.inf), "unit": (0.0, 1.0), "real": (-np.inf, np.inf)}[family.links[i]]
    limit = limits[0] if direction < 0 else limits[1]
    at_limit = family.parameters[i] in estimate.at_boundary
    if at_limit and (best[i] == limit or (np.isinf(limit) and best[i] > _NO_TAILS)):
        return limit
    # From a boundary, where the coordinate is infinite, the way inside begins far out.
    with np.errstate(divide="ignore"):
        u = objective.coordinates.to_u(best)
    u = np.clip(u, -_FURTHEST, _FURTHEST)
    target = estimate.log_likelihood - depth
    free = np.arange(len(u)) != i
    here = u.copy()

    def above(coordinate: float) -> float:
        here[i] = coordinate
        here[:], _ = objective.maximise(here.copy(), free)
        return objective.value(here) - target

    step, inner = 0.1, float(u[i])
    while abs(inner) <= _FURTHEST and step < 1e3:
        outer = inner + direction * step
        if not above(outer) > 0:
            here[:] = u
            found = float(brentq(above, inner, outer, xtol=1e-9, rtol=1e-12))
            here[i] = found
            return float(objective.coordinates.to_theta(here)[i])
        inner, step = outer, step * 1.6
    return limit
