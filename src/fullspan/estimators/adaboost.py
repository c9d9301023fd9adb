"""AdaBoost: each estimator is fitted with more weight on the rows that those before it got wrong."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
from scipy.special import softmax
from sklearn.base import ClassifierMixin, RegressorMixin, clone
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils import _safe_indexing
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import _num_samples, check_is_fitted, has_fit_parameter

from fullspan.estimators._adaboost_base import LEAST_WEIGHT, AdaBoost, Round
from fullspan.estimators._adaboost_votes import all_votes, staged_votes, weighted_median
from fullspan.estimators._stump_kernels import reweight, reweight_wrong, weighted_error
from fullspan.estimators.combining import LARGEST_SEED
from fullspan.estimators.stumps import Stumps
from fullspan.estimators.tree.cart import DecisionTreeClassifier, DecisionTreeRegressor
from fullspan.estimators.tree.sharing import SharedRows

# Fits a new copy to weighted rows; returns it with what the loss needs to know of its predictions.
_FitCopy = Callable[[np.ndarray], tuple[Any, np.ndarray]]


class AdaBoostClassifier(ClassifierMixin, AdaBoost):  # type: ignore[misc]
    """Classifiers that are each fitted with more weight on what those before got wrong, and vote (SAMME).

    Equal to scikit-learn's for the same `random_state`, given equal estimators. Stumps for two classes, the
    default, are found from columns that are sorted once, on every usable core.

    Parameters
    ----------
    estimator : estimator, optional
        Its `fit` must take `sample_weight`. By default a `DecisionTreeClassifier` of depth one.
    n_estimators : int
        The most to fit; it stops sooner when one makes no error, or is no better than chance.
    learning_rate : float
        Shrinks each estimator's weight.
    random_state : int, RandomState or None
        Seeds each estimator.

    Attributes
    ----------
    estimator_ : estimator
        What is copied.
    estimators_ : list of estimators
    classes_ : ndarray of shape (n_classes,)
    n_classes_ : int
    estimator_weights_ : ndarray of shape (n_estimators,)
        ``learning_rate * (log((1 - error) / error) + log(n_classes - 1))`` of each; 0 for those not fitted.
    estimator_errors_ : ndarray of shape (n_estimators,)
        Weighted error of each; 1 for those not fitted.
    feature_importances_ : ndarray of shape (n_features,)
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features,)

    Raises
    ------
    ValueError
        In `fit`, for an estimator that takes no weights or whose first copy is no better than chance, and for
        negative weights.

    References
    ----------
    Y. Freund and R. E. Schapire, "A decision-theoretic generalization of on-line learning and an application
    to boosting", 1997. J. Zhu, H. Zou, S. Rosset and T. Hastie, "Multi-class AdaBoost", 2009, algorithm 2
    (SAMME).

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from fullspan.estimators import AdaBoostClassifier
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> model = AdaBoostClassifier(n_estimators=30, random_state=0).fit(X, y)
    >>> model.score(X, y) > 0.97
    True
    >>> weights = list(model.staged_sample_weights(X, y))  # of the rows, round by round
    >>> len(weights), bool(weights[29].max() > 10 * weights[0].max())
    (30, True)
    """

    def __init__(
        self,
        estimator: Any = None,
        *,
        n_estimators: int = 50,
        learning_rate: float = 1.0,
        random_state: Any = None,
    ) -> None:
        self.estimator = estimator
        self.n_estimators = n_estimators
        self.learning_rate = learning_rate
        self.random_state = random_state

    def _estimator_or_default(self) -> Any:
        return DecisionTreeClassifier(max_depth=1) if self.estimator is None else self.estimator

    def _check_estimator(self) -> None:
        if not has_fit_parameter(self.estimator_, "sample_weight"):
            raise ValueError(f"{type(self.estimator_).__name__} doesn't support sample_weight.")

    @contextlib.contextmanager
    def _fitting(
        self, X: Any, y: np.ndarray, used: np.ndarray, generator: np.random.RandomState
    ) -> Iterator[_FitCopy]:
        stumps = Stumps.ready_for(self.estimator_, X, y, used)
        shared_rows = functools.cache(lambda: SharedRows.ready_for(self.estimator_, X, y))
        first = clone(self.estimator_)

        def plain_copy(generator: np.random.RandomState) -> Any:
            """What `_copy` gives, of a stump, without looking through its parameters each time."""
            made = copy.copy(first)
            made.random_state = generator.randint(LARGEST_SEED)
            return made

        def fit_copy(weights: np.ndarray) -> tuple[Any, np.ndarray]:
            estimator = self._copy(generator) if stumps is None else plain_copy(generator)
            wrong = None if stumps is None else stumps.fit(estimator, weights)
            if wrong is None and (shared := shared_rows()) is not None:
                shared.fit(estimator, weights)
                wrong = estimator.predict(shared.rows, check_input=False) != y
            elif wrong is None:
                estimator.fit(X, y, sample_weight=weights)
                wrong = self._outcome(estimator, X, y)
            if not self.estimators_:
                self.classes_: Any = estimator.classes_
                self.n_classes_ = len(self.classes_)
            return estimator, wrong

        with stumps or contextlib.nullcontext():
            yield fit_copy

    def _outcome(self, estimator: Any, X: Any, y: np.ndarray) -> np.ndarray:
        return np.asarray(estimator.predict(X) != y)

    def _judge(self, weights: np.ndarray, wrong: np.ndarray) -> Round | None:
        chance = 1.0 - 1.0 / self.n_classes_
        error = float(weighted_error(weights, wrong))
        if abs(error - chance) < 1e-9:  # the last bit decides: sum as scikit-learn does
            error = float(np.average(wrong, weights=weights))
        if error <= 0:
            return Round(1.0, 0.0, lambda weights: True)
        if error >= chance:
            return None
        weight = self.learning_rate * (np.log((1.0 - error) / error) + np.log(self.n_classes_ - 1.0))
        with np.errstate(over="ignore"):
            factor = float(np.exp(weight))
        return Round(weight, error, lambda weights: reweight_wrong(weights, wrong, factor, LEAST_WEIGHT))

    def _drop_last(self) -> None:
        self.estimators_.pop()
        if not self.estimators_:
            raise ValueError(
                "BaseClassifier in AdaBoostClassifier ensemble is worse than random, ensemble can not be fit."
            )

    def _score_of(self, y: Any, predicted: np.ndarray, sample_weight: Any) -> float:
        return float(accuracy_score(y, predicted, sample_weight=sample_weight))

    def _decision(self, votes: np.ndarray, total: float) -> np.ndarray:
        scores = votes / total
        return scores[:, 1] - scores[:, 0] if self.n_classes_ == 2 else scores

    def decision_function(self, X: Any) -> np.ndarray:
        """Weighted votes for each class.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes), or (n_samples,) for two classes
            Of two classes, positive where the second one has more.
        """
        check_is_fitted(self)
        if self.n_classes_ == 1:
            return np.zeros((_num_samples(self._checked(X)), 1))
        X, is_for_trees = self._ready(X)
        votes = all_votes(self.estimators_, self.estimator_weights_, self.classes_, X, in_blocks=is_for_trees)
        return self._decision(votes, self.estimator_weights_.sum())

    def staged_decision_function(self, X: Any) -> Iterator[np.ndarray]:
        """`decision_function` after each round.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Yields
        ------
        ndarray of shape (n_samples, n_classes), or (n_samples,) for two classes
        """
        check_is_fitted(self)
        X, _ = self._ready(X)
        if self.n_classes_ == 1:
            yield np.zeros((_num_samples(X), 1))  # the first one makes no error and ends the fit
            return
        weights = self.estimator_weights_
        staged = staged_votes(self.estimators_, weights, self.classes_, X)
        for votes, total in zip(staged, np.cumsum(weights), strict=False):
            yield self._decision(votes, total)

    def _labels(self, scores: np.ndarray) -> np.ndarray:
        codes = scores > 0 if self.n_classes_ == 2 else scores.argmax(axis=1)
        return np.asarray(self.classes_.take(codes, axis=0))

    def _predict(self, X: Any) -> np.ndarray:
        return self._labels(self.decision_function(X))

    def _staged_predict(self, X: Any) -> Iterator[np.ndarray]:
        return (self._labels(scores) for scores in self.staged_decision_function(X))

    def _probabilities(self, scores: np.ndarray) -> np.ndarray:
        """Equation 15 of Zhu et al."""
        if self.n_classes_ == 1:
            return np.ones((len(scores), 1))
        if self.n_classes_ == 2:
            return np.asarray(softmax(np.column_stack([-scores, scores]) / 2, axis=1))
        return np.asarray(softmax(scores / (self.n_classes_ - 1), axis=1))

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities from the votes, as if they were log-odds.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
        """
        return self._probabilities(self.decision_function(X))

    def staged_predict_proba(self, X: Any) -> Iterator[np.ndarray]:
        """`predict_proba` after each round.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Yields
        ------
        ndarray of shape (n_samples, n_classes)
        """
        for scores in self.staged_decision_function(X):
            yield self._probabilities(scores)

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Logarithm of `predict_proba`.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
        """
        return np.asarray(np.log(self.predict_proba(X)))


class AdaBoostRegressor(RegressorMixin, AdaBoost):  # type: ignore[misc]
    """Regressors fitted to rows drawn with more weight on what those before missed most (AdaBoost.R2).

    The prediction is the weighted median. Equal to scikit-learn's for the same `random_state`, given equal
    estimators.

    Parameters
    ----------
    estimator : estimator, optional
        By default a `DecisionTreeRegressor` of depth three.
    n_estimators : int
        The most to fit; it stops sooner when one makes no error, or has an average loss of a half.
    learning_rate : float
        Shrinks each estimator's weight.
    loss : {"linear", "square", "exponential"}
        Of an error, as a share of the largest one.
    random_state : int, RandomState or None
        Seeds each estimator and draws the rows it is fitted to.

    Attributes
    ----------
    estimator_ : estimator
        What is copied.
    estimators_ : list of estimators
    estimator_weights_ : ndarray of shape (n_estimators,)
        ``learning_rate * log((1 - error) / error)`` of each; 0 for those not fitted.
    estimator_errors_ : ndarray of shape (n_estimators,)
        Average loss of each; 1 for those not fitted.
    feature_importances_ : ndarray of shape (n_features,)
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features,)

    Raises
    ------
    ValueError
        In `fit`, for negative weights.

    References
    ----------
    H. Drucker, "Improving regressors using boosting techniques", 1997.

    Examples
    --------
    >>> import numpy as np
    >>> from fullspan.estimators import AdaBoostRegressor
    >>> X = np.linspace(0, 6, 200)[:, None]
    >>> model = AdaBoostRegressor(random_state=0).fit(X, np.sin(X.ravel()))
    >>> bool(abs(model.predict([[1.57]])[0] - 1) < 0.2)
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **AdaBoost._parameter_constraints,
        "loss": [StrOptions({"linear", "square", "exponential"})],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        n_estimators: int = 50,
        learning_rate: float = 1.0,
        loss: str = "linear",
        random_state: Any = None,
    ) -> None:
        self.estimator = estimator
        self.n_estimators = n_estimators
        self.learning_rate = learning_rate
        self.loss = loss
        self.random_state = random_state

    def _estimator_or_default(self) -> Any:
        return DecisionTreeRegressor(max_depth=3) if self.estimator is None else self.estimator

    def _check_estimator(self) -> None:
        """Any regressor will do: rows are drawn by their weights."""

    @contextlib.contextmanager
    def _fitting(
        self, X: Any, y: np.ndarray, used: np.ndarray, generator: np.random.RandomState
    ) -> Iterator[_FitCopy]:
        n = _num_samples(X)

        def fit_copy(weights: np.ndarray) -> tuple[Any, np.ndarray]:
            estimator = self._copy(generator)
            rows = generator.choice(n, size=n, replace=True, p=weights)
            estimator.fit(_safe_indexing(X, rows), _safe_indexing(y, rows))
            return estimator, self._outcome(estimator, X, y)

        yield fit_copy

    def _outcome(self, estimator: Any, X: Any, y: np.ndarray) -> np.ndarray:
        return np.asarray(np.abs(estimator.predict(X) - y))

    def _judge(self, weights: np.ndarray, misses: np.ndarray) -> Round | None:
        losses = self._losses(misses, misses[weights > 0].max())
        error = float((weights * losses).sum())
        if error <= 0:
            return Round(1.0, 0.0, lambda weights: True)
        if error >= 0.5:
            return None
        beta = error / (1.0 - error)
        factors = beta ** ((1.0 - losses) * self.learning_rate)
        return Round(
            self.learning_rate * np.log(1.0 / beta),
            error,
            lambda weights: reweight(weights, factors, LEAST_WEIGHT),
        )

    def _losses(self, misses: np.ndarray, largest: float) -> np.ndarray:
        # Rows without weight may miss by more than the largest of the others.
        shares = np.minimum(misses / largest, 1.0) if largest != 0 else misses
        if self.loss == "square":
            shares = shares**2
        elif self.loss == "exponential":
            shares = 1.0 - np.exp(-shares)
        return np.asarray(shares)

    def _drop_last(self) -> None:
        if len(self.estimators_) > 1:  # a poor one is better than none
            self.estimators_.pop()

    def _score_of(self, y: Any, predicted: np.ndarray, sample_weight: Any) -> float:
        return float(r2_score(y, predicted, sample_weight=sample_weight))

    def _predictions(self, X: Any) -> np.ndarray:
        """[n_samples, n_estimators]."""
        X, is_for_trees = self._ready(X)
        if is_for_trees:
            return np.array([each.predict(X, check_input=False) for each in self.estimators_]).T
        return np.array([estimator.predict(X) for estimator in self.estimators_]).T

    def _predict(self, X: Any) -> np.ndarray:
        return weighted_median(self._predictions(X), self.estimator_weights_)

    def _staged_predict(self, X: Any) -> Iterator[np.ndarray]:
        predictions = self._predictions(X)
        for count in range(1, len(self.estimators_) + 1):
            yield weighted_median(predictions[:, :count], self.estimator_weights_)
