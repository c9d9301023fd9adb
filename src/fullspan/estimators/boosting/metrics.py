"""Evaluation metrics under XGBoost's names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from fullspan.core.errors import did_you_mean
from fullspan.estimators import losses
from fullspan.estimators.boosting.auc import area, area_of_classes, area_of_queries
from fullspan.estimators.boosting.objective import Objective
from fullspan.estimators.boosting.objectives import RankObjective
from fullspan.estimators.boosting.ranking import RankingGroups, dcg

Array = NDArray[Any]

# Larger is better.
_MAXIMISED = ("auc", "aucpr", "map", "ndcg", "pre")


def is_maximised(name: str) -> bool:
    """Whether early stopping waits for the metric to rise."""
    return name.partition("@")[0].rstrip("-") in _MAXIMISED


def _rows(function: Callable[[Array, Array], Array]) -> Callable[..., float]:
    """The weighted mean, over rows and outputs, of a function of target and prediction."""

    def metric(objective: Objective, y: Array, prediction: Array, weight: Array | None) -> float:
        values = function(y.astype(np.float64), prediction.astype(np.float64))
        if values.ndim > 1:
            values = values.mean(axis=1)
        return float(np.average(values, weights=weight))

    return metric


def _log_loss(y: Array, p: Array) -> Array:
    low = 1e-16
    return np.asarray(-y * np.log(np.maximum(p, low)) - (1 - y) * np.log(np.maximum(1 - p, low)))


def _classes(y: Array, p: Array) -> Array:
    return np.asarray(-np.log(np.maximum(p[np.arange(len(p)), y[:, 0].astype(np.intp)], 1e-16)))


_ELEMENTWISE: dict[str, Callable[..., float]] = {
    "rmse": _rows(lambda y, p: (y - p) ** 2),
    "rmsle": _rows(lambda y, p: (np.log1p(y) - np.log1p(p)) ** 2),
    "mae": _rows(lambda y, p: np.abs(y - p)),
    "mape": _rows(lambda y, p: np.abs((y - p) / y)),
    "logloss": _rows(_log_loss),
    "mlogloss": _rows(_classes),
    "merror": _rows(lambda y, p: (p.argmax(axis=1) != y[:, 0]).astype(float)),
    "poisson-nloglik": _rows(
        lambda y, p: gammaln(y + 1) + np.maximum(p, 1e-16) - np.log(np.maximum(p, 1e-16)) * y
    ),
    "gamma-nloglik": _rows(lambda y, p: y / np.maximum(p, 1e-6) + np.log(np.maximum(p, 1e-6))),
    "gamma-deviance": _rows(lambda y, p: 2 * (np.log((p + 1e-6) / (y + 1e-6)) + (y + 1e-6) / (p + 1e-6) - 1)),
}
_SQUARE_ROOTS = ("rmse", "rmsle")


def _error(y: Array, p: Array, threshold: float, weight: Array | None) -> float:
    return float(np.average(np.mean((p > threshold) != (y > 0.5), axis=1), weights=weight))


def _tweedie(y: Array, p: Array, power: float) -> Array:
    p = np.maximum(p, np.finfo(np.float64).tiny)
    return np.asarray(p ** (2 - power) / (2 - power) - y * p ** (1 - power) / (1 - power))


def _auc(y: Array, p: Array, weight: Array | None, groups: RankingGroups | None, kind: str) -> float:
    if groups is not None:
        return area_of_queries(y[:, 0], p[:, 0], groups, kind == "aucpr")
    if p.shape[1] > 1 and y.shape[1] == 1:
        return area_of_classes(y[:, 0], p, weight, kind == "aucpr")
    if y.shape[1] == 1:
        return area(y[:, 0], p[:, 0], weight, kind == "aucpr")
    return float(np.mean([area(y[:, k], p[:, k], weight, kind == "aucpr") for k in range(y.shape[1])]))


def _ranking(
    name: str, most: int | None, empty: float, y: Array, score: Array, groups: RankingGroups,
    weight: Array | None, exponential: bool,
) -> float:  # fmt: skip
    values = np.full(groups.n_groups, empty)
    for k in range(groups.n_groups):
        rows = slice(int(groups.start[k]), int(groups.start[k + 1]))
        relevance = y[rows, 0].astype(np.float64)
        ranked = relevance[np.argsort(-score[rows, 0], kind="stable")]
        cut = len(ranked) if most is None else most
        if name == "ndcg":
            gain = np.exp2(ranked) - 1 if exponential else ranked
            ideal = dcg(np.sort(gain)[::-1], cut)
            if ideal > 0:
                values[k] = dcg(gain, cut) / ideal
        elif name == "pre":
            values[k] = ranked[:cut].sum() / cut
        elif ranked.sum() > 0:
            hits = np.cumsum(ranked)[:cut]
            head = ranked[:cut]
            values[k] = np.sum(hits / np.arange(1, len(hits) + 1) * head) / min(ranked.sum(), cut)
    return float(np.average(values, weights=weight))


def check_metric(name: str) -> None:
    """Refuse a metric that does not exist.

    Raises
    ------
    ValueError
        The message suggests the nearest name.
    """
    known = [*_ELEMENTWISE, "error", "auc", "aucpr", "quantile", "mphe", "tweedie-nloglik", "cox-nloglik",
             "aft-nloglik", "ndcg", "map", "pre"]  # fmt: skip
    if name.partition("@")[0].rstrip("-") not in known and name not in known:
        raise ValueError(f"eval_metric {name!r} is unknown: {did_you_mean(name, known)}")


def evaluate(
    name: str,
    objective: Objective,
    y: Array,
    margin: Array,
    weight: Array | None,
    groups: RankingGroups | None = None,
) -> float:
    """The metric of that name.

    Parameters
    ----------
    name : str
        With its parameter, such as "ndcg@5" or "error@0.7".
    y, margin : float32 array of shape (n_samples, n_outputs)
    weight : array of shape (n_samples,), or (n_groups,) for ranking, optional
    """
    base, _, parameter = name.partition("@")
    if objective.name.startswith("multi:"):
        prediction = objective.loss.inverse_link(margin)
    else:
        prediction = objective.prediction(margin)
    parameters = objective.parameters
    if base in _ELEMENTWISE:
        value = _ELEMENTWISE[base](objective, y, prediction, weight)
        return float(np.sqrt(value)) if base in _SQUARE_ROOTS else value
    match base.rstrip("-"):
        case "error":
            return _error(y, prediction, float(parameter or 0.5), weight)
        case "auc" | "aucpr":
            return _auc(y, prediction, weight, groups, base)
        case "quantile":
            alphas = parameters["quantile_alpha"]
            columns = [losses.Quantile(a).pointwise(y[:, 0], prediction[:, k]) for k, a in enumerate(alphas)]
            return float(np.average(np.mean(columns, axis=0), weights=weight))
        case "mphe":
            loss = losses.PseudoHuber(parameters.get("huber_slope", 1.0))
            return loss.loss(y[:, 0], prediction[:, 0], weight)
        case "tweedie-nloglik":
            return float(
                np.average(_tweedie(y[:, 0], prediction[:, 0], float(parameter or 1.5)), weights=weight)
            )
        case "cox-nloglik":
            terms = losses.Cox().pointwise(y[:, 0], margin[:, 0])
            return float(terms.sum() / max((y > 0).sum(), 1))
        case "aft-nloglik":
            return objective.loss.loss(y, margin[:, 0], weight)
    everything = groups or RankingGroups(np.array([0, len(y)]))
    exponential = not isinstance(objective, RankObjective) or objective.parameters["ndcg_exp_gain"]
    cut = parameter.rstrip("-")
    empty = 0.0 if name.endswith("-") else 1.0
    return _ranking(
        base.rstrip("-"), int(cut) if cut else None, empty, y, margin, everything, weight, exponential
    )
