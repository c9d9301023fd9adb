"""The parameters of the boosting estimators: names, defaults and what each may be."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from types import FunctionType, SimpleNamespace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    StrOptions,
    validate_parameter_constraints,
)
from sklearn.utils.validation import _deprecate_positional_args

from fullspan.estimators.saving import Saveable

_COUNT = [Interval(Integral, 0, None, closed="left"), None]
_POSITIVE = [Interval(Integral, 1, None, closed="left"), None]
_AMOUNT = [Interval(Real, 0, None, closed="left"), None]
_SHARE = [Interval(Real, 0, 1, closed="right"), None]
_CHANCE = [Interval(Real, 0, 1, closed="both"), None]

# Other names of parameters, as the learning library below XGBoost's estimators has them.
ALIASES = {
    "eta": "learning_rate", "lambda": "reg_lambda", "alpha": "reg_alpha", "min_split_loss": "gamma",
    "nthread": "n_jobs", "seed": "random_state",
}  # fmt: skip
# The tree method, or booster, that an updater of XGBoost's stands for.
_UPDATERS = {
    "grow_colmaker": "exact", "grow_colmaker,prune": "exact", "grow_histmaker": "approx",
    "grow_quantile_histmaker": "hist", "coord_descent": "gblinear", "shotgun": "gblinear",
}  # fmt: skip
# What there is no use for here, and what is looked up by itself.
_NEEDLESS = {
    "num_class", "updater", "disable_default_eval_metric", "seed_per_iteration", "max_cached_hist_node",
    "refresh_leaf", "process_type", "silent", "debug_synchronize",
}  # fmt: skip
# Of the estimators themselves.
_WRAPPERS = {
    "importance_type", "missing", "n_estimators", "enable_categorical", "early_stopping_rounds", "callbacks",
    "feature_types", "feature_weights", "weak_learner",
}  # fmt: skip


class XGBParameters(Saveable, BaseEstimator):  # type: ignore[misc]
    """The parameters of the three estimators."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_estimators": _COUNT,
        "max_depth": _COUNT,
        "max_leaves": _COUNT,
        "max_bin": [Interval(Integral, 2, None, closed="left"), None],
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
        "lambdarank_unbiased": ["boolean", None],
        "lambdarank_bias_norm": _AMOUNT,
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
        lambdarank_unbiased: bool | None = None,
        lambdarank_bias_norm: float | None = None,
        rate_drop: float | None = None,
        one_drop: bool | None = None,
        skip_drop: float | None = None,
        sample_type: str | None = None,
        normalize_type: str | None = None,
        feature_selector: str | None = None,
        **kwargs: Any,
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
        self.lambdarank_unbiased = lambdarank_unbiased
        self.lambdarank_bias_norm = lambdarank_bias_norm
        self.rate_drop = rate_drop
        self.one_drop = one_drop
        self.skip_drop = skip_drop
        self.sample_type = sample_type
        self.normalize_type = normalize_type
        self.feature_selector = feature_selector
        if kwargs:
            self.kwargs = kwargs

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """All parameters, those given under other names too.

        Parameters
        ----------
        deep : bool
            Those of `weak_learner` as well.

        Returns
        -------
        dict
        """
        return {**super().get_params(deep), **getattr(self, "kwargs", {})}

    def set_params(self, **params: Any) -> Self:
        """Set parameters, under other names too (`eta` for `learning_rate`).

        Returns
        -------
        self
        """
        names = set(self._get_param_names())
        super().set_params(**{k: v for k, v in params.items() if k.partition("__")[0] in names})
        others = {k: v for k, v in params.items() if k.partition("__")[0] not in names}
        if others:
            self.kwargs = {**getattr(self, "kwargs", {}), **others}
        return self

    def get_xgb_params(self) -> dict[str, Any]:
        """The parameters of training: all but those that only the estimator knows of.

        Returns
        -------
        dict
        """
        params = {k: v for k, v in self.get_params().items() if k not in _WRAPPERS and not callable(v)}
        params["random_state"] = plain_seed(params["random_state"])
        return params

    def get_num_boosting_rounds(self) -> int:
        """How many rounds fit will take."""
        return 100 if self.n_estimators is None else self.n_estimators

    def _effective(self) -> Any:
        """The parameters as attributes, each under its one name, valid.

        Raises
        ------
        InvalidParameterError
            If one is none of what it may be.
        ValueError
            If an updater or process is not built.
        """
        named: dict[str, Any] = {name: getattr(self, name) for name in self._get_param_names()}
        others = getattr(self, "kwargs", {})
        for alias, name in ALIASES.items():
            if others.get(alias) is not None and named[name] is None:
                named[name] = others[alias]
        updater = others.get("updater")
        if updater is not None:
            method = _UPDATERS.get(updater)
            if method is None:
                raise ValueError(f"updater={updater!r} is not built: use tree_method")
            named["booster" if method == "gblinear" else "tree_method"] = method
        if others.get("process_type", "default") != "default":
            raise ValueError("process_type='update' is not built: trees are grown anew")
        validate_parameter_constraints(self._parameter_constraints, named, type(self).__name__)
        unused = [name for name in others if name not in ALIASES and name not in _NEEDLESS]
        if unused and named["validate_parameters"] is not False:
            listed = ", ".join(f'"{name}"' for name in unused)
            warnings.warn(f"Parameters: {{ {listed} }} are not used.", UserWarning, stacklevel=4)
        return SimpleNamespace(**named, kwargs=others)


def plain_seed(random_state: Any) -> int | None:
    """A whole number from whatever scikit-learn takes for random_state; None for None."""
    if random_state is None:
        return None
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**31 - 1))
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31 - 1))
    return int(random_state) % 2**31


def with_defaults(**defaults: Any) -> Any:
    """`XGBParameters.__init__` with some other defaults, which are read from its signature."""
    base = XGBParameters.__init__
    made = FunctionType(base.__code__, base.__globals__, "__init__", base.__defaults__, base.__closure__)
    made.__kwdefaults__ = {**(base.__kwdefaults__ or {}), **defaults}
    made.__annotations__ = base.__annotations__
    made.__qualname__ = base.__qualname__
    return _deprecate_positional_args(made, version="1.0")
