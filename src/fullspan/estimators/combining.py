"""What the ensembles of other estimators share: copies with seeds, weights, routed parameters and threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.utils import Bunch, assert_all_finite, check_random_state, get_tags
from sklearn.utils._user_interface import _print_elapsed_time
from sklearn.utils.metadata_routing import (
    MetadataRouter,
    MethodMapping,
    _routing_enabled,
    process_routing,
)
from sklearn.utils.metaestimators import _BaseComposition
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_is_fitted

from fullspan.core.device import usable_cores
from fullspan.estimators.saving import Saveable

NO_ESTIMATORS = (
    "Invalid 'estimators' attribute, 'estimators' should be a non-empty list of (string, estimator) tuples."
)
LARGEST_SEED = np.iinfo(np.int32).max


def set_seeds(estimator: Any, random_state: int | np.random.RandomState | None) -> None:
    """Give every parameter named `random_state`, nested ones too, a seed of its own, in order of names."""
    generator = check_random_state(random_state)
    names = [name for name in estimator.get_params(deep=True) if name.rpartition("__")[2] == "random_state"]
    seeds = {name: generator.randint(LARGEST_SEED) for name in sorted(names)}
    if seeds:
        estimator.set_params(**seeds)


def fit_one(
    estimator: Any,
    X: Any,
    y: Any,
    fit_params: Mapping[str, Any],
    message: tuple[str, str | None] = ("", None),
) -> Any:
    """Fit, and say so where an estimator cannot take the sample weights that its ensemble was given.

    Parameters
    ----------
    message : (str, str or None)
        The ensemble's name and what to print with the time taken; nothing is printed for None.
    """
    with _print_elapsed_time(*message):
        try:
            estimator.fit(X, y, **fit_params)
        except TypeError as error:
            if _routing_enabled() or "unexpected keyword argument 'sample_weight'" not in str(error):
                raise
            raise TypeError(
                f"Underlying estimator {type(estimator).__name__} does not support sample weights."
            ) from error
    return estimator


def require_finite_labels(y: Any) -> None:
    """Refuse NaN and infinity among numeric labels, before anything takes them for classes."""
    labels = np.asarray(y)
    if labels.dtype.kind == "f":
        assert_all_finite(labels, input_name="y")


def routed(owner: Any, method: str, params: dict[str, Any], otherwise: Callable[[], Bunch]) -> Bunch:
    """The parameters each part asked for, or what `otherwise` says while metadata routing is off."""
    return process_routing(owner, method, **params) if _routing_enabled() else otherwise()


def thread_count(n_jobs: int | None, estimators: Iterable[Any]) -> int | None:
    """How many estimators to run side by side, as joblib understands it.

    None is every usable core where all estimators are fullspan's, whose loops run without the interpreter's
    lock; others gain little from threads and may not expect them, so that joblib's default holds (one).
    """
    if n_jobs is None and all(type(each).__module__.startswith("fullspan.") for each in estimators):
        return usable_cores()
    return n_jobs


def in_order(
    calls: Iterable[tuple[Callable[..., Any], tuple[Any, ...]]], n_jobs: int | None, verbose: int = 0
) -> Iterator[Any]:
    """Results of the calls in their order, so that a sum over them does not depend on the threads."""
    pool = Parallel(n_jobs=n_jobs, verbose=verbose, prefer="threads", return_as="generator")
    yield from pool(delayed(function)(*arguments) for function, arguments in calls)


class NamedEstimators(Saveable, MetaEstimatorMixin, _BaseComposition):  # type: ignore[misc]
    """Base of the ensembles of named, different estimators: voting and stacking."""

    estimators: list[tuple[str, Any]]
    estimators_: list[Any]

    @property
    def named_estimators(self) -> Bunch:
        """The estimators by name, as they were given."""
        return Bunch(**dict(self.estimators))

    @property
    def named_estimators_(self) -> Bunch:
        """The fitted estimators by name; one that was dropped is `"drop"`."""
        fitted = iter(self.estimators_)
        return Bunch(**{name: next(fitted) if kept else "drop" for name, kept in self._kept})

    @property
    def n_features_in_(self) -> int:
        """Number of features seen in fit."""
        try:
            check_is_fitted(self)
        except NotFittedError as error:
            raise AttributeError(f"{type(self).__name__} object has no attribute n_features_in_") from error
        return int(self.estimators_[0].n_features_in_)

    def _named(self) -> tuple[list[str], list[Any]]:
        """Names and estimators, checked: names are unique, something is left, all are of this one's kind."""
        if not self.estimators or not all(
            isinstance(item, tuple | list) and isinstance(item[0], str) for item in self.estimators
        ):
            raise ValueError(NO_ESTIMATORS)
        names = [name for name, _ in self.estimators]
        estimators = [estimator for _, estimator in self.estimators]
        self._validate_names(names)
        left = [estimator for estimator in estimators if not is_dropped(estimator)]
        if not left:
            raise ValueError("All estimators are dropped. At least one is required to be an estimator.")
        self._check_kinds(left)
        return names, estimators

    def _check_kinds(self, estimators: list[Any]) -> None:
        is_of_kind, kind = (
            (is_classifier, "classifier") if is_classifier(self) else (is_regressor, "regressor")
        )
        for estimator in estimators:
            if not is_of_kind(estimator):
                raise ValueError(f"The estimator {type(estimator).__name__} should be a {kind}.")

    def _keep(self, names: list[str], estimators: list[Any], fitted: list[Any]) -> None:
        """Remember the fitted estimators, and names of features that they were fitted with."""
        self.estimators_ = fitted
        self._kept = [
            (name, not is_dropped(estimator)) for name, estimator in zip(names, estimators, strict=True)
        ]
        for estimator in fitted:
            if hasattr(estimator, "feature_names_in_"):
                self.feature_names_in_ = estimator.feature_names_in_

    def _kept_names(self) -> list[str]:
        return [name for name, estimator in self.estimators if not is_dropped(estimator)]

    def _route_fit(self, names: list[str], fit_params: dict[str, Any]) -> Bunch:
        """The fit parameters of each estimator: without metadata routing, the sample weights for all."""
        weights = {key: value for key, value in fit_params.items() if key == "sample_weight"}
        return routed(self, "fit", fit_params, lambda: Bunch(**{name: Bunch(fit=weights) for name in names}))

    def _route_parts(self) -> MetadataRouter:
        """Hands each estimator's `fit` what the ensemble's is given."""
        router = MetadataRouter(owner=self)
        mapping = MethodMapping().add(caller="fit", callee="fit")
        for name, estimator in self.estimators:
            router.add(method_mapping=mapping, **{name: estimator})
        return router

    def set_params(self, **params: Any) -> Self:
        """Set parameters of the ensemble or of its estimators; an estimator's name takes a new one or "drop".

        Returns
        -------
        self
        """
        self._set_params("estimators", **params)
        return self

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters of the ensemble and, if `deep`, the estimators by name and their parameters."""
        params: dict[str, Any] = self._get_params("estimators", deep=deep)
        return params

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        try:
            parts = [
                get_tags(estimator).input_tags
                for _, estimator in self.estimators
                if not is_dropped(estimator)
            ]
        except (TypeError, ValueError, AttributeError):
            return tags  # not a list of named estimators, which fit will say
        tags.input_tags.allow_nan = all(part.allow_nan for part in parts)
        tags.input_tags.sparse = all(part.sparse for part in parts)
        return tags


def is_dropped(estimator: Any) -> bool:
    """Whether it stands for an estimator that was taken out."""
    return isinstance(estimator, str) and estimator == "drop"


class Repeated(Saveable, MetaEstimatorMixin, BaseEstimator):  # type: ignore[misc]
    """Base of the ensembles of one estimator fitted many times: a sequence of those fitted."""

    estimators_: Any

    def _copy(self, random_state: int | np.random.RandomState | None) -> Any:
        """A new, seeded copy of the estimator that is repeated."""
        made = clone(self.estimator_)
        set_seeds(made, random_state)
        return made

    def __len__(self) -> int:
        """Return the number of fitted estimators."""
        return len(self.estimators_)

    def __getitem__(self, index: Any) -> Any:
        """Return one fitted estimator."""
        return self.estimators_[index]

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the fitted estimators."""
        return iter(self.estimators_)
