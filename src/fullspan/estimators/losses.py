"""The losses that boosting and linear models minimise: values, and derivatives with respect to raw scores.

A raw score is what a model adds up before any link: a margin or a linear predictor. Every loss works in the
type of `raw` (float32 or float64), and its derivatives stay finite however large the scores are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf, expit, log_expit, logsumexp, xlogy

Array = NDArray[Any]

# Largest score that is exponentiated; beyond it gradients would overflow float32.
_MOST_EXPONENT = 80.0


def weighted_quantile(values: Array, alpha: float, sample_weight: Array | None = None) -> float:
    """The constant with the least pinball loss; halfway where a whole interval has it.

    Examples
    --------
    >>> weighted_quantile(np.array([4.0, 1.0, 2.0, 3.0]), 0.5)
    2.5
    >>> weighted_quantile(np.array([4.0, 1.0, 2.0]), 0.5, np.array([5.0, 1.0, 1.0]))
    4.0
    """
    order = np.argsort(values, kind="stable")
    ordered = np.asarray(values, np.float64)[order]
    weight = np.ones(len(ordered)) if sample_weight is None else np.asarray(sample_weight, np.float64)[order]
    ordered, weight = ordered[weight > 0], weight[weight > 0]
    reached = np.cumsum(weight)
    wanted = alpha * reached[-1]
    # Sums of floats miss a tie by rounding.
    slack = 1e-12 * reached[-1]
    first = min(int(np.searchsorted(reached, wanted - slack)), len(ordered) - 1)
    last = min(int(np.searchsorted(reached, wanted + slack, side="right")), len(ordered) - 1)
    return float((ordered[first] + ordered[last]) / 2)


def _exp(x: Array) -> Array:
    return np.asarray(np.exp(np.minimum(x, _MOST_EXPONENT)))


def _mean(values: Array, sample_weight: Array | None) -> float:
    return float(np.average(values, axis=0, weights=sample_weight))


class Loss:
    """What all losses share. y has shape (n_samples,), as has raw but for `Multinomial`."""

    def pointwise(self, y: Array, raw: Array) -> Array:
        """The loss of each row."""
        raise NotImplementedError

    def loss(self, y: Array, raw: Array, sample_weight: Array | None = None) -> float:
        """Weighted mean of the rows' losses."""
        return _mean(self.pointwise(y, raw), sample_weight)

    def gradient(self, y: Array, raw: Array) -> Array:
        """Derivative of each row's loss, of raw's shape."""
        return self.gradient_hessian(y, raw)[0]

    def gradient_hessian(self, y: Array, raw: Array) -> tuple[Array, Array]:
        """First and second derivatives of each row's loss, of raw's shape: of the hessian, the diagonal.

        A loss without curvature says what stands for it.
        """
        raise NotImplementedError

    def initial_raw(self, y: Array, sample_weight: Array | None = None) -> float | Array:
        """The constant raw score with the least loss."""
        raise NotImplementedError

    def inverse_link(self, raw: Array) -> Array:
        """Predictions from raw scores."""
        return raw

    def check_y(self, y: Array) -> None:
        """Refuse targets that the loss is not defined for.

        Raises
        ------
        ValueError
            The message says which targets are allowed.
        """


class SquaredError(Loss):
    """Half of the squared error.

    Examples
    --------
    >>> loss = SquaredError()
    >>> loss.loss(np.array([1.0, 3.0]), np.array([0.0, 0.0]))
    2.5
    >>> loss.initial_raw(np.array([1.0, 3.0]))
    2.0
    """

    def pointwise(self, y: Array, raw: Array) -> Array:
        return np.asarray((raw - y) ** 2 / 2)

    def gradient_hessian(self, y: Array, raw: Array) -> tuple[Array, Array]:
        return raw - y, np.ones_like(raw)

    def initial_raw(self, y: Array, sample_weight: Array | None = None) -> float:
        return _mean(y, sample_weight)


class AbsoluteError(Loss):
    """Absolute error. It has no curvature: one stands for the hessian, as in XGBoost."""

    def pointwise(self, y: Array, raw: Array) -> Array:
        return np.asarray(np.abs(raw - y))

    def gradient_hessian(self, y: Array, raw: Array) -> tuple[Array, Array]:
        return np.sign(raw - y), np.ones_like(raw)

    def initial_raw(self, y: Array, sample_weight: Array | None = None) -> float:
        return weighted_quantile(y, 0.5, sample_weight)


class Quantile(Loss):
    """Pinball loss of the quantile `alpha`. One stands for the hessian, as in XGBoost."""

    def __init__(self, alpha: float = 0.5) -> None:
        self.alpha = alpha

    def pointwise(self, y: Array, raw: Array) -> Array:
        d = y - raw
        return np.where(d >= 0, self.alpha * d, (self.alpha - 1) * d)

    def gradient_hessian(self, y: Array, raw: Array) -> tuple[Array, Array]:
        gradient = np.where(raw >= y, 1 - self.alpha, -self.alpha).astype(raw.dtype)
        return gradient, np.ones_like(raw)

    def initial_raw(self, y: Array, sample_weight: Array | None = None) -> float:
        return weighted_quantile(y, self.alpha, sample_weight)


class Huber(Loss):
    """Half of the squared error up to `delta`, linear beyond (Huber 1964). The hessian is 0 beyond."""

    def __init__(self, delta: float = 1.0) -> None:
        self.delta = delta

    def pointwise(self, y: Array, raw: Array) -> Array:
        d = np.abs(raw - y)
        near = np.minimum(d, self.delta)
        return np.asarray(near * (d - near / 2))

    def gradient_hessian(self, y: Array, raw: Array) -> tuple[Array, Array]:
        d = raw - y
        return np.clip(d, -self.delta, self.delta), (np.abs(d) <= self.delta).astype(raw.dtype)

    def initial_raw(self, y: Array, sample_weight: Array | None = None) -> float:
        low, high = float(np.min(y)), float(np.max(y))
        return _root(lambda c: self.gradient(y, np.full(len(y), c)), low, high, sample_weight)


class PseudoHuber(Loss):
    """``slope² (sqrt(1 + (d / slope)²) - 1)``, a smooth Huber loss (Charbonnier et al. 1994)."""

    def __init__(self, slope: float = 1.0) -> None:
        self.slope = slope

    def pointwise(self, y: Array, raw: Array) -> Array:
        z = (raw - y) / self.slope
        # sqrt(1 + z²) - 1 without cancellation.
        return np.asarray(self.slope**2 * z * (z / (np.hypot(1, z).astype(raw.dtype) + 1)))

    def gradient_hessian(self, y: Array, raw: Array) -> tuple[Array, Array]:
        d = raw - y
        root = np.hypot(1, d / self.slope).astype(raw.dtype)
        return d / root, 1 / root**3

    def initial_raw(self, y: Array, sample_weight: Array | None = None) -> float:
        low, high = float(np.min(y)), float(np.max(y))
        return _root(lambda c: self.gradient(y, np.full(len(y), c)), low, high, sample_weight)


class SquaredLogError(Loss):
    """``(log(1 + raw) - log(1 + y))² / 2`` for y above -1, with raw scores held above -1.

    It is not convex: hessians below 1e-6 are raised to that, as in XGBoost.
    """

    _LEAST = -1 + 1e-6

    def pointwise(self, y: Array, raw: Array) -> Array:
        return np.asarray((np.log1p(np.maximum(raw, self._LEAST)) - np.log1p(y)) ** 2 / 2)

    def gradient_hessian(self, y: Array, raw: Array) -> tuple[Array, Array]:
        raw = np.maximum(raw, self._LEAST)
        d = np.log1p(raw) - np.log1p(y)
        return d / (raw + 1), np.maximum((1 - d) / (raw + 1) ** 2, 1e-6)

    def initial_raw(self, y: Array, sample_weight: Array | None = None) -> float:
        return float(np.expm1(_mean(np.log1p(y), sample_weight)))

    def check_y(self, y: Array) -> None:
        if not np.all(y > -1):
            raise ValueError("y must be greater than -1 for the squared log error")


class Logistic(Loss):
    """Negative log-likelihood of y in [0, 1] when raw is the log-odds.

    Examples
    --------
    >>> loss = Logistic()
    >>> gradient, hessian = loss.gradient_hessian(np.array([1.0]), np.array([0.0]))
    >>> gradient, hessian
    (array([-0.5]), array([0.25]))
    """

    def pointwise(self, y: Array, raw: Array) -> Array:
        return np.asarray(-y * log_expit(raw) - (1 - y) * log_expit(-raw))

    def gradient_hessian(self, y: Array, raw: Array) -> tuple[Array, Array]:
        p = expit(raw)
        # (1 - p) as expit(-raw): nothing cancels when p is near 1.
        return p - y, p * expit(-raw)

    def initial_raw(self, y: Array, sample_weight: Array | None = None) -> float:
        p = _mean(y, sample_weight)
        p = min(max(p, np.finfo(np.float64).eps), 1 - np.finfo(np.float64).eps)
        return float(np.log(p / (1 - p)))

    def inverse_link(self, raw: Array) -> Array:
        return np.asarray(expit(raw))

    def check_y(self, y: Array) -> None:
        if not np.all((y >= 0) & (y <= 1)):
            raise ValueError("y must be between 0 and 1 for the logistic loss")


class Exponential(Loss):
    """``exp(-s raw)`` with s = 2y - 1 for y in [0, 1]: AdaBoost's loss; raw is half of the log-odds."""

    def pointwise(self, y: Array, raw: Array) -> Array:
        return np.asarray(y * _exp(-raw) + (1 - y) * _exp(raw))

    def gradient_hessian(self, y: Array, raw: Array) -> tuple[Array, Array]:
        down, up = y * _exp(-raw), (1 - y) * _exp(raw)
        return up - down, up + down

    def initial_raw(self, y: Array, sample_weight: Array | None = None) -> float:
        return Logistic().initial_raw(y, sample_weight) / 2

    def inverse_link(self, raw: Array) -> Array:
        return np.asarray(expit(2 * raw))

    def check_y(self, y: Array) -> None:
        if not np.all((y >= 0) & (y <= 1)):
            raise ValueError("y must be between 0 and 1 for the exponential loss")


class Multinomial(Loss):
    """Negative log-likelihood of classes 0 to n_classes - 1; raw has shape (n_samples, n_classes).

    `initial_raw` are the log-frequencies, centred so that they add up to zero; a class that never occurs gets
    the log of float64's epsilon before centring.
    """

    def __init__(self, n_classes: int) -> None:
        self.n_classes = n_classes

    def pointwise(self, y: Array, raw: Array) -> Array:
        rows = np.arange(len(raw))
        return np.asarray(logsumexp(raw, axis=1) - raw[rows, y.astype(np.intp)])

    def gradient_hessian(self, y: Array, raw: Array) -> tuple[Array, Array]:
        p = self.inverse_link(raw)
        gradient = p.copy()
        gradient[np.arange(len(raw)), y.astype(np.intp)] -= 1
        return gradient, p * (1 - p)

    def initial_raw(self, y: Array, sample_weight: Array | None = None) -> Array:
        counts = np.bincount(y.astype(np.intp), weights=sample_weight, minlength=self.n_classes)
        logs = np.log(np.maximum(counts / counts.sum(), np.finfo(np.float64).eps))
        return np.asarray(logs - logs.mean())

    def inverse_link(self, raw: Array) -> Array:
        e = np.exp(raw - raw.max(axis=1, keepdims=True))
        return np.asarray(e / e.sum(axis=1, keepdims=True))

    def check_y(self, y: Array) -> None:
        if not np.all((y >= 0) & (y < self.n_classes) & (y == np.floor(y))):
            raise ValueError(f"y must be whole numbers from 0 to {self.n_classes - 1}")


class Hinge(Loss):
    """``max(0, 1 - s raw)`` with s = 2y - 1 for y in {0, 1}. Predictions are classes.

    One stands for the hessian where there is a slope, elsewhere float32's smallest normal number (XGBoost's).
    """

    def pointwise(self, y: Array, raw: Array) -> Array:
        return np.asarray(np.maximum(0, 1 - (2 * y - 1) * raw))

    def gradient_hessian(self, y: Array, raw: Array) -> tuple[Array, Array]:
        sign = 2 * y - 1
        inside = sign * raw < 1
        flat = np.finfo(np.float32).tiny
        return (
            np.where(inside, -sign, 0).astype(raw.dtype),
            np.where(inside, 1, flat).astype(raw.dtype),
        )

    def initial_raw(self, y: Array, sample_weight: Array | None = None) -> float:
        share = _mean(y, sample_weight)
        return float(np.sign(share - 0.5))

    def inverse_link(self, raw: Array) -> Array:
        return (raw > 0).astype(raw.dtype)

    def check_y(self, y: Array) -> None:
        if not np.all((y == 0) | (y == 1)):
            raise ValueError("y must be 0 or 1 for the hinge loss")


class _LogLink(Loss):
    """Losses whose prediction is exp(raw): the constant minimiser is the log of the mean."""

    def initial_raw(self, y: Array, sample_weight: Array | None = None) -> float:
        return float(np.log(max(_mean(y, sample_weight), np.finfo(np.float64).tiny)))

    def inverse_link(self, raw: Array) -> Array:
        return _exp(raw)


class Poisson(_LogLink):
    """Half of the Poisson deviance of counts y >= 0 with mean exp(raw)."""

    def pointwise(self, y: Array, raw: Array) -> Array:
        return np.asarray(_exp(raw) - y * raw + xlogy(y, y) - y)

    def gradient_hessian(self, y: Array, raw: Array) -> tuple[Array, Array]:
        mean = _exp(raw)
        return mean - y, mean

    def check_y(self, y: Array) -> None:
        if not np.all(y >= 0):
            raise ValueError("y must not be negative for the Poisson loss")


class Gamma(_LogLink):
    """Half of the gamma deviance of y > 0 with mean exp(raw)."""

    def pointwise(self, y: Array, raw: Array) -> Array:
        return np.asarray(raw + y * _exp(-raw) - np.log(y) - 1)

    def gradient_hessian(self, y: Array, raw: Array) -> tuple[Array, Array]:
        ratio = y * _exp(-raw)
        return 1 - ratio, ratio

    def check_y(self, y: Array) -> None:
        if not np.all(y > 0):
            raise ValueError("y must be positive for the gamma loss")


class Tweedie(_LogLink):
    """Half of the Tweedie deviance with mean exp(raw) and variance power between 1 and 2."""

    def __init__(self, power: float = 1.5) -> None:
        self.power = power

    def pointwise(self, y: Array, raw: Array) -> Array:
        p = self.power
        constant = np.power(y, 2 - p) / ((1 - p) * (2 - p))
        return np.asarray(constant - y * _exp((1 - p) * raw) / (1 - p) + _exp((2 - p) * raw) / (2 - p))

    def gradient_hessian(self, y: Array, raw: Array) -> tuple[Array, Array]:
        p = self.power
        down, up = y * _exp((1 - p) * raw), _exp((2 - p) * raw)
        return up - down, (2 - p) * up - (1 - p) * down

    def check_y(self, y: Array) -> None:
        if not np.all(y >= 0):
            raise ValueError("y must not be negative for the Tweedie loss")


class Cox(Loss):
    """Negative partial log-likelihood of the proportional hazards model, ties by Breslow's method.

    ``|y|`` is the time; negative y are censored. Rows are not independent: `pointwise` gives the terms of the
    events, 0 for censored rows, and gradients are of their sum. A constant cancels out: `initial_raw` is 0.

    References
    ----------
    D. R. Cox, "Regression models and life-tables", JRSS B 34 (1972); N. Breslow, discussion of it.
    """

    def pointwise(self, y: Array, raw: Array) -> Array:
        risk, shift = self._risk(y, raw)
        return np.asarray(np.where(y > 0, np.log(risk) + shift - raw, 0).astype(raw.dtype))

    def gradient_hessian(self, y: Array, raw: Array) -> tuple[Array, Array]:
        risk, shift = self._risk(y, raw)
        hazard = np.exp(raw.astype(np.float64) - shift)
        event = (y > 0).astype(np.float64)
        time = np.abs(y)
        order = np.argsort(time, kind="stable")
        # For each row, the events up to its time, its own and ties included.
        last = np.searchsorted(time[order], time, side="right") - 1
        first_order = np.cumsum((event / risk)[order])[last]
        second_order = np.cumsum((event / risk**2)[order])[last]
        gradient = hazard * first_order - event
        hessian = np.maximum(hazard * first_order - hazard**2 * second_order, 0)
        return gradient.astype(raw.dtype), hessian.astype(raw.dtype)

    def _risk(self, y: Array, raw: Array) -> tuple[Array, float]:
        """Sum of exp(raw - shift) over the rows still at risk at each row's time, and the shift."""
        time = np.abs(y)
        order = np.argsort(time, kind="stable")
        shift = float(np.max(raw))
        hazard = np.exp(raw.astype(np.float64)[order] - shift)
        at_risk = np.cumsum(hazard[::-1])[::-1]
        risk = at_risk[np.searchsorted(time[order], time, side="left")]
        return np.maximum(risk, np.finfo(np.float64).tiny), shift

    def initial_raw(self, y: Array, sample_weight: Array | None = None) -> float:
        return 0.0

    def inverse_link(self, raw: Array) -> Array:
        return _exp(raw)

    def check_y(self, y: Array) -> None:
        if not np.all((y != 0) & np.isfinite(y)):
            raise ValueError("y must be finite times other than 0, negative where censored, for the Cox loss")


class AFT(Loss):
    """Accelerated failure time: log(time) = raw + scale z, with z normal, logistic or extreme (Gumbel).

    y has shape (n_samples, 2): the bounds between which the event happened; equal ones for an observed event,
    infinity above for one that had not happened yet, 0 below for one that had happened before. Gradients are
    clipped to [-15, 15] and hessians to [1e-16, 15], as in XGBoost.

    References
    ----------
    A. Barnwal, H. Cho, T. Hocking, "Survival regression with accelerated failure time model in XGBoost",
    J. Comput. Graph. Stat. 31 (2022).
    """

    _MOST = 15.0
    _LEAST_HESSIAN = 1e-16
    _LEAST_LIKELIHOOD = 1e-12

    def __init__(self, distribution: str = "normal", scale: float = 1.0) -> None:
        self.distribution = distribution
        self.scale = scale

    def pointwise(self, y: Array, raw: Array) -> Array:
        z_low, z_high = self._scores(y, raw)
        exact = y[:, 0] == y[:, 1]
        with np.errstate(divide="ignore", invalid="ignore"):
            density = self._curves(z_low)[1] / (self.scale * y[:, 0].astype(np.float64))
        mass = self._curves(z_high)[0] - self._curves(z_low)[0]
        likelihood = np.where(exact, density, mass)
        return (-np.log(np.maximum(likelihood, self._LEAST_LIKELIHOOD))).astype(raw.dtype)

    def gradient_hessian(self, y: Array, raw: Array) -> tuple[Array, Array]:
        z_low, z_high = self._scores(y, raw)
        exact = y[:, 0] == y[:, 1]
        cdf_low, pdf_low, d1_low, d2_low = self._curves(z_low)
        cdf_high, pdf_high, d1_high, _ = self._curves(z_high)
        mass, slope, bend = cdf_high - cdf_low, pdf_high - pdf_low, d1_high - d1_low
        with np.errstate(all="ignore"):
            gradient = np.where(exact, d1_low / (self.scale * pdf_low), slope / (self.scale * mass))
            hessian = np.where(
                exact,
                (d1_low**2 - pdf_low * d2_low) / (self.scale * pdf_low) ** 2,
                (slope**2 - mass * bend) / (self.scale * mass) ** 2,
            )
        limit_gradient, limit_hessian = self._limits(y, z_low, z_high, exact)
        gradient = np.where(np.isfinite(gradient), gradient, limit_gradient)
        hessian = np.where(np.isfinite(hessian), hessian, limit_hessian)
        return (
            np.clip(gradient, -self._MOST, self._MOST).astype(raw.dtype),
            np.clip(hessian, self._LEAST_HESSIAN, self._MOST).astype(raw.dtype),
        )

    def _scores(self, y: Array, raw: Array) -> tuple[Array, Array]:
        with np.errstate(divide="ignore"):
            logs = np.log(y.astype(np.float64))
        z = (logs - raw.astype(np.float64)[:, None]) / self.scale
        return z[:, 0], z[:, 1]

    def _curves(self, z: Array) -> tuple[Array, Array, Array, Array]:
        """Distribution function, density and the density's two derivatives; 0 or 1 at infinite z."""
        with np.errstate(all="ignore"):
            if self.distribution == "normal":
                cdf = (1 + erf(z / np.sqrt(2))) / 2
                pdf = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
                first, second = -z * pdf, (z**2 - 1) * pdf
            elif self.distribution == "logistic":
                cdf, rest = expit(z), expit(-z)
                pdf = cdf * rest
                first, second = pdf * (rest - cdf), pdf * (1 - 6 * pdf)
            else:
                w = np.exp(z)
                cdf = -np.expm1(-w)
                pdf = w * np.exp(-w)
                first, second = (1 - w) * pdf, (w * w - 3 * w + 1) * pdf
        # Where the density has vanished, so have its derivatives; above they are 0 times infinity.
        return cdf, *(np.nan_to_num(curve, nan=0.0) for curve in (pdf, first, second))

    def _limits(self, y: Array, z_low: Array, z_high: Array, exact: Array) -> tuple[Array, Array]:
        """What the derivatives tend to where densities vanish, far below the event or far above it."""
        most, least, inverse = self._MOST, self._LEAST_HESSIAN, 1 / self.scale
        below, above = {
            "normal": ((-most, inverse**2), (most, inverse**2)),
            "logistic": ((-inverse, least), (inverse, least)),
            "extreme": ((-most, most), (inverse, least)),
        }[self.distribution]
        event_above = np.where(np.isfinite(z_high), z_high > 0, False) | (np.isfinite(z_low) & (z_low > 0))
        gradient = np.where(event_above, below[0], above[0])
        hessian = np.where(event_above, below[1], above[1])
        # A bound that is met at infinity asks for nothing more.
        met = ~exact & (
            (np.isinf(y[:, 1]) & ~event_above) | ((y[:, 0] <= 0) & np.isfinite(y[:, 1]) & event_above)
        )
        return np.where(met, 0.0, gradient), np.where(met, least, hessian)

    def initial_raw(self, y: Array, sample_weight: Array | None = None) -> float:
        """By Newton's method; rows whose bounds are 0 and infinity say nothing."""
        low = np.where(y[:, 0] > 0, y[:, 0], y[:, 1]).astype(np.float64)
        known = np.log(low[np.isfinite(low) & (low > 0)])
        if not len(known):
            return 0.0
        spread = 40 * self.scale
        return _root(
            lambda c: self.gradient(y, np.full(len(y), c)),
            float(known.min()) - spread,
            float(known.max()) + spread,
            sample_weight,
        )

    def inverse_link(self, raw: Array) -> Array:
        return _exp(raw)

    def check_y(self, y: Array) -> None:
        if y.ndim != 2 or y.shape[1] != 2:
            raise ValueError("y must have two columns, the lower and the upper bound, for the AFT loss")
        if not np.all((y[:, 0] >= 0) & (y[:, 1] >= y[:, 0]) & (y[:, 1] > 0) & np.isfinite(y[:, 0])):
            raise ValueError(
                "y must hold bounds 0 <= lower <= upper with a positive upper one for the AFT loss"
            )


def _root(gradient: Any, low: float, high: float, sample_weight: Array | None) -> float:
    """Where the weighted mean of an increasing function is zero, by bisection."""
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if np.average(gradient(middle), weights=sample_weight) < 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2
