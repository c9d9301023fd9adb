"""Gradient boosting with second-order trees, under xgboost's scikit-learn interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from types import FunctionType
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import _check_sample_weight, check_array, check_is_fitted, column_or_1d

from fullspan.estimators.boosting import xgboost_format
from fullspan.estimators.boosting._data import categorical_mask, features_of
from fullspan.estimators.boosting.ensemble import TreeEnsemble
from fullspan.estimators.boosting.linear import LinearModel
from fullspan.estimators.boosting.metrics import check_metric, is_maximised
from fullspan.estimators.boosting.objectives import OBJECTIVES, Objective, RankObjective, make_objective
from fullspan.estimators.boosting.ranking import RankingGroups
from fullspan.estimators.boosting.settings import settings_of, threads_of
from fullspan.estimators.boosting.shap import shap_interactions, shap_values
from fullspan.estimators.boosting.training import Model, Rows, WeakModel, rounds, scores
from fullspan.estimators.saving import Saveable

Array = NDArray[Any]

_COUNT = [Interval(Integral, 0, None, closed="left"), None]
_POSITIVE = [Interval(Integral, 1, None, closed="left"), None]
_AMOUNT = [Interval(Real, 0, None, closed="left"), None]
_SHARE = [Interval(Real, 0, 1, closed="right"), None]
_CHANCE = [Interval(Real, 0, 1, closed="both"), None]


class _XGB(Saveable, BaseEstimator):  # type: ignore[misc]
    """What the three estimators share."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_estimators": _COUNT,
        "max_depth": _COUNT,
        "max_leaves": _COUNT,
        "max_bin": [Interval(Integral, 2, 256, closed="both"), None],
        "grow_policy": [StrOptions({"depthwise", "lossguide"}), None],
        "learning_rate": _AMOUNT,
        "verbosity": [Interval(Integral, 0, 3, closed="both"), None],
        "objective": [str, callable, None],
        "booster": [StrOptions({"gbtree", "gblinear", "dart"}), None],
        "tree_method": [StrOptions({"auto", "exact", "approx", "hist"}), None],
        "n_jobs": [Integral, None],
        "gamma": _AMOUNT,
        "min_child_weight": _AMOUNT,
        "max_delta_step": _AMOUNT,
        "subsample": _SHARE,
        "sampling_method": [StrOptions({"uniform", "gradient_based"}), None],
        "colsample_bytree": _SHARE,
        "colsample_bylevel": _SHARE,
        "colsample_bynode": _SHARE,
        "reg_alpha": _AMOUNT,
        "reg_lambda": _AMOUNT,
        "scale_pos_weight": _AMOUNT,
        "base_score": [Real, "array-like", None],
        "random_state": ["random_state", np.random.Generator],
        "missing": [Real],
        "num_parallel_tree": _POSITIVE,
        "monotone_constraints": [Mapping, "array-like", str, None],
        "interaction_constraints": [list, tuple, str, None],
        "importance_type": [StrOptions({"gain", "weight", "cover", "total_gain", "total_cover"}), None],
        "device": [str, None],
        "validate_parameters": ["boolean", None],
        "enable_categorical": ["boolean"],
        "feature_types": ["array-like", None],
        "max_cat_to_onehot": _POSITIVE,
        "max_cat_threshold": _POSITIVE,
        "multi_strategy": [StrOptions({"one_output_per_tree", "multi_output_tree"}), None],
        "eval_metric": [str, list, callable, None],
        "early_stopping_rounds": _POSITIVE,
        "callbacks": [list, None],
        "weak_learner": [HasMethods(["fit", "predict"]), None],
        "quantile_alpha": [Real, "array-like", None],
        "tweedie_variance_power": [Real, None],
        "huber_slope": [Real, None],
        "aft_loss_distribution": [StrOptions({"normal", "logistic", "extreme"}), None],
        "aft_loss_distribution_scale": [Interval(Real, 0, None, closed="neither"), None],
        "lambdarank_pair_method": [StrOptions({"topk", "mean"}), None],
        "lambdarank_num_pair_per_sample": _POSITIVE,
        "lambdarank_normalization": ["boolean", None],
        "lambdarank_score_normalization": ["boolean", None],
        "ndcg_exp_gain": ["boolean", None],
        "rate_drop": _CHANCE,
        "one_drop": ["boolean", Integral, None],
        "skip_drop": _CHANCE,
        "sample_type": [StrOptions({"uniform", "weighted"}), None],
        "normalize_type": [StrOptions({"tree", "forest"}), None],
        "feature_selector": [StrOptions({"cyclic", "shuffle"}), None],
        "feature_weights": ["array-like", None],
    }
    _default_objective = "reg:squarederror"
    n_features_in_: int
    _model: Model
    _objective: Objective
    _rounds_per_model: int

    def __init__(
        self,
        *,
        max_depth: int | None = None,
        max_leaves: int | None = None,
        max_bin: int | None = None,
        grow_policy: str | None = None,
        learning_rate: float | None = None,
        n_estimators: int | None = None,
        verbosity: int | None = None,
        objective: str | Callable[..., Any] | None = None,
        booster: str | None = None,
        tree_method: str | None = None,
        n_jobs: int | None = None,
        gamma: float | None = None,
        min_child_weight: float | None = None,
        max_delta_step: float | None = None,
        subsample: float | None = None,
        sampling_method: str | None = None,
        colsample_bytree: float | None = None,
        colsample_bylevel: float | None = None,
        colsample_bynode: float | None = None,
        reg_alpha: float | None = None,
        reg_lambda: float | None = None,
        scale_pos_weight: float | None = None,
        base_score: float | ArrayLike | None = None,
        random_state: Any = None,
        missing: float = np.nan,
        num_parallel_tree: int | None = None,
        monotone_constraints: Any = None,
        interaction_constraints: Any = None,
        importance_type: str | None = None,
        device: str | None = None,
        validate_parameters: bool | None = None,
        enable_categorical: bool = False,
        feature_types: Sequence[str] | None = None,
        feature_weights: ArrayLike | None = None,
        max_cat_to_onehot: int | None = None,
        max_cat_threshold: int | None = None,
        multi_strategy: str | None = None,
        eval_metric: Any = None,
        early_stopping_rounds: int | None = None,
        callbacks: list[Any] | None = None,
        weak_learner: Any = None,
        quantile_alpha: float | ArrayLike | None = None,
        tweedie_variance_power: float | None = None,
        huber_slope: float | None = None,
        aft_loss_distribution: str | None = None,
        aft_loss_distribution_scale: float | None = None,
        lambdarank_pair_method: str | None = None,
        lambdarank_num_pair_per_sample: int | None = None,
        lambdarank_normalization: bool | None = None,
        lambdarank_score_normalization: bool | None = None,
        ndcg_exp_gain: bool | None = None,
        rate_drop: float | None = None,
        one_drop: bool | None = None,
        skip_drop: float | None = None,
        sample_type: str | None = None,
        normalize_type: str | None = None,
        feature_selector: str | None = None,
    ) -> None:
        self.max_depth = max_depth
        self.max_leaves = max_leaves
        self.max_bin = max_bin
        self.grow_policy = grow_policy
        self.learning_rate = learning_rate
        self.n_estimators = n_estimators
        self.verbosity = verbosity
        self.objective = objective
        self.booster = booster
        self.tree_method = tree_method
        self.n_jobs = n_jobs
        self.gamma = gamma
        self.min_child_weight = min_child_weight
        self.max_delta_step = max_delta_step
        self.subsample = subsample
        self.sampling_method = sampling_method
        self.colsample_bytree = colsample_bytree
        self.colsample_bylevel = colsample_bylevel
        self.colsample_bynode = colsample_bynode
        self.reg_alpha = reg_alpha
        self.reg_lambda = reg_lambda
        self.scale_pos_weight = scale_pos_weight
        self.base_score = base_score
        self.random_state = random_state
        self.missing = missing
        self.num_parallel_tree = num_parallel_tree
        self.monotone_constraints = monotone_constraints
        self.interaction_constraints = interaction_constraints
        self.importance_type = importance_type
        self.device = device
        self.validate_parameters = validate_parameters
        self.enable_categorical = enable_categorical
        self.feature_types = feature_types
        self.feature_weights = feature_weights
        self.max_cat_to_onehot = max_cat_to_onehot
        self.max_cat_threshold = max_cat_threshold
        self.multi_strategy = multi_strategy
        self.eval_metric = eval_metric
        self.early_stopping_rounds = early_stopping_rounds
        self.callbacks = callbacks
        self.weak_learner = weak_learner
        self.quantile_alpha = quantile_alpha
        self.tweedie_variance_power = tweedie_variance_power
        self.huber_slope = huber_slope
        self.aft_loss_distribution = aft_loss_distribution
        self.aft_loss_distribution_scale = aft_loss_distribution_scale
        self.lambdarank_pair_method = lambdarank_pair_method
        self.lambdarank_num_pair_per_sample = lambdarank_num_pair_per_sample
        self.lambdarank_normalization = lambdarank_normalization
        self.lambdarank_score_normalization = lambdarank_score_normalization
        self.ndcg_exp_gain = ndcg_exp_gain
        self.rate_drop = rate_drop
        self.one_drop = one_drop
        self.skip_drop = skip_drop
        self.sample_type = sample_type
        self.normalize_type = normalize_type
        self.feature_selector = feature_selector

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
        custom = _custom(self.objective) if callable(self.objective) else None
        watch = _Watch(self, evals, metrics, objective, verbose)
        last: Any = None
        for booster in rounds(settings, objective, rows, evals, base, start, self.weak_learner, custom):
            last = booster
            if settings.n_rounds and watch.after_round():
                break
        watch.finish()
        self._model = last.model()
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
        elif isinstance(xgb_model, _XGB):
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


def _with_objective(default: str) -> Any:
    """`_XGB.__init__` with another default objective: scikit-learn reads defaults from the signature."""
    base = _XGB.__init__
    made = FunctionType(base.__code__, base.__globals__, "__init__", base.__defaults__, base.__closure__)
    made.__kwdefaults__ = {**(base.__kwdefaults__ or {}), "objective": default}
    made.__annotations__ = base.__annotations__
    made.__qualname__ = base.__qualname__
    return made


class _Watch:
    """Metrics, early stopping and callbacks after each round."""

    def __init__(
        self, estimator: _XGB, evals: list[Rows], metrics: list[Any], objective: Objective, verbose: Any
    ) -> None:
        self.estimator, self.evals, self.metrics, self.objective = estimator, evals, metrics, objective
        self.every = int(verbose) if verbose and evals and estimator.verbosity != 0 else 0
        self.patience = estimator.early_stopping_rounds
        self.round = 0
        if self.patience is not None and not evals:
            raise ValueError("Must have at least 1 validation dataset for early stopping.")
        self.log = estimator._evals_result

    def after_round(self) -> bool:
        """Whether to stop."""
        found = scores(self.objective, self.evals, self.metrics) if self.evals else {}
        for name, values in found.items():
            for metric, value in values.items():
                self.log.setdefault(name, {}).setdefault(metric, []).append(value)
        if self.every and self.round % self.every == 0:
            parts = [f"{n}-{m}:{v:.5f}" for n, values in found.items() for m, v in values.items()]
            print(f"[{self.round}]\t" + "\t".join(parts))
        stop = self._stops(found) if self.patience is not None else False
        for callback in self.estimator.callbacks or []:
            stop = bool(callback.after_iteration(self.estimator, self.round, self.log)) or stop
        self.round += 1
        return stop

    def _stops(self, found: dict[str, dict[str, float]]) -> bool:
        assert self.patience is not None
        metric, value = list(list(found.values())[-1].items())[-1]
        best = self.estimator._best_score
        better = best is None or (value > best if is_maximised(metric) else value < best)
        if better:
            self.estimator._best_score, self.estimator._best_iteration = value, self.round
        assert self.estimator._best_iteration is not None
        return self.round - self.estimator._best_iteration >= self.patience

    def finish(self) -> None:
        for callback in self.estimator.callbacks or []:
            if hasattr(callback, "after_training"):
                callback.after_training(self.estimator)


def _custom(objective: Callable[..., Any]) -> Callable[[Array, Array, Array | None], tuple[Array, Array]]:
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


def _margin_array(base_margin: Any, n: int) -> NDArray[np.float32]:
    out = np.asarray(base_margin, dtype=np.float32)
    out = out.reshape(n, -1) if out.size and out.size % n == 0 else out
    if out.ndim != 2 or len(out) != n:
        raise ValueError(f"base_margin has shape {np.shape(base_margin)}, X has {n} rows")
    return out


class XGBRegressor(RegressorMixin, _XGB):  # type: ignore[misc]
    """Boosted trees for numbers, counts, times and quantiles; parameters, defaults and trees are XGBoost's.

    The parameters that are not listed here mean what they do in XGBoost's own documentation; those left at
    None have XGBoost's defaults.

    Parameters
    ----------
    n_estimators : int, default=100
        Rounds of boosting.
    learning_rate : float, default=0.3
    max_depth : int, default=6
        0 for no limit.
    objective : str or callable, default="reg:squarederror"
        A callable takes (y_true, raw scores) and returns gradients and hessians.
    booster : {"gbtree", "gblinear", "dart"}, default="gbtree"
    tree_method : {"hist", "approx", "exact"}, default="hist"
    weak_learner : regressor, optional
        Fitted to Newton's steps in place of trees; fullspan's own parameter.
    max_bin : int, default=256
        256 stands for 255, the most bins that a feature may have.
    quantile_alpha, tweedie_variance_power, huber_slope, aft_loss_distribution, aft_loss_distribution_scale :
        Of the objectives "reg:quantileerror", "reg:tweedie", "reg:pseudohubererror" and "survival:aft"; for
        the latter y has two columns, the bounds of the time.
    rate_drop, skip_drop, one_drop, sample_type, normalize_type :
        Of booster="dart".

    References
    ----------
    T. Chen, C. Guestrin, "XGBoost: a scalable tree boosting system", KDD 2016.

    Examples
    --------
    >>> import numpy as np
    >>> from fullspan.estimators import XGBRegressor
    >>> X = np.arange(40.0)[:, None]
    >>> y = np.where(X[:, 0] < 20, 1.0, 3.0)
    >>> model = XGBRegressor(n_estimators=30, max_depth=2).fit(X, y)
    >>> model.predict([[5.0], [30.0]]).round(2)
    array([1., 3.], dtype=float32)
    """

    __init__ = _with_objective("reg:squarederror")

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        sample_weight: Any = None,
        base_margin: Any = None,
        eval_set: Sequence[tuple[Any, Any]] | None = None,
        verbose: bool | int | None = True,
        xgb_model: Any = None,
        sample_weight_eval_set: Sequence[Any] | None = None,
        base_margin_eval_set: Sequence[Any] | None = None,
    ) -> Self:
        """Boost.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
            `missing` (NaN) is a missing value, as is what a sparse matrix does not hold.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like of shape (n_samples,), optional
        base_margin : array-like of shape (n_samples,) or (n_samples, n_outputs), optional
        eval_set : list of (X, y), optional
            Sets whose metrics are taken after each round; the last one decides on early stopping.
        verbose : bool or int
            Print the metrics after each round, or each so many rounds.
        xgb_model : path, fitted estimator or its `get_booster()`, optional
            Go on from this model.
        sample_weight_eval_set, base_margin_eval_set : list of array-like, optional

        Raises
        ------
        ValueError
            If data or parameters are wrong or contradict each other; the message names them.
        """
        return self._fit(
            X, y, sample_weight, base_margin, eval_set, verbose, xgb_model, sample_weight_eval_set,
            base_margin_eval_set,
        )  # fmt: skip

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


class XGBClassifier(ClassifierMixin, _XGB):  # type: ignore[misc]
    """Boosted trees for classes; parameters, defaults and trees are XGBoost's.

    With more than two classes the objective is "multi:softprob". Classes may be numbers or strings. With y of
    several columns of 0 and 1, each column is a label of its own. Parameters are those of `XGBRegressor`.

    References
    ----------
    T. Chen, C. Guestrin, "XGBoost: a scalable tree boosting system", KDD 2016.

    Examples
    --------
    >>> import numpy as np
    >>> from fullspan.estimators import XGBClassifier
    >>> X = np.arange(40.0)[:, None]
    >>> y = np.where(X[:, 0] < 20, "low", "high")
    >>> model = XGBClassifier(n_estimators=10, max_depth=2).fit(X, y)
    >>> model.predict([[5.0], [30.0]])
    array(['low', 'high'], dtype='<U4')
    """

    _default_objective = "binary:logistic"
    __init__ = _with_objective("binary:logistic")

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        sample_weight: Any = None,
        base_margin: Any = None,
        eval_set: Sequence[tuple[Any, Any]] | None = None,
        verbose: bool | int | None = True,
        xgb_model: Any = None,
        sample_weight_eval_set: Sequence[Any] | None = None,
        base_margin_eval_set: Sequence[Any] | None = None,
    ) -> Self:
        """Boost; parameters as of `XGBRegressor.fit`, y holds classes."""
        return self._fit(
            X, y, sample_weight, base_margin, eval_set, verbose, xgb_model, sample_weight_eval_set,
            base_margin_eval_set,
        )  # fmt: skip

    def _target(self, y: Any, reset: bool) -> Array:
        labels = check_array(y, ensure_2d=False, dtype=None, input_name="y")
        if reset:
            check_classification_targets(y)
            self._multilabel = type_of_target(y) == "multilabel-indicator"
        if self._multilabel:
            if reset:
                self.classes_, self.n_classes_ = np.array([0, 1]), 2
                self.n_labels_ = labels.shape[1]
            return np.asarray(labels, np.float32)
        labels = column_or_1d(labels, warn=True)
        if reset:
            self.classes_ = np.unique(labels)
            self.n_classes_ = len(self.classes_)
        codes = np.minimum(np.searchsorted(self.classes_, labels), len(self.classes_) - 1)
        if not np.array_equal(self.classes_[codes], labels):
            strange = labels[self.classes_[codes] != labels].tolist()[0]
            raise ValueError(f"eval_set holds the class {strange!r}, which is not in y")
        return np.asarray(codes[:, None], np.float32)

    def _objective_name(self) -> str:
        name = super()._objective_name()
        if not self._multilabel and self.n_classes_ > 2 and name != "multi:softmax":
            return "multi:softprob"
        return name

    def _n_outputs(self, y: Array) -> int:
        if self._objective_name().startswith("multi:"):
            return max(self.n_classes_, 2)
        return int(y.shape[1])

    def _loaded(self) -> None:
        name, outputs = self._objective.name, self._objective.n_outputs
        self._multilabel = not name.startswith("multi:") and outputs > 1
        self.n_classes_ = outputs if name.startswith("multi:") else 2
        self.classes_ = np.arange(self.n_classes_)

    def predict(
        self,
        X: Any,
        *,
        output_margin: bool = False,
        validate_features: bool = True,
        base_margin: Any = None,
        iteration_range: tuple[int, int] | None = None,
    ) -> Array:
        """The class of each row of X, or with `output_margin` its raw scores; see `XGBRegressor.predict`."""
        out = self._predict(X, output_margin, iteration_range, base_margin)
        if output_margin:
            return out
        if self._multilabel:
            return (out > 0.5).astype(np.int64)
        if self._objective.name == "multi:softmax":
            codes = out.astype(np.intp)
        elif out.ndim == 2:
            codes = out.argmax(axis=1)
        else:
            threshold = 0.0 if self._objective.name == "binary:logitraw" else 0.5
            codes = (out > threshold).astype(np.intp)
        return np.asarray(self.classes_[np.minimum(codes, len(self.classes_) - 1)])

    def predict_proba(
        self,
        X: Any,
        validate_features: bool = True,
        base_margin: Any = None,
        iteration_range: tuple[int, int] | None = None,
    ) -> NDArray[np.float32]:
        """The probability of each class.

        Returns
        -------
        float32 array of shape (n_samples, n_classes)
            With labels of several columns, the probability of each label.

        Raises
        ------
        ValueError
            If the objective has no probabilities: "binary:hinge" and "binary:logitraw".
        """
        check_is_fitted(self)
        name = self._objective.name
        if name in ("binary:hinge", "binary:logitraw"):
            raise ValueError(f"objective={name!r} has no probabilities: use 'binary:logistic'")
        margin = self._margin(X, iteration_range, base_margin)
        if name.startswith("multi:"):
            return np.asarray(self._objective.loss.inverse_link(margin))
        p = self._objective.prediction(margin)
        if self._multilabel:
            return p
        if self.n_classes_ == 1:
            return np.ones_like(p)
        return np.hstack([1 - p, p])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class XGBRanker(_XGB):
    """LambdaMART: boosted trees that order the rows of each query; parameters and defaults are XGBoost's.

    Parameters
    ----------
    objective : {"rank:ndcg", "rank:pairwise", "rank:map"}, default="rank:ndcg"
    lambdarank_pair_method : {"topk", "mean"}, default="topk"
        Pairs of the best rows with all below them, or of each row with some at random.
    lambdarank_num_pair_per_sample : int, optional
        32 for "topk", 1 for "mean".
    lambdarank_normalization, lambdarank_score_normalization, ndcg_exp_gain : bool, default=True

    References
    ----------
    C. Burges, "From RankNet to LambdaRank to LambdaMART: an overview", MSR-TR-2010-82.

    Examples
    --------
    >>> import numpy as np
    >>> from fullspan.estimators import XGBRanker
    >>> X = np.tile(np.arange(10.0), 4)[:, None]
    >>> qid = np.repeat(np.arange(4), 10)
    >>> model = XGBRanker(n_estimators=20).fit(X, X[:, 0] // 3, qid=qid)
    >>> scores = model.predict([[0.0], [4.0], [9.0]])
    >>> bool(scores[0] < scores[1] < scores[2])
    True
    """

    _default_objective = "rank:ndcg"
    __init__ = _with_objective("rank:ndcg")

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        group: Any = None,
        qid: Any = None,
        sample_weight: Any = None,
        base_margin: Any = None,
        eval_set: Sequence[tuple[Any, Any]] | None = None,
        eval_group: Sequence[Any] | None = None,
        eval_qid: Sequence[Any] | None = None,
        verbose: bool | int | None = False,
        xgb_model: Any = None,
        sample_weight_eval_set: Sequence[Any] | None = None,
        base_margin_eval_set: Sequence[Any] | None = None,
    ) -> Self:
        """Boost.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
            Relevance of each row.
        group : array-like, optional
            Sizes of the queries, in the order of the rows.
        qid : array-like of shape (n_samples,), optional
            The query of each row, ascending. Either this or `group` is needed.
        sample_weight : array-like of shape (n_queries,), optional
            A weight for each query.
        base_margin, eval_set, verbose, xgb_model, sample_weight_eval_set, base_margin_eval_set :
            As of `XGBRegressor.fit`.
        eval_group, eval_qid : list of array-like, optional
            The queries of each set in `eval_set`.

        Raises
        ------
        ValueError
            If the objective does not rank, or the queries do not fit the rows.
        """
        if callable(self.objective):
            raise ValueError("custom objective function not supported by XGBRanker")
        if not (self.objective or "rank:").startswith("rank:"):
            raise ValueError(f"please use XGBRanker for ranking task, got objective={self.objective!r}")
        n = X.shape[0] if hasattr(X, "shape") else len(X)
        groups = [RankingGroups.of(n, qid, group)]
        if eval_set and eval_qid is None and eval_group is None:
            raise ValueError("eval_qid or eval_group must say the queries of every set in eval_set")
        for i, (rows, _) in enumerate(eval_set or []):
            count = rows.shape[0] if hasattr(rows, "shape") else len(rows)
            groups.append(
                RankingGroups.of(
                    count, eval_qid[i] if eval_qid else None, eval_group[i] if eval_group else None
                )
            )
        return self._fit(
            X, y, sample_weight, base_margin, eval_set, verbose, xgb_model, sample_weight_eval_set,
            base_margin_eval_set, groups,
        )  # fmt: skip

    def score(self, X: Any, y: Any, qid: Any = None, group: Any = None) -> float:
        """Mean NDCG of the queries (all positions)."""
        from fullspan.estimators.boosting.metrics import evaluate

        target = np.asarray(y, dtype=np.float32)[:, None]
        groups = RankingGroups.of(len(target), qid, group)
        margin = self._margin(X, None, None)
        return evaluate("ndcg", self._objective, target, margin, None, groups)
