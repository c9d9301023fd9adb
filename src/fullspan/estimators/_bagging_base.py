"""Bagging, for classes and for numbers: drawing rows and features, fitting copies and asking them."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import _fit_context
from sklearn.utils import Bunch, _safe_indexing, check_random_state, get_tags
from sklearn.utils._param_validation import HasMethods, Interval, RealNotInt
from sklearn.utils.metadata_routing import (
    MetadataRouter,
    MethodMapping,
    _raise_for_params,
    _routing_enabled,
    get_routing_for_object,
)
from sklearn.utils.random import sample_without_replacement
from sklearn.utils.validation import (
    _check_method_params,
    _check_sample_weight,
    check_is_fitted,
    has_fit_parameter,
    validate_data,
)

from fullspan.estimators._bootstrap import bootstrap_size
from fullspan.estimators.combining import LARGEST_SEED, Repeated, in_order, routed, thread_count
from fullspan.estimators.tree.sharing import SharedRows


class Bagging(Repeated):
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
        self._max_samples = bootstrap_size(n_samples, self.max_samples, sample_weight)
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
        shared = None
        if by_weight and not fit_params:
            shared = SharedRows.ready_for(self.estimator_, X, y, self._max_features)
        calls = []
        for number, seed in enumerate(seeds.tolist(), 1):
            told = f"Building estimator {number} of {len(seeds)}..." if self.verbose > 1 else ""
            calls.append((self._fit_one, (seed, X, y, by_weight, fit_params, shared, told)))
        threads = thread_count(self.n_jobs, [self.estimator_])
        for estimator, features in in_order(calls, threads, self.verbose):
            self.estimators_.append(estimator)
            self.estimators_features_.append(features)
        self._seeds = np.concatenate([self._seeds, seeds])

    def _fit_one(
        self,
        seed: int,
        X: Any,
        y: np.ndarray,
        by_weight: bool,
        fit_params: dict[str, Any],
        shared: SharedRows | None,
        told: str,
    ) -> tuple[Any, np.ndarray]:
        if told:
            print(told)
        estimator = self._copy(seed)
        features, rows = self._drawn(seed)
        has_all = not self.bootstrap_features and self._max_features == self.n_features_in_
        counts = np.bincount(rows, minlength=X.shape[0])
        if shared is not None:
            shared.fit(estimator, counts, None if has_all else features)
            return estimator, features
        if by_weight:  # counts as weights save a copy of the rows
            fit_params = {**fit_params, "sample_weight": counts}
        else:
            fit_params = _check_method_params(X, fit_params, indices=rows)
            X, y = _safe_indexing(X, rows), _safe_indexing(y, rows)
        estimator.fit(X if has_all else X[:, features], y, **fit_params)
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

    def _mean_answer(self, X: Any, method: str, params: dict[str, Any]) -> np.ndarray:
        """Mean of what the estimators' methods of this name say."""
        _raise_for_params(params, self, method)
        X = self._checked(X)
        asked = routed(self, method, params, lambda: Bunch(estimator=Bunch(**{method: {}}))).estimator[method]
        answers = self._answers(X, lambda each, x: getattr(each, method)(x, **asked))
        total: np.ndarray = functools.reduce(np.add, answers)
        return total / len(self.estimators_)

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


def _draw(generator: np.random.RandomState, replace: bool, n: int, size: int) -> np.ndarray:
    if replace:
        return generator.randint(0, n, size)
    drawn: np.ndarray = sample_without_replacement(n, size, random_state=generator)
    return drawn


def _takes_weights(estimator: Any) -> bool:
    if _routing_enabled():
        return bool(get_routing_for_object(estimator).consumes("fit", ("sample_weight",)))
    return bool(has_fit_parameter(estimator, "sample_weight"))


def warn_of_rows_without_scores() -> None:
    """Say that every estimator has seen some of the rows."""
    warnings.warn(
        "Some inputs do not have OOB scores. This probably means too few estimators were used to compute any "
        "reliable oob estimates.",
        stacklevel=4,
    )
