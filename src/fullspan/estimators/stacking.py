"""Stacking: a final estimator learns from what the others predict for rows they were not fitted with."""

from __future__ import annotations

from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
from scipy import sparse
from sklearn.base import (
    ClassifierMixin,
    RegressorMixin,
    TransformerMixin,
    _fit_context,
    clone,
    is_classifier,
    is_regressor,
)
from sklearn.exceptions import NotFittedError

# The default final estimators; fullspan's own linear models have the same interface.
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import check_cv, cross_val_predict
from sklearn.utils import Bunch, _safe_indexing
from sklearn.utils._param_validation import HasMethods, StrOptions
from sklearn.utils._repr_html.estimator import _VisualBlock
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, _raise_for_params
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import (
    _check_feature_names_in,
    _check_method_params,
    _check_response_method,
    _estimator_has,
    _num_samples,
    check_is_fitted,
    column_or_1d,
)

from fullspan.estimators.combining import (
    NamedEstimators,
    fit_one,
    in_order,
    is_dropped,
    require_finite_labels,
    routed,
    thread_count,
)

_ANY_METHOD = ["predict_proba", "decision_function", "predict"]
_FINAL = ("final_estimator_", "final_estimator")


class _Stacking(TransformerMixin, NamedEstimators):  # type: ignore[misc]
    """Fits the estimators, predicts each fold by fits on the others, and fits the final one with that."""

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "estimators": [list],
        "final_estimator": [None, HasMethods("fit")],
        "cv": ["cv_object", StrOptions({"prefit"})],
        "n_jobs": [None, Integral],
        "passthrough": ["boolean"],
        "verbose": ["verbose"],
    }

    def _fit(self, X: Any, y: np.ndarray, fit_params: dict[str, Any], stack_method: str) -> Self:
        names, estimators = self._named()
        self.final_estimator_ = clone(self._final_or_default())
        self._check_final(self.final_estimator_)
        params = self._route_fit(names, fit_params)
        left = [(n, e) for n, e in zip(names, estimators, strict=True) if not is_dropped(e)]
        threads = thread_count(self.n_jobs, [estimator for _, estimator in left])
        if self.cv == "prefit":
            for _, estimator in left:
                check_is_fitted(estimator)
            fitted = [estimator for _, estimator in left]
        else:
            calls = [(fit_one, (clone(estimator), X, y, params[name]["fit"])) for name, estimator in left]
            fitted = list(in_order(calls, threads))
        self._keep(names, estimators, fitted)
        self.stack_method_ = [_method_name(name, each, stack_method) for name, each in left]

        rows = None
        if self.cv == "prefit":
            predictions = [
                getattr(each, method)(X) for each, method in zip(fitted, self.stack_method_, strict=True)
            ]
        else:
            splits, rows = self._splits(X, y)
            predict_folds = [
                (self._out_of_fold, (clone(estimator), X, y, splits, method, params[name]["fit"]))
                for (name, estimator), method in zip(left, self.stack_method_, strict=True)
            ]
            predictions = list(in_order(predict_folds, threads))
        if rows is not None:
            fit_params = _check_method_params(X, fit_params, indices=rows)
            X, y = _safe_indexing(X, rows), y[rows]
            predictions = [_rows_of(each, rows) for each in predictions]
        fit_one(self.final_estimator_, self._table(X, predictions), y, fit_params)
        return self

    def _splits(self, X: Any, y: np.ndarray) -> tuple[list[tuple[Any, Any]], np.ndarray | None]:
        """The folds, the same for every estimator, and the rows that they predict where those are not all.

        Folds in order of time leave the first rows out. Those are put into the first test fold, so that every
        row has a prediction as `cross_val_predict` asks, and what is predicted for them is not used.
        """
        cv = check_cv(self.cv, y=y, classifier=is_classifier(self))
        splits = [(np.asarray(train), np.asarray(test)) for train, test in cv.split(X, y)]
        n = _num_samples(X)
        times = np.zeros(n, dtype=np.int64)
        for _, test in splits:
            tested = np.flatnonzero(test) if test.dtype == bool else test
            np.add.at(times, tested, 1)
        if (times > 1).any():
            raise ValueError(
                f"cv tests row {np.argmax(times > 1)} in more than one fold; stacking needs one or none"
            )
        if (times == 1).all():
            return splits, None
        train, test = splits[0]
        tested = np.flatnonzero(test) if test.dtype == bool else test
        splits[0] = (train, np.concatenate([tested, np.flatnonzero(times == 0)]))
        return splits, np.flatnonzero(times)

    def _out_of_fold(
        self, estimator: Any, X: Any, y: Any, splits: list[Any], method: str, params: dict[str, Any]
    ) -> Any:
        return cross_val_predict(
            estimator, X, y, cv=splits, method=method, params=params, verbose=self.verbose
        )

    def _table(self, X: Any, predictions: list[Any]) -> Any:
        """The final estimator's input: a column for each prediction, then `X` if that is passed through.

        Of two columns of probabilities that sum to one the first is left out; a list of such pairs is what
        classifiers give for several labels at once.
        """
        columns: list[Any] = []
        for prediction, method in zip(predictions, self.stack_method_, strict=True):
            if isinstance(prediction, list):
                columns += [pair[:, 1:] for pair in prediction]
            elif prediction.ndim == 1:
                columns.append(prediction[:, None])
            elif method == "predict_proba" and len(self.classes_) == 2:
                columns.append(prediction[:, 1:])
            else:
                columns.append(prediction)
        self._n_columns = [each.shape[1] for each in columns]
        if not self.passthrough:
            return np.hstack(columns)
        if sparse.issparse(X):
            return sparse.hstack([*columns, X], format=X.format)
        return np.hstack([*columns, X])

    @property
    def n_features_in_(self) -> int:
        """Number of features seen in fit."""
        try:
            check_is_fitted(self)
        except NotFittedError as error:
            raise AttributeError(f"{type(self).__name__} object has no attribute n_features_in_") from error
        return int(self.estimators_[0].n_features_in_)

    def transform(self, X: Any) -> Any:
        """What the estimators predict: the final estimator's input.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray or sparse matrix of shape (n_samples, n_columns)
            A column for each prediction (for each class, with probabilities of more than two), followed by
            `X` with `passthrough`.
        """
        check_is_fitted(self)
        predictions = [
            getattr(estimator, method)(X)
            for estimator, method in zip(self.estimators_, self.stack_method_, strict=True)
        ]
        return self._table(X, predictions)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the columns that `transform` gives.

        Parameters
        ----------
        input_features : array-like of str, optional
            Names of the features that are passed through; by default those seen in fit.

        Returns
        -------
        ndarray of str objects
        """
        check_is_fitted(self, "n_features_in_")
        input_features = _check_feature_names_in(self, input_features, generate_names=self.passthrough)
        prefix = type(self).__name__.lower()
        names = []
        for name, width in zip(self._kept_names(), self._n_columns, strict=False):
            suffixes = [""] if width == 1 else [str(column) for column in range(width)]
            names += [f"{prefix}_{name}{suffix}" for suffix in suffixes]
        if self.passthrough:
            return np.concatenate((names, input_features))
        return np.asarray(names, dtype=object)

    def _predict(self, X: Any, predict_params: dict[str, Any]) -> np.ndarray:
        asked = routed(
            self,
            "predict",
            predict_params,
            lambda: Bunch(final_estimator_=Bunch(predict=predict_params)),
        )
        check_is_fitted(self)
        predicted: np.ndarray = self.final_estimator_.predict(
            self.transform(X), **asked.final_estimator_["predict"]
        )
        return predicted

    def get_metadata_routing(self) -> MetadataRouter:
        """Which estimator is handed which metadata by `fit` and `predict`."""
        router = MetadataRouter(owner=self)
        for name, estimator in self.estimators:
            router.add(method_mapping=MethodMapping().add(caller="fit", callee="fit"), **{name: estimator})
        return router.add(
            final_estimator_=getattr(self, "final_estimator_", self.final_estimator),
            method_mapping=MethodMapping().add(caller="predict", callee="predict"),
        )

    def _sk_visual_block_(self) -> _VisualBlock:
        names, estimators = zip(*self.estimators, strict=True)
        first = _VisualBlock("parallel", estimators, names=names, dash_wrapped=False)
        final = _VisualBlock(
            "parallel", [self._final_or_default()], names=["final_estimator"], dash_wrapped=False
        )
        return _VisualBlock("serial", (first, final), dash_wrapped=False)


def _method_name(name: str, estimator: Any, method: str) -> str:
    wanted = _ANY_METHOD if method == "auto" else method
    try:
        found: str = _check_response_method(estimator, wanted).__name__
    except AttributeError as error:
        raise ValueError(f"Underlying estimator {name} does not implement the method {wanted}.") from error
    return found


def _rows_of(prediction: Any, rows: np.ndarray) -> Any:
    return [each[rows] for each in prediction] if isinstance(prediction, list) else prediction[rows]


class StackingClassifier(ClassifierMixin, _Stacking):  # type: ignore[misc]
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
        **_Stacking._parameter_constraints,
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

    @available_if(_estimator_has("predict", delegates=_FINAL))  # type: ignore[untyped-decorator]
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

    @available_if(_estimator_has("predict_proba", delegates=_FINAL))  # type: ignore[untyped-decorator]
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

    @available_if(_estimator_has("decision_function", delegates=_FINAL))  # type: ignore[untyped-decorator]
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


class StackingRegressor(RegressorMixin, _Stacking):  # type: ignore[misc]
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

    @available_if(_estimator_has("predict", delegates=_FINAL))  # type: ignore[untyped-decorator]
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
