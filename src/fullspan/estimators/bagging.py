"""Bagging: copies of one estimator, each fitted with rows and features drawn at random, and averaged."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils import Bunch
from sklearn.utils.metadata_routing import _raise_for_params
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _estimator_has, check_is_fitted, column_or_1d

from fullspan.estimators._bagging_base import Bagging, warn_of_rows_without_scores
from fullspan.estimators.combining import routed
from fullspan.estimators.tree.cart import DecisionTreeClassifier, DecisionTreeRegressor


class BaggingClassifier(ClassifierMixin, Bagging):  # type: ignore[misc]
    """Copies of a classifier, each fitted with rows and features drawn at random; probabilities are averaged.

    Equal to scikit-learn's for the same `random_state`, given equal copies; with any number of threads.

    Parameters
    ----------
    estimator : estimator, optional
        By default a `DecisionTreeClassifier`. Without `predict_proba`, the copies vote.
    n_estimators : int
    max_samples : int, float or None
        Rows drawn for each: a number, or a fraction of all (of the weights' sum, if rows have weights).
    max_features : int or float
        Features drawn for each.
    bootstrap : bool
        Whether rows are drawn with replacement.
    bootstrap_features : bool
        Whether features are drawn with replacement.
    oob_score : bool
        Estimate the accuracy with rows that an estimator did not see.
    warm_start : bool
        Keep the estimators of the last fit and add to them.
    n_jobs : int, optional
        Copies fitted side by side, in threads. None: every usable core for fullspan's own estimators, one for
        others; -1: every core.
    random_state : int, RandomState or None
    verbose : int

    Attributes
    ----------
    estimator_ : estimator
        What is copied.
    estimators_ : list of estimators
    estimators_samples_ : list of ndarray
        Rows each was fitted with.
    estimators_features_ : list of ndarray
        Features each was fitted with.
    classes_ : ndarray of shape (n_classes,)
    n_classes_ : int
    oob_score_ : float
        Accuracy on rows not seen; only with `oob_score`.
    oob_decision_function_ : ndarray of shape (n_samples, n_classes)
        Probabilities from estimators that did not see the row; NaN where all did. Only with `oob_score`.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features,)

    Raises
    ------
    ValueError
        In `fit`, for more features than there are, more rows than there are without replacement, `oob_score`
        without `bootstrap` or with `warm_start`, or fewer `n_estimators` than a warm start has.

    References
    ----------
    L. Breiman, "Bagging predictors", Machine Learning 24, 1996.
    L. Breiman, "Pasting small votes for classification in large databases and on-line", 1999.
    T. K. Ho, "The random subspace method for constructing decision forests", 1998.
    G. Louppe and P. Geurts, "Ensembles on random patches", 2012.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fullspan.estimators import BaggingClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> bag = BaggingClassifier(n_estimators=50, oob_score=True, random_state=0).fit(X, y)
    >>> bag.oob_score_ > 0.9
    True
    """

    def _estimator_or_default(self) -> Any:
        return DecisionTreeClassifier() if self.estimator is None else self.estimator

    def _encoded(self, y: np.ndarray) -> np.ndarray:
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        self.n_classes_ = len(self.classes_)
        return codes

    def _set_oob_score(self, X: Any, y: np.ndarray) -> None:
        scores = np.zeros((len(y), self.n_classes_))
        for unseen, probabilities in self._out_of_bag(X, lambda each, x: self._one_proba(each, x, {}, {})):
            scores[unseen] += probabilities
        totals = scores.sum(axis=1, keepdims=True)
        if (totals == 0).any():
            warn_of_rows_without_scores()
        with np.errstate(invalid="ignore"):
            self.oob_decision_function_ = scores / totals
        self.oob_score_ = float(accuracy_score(y, scores.argmax(axis=1)))

    def predict(self, X: Any, **params: Any) -> np.ndarray:
        """The label of the largest mean probability.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        **params : dict
            For the estimator's method; needs scikit-learn's metadata routing.

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        _raise_for_params(params, self, "predict")
        codes = self.predict_proba(X, **params).argmax(axis=1)
        labels: np.ndarray = self.classes_.take(codes, axis=0)
        return labels

    def predict_proba(self, X: Any, **params: Any) -> np.ndarray:
        """Mean of the estimators' probabilities, or of their votes if they have none.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        **params : dict
            For the estimator's method; needs scikit-learn's metadata routing.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
        """
        _raise_for_params(params, self, "predict_proba")
        X = self._checked(X)
        asked = routed(self, "predict_proba", params, lambda: Bunch(estimator=Bunch())).estimator
        by_vote, by_probability = asked.get("predict", {}), asked.get("predict_proba", {})
        total = np.zeros((X.shape[0], self.n_classes_))
        for each in self._answers(X, lambda est, x: self._one_proba(est, x, by_vote, by_probability)):
            total += each
        return total / len(self.estimators_)

    def _one_proba(
        self, estimator: Any, X: Any, by_vote: dict[str, Any], by_probability: dict[str, Any]
    ) -> np.ndarray:
        """One estimator's probabilities: [n_samples, n_classes], 0 for a class that it never saw."""
        if not hasattr(estimator, "predict_proba"):
            return np.asarray(np.eye(self.n_classes_)[estimator.predict(X, **by_vote)])
        return self._all_classes(estimator, estimator.predict_proba(X, **by_probability), 0.0)

    def _all_classes(self, estimator: Any, answer: np.ndarray, fill: float) -> np.ndarray:
        if len(estimator.classes_) == self.n_classes_:
            return answer
        full = np.full((len(answer), self.n_classes_), fill)
        full[:, estimator.classes_] = answer
        return full

    def predict_log_proba(self, X: Any, **params: Any) -> np.ndarray:
        """Logarithm of `predict_proba`, summed as logarithms where the estimator gives them.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        **params : dict
            For the estimator's method; needs scikit-learn's metadata routing.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
        """
        _raise_for_params(params, self, "predict_log_proba")
        check_is_fitted(self)
        if not hasattr(self.estimator_, "predict_log_proba"):
            with np.errstate(divide="ignore"):
                return np.asarray(np.log(self.predict_proba(X, **params)))
        X = self._checked(X)
        asked = routed(
            self, "predict_log_proba", params, lambda: Bunch(estimator=Bunch(predict_log_proba={}))
        ).estimator.predict_log_proba

        def one(estimator: Any, x: Any) -> np.ndarray:
            return self._all_classes(estimator, estimator.predict_log_proba(x, **asked), -np.inf)

        total = np.full((X.shape[0], self.n_classes_), -np.inf)
        for each in self._answers(X, one):
            total = np.logaddexp(total, each)
        return np.asarray(total - np.log(len(self.estimators_)))

    @available_if(_estimator_has("decision_function", delegates=("estimators_", "estimator")))  # type: ignore[untyped-decorator]
    def decision_function(self, X: Any, **params: Any) -> np.ndarray:
        """Mean of the estimators' decision values.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        **params : dict
            For the estimator's method; needs scikit-learn's metadata routing.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_classes)
        """
        return self._mean_answer(X, "decision_function", params)


class BaggingRegressor(RegressorMixin, Bagging):  # type: ignore[misc]
    """Copies of a regressor, each fitted with rows and features drawn at random, and averaged.

    Equal to scikit-learn's for the same `random_state`, given equal copies; with any number of threads.

    Parameters
    ----------
    estimator : estimator, optional
        By default a `DecisionTreeRegressor`.
    n_estimators : int
    max_samples : int, float or None
        Rows drawn for each: a number, or a fraction of all (of the weights' sum, if rows have weights).
    max_features : int or float
        Features drawn for each.
    bootstrap : bool
        Whether rows are drawn with replacement.
    bootstrap_features : bool
        Whether features are drawn with replacement.
    oob_score : bool
        Estimate R² with rows that an estimator did not see.
    warm_start : bool
        Keep the estimators of the last fit and add to them.
    n_jobs : int, optional
        Copies fitted side by side, in threads. None: every usable core for fullspan's own estimators, one for
        others; -1: every core.
    random_state : int, RandomState or None
    verbose : int

    Attributes
    ----------
    estimator_ : estimator
        What is copied.
    estimators_ : list of estimators
    estimators_samples_ : list of ndarray
        Rows each was fitted with.
    estimators_features_ : list of ndarray
        Features each was fitted with.
    oob_score_ : float
        R² on rows not seen; only with `oob_score`.
    oob_prediction_ : ndarray of shape (n_samples,)
        Mean prediction of the estimators that did not see the row, 0 where all did. Only with `oob_score`.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features,)

    Raises
    ------
    ValueError
        In `fit`, as for `BaggingClassifier`.

    References
    ----------
    L. Breiman, "Bagging predictors", Machine Learning 24, 1996.
    L. Breiman, "Pasting small votes for classification in large databases and on-line", 1999.
    T. K. Ho, "The random subspace method for constructing decision forests", 1998.
    G. Louppe and P. Geurts, "Ensembles on random patches", 2012.

    Examples
    --------
    >>> import numpy as np
    >>> from fullspan.estimators import BaggingRegressor
    >>> X = np.arange(100.0)[:, None]
    >>> bag = BaggingRegressor(random_state=0).fit(X, X.ravel() ** 2)
    >>> bool(abs(bag.predict([[50.0]])[0] - 2500) < 100)
    True
    """

    def _estimator_or_default(self) -> Any:
        return DecisionTreeRegressor() if self.estimator is None else self.estimator

    def _encoded(self, y: np.ndarray) -> np.ndarray:
        if y.ndim == 1 or y.shape[1] == 1:
            column: np.ndarray = column_or_1d(y, warn=True)
            return column
        return y

    def _set_oob_score(self, X: Any, y: np.ndarray) -> None:
        total = np.zeros(y.shape)
        times = np.zeros(len(y))
        for unseen, predicted in self._out_of_bag(X, lambda each, x: each.predict(x)):
            total[unseen] += predicted
            times[unseen] += 1
        if (times == 0).any():
            warn_of_rows_without_scores()
        self.oob_prediction_ = (total.T / np.maximum(times, 1)).T
        self.oob_score_ = float(r2_score(y, self.oob_prediction_))

    def predict(self, X: Any, **params: Any) -> np.ndarray:
        """Mean of the estimators' predictions.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        **params : dict
            For the estimator's `predict`; needs scikit-learn's metadata routing.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
        """
        return self._mean_answer(X, "predict", params)
