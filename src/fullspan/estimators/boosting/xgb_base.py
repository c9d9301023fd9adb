"""What XGBClassifier, XGBRegressor and XGBRanker share once they are fitted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from fullspan.core.device import threads_of
from fullspan.estimators.boosting import xgboost_writer
from fullspan.estimators.boosting._data import features_of
from fullspan.estimators.boosting.booster import Booster
from fullspan.estimators.boosting.booster_descriptions import Model
from fullspan.estimators.boosting.ensemble import TreeEnsemble
from fullspan.estimators.boosting.linear import LinearModel
from fullspan.estimators.boosting.objective import Objective
from fullspan.estimators.boosting.xgb_fit import XGBFit, plain_parameters

Array = NDArray[Any]


class XGBBase(XGBFit):
    """Everything but what `fit` and `predict` look like."""

    @property
    def _model(self) -> Model:
        return self._Booster.model

    @property
    def _objective(self) -> Objective:
        objective: Objective = self._Booster.objective
        return objective

    def _features(self, X: Any) -> Any:
        """X as the model takes it, held against what was fitted."""
        check_is_fitted(self)
        return features_of(
            self, X, reset=False, missing=float(self.missing), enable_categorical=self.enable_categorical
        )

    def _margin(
        self, X: Any, iteration_range: tuple[int, int] | None, base_margin: Any
    ) -> NDArray[np.float32]:
        features = self._features(X)
        return self._Booster.margin(
            features, self._rounds(iteration_range), base_margin, threads_of(self._n_jobs)
        )

    @property
    def _n_jobs(self) -> int | None:
        n_jobs = self.n_jobs
        return getattr(self, "kwargs", {}).get("nthread") if n_jobs is None else n_jobs

    def _rounds(self, iteration_range: tuple[int, int] | None) -> tuple[int, int] | None:
        """The rounds that are asked for; by default those up to the best one, where one is known."""
        if isinstance(self._model, LinearModel):
            return None
        if iteration_range is not None and iteration_range[1] != 0:
            return iteration_range
        best = self._Booster.attr("best_iteration")
        return None if best is None else (0, int(best) + 1)

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
        features = self._features(X)
        trees = self._Booster.trees_of(self._rounds(iteration_range))
        ensemble = self._ensemble("apply")
        return ensemble.leaves(features, *trees, threads_of(self._n_jobs)).astype(np.float32)

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
        return self._contributions(X, iteration_range, interactions=False)

    def shap_interaction_values(
        self, X: Any, iteration_range: tuple[int, int] | None = None
    ) -> NDArray[np.float32]:
        """SHAP values parted among pairs of features.

        Returns
        -------
        float32 array of shape (n_samples, [n_outputs,] n_features + 1, n_features + 1)
            Symmetric; the rows add up to the SHAP values.
        """
        return self._contributions(X, iteration_range, interactions=True)

    def _contributions(
        self, X: Any, iteration_range: tuple[int, int] | None, interactions: bool
    ) -> NDArray[np.float32]:
        features = self._features(X)
        values = self._Booster.contributions(
            features, self._rounds(iteration_range), interactions, threads_of(self._n_jobs)
        )
        return values[:, 0] if values.shape[1] == 1 else values

    def _ensemble(self, asked: str) -> TreeEnsemble:
        return self._Booster.trees_or_error(asked)

    def get_booster(self) -> Booster:
        """The fitted model itself.

        Raises
        ------
        NotFittedError
            If there is none yet.
        """
        check_is_fitted(self)
        return self._Booster

    def set_params(self, **params: Any) -> Self:
        """Set parameters, under other names too (`eta` for `learning_rate`).

        Returns
        -------
        self
        """
        super().set_params(**params)
        if params and self.__sklearn_is_fitted__():
            self._Booster.set_param(plain_parameters(self))
        return self

    def evals_result(self) -> dict[str, dict[str, list[float]]]:
        """The metrics of the evaluation sets after each round.

        Returns
        -------
        dict
            ``{"validation_0": {"rmse": [...]}}``

        Raises
        ------
        ValueError
            If fit was given no `eval_set`.
        """
        check_is_fitted(self)
        if not getattr(self, "evals_result_", None):
            raise ValueError("No evaluation result, `eval_set` is not used during training.")
        return self.evals_result_

    @property
    def best_iteration(self) -> int:
        """The round with the best score, after early stopping."""
        return self.get_booster().best_iteration

    @property
    def best_score(self) -> float:
        """The score of the best round, after early stopping."""
        return self.get_booster().best_score

    @property
    def feature_importances_(self) -> NDArray[np.float32]:
        """Importance of each feature as `importance_type` has it ("gain" by default), adding up to one.

        With booster="gblinear" the weights themselves, for each output.
        """
        check_is_fitted(self)
        model = self._model
        if isinstance(model, LinearModel):
            if self.importance_type not in (None, "weight"):
                raise ValueError("booster='gblinear' has only the importance_type 'weight'")
            raw: Array = model.weight[:, 0] if model.n_groups == 1 else model.weight
        else:
            raw = self._ensemble("feature_importances_").importances(self.importance_type or "gain")
        total = raw.sum()
        return np.asarray(raw / total if total != 0 else raw, dtype=np.float32)

    def _linear(self, name: str) -> LinearModel:
        check_is_fitted(self)
        model = self._model
        if not isinstance(model, LinearModel):
            raise AttributeError(f"{name} is only defined with booster='gblinear'")
        return model

    @property
    def coef_(self) -> NDArray[np.float32]:
        """Weights of the features [n_features] or [n_outputs, n_features], with booster="gblinear"."""
        weight = self._linear("coef_").weight.T
        return weight[0] if len(weight) == 1 else weight

    @property
    def intercept_(self) -> NDArray[np.float32]:
        """Base scores as predictions; with booster="gblinear" the biases, which are added to them."""
        check_is_fitted(self)
        model = self._model
        if isinstance(model, LinearModel):
            return model.bias
        return xgboost_writer.base_scores(self._objective, model)

    def save_model(self, fname: Path | str) -> None:
        """Write the model as XGBoost does: JSON, or UBJSON when the name ends in ".ubj".

        Raises
        ------
        CheckpointError
            If XGBoost has no form for it, such as a custom weak learner.
        """
        booster = self.get_booster()
        booster.set_attr(scikit_learn=json.dumps(self._described()))
        try:
            booster.save_model(fname)
        finally:
            booster.set_attr(scikit_learn=None)

    def _described(self) -> dict[str, Any]:
        """What a file says of the estimator."""
        return {"_estimator_type": self._get_type()}

    def _get_type(self) -> str | None:
        kind: str | None = self.__sklearn_tags__().estimator_type
        return kind

    def load_model(self, fname: Path | str | bytes | bytearray) -> Self:
        """Take over a model that XGBoost or `save_model` wrote, JSON or UBJSON.

        Raises
        ------
        CheckpointError
            If the file is missing, damaged, or uses what is not supported; the message names the key.
        TypeError
            If the model is one of another kind of estimator.
        """
        booster = Booster({"n_jobs": self.n_jobs}, fname)
        described = _description_in(booster)
        kind = described.get("_estimator_type")
        if kind is not None and kind != self._get_type():
            raise TypeError(
                f"Loading an estimator with different type. Expecting: {self._get_type()}, got: {kind}"
            )
        self._Booster, content = booster, booster.content
        self._is_categorical, self._categories = content.is_categorical, content.categories
        self._columns = content.feature_names, content.feature_types
        self.n_features_in_ = booster.num_features()
        if content.feature_names is not None:
            self.feature_names_in_ = np.asarray(content.feature_names, dtype=object)
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        self.feature_types = content.feature_types
        self.enable_categorical = bool(self.enable_categorical or content.is_categorical.any())
        self.objective = content.objective.name
        if content.is_linear:
            self.booster = "gblinear"
        elif self.weak_learner is None:
            weights = self._ensemble("load_model").tree_weight
            self.booster = "gbtree" if np.all(weights == 1) else "dart"
        self._loaded(described)
        return self

    def _loaded(self, described: dict[str, Any]) -> None:
        """Set what else predictions need after a model has been read."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.sparse = True
        tags.input_tags.categorical = self.enable_categorical
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_Booster")


def _description_in(booster: Booster) -> dict[str, Any]:
    """What the file of a model says of its estimator, taken out of the model's attributes."""
    text = booster.attr("scikit_learn")
    booster.set_attr(scikit_learn=None)
    try:
        described = json.loads(text or "{}")
    except ValueError:
        described = {}
    return described if isinstance(described, dict) else {}
