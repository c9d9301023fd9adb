"""The loss family: arithmetic by hand, finite differences, constant minimisers, extreme scores."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from fullspan.estimators import losses as L

RNG = np.random.default_rng(7)
N = 12


def _positive() -> np.ndarray:
    return RNG.gamma(2.0, size=N) + 0.1


def _bounds(kind: str) -> np.ndarray:
    low = _positive()
    high = {"exact": low, "right": np.full(N, np.inf), "interval": low + _positive(), "left": low}[kind]
    return np.column_stack([np.zeros(N) if kind == "left" else low, high])


_BINARY = np.tile([0.0, 1.0, 1.0], N // 3)
SMOOTH = {
    "squared": (L.SquaredError(), RNG.normal(size=N)),
    "pseudo-huber": (L.PseudoHuber(0.7), RNG.normal(size=N)),
    "squared-log": (L.SquaredLogError(), _positive()),
    "logistic": (L.Logistic(), _BINARY),
    "exponential": (L.Exponential(), _BINARY),
    "poisson": (L.Poisson(), RNG.poisson(2.0, N).astype(float)),
    "gamma": (L.Gamma(), _positive()),
    "tweedie": (L.Tweedie(1.3), np.where(_BINARY, _positive(), 0.0)),
    **{
        f"aft-{distribution}-{kind}": (L.AFT(distribution, 1.3), _bounds(kind))
        for distribution in ("normal", "logistic", "extreme")
        for kind in ("exact", "right", "interval", "left")
    },
}
KINKED = {
    "absolute": (L.AbsoluteError(), RNG.normal(size=N)),
    "quantile": (L.Quantile(0.3), RNG.normal(size=N)),
    "huber": (L.Huber(0.5), RNG.normal(size=N)),
    "hinge": (L.Hinge(), _BINARY),
}
EVERY = SMOOTH | KINKED


def _scores(name: str) -> np.ndarray:
    # The squared log error has negative curvature, which is clipped, far above the target.
    return np.random.default_rng(3).normal(size=N) * (0.2 if name == "squared-log" else 0.8)


@pytest.mark.parametrize("name", EVERY)
def test_gradients_are_the_slopes_of_the_loss(name: str) -> None:
    loss, y = EVERY[name]
    raw, step = _scores(name), 1e-6
    slope = (loss.pointwise(y, raw + step) - loss.pointwise(y, raw - step)) / (2 * step)
    np.testing.assert_allclose(loss.gradient(y, raw), slope, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", SMOOTH)
def test_hessians_are_the_slopes_of_the_gradient(name: str) -> None:
    loss, y = SMOOTH[name]
    raw, step = _scores(name), 1e-6
    slope = (loss.gradient(y, raw + step) - loss.gradient(y, raw - step)) / (2 * step)
    np.testing.assert_allclose(loss.gradient_hessian(y, raw)[1], slope, rtol=1e-5, atol=1e-6)


def test_hessian_of_huber_is_zero_beyond_delta() -> None:
    _, hessian = L.Huber(1.0).gradient_hessian(np.zeros(3), np.array([0.5, 1.0, 1.5]))
    assert hessian.tolist() == [1.0, 1.0, 0.0]


def test_multinomial_derivatives() -> None:
    loss, y = L.Multinomial(3), np.array([0, 2, 1, 1])
    raw, step = np.random.default_rng(5).normal(size=(4, 3)), 1e-6
    gradient, hessian = loss.gradient_hessian(y, raw)
    for k in range(3):
        moved = np.zeros(3)
        moved[k] = step
        slope = (loss.pointwise(y, raw + moved) - loss.pointwise(y, raw - moved)) / (2 * step)
        bend = (loss.gradient(y, raw + moved) - loss.gradient(y, raw - moved))[:, k] / (2 * step)
        np.testing.assert_allclose(gradient[:, k], slope, atol=1e-8)
        np.testing.assert_allclose(hessian[:, k], bend, atol=1e-8)
    np.testing.assert_allclose(loss.inverse_link(raw).sum(axis=1), 1)


def test_cox_derivatives_with_ties_and_censoring() -> None:
    y = np.array([1.0, 2.0, -2.0, 2.0, 3.0, -0.5])
    raw = np.random.default_rng(1).normal(size=6)
    loss = L.Cox()

    def total(scores: np.ndarray) -> float:
        # By the definition: every event against all whose time is not smaller.
        return sum(
            np.log(np.exp(scores[np.abs(y) >= t]).sum()) - s for t, s in zip(y, scores, strict=True) if t > 0
        )

    np.testing.assert_allclose(loss.pointwise(y, raw).sum(), total(raw))
    gradient, hessian = loss.gradient_hessian(y, raw)
    for i in range(6):
        moved = np.zeros(6)
        moved[i] = 1e-6
        np.testing.assert_allclose(gradient[i], (total(raw + moved) - total(raw - moved)) / 2e-6, atol=1e-7)
        bend = (loss.gradient(y, raw + moved)[i] - loss.gradient(y, raw - moved)[i]) / 2e-6
        np.testing.assert_allclose(hessian[i], bend, atol=1e-7)


def test_values_by_hand() -> None:
    one = np.array([1.0])
    assert L.SquaredError().pointwise(one, np.array([3.0])) == 2.0
    assert L.AbsoluteError().pointwise(one, np.array([3.0])) == 2.0
    assert L.Quantile(0.9).pointwise(np.array([3.0]), one) == pytest.approx(1.8)
    assert L.Quantile(0.9).pointwise(one, np.array([3.0])) == pytest.approx(0.2)
    assert L.Huber(1.0).pointwise(one, np.array([4.0])) == 2.5
    assert L.PseudoHuber(1.0).pointwise(one, np.array([2.0])) == pytest.approx(np.sqrt(2) - 1)
    assert L.Logistic().pointwise(one, np.array([0.0])) == pytest.approx(np.log(2))
    assert L.Exponential().pointwise(one, np.array([1.0])) == pytest.approx(np.exp(-1))
    assert L.Hinge().pointwise(one, np.array([0.25])) == 0.75
    assert L.Poisson().pointwise(np.array([2.0]), np.array([0.0])) == pytest.approx(2 * np.log(2) - 1)
    assert L.Gamma().pointwise(np.array([2.0]), np.array([0.0])) == pytest.approx(1 - np.log(2))
    assert L.Tweedie(1.5).pointwise(np.array([0.0]), np.array([0.0])) == 2.0
    assert L.SquaredLogError().pointwise(one, np.array([np.e - 1])) == pytest.approx((1 - np.log(2)) ** 2 / 2)
    thirds = L.Multinomial(3).pointwise(np.array([1]), np.zeros((1, 3)))
    assert thirds == pytest.approx(np.log(3))
    normal = L.AFT("normal").pointwise(np.array([[1.0, 1.0]]), np.array([0.0]))
    assert normal == pytest.approx(np.log(2 * np.pi) / 2)
    half = L.AFT("logistic").pointwise(np.array([[1.0, np.inf]]), np.array([0.0]))
    assert half == pytest.approx(np.log(2))


@pytest.mark.parametrize("name", ["poisson", "gamma", "tweedie"])
def test_deviances_match_scikit_learn(name: str) -> None:
    from sklearn import metrics

    loss, y = SMOOTH[name]
    raw = _scores(name)
    mean = np.exp(raw)
    peer = {
        "poisson": lambda: metrics.mean_poisson_deviance(y, mean),
        "gamma": lambda: metrics.mean_gamma_deviance(y, mean),
        "tweedie": lambda: metrics.mean_tweedie_deviance(y, mean, power=1.3),
    }[name]()
    assert loss.loss(y, raw) == pytest.approx(peer / 2, rel=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", [n for n in EVERY if not n.endswith(("right", "left"))])
def test_the_initial_score_is_the_best_constant(name: str, weighted: bool) -> None:
    loss, y = EVERY[name]
    weight = np.random.default_rng(2).uniform(0.5, 2, N) if weighted else None
    best = loss.initial_raw(y, weight)

    def cost(c: float) -> float:
        return loss.loss(y, np.full(N, c), weight)

    found = minimize_scalar(cost, bounds=(-8, 8), method="bounded", options={"xatol": 1e-10})
    assert cost(best) <= found.fun + 1e-9


def test_the_initial_score_of_classes_is_their_log_frequency() -> None:
    loss = L.Multinomial(3)
    y, weight = np.array([0, 1, 1, 2]), np.array([1.0, 1.0, 2.0, 4.0])
    np.testing.assert_allclose(
        loss.inverse_link(loss.initial_raw(y, weight)[None])[0], [1 / 8, 3 / 8, 4 / 8], rtol=1e-12
    )
    assert np.isfinite(loss.initial_raw(np.array([0, 0]))).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", EVERY)
def test_extreme_scores_stay_finite_and_keep_their_type(name: str, dtype: type) -> None:
    loss, y = EVERY[name]
    for size in (30.0, 700.0, 1e10):
        for sign in (-1, 1):
            raw = np.full(N, sign * size, dtype=dtype)
            with np.errstate(over="raise", invalid="raise", divide="raise"):
                gradient, hessian = loss.gradient_hessian(y.astype(dtype), raw)
            assert gradient.dtype == hessian.dtype == dtype
            assert np.isfinite(gradient).all()
            assert np.isfinite(hessian).all()
            assert (hessian >= 0).all()


def test_logistic_keeps_its_precision_at_the_ends() -> None:
    raw = np.array([-40.0, 40.0])
    gradient, hessian = L.Logistic().gradient_hessian(np.array([0.0, 1.0]), raw)
    np.testing.assert_allclose(hessian, np.exp(-40.0), rtol=1e-12)
    assert gradient[0] == pytest.approx(np.exp(-40.0))
    np.testing.assert_allclose(L.Logistic().pointwise(np.array([1.0, 0.0]), raw), 40.0)


@pytest.mark.parametrize(
    ("loss", "bad"),
    [
        (L.Logistic(), [0.0, 1.5]),
        (L.Exponential(), [-0.1]),
        (L.Hinge(), [0.5]),
        (L.Poisson(), [-1.0]),
        (L.Gamma(), [0.0]),
        (L.Tweedie(), [-1.0]),
        (L.SquaredLogError(), [-1.0]),
        (L.Cox(), [0.0]),
        (L.Multinomial(3), [3.0]),
        (L.AFT(), [[2.0, 1.0]]),
        (L.AFT(), [1.0]),
    ],
)
def test_targets_out_of_range_are_refused(loss: L.Loss, bad: list[float]) -> None:
    with pytest.raises(ValueError, match=r"^y must"):
        loss.check_y(np.array(bad))


def test_quantiles_of_weights_are_quantiles_of_repetitions() -> None:
    values = np.array([3.0, 1.0, 2.0, 5.0])
    weight = np.array([2.0, 1.0, 3.0, 2.0])
    repeated = np.repeat(values, weight.astype(int))
    for alpha in (0.0, 0.1, 0.5, 0.75, 1.0):
        assert L.weighted_quantile(values, alpha, weight) == L.weighted_quantile(repeated, alpha)
    assert L.weighted_quantile(values, 0.5) == np.median(values)
    assert L.weighted_quantile(np.array([1.0, 9.0]), 0.5, np.array([1.0, 0.0])) == 1.0
