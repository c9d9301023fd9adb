"""How XGBClassifier, XGBRegressor and XGBRanker are fitted."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import _check_sample_weight, check_array, check_is_fitted

from fullspan.estimators.boosting import xgboost_reader
from fullspan.estimators.boosting._data import Rows, categorical_mask, features_of, margin_array
from fullspan.estimators.boosting.booster import Booster
from fullspan.estimators.boosting.booster_descriptions import Model
from fullspan.estimators.boosting.ensemble import TreeEnsemble
from fullspan.estimators.boosting.linear import LinearModel
from fullspan.estimators.boosting.objective import Objective
from fullspan.estimators.boosting.objectives import OBJECTIVES, RankObjective, make_objective
from fullspan.estimators.boosting.ranking import RankingGroups
from fullspan.estimators.boosting.settings import settings_of
from fullspan.estimators.boosting.training import Training
from fullspan.estimators.boosting.tree_booster import TreeBooster
from fullspan.estimators.boosting.watching import Watch, callbacks_of, custom_gradients, metrics_of
from fullspan.estimators.boosting.xgb_parameters import XGBParameters
from fullspan.estimators.boosting.xgboost_format import Content

Array = NDArray[Any]


class XGBFit(XGBParameters):
    """Fitting."""

    _default_objective = "reg:squarederror"
    n_features_in_: int
    _Booster: Booster

    # --- what the estimators differ in ------------------------------------------------------------------

    def _target(self, y: Any, reset: bool) -> Array:
        """y as float32 [n, n_columns]; with `reset`, what predictions need to know of it is kept."""
        y = check_array(y, ensure_2d=False, dtype=np.float32, input_name="y", ensure_all_finite=False)
        if y.ndim == 1:
            y = y[:, None]
        finite = np.isfinite(y)
        if self._objective_name() == "survival:aft":
            finite[:, 1:] |= np.isposinf(y[:, 1:])
        if not finite.all():
            raise ValueError(
                "Input y contains NaN or infinity or a value too large for dtype('float32'). "
                "(contains NaN, infinity or a value too large)"
            )
        return np.asarray(y)

    def _objective_name(self) -> str:
        given = self.objective
        return self._default_objective if callable(given) or given is None else given

    def _n_outputs(self, y: Array) -> int:
        name = self._objective_name()
        if name.startswith("multi:"):
            n_classes = getattr(self, "kwargs", {}).get("num_class")
            return int(y.max(initial=1)) + 1 if n_classes is None else int(n_classes)
        return 1 if name == "survival:aft" else int(y.shape[1])

    # --- fitting ----------------------------------------------------------------------------------------

    def _fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        base_margin: Any,
        eval_set: Sequence[tuple[Any, Any]] | None,
        verbose: bool | int | None,
        xgb_model: Any,
        sample_weight_eval_set: Sequence[Any] | None,
        base_margin_eval_set: Sequence[Any] | None,
        feature_weights: Any,
        groups: list[RankingGroups] | None = None,
    ) -> Self:
        e = self._effective()
        if y is None:
            raise ValueError(
                f"This {type(self).__name__} estimator requires y to be passed, but the target y is None. "
                "(Invalid classes: there are no labels.)"
            )
        start = None if xgb_model is None else _content_of(xgb_model)
        known = None if start is None else start.categories
        rows = self._rows(
            e, X, y, sample_weight, base_margin, groups[0] if groups else None, reset=True, known=known
        )
        e.feature_weights = self._feature_weights(feature_weights)
        settings = settings_of(e, self.n_features_in_, self._columns[0])
        self._refuse_ordered_categories(settings.config.monotone)
        objective = make_objective(self._objective_name(), self._n_outputs(rows.y), _own_parameters(e))
        if isinstance(objective, RankObjective):
            objective.groups = rows.groups
        objective.check_y(rows.y if objective.name == "survival:aft" else rows.y.ravel())
        evals = self._evals(e, eval_set, sample_weight_eval_set, base_margin_eval_set, groups)
        silent = e.kwargs.get("disable_default_eval_metric", False)
        metrics = metrics_of(e.eval_metric, None if silent else objective.default_metric)
        watch = Watch(
            callbacks_of(e.callbacks, e.early_stopping_rounds, verbose if evals else False, e.verbosity == 0),
            evals,
            metrics,
            objective,
            callable(e.objective),
        )
        model = None if start is None else self._model_to_go_on_from(e, start.model, objective)
        base = self._base_margins(e, objective, rows) if model is None else model.base_score
        names, kinds = self._columns
        types = list(e.feature_types) if e.feature_types is not None else kinds
        texts = {} if start is None else _without_best(start.texts)
        content = Content(model, objective, settings.n_parallel, names, types, self._categories, texts)
        booster = Booster.of(content, plain_parameters(self))
        custom = custom_gradients(e.objective) if callable(e.objective) else None
        with ExitStack() as stack:  # ends the threads, also when a callback raises
            training = Training(settings, objective, rows, evals, base, model, e.weak_learner, custom, stack)
            self._Booster = _boosted(booster, training, watch, settings.n_rounds)
        self.evals_result_ = watch.log
        if isinstance(objective, RankObjective):
            objective.groups = None
        return self

    def _refuse_ordered_categories(self, monotone: tuple[int, ...] | None) -> None:
        columns = np.flatnonzero(monotone or ())
        if self._is_categorical[columns].any():
            column = columns[self._is_categorical[columns]][0]
            raise ValueError(f"monotone_constraints names column {column}, which holds categories")

    def _feature_weights(self, given: Any) -> Array | None:
        if given is not None:
            if self.feature_weights is not None:
                raise ValueError(
                    "2 different `feature_weights` are provided. Use the one in constructor or `set_params` "
                    "instead."
                )
            warnings.warn(
                "`feature_weights` in `fit` is deprecated, use it in the constructor or `set_params`.",
                UserWarning,
                stacklevel=4,
            )
        weights = self.feature_weights if given is None else given
        if weights is None:
            return None
        weights = np.asarray(weights, dtype=np.float64).ravel()
        if weights.shape != (self.n_features_in_,):
            raise ValueError(f"feature_weights has shape {weights.shape}, expected ({self.n_features_in_},)")
        if not np.isfinite(weights).all() or np.any(weights < 0) or not np.any(weights > 0):
            raise ValueError("feature_weights must be finite and not negative, and one of them positive")
        return weights

    def _rows(
        self,
        e: Any,
        X: Any,
        y: Any,
        weight: Any,
        base_margin: Any,
        groups: RankingGroups | None,
        *,
        reset: bool,
        name: str = "",
        known: dict[int, Array] | None = None,
    ) -> Rows:
        features = features_of(
            self,
            X,
            reset=reset,
            missing=float(self.missing),
            enable_categorical=self.enable_categorical,
            known=known,
        )
        target = self._target(y, reset)
        if len(target) != features.shape[0]:
            raise ValueError(
                "Found input variables with inconsistent numbers of samples: "
                f"{[features.shape[0], len(target)]}"
            )
        if weight is not None:
            if groups is not None:
                weight = np.asarray(weight, dtype=np.float32).ravel()
                if len(weight) != groups.n_groups:
                    raise ValueError(
                        f"sample_weight has {len(weight)} entries, their number must be equal to the number "
                        f"of query groups, {groups.n_groups}"
                    )
                if np.any(weight < 0):
                    raise ValueError("Negative values in data passed to `sample_weight`")
            else:
                column = np.asarray(weight)
                weight = column.ravel() if column.shape[1:] == (1,) else weight
                weight = _check_sample_weight(weight, features, dtype=np.float32, ensure_non_negative=True)
        if weight is not None and not np.any(weight > 0):
            raise ValueError("sample_weight has no positive entry")
        if base_margin is not None:
            base_margin = margin_array(base_margin, features.shape[0])
        mask = None
        if reset:
            mask = categorical_mask(self, features, e.feature_types, self.enable_categorical)
            if mask.any() and e.tree_method == "exact":
                raise ValueError("tree_method='exact' takes no categories: use 'hist' or 'approx'")
            if mask.any() and e.booster == "gblinear":
                raise ValueError("booster='gblinear' takes no categories")
            self._is_categorical = mask
        return Rows(features, target, weight, base_margin, groups, mask, name)

    def _evals(
        self,
        e: Any,
        eval_set: Sequence[tuple[Any, Any]] | None,
        weights: Sequence[Any] | None,
        margins: Sequence[Any] | None,
        groups: list[RankingGroups] | None,
    ) -> list[Rows]:
        eval_set = eval_set or []
        for name, given in (("sample_weight_eval_set", weights), ("base_margin_eval_set", margins)):
            if given is not None and len(given) != len(eval_set):
                raise ValueError(f"{name} has {len(given)} entries, eval_set has {len(eval_set)}")
        if groups is not None and len(groups) != len(eval_set) + 1:
            raise ValueError("eval_qid or eval_group must say the queries of every set in eval_set")
        return [
            self._rows(
                e,
                X,
                y,
                weights[i] if weights else None,
                margins[i] if margins else None,
                groups[i + 1] if groups else None,
                reset=False,
                name=f"validation_{i}",
            )
            for i, (X, y) in enumerate(eval_set)
        ]

    def _base_margins(self, e: Any, objective: Objective, rows: Rows) -> NDArray[np.float64]:
        """Where all margins start: given or estimated, but with a custom objective XGBoost's 0.5."""
        if callable(e.objective) and e.base_score is None:
            half = np.full(objective.n_outputs, 0.5, dtype=np.float32)
            return objective.to_margin(half).astype(np.float64)
        if e.base_score is not None:
            given = np.atleast_1d(np.asarray(e.base_score, dtype=np.float32))
            if len(given) not in (1, objective.n_outputs):
                raise ValueError(f"base_score has {len(given)} entries, expected {objective.n_outputs}")
            base = np.broadcast_to(given, objective.n_outputs).copy()
        else:
            base = np.atleast_1d(objective.base_score(rows.y, rows.weight))
        margins = objective.to_margin(base.astype(np.float32)).astype(np.float64)
        # The biases of linear models take up the rest, as in XGBoost, whose files mean it so.
        return np.full_like(margins, margins[0]) if e.booster == "gblinear" else margins

    def _model_to_go_on_from(self, e: Any, model: Model, objective: Objective) -> Model:
        """A copy of it."""
        expected = LinearModel if e.booster == "gblinear" else TreeEnsemble
        if not isinstance(model, expected) or e.weak_learner is not None:
            raise ValueError(f"xgb_model is a {type(model).__name__}, which this booster cannot go on from")
        if (model.n_features, model.n_groups) != (self.n_features_in_, objective.n_outputs):
            raise ValueError(
                f"xgb_model has {model.n_features} features and {model.n_groups} outputs, the data has "
                f"{self.n_features_in_} and {objective.n_outputs}"
            )
        if isinstance(model, LinearModel):
            return LinearModel(
                model.n_features, model.n_groups, model.base_score, model.weight.copy(), model.bias.copy(),
                model.n_rounds,
            )  # fmt: skip
        return TreeEnsemble.concat([model])


def _content_of(xgb_model: Any) -> Content:
    """What a file, an estimator or a Booster holds."""
    if isinstance(xgb_model, str | Path):
        return xgboost_reader.read(xgb_model)
    if isinstance(xgb_model, XGBFit):
        check_is_fitted(xgb_model)
        return xgb_model._Booster.content
    if isinstance(xgb_model, Booster):
        return xgb_model.content
    if hasattr(xgb_model, "save_raw"):
        return xgboost_reader.decode(bytes(xgb_model.save_raw("json")), "xgb_model")
    raise TypeError(f"xgb_model must be a file, an estimator or a Booster, got a {type(xgb_model).__name__}")


def _own_parameters(e: Any) -> dict[str, Any]:
    names = {name for _, defaults in OBJECTIVES.values() for name in defaults}
    return {name: getattr(e, name) for name in names}


def _without_best(texts: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in texts.items() if key not in ("best_iteration", "best_score")}


def plain_parameters(estimator: XGBParameters) -> dict[str, Any]:
    """Parameters that can be kept with a model: no functions."""
    parameters = estimator.get_xgb_params()
    metric = parameters.get("eval_metric")
    if isinstance(metric, list):
        parameters["eval_metric"] = [one for one in metric if isinstance(one, str)]
    return parameters


def _boosted(booster: Booster, training: Training, watch: Watch, n_rounds: int) -> Booster:
    """All rounds; the model that is kept after them."""
    booster.follow(training)
    watch.before_training(booster)
    trees = training.booster if isinstance(training.booster, TreeBooster) else None
    first = booster.num_boosted_rounds()
    best_weight: Array | None = None
    for number in range(n_rounds):
        if watch.before_round(booster):
            break
        training.round()
        stop = watch.after_round(booster)
        if trees is not None and trees.is_dart and booster.attr("best_iteration") == str(first + number):
            best_weight = trees.weight.copy()
        if stop:
            break
    booster.follow(None)
    if best_weight is not None and isinstance(booster.model, TreeEnsemble):
        # Rounds after the best one have changed the weights of the trees before it.
        booster.model.tree_weight[: len(best_weight)] = best_weight
    kept = watch.after_training(booster)
    if not isinstance(kept, Booster):
        raise TypeError(f"after_training of a callback must return the model, not a {type(kept).__name__}")
    return kept
