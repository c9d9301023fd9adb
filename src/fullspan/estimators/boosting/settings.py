"""Parameters of the boosting estimators with XGBoost's defaults put in, held against each other."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullspan.core.device import threads_of
from fullspan.estimators.binning import MOST_BINS
from fullspan.estimators.boosting.dart import Dropout
from fullspan.estimators.boosting.hist import GrowConfig
from fullspan.estimators.boosting.xgb_parameters import plain_seed


@dataclass(frozen=True)
class Settings:
    """What one fit goes by. `config` has the learning rate of one tree, `learning_rate` that of a round."""

    booster: str
    tree_method: str
    n_rounds: int
    learning_rate: float
    n_parallel: int
    subsample: float
    gradient_based: bool
    max_bins: int
    multi_output: bool
    shuffle: bool
    dropout: Dropout
    config: GrowConfig
    feature_weights: NDArray[np.float64] | None


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def settings_of(e: Any, n_features: int, names: Sequence[str] | None) -> Settings:
    """The settings of estimator `e`.

    Raises
    ------
    ValueError
        If a parameter has no meaning beside another, or a constraint does not fit the features.
    """
    booster = _or(e.booster, "gbtree")
    tree_method = {"auto": "hist"}.get(_or(e.tree_method, "hist"), _or(e.tree_method, "hist"))
    grow_policy = _or(e.grow_policy, "depthwise")
    _refuse_contradictions(e, booster, tree_method, grow_policy)
    learning_rate = float(_or(e.learning_rate, 0.5 if booster == "gblinear" else 0.3))
    n_parallel = int(_or(e.num_parallel_tree, 1))
    max_bins = int(_or(e.max_bin, 256))
    if max_bins > MOST_BINS + 1 and tree_method != "exact":
        warnings.warn(f"max_bin={max_bins} is more than there can be: {MOST_BINS} are used", stacklevel=5)
    seed = plain_seed(e.random_state) or 0
    config = GrowConfig(
        max_leaves=int(_or(e.max_leaves, 0)),
        max_depth=int(_or(e.max_depth, 6)),
        grow_policy=grow_policy,
        learning_rate=learning_rate / n_parallel,
        reg_lambda=float(_or(e.reg_lambda, 0.0 if booster == "gblinear" else 1.0)),
        reg_alpha=float(_or(e.reg_alpha, 0.0)),
        gamma=float(_or(e.gamma, 0.0)),
        min_child_weight=float(_or(e.min_child_weight, 1.0)),
        max_delta_step=float(_or(e.max_delta_step, 0.7 if e.objective == "count:poisson" else 0.0)),
        monotone=monotone_of(e.monotone_constraints, n_features, names),
        interactions=interactions_of(e.interaction_constraints, n_features, names),
        max_cat_to_onehot=int(_or(e.max_cat_to_onehot, 4)),
        max_cat_threshold=int(_or(e.max_cat_threshold, 64)),
        colsample_bytree=float(_or(e.colsample_bytree, 1.0)),
        colsample_bylevel=float(_or(e.colsample_bylevel, 1.0)),
        colsample_bynode=float(_or(e.colsample_bynode, 1.0)),
        seed=seed,
        n_threads=threads_of(e.n_jobs),
    )
    return Settings(
        booster=booster,
        tree_method=tree_method,
        n_rounds=int(_or(e.n_estimators, 100)),
        learning_rate=learning_rate,
        n_parallel=n_parallel,
        subsample=float(_or(e.subsample, 1.0)),
        gradient_based=_or(e.sampling_method, "uniform") == "gradient_based",
        max_bins=min(max_bins, MOST_BINS),
        multi_output=e.multi_strategy == "multi_output_tree",
        shuffle=_or(e.feature_selector, "cyclic") == "shuffle",
        dropout=Dropout(
            float(_or(e.rate_drop, 0.0)),
            float(_or(e.skip_drop, 0.0)),
            bool(_or(e.one_drop, False)),
            _or(e.sample_type, "uniform"),
            _or(e.normalize_type, "tree"),
        ),
        config=config,
        feature_weights=e.feature_weights,
    )


_DART = ("rate_drop", "skip_drop", "one_drop", "sample_type", "normalize_type")
_TREES = (
    "tree_method", "max_depth", "max_leaves", "max_bin", "grow_policy", "gamma", "min_child_weight",
    "subsample", "sampling_method", "colsample_bytree", "colsample_bylevel", "colsample_bynode",
    "num_parallel_tree", "monotone_constraints", "interaction_constraints", "max_cat_to_onehot",
    "max_cat_threshold",
)  # fmt: skip


def _refuse_contradictions(e: Any, booster: str, tree_method: str, grow_policy: str) -> None:
    def given(names: Sequence[str], default: Any = None) -> list[str]:
        return [name for name in names if getattr(e, name) is not default]

    if booster != "dart" and given(_DART):
        raise ValueError(f"{given(_DART)[0]} is of use with booster='dart' only, got booster={booster!r}")
    if booster != "gblinear" and e.feature_selector is not None:
        raise ValueError(f"feature_selector is of use with booster='gblinear' only, got booster={booster!r}")
    if booster == "gblinear" and given(_TREES):
        raise ValueError(f"{given(_TREES)[0]} is of no use with booster='gblinear', which has no trees")
    if e.weak_learner is not None:
        if e.booster is not None:
            raise ValueError(
                f"weak_learner takes the place of the trees of booster={e.booster!r}: set one of both"
            )
        if given(_TREES):
            raise ValueError(f"{given(_TREES)[0]} is of no use with weak_learner, which has no such trees")
    if tree_method == "exact":
        if grow_policy == "lossguide":
            raise ValueError(
                "grow_policy='lossguide' is not for tree_method='exact', which grows level by level"
            )
        if _or(e.max_leaves, 0) != 0:
            raise ValueError("max_leaves is not for tree_method='exact', which grows level by level")
        if _or(e.max_depth, 6) == 0:
            raise ValueError("max_depth must be positive for tree_method='exact'")
    elif _or(e.max_depth, 6) == 0 and _or(e.max_leaves, 0) == 0:
        raise ValueError("max_leaves and max_depth cannot both be unconstrained (0)")
    if e.multi_strategy == "multi_output_tree" and booster != "gblinear":
        if tree_method != "hist":
            raise ValueError(f"multi_strategy='multi_output_tree' is not for tree_method={tree_method!r}")
        if e.monotone_constraints:
            raise ValueError("monotone_constraints are not for multi_strategy='multi_output_tree'")
    if _or(e.device, "cpu") != "cpu":
        raise ValueError(f"device={e.device!r} is not built, only 'cpu' is")


def _index(feature: Any, n_features: int, names: Sequence[str] | None, parameter: str) -> int:
    if isinstance(feature, str):
        if names is None or feature not in names:
            raise ValueError(f"{parameter} names the feature {feature!r}, which is none of the data's")
        return list(names).index(feature)
    if not 0 <= int(feature) < n_features:
        raise ValueError(f"{parameter} names feature {feature}, the data has {n_features}")
    return int(feature)


def _literal(text: str, parameter: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        raise ValueError(f"{parameter} is not a list: {text!r}") from None


def monotone_of(given: Any, n_features: int, names: Sequence[str] | None) -> tuple[int, ...] | None:
    """-1, 0 or 1 for each feature, from a sequence, its text, or a mapping from features."""
    if given is None or (isinstance(given, str) and not given):
        return None
    if isinstance(given, str):
        given = _literal(given, "monotone_constraints")
    out = np.zeros(n_features, dtype=int)
    if isinstance(given, Mapping):
        for feature, sign in given.items():
            out[_index(feature, n_features, names, "monotone_constraints")] = sign
    else:
        signs = np.atleast_1d(np.asarray(given, dtype=int))
        if len(signs) > n_features:
            raise ValueError(
                f"monotone_constraints has {len(signs)} entries, the data has {n_features} features"
            )
        out[: len(signs)] = signs
    if not np.isin(out, (-1, 0, 1)).all():
        raise ValueError(f"monotone_constraints must be -1, 0 or 1, got {out.tolist()}")
    return tuple(out.tolist()) if out.any() else None


def interactions_of(
    given: Any, n_features: int, names: Sequence[str] | None
) -> tuple[tuple[int, ...], ...] | None:
    """Sets of features that may meet on a path, from nested sequences or their text."""
    if given is None or (isinstance(given, str) and not given):
        return None
    if isinstance(given, str):
        given = _literal(given, "interaction_constraints")
    return tuple(
        tuple(sorted({_index(f, n_features, names, "interaction_constraints") for f in members}))
        for members in given
    )


def sampled(
    settings: Settings, g: NDArray[np.float32], h: NDArray[np.float32], tree: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_] | None]:
    """Gradients with 0 for the rows that this tree is not shown, and which it is shown (None: all).

    g and h have shape (n_samples,), or (n_samples, n_outputs) for a tree of all outputs.

    Gradient-based sampling takes rows in proportion to the norm of (g, sqrt(lambda) h), and weighs them by
    the inverse of their chance (Ou 2020, "Out-of-core GPU gradient boosting", section 2.4).
    """
    if settings.subsample >= 1:
        return g, h, None
    draw = np.random.default_rng([settings.config.seed, 1, tree]).random(len(g), dtype=np.float32)
    if not settings.gradient_based:
        chosen = draw < settings.subsample
        shown = chosen.astype(np.float32).reshape(-1, *[1] * (g.ndim - 1))
        return g * shown, h * shown, chosen
    squares = g.astype(np.float64) ** 2 + settings.config.reg_lambda * h.astype(np.float64) ** 2
    norm = np.sqrt(squares.reshape(len(g), -1).sum(axis=1))
    chance = np.minimum(norm * _rate(norm, settings.subsample * len(g)), 1)
    chosen = draw < chance
    inverse = np.divide(1, chance, out=np.zeros_like(chance), where=chosen)
    inverse = inverse.reshape(-1, *[1] * (g.ndim - 1))
    return (g * inverse).astype(np.float32), (h * inverse).astype(np.float32), chosen


def _rate(norm: NDArray[np.float64], wanted: float) -> float:
    """The r for which min(1, r norm) adds up to `wanted`."""
    ordered = np.sort(norm)[::-1]
    rest = np.cumsum(ordered[::-1])[::-1]
    # With the first k rows certain, the others share what is left.
    for k in range(len(ordered)):
        if rest[k] <= 0:
            break
        rate = (wanted - k) / rest[k]
        if rate * ordered[k] <= 1:
            return float(max(rate, 0))
    return 1 / max(float(ordered[-1]), 1e-300) if len(ordered) else 0.0
