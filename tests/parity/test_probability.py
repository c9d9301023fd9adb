"""Estimates beside scipy.stats, closed forms, and the finite differences of likelihoods."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from scipy import special, stats

from fullspan.core.errors import ConfigError, FullspanError
from fullspan.core.partitions import LocalPartitions, ProcessPartitions
from fullspan.estimators.probability import (
    Bernoulli,
    Beta,
    Binomial,
    Categorical,
    Censored,
    Exponential,
    Family,
    Gamma,
    Laplace,
    Logistic,
    MultivariateNormal,
    Normal,
    Poisson,
    StudentT,
    map_estimate,
    mle,
    mle_partitions,
)

RNG = np.random.default_rng(0)
N = 120
CONTINUOUS: list[tuple[Family, Any, dict[str, float]]] = [
    (Normal(), RNG.normal(100, 2, N), {}),
    (Logistic(), RNG.logistic(50, 2, N), {}),
    (Laplace(), RNG.laplace(5, 2, N + 1), {}),
    (StudentT(), 3 + 2 * RNG.standard_t(3, N), {}),
    (Exponential(), RNG.exponential(3, N), {"floc": 0}),
    (Gamma(), RNG.gamma(2.5, 4, N), {"floc": 0}),
    (Beta(), RNG.beta(2, 5, N), {"floc": 0, "fscale": 1}),
]
DISCRETE: list[tuple[Family, Any]] = [
    (Bernoulli(), RNG.integers(0, 2, N)),
    (Binomial(7), RNG.binomial(7, 0.3, N)),
    (Poisson(), RNG.poisson(3.0, N)),
]
ALL = [(family, x) for family, x, _ in CONTINUOUS] + DISCRETE


def name(family: Any) -> str:
    return type(family).__name__


def theta(estimate: Any) -> Any:
    return np.array(list(estimate.parameters.values()))


def log_likelihood(family: Family, x: Any, at: Any) -> float:
    law = family.distribution(at)
    return float((law.logpmf(x) if family.discrete else law.logpdf(x)).sum())


@pytest.mark.parametrize(("family", "x"), ALL, ids=lambda v: name(v) if isinstance(v, Family) else "")
def test_densities_scores_and_errors_against_scipy_and_differences(family: Family, x: Any) -> None:
    estimate = mle(family, x)
    best = theta(estimate)
    assert estimate.log_likelihood == pytest.approx(log_likelihood(family, x, best), rel=1e-12)
    # Away from the optimum: densities are scipy's, scores their differences.
    at = best * 1.1 + 0.01
    terms = family.terms(x.astype(float))
    law = family.distribution(at)
    exact = law.logpmf(x) if family.discrete else law.logpdf(x)
    np.testing.assert_allclose(family.log_density(terms, at), exact, rtol=1e-10, atol=1e-10)
    for i, score in enumerate(family.score(terms, at)):
        step = np.zeros_like(at)
        step[i] = 1e-6 * at[i]
        ends = [family.log_density(terms, at + sign * step) for sign in (1, -1)]
        difference = (ends[0] - ends[1]) / (2 * step[i])
        away = (
            np.abs(x - at[0]) > 2 * step[i] if name(family) == "Laplace" else slice(None)
        )  # no kink between
        np.testing.assert_allclose(score[away], difference[away], rtol=2e-4, atol=1e-6)
    if name(family) == "Laplace":
        np.testing.assert_allclose(estimate.covariance, np.eye(2) * best[1] ** 2 / len(x))
        return
    # The covariance is the inverse of the second differences of scipy's log-likelihood.
    h = 1e-3 * np.array(list(estimate.standard_errors.values()))
    hessian = np.empty((len(best), len(best)))
    for i, j in np.ndindex(*hessian.shape):
        a, b = np.eye(len(best))[i] * h * 30, np.eye(len(best))[j] * h * 30
        corners = [(1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)]
        total = sum(s * log_likelihood(family, x, best + p * a + q * b) for p, q, s in corners)
        hessian[i, j] = total / (4 * a[i] * b[j])
    # Differences of a sum of some hundred digits' worth: three digits are left.
    np.testing.assert_allclose(np.linalg.inv(-hessian), estimate.covariance, rtol=2e-3, atol=1e-12)


@pytest.mark.parametrize(
    ("family", "x", "fixed"), CONTINUOUS, ids=lambda v: name(v) if isinstance(v, Family) else ""
)
def test_likelier_than_scipys_fit_with_the_same_parameters(family: Family, x: Any, fixed: Any) -> None:
    law = getattr(stats, family.scipy_name)
    with np.errstate(all="ignore"):  # its simplex wanders
        theirs = law.fit(x, **fixed)
    ours = mle(family, x)
    assert ours.log_likelihood >= law.logpdf(x, *theirs).sum() - 1e-9
    frozen = ours.distribution()
    # scipy stops where its simplex is small: four digits.
    np.testing.assert_allclose(
        law(*theirs).ppf([0.1, 0.5, 0.9]), frozen.ppf([0.1, 0.5, 0.9]), atol=1e-3 * x.std()
    )


@pytest.mark.parametrize(
    ("family", "x", "fixed"), CONTINUOUS, ids=lambda v: name(v) if isinstance(v, Family) else ""
)
def test_censored_data_as_scipys(family: Family, x: Any, fixed: Any) -> None:
    low, high = np.quantile(x, [0.15, 0.8])
    lower, upper = np.where(x > high, high, x), np.where(x > high, np.inf, x)
    lower, upper = np.where(x < low, -np.inf, lower), np.where(x < low, low, upper)
    width = 0.3 * (high - low)
    some = (np.arange(len(x)) % 3 == 0) & (x > low + width) & (x < high - width)
    middle = np.clip(np.floor(x / width) * width, low, high)
    lower, upper = np.where(some, middle, lower), np.where(some, middle + width, upper)
    ours = mle(family, Censored(lower, upper))
    left, right, between = np.isinf(lower), np.isinf(upper), some
    law = getattr(stats, family.scipy_name)
    data = stats.CensoredData(
        x[~(left | right | between)], left=upper[left], right=lower[right],
        interval=np.stack([lower[between], upper[between]], axis=1),
    )  # fmt: skip
    with np.errstate(all="ignore"), warnings.catch_warnings():  # its simplex wanders
        warnings.simplefilter("ignore")
        theirs = law.fit(data, **fixed)

    def likelihood(args: Any) -> float:
        frozen = law(*args)
        with np.errstate(all="ignore"):
            mass = np.log(frozen.cdf(upper[between]) - frozen.cdf(lower[between])).sum()
        known = frozen.logpdf(data._uncensored).sum()
        return float(known + frozen.logcdf(upper[left]).sum() + frozen.logsf(lower[right]).sum() + mass)

    every = {"Exponential": (0, *theta(ours)), "Gamma": (theta(ours)[0], 0, theta(ours)[-1]),
             "Beta": (*theta(ours), 0, 1)}  # fmt: skip
    mine = every.get(name(family), tuple(theta(ours)))
    assert ours.log_likelihood == pytest.approx(likelihood(mine), rel=1e-9)
    assert ours.log_likelihood >= likelihood(theirs) - 1e-7
    np.testing.assert_allclose(mine, theirs, rtol=5e-3, atol=1e-6)
    assert (np.array(list(ours.standard_errors.values())) > 0).all()


@pytest.mark.parametrize(("family", "x"), ALL, ids=lambda v: name(v) if isinstance(v, Family) else "")
def test_whole_weights_are_repeated_rows(family: Family, x: Any) -> None:
    w = RNG.integers(0, 4, len(x))
    weighted, repeated = mle(family, x, w), mle(family, np.repeat(x, w))
    np.testing.assert_allclose(theta(weighted), theta(repeated), rtol=1e-7)
    np.testing.assert_allclose(weighted.covariance, repeated.covariance, rtol=1e-5, atol=1e-12)
    assert weighted.log_likelihood == pytest.approx(repeated.log_likelihood, rel=1e-10)


@pytest.mark.parametrize("family", [Normal(), Gamma(), StudentT()], ids=name)
def test_profile_intervals_end_where_the_likelihood_has_fallen(family: Family) -> None:
    x = next(x for each, x in ALL if each == family)
    estimate = mle(family, x)
    depth = 0.5 * stats.chi2.ppf(0.9, 1)
    for i, (low, high) in enumerate(estimate.interval(0.9, kind="profile").values()):
        assert low < theta(estimate)[i] < high
        for end in (low, high):
            held: Any = Held(family, i, end)
            others = [v for j, v in enumerate(theta(estimate)) if j != i]
            assert held.best(x, others) == pytest.approx(estimate.log_likelihood - depth, abs=1e-4)


class Held:
    """A likelihood with one parameter held, maximised by a simplex."""

    def __init__(self, family: Family, i: int, value: float) -> None:
        self.family, self.i, self.value = family, i, value

    def best(self, x: Any, others: list[float]) -> float:
        from scipy import optimize

        def down(free: Any) -> float:
            at = np.insert(free, self.i, self.value)
            return (
                -log_likelihood(self.family, x, at) if (np.delete(at, at == at[0])[-1:] > 0).all() else np.inf
            )

        options = {"xatol": 1e-6, "fatol": 1e-8}
        return -float(optimize.minimize(down, others, method="Nelder-Mead", options=options).fun)


def test_profile_intervals_of_one_parameter_in_closed_form() -> None:
    x = RNG.binomial(7, 0.3, N)
    low, high = mle(Binomial(7), x).interval(kind="profile")["p"]
    k, n = x.sum(), 7 * N

    def fallen(p: float) -> float:
        return float(special.xlogy(k, p) + special.xlog1py(n - k, -p))

    for end in (low, high):
        assert fallen(k / n) - fallen(end) == pytest.approx(0.5 * stats.chi2.ppf(0.95, 1), rel=1e-6)


def test_boundaries() -> None:
    none = mle(Bernoulli(), np.zeros(20))
    assert (
        none.parameters == {"p": 0.0} and none.at_boundary == ("p",) and np.isnan(none.standard_errors["p"])
    )
    low, high = none.interval(kind="profile")["p"]
    assert low == 0 and high == pytest.approx(1 - np.exp(-0.5 * stats.chi2.ppf(0.95, 1) / 20))
    all_of_them = mle(Bernoulli(), np.ones(20)).interval(kind="profile")["p"]
    assert all_of_them == pytest.approx((1 - high, 1.0))
    empty = mle(Poisson(), np.zeros(10))
    assert empty.interval(kind="profile")["mu"] == pytest.approx((0.0, 0.05 * stats.chi2.ppf(0.95, 1)))
    # Of light tails: a t distribution with infinite degrees of freedom is a normal one.
    x = RNG.uniform(size=80)
    t, normal = mle(StudentT(), x), mle(Normal(), x)
    assert t.parameters["df"] == np.inf and t.at_boundary == ("df",)
    assert [t.parameters["loc"], t.parameters["scale"]] == pytest.approx(list(normal.parameters.values()))
    assert t.standard_errors["loc"] == pytest.approx(normal.standard_errors["loc"], rel=1e-6)
    low, high = t.interval(kind="profile")["df"]
    assert 1 < low < 100 and high == np.inf


def test_vectors_and_categories() -> None:
    X = RNG.multivariate_normal([1, 2, 3], [[2, 0.5, 0], [0.5, 1, 0.3], [0, 0.3, 1]], 400)
    estimate = mle(MultivariateNormal(), X)
    law = estimate.distribution()
    np.testing.assert_allclose(law.cov, np.cov(X.T, bias=True))
    np.testing.assert_allclose(law.mean, X.mean(axis=0))
    assert estimate.log_likelihood == pytest.approx(law.logpdf(X).sum())
    # Standard errors of covariances, as resampling finds them.
    draws = np.random.default_rng(1).multivariate_normal(law.mean, law.cov, (3000, 400))
    centred = draws - draws.mean(axis=1, keepdims=True)
    spread = np.einsum("bni,bnj->bij", centred, centred).std(axis=0) / 400
    for entry in ("0,0", "1,0", "2,0", "2,1"):
        i, j = map(int, entry.split(","))
        assert estimate.standard_errors[f"cov[{entry}]"] == pytest.approx(spread[i, j], rel=0.06)
    letters = mle(Categorical(("a", "b", "c", "z")), ["a", "b", "a", "c"], [1, 2, 1, 4])
    assert letters.parameters == {"p[a]": 0.25, "p[b]": 0.25, "p[c]": 0.5, "p[z]": 0.0}
    assert letters.standard_errors["p[c]"] == pytest.approx(np.sqrt(0.25 / 8))
    assert letters.at_boundary == ("p[z]",) and letters.distribution().pmf(2) == 0.5


def test_map_moves_from_the_prior_to_the_data() -> None:
    x = RNG.gamma(2.5, 4, 2000)
    prior = {"a": stats.gamma(50, scale=0.2), "scale": stats.gamma(20, scale=0.1)}
    apart = []
    for n in (3, 100, 2000):
        likely, mode = mle(Gamma(), x[:n]), map_estimate(Gamma(), x[:n], prior)
        apart.append(abs(np.log(theta(mode) / theta(likely))).max())
        at = theta(mode)
        near = [[1, 1], [1.001, 1], [0.999, 1], [1, 1.001], [1, 0.999]]
        total = [
            log_likelihood(Gamma(), x[:n], at * f)
            + sum(prior[k].logpdf(v) for k, v in zip(prior, at * f, strict=True))
            for f in near
        ]
        assert max(total) == total[0] == pytest.approx(mode.log_likelihood)
    assert apart[0] > apart[1] > 3 * apart[2]
    # Constant data have no most likely scale, but a mode under a prior.
    held = map_estimate(Normal(), [3.0, 3.0], {"scale": stats.invgamma(2, scale=1)})
    assert held.parameters["loc"] == pytest.approx(3) and 0 < held.parameters["scale"] < 1


@pytest.mark.parametrize("family", [each for each, _ in ALL if each.sufficient], ids=name)
def test_parts_give_the_estimate_of_all_rows(family: Family) -> None:
    x = next(x for each, x in ALL if each == family).astype(float)
    w = RNG.random(len(x))
    kind = ProcessPartitions if name(family) == "Gamma" else LocalPartitions
    with kind([(x[:30], w[:30]), (x[30:31], w[30:31]), (x[31:], w[31:])]) as parts:
        found = mle_partitions(family, parts)
    whole = mle(family, x, w)
    np.testing.assert_allclose(theta(found), theta(whole), rtol=1e-8)
    np.testing.assert_allclose(found.covariance, whole.covariance, rtol=1e-6, atol=1e-12)
    assert found.log_likelihood == pytest.approx(whole.log_likelihood, rel=1e-9)


def test_parts_of_vectors_and_categories() -> None:
    X = RNG.normal(1e3, 1, (50, 2))
    with LocalPartitions([X[:20], X[20:]]) as parts:
        found = mle_partitions(MultivariateNormal(), parts)
    np.testing.assert_allclose(theta(found), theta(mle(MultivariateNormal(), X)))
    letters = np.array(list("abcabca"))
    with LocalPartitions([letters[:2], letters[2:]]) as parts:
        assert mle_partitions(Categorical(), parts).parameters == mle(Categorical(), letters).parameters
    with pytest.raises(ConfigError, match="Logistic has no sufficient statistics"):
        mle_partitions(Logistic(), LocalPartitions([X[:, 0]]))
    with pytest.raises(FullspanError, match="Gamma takes numbers above 0; row 1"):
        mle_partitions(Gamma(), LocalPartitions([np.array([1.0, -2.0])]))
