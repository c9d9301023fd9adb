"""Families of distributions of one number: log densities, scores, where they may be, where to begin.

Parameters are named as in scipy.stats. `log_density` and `score` take what `terms` makes of the data. For an
exponential family those are its sufficient statistics, in which both are linear: the likelihood of a whole
data set is then that of the mean statistics times the number of rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

Values = NDArray[np.float64]
Terms = tuple[Any, ...]
_NEARLY_NORMAL = 1e10  # degrees of freedom from which a t is taken for a normal distribution


class Family:
    """What all families have."""

    parameters: ClassVar[tuple[str, ...]]
    links: ClassVar[tuple[str, ...]]
    """For each parameter "real", "positive" or "unit" (between 0 and 1)."""
    scipy_name: ClassVar[str]
    sufficient: ClassVar[bool] = True
    smooth: ClassVar[bool] = True
    discrete: ClassVar[bool] = False
    support: ClassVar[str] = "finite numbers"

    def inside(self, x: Values) -> NDArray[np.bool_]:
        """Which values the family can have."""
        return np.isfinite(x)

    def terms(self, x: Values) -> Terms:
        return (x,)

    def log_density(self, t: Terms, theta: Values) -> Any:
        raise NotImplementedError

    def score(self, t: Terms, theta: Values) -> list[Any]:
        """Derivatives of `log_density` by each parameter."""
        raise NotImplementedError

    def log_tails(self, x: Values, theta: Values) -> tuple[Any, Any]:
        """Log probabilities of values up to x, and above it; of the continuous families."""
        raise NotImplementedError

    def start(self, x: Values, w: Values) -> Values:
        """Parameters near the best ones; the best ones where `closed`."""
        raise NotImplementedError

    def closed(self) -> bool:
        """Whether `start` is the maximum of the likelihood."""
        return True

    def distribution(self, theta: Values) -> Any:
        """scipy's distribution with these parameters."""
        return getattr(stats, self.scipy_name)(**dict(zip(self.parameters, theta.tolist(), strict=True)))


def mean_of(x: Values, w: Values) -> float:
    return float(w @ x / w.sum())


def checked_weights(weights: Any, n: int) -> Values:
    """As floats; ones if there are none."""
    w = np.ones(n) if weights is None else np.asarray(weights, dtype=np.float64)
    if w.shape != (n,):
        raise ValueError(f"weights must be of shape ({n},), got {w.shape}")
    if not np.isfinite(w).all() or (w < 0).any() or not w.sum() > 0:
        raise ValueError("weights must be finite, not negative, and not all zero")
    return w


def _spread_of(x: Values, w: Values) -> float:
    return float(np.sqrt(w @ (x - mean_of(x, w)) ** 2 / w.sum()))


def weighted_median(x: Values, w: Values) -> float:
    """The smallest value up to which half of the weight lies; the middle where it ends there exactly."""
    order = np.argsort(x, kind="stable")
    reached = np.cumsum(w[order])
    half = 0.5 * reached[-1]
    at = int(np.searchsorted(reached, half))
    if reached[at] == half and at + 1 < len(x):
        following = int(np.searchsorted(reached, half, side="right"))
        return float(0.5 * (x[order[at]] + x[order[following]]))
    return float(x[order[at]])


@dataclass(frozen=True)
class Normal(Family):
    """Normal distribution; `center` is where statistics count from, so that large means cost no digits."""

    center: float = 0.0
    parameters: ClassVar = ("loc", "scale")
    links: ClassVar = ("real", "positive")
    scipy_name: ClassVar = "norm"

    def terms(self, x: Values) -> Terms:
        return x - self.center, (x - self.center) ** 2

    def _square(self, t: Terms, loc: float) -> Any:
        away = loc - self.center
        return t[1] - 2 * away * t[0] + away * away

    def log_density(self, t: Terms, theta: Values) -> Any:
        loc, scale = theta
        return -0.5 * self._square(t, loc) / scale**2 - np.log(scale) - 0.5 * np.log(2 * np.pi)

    def score(self, t: Terms, theta: Values) -> list[Any]:
        loc, scale = theta
        return [(t[0] - (loc - self.center)) / scale**2, (self._square(t, loc) / scale**2 - 1) / scale]

    def log_tails(self, x: Values, theta: Values) -> tuple[Any, Any]:
        z = (x - theta[0]) / theta[1]
        return special.log_ndtr(z), special.log_ndtr(-z)

    def start(self, x: Values, w: Values) -> Values:
        return np.array([mean_of(x, w), _spread_of(x, w)])


@dataclass(frozen=True)
class Logistic(Family):
    """Logistic distribution."""

    parameters: ClassVar = ("loc", "scale")
    links: ClassVar = ("real", "positive")
    scipy_name: ClassVar = "logistic"
    sufficient: ClassVar = False

    def log_density(self, t: Terms, theta: Values) -> Any:
        z = np.abs(t[0] - theta[0]) / theta[1]
        return -z - 2 * np.log1p(np.exp(-z)) - np.log(theta[1])

    def score(self, t: Terms, theta: Values) -> list[Any]:
        z = (t[0] - theta[0]) / theta[1]
        pull = np.tanh(0.5 * z)
        return [pull / theta[1], (z * pull - 1) / theta[1]]

    def log_tails(self, x: Values, theta: Values) -> tuple[Any, Any]:
        z = (x - theta[0]) / theta[1]
        return special.log_expit(z), special.log_expit(-z)

    def start(self, x: Values, w: Values) -> Values:
        return np.array([mean_of(x, w), _spread_of(x, w) * np.sqrt(3) / np.pi])

    def closed(self) -> bool:
        return False


@dataclass(frozen=True)
class Laplace(Family):
    """Laplace distribution. Its likelihood has a kink at each value."""

    parameters: ClassVar = ("loc", "scale")
    links: ClassVar = ("real", "positive")
    scipy_name: ClassVar = "laplace"
    sufficient: ClassVar = False
    smooth: ClassVar = False

    def log_density(self, t: Terms, theta: Values) -> Any:
        return -np.abs(t[0] - theta[0]) / theta[1] - np.log(2 * theta[1])

    def score(self, t: Terms, theta: Values) -> list[Any]:
        z = (t[0] - theta[0]) / theta[1]
        return [np.sign(z) / theta[1], (np.abs(z) - 1) / theta[1]]

    def log_tails(self, x: Values, theta: Values) -> tuple[Any, Any]:
        z = (x - theta[0]) / theta[1]
        near, far = np.log1p(-0.5 * np.exp(-np.abs(z))), -np.abs(z) - np.log(2)
        return np.where(z > 0, near, far), np.where(z > 0, far, near)

    def start(self, x: Values, w: Values) -> Values:
        loc = weighted_median(x, w)
        return np.array([loc, mean_of(np.abs(x - loc), w)])


@dataclass(frozen=True)
class StudentT(Family):
    """Student's t distribution. Where no heavy tails show, `df` is infinite and the rest is a normal's."""

    parameters: ClassVar = ("df", "loc", "scale")
    links: ClassVar = ("positive", "real", "positive")
    scipy_name: ClassVar = "t"
    sufficient: ClassVar = False

    def log_density(self, t: Terms, theta: Values) -> Any:
        df, loc, scale = theta
        square = ((t[0] - loc) / scale) ** 2
        if df > _NEARLY_NORMAL:
            return -0.5 * square - np.log(scale) - 0.5 * np.log(2 * np.pi)
        # log of Gamma((df + 1) / 2) / Gamma(df / 2) without the difference of two large numbers
        constant = -special.betaln(0.5, 0.5 * df) - 0.5 * np.log(df)
        return constant - np.log(scale) - 0.5 * (df + 1) * np.log1p(square / df)

    def score(self, t: Terms, theta: Values) -> list[Any]:
        df, loc, scale = theta
        z = (t[0] - loc) / scale
        q = z * z / df
        pull = (df + 1) / df * z / (1 + q)
        by_df = special.digamma(0.5 * (df + 1)) - special.digamma(0.5 * df) - 1 / df
        return [
            0.5 * (by_df - np.log1p(q) + (df + 1) / df * q / (1 + q)),
            pull / scale,
            (z * pull - 1) / scale,
        ]

    def log_tails(self, x: Values, theta: Values) -> tuple[Any, Any]:
        z = (x - theta[1]) / theta[2]
        if theta[0] > _NEARLY_NORMAL:
            return special.log_ndtr(z), special.log_ndtr(-z)
        return np.log(special.stdtr(theta[0], z)), np.log(special.stdtr(theta[0], -z))

    def start(self, x: Values, w: Values) -> Values:
        loc = weighted_median(x, w)
        spread = 1.4826 * weighted_median(np.abs(x - loc), w)
        return np.array([5.0, loc, spread or _spread_of(x, w)])

    def closed(self) -> bool:
        return False


@dataclass(frozen=True)
class Exponential(Family):
    """Exponential distribution."""

    parameters: ClassVar = ("scale",)
    links: ClassVar = ("positive",)
    scipy_name: ClassVar = "expon"
    support: ClassVar = "numbers from 0 on"

    def inside(self, x: Values) -> NDArray[np.bool_]:
        return np.isfinite(x) & (x >= 0)

    def log_density(self, t: Terms, theta: Values) -> Any:
        return -t[0] / theta[0] - np.log(theta[0])

    def score(self, t: Terms, theta: Values) -> list[Any]:
        return [(t[0] / theta[0] - 1) / theta[0]]

    def log_tails(self, x: Values, theta: Values) -> tuple[Any, Any]:
        z = np.maximum(x, 0.0) / theta[0]
        return np.log(-np.expm1(-z)), -z

    def start(self, x: Values, w: Values) -> Values:
        return np.array([mean_of(x, w)])


@dataclass(frozen=True)
class Gamma(Family):
    """Gamma distribution."""

    parameters: ClassVar = ("a", "scale")
    links: ClassVar = ("positive", "positive")
    scipy_name: ClassVar = "gamma"
    support: ClassVar = "numbers above 0"

    def inside(self, x: Values) -> NDArray[np.bool_]:
        return np.isfinite(x) & (x > 0)

    def terms(self, x: Values) -> Terms:
        return x, np.log(x)

    def log_density(self, t: Terms, theta: Values) -> Any:
        a, scale = theta
        return (a - 1) * t[1] - t[0] / scale - special.gammaln(a) - a * np.log(scale)

    def score(self, t: Terms, theta: Values) -> list[Any]:
        a, scale = theta
        return [t[1] - np.log(scale) - special.digamma(a), (t[0] / scale - a) / scale]

    def log_tails(self, x: Values, theta: Values) -> tuple[Any, Any]:
        z = np.maximum(x, 0.0) / theta[1]
        return np.log(special.gammainc(theta[0], z)), np.log(special.gammaincc(theta[0], z))

    def start(self, x: Values, w: Values) -> Values:
        return self.from_means(mean_of(x, w), mean_of(np.log(x), w))

    def from_means(self, mean: float, mean_log: float) -> Values:
        """Minka's first approximation of the shape."""
        s = max(np.log(mean) - mean_log, 1e-12)
        a = (3 - s + np.sqrt((s - 3) ** 2 + 24 * s)) / (12 * s)
        return np.array([a, mean / a])

    def closed(self) -> bool:
        return False


@dataclass(frozen=True)
class Beta(Family):
    """Beta distribution."""

    parameters: ClassVar = ("a", "b")
    links: ClassVar = ("positive", "positive")
    scipy_name: ClassVar = "beta"
    support: ClassVar = "numbers between 0 and 1, without these"

    def inside(self, x: Values) -> NDArray[np.bool_]:
        return (x > 0) & (x < 1)

    def terms(self, x: Values) -> Terms:
        return np.log(x), np.log1p(-x), x, x * x

    def log_density(self, t: Terms, theta: Values) -> Any:
        a, b = theta
        return (a - 1) * t[0] + (b - 1) * t[1] - special.betaln(a, b)

    def score(self, t: Terms, theta: Values) -> list[Any]:
        a, b = theta
        both = special.digamma(a + b)
        return [t[0] - special.digamma(a) + both, t[1] - special.digamma(b) + both]

    def log_tails(self, x: Values, theta: Values) -> tuple[Any, Any]:
        z = np.clip(x, 0.0, 1.0)
        return np.log(special.betainc(*theta, z)), np.log(special.betaincc(*theta, z))

    def start(self, x: Values, w: Values) -> Values:
        return self.from_moments(mean_of(x, w), _spread_of(x, w) ** 2)

    def from_moments(self, mean: float, variance: float) -> Values:
        total = max(mean * (1 - mean) / max(variance, 1e-300) - 1, 1e-2)
        return np.array([mean * total, (1 - mean) * total])

    def closed(self) -> bool:
        return False


@dataclass(frozen=True)
class Binomial(Family):
    """Binomial distribution of a known number of trials."""

    n: int
    parameters: ClassVar = ("p",)
    links: ClassVar = ("unit",)
    scipy_name: ClassVar = "binom"
    discrete: ClassVar = True

    def __post_init__(self) -> None:
        if self.n < 1 or self.n != int(self.n):
            raise ValueError(f"n of a binomial distribution must be a whole number from 1 on, got {self.n}")

    @property
    def support(self) -> str:  # type: ignore[override]
        return f"whole numbers from 0 to {self.n}"

    def inside(self, x: Values) -> NDArray[np.bool_]:
        return np.asarray((x >= 0) & (x <= self.n) & (x == np.floor(x)))

    def terms(self, x: Values) -> Terms:
        return x, special.gammaln(self.n + 1) - special.gammaln(x + 1) - special.gammaln(self.n - x + 1)

    def log_density(self, t: Terms, theta: Values) -> Any:
        return t[1] + special.xlogy(t[0], theta[0]) + special.xlog1py(self.n - t[0], -theta[0])

    def score(self, t: Terms, theta: Values) -> list[Any]:
        return [t[0] / theta[0] - (self.n - t[0]) / (1 - theta[0])]

    def start(self, x: Values, w: Values) -> Values:
        return np.array([mean_of(x, w) / self.n])

    def distribution(self, theta: Values) -> Any:
        return stats.binom(self.n, theta[0])


@dataclass(frozen=True)
class Bernoulli(Binomial):
    """Bernoulli distribution: 0 or 1."""

    n: int = 1
    scipy_name: ClassVar = "bernoulli"

    def distribution(self, theta: Values) -> Any:
        return stats.bernoulli(theta[0])


@dataclass(frozen=True)
class Poisson(Family):
    """Poisson distribution."""

    parameters: ClassVar = ("mu",)
    links: ClassVar = ("positive",)
    scipy_name: ClassVar = "poisson"
    discrete: ClassVar = True
    support: ClassVar = "whole numbers from 0 on"

    def inside(self, x: Values) -> NDArray[np.bool_]:
        return np.asarray(np.isfinite(x) & (x >= 0) & (x == np.floor(x)))

    def terms(self, x: Values) -> Terms:
        return x, special.gammaln(x + 1)

    def log_density(self, t: Terms, theta: Values) -> Any:
        return special.xlogy(t[0], theta[0]) - theta[0] - t[1]

    def score(self, t: Terms, theta: Values) -> list[Any]:
        return [t[0] / theta[0] - 1]

    def start(self, x: Values, w: Values) -> Values:
        return np.array([mean_of(x, w)])
