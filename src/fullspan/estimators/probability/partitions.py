"""Maximum likelihood over data in parts, by sums of sufficient statistics."""

from __future__ import annotations

from typing import Any

import numpy as np

from fullspan.core.errors import ConfigError, DataError
from fullspan.core.partitions import Partitions, total
from fullspan.estimators.probability.families import Beta, Family, Gamma, Normal, checked_weights
from fullspan.estimators.probability.fitting import Estimate, estimate_from
from fullspan.estimators.probability.likelihood import Likelihood
from fullspan.estimators.probability.vectors import Categorical, MultivariateNormal


class _Worker:
    """One part: data, or (data, weights)."""

    def __init__(self, part: Any) -> None:
        data, weights = part if isinstance(part, tuple) else (part, None)
        self.data = np.asarray(data)
        self.w = checked_weights(weights, len(self.data))

    def sums(self) -> tuple[float, Any]:
        """The weight, and the weighted sum of the rows."""
        return float(self.w.sum()), self.w @ self.data.astype(np.float64)

    def products(self, mean: Any) -> Any:
        """Weighted products of the centred columns."""
        centred = self.data - mean
        return (centred * self.w[:, None]).T @ centred

    def statistics(self, family: Family) -> Any:
        """Weighted sums of the family's terms."""
        x = self.data.astype(np.float64)
        wrong = ~family.inside(x)
        if wrong.any():
            row = int(wrong.argmax())
            raise DataError(f"{type(family).__name__} takes {family.support}; row {row} is {x[row]}")
        return np.array([float(self.w @ (t + np.zeros_like(x))) for t in family.terms(x)])

    def ends(self) -> tuple[Any, Any]:
        return self.data.min(), self.data.max()

    def classes(self) -> Any:
        return np.unique(self.data)

    def counts(self, classes: Any) -> Any:
        return np.array([self.w[self.data == each].sum() for each in classes])


def mle_partitions(family: Family | Categorical | MultivariateNormal, partitions: Partitions) -> Estimate:
    """As `mle` on all rows, of a family that has sufficient statistics.

    Parameters
    ----------
    family : Family, Categorical or MultivariateNormal
    partitions : Partitions
        Each part is an array of data, or a tuple of data and weights.

    Returns
    -------
    Estimate
        Up to rounding that of all rows.

    Raises
    ------
    ConfigError
        If the family has no sufficient statistics.
    FullspanError
        If a part has values that the family cannot have.

    Examples
    --------
    >>> from fullspan.core.partitions import LocalPartitions
    >>> from fullspan.estimators.probability import Poisson
    >>> with LocalPartitions([np.array([1, 2]), np.array([6])]) as parts:
    ...     mle_partitions(Poisson(), parts).parameters
    {'mu': 3.0}
    """
    if isinstance(family, Family) and not family.sufficient:
        raise ConfigError(
            f"{type(family).__name__} has no sufficient statistics to sum up over parts",
            "fit to all rows in one place with mle",
        )
    partitions.start(_Worker)
    if isinstance(family, Categorical):
        classes = np.unique(np.concatenate(partitions.call("classes")))
        return Estimate(*family.from_counts(classes, total(partitions, "counts", classes)))
    n, sums = total(partitions, "sums")
    if isinstance(family, MultivariateNormal):
        mean = sums / n
        return Estimate(*family.from_moments(mean, total(partitions, "products", mean) / n, n))
    lows, highs = zip(*partitions.call("ends"), strict=True)
    if min(lows) == max(highs) and len(family.links) > 1:
        raise DataError(f"all values are {min(lows)}: {type(family).__name__} has no most likely parameters")
    if isinstance(family, Normal):
        family = Normal(float(sums / n))
    means = total(partitions, "statistics", family) / n
    return estimate_from(Likelihood(family, tuple(means), np.float64(n)), _start(family, means), n)


def _start(family: Family, means: Any) -> Any:
    """As the family's `start`, from mean statistics."""
    if isinstance(family, Gamma):
        return family.from_means(*means)
    if isinstance(family, Beta):
        return family.from_moments(means[2], means[3] - means[2] ** 2)
    if isinstance(family, Normal):
        return np.array([family.center + means[0], np.sqrt(means[1] - means[0] ** 2)])
    return means[:1] / getattr(family, "n", 1)
