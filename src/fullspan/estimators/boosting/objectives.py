"""What boosting minimises, under XGBoost's names: losses with XGBoost's hessians, base scores and links.

The losses themselves are those of `fullspan.estimators.losses`. An objective adds what is XGBoost's own: how
the base score is estimated, which hessians stand for the true ones, and that all of it is float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullspan.core.errors import did_you_mean
from fullspan.estimators import losses
from fullspan.estimators.boosting.objective import EPS, Objective, residual_quantile
from fullspan.estimators.boosting.ranking import PositionBias, RankingGroups, rank_gradients

Array = NDArray[Any]
_LEAST_HESSIAN = np.float32(1e-16)


class _Link(Objective):
    """Objectives with exponential predictions."""

    def to_margin(self, base_score: Array) -> Array:
        if not np.all(base_score > 0):
            raise ValueError(f"base_score must be greater than 0 for {self.name}, got {base_score.tolist()}")
        # In float64: NumPy's float32 logarithm may be off by a digit.
        return np.log(base_score.astype(np.float64)).astype(np.float32)


class _SquaredError(Objective):
    weighs_positives = True


class _SquaredLogError(Objective):
    default_metric = "rmsle"

    @property
    def loss(self) -> losses.Loss:
        return losses.SquaredLogError()

    def base_score(self, y: Array, weight: Array | None) -> Array:
        return self.stump(y, weight)


class _PseudoHuber(Objective):
    default_metric = "mphe"

    @property
    def loss(self) -> losses.Loss:
        return losses.PseudoHuber(self.parameters["huber_slope"])

    def base_score(self, y: Array, weight: Array | None) -> Array:
        return self.stump(y, weight)


class _Quantile(Objective):
    """One output for each quantile."""

    default_metric = "quantile"

    def derivatives(self, margin: Array, y: Array) -> tuple[Array, Array]:
        alpha = np.asarray(self.alphas, dtype=np.float32)
        return np.where(margin >= y, 1 - alpha, -alpha), np.ones_like(margin)

    @property
    def alphas(self) -> list[float]:
        return list(self.parameters["quantile_alpha"])

    def base_score(self, y: Array, weight: Array | None) -> Array:
        return np.array([residual_quantile(y[:, 0], a, weight) for a in self.alphas], dtype=np.float32)

    def leaf_quantile(self, output: int) -> float:
        return self.alphas[output]


class _AbsoluteError(Objective):
    default_metric = "mae"

    @property
    def loss(self) -> losses.Loss:
        return losses.AbsoluteError()

    def base_score(self, y: Array, weight: Array | None) -> Array:
        return np.array([residual_quantile(column, 0.5, weight) for column in y.T], dtype=np.float32)

    def leaf_quantile(self, output: int) -> float:
        return 0.5


class _Logistic(Objective):
    weighs_positives = True

    @property
    def loss(self) -> losses.Loss:
        return losses.Logistic()

    @property
    def default_metric(self) -> str:  # type: ignore[override]
        return "rmse" if self.name == "reg:logistic" else "logloss"

    def derivatives(self, margin: Array, y: Array) -> tuple[Array, Array]:
        p = _sigmoid(margin)
        return p - y, np.maximum(p * (1 - p), _LEAST_HESSIAN)

    def to_margin(self, base_score: Array) -> Array:
        if self.name == "binary:logitraw":
            return base_score
        if not np.all((base_score >= 0) & (base_score <= 1)):
            raise ValueError(f"base_score must be in (0,1) for the logistic loss, got {base_score.tolist()}")
        p = np.clip(np.asarray(base_score, np.float32), EPS, 1 - EPS)
        return (-np.log((1 / p - 1).astype(np.float64))).astype(np.float32)

    def prediction(self, margin: Array) -> Array:
        return margin if self.name == "binary:logitraw" else _sigmoid(margin)


class _Hinge(Objective):
    default_metric = "error"

    @property
    def loss(self) -> losses.Loss:
        return losses.Hinge()

    def base_score(self, y: Array, weight: Array | None) -> Array:
        return self.stump(y, weight)


class _Softmax(Objective):
    """Twice the true hessian's diagonal, as in XGBoost. Base scores are margins."""

    default_metric = "mlogloss"

    @property
    def loss(self) -> losses.Multinomial:
        return losses.Multinomial(self.n_outputs)

    def derivatives(self, margin: Array, y: Array) -> tuple[Array, Array]:
        g, h = self.loss.gradient_hessian(y[:, 0], margin)
        return g, np.maximum(2 * h, _LEAST_HESSIAN)

    def base_score(self, y: Array, weight: Array | None) -> Array:
        counts = np.bincount(y[:, 0].astype(np.intp), weights=weight, minlength=self.n_outputs)
        logs = np.log((counts / counts.sum()).astype(np.float32) + EPS)
        return np.asarray(logs - logs.mean(dtype=np.float32))

    def prediction(self, margin: Array) -> Array:
        if self.name == "multi:softmax":
            return np.asarray(margin.argmax(axis=1)[:, None], np.float32)
        return self.loss.inverse_link(margin)


class _Poisson(_Link):
    default_metric = "poisson-nloglik"

    @property
    def loss(self) -> losses.Loss:
        return losses.Poisson()

    def derivatives(self, margin: Array, y: Array) -> tuple[Array, Array]:
        g, h = self.loss.gradient_hessian(y, margin)
        return g, h * np.exp(np.float32(self.parameters["max_delta_step"]))


class _Gamma(_Link):
    weighs_positives = True
    default_metric = "gamma-deviance"

    @property
    def loss(self) -> losses.Loss:
        return losses.Gamma()


class _Tweedie(_Link):
    @property
    def default_metric(self) -> str:  # type: ignore[override]
        return f"tweedie-nloglik@{self.parameters['tweedie_variance_power']:g}"

    @property
    def loss(self) -> losses.Loss:
        return losses.Tweedie(self.parameters["tweedie_variance_power"])


class _Cox(_Link):
    default_metric = "cox-nloglik"

    @property
    def loss(self) -> losses.Loss:
        return losses.Cox()

    def derivatives(self, margin: Array, y: Array) -> tuple[Array, Array]:
        g, h = self.loss.gradient_hessian(y[:, 0], margin[:, 0])
        return g[:, None], h[:, None]

    def base_score(self, y: Array, weight: Array | None) -> Array:
        return self.stump(y, weight)


class _AFT(_Link):
    """y has two columns: the bounds of the time."""

    default_metric = "aft-nloglik"

    @property
    def loss(self) -> losses.Loss:
        return losses.AFT(
            self.parameters["aft_loss_distribution"], self.parameters["aft_loss_distribution_scale"]
        )

    def derivatives(self, margin: Array, y: Array) -> tuple[Array, Array]:
        g, h = self.loss.gradient_hessian(y, margin[:, 0])
        return g[:, None], h[:, None]

    def base_score(self, y: Array, weight: Array | None) -> Array:
        return np.array([0.5], dtype=np.float32)  # XGBoost estimates none


class RankObjective(Objective):
    """LambdaMART; set `groups` before asking for gradients. Weights are of the groups.

    References
    ----------
    C. Burges, "From RankNet to LambdaRank to LambdaMART: an overview", MSR-TR-2010-82.
    """

    groups: RankingGroups | None = None
    _bias: PositionBias | None = None

    @property
    def default_metric(self) -> str:  # type: ignore[override]
        kind = "map" if self.name == "rank:map" else "ndcg"
        if self.parameters["lambdarank_pair_method"] == "mean":
            return kind
        return f"{kind}@{self.n_pairs}"

    @property
    def n_pairs(self) -> int:
        given = self.parameters["lambdarank_num_pair_per_sample"]
        return int(given or (32 if self.parameters["lambdarank_pair_method"] == "topk" else 1))

    def check_y(self, y: Array) -> None:
        if self.name == "rank:map" and not np.all((y == 0) | (y == 1)):
            raise ValueError("y must be 0 or 1 for rank:map")
        if self.name == "rank:ndcg" and self.parameters["ndcg_exp_gain"]:
            if not np.all((y >= 0) & (y <= 31)):
                raise ValueError(
                    "y must be relevance degrees between 0 and 31 for rank:ndcg with ndcg_exp_gain. "
                    "Set `ndcg_exp_gain` to False for other degrees."
                )

    def gradients(self, margin: Array, y: Array, weight: Array | None, round: int) -> tuple[Array, Array]:
        if self.groups is None:
            raise ValueError("ranking needs groups of rows: give qid or group")
        p = self.parameters
        return rank_gradients(
            self.name.partition(":")[2],
            margin[:, 0],
            y[:, 0],
            self.groups,
            weight,
            self.n_pairs,
            p["lambdarank_pair_method"] == "mean",
            p["lambdarank_normalization"],
            p["lambdarank_score_normalization"],
            p["ndcg_exp_gain"],
            round,
            self.position_bias(),
        )

    def position_bias(self) -> PositionBias:
        """The ratios of this fit; none where the rows' positions do not matter."""
        if self._bias is None:
            p = self.parameters
            n_positions = 0
            if p["lambdarank_unbiased"]:
                largest = 32 if self.groups is None else int(np.diff(self.groups.start).max())
                n_positions = min(largest, 32) if p["lambdarank_pair_method"] == "mean" else self.n_pairs
            self._bias = PositionBias(n_positions, p["lambdarank_bias_norm"])
        return self._bias

    def base_score(self, y: Array, weight: Array | None) -> Array:
        out = self.stump(y, weight)
        self._bias = None
        return out


# The class of each objective, and its own parameters with XGBoost's defaults.
OBJECTIVES: dict[str, tuple[type[Objective], dict[str, Any]]] = {
    "reg:squarederror": (_SquaredError, {"scale_pos_weight": 1.0}),
    "reg:squaredlogerror": (_SquaredLogError, {}),
    "reg:pseudohubererror": (_PseudoHuber, {"huber_slope": 1.0}),
    "reg:absoluteerror": (_AbsoluteError, {}),
    "reg:quantileerror": (_Quantile, {"quantile_alpha": None}),
    "reg:logistic": (_Logistic, {"scale_pos_weight": 1.0}),
    "reg:gamma": (_Gamma, {"scale_pos_weight": 1.0}),
    "reg:tweedie": (_Tweedie, {"tweedie_variance_power": 1.5}),
    "binary:logistic": (_Logistic, {"scale_pos_weight": 1.0}),
    "binary:logitraw": (_Logistic, {"scale_pos_weight": 1.0}),
    "binary:hinge": (_Hinge, {}),
    "multi:softprob": (_Softmax, {}),
    "multi:softmax": (_Softmax, {}),
    "count:poisson": (_Poisson, {"max_delta_step": 0.7}),
    "survival:cox": (_Cox, {}),
    "survival:aft": (_AFT, {"aft_loss_distribution": "normal", "aft_loss_distribution_scale": 1.0}),
    **{
        name: (
            RankObjective,
            {
                "lambdarank_pair_method": "topk",
                "lambdarank_num_pair_per_sample": None,
                "lambdarank_normalization": True,
                "lambdarank_score_normalization": True,
                "ndcg_exp_gain": True,
                "lambdarank_unbiased": False,
                "lambdarank_bias_norm": 1.0,
            },
        )
        for name in ("rank:ndcg", "rank:pairwise", "rank:map")
    },
}


def make_objective(name: str, n_outputs: int, given: dict[str, Any]) -> Objective:
    """The objective of that name; of `given` it takes what is not None.

    Raises
    ------
    ValueError
        If there is no such objective, or one of its parameters is out of range.
    """
    if name not in OBJECTIVES:
        raise ValueError(f"objective {name!r} is unknown: {did_you_mean(name, OBJECTIVES)}")
    kind, defaults = OBJECTIVES[name]
    parameters = {key: value if given.get(key) is None else given[key] for key, value in defaults.items()}
    if "quantile_alpha" in parameters:
        alphas = [float(alpha) for alpha in np.atleast_1d(np.array(parameters["quantile_alpha"], float))]
        if not alphas or not all(0 <= alpha <= 1 for alpha in alphas):
            raise ValueError(f"quantile_alpha must be numbers from 0 to 1 for {name}, got {alphas}")
        parameters["quantile_alpha"] = alphas
        n_outputs = len(alphas)
    if not 1 <= parameters.get("tweedie_variance_power", 1.5) < 2:
        raise ValueError(
            f"tweedie_variance_power must be in [1, 2), got {parameters['tweedie_variance_power']}"
        )
    if parameters.get("huber_slope", 1.0) == 0:
        raise ValueError("huber_slope must not be 0")
    if parameters.get("aft_loss_distribution", "normal") not in ("normal", "logistic", "extreme"):
        raise ValueError(
            "aft_loss_distribution must be 'normal', 'logistic' or 'extreme', "
            f"got {parameters['aft_loss_distribution']!r}"
        )
    if parameters.get("lambdarank_pair_method", "topk") not in ("topk", "mean"):
        raise ValueError(
            f"lambdarank_pair_method must be 'topk' or 'mean', got {parameters['lambdarank_pair_method']!r}"
        )
    return kind(name, n_outputs, parameters)


def _sigmoid(x: Array) -> Array:
    return np.asarray(1 / (np.exp(np.minimum(-x, np.float32(88.7))) + np.float32(1)))
