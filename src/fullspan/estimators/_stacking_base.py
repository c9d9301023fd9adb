"""Stacking, for classes and for numbers: out-of-fold predictions, and a final fit with them."""

from __future__ import annotations

from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
from scipy import sparse
from sklearn.base import TransformerMixin, clone, is_classifier
from sklearn.model_selection import check_cv, cross_val_predict
from sklearn.utils import Bunch, _safe_indexing
from sklearn.utils._param_validation import HasMethods, StrOptions
from sklearn.utils._repr_html.estimator import _VisualBlock
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping
from sklearn.utils.validation import (
    _check_feature_names_in,
    _check_method_params,
    _check_response_method,
    _num_samples,
    check_is_fitted,
)

from fullspan.estimators.combining import (
    NamedEstimators,
    fit_one,
    in_order,
    is_dropped,
    routed,
    thread_count,
)

_ANY_METHOD = ["predict_proba", "decision_function", "predict"]

# Where `available_if` looks for the final estimator's methods.
FINAL = ("final_estimator_", "final_estimator")


class Stacking(TransformerMixin, NamedEstimators):  # type: ignore[misc]
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
        rows = None
        if self.cv == "prefit":
            fitted = [estimator for _, estimator in left]
            for estimator in fitted:
                check_is_fitted(estimator)
            self.stack_method_ = _method_names(left, stack_method)
            predictions = self._ask(fitted, X)
        else:
            calls = [(fit_one, (clone(estimator), X, y, params[name]["fit"])) for name, estimator in left]
            fitted = list(in_order(calls, threads))
            # After the fits, which tell first of an estimator that does not take what fit was given.
            self.stack_method_ = _method_names(left, stack_method)
            splits, rows = self._splits(X, y)
            predict_folds = [
                (self._out_of_fold, (clone(estimator), X, y, splits, method, params[name]["fit"]))
                for (name, estimator), method in zip(left, self.stack_method_, strict=True)
            ]
            predictions = list(in_order(predict_folds, threads))
        self._keep(names, estimators, fitted)
        if rows is not None:
            fit_params = _check_method_params(X, fit_params, indices=rows)
            X, y = _safe_indexing(X, rows), y[rows]
            predictions = [_rows_of(each, rows) for each in predictions]
        fit_one(self.final_estimator_, self._table(X, predictions), y, fit_params)
        return self

    def _ask(self, fitted: list[Any], X: Any) -> list[Any]:
        """What each estimator's method says of the rows."""
        return [getattr(each, method)(X) for each, method in zip(fitted, self.stack_method_, strict=True)]

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
        return self._table(X, self._ask(self.estimators_, X))

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
        return self._route_parts().add(
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


def _method_names(estimators: list[tuple[str, Any]], method: str) -> list[str]:
    wanted = _ANY_METHOD if method == "auto" else method
    found = []
    for name, estimator in estimators:
        try:
            found.append(_check_response_method(estimator, wanted).__name__)
        except AttributeError as error:
            raise ValueError(
                f"Underlying estimator {name} does not implement the method {wanted}."
            ) from error
    return found


def _rows_of(prediction: Any, rows: np.ndarray) -> Any:
    return [each[rows] for each in prediction] if isinstance(prediction, list) else prediction[rows]
