"""Stacking: a final estimator learns from what the others predict for rows they were not fitted with."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin, _fit_context, is_classifier, is_regressor

# The default final estimators; fullspan's own linear models have the same interface.
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metadata_routing import _raise_for_params
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import _estimator_has, check_is_fitted, column_or_1d

from fullspan.estimators._stacking_base import FINAL, Stacking
from fullspan.estimators.combining import require_finite_labels


class StackingClassifier(ClassifierMixin, Stacking):  # type: ignore[misc]
    """Classifiers whose out-of-fold predictions a final classifier learns to combine.

    Parameters
    ----------
    estimators : list of (str, estimator)
        Copies are fitted; `set_params(name="drop")` takes one out. Regressors are allowed.
    final_estimator : estimator, optional
        By default a logistic regression.
    cv : int, splitter, iterable of (train, test) or "prefit", optional
        The folds; five stratified ones by default. Folds that leave rows out, such as those of
        `TimeSeriesSplit` in order of time, are allowed, which scikit-learn refuses: the final estimator is
        then fitted with the rows that were predicted. "prefit": the estimators are fitted already and used as
        they are.
    stack_method : {"auto", "predict_proba", "decision_function", "predict"}
        What the final estimator sees; "auto" is the first of the three that an estimator has.
    n_jobs : int, optional
        Estimators fitted side by side, in threads. None: every usable core for fullspan's own estimators, one
        for others; -1: every core.
    passthrough : bool
        Whether the final estimator also sees the features.
    verbose : int
        Passed to the cross-validation.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,), or a list of those for several labels at once
    estimators_ : list of estimators
        Fitted with all rows, without those dropped.
    named_estimators_ : Bunch
        The same by name.
    final_estimator_ : estimator
    stack_method_ : list of str
        The method used of each estimator.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features,)
        If an estimator has it.

    Raises
    ------
    ValueError
        In `fit`, for continuous targets, names that repeat or hold "__", a final estimator that is no
        classifier, or a fold that tests a row a second time.

    References
    ----------
    D. H. Wolpert, "Stacked generalization", Neural Networks 5, 1992.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.naive_bayes import GaussianNB
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> from fullspan.estimators import StackingClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> stack = StackingClassifier([("nb", GaussianNB()), ("knn", KNeighborsClassifier())]).fit(X, y)
    >>> stack.transform(X).shape
    (150, 6)
    >>> stack.score(X, y) > 0.95
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **Stacking._parameter_constraints,
        "stack_method": [StrOptions({"auto", "predict_proba", "decision_function", "predict"})],
    }

    def __init__(
        self,
        estimators: list[tuple[str, Any]],
        final_estimator: Any = None,
        *,
        cv: Any = None,
        stack_method: str = "auto",
        n_jobs: int | None = None,
        passthrough: bool = False,
        verbose: int = 0,
    ) -> None:
        self.estimators = estimators
        self.final_estimator = final_estimator
        self.cv = cv
        self.stack_method = stack_method
        self.n_jobs = n_jobs
        self.passthrough = passthrough
        self.verbose = verbose

    def _final_or_default(self) -> Any:
        return LogisticRegression() if self.final_estimator is None else self.final_estimator

    def _check_final(self, estimator: Any) -> None:
        if not is_classifier(estimator):
            raise ValueError(f"'final_estimator' parameter should be a classifier. Got {estimator}")

    def _check_kinds(self, estimators: list[Any]) -> None:
        """Regressors may stand among the classifiers."""

    @_fit_context(prefer_skip_nested_validation=False)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any, **fit_params: Any) -> Self:
        """Fit the estimators, and the final one with their out-of-fold predictions.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : array-like of shape (n_samples,), or (n_samples, n_labels) of 0 and 1
        **fit_params : dict
            `sample_weight` goes to every estimator, in every fold, and to the final one; anything else needs
            scikit-learn's metadata routing.

        Returns
        -------
        self
        """
        _raise_for_params(fit_params, self, "fit", allow=["sample_weight"])
        require_finite_labels(y)
        check_classification_targets(y)
        if type_of_target(y) == "multilabel-indicator":
            encoded = [np.unique(column, return_inverse=True) for column in np.asarray(y).T]
            self.classes_: Any = [classes for classes, _ in encoded]
            codes = np.column_stack([codes for _, codes in encoded])
        else:
            self.classes_, codes = np.unique(column_or_1d(y, warn=True), return_inverse=True)
        return self._fit(X, codes, fit_params, self.stack_method)

    @available_if(_estimator_has("predict", delegates=FINAL))  # type: ignore[untyped-decorator]
    def predict(self, X: Any, **predict_params: Any) -> np.ndarray:
        """Label for each row.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        **predict_params : dict
            For the final estimator's `predict`.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_labels)
        """
        codes = self._predict(X, predict_params)
        if isinstance(self.classes_, list):
            return np.column_stack(
                [classes[column] for classes, column in zip(self.classes_, codes.T, strict=True)]
            )
        labels: np.ndarray = self.classes_[codes]
        return labels

    @available_if(_estimator_has("predict_proba", delegates=FINAL))  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any) -> np.ndarray:
        """The final estimator's probabilities.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            For several labels at once (n_samples, n_labels): of each label's first class.
        """
        check_is_fitted(self)
        probabilities = self.final_estimator_.predict_proba(self.transform(X))
        if isinstance(self.classes_, list):
            return np.column_stack([each[:, 0] for each in probabilities])
        return np.asarray(probabilities)

    @available_if(_estimator_has("decision_function", delegates=FINAL))  # type: ignore[untyped-decorator]
    def decision_function(self, X: Any) -> np.ndarray:
        """The final estimator's decision values.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_classes)
        """
        check_is_fitted(self)
        return np.asarray(self.final_estimator_.decision_function(self.transform(X)))


class StackingRegressor(RegressorMixin, Stacking):  # type: ignore[misc]
    """Regressors whose out-of-fold predictions a final regressor learns to combine.

    Parameters
    ----------
    estimators : list of (str, estimator)
        Copies are fitted; `set_params(name="drop")` takes one out.
    final_estimator : estimator, optional
        By default a ridge regression that chooses its penalty by leave-one-out.
    cv : int, splitter, iterable of (train, test) or "prefit", optional
        The folds; five by default. Folds that leave rows out, such as those of `TimeSeriesSplit` in order of
        time, are allowed, which scikit-learn refuses: the final estimator is then fitted with the rows that
        were predicted. "prefit": the estimators are fitted already and used as they are.
    n_jobs : int, optional
        Estimators fitted side by side, in threads. None: every usable core for fullspan's own estimators, one
        for others; -1: every core.
    passthrough : bool
        Whether the final estimator also sees the features.
    verbose : int
        Passed to the cross-validation.

    Attributes
    ----------
    estimators_ : list of estimators
        Fitted with all rows, without those dropped.
    named_estimators_ : Bunch
        The same by name.
    final_estimator_ : estimator
    stack_method_ : list of str
        "predict" for each.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features,)
        If an estimator has it.

    Raises
    ------
    ValueError
        In `fit`, for names that repeat or hold "__", classifiers among the estimators or as the final one, or
        a fold that tests a row a second time.

    References
    ----------
    D. H. Wolpert, "Stacked generalization", Neural Networks 5, 1992.
    L. Breiman, "Stacked regressions", Machine Learning 24, 1996.

    Examples
    --------
    Folds in order of time: no row is predicted by an estimator that saw later ones.

    >>> import numpy as np
    >>> from sklearn.linear_model import LinearRegression
    >>> from sklearn.model_selection import TimeSeriesSplit
    >>> from sklearn.neighbors import KNeighborsRegressor
    >>> from fullspan.estimators import StackingRegressor
    >>> X = np.arange(30.0)[:, None]
    >>> parts = [("line", LinearRegression()), ("near", KNeighborsRegressor(2))]
    >>> stack = StackingRegressor(parts, LinearRegression(), cv=TimeSeriesSplit(4)).fit(X, 3 * X.ravel())
    >>> stack.predict([[40.0]]).round(6)
    array([120.])
    """

    def __init__(
        self,
        estimators: list[tuple[str, Any]],
        final_estimator: Any = None,
        *,
        cv: Any = None,
        n_jobs: int | None = None,
        passthrough: bool = False,
        verbose: int = 0,
    ) -> None:
        self.estimators = estimators
        self.final_estimator = final_estimator
        self.cv = cv
        self.n_jobs = n_jobs
        self.passthrough = passthrough
        self.verbose = verbose

    def _final_or_default(self) -> Any:
        return RidgeCV() if self.final_estimator is None else self.final_estimator

    def _check_final(self, estimator: Any) -> None:
        if not is_regressor(estimator):
            raise ValueError(f"'final_estimator' parameter should be a regressor. Got {estimator}")

    @_fit_context(prefer_skip_nested_validation=False)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any, **fit_params: Any) -> Self:
        """Fit the estimators, and the final one with their out-of-fold predictions.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
        **fit_params : dict
            `sample_weight` goes to every estimator, in every fold, and to the final one; anything else needs
            scikit-learn's metadata routing.

        Returns
        -------
        self
        """
        _raise_for_params(fit_params, self, "fit", allow=["sample_weight"])
        return self._fit(X, column_or_1d(y, warn=True), fit_params, "predict")

    def fit_transform(self, X: Any, y: Any = None, **fit_params: Any) -> Any:
        """Fit, and return what `transform` gives for the same rows.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
        **fit_params : dict
            As for `fit`.

        Returns
        -------
        ndarray or sparse matrix of shape (n_samples, n_columns)
        """
        _raise_for_params(fit_params, self, "fit", allow=["sample_weight"])
        return super().fit_transform(X, y, **fit_params)

    @available_if(_estimator_has("predict", delegates=FINAL))  # type: ignore[untyped-decorator]
    def predict(self, X: Any, **predict_params: Any) -> np.ndarray:
        """Target for each row.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        **predict_params : dict
            For the final estimator's `predict`, such as `return_std`.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
        """
        return self._predict(X, predict_params)
