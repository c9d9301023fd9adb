"""Parameters of a fitted model in the arrangement of XGBoost's `save_config`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from fullspan.estimators.boosting.linear import LinearModel
from fullspan.estimators.boosting.weak import WeakModel
from fullspan.estimators.boosting.xgb_parameters import ALIASES
from fullspan.estimators.boosting.xgboost_format import VERSION, Content
from fullspan.estimators.boosting.xgboost_writer import described, learner_parameters

_UPDATERS = {
    "exact": "grow_colmaker,prune",
    "approx": "grow_histmaker",
    "hist": "grow_quantile_histmaker",
}
_TREE_DEFAULTS: dict[str, Any] = {
    "reg_alpha": 0.0, "colsample_bylevel": 1.0, "colsample_bynode": 1.0, "colsample_bytree": 1.0,
    "learning_rate": 0.3, "gamma": 0.0, "grow_policy": "depthwise", "interaction_constraints": "",
    "reg_lambda": 1.0, "max_bin": 256, "max_cat_threshold": 64, "max_cat_to_onehot": 4,
    "max_delta_step": 0.0, "max_depth": 6, "max_leaves": 0, "min_child_weight": 1.0,
    "monotone_constraints": "()", "sampling_method": "uniform", "subsample": 1.0,
}  # fmt: skip


def booster_config(content: Content, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration; texts stand for numbers, as XGBoost writes them."""
    given = {ALIASES.get(k, k): v for k, v in parameters.items() if v is not None}
    threads, seed = _text(given.get("n_jobs", 0)), _text(given.get("random_state", 0))
    booster = "gblinear" if isinstance(content.model, LinearModel) else given.get("booster", "gbtree")
    metric = given.get("eval_metric", content.objective.default_metric)
    metrics = [m for m in (metric if isinstance(metric, list) else [metric]) if isinstance(m, str)]
    learner = {
        "generic_param": {
            "device": _text(given.get("device", "cpu")),
            "n_jobs": threads,
            "nthread": threads,
            "random_state": seed,
            "seed": seed,
            "validate_parameters": _text(given.get("validate_parameters", True)),
        },
        "gradient_booster": _gradient_booster(content, booster, given),
        "learner_model_param": learner_parameters(content),
        "learner_train_param": {
            "booster": booster,
            "disable_default_eval_metric": _text(given.get("disable_default_eval_metric", 0)),
            "multi_strategy": given.get("multi_strategy", "one_output_per_tree"),
            "objective": content.objective.name,
        },
        "metrics": [{"name": name} for name in metrics],
        "objective": described(content.objective),
    }
    return {"learner": learner, "version": VERSION}


def _gradient_booster(content: Content, booster: str, given: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(content.model, LinearModel):
        shown = {
            "feature_selector": _text(given.get("feature_selector", "cyclic")),
            "updater": _text(given.get("updater", "coord_descent")),
        }
        return {"gblinear_train_param": shown, "name": booster}
    method = given.get("tree_method", "auto")
    updater = _UPDATERS[{"auto": "hist"}.get(method, method)]
    values = {name: _text(given.get(name, default)) for name, default in _TREE_DEFAULTS.items()}
    for alias, name in ALIASES.items():
        if name in values:
            values[alias] = values[name]
    n_trees = 0 if isinstance(content.model, WeakModel) else content.model.n_trees
    tree = {
        "gbtree_model_param": {"num_parallel_tree": str(content.n_parallel), "num_trees": str(n_trees)},
        "gbtree_train_param": {
            "process_type": "default",
            "tree_method": method,
            "updater": updater,
            "updater_seq": updater,
        },
        "name": "gbtree",
        "tree_train_param": values,
    }
    return {"gbtree": tree, "name": "dart"} if booster == "dart" else tree


def _text(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return str(int(value))
    if isinstance(value, float | np.floating):
        return f"{float(np.float32(value)):.9g}"
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value if isinstance(value, Mapping) else list(value))
    return str(value)
