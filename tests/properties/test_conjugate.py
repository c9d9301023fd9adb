"""Conjugate posteriors: Bayes' rule on a grid, one value after another, and what they converge to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fullspan.estimators.probability import (
    BetaBinomial,
    Censored,
    Conjugate,
    DirichletCategorical,
    GammaExponential,
    GammaPoisson,
    NormalInverseGamma,
    NormalInverseWishart,
    plot_convergence,
)

RNG = np.random.default_rng(0)
CASES: list[tuple[Conjugate, Any]] = [
    (BetaBinomial(2.0, 3.0), RNG.integers(0, 2, 12)),
    (BetaBinomial(0.5, 0.5, n=6), RNG.binomial(6, 0.3, 12)),
    (GammaPoisson(2.0, 0.5), RNG.poisson(3, 12)),
    (GammaExponential(2.0, 0.5), RNG.exponential(3, 12)),
    (NormalInverseGamma(1.0, 0.5, 2.0, 3.0), RNG.normal(5, 2, 12)),
    (DirichletCategorical((0, 1, 2), (0.5, 1.0, 2.0)), RNG.integers(0, 3, 12)),
    (NormalInverseWishart([0.0, 1.0], 0.5, 3.0, [[2.0, 0.3], [0.3, 1.0]]), RNG.normal(size=(12, 2))),
]


def values(law: Conjugate) -> Any:
    return np.concatenate(
        [np.ravel(np.asarray(v, dtype=float)) for k, v in vars(law).items() if k != "classes"]
    )


@pytest.mark.parametrize(("prior", "data"), CASES, ids=lambda v: type(v).__name__)
def test_one_after_another_is_all_at_once(prior: Conjugate, data: Any) -> None:
    """And the probability of all data is the product of each one's, given those before."""
    law, evidence = prior, 0.0
    for i in range(len(data)):
        one = data[i : i + 1]
        next_one = law.predictive()
        chance = getattr(next_one, "logpmf", None) or next_one.logpdf
        this = float(np.squeeze(chance(one if one.ndim == 1 else one[0])))
        assert law.log_evidence(one) == pytest.approx(this)
        evidence += this
        law = law.update(one)
    np.testing.assert_allclose(values(law), values(prior.update(data)), rtol=1e-10)
    assert prior.log_evidence(data) == pytest.approx(evidence, rel=1e-10)


@pytest.mark.parametrize(("prior", "data"), CASES, ids=lambda v: type(v).__name__)
def test_whole_weights_are_repeated_rows(prior: Conjugate, data: Any) -> None:
    w = RNG.integers(0, 3, len(data))
    weighted, repeated = prior.update(data, w), prior.update(np.repeat(data, w, axis=0))
    np.testing.assert_allclose(values(weighted), values(repeated), rtol=1e-10)
    assert prior.log_evidence(data, w) == pytest.approx(prior.log_evidence(np.repeat(data, w, axis=0)))


def test_posteriors_are_prior_times_likelihood() -> None:
    p = np.linspace(0.01, 0.99, 50)
    x = np.array([1, 0, 1, 1])
    by_hand = stats.beta(2, 3).logpdf(p) + sum(stats.bernoulli(p).logpmf(each) for each in x)
    exact = BetaBinomial(2, 3).update(x).marginals()["p"].logpdf(p) + BetaBinomial(2, 3).log_evidence(x)
    np.testing.assert_allclose(exact, by_hand)
    rate = np.linspace(0.1, 5, 50)
    seen = Censored.right([1.0, 2.0], [False, True])
    by_hand = (
        stats.gamma(2, scale=1 / 3).logpdf(rate) + np.log(rate) - 3 * rate
    )  # density of one, survival of one
    prior = GammaExponential(2, 3)
    np.testing.assert_allclose(
        prior.update(seen).marginals()["rate"].logpdf(rate) + prior.log_evidence(seen), by_hand
    )


def test_normal_posterior_integrates_to_its_marginals_and_peaks_at_its_mode() -> None:
    law = NormalInverseGamma(1.0, 2.0, 3.0, 4.0).update([0.5, 2.0, 1.0])
    mean, variance = np.linspace(-6, 8, 801), np.linspace(0.02, 60, 6000)
    joint = stats.invgamma(law.a, scale=law.b).pdf(variance) * stats.norm(
        law.m, np.sqrt(variance / law.k)).pdf(mean[:, None])  # fmt: skip
    # The grid ends where a thousandth is left.
    np.testing.assert_allclose(
        joint.sum(axis=1) * (variance[1] - variance[0]), law.marginals()["mean"].pdf(mean), atol=2e-3
    )
    i, j = np.unravel_index(joint.argmax(), joint.shape)
    assert law.mode["mean"] == pytest.approx(mean[i], abs=0.02)
    assert law.mode["variance"] == pytest.approx(variance[j], abs=0.02)
    low, high = law.interval(0.9)["variance"]
    assert law.marginals()["variance"].cdf([low, high]) == pytest.approx([0.05, 0.95])


def test_wishart_of_one_dimension_is_the_inverse_gamma() -> None:
    x = RNG.normal(size=(9, 1))
    wide = NormalInverseWishart([1.0], 2.0, 6.0, [[8.0]]).update(x)
    narrow = NormalInverseGamma(1.0, 2.0, 3.0, 4.0).update(x[:, 0])
    assert (wide.df / 2, wide.scale[0, 0] / 2) == pytest.approx((narrow.a, narrow.b))
    assert wide.predictive().logpdf([0.3]) == pytest.approx(narrow.predictive().logpdf(0.3))
    assert wide.mode["covariance"][0, 0] == pytest.approx(narrow.mode["variance"])
    assert wide.mean["covariance"][0, 0] == pytest.approx(narrow.mean["variance"])
    ends, same = wide.interval(0.8), narrow.interval(0.8)
    assert [*ends["mean[0]"], *ends["cov[0,0]"]] == pytest.approx([*same["mean"], *same["variance"]])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20), st.floats(0.01, 100))
def test_data_narrow_the_mean_and_pull_it_between(x: list[float], k: float) -> None:
    prior = NormalInverseGamma(0.0, k, 2.0, 1.0)
    after = prior.update(x)
    assert after.k > prior.k and after.a > prior.a and after.b >= prior.b
    assert min(0.0, np.mean(x)) - 1e-9 <= after.m <= max(0.0, np.mean(x)) + 1e-9


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: BetaBinomial(0, 1), "a of a prior must be positive"),
        (lambda: BetaBinomial(1, 1).update([0, 2]), "whole numbers from 0 to 1; row 1 is 2"),
        (lambda: GammaPoisson(1, 1).update([0.5]), "whole numbers from 0 on; row 0 is 0.5"),
        (lambda: GammaExponential(1, 1).update(Censored.left([2.0], [True])), "censored on the right"),
        (lambda: NormalInverseGamma(0, 1, 1, 1).update([np.nan]), "finite; row 0 is nan"),
        (lambda: NormalInverseGamma(0, 1, 1, 1).update([1.0], [-1]), "weights must be finite, not negative"),
        (lambda: NormalInverseGamma(0, 1, 1, 1).interval(2), "level must be between 0 and 1"),
        (lambda: NormalInverseWishart([0, 0], 1, 1, np.eye(2)), "df of a prior must be above 1"),
        (lambda: NormalInverseWishart([0, 0], 1, 3, -np.eye(2)), "positive definite"),
        (lambda: NormalInverseWishart([0, 0], 1, 3, np.eye(2)).update([[1.0]]), r"shape \(n, 2\)"),
        (lambda: DirichletCategorical(("a", "b"), (1, 1)).update(["z"]), "none of the classes"),
        (lambda: DirichletCategorical(("a",), (1,)), "two classes or more"),
        (lambda: plot_convergence([1, 0], BetaBinomial(1, 1), "mu"), "no picture of 'mu' of BetaBinomial"),
    ],
)  # fmt: skip
def test_what_is_refused(make: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        make()
