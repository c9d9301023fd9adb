"""Estimation of distributions: maximum likelihood, maximum a posteriori, and conjugate posteriors."""

from __future__ import annotations

from fullspan.estimators.probability.conjugate import (
    BetaBinomial,
    Conjugate,
    DirichletCategorical,
    GammaExponential,
    GammaPoisson,
    NormalInverseGamma,
    NormalInverseWishart,
)
from fullspan.estimators.probability.families import (
    Bernoulli,
    Beta,
    Binomial,
    Exponential,
    Family,
    Gamma,
    Laplace,
    Logistic,
    Normal,
    Poisson,
    StudentT,
)
from fullspan.estimators.probability.fitting import Estimate, map_estimate, mle
from fullspan.estimators.probability.likelihood import Censored
from fullspan.estimators.probability.partitions import mle_partitions
from fullspan.estimators.probability.plotting import plot_convergence
from fullspan.estimators.probability.vectors import Categorical, MultivariateNormal

__all__ = [
    "Bernoulli",
    "Beta",
    "BetaBinomial",
    "Binomial",
    "Categorical",
    "Censored",
    "Conjugate",
    "DirichletCategorical",
    "Estimate",
    "Exponential",
    "Family",
    "Gamma",
    "GammaExponential",
    "GammaPoisson",
    "Laplace",
    "Logistic",
    "MultivariateNormal",
    "Normal",
    "NormalInverseGamma",
    "NormalInverseWishart",
    "Poisson",
    "StudentT",
    "map_estimate",
    "mle",
    "mle_partitions",
    "plot_convergence",
]
