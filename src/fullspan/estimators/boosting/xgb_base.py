"""What XGBClassifier, XGBRegressor and XGBRanker share: fitting, margins, explanations, files."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import _check_sample_weight, check_array, check_is_fitted

from fullspan.core.device import threads_of
from fullspan.estimators.boosting import xgboost_format
from fullspan.estimators.boosting._data import categorical_mask, features_of
from fullspan.estimators.boosting.ensemble import TreeEnsemble
from fullspan.estimators.boosting.linear import LinearModel
from fullspan.estimators.boosting.metrics import check_metric
from fullspan.estimators.boosting.objectives import OBJECTIVES, Objective, RankObjective, make_objective
from fullspan.estimators.boosting.ranking import RankingGroups
from fullspan.estimators.boosting.settings import settings_of
from fullspan.estimators.boosting.shap import shap_interactions, shap_values
from fullspan.estimators.boosting.training import Model, Rows, WeakModel, rounds
from fullspan.estimators.boosting.watching import Watch, custom_gradients
from fullspan.estimators.boosting.xgb_parameters import XGBParameters

Array = NDArray[Any]


class XGBBase(XGBParameters):
    """Everything but what `fit` and `predict` look like."""

    _default_objective = "reg:squarederror"
    n_features_in_: int
    _model: Model
    _objective: Objective
    _rounds_per_model: int

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
            raise ValueError("Input y contains NaN or infinity or a value too large for dtype('float32').")
        return np.asarray(y)

    def _objective_name(self) -> str:
        return (
            self._default_objective if callable(self.objective) or self.objective is None else self.objective
        )

    def _n_outputs(self, y: Array) -> int:
        return 1 if self._objective_name() == "survival:aft" else y.shape[1]

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
        groups: list[RankingGroups] | None = None,
    ) -> Self:
        self._validate_params()
        if y is None:
            raise ValueError(
                f"This {type(self).__name__} estimator requires y to be passed, but the target y is None."
            )
        rows = self._rows(X, y, sample_weight, base_margin, groups[0] if groups else None, reset=True)
        settings = settings_of(self, self.n_features_in_, getattr(self, "feature_names_in_", None))
        monotone = np.flatnonzero(settings.config.monotone or ())
        if self._is_categorical[monotone].any():
            column = monotone[self._is_categorical[monotone]][0]
            raise ValueError(f"monotone_constraints names column {column}, which holds categories")
        objective = make_objective(self._objective_name(), self._n_outputs(rows.y), self._own_parameters())
        if isinstance(objective, RankObjective):
            objective.groups = rows.groups
        objective.check_y(rows.y if objective.name == "survival:aft" else rows.y.ravel())
        evals = self._evals(eval_set, sample_weight_eval_set, base_margin_eval_set, groups)
        metrics = self._metrics(objective)
        self._rounds_per_model = settings.n_parallel * objective.n_outputs
        self._objective = objective
        self._best_iteration: int | None = None
        self._best_score: float | None = None
        self._evals_result: dict[str, dict[str, list[float]]] = {}
        start = None if xgb_model is None else self._start(xgb_model, objective)
        base = start.base_score if start is not None else self._base_margins(objective, rows)
        custom = custom_gradients(self.objective) if callable(self.objective) else None
        watch = Watch(self, evals, metrics, objective, verbose)
        last: Any = None
        best_weight: Array | None = None
        boosting = rounds(settings, objective, rows, evals, base, start, self.weak_learner, custom)
        with closing(boosting):  # ends the threads, also when a callback raises
            for booster in boosting:
                last = booster
                stop = bool(settings.n_rounds) and watch.after_round()
                if settings.booster == "dart" and self._best_iteration == watch.round - 1:
                    best_weight = last.weight.copy()
                if stop:
                    break
        watch.finish()
        self._model = last.model()
        if best_weight is not None and isinstance(self._model, TreeEnsemble):
            # Rounds after the best one have changed the weights of the trees before it.
            self._model.tree_weight[: len(best_weight)] = best_weight
        if isinstance(objective, RankObjective):
            objective.groups = None
        return self

    def _rows(
        self,
        X: Any,
        y: Any,
        weight: Any,
        base_margin: Any,
        groups: RankingGroups | None,
        *,
        reset: bool,
        name: str = "",
    ) -> Rows:
        features = self._features(X, reset=reset)
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
                        f"sample_weight has {len(weight)} entries, expected one for each of the "
                        f"{groups.n_groups} queries"
                    )
                if np.any(weight < 0):
                    raise ValueError("Negative values in data passed to `sample_weight`")
            else:
                weight = _check_sample_weight(weight, features, dtype=np.float32, ensure_non_negative=True)
        if weight is not None and not np.any(weight > 0):
            raise ValueError("sample_weight has no positive entry")
        if base_margin is not None:
            base_margin = _margin_array(base_margin, features.shape[0])
        mask = None
        if reset:
            mask = categorical_mask(self, features, self.feature_types, self.enable_categorical)
            if mask.any() and self.tree_method == "exact":
                raise ValueError("tree_method='exact' takes no categories: use 'hist' or 'approx'")
            if mask.any() and self.booster == "gblinear":
                raise ValueError("booster='gblinear' takes no categories")
            self._is_categorical = mask
        return Rows(features, target, weight, base_margin, groups, mask, name)

    def _features(self, X: Any, *, reset: bool) -> Any:
        return features_of(
            self, X, reset=reset, missing=float(self.missing), enable_categorical=self.enable_categorical
        )

    def _evals(
        self,
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

    def _metrics(self, objective: Objective) -> list[Any]:
        given = self.eval_metric
        metrics = (
            [objective.default_metric] if given is None else given if isinstance(given, list) else [given]
        )
        for metric in metrics:
            if isinstance(metric, str):
                check_metric(metric)
        return metrics

    def _own_parameters(self) -> dict[str, Any]:
        names = {name for _, defaults in OBJECTIVES.values() for name in defaults}
        return {name: getattr(self, name) for name in names}

    def _base_margins(self, objective: Objective, rows: Rows) -> NDArray[np.float64]:
        """Where all margins start: given or estimated, but with a custom objective XGBoost's 0.5."""
        if callable(self.objective) and self.base_score is None:
            half = np.full(objective.n_outputs, 0.5, dtype=np.float32)
            return objective.to_margin(half).astype(np.float64)
        if self.base_score is not None:
            given = np.atleast_1d(np.asarray(self.base_score, dtype=np.float32))
            if len(given) not in (1, objective.n_outputs):
                raise ValueError(f"base_score has {len(given)} entries, expected {objective.n_outputs}")
            base = np.broadcast_to(given, objective.n_outputs).copy()
        else:
            base = np.atleast_1d(objective.base_score(rows.y, rows.weight))
        margins = objective.to_margin(base.astype(np.float32)).astype(np.float64)
        # The biases of linear models take up the rest, as in XGBoost, whose files mean it so.
        return np.full_like(margins, margins[0]) if self.booster == "gblinear" else margins

    def _start(self, xgb_model: Any, objective: Objective) -> Model:
        """The model to go on from."""
        if isinstance(xgb_model, str | Path):
            model: Model = xgboost_format.read(xgb_model).model
        elif isinstance(xgb_model, XGBBase):
            check_is_fitted(xgb_model)
            model = xgb_model._model
        else:
            model = xgb_model
        expected = LinearModel if self.booster == "gblinear" else TreeEnsemble
        if not isinstance(model, expected) or self.weak_learner is not None:
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

    # --- using ------------------------------------------------------------------------------------------

    def _margin(
        self, X: Any, iteration_range: tuple[int, int] | None, base_margin: Any
    ) -> NDArray[np.float32]:
        check_is_fitted(self)
        features = self._features(X, reset=False)
        if base_margin is not None:
            base_margin = _margin_array(base_margin, features.shape[0])
        if isinstance(self._model, LinearModel):
            return self._model.margin(features, base_margin)
        first, last = self._trees(iteration_range)
        if isinstance(self._model, WeakModel):
            return self._model.margin(features, first, last, base_margin)
        return self._model.margin(features, first, last, base_margin, threads_of(self.n_jobs))

    def _trees(self, iteration_range: tuple[int, int] | None) -> tuple[int, int]:
        """The trees of rounds; by default all, or after early stopping those up to the best round."""
        step = self._rounds_per_model
        if isinstance(self._model, WeakModel):
            n_rounds = len(self._model.learners) // step
        else:
            assert isinstance(self._model, TreeEnsemble)
            n_rounds = self._model.n_trees // step
        if iteration_range is None or iteration_range[1] == 0:
            first, last = 0, n_rounds if self._best_iteration is None else self._best_iteration + 1
        else:
            first, last = int(iteration_range[0]), int(iteration_range[1])
        if not 0 <= first <= last <= n_rounds:
            raise ValueError(f"iteration_range is {iteration_range}, the model has {n_rounds} rounds")
        return first * step, last * step

    def _predict(
        self, X: Any, output_margin: bool, iteration_range: tuple[int, int] | None, base_margin: Any
    ) -> Array:
        margin = self._margin(X, iteration_range, base_margin)
        out = margin if output_margin else self._objective.prediction(margin)
        return out[:, 0] if out.shape[1] == 1 else out

    def predict(
        self,
        X: Any,
        *,
        output_margin: bool = False,
        validate_features: bool = True,
        base_margin: Any = None,
        iteration_range: tuple[int, int] | None = None,
    ) -> Array:
        """Predictions for each row of X.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
        output_margin : bool
            Raw scores instead of predictions.
        validate_features : bool
            For xgboost's sake: names and number of features are always compared.
        base_margin : array of shape (n_samples,) or (n_samples, n_outputs), optional
            Where margins start instead of the base score.
        iteration_range : (int, int), optional
            The rounds to use, the last not included; by default all, or after early stopping those up to the
            best one.

        Returns
        -------
        array of shape (n_samples,) or (n_samples, n_outputs)
        """
        out = self._predict(X, output_margin, iteration_range, base_margin)
        # scikit-learn wants float64 where there are several outputs.
        return out if out.ndim == 1 or output_margin else out.astype(np.float64)

    def apply(self, X: Any, iteration_range: tuple[int, int] | None = None) -> NDArray[np.float32]:
        """The leaf of each row in each tree.

        Returns
        -------
        float32 array of shape (n_samples, n_trees)
        """
        check_is_fitted(self)
        features = self._features(X, reset=False)
        ensemble = self._ensemble("apply")
        return ensemble.leaves(features, *self._trees(iteration_range), threads_of(self.n_jobs)).astype(
            np.float32
        )

    def shap_values(self, X: Any, iteration_range: tuple[int, int] | None = None) -> NDArray[np.float32]:
        """What each feature adds to the margin of each row, by TreeSHAP.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        iteration_range : (int, int), optional

        Returns
        -------
        float32 array of shape (n_samples, n_features + 1) or (n_samples, n_outputs, n_features + 1)
            The last column is what is expected without any feature. A row adds up to its margin.

        References
        ----------
        S. Lundberg et al., "From local explanations to global understanding with explainable AI for trees",
        Nature Machine Intelligence 2 (2020).
        """
        check_is_fitted(self)
        features = self._features(X, reset=False)
        if isinstance(self._model, LinearModel):
            values = self._model.contributions(features)
        else:
            values = shap_values(
                self._ensemble("shap_values"),
                features,
                *self._trees(iteration_range),
                threads_of(self.n_jobs),
            )
        return values[:, 0] if values.shape[1] == 1 else values

    def shap_interaction_values(
        self, X: Any, iteration_range: tuple[int, int] | None = None
    ) -> NDArray[np.float32]:
        """SHAP values parted among pairs of features.

        Returns
        -------
        float32 array of shape (n_samples, [n_outputs,] n_features + 1, n_features + 1)
            Symmetric; the rows add up to the SHAP values.
        """
        check_is_fitted(self)
        features = self._features(X, reset=False)
        values = shap_interactions(
            self._ensemble("shap_interaction_values"),
            features,
            *self._trees(iteration_range),
            threads_of(self.n_jobs),
        )
        return values[:, 0] if values.shape[1] == 1 else values

    def _ensemble(self, asked: str) -> TreeEnsemble:
        if not isinstance(self._model, TreeEnsemble):
            raise ValueError(f"{asked} needs trees, but the model is a {type(self._model).__name__}")
        return self._model

    def get_booster(self) -> Model:
        """The fitted model itself: a `TreeEnsemble`, or a `LinearModel` after booster="gblinear"."""
        check_is_fitted(self)
        return self._model

    def get_num_boosting_rounds(self) -> int:
        """How many rounds fit will take."""
        return 100 if self.n_estimators is None else self.n_estimators

    def evals_result(self) -> dict[str, dict[str, list[float]]]:
        """The metrics of the evaluation sets after each round.

        Returns
        -------
        dict
            ``{"validation_0": {"rmse": [...]}}``
        """
        check_is_fitted(self)
        return self._evals_result

    def _of_early_stopping(self, name: str) -> Any:
        value = getattr(self, name, None)
        if value is None:
            raise AttributeError(f"`{name[1:]}` is only defined when early stopping is used.")
        return value

    @property
    def best_iteration(self) -> int:
        """The round with the best score, after early stopping."""
        return int(self._of_early_stopping("_best_iteration"))

    @property
    def best_score(self) -> float:
        """The score of the best round, after early stopping."""
        return float(self._of_early_stopping("_best_score"))

    @property
    def feature_importances_(self) -> NDArray[np.float32]:
        """Importance of each feature as `importance_type` has it ("gain" by default), adding up to one."""
        check_is_fitted(self)
        if isinstance(self._model, LinearModel):
            if self.importance_type not in (None, "weight"):
                raise AttributeError("booster='gblinear' has only the importance_type 'weight'")
            raw = np.abs(self._model.weight).sum(axis=1)
        else:
            raw = self._ensemble("feature_importances_").importances(self.importance_type or "gain")
        total = raw.sum()
        return np.asarray(raw / total if total > 0 else raw, dtype=np.float32)

    def _linear(self, name: str) -> LinearModel:
        check_is_fitted(self)
        if not isinstance(self._model, LinearModel):
            raise AttributeError(f"{name} is only defined with booster='gblinear'")
        return self._model

    @property
    def coef_(self) -> NDArray[np.float32]:
        """Weights of the features [n_features] or [n_outputs, n_features], with booster="gblinear"."""
        weight = self._linear("coef_").weight.T
        return weight[0] if len(weight) == 1 else weight

    @property
    def intercept_(self) -> NDArray[np.float32]:
        """Base scores as predictions; with booster="gblinear" the biases, which are added to them."""
        check_is_fitted(self)
        if isinstance(self._model, LinearModel):
            return self._model.bias
        return xgboost_format.base_scores(self._objective, self._model)

    def save_model(self, fname: str | Path) -> None:
        """Write the model as XGBoost does: JSON, or UBJSON when the name ends in ".ubj".

        Raises
        ------
        CheckpointError
            If XGBoost has no form for it, such as a custom weak learner.
        """
        check_is_fitted(self)
        content = xgboost_format.Content(
            self._model,
            self._objective,
            self._rounds_per_model // self._objective.n_outputs,
            getattr(self, "feature_names_in_", None),
            self._is_categorical,
            self._categories,
            self._best_iteration,
            self._best_score,
        )
        xgboost_format.write(fname, content)

    def load_model(self, fname: str | Path) -> Self:
        """Take over a model that XGBoost or `save_model` wrote, JSON or UBJSON.

        Raises
        ------
        CheckpointError
            If the file is missing, damaged, or uses what is not supported; the message names the key.
        """
        content = xgboost_format.read(fname)
        self._model, self._objective = content.model, content.objective
        self._rounds_per_model = content.n_parallel * content.objective.n_outputs
        self._is_categorical = content.is_categorical
        self._categories = content.categories
        self._best_iteration, self._best_score = content.best_iteration, content.best_score
        self._evals_result = {}
        self.n_features_in_ = content.model.n_features
        if content.feature_names is not None:
            self.feature_names_in_ = np.asarray(content.feature_names, dtype=object)
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        self.enable_categorical = bool(self.enable_categorical or content.is_categorical.any())
        self.objective = content.objective.name
        if content.is_linear:
            self.booster = "gblinear"
        self._loaded()
        return self

    def _loaded(self) -> None:
        """Set what else predictions need after a model has been read."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.sparse = True
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_model")


def _margin_array(base_margin: Any, n: int) -> NDArray[np.float32]:
    out = np.asarray(base_margin, dtype=np.float32)
    out = out.reshape(n, -1) if out.size and out.size % n == 0 else out
    if out.ndim != 2 or len(out) != n:
        raise ValueError(f"base_margin has shape {np.shape(base_margin)}, X has {n} rows")
    return out
