"""AdaBoost, for classes and for numbers: the loop of rounds."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from sklearn.base import _fit_context, is_regressor
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods, Interval
from sklearn.utils.metadata_routing import _raise_for_unsupported_routing, _RoutingNotSupportedMixin
from sklearn.utils.validation import (
    _check_sample_weight,
    check_is_fitted,
    check_non_negative,
    validate_data,
)

from fullspan.estimators._stump_kernels import reweight
from fullspan.estimators.combining import Repeated
from fullspan.estimators.tree.cart import DecisionTreeClassifier, DecisionTreeRegressor

LEAST_WEIGHT = np.finfo(np.float64).eps


class Round(NamedTuple):
    """What one estimator changes."""

    estimator_weight: float
    error: float
    reweight: Callable[[np.ndarray], bool]  # changes the rows' weights in place, False if they overflow


class AdaBoost(_RoutingNotSupportedMixin, Repeated):  # type: ignore[misc]
    """The loop of rounds; subclasses say what an error is."""

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "estimator": [HasMethods(["fit", "predict"]), None],
        "n_estimators": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "random_state": ["random_state"],
    }

    @_fit_context(prefer_skip_nested_validation=False)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the estimators, one after the other.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
        sample_weight : array-like of shape (n_samples,), optional
            Weights to begin with; equal ones by default.

        Returns
        -------
        self
        """
        _raise_for_unsupported_routing(self, "fit", sample_weight=sample_weight)
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse=["csr", "csc"],
            allow_nd=True,
            dtype=None,
            y_numeric=is_regressor(self),
        )
        weights = self._first_weights(X, sample_weight)
        self.estimator_ = self._estimator_or_default()
        self._check_estimator()
        self.estimators_: list[Any] = []
        self.estimator_weights_ = np.zeros(self.n_estimators)
        self.estimator_errors_ = np.ones(self.n_estimators)
        generator = check_random_state(self.random_state)
        with self._fitting(X, y, weights > 0, generator) as fit_copy:
            for index in range(self.n_estimators):
                estimator, outcome = fit_copy(weights)
                self.estimators_.append(estimator)
                done = self._judge(weights, outcome)
                if done is None:
                    self._drop_last()
                    break
                self.estimator_weights_[index] = done.estimator_weight
                self.estimator_errors_[index] = done.error
                if done.error == 0 or index == self.n_estimators - 1:
                    break
                if not done.reweight(weights):
                    warnings.warn(
                        f"Sample weights have reached infinite values, at iteration {index}, causing "
                        "overflow. Iterations stopped. Try lowering the learning rate.",
                        stacklevel=3,
                    )
                    break
        return self

    def _first_weights(self, X: Any, sample_weight: Any) -> np.ndarray:
        weights = _check_sample_weight(sample_weight, X, dtype=np.float64, copy=True)
        check_non_negative(weights, "`sample_weight`")
        reweight(weights, np.ones(len(weights)), LEAST_WEIGHT)
        return np.asarray(weights)

    def staged_sample_weights(self, X: Any, y: Any, sample_weight: Any = None) -> Iterator[np.ndarray]:
        """The rows' weights that each estimator was fitted with, worked out anew from the fitted estimators.

        Parameters
        ----------
        X, y, sample_weight
            What `fit` was given.

        Yields
        ------
        ndarray of shape (n_samples,)
            Weights that sum to one (but for those raised to the least weight).
        """
        check_is_fitted(self)
        X = self._checked(X)
        weights = self._first_weights(X, sample_weight)
        for estimator in self.estimators_:
            yield weights.copy()
            done = self._judge(weights, self._outcome(estimator, X, np.asarray(y)))
            if done is None or not done.reweight(weights):
                return

    def _checked(self, X: Any) -> Any:
        return validate_data(
            self, X, accept_sparse=["csr", "csc"], ensure_2d=True, allow_nd=True, dtype=None, reset=False
        )

    def _ready(self, X: Any) -> tuple[Any, bool]:
        """Checked rows, and whether they are as fullspan's trees take them without a further look."""
        X = self._checked(X)
        if isinstance(self.estimator_, DecisionTreeClassifier | DecisionTreeRegressor):
            return self.estimators_[0]._validate_X_predict(X, check_input=True), True
        return X, False

    def predict(self, X: Any) -> np.ndarray:
        """The label with most votes, or the weighted median of the estimators' predictions.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        check_is_fitted(self)
        predicted: np.ndarray = self._predict(X)
        return predicted

    def staged_predict(self, X: Any) -> Iterator[np.ndarray]:
        """`predict` after each round.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Yields
        ------
        ndarray of shape (n_samples,)
        """
        check_is_fitted(self)
        yield from self._staged_predict(X)

    def staged_score(self, X: Any, y: Any, sample_weight: Any = None) -> Iterator[float]:
        """The score after each round.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
        sample_weight : array-like of shape (n_samples,), optional

        Yields
        ------
        float
            Accuracy of a classifier, R² of a regressor.
        """
        X = self._checked(X)
        for predicted in self.staged_predict(X):
            yield self._score_of(y, predicted, sample_weight)

    @property
    def feature_importances_(self) -> np.ndarray:
        """Mean of the estimators' importances, weighted as the estimators are: (n_features,)."""
        if not getattr(self, "estimators_", None):
            raise ValueError("Estimator not fitted, call `fit` before `feature_importances_`.")
        try:
            importances = [estimator.feature_importances_ for estimator in self.estimators_]
        except AttributeError as error:
            raise AttributeError(
                "Unable to compute feature importances since estimator does not have a "
                "feature_importances_ attribute"
            ) from error
        weights = self.estimator_weights_
        total = sum(w * each for w, each in zip(weights, importances, strict=False))
        return np.asarray(total / weights.sum())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
