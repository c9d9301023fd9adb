"""Categories and vectors, whose most likely parameters have a closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special, stats

from fullspan.estimators.probability.families import Values, checked_weights

Fitted = tuple[Any, dict[str, float], Values, float, float, tuple[str, ...]]
"""What an `Estimate` begins with."""


@dataclass(frozen=True)
class Categorical:
    """One of some classes; by default those that the data have."""

    classes: tuple[Any, ...] | None = None

    def fit(self, data: Any, weights: Any) -> Fitted:
        """The share of each class; see `mle`."""
        x = np.asarray(data)
        if x.ndim != 1 or not len(x):
            raise ValueError(f"data must be one value or more in one dimension, got the shape {x.shape}")
        w = checked_weights(weights, len(x))
        classes = np.unique(x) if self.classes is None else np.asarray(self.classes)
        unknown = ~np.isin(x, classes)
        if unknown.any():
            raise ValueError(
                f"row {int(unknown.argmax())} is {str(x[unknown][0])!r}, which is none of the classes"
            )
        return self.from_counts(classes, np.array([w[x == each].sum() for each in classes]))

    def from_counts(self, classes: Any, counts: Values) -> Fitted:
        n = float(counts.sum())
        p = counts / n
        names = [f"p[{each}]" for each in classes.tolist()]
        edges = tuple(name for name, share in zip(names, p.tolist(), strict=True) if share in (0.0, 1.0))
        covariance = (np.diag(p) - np.outer(p, p)) / n
        on_edge = (p == 0) | (p == 1)
        covariance[on_edge] = covariance[:, on_edge] = np.nan
        value = float(special.xlogy(counts, p).sum())
        family = Categorical(tuple(classes.tolist()))
        return family, dict(zip(names, p.tolist(), strict=True)), covariance, value, n, edges

    def distribution(self, theta: Values) -> Any:
        """scipy's distribution of the classes' numbers, from 0 on."""
        return stats.rv_discrete(values=(np.arange(len(theta)), theta))


@dataclass(frozen=True)
class MultivariateNormal:
    """Normal distribution of vectors."""

    def fit(self, data: Any, weights: Any) -> Fitted:
        """Mean and covariance; see `mle`."""
        x = np.asarray(data, dtype=np.float64)
        if x.ndim != 2 or not x.size:
            raise ValueError(f"data must be of shape (n, n_features), got {x.shape}")
        if not np.isfinite(x).all():
            raise ValueError(f"row {int((~np.isfinite(x)).any(axis=1).argmax())} is not finite")
        w = checked_weights(weights, len(x))
        mean = w @ x / w.sum()
        centred = x - mean
        return self.from_moments(mean, (centred * w[:, None]).T @ centred / w.sum(), float(w.sum()))

    def from_moments(self, mean: Values, cov: Values, n: float) -> Fitted:
        d = len(mean)
        eigenvalues = np.linalg.eigvalsh(cov)
        if eigenvalues[0] <= d * np.finfo(np.float64).eps * max(eigenvalues[-1], 1e-300):
            raise ValueError(
                f"the covariance of {d} columns is singular (dependent columns or too few rows): "
                "the likelihood grows without end; use NormalInverseWishart, or leave columns out"
            )
        lower = [(i, j) for i in range(d) for j in range(i + 1)]
        parameters = {f"mean[{i}]": float(mean[i]) for i in range(d)}
        parameters |= {f"cov[{i},{j}]": float(cov[i, j]) for i, j in lower}
        covariance = np.zeros((len(parameters), len(parameters)))
        covariance[:d, :d] = cov / n
        # Of the entries (i, j) and (k, l) of the covariance: S_ik S_jl + S_il S_jk.
        i, j = np.array(lower).T
        crossed = cov[np.ix_(i, j)]
        covariance[d:, d:] = (cov[np.ix_(i, i)] * cov[np.ix_(j, j)] + crossed * crossed.T) / n
        value = -0.5 * n * (d * np.log(2 * np.pi) + float(np.linalg.slogdet(cov)[1]) + d)
        return self, parameters, covariance, float(value), n, ()

    def distribution(self, theta: Values) -> Any:
        """scipy's distribution with the parameters in the order of an estimate's."""
        d = int((np.sqrt(9 + 8 * len(theta)) - 3) / 2)
        cov = np.zeros((d, d))
        cov[np.tril_indices(d)] = theta[d:]
        return stats.multivariate_normal(theta[:d], cov + np.tril(cov, -1).T)
