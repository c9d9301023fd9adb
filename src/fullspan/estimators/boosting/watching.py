"""What happens around the rounds of a fit: metrics, callbacks, custom objectives."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullspan.estimators.boosting._data import Rows
from fullspan.estimators.boosting.callback import EarlyStopping, EvalsLog, EvaluationMonitor
from fullspan.estimators.boosting.metrics import check_metric, evaluate
from fullspan.estimators.boosting.objective import Objective

Array = NDArray[Any]


class Watch:
    """Metrics of the evaluation sets, and callbacks, which end the fit when one returns True.

    Parameters
    ----------
    callbacks : list
        With some of the methods of `TrainingCallback`.
    evals : list of Rows
    metrics : list of str or callable
    objective : Objective
    raw : bool
        Whether metrics of the user's own are given raw scores, as they are beside a custom objective.
    """

    def __init__(
        self,
        callbacks: Sequence[Any],
        evals: list[Rows],
        metrics: list[Any],
        objective: Objective,
        raw: bool,
    ) -> None:
        self.callbacks = list(callbacks)
        self.evals, self.metrics, self.objective, self.raw = evals, metrics, objective, raw
        self.log: EvalsLog = {}
        self.round = 0

    def before_training(self, model: Any) -> None:
        for callback in self.callbacks:
            if hasattr(callback, "before_training"):
                callback.before_training(model)

    def before_round(self, model: Any) -> bool:
        """Whether to stop."""
        return any(
            callback.before_iteration(model, self.round, self.log)
            for callback in self.callbacks
            if hasattr(callback, "before_iteration")
        )

    def after_round(self, model: Any) -> bool:
        """Whether to stop."""
        for one in self.evals:
            for metric in self.metrics:
                name = metric if isinstance(metric, str) else metric.__name__
                value = score_of(metric, self.objective, one, self.raw)
                self.log.setdefault(one.name, {}).setdefault(name, []).append(value)
        stop = any(
            callback.after_iteration(model, self.round, self.log)
            for callback in self.callbacks
            if hasattr(callback, "after_iteration")
        )
        self.round += 1
        return stop

    def after_training(self, model: Any) -> Any:
        """The model that is kept."""
        for callback in self.callbacks:
            if hasattr(callback, "after_training"):
                kept = callback.after_training(model)
                model = model if kept is None else kept
        return model


def callbacks_of(
    given: Sequence[Any] | None, patience: int | None, verbose: bool | int | None, quiet: bool
) -> list[Any]:
    """A user's callbacks, and those that stand for `early_stopping_rounds` and `verbose`."""
    out = list(given or [])
    if verbose and not quiet:
        out.append(EvaluationMonitor(period=max(int(verbose), 1)))
    if patience is not None:
        out.append(EarlyStopping(patience))
    return out


def metrics_of(given: Any, default: str | None) -> list[Any]:
    """`eval_metric` as a list, a metric of the user's own last.

    Raises
    ------
    TypeError
        If one is neither a name nor callable.
    NotImplementedError
        If there are several callables.
    ValueError
        If a name is unknown.
    """
    if given is None:
        return [] if default is None else [default]
    metrics = [given] if isinstance(given, str) or callable(given) else list(given)
    for metric in metrics:
        if isinstance(metric, str):
            check_metric(metric)
        elif not callable(metric):
            raise TypeError(f"Invalid type for the `eval_metric`: {type(metric)}")
    own = [metric for metric in metrics if callable(metric)]
    if len(own) > 1:
        raise NotImplementedError("Using multiple custom metrics is not yet supported.")
    return [metric for metric in metrics if not callable(metric)] + own


def score_of(metric: Any, objective: Objective, rows: Rows, raw: bool) -> float:
    """A metric, by name or of the user's own, of rows with their margins, which it is given where `raw`."""
    if isinstance(metric, str):
        return evaluate(metric, objective, rows.y, rows.margin, rows.weight, rows.groups)
    prediction = rows.margin if raw else objective.prediction(rows.margin)
    prediction = prediction[:, 0] if prediction.shape[1] == 1 else prediction
    y = rows.y[:, 0] if rows.y.shape[1] == 1 else rows.y
    if rows.groups is not None:
        return _mean_of_queries(metric, y, prediction, rows)
    extra = {} if rows.weight is None else {"sample_weight": rows.weight}
    return float(metric(y, prediction, **extra))


def _mean_of_queries(metric: Any, y: Array, prediction: Array, rows: Rows) -> float:
    """The weighted mean of the metric of each query; one with a single row is in the best order."""
    assert rows.groups is not None
    values = [
        metric(y[a:b], prediction[a:b]) if b - a > 1 else 1.0
        for a, b in itertools.pairwise(rows.groups.start)
    ]
    return float(np.average(values, weights=rows.weight))


def custom_gradients(
    objective: Callable[..., Any],
) -> Callable[[Array, Array, Array | None], tuple[Array, Array]]:
    """A user's ``(y_true, y_pred[, sample_weight]) -> (grad, hess)`` on raw scores, as columns."""

    def gradients(y: Array, margin: Array, weight: Array | None) -> tuple[Array, Array]:
        target = y[:, 0] if y.shape[1] == 1 else y
        raw = margin[:, 0] if margin.shape[1] == 1 else margin
        if weight is None:
            g, h = objective(target, raw)
        else:
            try:
                g, h = objective(target, raw, sample_weight=weight)
            except TypeError as error:
                if "sample_weight" not in str(error):
                    raise
                g, h = (np.asarray(d).reshape(margin.shape) * weight[:, None] for d in objective(target, raw))
        g = np.asarray(g, np.float32).reshape(margin.shape)
        h = np.asarray(h, np.float32).reshape(margin.shape)
        if not (np.isfinite(g).all() and np.isfinite(h).all()):
            raise ValueError("objective returned gradients or hessians that are not finite")
        return g, h

    return gradients
