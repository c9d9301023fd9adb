"""The fitted model of the boosting estimators, under the interface of XGBoost's Booster."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fullspan.estimators.boosting import xgboost_reader, xgboost_writer
from fullspan.estimators.boosting._data import margin_array, rows_of
from fullspan.estimators.boosting._tables import names_of
from fullspan.estimators.boosting.booster_config import booster_config
from fullspan.estimators.boosting.booster_evaluation import EvaluatedModel
from fullspan.estimators.boosting.ensemble import TreeEnsemble
from fullspan.estimators.boosting.linear import LinearModel
from fullspan.estimators.boosting.saabas import path_contributions
from fullspan.estimators.boosting.shap import shap_interactions, shap_values
from fullspan.estimators.boosting.weak import WeakModel
from fullspan.estimators.boosting.xgboost_format import Content

if TYPE_CHECKING:
    from fullspan.estimators.boosting.training import Training

Array = NDArray[Any]


class Booster(EvaluatedModel):
    """A fitted model without the estimator around it: `get_booster()` of the boosting estimators.

    Arrays, sparse matrices and DataFrames stand where XGBoost's own has a DMatrix; what has its methods
    `get_data` and `num_row` is taken as well.

    Parameters
    ----------
    params : dict, optional
        What `save_config` shows of training.
    model_file : path-like or bytes, optional
        A model that `save_model` wrote or `save_raw` gave, or that XGBoost wrote.

    Attributes
    ----------
    model : TreeEnsemble, LinearModel or WeakModel
        The trees, or what stands for them.
    objective : Objective

    Examples
    --------
    >>> import numpy as np
    >>> from fullspan.estimators import XGBRegressor
    >>> X = np.arange(40.0)[:, None]
    >>> booster = XGBRegressor(n_estimators=3, max_depth=1).fit(X, X[:, 0] > 19).get_booster()
    >>> booster.num_boosted_rounds(), booster.get_score()
    (3, {'f0': 3.0})
    >>> booster[:1].predict(X[[0, 39]]).round(2)
    array([0.36, 0.64], dtype=float32)
    >>> [tree.count("leaf") for tree in booster.get_dump()]
    [2, 2, 2]
    """

    def __init__(
        self,
        params: Mapping[str, Any] | None = None,
        model_file: Path | str | bytes | bytearray | None = None,
    ) -> None:
        self.parameters = dict(params or {})
        self._content = None
        self._training = None
        if model_file is not None:
            self.load_model(model_file)

    @classmethod
    def of(cls, content: Content, parameters: Mapping[str, Any]) -> Booster:
        """A Booster around what a file holds, or a fit has made."""
        out = cls(parameters)
        out._content = content
        return out

    @property
    def objective(self) -> Any:
        return self.content.objective

    def follow(self, training: Training | None) -> None:
        """While a model is fitted, show what there is of it; None: the fit is over."""
        if training is None:
            _ = self.content
        self._training = training

    # --- what it is like --------------------------------------------------------------------------------

    @property
    def trees_per_round(self) -> int:
        return self.content.n_parallel * int(self.content.objective.n_outputs)

    def num_boosted_rounds(self) -> int:
        """How many rounds have been boosted."""
        model = self.model
        if isinstance(model, LinearModel):
            return model.n_rounds
        n_trees = len(model.learners) if isinstance(model, WeakModel) else model.n_trees
        return n_trees // self.trees_per_round

    def attr(self, key: str) -> str | None:
        """What `set_attr` has kept under a key."""
        return self._kept.texts.get(key)

    def attributes(self) -> dict[str, str]:
        """All that `set_attr` has kept."""
        return dict(self._kept.texts)

    def set_attr(self, **attributes: str | None) -> None:
        """Keep texts with the model; None removes one.

        Raises
        ------
        ValueError
            If one is no text.
        """
        for key, value in attributes.items():
            if value is None:
                self._kept.texts.pop(key, None)
            elif isinstance(value, str):
                self._kept.texts[key] = value
            else:
                raise ValueError(f"set_attr takes texts, got a {type(value).__name__} for {key}")

    @property
    def best_iteration(self) -> int:
        """The round with the best score, after early stopping."""
        return int(self._of_early_stopping("best_iteration"))

    @best_iteration.setter
    def best_iteration(self, value: int) -> None:
        self.set_attr(best_iteration=str(value))

    @property
    def best_score(self) -> float:
        """The score of the best round, after early stopping."""
        return float(self._of_early_stopping("best_score"))

    @best_score.setter
    def best_score(self, value: float) -> None:
        self.set_attr(best_score=repr(float(value)))

    def _of_early_stopping(self, name: str) -> str:
        value = self.attr(name)
        if value is None:
            raise AttributeError(f"`{name}` is only defined when early stopping is used.")
        return value

    def set_param(self, params: Any, value: Any = None) -> None:
        """Change parameters: a name and its value, a dict, or pairs of both.

        Of a model that is being fitted the learning rate changes; otherwise it shows in `save_config` alone.
        """
        if isinstance(params, str):
            params = {params: value}
        self.parameters.update(params)
        rates = [v for k, v in dict(params).items() if k in ("learning_rate", "eta") and v is not None]
        if rates and self._training is not None:
            self._training.set_learning_rate(float(rates[-1]))

    def save_config(self) -> str:
        """Parameters and numbers of the model as JSON, in XGBoost's arrangement."""
        return json.dumps(booster_config(self.content, self.parameters), default=xgboost_writer.as_list)

    def copy(self) -> Booster:
        """A copy that shares nothing with this one; of a model that is being fitted, as it is now."""
        return Booster.of(copy.deepcopy(self.content), copy.deepcopy(self.parameters))

    def __getitem__(self, rounds: Any) -> Booster:
        """A model of some of the rounds, with neither `best_iteration` nor `best_score`.

        Raises
        ------
        IndexError
            If there are fewer rounds.
        ValueError
            If the model has no trees, or the slice ends before it begins.
        """
        if rounds is Ellipsis:
            rounds = slice(None)
        if isinstance(rounds, int | np.integer):
            rounds = slice(int(rounds), int(rounds) + 1)
        if isinstance(rounds, tuple):
            raise ValueError("Only supports slicing through 1 dimension.")
        if not isinstance(rounds, slice):
            raise TypeError(f"expected a whole number or a slice, got a {type(rounds).__name__}")
        ensemble, step = self.trees_or_error("slicing"), self.trees_per_round
        n_rounds = self.num_boosted_rounds()
        first = 0 if rounds.start in (None, Ellipsis) else rounds.start
        last = n_rounds if rounds.stop in (None, Ellipsis) else rounds.stop
        if last < first:
            raise ValueError("Invalid slice", rounds)
        if first < 0 or last > n_rounds or first == last:
            raise IndexError("Layer index out of range")
        parts = [ensemble.trees(one * step, (one + 1) * step) for one in range(first, last, rounds.step or 1)]
        content = copy.copy(self.content)
        content.model = TreeEnsemble.concat(parts)
        content.texts = {k: v for k, v in content.texts.items() if k not in ("best_iteration", "best_score")}
        return Booster.of(content, self.parameters)

    def __iter__(self) -> Iterator[Booster]:
        return (self[number] for number in range(self.num_boosted_rounds()))

    # --- predictions ------------------------------------------------------------------------------------

    def trees_of(self, iteration_range: tuple[int, int] | None) -> tuple[int, int]:
        """First and last tree of rounds; all for None or an end of 0.

        Raises
        ------
        ValueError
            If there are fewer rounds.
        """
        n_rounds = self.num_boosted_rounds()
        first, last = (0, 0) if iteration_range is None else (int(v) for v in iteration_range)
        last = last or n_rounds
        if not 0 <= first <= last <= n_rounds:
            raise ValueError(f"iteration_range is {iteration_range}, the model has {n_rounds} rounds")
        return first * self.trees_per_round, last * self.trees_per_round

    def margin(
        self,
        X: Any,
        iteration_range: tuple[int, int] | None = None,
        base_margin: Any = None,
        n_threads: int | None = None,
    ) -> NDArray[np.float32]:
        """Raw scores [n_samples, n_outputs] of rows as `rows_of` gives them."""
        if base_margin is not None:
            base_margin = margin_array(base_margin, X.shape[0], self.model.n_groups)
        model = self.model
        if isinstance(model, LinearModel):
            return model.margin(X, base_margin)
        first, last = self.trees_of(iteration_range)
        if isinstance(model, WeakModel):
            return model.margin(X, first, last, base_margin)
        return model.margin(X, first, last, base_margin, n_threads)

    def contributions(
        self,
        X: Any,
        iteration_range: tuple[int, int] | None = None,
        interactions: bool = False,
        n_threads: int | None = None,
    ) -> NDArray[np.float32]:
        """SHAP values [n_samples, n_outputs, n_features + 1], or of pairs of features."""
        model = self.model
        if isinstance(model, LinearModel):
            values = model.contributions(X)
            if not interactions:
                return values
            # Features do not act together: all stands in the diagonal.
            diagonal = np.arange(values.shape[-1])
            pairs = np.zeros((*values.shape, values.shape[-1]), dtype=np.float32)
            pairs[:, :, diagonal, diagonal] = values
            return pairs
        trees = self.trees_of(iteration_range)
        ensemble = self.trees_or_error("shap_values")
        return (shap_interactions if interactions else shap_values)(ensemble, X, *trees, n_threads)

    def predict(
        self,
        data: Any,
        *,
        output_margin: bool = False,
        pred_leaf: bool = False,
        pred_contribs: bool = False,
        approx_contribs: bool = False,
        pred_interactions: bool = False,
        validate_features: bool = True,
        training: bool = False,
        iteration_range: tuple[int, int] = (0, 0),
        strict_shape: bool = False,
        base_margin: Any = None,
    ) -> NDArray[np.float32]:
        """Predictions of all rounds, or of those of `iteration_range`.

        Parameters
        ----------
        data : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
            NaN is missing, and what a sparse matrix does not hold.
        output_margin : bool
            Raw scores.
        pred_leaf : bool
            The leaf of each row in each tree instead.
        pred_contribs, pred_interactions : bool
            SHAP values of features, or of pairs of them, instead.
        approx_contribs : bool
            With `pred_contribs`: what the splits on a row's path change, which takes less time.
        validate_features : bool
            Compare names of features.
        training : bool
            For xgboost's sake: trees that were dropped once count as well.
        iteration_range : (int, int)
            The first round and the one after the last.
        strict_shape : bool
            Keep the dimension of the outputs though there is only one.
        base_margin : array of shape (n_samples,) or (n_samples, n_outputs), optional

        Returns
        -------
        float32 array
            Of shape (n_samples,) or (n_samples, n_outputs); leaves (n_samples, n_trees); SHAP values
            (n_samples, [n_outputs,] n_features + 1); their interactions have the last dimension twice.

        Raises
        ------
        ValueError
            If names or number of features differ from the model's.
        """
        X, base_margin = self._rows(data, base_margin, validate_features)
        if pred_leaf:
            leaves = self.trees_or_error("pred_leaf").leaves(X, *self.trees_of(iteration_range))
            shape = (len(leaves), -1, int(self.content.objective.n_outputs), self.content.n_parallel)
            return leaves.reshape(shape if strict_shape else leaves.shape).astype(np.float32)
        if pred_contribs and approx_contribs and not isinstance(self.model, LinearModel):
            ensemble = self.trees_or_error("approx_contribs")
            out = path_contributions(ensemble, X, *self.trees_of(iteration_range))
        elif pred_contribs or pred_interactions:
            out = self.contributions(X, iteration_range, pred_interactions)
        else:
            out = self.margin(X, iteration_range, base_margin)
            if not output_margin:
                out = self.content.objective.prediction(out)
        return out[:, 0] if out.shape[1] == 1 and not strict_shape else out

    def inplace_predict(
        self,
        data: Any,
        *,
        iteration_range: tuple[int, int] = (0, 0),
        predict_type: str = "value",
        missing: float = np.nan,
        validate_features: bool = True,
        base_margin: Any = None,
        strict_shape: bool = False,
    ) -> NDArray[np.float32]:
        """`predict` of values or margins, with a number that stands for what is missing.

        Parameters
        ----------
        predict_type : {"value", "margin"}
        data, iteration_range, validate_features, base_margin, strict_shape :
            As of `predict`.
        missing : float

        Returns
        -------
        float32 array of shape (n_samples,) or (n_samples, n_outputs)
        """
        if predict_type not in ("value", "margin"):
            raise ValueError(f"predict_type must be 'value' or 'margin', got {predict_type!r}")
        X, base_margin = self._rows(data, base_margin, validate_features, missing)
        out = self.margin(X, iteration_range, base_margin)
        if predict_type == "value":
            out = self.content.objective.prediction(out)
        return out[:, 0] if out.shape[1] == 1 and not strict_shape else out

    def _rows(
        self, data: Any, base_margin: Any, validate_features: bool, missing: float = np.nan
    ) -> tuple[Any, Any]:
        names = names_of(data)
        if hasattr(data, "get_data") and hasattr(data, "num_row"):
            if base_margin is None and data.get_base_margin().size:
                base_margin = data.get_base_margin()
            names, data = data.feature_names, data.get_data()
        known = self.feature_names
        if validate_features and known is not None and names is not None and list(names) != list(known):
            raise ValueError(f"feature_names mismatch: {list(known)} {list(names)}")
        X = rows_of(data, self.content.categories, missing)
        if X.shape[1] != self.num_features():
            raise ValueError(
                f"Feature shape mismatch, expected: {self.num_features()}, got {X.shape[1]} features"
            )
        return X, base_margin

    # --- files ------------------------------------------------------------------------------------------

    def save_model(self, fname: Path | str) -> None:
        """Write the model as XGBoost does: JSON, or UBJSON when the name ends in ".ubj".

        Raises
        ------
        CheckpointError
            If XGBoost has no form for it, such as a custom weak learner.
        """
        xgboost_writer.write(fname, self.content)

    def save_raw(self, raw_format: str = "ubj") -> bytearray:
        """What `save_model` writes: "json" or "ubj"."""
        if raw_format not in ("json", "ubj"):
            raise ValueError(f"Unknown model format {raw_format!r}: 'json' and 'ubj' are known")
        return bytearray(xgboost_writer.encode(self.content, raw_format))

    def load_model(self, fname: Path | str | bytes | bytearray) -> None:
        """Take over a model that XGBoost, `save_model` or `save_raw` wrote.

        Raises
        ------
        CheckpointError
            If the file is missing, damaged, or uses what is not supported; the message names the key.
        """
        if isinstance(fname, bytes | bytearray):
            self._content = xgboost_reader.decode(bytes(fname), "the model")
        else:
            self._content = xgboost_reader.read(fname)
