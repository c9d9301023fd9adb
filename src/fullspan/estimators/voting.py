"""Ensembles of different estimators that vote, or whose predictions are averaged."""

from __future__ import annotations

from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin, TransformerMixin, _fit_context, clone
from sklearn.preprocessing import LabelEncoder
from sklearn.utils._param_validation import StrOptions
from sklearn.utils._repr_html.estimator import _VisualBlock
from sklearn.utils.metadata_routing import MetadataRouter, _raise_for_params
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import _check_feature_names_in, check_is_fitted, column_or_1d

from fullspan.estimators.combining import (
    NamedEstimators,
    fit_one,
    in_order,
    is_dropped,
    require_finite_labels,
    thread_count,
)


class _Voting(TransformerMixin, NamedEstimators):  # type: ignore[misc]
    """Fits each estimator on all rows; subclasses say how the predictions are combined."""

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "estimators": [list],
        "weights": ["array-like", None],
        "n_jobs": [None, Integral],
        "verbose": ["verbose"],
    }

    def _fit(self, X: Any, y: np.ndarray, fit_params: dict[str, Any]) -> Self:
        names, estimators = self._named()
        if self.weights is not None and len(self.weights) != len(estimators):
            raise ValueError(
                f"Number of `estimators` and weights must be equal; got {len(self.weights)} weights, "
                f"{len(estimators)} estimators"
            )
        params = self._route_fit(names, fit_params)
        calls = []
        for index, (name, estimator) in enumerate(zip(names, estimators, strict=True), 1):
            if not is_dropped(estimator):
                told = f"({index} of {len(names)}) Processing {name}" if self.verbose else None
                calls.append((fit_one, (clone(estimator), X, y, params[name]["fit"], ("Voting", told))))
        threads = thread_count(self.n_jobs, [arguments[0] for _, arguments in calls])
        self._keep(names, estimators, list(in_order(calls, threads)))
        return self

    def fit_transform(self, X: Any, y: Any = None, **fit_params: Any) -> np.ndarray:
        """Fit, and return what `transform` gives for the same rows.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
        **fit_params : dict
            As for `fit`.

        Returns
        -------
        ndarray
            What each estimator says; see `transform`.
        """
        transformed: np.ndarray = super().fit_transform(X, y, **fit_params)
        return transformed

    def _predictions(self, X: Any) -> np.ndarray:
        """[n_samples, n_estimators]."""
        return np.asarray([estimator.predict(X) for estimator in self.estimators_]).T

    def _says(self, X: Any) -> np.ndarray:
        return self._predictions(X)

    def _suffixes(self) -> list[str]:
        """What the columns of an estimator in `transform` add to its name."""
        return [""]

    def transform(self, X: Any) -> np.ndarray:
        """What each estimator says.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray
            Of regressors, their predictions, and of hard votes, codes of labels: (n_samples, n_estimators).
            Of soft votes, probabilities: (n_samples, n_estimators * n_classes), or
            (n_estimators, n_samples, n_classes) without `flatten_transform`.
        """
        check_is_fitted(self)
        return self._says(X)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the columns that `transform` gives.

        Parameters
        ----------
        input_features : array-like of str, optional
            Only checked against the names seen in fit.

        Returns
        -------
        ndarray of str objects
        """
        check_is_fitted(self, "n_features_in_")
        suffixes = self._suffixes()
        _check_feature_names_in(self, input_features, generate_names=False)
        prefix = type(self).__name__.lower()
        names = [f"{prefix}_{name}{suffix}" for name in self._kept_names() for suffix in suffixes]
        return np.asarray(names, dtype=object)

    def _weights_kept(self) -> list[float] | None:
        """The weights of the estimators that are not dropped."""
        if self.weights is None:
            return None
        return [w for (_, each), w in zip(self.estimators, self.weights, strict=True) if not is_dropped(each)]

    def get_metadata_routing(self) -> MetadataRouter:
        """Which estimator is handed which metadata by `fit`."""
        return self._route_parts()

    def _sk_visual_block_(self) -> _VisualBlock:
        names, estimators = zip(*self.estimators, strict=True)
        return _VisualBlock("parallel", estimators, names=names)


class VotingClassifier(ClassifierMixin, _Voting):  # type: ignore[misc]
    """Classifiers that vote: by labels, or by the mean of their probabilities.

    Parameters
    ----------
    estimators : list of (str, estimator)
        Copies are fitted; `set_params(name="drop")` takes one out.
    voting : {"hard", "soft"}
        "hard": the label most estimators give, the first in order of `classes_` where several tie.
        "soft": the label of the largest mean probability.
    weights : array-like of shape (n_estimators,), optional
        Weight of each estimator's vote or probabilities.
    n_jobs : int, optional
        Estimators fitted side by side, in threads. None: every usable core for fullspan's own estimators, one
        for others; -1: every core.
    flatten_transform : bool
        Whether `transform` of soft votes gives one table, [n_samples, n_estimators * n_classes].
    verbose : bool
        Print the time each estimator took.

    Attributes
    ----------
    estimators_ : list of estimators
        The fitted ones, without those dropped.
    named_estimators_ : Bunch
        The same by name.
    le_ : LabelEncoder
        Encodes the labels; the estimators are fitted with codes 0 to n_classes - 1.
    classes_ : ndarray of shape (n_classes,)
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features,)
        If an estimator has it.

    Raises
    ------
    ValueError
        In `fit`, for continuous targets, names that repeat or hold "__", regressors among the estimators, or
        weights of the wrong number.
    NotImplementedError
        In `fit`, for several targets at once.

    References
    ----------
    L. I. Kuncheva, "Combining Pattern Classifiers", Wiley 2004, chapters 4 and 5.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.naive_bayes import GaussianNB
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> from fullspan.estimators import VotingClassifier
    >>> X = np.array([[-1.0, -1.0], [-2.0, -1.0], [-3.0, -2.0], [1.0, 1.0], [2.0, 1.0], [3.0, 2.0]])
    >>> y = np.array(["no", "no", "no", "yes", "yes", "yes"])
    >>> vote = VotingClassifier([("nb", GaussianNB()), ("knn", KNeighborsClassifier(3))], voting="soft")
    >>> print(vote.fit(X, y).predict([[2.5, 1.0], [-1.0, -0.5]]))
    ['yes' 'no']
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **_Voting._parameter_constraints,
        "voting": [StrOptions({"hard", "soft"})],
        "flatten_transform": ["boolean"],
    }

    def __init__(
        self,
        estimators: list[tuple[str, Any]],
        *,
        voting: str = "hard",
        weights: Any = None,
        n_jobs: int | None = None,
        flatten_transform: bool = True,
        verbose: bool = False,
    ) -> None:
        self.estimators = estimators
        self.voting = voting
        self.weights = weights
        self.n_jobs = n_jobs
        self.flatten_transform = flatten_transform
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=False)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any, **fit_params: Any) -> Self:
        """Fit a copy of each estimator.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
            Labels.
        **fit_params : dict
            `sample_weight` goes to every estimator; anything else needs scikit-learn's metadata routing.

        Returns
        -------
        self
        """
        _raise_for_params(fit_params, self, "fit", allow=["sample_weight"])
        require_finite_labels(y)
        kind = type_of_target(y, input_name="y")
        if kind in ("unknown", "continuous"):
            raise ValueError(
                f"Unknown label type: {kind}. Maybe you are trying to fit a classifier, which expects "
                "discrete classes on a regression target with continuous values."
            )
        if kind not in ("binary", "multiclass"):
            raise NotImplementedError(
                f"{type(self).__name__} only supports binary or multiclass classification. Multilabel and "
                "multi-output classification are not supported."
            )
        self.classes_, codes = np.unique(column_or_1d(y, warn=True), return_inverse=True)
        return self._fit(X, codes, fit_params)

    @property
    def le_(self) -> LabelEncoder:
        """Encodes labels as the estimators see them."""
        return LabelEncoder().fit(self.classes_)

    def predict(self, X: Any) -> np.ndarray:
        """Label for each row.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        check_is_fitted(self)
        scores = self.predict_proba(X) if self.voting == "soft" else self._votes(X)
        labels: np.ndarray = self.classes_.take(scores.argmax(axis=1), axis=0)
        return labels

    def _votes(self, X: Any) -> np.ndarray:
        """Sum of the weights of the votes for each class: [n_samples, n_classes]."""
        predictions = self._predictions(X)
        weights = self._weights_kept() or [1.0] * predictions.shape[1]
        votes = np.zeros((len(predictions), len(self.classes_)))
        rows = np.arange(len(predictions))
        for column, weight in zip(predictions.T, weights, strict=True):
            votes[rows, column] += weight
        return votes

    def _has_probabilities(self) -> bool:
        if self.voting == "hard":
            raise AttributeError(f"predict_proba is not available when voting={self.voting!r}")
        return True

    @available_if(_has_probabilities)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any) -> np.ndarray:
        """Weighted mean of the estimators' probabilities; only when voting is "soft".

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
        """
        check_is_fitted(self)
        return np.average(self._probabilities(X), axis=0, weights=self._weights_kept())

    def _probabilities(self, X: Any) -> np.ndarray:
        """[n_estimators, n_samples, n_classes]."""
        return np.asarray([estimator.predict_proba(X) for estimator in self.estimators_])

    def _says(self, X: Any) -> np.ndarray:
        if self.voting == "hard":
            return self._predictions(X)
        probabilities = self._probabilities(X)
        return np.hstack(list(probabilities)) if self.flatten_transform else probabilities

    def _suffixes(self) -> list[str]:
        if self.voting == "hard":
            return [""]
        if not self.flatten_transform:
            raise ValueError(
                "get_feature_names_out is not supported when `voting='soft'` and `flatten_transform=False`"
            )
        return [str(code) for code in range(len(self.classes_))]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags


class VotingRegressor(RegressorMixin, _Voting):  # type: ignore[misc]
    """The weighted mean of several regressors.

    Parameters
    ----------
    estimators : list of (str, estimator)
        Copies are fitted; `set_params(name="drop")` takes one out.
    weights : array-like of shape (n_estimators,), optional
        Weight of each estimator's prediction.
    n_jobs : int, optional
        Estimators fitted side by side, in threads. None: every usable core for fullspan's own estimators, one
        for others; -1: every core.
    verbose : bool
        Print the time each estimator took.

    Attributes
    ----------
    estimators_ : list of estimators
        The fitted ones, without those dropped.
    named_estimators_ : Bunch
        The same by name.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features,)
        If an estimator has it.

    Raises
    ------
    ValueError
        In `fit`, for names that repeat or hold "__", classifiers among the estimators, or weights of the
        wrong number.

    References
    ----------
    M. P. Perrone and L. N. Cooper, "When Networks Disagree: Ensemble Methods for Hybrid Neural Networks",
    1993.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LinearRegression
    >>> from sklearn.neighbors import KNeighborsRegressor
    >>> from fullspan.estimators import VotingRegressor
    >>> X = np.arange(6.0)[:, None]
    >>> vote = VotingRegressor([("line", LinearRegression()), ("near", KNeighborsRegressor(1))])
    >>> vote.fit(X, 2 * X.ravel()).predict([[3.0], [7.0]]).round(6)
    array([ 6., 12.])
    """

    def __init__(
        self,
        estimators: list[tuple[str, Any]],
        *,
        weights: Any = None,
        n_jobs: int | None = None,
        verbose: bool = False,
    ) -> None:
        self.estimators = estimators
        self.weights = weights
        self.n_jobs = n_jobs
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=False)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any, **fit_params: Any) -> Self:
        """Fit a copy of each estimator.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
        **fit_params : dict
            `sample_weight` goes to every estimator; anything else needs scikit-learn's metadata routing.

        Returns
        -------
        self
        """
        _raise_for_params(fit_params, self, "fit", allow=["sample_weight"])
        return self._fit(X, column_or_1d(y, warn=True), fit_params)

    def predict(self, X: Any) -> np.ndarray:
        """Weighted mean of the estimators' predictions.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        check_is_fitted(self)
        return np.average(self._predictions(X), axis=1, weights=self._weights_kept())
