"""Callbacks: objects whose methods boosting calls before and after each round.

They go into ``callbacks=[...]`` of the boosting estimators. What they are given as `model` is a `Booster`
that grows while it is fitted; `evals_log` is ``{"validation_0": {"rmse": [...]}}``.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fullspan.estimators.boosting.metrics import is_maximised

EvalsLog = dict[str, dict[str, list[float]]]


class TrainingCallback:
    """A callback that does nothing: override what you need.

    Examples
    --------
    >>> import numpy as np
    >>> from fullspan.estimators import XGBRegressor
    >>> class StopAfterThree(TrainingCallback):
    ...     def after_iteration(self, model, epoch, evals_log):
    ...         return epoch == 2
    >>> X = np.arange(20.0)[:, None]
    >>> model = XGBRegressor(n_estimators=10, callbacks=[StopAfterThree()]).fit(X, X[:, 0])
    >>> model.get_booster().num_boosted_rounds()
    3
    """

    def before_training(self, model: Any) -> Any:
        """Called once, before the first round; returns the model."""
        return model

    def after_training(self, model: Any) -> Any:
        """Called once, after the last round; returns the model that is kept."""
        return model

    def before_iteration(self, model: Any, epoch: int, evals_log: EvalsLog) -> bool:
        """Called before each round; True ends the fit."""
        return False

    def after_iteration(self, model: Any, epoch: int, evals_log: EvalsLog) -> bool:
        """Called after each round; True ends the fit."""
        return False


class LearningRateScheduler(TrainingCallback):
    """Changes the learning rate after each round.

    Parameters
    ----------
    learning_rates : callable or sequence of float
        The learning rate after round `epoch`: ``learning_rates(epoch)`` or ``learning_rates[epoch]``.

    Raises
    ------
    TypeError
        If it is neither.

    Examples
    --------
    >>> import numpy as np
    >>> from fullspan.estimators import XGBRegressor
    >>> X = np.arange(20.0)[:, None]
    >>> model = XGBRegressor(n_estimators=3, callbacks=[LearningRateScheduler([1.0, 0.0, 0.0])])
    >>> booster = model.fit(X, X[:, 0]).get_booster()  # its last two trees add nothing
    >>> bool((booster.predict(X) == booster[:2].predict(X)).all())
    True
    """

    def __init__(self, learning_rates: Callable[[int], float] | Sequence[float]) -> None:
        if not callable(learning_rates) and not isinstance(learning_rates, Sequence):
            raise TypeError(
                f"learning_rates must be callable or a sequence, got a {type(learning_rates).__name__}"
            )
        self.learning_rates = learning_rates

    def after_iteration(self, model: Any, epoch: int, evals_log: EvalsLog) -> bool:
        rates = self.learning_rates
        model.set_param("learning_rate", rates(epoch) if callable(rates) else rates[epoch])
        return False


class EarlyStopping(TrainingCallback):
    """Ends the fit when a metric has not become better for some rounds.

    The model's attributes `best_iteration` and `best_score` say when it was at its best.

    Parameters
    ----------
    rounds : int
        How many rounds to wait.
    metric_name, data_name : str, optional
        Which metric of which set of `eval_set` ("validation_0" is the first) decides; the last by default.
    maximize : bool, optional
        Whether larger is better; by default as is right for XGBoost's metrics, smaller for others.
    save_best : bool, default=False
        Keep the rounds up to the best one only.
    min_delta : float, default=0.0
        Changes that are not larger do not count.

    Raises
    ------
    ValueError
        If `min_delta` is negative; while fitting, if there is no such set or metric, or with `save_best` if
        the booster is "gblinear".

    Examples
    --------
    >>> import numpy as np
    >>> from fullspan.estimators import XGBRegressor
    >>> X = np.arange(20.0)[:, None]
    >>> model = XGBRegressor(n_estimators=50, callbacks=[EarlyStopping(rounds=2, save_best=True)])
    >>> _ = model.fit(X, X[:, 0], eval_set=[(X, -X[:, 0])], verbose=False)  # each round is worse there
    >>> model.best_iteration, model.get_booster().num_boosted_rounds()
    (0, 1)
    """

    def __init__(
        self,
        rounds: int,
        *,
        metric_name: str | None = None,
        data_name: str | None = None,
        maximize: bool | None = None,
        save_best: bool = False,
        min_delta: float = 0.0,
    ) -> None:
        if min_delta < 0:
            raise ValueError(f"min_delta must be greater or equal to 0, got {min_delta}")
        self.rounds, self.metric_name, self.data_name = rounds, metric_name, data_name
        self.maximize, self.save_best, self.min_delta = maximize, save_best, min_delta
        self.stopping_history: EvalsLog = {}
        self.best_scores: EvalsLog = {}
        self.current_rounds = 0
        self.starting_round = 0

    def before_training(self, model: Any) -> Any:
        self.starting_round = model.num_boosted_rounds()
        return model

    def after_iteration(self, model: Any, epoch: int, evals_log: EvalsLog) -> bool:
        if not evals_log:
            raise ValueError("Must have at least 1 validation dataset for early stopping.")
        data = self.data_name or list(evals_log)[-1]
        if data not in evals_log:
            raise ValueError(f"No dataset named: {data}")
        metric = self.metric_name or list(evals_log[data])[-1]
        if metric not in evals_log[data]:
            raise ValueError(f"No metric named: {metric}")
        score = evals_log[data][metric][-1]
        if self.maximize is None:
            self.maximize = is_maximised(metric)
        history = self.stopping_history.setdefault(data, {}).setdefault(metric, [])
        best = self.best_scores.setdefault(data, {}).setdefault(metric, [])
        history.append(score)
        if not best or self._is_better(score, best[-1]):
            best.append(score)
            self.current_rounds = 0
            model.set_attr(best_score=repr(float(score)), best_iteration=str(epoch + self.starting_round))
        else:
            self.current_rounds += 1
        return self.current_rounds >= self.rounds

    def _is_better(self, score: float, best: float) -> bool:
        return score - self.min_delta > best if self.maximize else best - self.min_delta > score

    def after_training(self, model: Any) -> Any:
        if not self.save_best:
            return model
        kept = model[: model.best_iteration + 1]
        kept.best_iteration, kept.best_score = model.best_iteration, model.best_score
        return kept


class EvaluationMonitor(TrainingCallback):
    """Prints the metrics after each round, or each so many.

    Parameters
    ----------
    rank : int
        For xgboost's sake: 0 prints, others do not.
    period : int, default=1
        Rounds between two lines. The last round is printed too.
    show_stdv : bool
        For xgboost's sake, whose cross-validation it is for.
    logger : callable, default=print
        Takes a line.

    Raises
    ------
    ValueError
        If `period` is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> from fullspan.estimators import XGBRegressor
    >>> X, lines = np.arange(20.0)[:, None], []
    >>> model = XGBRegressor(n_estimators=3, callbacks=[EvaluationMonitor(period=2, logger=lines.append)])
    >>> _ = model.fit(X, X[:, 0], eval_set=[(X, X[:, 0])], verbose=False)
    >>> [line.split("-rmse")[0] for line in lines]
    ['[0]\\tvalidation_0', '[2]\\tvalidation_0']
    """

    def __init__(
        self,
        rank: int = 0,
        period: int = 1,
        show_stdv: bool = False,
        logger: Callable[[str], Any] = print,
    ) -> None:
        if period < 1:
            raise ValueError(f"period must be positive, got {period}")
        self.rank, self.period, self.show_stdv, self.logger = rank, period, show_stdv, logger
        self._skipped: str | None = None

    def after_iteration(self, model: Any, epoch: int, evals_log: EvalsLog) -> bool:
        if not evals_log or self.rank != 0:
            return False
        parts = [f"{n}-{m}:{log[-1]:.5f}" for n, metrics in evals_log.items() for m, log in metrics.items()]
        line = "\t".join([f"[{epoch}]", *parts])
        if epoch % self.period == 0:
            self.logger(line)
            self._skipped = None
        else:
            self._skipped = line
        return False

    def after_training(self, model: Any) -> Any:
        if self._skipped is not None:
            self.logger(self._skipped)
        return model


class TrainingCheckPoint(TrainingCallback):
    """Writes the model every so many rounds.

    Parameters
    ----------
    directory : path-like
    name : str, default="model"
        Files are called ``<name>_<round>.ubj``.
    as_pickle : bool, default=False
        Pickle the `Booster`, parameters and all, to ``<name>_<round>.pkl`` instead.
    interval : int, default=100
        Rounds between two files.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from fullspan.estimators import XGBRegressor
    >>> X = np.arange(20.0)[:, None]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model = XGBRegressor(n_estimators=5, callbacks=[TrainingCheckPoint(folder, interval=2)])
    ...     _ = model.fit(X, X[:, 0])
    ...     sorted(os.listdir(folder))
    ['model_2.ubj', 'model_4.ubj']
    """

    default_format = "ubj"

    def __init__(
        self, directory: Path | str, name: str = "model", as_pickle: bool = False, interval: int = 100
    ) -> None:
        self.directory, self.name, self.interval = Path(directory), name, interval
        self.as_pickle = as_pickle
        self._start = self._waited = 0

    def before_training(self, model: Any) -> Any:
        self._start = model.num_boosted_rounds()
        return model

    def after_iteration(self, model: Any, epoch: int, evals_log: EvalsLog) -> bool:
        if self._waited == self.interval:
            extension = "pkl" if self.as_pickle else self.default_format
            path = self.directory / f"{self.name}_{epoch + self._start}.{extension}"
            if self.as_pickle:
                path.write_bytes(pickle.dumps(model.copy()))
            else:
                model.save_model(path)
            self._waited = 0
        self._waited += 1
        return False
