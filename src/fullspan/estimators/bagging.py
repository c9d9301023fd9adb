"""Bagging: copies of one estimator, each fitted with rows and features drawn at random, and averaged."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin, _fit_context
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils import Bunch, _safe_indexing, check_random_state, get_tags
from sklearn.utils._param_validation import HasMethods, Interval, RealNotInt
from sklearn.utils.metadata_routing import (
    MetadataRouter,
    MethodMapping,
    _raise_for_params,
    _routing_enabled,
    get_routing_for_object,
)
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.random import sample_without_replacement
from sklearn.utils.validation import (
    _check_method_params,
    _check_sample_weight,
    _estimator_has,
    check_is_fitted,
    column_or_1d,
    has_fit_parameter,
    validate_data,
)

from fullspan.estimators.combining import (
    LARGEST_SEED,
    Repeated,
    in_order,
    routed,
    thread_count,
)
from fullspan.estimators.tree.cart import DecisionTreeClassifier, DecisionTreeRegressor


class _Bagging(Repeated):
    """Draws, fits and asks the copies; subclasses say how their answers are put together."""

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "estimator": [HasMethods(["fit", "predict"]), None],
        "n_estimators": [Interval(Integral, 1, None, closed="left")],
        "max_samples": [
            None,
            Interval(Integral, 1, None, closed="left"),
            Interval(RealNotInt, 0, 1, closed="right"),
        ],
        "max_features": [
            Interval(Integral, 1, None, closed="left"),
            Interval(RealNotInt, 0, 1, closed="right"),
        ],
        "bootstrap": ["boolean"],
        "bootstrap_features": ["boolean"],
        "oob_score": ["boolean"],
        "warm_start": ["boolean"],
        "n_jobs": [None, Integral],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        estimator: Any = None,
        n_estimators: int = 10,
        *,
        max_samples: float | None = None,
        max_features: float = 1.0,
        bootstrap: bool = True,
        bootstrap_features: bool = False,
        oob_score: bool = False,
        warm_start: bool = False,
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.n_estimators = n_estimators
        self.max_samples = max_samples
        self.max_features = max_features
        self.bootstrap = bootstrap
        self.bootstrap_features = bootstrap_features
        self.oob_score = oob_score
        self.warm_start = warm_start
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=False)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any, sample_weight: Any = None, **fit_params: Any) -> Self:
        """Fit the copies.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Sparse, or with missing values, where the estimator takes such.
        y : array-like of shape (n_samples,)
        sample_weight : array-like of shape (n_samples,), optional
            Rows are drawn with probabilities proportional to these.
        **fit_params : dict
            For the estimator's `fit`; needs scikit-learn's metadata routing.

        Returns
        -------
        self
        """
        _raise_for_params(fit_params, self, "fit")
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse=["csr", "csc"],
            dtype=None,
            ensure_all_finite=False,
            multi_output=True,
        )
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X, dtype=None)
            if not self.bootstrap:
                warnings.warn(
                    f"When fitting {type(self).__name__} with sample_weight it is recommended to use "
                    f"bootstrap=True, got {self.bootstrap}.",
                    stacklevel=2,
                )
        y = self._encoded(y)
        self.estimator_ = self._estimator_or_default()
        asked = routed(self, "fit", fit_params, lambda: Bunch(estimator=Bunch(fit=fit_params)))
        self._set_sizes(X.shape[0], sample_weight)
        if not self.warm_start or not hasattr(self, "estimators_"):
            self.estimators_: list[Any] = []
            self.estimators_features_: list[np.ndarray] = []
            self._seeds = np.empty(0, dtype=np.int64)
        if self.n_estimators < len(self.estimators_):
            raise ValueError(
                f"n_estimators={self.n_estimators} must be larger or equal to "
                f"len(estimators_)={len(self.estimators_)} when warm_start==True"
            )
        if self.n_estimators == len(self.estimators_):
            warnings.warn(
                "Warm-start fitting without increasing n_estimators does not fit new trees.", stacklevel=2
            )
            return self
        self._add_estimators(X, y, asked.estimator.fit)
        if self.oob_score:
            self._set_oob_score(X, y)
        return self

    def _set_sizes(self, n_samples: int, sample_weight: np.ndarray | None) -> None:
        """How many rows and features each estimator is given; contradictions are refused."""
        self._n_samples, self._sample_weight = n_samples, sample_weight
        self._max_samples = rows_to_draw(n_samples, self.max_samples, sample_weight)
        if not self.bootstrap and self._max_samples > n_samples:
            raise ValueError(
                f"Effective max_samples={self._max_samples} must be <= n_samples={n_samples} to be able to "
                "sample without replacement."
            )
        n_features = self.n_features_in_
        wanted = self.max_features
        self._max_features = max(1, int(wanted if isinstance(wanted, Integral) else wanted * n_features))
        if self._max_features > n_features:
            raise ValueError("max_features must be <= n_features")
        if self.oob_score and not self.bootstrap:
            raise ValueError("Out of bag estimation only available if bootstrap=True")
        if self.oob_score and self.warm_start:
            raise ValueError("Out of bag estimate only available if warm_start=False")
        if self.warm_start and hasattr(self, "oob_score_"):
            del self.oob_score_  # of fewer estimators

    def _add_estimators(self, X: Any, y: np.ndarray, fit_params: dict[str, Any]) -> None:
        n_old = len(self.estimators_)
        generator = check_random_state(self.random_state)
        if n_old:
            generator.randint(LARGEST_SEED, size=n_old)  # as if all were fitted at once
        seeds = generator.randint(LARGEST_SEED, size=self.n_estimators - n_old)
        by_weight = _takes_weights(self.estimator_)
        calls = []
        for number, seed in enumerate(seeds.tolist(), 1):
            told = f"Building estimator {number} of {len(seeds)}..." if self.verbose > 1 else ""
            calls.append((self._fit_one, (seed, X, y, by_weight, fit_params, told)))
        threads = thread_count(self.n_jobs, [self.estimator_])
        for estimator, features in in_order(calls, threads, self.verbose):
            self.estimators_.append(estimator)
            self.estimators_features_.append(features)
        self._seeds = np.concatenate([self._seeds, seeds])

    def _fit_one(
        self, seed: int, X: Any, y: np.ndarray, by_weight: bool, fit_params: dict[str, Any], told: str
    ) -> tuple[Any, np.ndarray]:
        if told:
            print(told)
        estimator = self._copy(seed)
        features, rows = self._drawn(seed)
        if by_weight:  # counts as weights save a copy of the rows
            counts = np.bincount(rows, minlength=X.shape[0])
            fit_params = {**fit_params, "sample_weight": counts}
        else:
            fit_params = _check_method_params(X, fit_params, indices=rows)
            X, y = _safe_indexing(X, rows), _safe_indexing(y, rows)
        if self.bootstrap_features or self._max_features != self.n_features_in_:
            X = X[:, features]
        estimator.fit(X, y, **fit_params)
        return estimator, features

    def _drawn(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Features and rows of the estimator with this seed."""
        generator = check_random_state(seed)
        features = _draw(generator, self.bootstrap_features, self.n_features_in_, self._max_features)
        if self._sample_weight is None:
            return features, _draw(generator, self.bootstrap, self._n_samples, self._max_samples)
        chances = self._sample_weight / np.sum(self._sample_weight)
        rows = generator.choice(self._n_samples, self._max_samples, replace=self.bootstrap, p=chances)
        return features, rows

    @property
    def estimators_samples_(self) -> list[np.ndarray]:
        """The rows each estimator was fitted with, drawn again from its seed to save memory."""
        return [self._drawn(seed)[1] for seed in self._seeds.tolist()]

    def _checked(self, X: Any) -> Any:
        check_is_fitted(self)
        return validate_data(
            self, X, accept_sparse=["csr", "csc"], dtype=None, ensure_all_finite=False, reset=False
        )

    def _answers(self, X: Any, ask: Callable[[Any, Any], np.ndarray]) -> Iterator[np.ndarray]:
        """What each estimator says of its features of `X`, in the estimators' order."""
        calls = [
            (lambda each, columns: ask(each, X[:, columns]), (estimator, features))
            for estimator, features in zip(self.estimators_, self.estimators_features_, strict=True)
        ]
        return in_order(calls, thread_count(self.n_jobs, [self.estimator_]), self.verbose)

    def _out_of_bag(
        self, X: Any, ask: Callable[[Any, Any], np.ndarray]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """For each estimator, a mask of the rows that it did not see and what it says of them."""

        def answer(estimator: Any, features: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
            unseen = np.ones(X.shape[0], dtype=bool)
            unseen[self._drawn(seed)[1]] = False
            return unseen, ask(estimator, X[unseen, :][:, features])

        parts = zip(self.estimators_, self.estimators_features_, self._seeds.tolist(), strict=True)
        calls = [(answer, part) for part in parts]
        return in_order(calls, thread_count(self.n_jobs, [self.estimator_]))

    def get_metadata_routing(self) -> MetadataRouter:
        """Which methods of the estimator are handed which metadata."""
        estimator = self._estimator_or_default()
        by_probability = hasattr(estimator, "predict_proba")
        method = "predict_proba" if by_probability else "predict"
        log_method = "predict_log_proba" if hasattr(estimator, "predict_log_proba") else method
        mapping = (
            MethodMapping()
            .add(caller="fit", callee="fit")
            .add(caller="decision_function", callee="decision_function")
            .add(caller="predict", callee=method)
            .add(caller="predict_proba", callee=method)
            .add(caller="predict_log_proba", callee=log_method)
        )
        return MetadataRouter(owner=self).add(estimator=estimator, method_mapping=mapping)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        part = get_tags(self._estimator_or_default()).input_tags
        tags.input_tags.sparse = part.sparse
        tags.input_tags.allow_nan = part.allow_nan
        return tags


def rows_to_draw(n_samples: int, max_samples: float | None, sample_weight: np.ndarray | None) -> int:
    """How many rows each estimator is given; a fraction is one of the sum of the weights.

    Parameters
    ----------
    max_samples : int, float or None
        None is `n_samples`.
    """
    if max_samples is None:
        return n_samples
    if isinstance(max_samples, Integral):
        return int(max_samples)
    total = n_samples if sample_weight is None else sample_weight.sum()
    drawn = max(int(max_samples * total), 1)
    if drawn < max(10, n_samples ** (1 / 3)):
        whole = "the number of samples" if sample_weight is None else "the total sum of sample weights"
        warnings.warn(
            f"Using the fractional value max_samples={max_samples!r} when {whole} is {total} results in a "
            f"low number ({drawn}) of bootstrap samples. We recommend passing `max_samples` as an integer "
            "instead.",
            stacklevel=4,
        )
    return drawn


def _draw(generator: np.random.RandomState, replace: bool, n: int, size: int) -> np.ndarray:
    if replace:
        return generator.randint(0, n, size)
    drawn: np.ndarray = sample_without_replacement(n, size, random_state=generator)
    return drawn


def _takes_weights(estimator: Any) -> bool:
    if _routing_enabled():
        return bool(get_routing_for_object(estimator).consumes("fit", ("sample_weight",)))
    return bool(has_fit_parameter(estimator, "sample_weight"))


def _warn_of_rows_without_scores() -> None:
    warnings.warn(
        "Some inputs do not have OOB scores. This probably means too few estimators were used to compute any "
        "reliable oob estimates.",
        stacklevel=4,
    )


class BaggingClassifier(ClassifierMixin, _Bagging):  # type: ignore[misc]
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
            _warn_of_rows_without_scores()
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
        _raise_for_params(params, self, "decision_function")
        X = self._checked(X)
        asked = routed(
            self, "decision_function", params, lambda: Bunch(estimator=Bunch(decision_function={}))
        ).estimator.decision_function
        answers = self._answers(X, lambda each, x: each.decision_function(x, **asked))
        total: np.ndarray = functools.reduce(np.add, answers)
        return total / len(self.estimators_)


class BaggingRegressor(RegressorMixin, _Bagging):  # type: ignore[misc]
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
            _warn_of_rows_without_scores()
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
        _raise_for_params(params, self, "predict")
        X = self._checked(X)
        asked = routed(self, "predict", params, lambda: Bunch(estimator=Bunch(predict={}))).estimator.predict
        answers = self._answers(X, lambda each, x: each.predict(x, **asked))
        total: np.ndarray = functools.reduce(np.add, answers)
        return total / len(self.estimators_)
