"""The parameters of the boosting estimators: names, defaults and what each may be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from types import FunctionType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions

from fullspan.estimators.saving import Saveable

_COUNT = [Interval(Integral, 0, None, closed="left"), None]
_POSITIVE = [Interval(Integral, 1, None, closed="left"), None]
_AMOUNT = [Interval(Real, 0, None, closed="left"), None]
_SHARE = [Interval(Real, 0, 1, closed="right"), None]
_CHANCE = [Interval(Real, 0, 1, closed="both"), None]


class XGBParameters(Saveable, BaseEstimator):  # type: ignore[misc]
    """The parameters of the three estimators."""

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


def with_objective(default: str) -> Any:
    """`XGBParameters.__init__` with another default objective: defaults are read from signatures."""
    base = XGBParameters.__init__
    made = FunctionType(base.__code__, base.__globals__, "__init__", base.__defaults__, base.__closure__)
    made.__kwdefaults__ = {**(base.__kwdefaults__ or {}), "objective": default}
    made.__annotations__ = base.__annotations__
    made.__qualname__ = base.__qualname__
    return made
