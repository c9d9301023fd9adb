"""How good predictions of held-out rows are, and the leaderboard that this makes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Score:
    """One line of the leaderboard; scores are of rows that the estimator was not fitted on.

    Attributes
    ----------
    model : str
    scores : dict of str to float or None
        Means over the folds. The first decides: lower is better. None where no fold tells.
    spread : float
        Standard deviation of the deciding score over the folds.
    seconds : float
        Of all folds together.
    """

    model: str
    scores: dict[str, float | None]
    spread: float
    seconds: float


def score_of_folds(model: str, folds: list[dict[str, float]], seconds: float) -> Score:
    """The leaderboard's line from the scores of each fold."""
    means: dict[str, float | None] = {}
    for name in folds[0]:
        known = [fold[name] for fold in folds if not np.isnan(fold[name])]
        means[name] = float(np.mean(known)) if known else None
    deciding = [next(iter(fold.values())) for fold in folds]
    return Score(model, means, float(np.std(deciding, ddof=1)), seconds)


def deciding_score(scores: dict[str, float]) -> float:
    """What estimators are ranked by: the lower the better."""
    return next(iter(scores.values()))


def scores_of(
    n_classes: int | None, y: np.ndarray, predicted: np.ndarray, weight: np.ndarray | None
) -> dict[str, float]:
    """Scores of predictions; the first decides.

    Parameters
    ----------
    n_classes : int or None
        None in a regression.
    y : ndarray [n_rows]
        Class numbers or values.
    predicted : ndarray [n_rows, n_classes or 1]
        Probabilities or values.
    weight : ndarray [n_rows] or None

    Returns
    -------
    dict of str to float
        NaN where the rows do not tell, as with the area under the ROC curve of a single class.

    Examples
    --------
    >>> scores_of(None, np.array([1.0, 3.0]), np.array([[1.0], [2.0]]), None)
    {'rmse': 0.7071067811865476, 'mae': 0.5, 'r2': 0.5}
    """
    if n_classes is None:
        return _regression(y, predicted[:, 0], weight)
    return _classification(n_classes, y, predicted, weight)


def _regression(y: np.ndarray, values: np.ndarray, weight: np.ndarray | None) -> dict[str, float]:
    squares = np.average((y - values) ** 2, weights=weight)
    variance = np.average((y - np.average(y, weights=weight)) ** 2, weights=weight)
    return {
        "rmse": float(np.sqrt(squares)),
        "mae": float(np.average(np.abs(y - values), weights=weight)),
        "r2": float(1 - squares / variance) if variance > 0 else float("nan"),
    }


def _classification(
    n_classes: int, y: np.ndarray, predicted: np.ndarray, weight: np.ndarray | None
) -> dict[str, float]:
    from sklearn.metrics import roc_auc_score

    safe = np.clip(predicted, 1e-15, None)
    safe /= safe.sum(axis=1, keepdims=True)
    right = predicted.argmax(axis=1) == y
    truth = np.eye(n_classes)[y]
    w = np.ones(len(y)) if weight is None else weight
    present = [k for k in range(n_classes) if w[y == k].sum() > 0]
    areas = []
    if len(present) > 1:
        for k in [1] if n_classes == 2 else present:
            areas.append(roc_auc_score(y == k, predicted[:, k], sample_weight=weight))
    # Of two classes Brier's score counts each row once, as it is usually given.
    squares = ((predicted - truth) ** 2).sum(axis=1) / (2 if n_classes == 2 else 1)
    return {
        "log_loss": float(np.average(-np.log(safe[np.arange(len(y)), y]), weights=weight)),
        "accuracy": float(np.average(right, weights=weight)),
        "balanced_accuracy": float(np.mean([np.average(right[y == k], weights=w[y == k]) for k in present])),
        "roc_auc": float(np.mean(areas)) if areas else float("nan"),
        "brier": float(np.average(squares, weights=weight)),
    }
