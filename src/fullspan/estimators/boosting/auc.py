"""Areas under the ROC and the precision-recall curve, as XGBoost takes them of classes and queries."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullspan.estimators.boosting.ranking import RankingGroups

Array = NDArray[Any]


def area(y: Array, score: Array, weight: Array | None, precision_recall: bool) -> float:
    """The area under one curve; y holds 0 and 1 or shares between them. NaN where one of them is missing.

    The precision-recall curve is not linear between its points.

    References
    ----------
    J. Davis, M. Goadrich, "The relationship between precision-recall and ROC curves", ICML 2006.
    """
    order = np.argsort(-score, kind="stable")
    ordered = score[order]
    ends = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(order) - 1)
    w = np.ones(len(y)) if weight is None else weight.astype(np.float64)
    positive = np.cumsum((w * y)[order])[ends]
    negative = np.cumsum((w * (1 - y))[order])[ends]
    if positive[-1] <= 0 or negative[-1] <= 0:
        return float("nan")
    tp, fp = np.append(0.0, positive), np.append(0.0, negative)
    if not precision_recall:
        return float(np.sum(np.diff(fp) * (tp[1:] + tp[:-1]) / 2) / (tp[-1] * fp[-1]))
    recall, rise = tp / tp[-1], np.diff(tp)
    level = rise == 0
    h = np.divide(np.diff(fp), rise, out=np.zeros_like(rise), where=~level)
    a, b = 1 + h, np.where(level, 0.0, (fp[:-1] - h * tp[:-1]) / tp[-1])
    with np.errstate(divide="ignore", invalid="ignore"):
        bend = b / a * (np.log(a * recall[1:] + b) - np.log(a * recall[:-1] + b))
    return float(np.sum((np.diff(recall) - np.where(b == 0, 0.0, bend)) / a))


def area_of_classes(y: Array, scores: Array, weight: Array | None, precision_recall: bool) -> float:
    """Each class against the rest, weighed by how much there is of it (precision-recall: evenly)."""
    found, shares = [], []
    for k in range(scores.shape[1]):
        mine = (y == k).astype(np.float64)
        found.append(area(mine, scores[:, k], weight, precision_recall))
        shares.append(1.0 if precision_recall else float(np.sum(mine if weight is None else mine * weight)))
    return float(np.average(found, weights=shares)) if sum(shares) > 0 else float("nan")


def area_of_queries(y: Array, score: Array, groups: RankingGroups, precision_recall: bool) -> float:
    """The mean over the queries for which it is defined."""
    found = []
    for first, last in itertools.pairwise(groups.start):
        own, ours = y[first:last], score[first:last]
        if precision_recall:
            found.append(area(own, ours, None, True))
        elif last - first > 2:
            found.append(_ordered_pairs(own, ours))
    found = [value for value in found if not np.isnan(value)]
    return float(np.mean(found)) if found else float("nan")


def _ordered_pairs(y: Array, score: Array) -> float:
    """The share of pairs of rows, by falling relevance, that the scores put into this order."""
    ours = score[np.argsort(-y, kind="stable")]
    first, second = np.triu_indices(len(ours), 1)
    return float(np.mean((ours[first] > ours[second]) + 0.5 * (ours[first] == ours[second])))
