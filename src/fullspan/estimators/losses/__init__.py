"""The losses that boosting and linear models minimise: values, and derivatives with respect to raw scores.

A raw score is what a model adds up before any link: a margin or a linear predictor. Every loss works in the
type of `raw` (float32 or float64), and its derivatives stay finite however large the scores are.
"""

from fullspan.estimators.losses.base import Loss, weighted_quantile
from fullspan.estimators.losses.classification import Exponential, Hinge, Logistic, Multinomial
from fullspan.estimators.losses.regression import (
    AbsoluteError,
    Gamma,
    Huber,
    Poisson,
    PseudoHuber,
    Quantile,
    SquaredError,
    SquaredLogError,
    Tweedie,
)
from fullspan.estimators.losses.survival import AFT, Cox

__all__ = [
    "AFT",
    "AbsoluteError",
    "Cox",
    "Exponential",
    "Gamma",
    "Hinge",
    "Huber",
    "Logistic",
    "Loss",
    "Multinomial",
    "Poisson",
    "PseudoHuber",
    "Quantile",
    "SquaredError",
    "SquaredLogError",
    "Tweedie",
    "weighted_quantile",
]
