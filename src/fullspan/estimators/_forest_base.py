"""What forests for classification and for regression share: drawing, growing and asking trees."""

from __future__ import annotations

import warnings
from numbers import Integral
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.base import MultiOutputMixin, _fit_context
from sklearn.exceptions import DataConversionWarning
from sklearn.utils import check_random_state, compute_sample_weight
from sklearn.utils._param_validation import Interval, RealNotInt
from sklearn.utils.validation import (
    _check_sample_weight,
    check_is_fitted,
    validate_data,
)

from fullspan.core.device import threads_of
from fullspan.estimators._binned_growth import (
    CRITERIA,
    MOST_CATEGORIES,
    MOST_CLASSES,
    BinnedRows,
    bin_rows,
    grow_binned,
)
from fullspan.estimators._bootstrap import bootstrap_rows, bootstrap_size
from fullspan.estimators._forest_oob import OutOfBag
from fullspan.estimators._forest_prediction import all_leaves, sum_of_values
from fullspan.estimators.combining import LARGEST_SEED, Repeated, in_order, thread_count
from fullspan.estimators.tree._records import Columns
from fullspan.estimators.tree.base import _require_short_indices as require_short_indices
from fullspan.estimators.tree.categories import CategoryEncoder
from fullspan.estimators.tree.growing import SEED_LIMIT, columns_of, grow, targets_of
from fullspan.estimators.tree.pruning import pruned

_FEWEST_BINNED_ROWS = 2_000
_TREE_PARAMETERS = (
    "criterion",
    "max_depth",
    "min_samples_split",
    "min_samples_leaf",
    "min_weight_fraction_leaf",
    "max_features",
    "max_leaf_nodes",
    "min_impurity_decrease",
    "ccp_alpha",
    "monotonic_cst",
    "categorical_features",
)


class _Job(NamedTuple):
    """What every tree of a fit is grown from."""

    source: BinnedRows | Columns
    targets: NDArray[np.float64]  # [n_samples, n_outputs], classes as codes
    n_classes: NDArray[np.int64]  # [n_outputs]; ones in regression
    weight: NDArray[np.float64] | None  # [n_samples]
    n_drawn: int | None  # rows of a bootstrap; None without one
    balanced: bool  # classes are weighted anew in each bootstrap
    n_trees: int
    verbose: int


def _grow_one(job: _Job, tree: Any, number: int) -> Any:
    """Fit one unfitted tree estimator."""
    if job.verbose > 1:
        print(f"building tree {number + 1} of {job.n_trees}")
    n_samples = len(job.targets)
    if job.n_drawn is None:
        weight = job.weight
    else:
        drawn = bootstrap_rows(tree.random_state, n_samples, job.n_drawn, job.weight)
        weight = np.bincount(drawn, minlength=n_samples).astype(np.float64)
        if job.balanced:
            weight *= compute_sample_weight("balanced", job.targets, indices=drawn)
    rules = tree._rules(n_samples, n_samples if weight is None else np.sum(weight), job.n_classes)
    if isinstance(job.source, BinnedRows):
        weights = np.ones(n_samples) if weight is None else weight
        y = np.ascontiguousarray(job.targets[:, 0])
        grown = grow_binned(
            job.source, y, weights, int(job.n_classes[0]), tree.criterion, rules, tree.random_state
        )
    else:
        seed = check_random_state(tree.random_state).randint(0, SEED_LIMIT)
        grown = grow(job.source, targets_of(job.targets, weight, job.n_classes, rules.criterion), rules, seed)
    tree.tree_ = grown if tree.ccp_alpha == 0.0 else pruned(grown, tree.ccp_alpha)
    return tree


class Forest(OutOfBag, MultiOutputMixin, Repeated):  # type: ignore[misc]
    """Draws, grows and asks the trees; the subclasses say what is predicted."""

    _tree_class: ClassVar[Any]

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_estimators": [Interval(Integral, 1, None, closed="left")],
        "bootstrap": ["boolean"],
        "oob_score": ["boolean", callable],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "max_samples": [
            None,
            Interval(RealNotInt, 0.0, None, closed="neither"),
            Interval(Integral, 1, None, closed="left"),
        ],
    }

    @property
    def estimator(self) -> Any:
        """A tree with default parameters, of the kind that the forest consists of."""
        return self._tree_class()

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Grow the forest.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Used as float32; sparse ones in csc format. NaN means missing, in dense ones.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Classes, or numbers.
        sample_weight : array-like of shape (n_samples,), optional
            Bootstrapped rows are drawn with probabilities proportional to these.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter or the data is unfit; the message names it.
        """
        if sp.issparse(y):
            raise ValueError("sparse multilabel-indicator for y is not supported.")
        X, y = self._validate_fit(X, y)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X)
        self._n_samples, self.n_outputs_ = y.shape
        y, class_weight = self._validate_y_class_weight(y, sample_weight)
        y = np.ascontiguousarray(y, dtype=np.float64)
        weights = [given for given in (sample_weight, class_weight) if given is not None]
        # Also what `estimators_samples_` draws with.
        self._sample_weight = np.prod(weights, axis=0) if weights else None
        self._n_samples_bootstrap = self._bootstrap_size()
        if not self.bootstrap and self.oob_score:
            raise ValueError("Out of bag estimation only available if bootstrap=True")
        n_more = self._grow_more(X, y)
        if self.oob_score and (n_more > 0 or not hasattr(self, "oob_score_")):
            self._require_scorable(y)
            if callable(self.oob_score):
                self._set_oob_score_and_attributes(X, y, scoring_function=self.oob_score)
            else:
                self._set_oob_score_and_attributes(X, y)
        self._unwrap_classes()
        return self

    def _validate_fit(self, X: Any, y: Any) -> tuple[Any, NDArray[Any]]:
        """X as float32 array or csc matrix, y as array of shape (n_samples, n_outputs)."""
        self._encoder = None
        if self.categorical_features is not None:
            self._encoder = CategoryEncoder(self.categorical_features).fit(X)
            X = self._encoder.transform(X)
        X, y = validate_data(
            self,
            X,
            y,
            multi_output=True,
            accept_sparse="csc",
            dtype=np.float32,
            ensure_all_finite=False,
        )
        template = self._tree()
        template._require_finite(X)
        if sp.issparse(X):
            require_short_indices(X)
            X.sort_indices()
        y = np.atleast_1d(y)
        if y.ndim == 2 and y.shape[1] == 1:
            warnings.warn(
                "A column-vector y was passed when a 1d array was expected. Please change the shape of y to "
                "(n_samples,), for example using ravel().",
                DataConversionWarning,
                stacklevel=3,
            )
        if self.criterion == "poisson":
            if np.any(y < 0):
                raise ValueError(
                    "Some value(s) of y are negative which is not allowed for Poisson regression."
                )
            if np.sum(y) <= 0:
                raise ValueError(
                    "Sum of y is not strictly positive which is necessary for Poisson regression."
                )
        return X, y.reshape(len(y), -1)

    def _bootstrap_size(self) -> int | None:
        if self.bootstrap:
            return bootstrap_size(self._n_samples, self.max_samples, self._sample_weight)
        if self.max_samples is not None:
            raise ValueError(
                "`max_sample` cannot be set if `bootstrap=False`. "
                "Either switch to `bootstrap=True` or set `max_sample=None`."
            )
        return None

    def _grow_more(self, X: Any, y: NDArray[np.float64]) -> int:
        """Grow the trees that are not there yet; returns how many."""
        random_state = check_random_state(self.random_state)
        self.estimator_ = self._tree()
        if not self.warm_start or not hasattr(self, "estimators_"):
            self.estimators_: list[Any] = []
        n_more = self.n_estimators - len(self.estimators_)
        if n_more < 0:
            raise ValueError(
                f"n_estimators={self.n_estimators} must be larger or equal to "
                f"len(estimators_)={len(self.estimators_)} when warm_start==True"
            )
        if n_more == 0:
            warnings.warn(
                "Warm-start fitting without increasing n_estimators does not fit new trees.", stacklevel=3
            )
            return 0
        # Skip what the trees that are there already have drawn.
        random_state.randint(LARGEST_SEED, size=len(self.estimators_))
        n_classes = np.array(getattr(self, "n_classes_", [1] * self.n_outputs_), np.int64)
        trees = [self._tree(n_classes, random_state.randint(LARGEST_SEED)) for _ in range(n_more)]
        job = _Job(
            self._source(X, n_classes, trees[0]),
            y,
            n_classes,
            self._sample_weight,
            self._n_samples_bootstrap,
            getattr(self, "class_weight", None) == "balanced_subsample" and self.bootstrap,
            n_more,
            self.verbose,
        )
        calls = [(_grow_one, (job, tree, number)) for number, tree in enumerate(trees)]
        self.estimators_ += in_order(calls, thread_count(self.n_jobs, trees), self.verbose)
        return int(n_more)

    def _source(self, X: Any, n_classes: NDArray[np.int64], tree: Any) -> BinnedRows | Columns:
        """X in bins where trees grow on bins, and as columns for exact growth elsewhere."""
        n_categories = None if self._encoder is None else self._encoder.n_categories()
        if n_categories is not None and self.monotonic_cst is not None:
            if np.any(np.asarray(self.monotonic_cst)[n_categories > 0] != 0):
                raise ValueError("Categorical features cannot have monotonic constraints.")
        if self._grows_on_bins(n_classes, n_categories):
            categorical = np.zeros(X.shape[1], dtype=bool) if n_categories is None else n_categories > 0
            return bin_rows(X, categorical, self._n_threads())[0]
        return columns_of(X, n_categories, presorted=tree._sorts_columns(X.shape[1]))

    def _grows_on_bins(self, n_classes: NDArray[np.int64], n_categories: NDArray[np.int64] | None) -> bool:
        weight = self._sample_weight
        return bool(
            self._n_samples >= _FEWEST_BINNED_ROWS
            and len(n_classes) == 1
            and n_classes[0] <= MOST_CLASSES
            and self.criterion in CRITERIA
            and self.max_leaf_nodes is None
            and self.monotonic_cst is None
            and (n_categories is None or n_categories.max() <= MOST_CATEGORIES)
            and (weight is None or weight.min() >= 0)
        )

    def _tree(self, n_classes: NDArray[np.int64] | None = None, seed: int | None = None) -> Any:
        """A tree estimator with the forest's parameters, ready to be grown if it is known what for."""
        with warnings.catch_warnings():
            # The forest itself has warned of an old name.
            warnings.simplefilter("ignore", FutureWarning)
            tree = self._tree_class(
                **{name: getattr(self, name) for name in _TREE_PARAMETERS}, random_state=seed
            )
        if n_classes is not None:
            tree.n_outputs_ = self.n_outputs_
            tree.n_features_in_ = self.n_features_in_
            tree._encoder = self._encoder
            tree.max_features_ = tree._resolved_max_features(tree.n_features_in_)
            self._describe_classes(tree, n_classes)
        return tree

    def _unwrap_classes(self) -> None:
        """Make lists of one output's classes plain arrays."""

    def _describe_classes(self, tree: Any, n_classes: NDArray[np.int64]) -> None:
        """What a fitted tree says of its classes, which are the codes of the forest's."""

    def _n_threads(self) -> int:
        return threads_of(self.n_jobs)

    def _validate_y_class_weight(
        self, y: NDArray[Any], sample_weight: Any
    ) -> tuple[NDArray[Any], NDArray[np.float64] | None]:
        return y, None

    def _validate_X_predict(self, X: Any) -> Any:
        """X as a contiguous float32 array or csr matrix."""
        check_is_fitted(self)
        if self._encoder is not None:
            X = self._encoder.transform(X)
        allow_nan = self.estimators_[0]._support_missing_values(X)
        X = validate_data(
            self,
            X,
            dtype=np.float32,
            order="C",
            accept_sparse="csr",
            reset=False,
            ensure_all_finite="allow-nan" if allow_nan else True,
        )
        if sp.issparse(X):
            require_short_indices(X)
        return X

    def _mean_values(self, X: Any) -> NDArray[np.float64]:
        """Mean of the trees' values, float64 of shape (n_samples, n_outputs, max_n_classes)."""
        X = self._validate_X_predict(X)
        trees = [estimator.tree_ for estimator in self.estimators_]
        means = sum_of_values(trees, X, self._n_threads())
        means /= len(trees)
        return means.reshape(-1, *trees[0].value.shape[1:])

    def apply(self, X: Any) -> NDArray[np.int64]:
        """The leaf that each row ends in, for each tree.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)

        Returns
        -------
        int64 array of shape (n_samples, n_estimators)
        """
        X = self._validate_X_predict(X)
        return all_leaves([estimator.tree_ for estimator in self.estimators_], X, self._n_threads())

    def decision_path(self, X: Any) -> tuple[Any, NDArray[np.int64]]:
        """Which nodes of all trees each row passes.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)

        Returns
        -------
        indicator : csr matrix of shape (n_samples, n_nodes)
            Ones at the nodes passed.
        n_nodes_ptr : int64 array of shape (n_estimators + 1,)
            The columns ``n_nodes_ptr[i]:n_nodes_ptr[i + 1]`` are the nodes of tree i.
        """
        X = self._validate_X_predict(X)
        calls = [(estimator.tree_.decision_path, (X,)) for estimator in self.estimators_]
        paths = list(in_order(calls, thread_count(self.n_jobs, self.estimators_)))
        pointers = np.cumsum([0, *(path.shape[1] for path in paths)])
        return sp.hstack(paths).tocsr(), pointers

    @property
    def feature_importances_(self) -> NDArray[np.float64]:
        """Mean share of each feature in the impurity that the trees' splits remove.

        They sum to one, unless no tree has a split: then they are zeros. Features with many values seem more
        important than they are; see `oob_permutation_importance` and scikit-learn's `permutation_importance`.
        """
        check_is_fitted(self)
        shares = [
            estimator.tree_.compute_feature_importances()
            for estimator in self.estimators_
            if estimator.tree_.node_count > 1
        ]
        if not shares:
            return np.zeros(self.n_features_in_)
        means = np.mean(shares, axis=0)
        return np.asarray(means / np.sum(means))

    @property
    def estimators_samples_(self) -> list[NDArray[np.int32]]:
        """Numbers of the rows that each tree was grown on, drawn again at each call."""
        check_is_fitted(self)
        if self._n_samples_bootstrap is None:
            return [np.arange(self._n_samples, dtype=np.int32) for _ in self.estimators_]
        return [
            bootstrap_rows(tree.random_state, self._n_samples, self._n_samples_bootstrap, self._sample_weight)
            for tree in self.estimators_
        ]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = True
        return tags
