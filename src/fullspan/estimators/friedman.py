"""What Friedman's gradient boosting does with a loss: first predictions, residuals, and the values of leaves.

J. Friedman, "Greedy function approximation: a gradient boosting machine", Annals of Statistics 29, 2001.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple, Self

import numpy as np
from scipy.special import logit
from scipy.stats import gmean
from sklearn.base import BaseEstimator
from sklearn.utils.stats import _weighted_percentile

from fullspan.estimators._gradient_boosting_kernels import (
    exponential_residuals,
    log_odds_residuals,
    multinomial_residuals,
)
from fullspan.estimators.losses import (
    AbsoluteError,
    Exponential,
    Huber,
    Logistic,
    Loss,
    Multinomial,
    Quantile,
    SquaredError,
)
from fullspan.estimators.saving import Saveable

_SURE = np.finfo(np.float64).eps  # no closer to 0 or 1 are first probabilities


def safe_ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Newton steps; none where the curvature has vanished."""
    flat = np.abs(denominator) < 1e-150
    with np.errstate(over="ignore"):
        ratio = np.where(flat, 0.0, numerator / np.where(flat, 1.0, denominator))
    if np.isinf(ratio).any():
        warnings.warn("overflow encountered in a leaf's Newton step", RuntimeWarning, stacklevel=4)
    return ratio


class Leaves(NamedTuple):
    """Rows that a tree was fitted to, and the leaves that they are in: arrays of shape (n_samples,)."""

    leaf: np.ndarray  # 0 to n_leaves - 1
    n_leaves: int
    y: np.ndarray  # of a multiclass loss, whether the row is of the tree's class
    residual: np.ndarray
    raw: np.ndarray  # scores before the tree
    weight: np.ndarray

    def lists(self) -> list[np.ndarray]:
        """The numbers of the rows in each leaf."""
        order = np.argsort(self.leaf, kind="stable")
        return np.split(order, np.cumsum(np.bincount(self.leaf, minlength=self.n_leaves))[:-1])

    def means(self, *values: np.ndarray) -> list[np.ndarray]:
        """Weighted means in each leaf, summed leaf by leaf as scikit-learn sums them."""
        rows = self.lists()
        return [np.array([np.average(each[r], weights=self.weight[r]) for r in rows]) for each in values]


class Objective:
    """A loss as boosting uses it; scores have a column for each tree of a stage: (n_samples, n_columns).

    Parameters
    ----------
    closs : Loss
        The loss itself.
    """

    is_multiclass = False
    score_factor = 1.0  # of the loss in `train_score_`

    def __init__(self, closs: Loss) -> None:
        self.closs = closs

    def __call__(self, y_true: np.ndarray, raw_prediction: np.ndarray, sample_weight: Any = None) -> float:
        """Weighted mean of the rows' losses."""
        if not self.is_multiclass:
            raw_prediction = raw_prediction.reshape(-1)
        return self.closs.loss(y_true, raw_prediction, sample_weight)

    def score(self, y: np.ndarray, raw: np.ndarray, weight: np.ndarray) -> float:
        """What `train_score_` and `oob_scores_` hold."""
        return self.score_factor * self(y, raw, weight)

    def first(self, predictions: np.ndarray) -> np.ndarray:
        """Scores from the initial estimator's predictions or probabilities."""
        return predictions.astype(np.float64).reshape(len(predictions), -1)

    def prepare(self, y: np.ndarray, raw: np.ndarray, weight: np.ndarray) -> None:
        """Look at a stage's rows before its residuals are asked for."""

    def residuals(self, y: np.ndarray, raw: np.ndarray) -> np.ndarray:
        """Negative gradients, which trees are fitted to: (n_samples, n_columns)."""
        return -self.closs.gradient(y, raw[:, 0])[:, None]

    def leaf_values(self, rows: Leaves) -> np.ndarray | None:
        """The step that lowers the loss most in each leaf; None if the tree's own means are that."""
        return None


class _Percentile(Objective):
    """Losses that a quantile of the differences minimises; the gradient where there is none is that below."""

    def __init__(self, closs: Loss, quantile: float, slopes: tuple[float, float]) -> None:
        super().__init__(closs)
        self.quantile, self.slopes = quantile, slopes

    def residuals(self, y: np.ndarray, raw: np.ndarray) -> np.ndarray:
        return np.where(y >= raw[:, 0], *self.slopes)[:, None]

    def leaf_values(self, rows: Leaves) -> np.ndarray | None:
        differences = rows.y - rows.raw
        return np.array([self._step(differences[inside], rows.weight[inside]) for inside in rows.lists()])

    def _step(self, differences: np.ndarray, weight: np.ndarray) -> float:
        return float(_weighted_percentile(differences, weight, 100 * self.quantile))


class _Huber(_Percentile):
    """The threshold is a quantile of the errors, found anew in every stage (algorithm 4)."""

    def __init__(self, quantile: float, delta: float) -> None:
        self.huber = Huber(delta)
        super().__init__(self.huber, 0.5, (0.0, 0.0))
        self.of_errors = quantile

    def prepare(self, y: np.ndarray, raw: np.ndarray, weight: np.ndarray) -> None:
        errors = np.abs(y - raw[:, 0])
        self.huber.delta = float(_weighted_percentile(errors, weight, 100 * self.of_errors))

    def residuals(self, y: np.ndarray, raw: np.ndarray) -> np.ndarray:
        return Objective.residuals(self, y, raw)

    def _step(self, differences: np.ndarray, weight: np.ndarray) -> float:
        median = super()._step(differences, weight)
        delta = self.huber.delta
        return float(median + np.average(np.clip(differences - median, -delta, delta), weights=weight))


class _Classes(Objective):
    """Losses of probabilities: leaves take one Newton step."""

    def first(self, predictions: np.ndarray) -> np.ndarray:
        sure = np.clip(predictions[:, 1], _SURE, 1 - _SURE).astype(np.float64)
        return np.asarray(logit(sure))[:, None]

    def predict_proba(self, raw: np.ndarray) -> np.ndarray:
        """Probabilities from scores."""
        second = self.closs.inverse_link(raw.reshape(-1))
        return np.column_stack([1 - second, second])

    def leaf_values(self, rows: Leaves) -> np.ndarray | None:
        probability = rows.y - rows.residual
        return safe_ratio(*rows.means(rows.residual, probability * (1 - probability)))


class _LogOdds(_Classes):
    score_factor = 2.0  # the deviance

    def residuals(self, y: np.ndarray, raw: np.ndarray) -> np.ndarray:
        residual = np.empty(len(y))
        log_odds_residuals(y, raw[:, 0], residual)
        return residual[:, None]


class _Exponential(_Classes):
    def first(self, predictions: np.ndarray) -> np.ndarray:
        return super().first(predictions) / 2

    def residuals(self, y: np.ndarray, raw: np.ndarray) -> np.ndarray:
        residual = np.empty(len(y))
        exponential_residuals(y, raw[:, 0], residual)
        return residual[:, None]

    def leaf_values(self, rows: Leaves) -> np.ndarray | None:
        # The residual of class 0 is minus its own curvature, that of class 1 is its curvature.
        curvature = np.where(rows.y == 0, -rows.residual, rows.residual)
        return safe_ratio(*rows.means(rows.residual, curvature))


class _Multinomial(_Classes):
    is_multiclass = True

    def __init__(self, n_classes: int) -> None:
        super().__init__(Multinomial(n_classes))
        self.n_classes = n_classes

    def first(self, predictions: np.ndarray) -> np.ndarray:
        shares = np.clip(predictions, _SURE, 1 - _SURE).astype(np.float64)
        return np.asarray(np.log(shares / gmean(shares, axis=1, keepdims=True)))

    def residuals(self, y: np.ndarray, raw: np.ndarray) -> np.ndarray:
        residual = np.empty_like(raw)
        multinomial_residuals(y, raw, residual)
        return residual

    def predict_proba(self, raw: np.ndarray) -> np.ndarray:
        return self.closs.inverse_link(raw)

    def leaf_values(self, rows: Leaves) -> np.ndarray | None:
        probability = rows.y - rows.residual
        numerator, curvature = rows.means(rows.residual, probability * (1 - probability))
        # The factor is that of algorithm 6.
        return safe_ratio(numerator * ((self.n_classes - 1) / self.n_classes), curvature)


class _Squared(Objective):
    score_factor = 2.0  # the mean squared error


def classification_objective(loss: str, n_classes: int) -> _Classes:
    """The objective of a classifier's `loss`."""
    if loss == "exponential":
        if n_classes > 2:
            raise ValueError(
                f"loss={loss!r} is only suitable for a binary classification problem, you have "
                f"n_classes={n_classes}. Please use loss='log_loss' instead."
            )
        return _Exponential(Exponential())
    return _LogOdds(Logistic()) if n_classes == 2 else _Multinomial(n_classes)


def regression_objective(loss: str, alpha: float, delta: float) -> Objective:
    """The objective of a regressor's `loss`; `delta` is Huber's threshold as last found."""
    if loss == "absolute_error":
        return _Percentile(AbsoluteError(), 0.5, (1.0, -1.0))
    if loss == "quantile":
        return _Percentile(Quantile(alpha), alpha, (alpha, alpha - 1))
    return _Huber(alpha, delta) if loss == "huber" else _Squared(SquaredError())


class Constant(Saveable, BaseEstimator):  # type: ignore[misc]
    """Predicts the same for every row: what boosting begins with if nothing else is asked for.

    Parameters
    ----------
    statistic : {"mean", "quantile", "prior"}
        "prior": the shares of the classes, whose codes are the targets.
    quantile : float
    """

    def __init__(self, statistic: str = "mean", quantile: float = 0.5) -> None:
        self.statistic = statistic
        self.quantile = quantile

    def fit(self, X: Any, y: np.ndarray, sample_weight: np.ndarray | None = None) -> Self:
        """Find the constant; it does not depend on X."""
        if self.statistic == "prior":
            counts = np.bincount(y.astype(np.int64), sample_weight)
            self.constant_: Any = counts / counts.sum()
        elif self.statistic == "mean":
            self.constant_ = float(np.average(y, weights=sample_weight))
        elif sample_weight is None:
            self.constant_ = float(np.percentile(y, 100 * self.quantile))
        else:
            self.constant_ = float(_weighted_percentile(y, sample_weight, 100 * self.quantile))
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The constant for each row."""
        return np.full(X.shape[0], self.constant_)

    def predict_proba(self, X: Any) -> np.ndarray:
        """The classes' shares for each row."""
        return np.tile(self.constant_, (X.shape[0], 1))
