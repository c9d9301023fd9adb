"""The log-likelihood of data under a family: rows, sufficient statistics, censored values, priors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullspan.estimators.probability.families import Family, Terms, Values

_STEP = 1e-3


@dataclass(frozen=True)
class Censored:
    """Values of which only bounds are known: each lies from `lower` to `upper`.

    Parameters
    ----------
    lower, upper : array-like of shape (n,)
        Equal where the value is known, infinite where there is no bound on that side.

    Examples
    --------
    >>> lifetimes = Censored.right([3.0, 5.0, 5.0], [False, True, True])  # two still ran after 5 years
    >>> lifetimes.upper
    array([ 3., inf, inf])
    """

    lower: Any
    upper: Any

    def __post_init__(self) -> None:
        lower, upper = (
            np.atleast_1d(np.asarray(side, dtype=np.float64)) for side in (self.lower, self.upper)
        )
        if lower.shape != upper.shape or lower.ndim != 1:
            raise ValueError(f"lower and upper must have one length, got {lower.shape} and {upper.shape}")
        wrong = np.isnan(lower) | np.isnan(upper) | (lower > upper) | (np.isinf(lower) & np.isinf(upper))
        if wrong.any():
            row = int(wrong.argmax())
            raise ValueError(f"row {row} of censored data says nothing: from {lower[row]} to {upper[row]}")
        object.__setattr__(self, "lower", lower)
        object.__setattr__(self, "upper", upper)

    @classmethod
    def right(cls, x: Any, censored: Any) -> Censored:
        """Where `censored`, the value is at least x."""
        return cls(x, np.where(censored, np.inf, x))

    @classmethod
    def left(cls, x: Any, censored: Any) -> Censored:
        """Where `censored`, the value is at most x."""
        return cls(np.where(censored, -np.inf, x), x)

    def __len__(self) -> int:
        return len(self.lower)


class Likelihood:
    """The weighted log-likelihood as a function of the parameters, with its derivatives.

    Parameters
    ----------
    family : Family
    terms : tuple
        Their terms: a row each, or mean statistics.
    w : array of shape (n,) or float
        What multiplies the terms' log densities: the weights of rows, or the weight of all.
    hidden : tuple of arrays, optional
        Lower and upper bounds and weights of censored values.
    prior : mapping of str to scipy distribution, optional
        Of some of the parameters.
    """

    def __init__(
        self,
        family: Family,
        terms: Terms,
        w: Any,
        hidden: tuple[Values, Values, Values] | None = None,
        prior: Mapping[str, Any] | None = None,
    ) -> None:
        self.family, self.terms, self.w, self.hidden, self.prior = family, terms, w, hidden, prior or {}

    def value(self, theta: Values) -> float:
        """The log-likelihood, and log prior density if there are priors."""
        with np.errstate(all="ignore"):  # far from the optimum densities can be zero or numbers overflow
            return float(np.sum(self.w * self.family.log_density(self.terms, theta))) + self._rest(theta)

    def gradient(self, theta: Values, steps: Values) -> Values:
        """Its derivatives by the parameters; those of cumulated densities and priors by differences."""
        with np.errstate(all="ignore"):
            found = np.array([np.sum(self.w * each) for each in self.family.score(self.terms, theta)])
            if self.hidden is not None or self.prior:
                found = found + np.array([slope(self._rest, theta, i, step) for i, step in enumerate(steps)])
        return found

    def row_scores(self, theta: Values, steps: Values) -> Values:
        """Each row's derivatives, censored ones last, and the root of its weight: [n_rows, n_parameters]."""
        scores: Values = np.stack(self.family.score(self.terms, theta), axis=1) * np.sqrt(self.w)[:, None]
        if self.hidden is None:
            return scores
        hidden = np.stack([slope(self._hidden, theta, i, step) for i, step in enumerate(steps)], axis=1)
        return np.asarray(np.concatenate([scores, hidden * np.sqrt(self.hidden[2])[:, None]]))

    def _rest(self, theta: Values) -> float:
        found = 0.0
        if self.hidden is not None:
            found += float(self.hidden[2] @ self._hidden(theta))
        for name, prior in self.prior.items():
            found += float(prior.logpdf(theta[self.family.parameters.index(name)]))
        return found

    def _hidden(self, theta: Values) -> Values:
        """The log probability of each censored value's interval."""
        assert self.hidden is not None
        lower, upper, _ = self.hidden
        out = np.empty(len(lower))
        left, right = np.isinf(lower), np.isinf(upper)
        out[left] = self.family.log_tails(upper[left], theta)[0]
        out[right] = self.family.log_tails(lower[right], theta)[1]
        both = ~left & ~right
        if both.any():
            (below, beyond), (up_to, above) = (
                self.family.log_tails(side[both], theta) for side in (lower, upper)
            )
            # Differences of whichever tail is the smaller: near 1 a probability has few digits left.
            high = below > beyond
            large, small = np.where(high, beyond, up_to), np.where(high, above, below)
            out[both] = large + np.log(-np.expm1(small - large))
        return out


def slope(function: Callable[[Values], Any], at: Values, i: int, step: float) -> Any:
    """The derivative by one argument, to the fourth order of the step."""

    def moved(by: float) -> Any:
        there = at.copy()
        there[i] += by * step
        return function(there)

    return (8 * (moved(1) - moved(-1)) - (moved(2) - moved(-2))) / (12 * step)


class Coordinates:
    """Free coordinates of about unit scale: logarithms, logits, and places counted from where one began.

    Parameters
    ----------
    family : Family
    start : array of shape (n_parameters,)
    """

    def __init__(self, family: Family, start: Values) -> None:
        self.links = family.links
        self.start = start
        self.unit = float(start[-1]) if "real" in family.links else 1.0

    def to_theta(self, u: Values) -> Values:
        out = np.empty(len(u))
        for i, (link, each) in enumerate(zip(self.links, u.tolist(), strict=True)):
            with np.errstate(over="ignore"):
                if link == "positive":
                    out[i] = np.exp(np.clip(each, -690, 690))
                elif link == "unit":
                    out[i] = 1 / (1 + np.exp(-each))
                else:
                    out[i] = self.start[i] + self.unit * each
        return out

    def to_u(self, theta: Values) -> Values:
        out = np.empty(len(theta))
        for i, (link, each) in enumerate(zip(self.links, theta.tolist(), strict=True)):
            if link == "positive":
                out[i] = np.log(each)
            elif link == "unit":
                out[i] = np.log(each) - np.log1p(-each)
            else:
                out[i] = (each - self.start[i]) / self.unit
        return out

    def jacobian(self, theta: Values) -> Values:
        """Of each parameter by its coordinate."""
        by_link = {"positive": theta, "unit": theta * (1 - theta), "real": np.full(len(theta), self.unit)}
        return np.array([by_link[link][i] for i, link in enumerate(self.links)])


class Objective:
    """A likelihood in free coordinates, some of them held."""

    def __init__(self, likelihood: Likelihood, coordinates: Coordinates) -> None:
        self.likelihood, self.coordinates = likelihood, coordinates

    def value(self, u: Values) -> float:
        found = self.likelihood.value(self.coordinates.to_theta(u))
        return found if np.isfinite(found) else -np.inf

    def gradient(self, u: Values) -> Values:
        theta = self.coordinates.to_theta(u)
        slopes = self.coordinates.jacobian(theta)
        return slopes * self.likelihood.gradient(theta, _STEP * np.abs(slopes))

    def hessian(self, u: Values) -> Values:
        columns = np.stack([slope(self.gradient, u, i, _STEP) for i in range(len(u))])
        return np.asarray(0.5 * (columns + columns.T))

    def maximise(self, u: Values, free: NDArray[np.bool_] | None = None) -> tuple[Values, bool]:
        """Where the value is largest, moving the free coordinates alone; and whether that is a maximum."""
        from scipy import optimize

        free = np.ones(len(u), bool) if free is None else free
        if not free.any():
            return u, True

        def whole(part: Values) -> Values:
            out = u.copy()
            out[free] = part
            return out

        def down(part: Values) -> float:
            return -max(self.value(whole(part)), -1e300)

        if not self.likelihood.family.smooth:
            options = {"xatol": 1e-10, "fatol": 1e-12, "maxiter": 5000, "maxfev": 5000}
            found = optimize.minimize(down, u[free], method="Nelder-Mead", options=options)
            return whole(found.x), bool(found.success)
        scale = max(1.0, abs(self.value(u)))
        found = optimize.minimize(
            lambda part: down(part) / scale, u[free], method="BFGS",
            jac=lambda part: -np.nan_to_num(self.gradient(whole(part))[free]) / scale, options={"gtol": 1e-7},
        )  # fmt: skip
        return self._polished(whole(found.x), free)

    def _polished(self, u: Values, free: NDArray[np.bool_]) -> tuple[Values, bool]:
        """Newton steps while they help; a maximum is where they say that nothing is left to gain."""
        gain = np.inf
        for _ in range(30):
            curvature = -self.hessian(u)[np.ix_(free, free)]
            gradient = self.gradient(u)[free]
            if not np.isfinite(curvature).all() or np.linalg.eigvalsh(curvature).min() <= 0:
                return u, False
            step = np.linalg.solve(curvature, gradient)
            gain = float(gradient @ step)
            after = u.copy()
            after[free] += step
            if not self.value(after) >= self.value(u):
                break
            u = after
            if gain < 1e-20:
                break
        return u, gain < 1e-6
