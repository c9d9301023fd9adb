"""What estimation refuses: data without a most likely answer, and data that a family cannot have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from fullspan.estimators.probability import (
    Bernoulli,
    Beta,
    Binomial,
    Categorical,
    Censored,
    Exponential,
    Gamma,
    Laplace,
    Logistic,
    MultivariateNormal,
    Normal,
    Poisson,
    StudentT,
    map_estimate,
    mle,
)


@pytest.mark.parametrize(
    ("family", "data", "named"),
    [
        (Normal(), [1.0, np.nan], "Normal takes finite numbers; row 1 is nan"),
        (Normal(), [1.0, np.inf], "row 1 is inf"),
        (Normal(), [], "one value or more"),
        (Normal(), [[1.0, 2.0]], r"one dimension, got the shape \(1, 2\)"),
        (Gamma(), [1.0, 0.0], "Gamma takes numbers above 0; row 1 is 0.0"),
        (Beta(), [0.5, 1.0], "Beta takes numbers between 0 and 1"),
        (Exponential(), [-1.0], "Exponential takes numbers from 0 on"),
        (Exponential(), [0.0, 0.0], "all values are 0"),
        (Bernoulli(), [0, 2], "whole numbers from 0 to 1; row 1 is 2"),
        (Poisson(), [0.5], "whole numbers from 0 on; row 0 is 0.5"),
        (MultivariateNormal(), [[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]], "covariance of 2 columns is singular"),
        (MultivariateNormal(), [[1.0, 2.0]], "covariance of 2 columns is singular"),
        (MultivariateNormal(), [1.0], r"shape \(n, n_features\)"),
        (MultivariateNormal(), [[1.0, np.nan]], "row 0 is not finite"),
        (Categorical(("a", "b")), ["a", "z"], "row 1 is 'z'"),
        (Poisson(), Censored([1.0], [2.0]), "Poisson takes no censored data"),
        (Categorical(), Censored([1.0], [2.0]), "Categorical takes no censored data"),
        (Normal(), Censored.right([1.0, 2.0], [True, True]), "every value is censored on the right"),
        (Gamma(), Censored.left([1.0, 2.0], [True, True]), "every value is censored on the left"),
        (Normal(), Censored([0.0, 0.5], [2.0, 1.5]), "no maximum that could be found"),
    ],
)
def test_wrong_data(family: Any, data: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        mle(family, data)


@pytest.mark.parametrize("family", [Normal(), Logistic(), Laplace(), StudentT(), Gamma(), Beta()])
def test_constant_data_and_single_values_have_no_most_likely_scale(family: Any) -> None:
    with pytest.raises(ValueError, match=r"there is only one value: .* narrows"):
        mle(family, [0.5])
    with pytest.raises(ValueError, match=r"all values are 0\.5: .* narrows"):
        mle(family, [0.5, 0.5, 0.5], [1.0, 2.0, 0.0])


def test_t_whose_values_are_mostly_equal_has_no_most_likely_parameters() -> None:
    with pytest.raises(ValueError, match="StudentT has no maximum"):
        mle(StudentT(), [1.0] * 30 + [2.0, 3.0, -1.0])


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match=r"weights must be of shape \(2,\), got \(3,\)"):
        mle(Normal(), [1.0, 2.0], [1, 1, 1])
    for weights in ([-1, 2], [np.nan, 1], [0, 0]):
        with pytest.raises(ValueError, match="weights must be finite, not negative, and not all zero"):
            mle(Normal(), [1.0, 2.0], weights)
    with pytest.raises(ValueError, match="Gamma has no parameter 'rate': a, scale"):
        map_estimate(Gamma(), [1.0, 2.0], {"rate": stats.gamma(1)})
    with pytest.raises(ValueError, match="n of a binomial"):
        Binomial(0)
    estimate = mle(Normal(), [1.0, 2.0])
    with pytest.raises(ValueError, match="level must be between 0 and 1, got 95"):
        estimate.interval(95)
    with pytest.raises(ValueError, match="kind must be 'wald' or 'profile', got 'score'"):
        estimate.interval(kind="score")
    with pytest.raises(ValueError, match="no profile intervals"):
        mle(Categorical(), ["a", "b"]).interval(kind="profile")


def test_wrong_bounds() -> None:
    for lower, upper, named in (
        ([2.0], [1.0], "row 0 of censored data says nothing: from 2.0 to 1.0"),
        ([-np.inf], [np.inf], "says nothing"),
        ([np.nan], [1.0], "says nothing"),
        ([1.0, 2.0], [1.0], "must have one length"),
    ):
        with pytest.raises(ValueError, match=named):
            Censored(lower, upper)
