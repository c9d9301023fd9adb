"""Losses of times until an event, some of which are only known to lie between bounds."""

from __future__ import annotations

import numpy as np
from scipy.special import erf, expit

from fullspan.estimators.losses.base import Array, Loss, bounded_exp, root_of


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
        return bounded_exp(raw)

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
        return root_of(
            lambda c: self.gradient(y, np.full(len(y), c)),
            float(known.min()) - spread,
            float(known.max()) + spread,
            sample_weight,
        )

    def inverse_link(self, raw: Array) -> Array:
        return bounded_exp(raw)

    def check_y(self, y: Array) -> None:
        if y.ndim != 2 or y.shape[1] != 2:
            raise ValueError("y must have two columns, the lower and the upper bound, for the AFT loss")
        if not np.all((y[:, 0] >= 0) & (y[:, 1] >= y[:, 0]) & (y[:, 1] > 0) & np.isfinite(y[:, 0])):
            raise ValueError(
                "y must hold bounds 0 <= lower <= upper with a positive upper one for the AFT loss"
            )
