"""Conjugate priors: with data they become posteriors of the same kind, without any optimiser."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from scipy import special, stats

from fullspan.estimators.probability.families import Values, checked_weights
from fullspan.estimators.probability.likelihood import Censored


class Conjugate:
    """What priors and posteriors of this kind have."""

    def update(self, data: Any, weights: Any = None) -> Self:
        """The posterior after data, of which each row may count several times."""
        raise NotImplementedError

    def log_evidence(self, data: Any, weights: Any = None) -> float:
        """The log probability of the data before any of them were seen, the parameters integrated out."""
        raise NotImplementedError

    def marginals(self) -> dict[str, Any]:
        """scipy's distribution of each parameter."""
        raise NotImplementedError

    def predictive(self) -> Any:
        """scipy's distribution of the next value."""
        raise NotImplementedError

    @property
    def mode(self) -> dict[str, Any]:
        """The parameters of the largest joint density, the MAP estimate; NaN where none is inside."""
        raise NotImplementedError

    @property
    def mean(self) -> dict[str, Any]:
        """The expected parameters."""
        return {name: law.mean() for name, law in self.marginals().items()}

    def interval(self, level: float = 0.95) -> dict[str, tuple[float, float]]:
        """Credible intervals: a parameter lies below and above each with equal probability."""
        if not 0 < level < 1:
            raise ValueError(f"level must be between 0 and 1, got {level}")
        ends = {
            name: law.ppf([0.5 - 0.5 * level, 0.5 + 0.5 * level]) for name, law in self.marginals().items()
        }
        return {name: (float(low), float(high)) for name, (low, high) in ends.items()}


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name} of a prior must be positive and finite, got {value}")


def _rows(data: Any, weights: Any, inside: Any, support: str) -> tuple[Values, Values]:
    x = np.atleast_1d(np.asarray(data, dtype=np.float64))
    if x.ndim != 1:
        raise ValueError(f"data must have one dimension, got the shape {x.shape}")
    wrong = ~inside(x)
    if wrong.any():
        raise ValueError(f"data must be {support}; row {int(wrong.argmax())} is {x[wrong.argmax()]}")
    return x, checked_weights(weights, len(x))


@dataclass(frozen=True)
class BetaBinomial(Conjugate):
    """Beta(a, b) of the probability p of a success in each of n trials; of n = 1, Bernoulli's.

    Examples
    --------
    >>> posterior = BetaBinomial(1, 1).update([1, 1, 0])
    >>> posterior
    BetaBinomial(a=3.0, b=2.0, n=1)
    >>> float(round(posterior.predictive().pmf(1), 3))
    0.6
    """

    a: float
    b: float
    n: int = 1

    def __post_init__(self) -> None:
        _positive(a=self.a, b=self.b, n=self.n)

    def _checked(self, data: Any, weights: Any) -> tuple[Values, Values]:
        def inside(x: Values) -> Any:
            return (x >= 0) & (x <= self.n) & (x == np.floor(x))

        return _rows(data, weights, inside, f"whole numbers from 0 to {self.n}")

    def update(self, data: Any, weights: Any = None) -> Self:
        x, w = self._checked(data, weights)
        return replace(self, a=float(self.a + w @ x), b=float(self.b + w @ (self.n - x)))

    def log_evidence(self, data: Any, weights: Any = None) -> float:
        x, w = self._checked(data, weights)
        after = self.update(x, w)
        ways = w @ (special.gammaln(self.n + 1) - special.gammaln(x + 1) - special.gammaln(self.n - x + 1))
        return float(special.betaln(after.a, after.b) - special.betaln(self.a, self.b) + ways)

    def marginals(self) -> dict[str, Any]:
        return {"p": stats.beta(self.a, self.b)}

    def predictive(self) -> Any:
        return stats.betabinom(self.n, self.a, self.b)

    @property
    def mode(self) -> dict[str, Any]:
        inside = self.a > 1 and self.b > 1
        return {"p": (self.a - 1) / (self.a + self.b - 2) if inside else float("nan")}


@dataclass(frozen=True)
class GammaPoisson(Conjugate):
    """Gamma(a, rate b) of the mean mu of a Poisson distribution.

    Examples
    --------
    >>> GammaPoisson(2, 1).update([3, 5]).mode["mu"]  # (2 + 8 - 1) / (1 + 2)
    3.0
    """

    a: float
    b: float

    def __post_init__(self) -> None:
        _positive(a=self.a, b=self.b)

    def _checked(self, data: Any, weights: Any) -> tuple[Values, Values]:
        def inside(x: Values) -> Any:
            return np.isfinite(x) & (x >= 0) & (x == np.floor(x))

        return _rows(data, weights, inside, "whole numbers from 0 on")

    def update(self, data: Any, weights: Any = None) -> Self:
        x, w = self._checked(data, weights)
        return replace(self, a=float(self.a + w @ x), b=float(self.b + w.sum()))

    def log_evidence(self, data: Any, weights: Any = None) -> float:
        x, w = self._checked(data, weights)
        return _log_gamma_ratio(self, self.update(x, w)) - float(w @ special.gammaln(x + 1))

    def marginals(self) -> dict[str, Any]:
        return {"mu": stats.gamma(self.a, scale=1 / self.b)}

    def predictive(self) -> Any:
        return stats.nbinom(self.a, self.b / (self.b + 1))

    @property
    def mode(self) -> dict[str, Any]:
        return {"mu": (self.a - 1) / self.b if self.a > 1 else float("nan")}


@dataclass(frozen=True)
class GammaExponential(Conjugate):
    """Gamma(a, rate b) of the rate (1 / scale) of an exponential distribution; lifetimes may be censored.

    Examples
    --------
    >>> GammaExponential(1, 1).update(Censored.right([2.0, 3.0], [False, True]))
    GammaExponential(a=2.0, b=6.0)
    """

    a: float
    b: float

    def __post_init__(self) -> None:
        _positive(a=self.a, b=self.b)

    def _checked(self, data: Any, weights: Any) -> tuple[Values, Values, Any]:
        """Times, weights, and which ended then."""
        times, ended = data, True
        if isinstance(data, Censored):
            ended = np.isfinite(data.upper)
            if (data.lower[ended] != data.upper[ended]).any():
                raise ValueError("GammaExponential takes values that are known or censored on the right")
            times = data.lower
        x, w = _rows(times, weights, lambda x: np.isfinite(x) & (x >= 0), "finite numbers from 0 on")
        return x, w, ended

    def update(self, data: Any, weights: Any = None) -> Self:
        x, w, ended = self._checked(data, weights)
        return replace(self, a=float(self.a + (w * ended).sum()), b=float(self.b + w @ x))

    def log_evidence(self, data: Any, weights: Any = None) -> float:
        self._checked(data, weights)
        return _log_gamma_ratio(self, self.update(data, weights))

    def marginals(self) -> dict[str, Any]:
        return {"rate": stats.gamma(self.a, scale=1 / self.b)}

    def predictive(self) -> Any:
        return stats.lomax(self.a, scale=self.b)

    @property
    def mode(self) -> dict[str, Any]:
        return {"rate": (self.a - 1) / self.b if self.a > 1 else float("nan")}


def _log_gamma_ratio(before: Any, after: Any) -> float:
    """Of the constants of two gamma densities."""
    constants = [special.gammaln(each.a) - each.a * np.log(each.b) for each in (before, after)]
    return float(constants[1] - constants[0])


@dataclass(frozen=True)
class DirichletCategorical(Conjugate):
    """Dirichlet distribution of the probabilities of classes.

    Parameters
    ----------
    classes : tuple
    alpha : tuple of float
        One for each class.

    Examples
    --------
    >>> posterior = DirichletCategorical(("a", "b", "c"), (1, 1, 1)).update(["a", "a", "b"])
    >>> posterior.alpha
    (3.0, 2.0, 1.0)
    >>> float(posterior.mean["a"])
    0.5
    """

    classes: tuple[Any, ...]
    alpha: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.classes) != len(self.alpha) or len(set(self.classes)) < 2:
            raise ValueError(f"there must be an alpha for each of two classes or more, got {self.classes}")
        for each in self.alpha:
            _positive(alpha=each)

    def _counts(self, data: Any, weights: Any) -> Values:
        x = np.asarray(data)
        w = checked_weights(weights, len(x))
        unknown = ~np.isin(x, np.asarray(self.classes))
        if unknown.any():
            raise ValueError(
                f"row {int(unknown.argmax())} is {str(x[unknown][0])!r}, which is none of the classes"
            )
        return np.array([w[x == each].sum() for each in self.classes])

    def update(self, data: Any, weights: Any = None) -> Self:
        return replace(self, alpha=tuple((np.array(self.alpha) + self._counts(data, weights)).tolist()))

    def log_evidence(self, data: Any, weights: Any = None) -> float:
        alpha, counts = np.array(self.alpha), self._counts(data, weights)
        each = special.gammaln(alpha + counts) - special.gammaln(alpha)
        return float(special.gammaln(alpha.sum()) - special.gammaln((alpha + counts).sum()) + each.sum())

    def marginals(self) -> dict[str, Any]:
        total = sum(self.alpha)
        return {each: stats.beta(a, total - a) for each, a in zip(self.classes, self.alpha, strict=True)}

    def joint(self) -> Any:
        """scipy's distribution of all probabilities."""
        return stats.dirichlet(np.array(self.alpha))

    def predictive(self) -> Any:
        """Of the number of the next class, from 0 on."""
        return stats.rv_discrete(values=(np.arange(len(self.alpha)), np.array(self.alpha) / sum(self.alpha)))

    @property
    def mode(self) -> dict[str, Any]:
        alpha = np.array(self.alpha)
        inside = (alpha > 1).all()
        found = (alpha - 1) / (alpha.sum() - len(alpha)) if inside else np.full(len(alpha), np.nan)
        return dict(zip(self.classes, found.tolist(), strict=True))


@dataclass(frozen=True)
class NormalInverseGamma(Conjugate):
    """Of a normal distribution: its variance is inverse gamma (a, b), its mean normal (m, variance / k).

    Parameters
    ----------
    m : float
        The expected mean.
    k : float
        How many values that is worth.
    a, b : float
        Shape and scale of the variance; its mode is b / (a + 1).

    Examples
    --------
    >>> posterior = NormalInverseGamma(0, 1, 1, 1).update([1.0, 2.0, 3.0])
    >>> posterior
    NormalInverseGamma(m=1.5, k=4.0, a=2.5, b=3.5)
    >>> posterior.mode
    {'mean': 1.5, 'variance': 0.875}
    """

    m: float
    k: float
    a: float
    b: float

    def __post_init__(self) -> None:
        _positive(k=self.k, a=self.a, b=self.b)

    def update(self, data: Any, weights: Any = None) -> Self:
        x, w = _rows(data, weights, np.isfinite, "finite")
        n = float(w.sum())
        mean = float(w @ x / n)
        k = self.k + n
        b = self.b + 0.5 * float(w @ (x - mean) ** 2) + 0.5 * self.k * n * (mean - self.m) ** 2 / k
        return replace(self, m=(self.k * self.m + n * mean) / k, k=k, a=self.a + 0.5 * n, b=b)

    def log_evidence(self, data: Any, weights: Any = None) -> float:
        after = self.update(data, weights)
        n = after.k - self.k
        ratio = _log_gamma_ratio(self, after) + 0.5 * np.log(self.k / after.k)
        return float(ratio - 0.5 * n * np.log(2 * np.pi))

    def marginals(self) -> dict[str, Any]:
        scale = np.sqrt(self.b / (self.a * self.k))
        return {"mean": stats.t(2 * self.a, self.m, scale), "variance": stats.invgamma(self.a, scale=self.b)}

    def predictive(self) -> Any:
        return stats.t(2 * self.a, self.m, np.sqrt(self.b * (self.k + 1) / (self.a * self.k)))

    @property
    def mode(self) -> dict[str, Any]:
        return {"mean": self.m, "variance": self.b / (self.a + 1.5)}


@dataclass(frozen=True, eq=False)
class NormalInverseWishart(Conjugate):
    """Of a multivariate normal: inverse Wishart (df, scale) covariance, normal (m, covariance / k) mean.

    Parameters
    ----------
    m : array-like of shape (d,)
        The expected mean.
    k : float
        How many rows that is worth.
    df : float
        Above d - 1.
    scale : array-like of shape (d, d)
        Positive definite; the covariance's mode is scale / (df + d + 1).

    Examples
    --------
    >>> posterior = NormalInverseWishart([0, 0], 1, 4, np.eye(2)).update([[1.0, 0.0], [3.0, 2.0]])
    >>> posterior.m, posterior.k, posterior.df
    (array([1.33333333, 0.66666667]), 3.0, 6.0)
    """

    m: Any
    k: float
    df: float
    scale: Any

    def __post_init__(self) -> None:
        m, scale = np.asarray(self.m, dtype=np.float64), np.asarray(self.scale, dtype=np.float64)
        _positive(k=self.k)
        if m.ndim != 1 or scale.shape != (len(m), len(m)):
            raise ValueError(
                f"m and scale must be of shapes (d,) and (d, d), got {m.shape} and {scale.shape}"
            )
        if not np.allclose(scale, scale.T) or np.linalg.eigvalsh(scale)[0] <= 0:
            raise ValueError("scale of a prior must be symmetric and positive definite")
        if not self.df > len(m) - 1:
            raise ValueError(f"df of a prior must be above {len(m) - 1}, got {self.df}")
        object.__setattr__(self, "m", m)
        object.__setattr__(self, "scale", scale)

    def update(self, data: Any, weights: Any = None) -> Self:
        x = np.asarray(data, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != len(self.m) or not np.isfinite(x).all():
            raise ValueError(f"data must be finite and of shape (n, {len(self.m)}), got {x.shape}")
        w = checked_weights(weights, len(x))
        n = float(w.sum())
        mean = w @ x / n
        centred, away, k = x - mean, mean - self.m, self.k + n
        scale = self.scale + (centred * w[:, None]).T @ centred + self.k * n / k * np.outer(away, away)
        return replace(self, m=(self.k * self.m + n * mean) / k, k=k, df=self.df + n, scale=scale)

    def log_evidence(self, data: Any, weights: Any = None) -> float:
        after, d = self.update(data, weights), len(self.m)
        n = after.k - self.k
        constants = [
            special.multigammaln(0.5 * each.df, d) - 0.5 * each.df * np.linalg.slogdet(each.scale)[1]
            - 0.5 * d * np.log(each.k) for each in (self, after)
        ]  # fmt: skip
        return float(constants[1] - constants[0] - 0.5 * n * d * np.log(np.pi))

    def marginals(self) -> dict[str, Any]:
        """Of the whole mean, a multivariate t, and of the whole covariance."""
        free = self.df - len(self.m) + 1
        mean = stats.multivariate_t(self.m, self.scale / (self.k * free), free)
        return {"mean": mean, "covariance": stats.invwishart(self.df, self.scale)}

    def predictive(self) -> Any:
        free = self.df - len(self.m) + 1
        return stats.multivariate_t(self.m, self.scale * (self.k + 1) / (self.k * free), free)

    @property
    def mean(self) -> dict[str, Any]:
        room = self.df - len(self.m) - 1
        return {"mean": self.m, "covariance": self.scale / room if room > 0 else self.scale * np.nan}

    @property
    def mode(self) -> dict[str, Any]:
        return {"mean": self.m, "covariance": self.scale / (self.df + len(self.m) + 2)}

    def interval(self, level: float = 0.95) -> dict[str, tuple[float, float]]:
        """Credible intervals of the entries of the mean and of the variances."""
        if not 0 < level < 1:
            raise ValueError(f"level must be between 0 and 1, got {level}")
        d, ends = len(self.m), np.array([0.5 - 0.5 * level, 0.5 + 0.5 * level])
        free, found = self.df - d + 1, {}
        for i in range(d):
            spread = np.sqrt(self.scale[i, i] / (self.k * free))
            found[f"mean[{i}]"] = tuple(stats.t(free, self.m[i], spread).ppf(ends).tolist())
            # A variance's own distribution is inverse gamma.
            law = stats.invgamma(0.5 * free, scale=0.5 * self.scale[i, i])
            found[f"cov[{i},{i}]"] = tuple(law.ppf(ends).tolist())
        return found
