"""What decision trees for classification and for regression share."""

from __future__ import annotations

from math import ceil
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, MultiOutputMixin, clone
from sklearn.utils import Bunch, check_random_state
from sklearn.utils._param_validation import Interval, RealNotInt, StrOptions
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import (
    _check_n_features,
    _check_sample_weight,
    assert_all_finite,
    check_is_fitted,
    validate_data,
)

from fullspan.estimators.tree._records import Columns, Rules
from fullspan.estimators.tree.categories import CategoryEncoder
from fullspan.estimators.tree.growing import CRITERIA, SEED_LIMIT, columns_of, grow, targets_of
from fullspan.estimators.tree.pruning import pruned, pruning_path
from fullspan.estimators.tree.structure import Tree

_NO_DEPTH_LIMIT = 2**31 - 1
# Share of the features; where fewer are drawn, sorting those in every node is cheaper.
_WORTH_PRESORTING = 0.1


class BaseDecisionTree(MultiOutputMixin, BaseEstimator):  # type: ignore[misc]
    """Parameters, validation and fitting of one tree; the subclasses say what is predicted."""

    # check_input spares ensembles the validation; it is nothing that a pipeline passes on.
    __metadata_request__fit: ClassVar = {"check_input": UNUSED}
    __metadata_request__predict: ClassVar = {"check_input": UNUSED}

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "splitter": [StrOptions({"best", "random"})],
        "max_depth": [Interval(Integral, 1, None, closed="left"), None],
        "min_samples_split": [
            Interval(Integral, 2, None, closed="left"),
            Interval(RealNotInt, 0.0, 1.0, closed="right"),
        ],
        "min_samples_leaf": [
            Interval(Integral, 1, None, closed="left"),
            Interval(RealNotInt, 0.0, 1.0, closed="neither"),
        ],
        "min_weight_fraction_leaf": [Interval(Real, 0.0, 0.5, closed="both")],
        "max_features": [
            Interval(Integral, 1, None, closed="left"),
            Interval(RealNotInt, 0.0, 1.0, closed="right"),
            StrOptions({"sqrt", "log2"}),
            None,
        ],
        "random_state": ["random_state"],
        "max_leaf_nodes": [Interval(Integral, 2, None, closed="left"), None],
        "min_impurity_decrease": [Interval(Real, 0.0, None, closed="left")],
        "ccp_alpha": [Interval(Real, 0.0, None, closed="left")],
        "monotonic_cst": ["array-like", None],
        "categorical_features": ["array-like", StrOptions({"from_dtype"}), None],
    }

    _encoder: CategoryEncoder | None = None  # of categorical features, if there are any

    def get_depth(self) -> int:
        """Splits on the longest way from the root to a leaf."""
        check_is_fitted(self)
        return int(self.tree_.max_depth)

    def get_n_leaves(self) -> int:
        """Number of leaves."""
        check_is_fitted(self)
        return int(self.tree_.n_leaves)

    @property
    def feature_importances_(self) -> NDArray[np.float64]:
        """Share of each feature in the impurity that all splits remove, of shape (n_features,)."""
        check_is_fitted(self)
        return self.tree_.compute_feature_importances()

    def apply(self, X: Any, check_input: bool = True) -> NDArray[np.int64]:
        """The leaf that each row ends in.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
        check_input : bool
            False if X is known to be a float32 array (or csr matrix) of the right shape.

        Returns
        -------
        int64 array of shape (n_samples,)
            Numbers of nodes in ``tree_``.
        """
        check_is_fitted(self)
        return self.tree_.apply(self._validate_X_predict(X, check_input))

    def decision_path(self, X: Any, check_input: bool = True) -> Any:
        """Which nodes each row passes, leaves included.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
        check_input : bool
            False if X is known to be a float32 array (or csr matrix) of the right shape.

        Returns
        -------
        csr matrix of shape (n_samples, node_count)
            Ones at the nodes passed.
        """
        check_is_fitted(self)
        return self.tree_.decision_path(self._validate_X_predict(X, check_input))

    def cost_complexity_pruning_path(self, X: Any, y: Any, sample_weight: Any = None) -> Bunch:
        """The values of `ccp_alpha` at which pruning removes another branch.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like of shape (n_samples,), optional

        Returns
        -------
        Bunch
            ``ccp_alphas``: ascending values of alpha; ``impurities``: the leaves' total impurity for each.
        """
        unpruned = clone(self).set_params(ccp_alpha=0.0)
        unpruned.fit(X, y, sample_weight=sample_weight)
        alphas, impurities = pruning_path(unpruned.tree_)
        return Bunch(ccp_alphas=alphas, impurities=impurities)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        # In dense arrays; sparse ones must not hold NaN.
        tags.input_tags.allow_nan = True
        return tags

    @property
    def categories_(self) -> list[Any] | None:
        """The categories of each feature in the order of their codes (None: numeric); None if all are."""
        check_is_fitted(self)
        return None if self._encoder is None else self._encoder.categories

    def _fit_checked(self, X: Any, y: Any, sample_weight: Any, columns: Columns | None = None) -> Self:
        """Grow the tree on X and y as `_validate_fit` returns them; `columns` as for `_grow`."""
        raise NotImplementedError

    def _support_missing_values(self, X: Any) -> bool:
        return not sp.issparse(X) and bool(self.__sklearn_tags__().input_tags.allow_nan)

    def _validate_fit(self, X: Any, y: Any) -> tuple[Any, Any]:
        """X as float32 array or csc matrix and y as array, finite apart from allowed NaN."""
        self._encoder = None
        if self.categorical_features is not None:
            self._encoder = CategoryEncoder(self.categorical_features).fit(X)
            X = self._encoder.transform(X)
        for_X = {"dtype": np.float32, "accept_sparse": "csc", "ensure_all_finite": False}
        for_y = {"ensure_2d": False, "dtype": None}
        X, y = validate_data(self, X, y, validate_separately=(for_X, for_y))
        self._require_finite(X)
        if sp.issparse(X):
            X.sort_indices()
            _require_short_indices(X)
        if self.criterion == "poisson":
            if np.any(y < 0):
                raise ValueError(
                    "Some value(s) of y are negative which is not allowed for Poisson regression."
                )
            if np.sum(y) <= 0:
                raise ValueError("Sum of y is not positive which is necessary for Poisson regression.")
        return X, y

    def _require_finite(self, X: Any) -> None:
        if not sp.issparse(X):
            # One sum tells whether all is well; only then look closer.
            with np.errstate(over="ignore", invalid="ignore"):
                if np.isfinite(np.sum(X)):
                    return
        assert_all_finite(
            X,
            allow_nan=self._support_missing_values(X),
            estimator_name=type(self).__name__,
            input_name="X",
        )

    def _validate_X_predict(self, X: Any, check_input: bool) -> Any:
        if not check_input:
            _check_n_features(self, X, reset=False)
            return X
        if self._encoder is not None and not sp.issparse(X):
            X = self._encoder.transform(X)
        X = validate_data(
            self,
            X,
            dtype=np.float32,
            accept_sparse="csr",
            reset=False,
            ensure_all_finite="allow-nan" if self._support_missing_values(X) else True,
        )
        if sp.issparse(X):
            _require_short_indices(X)
        return X

    def _grow(
        self,
        X: Any,
        y: NDArray[Any],
        n_classes: NDArray[np.int64],
        sample_weight: Any,
        class_weight: NDArray[np.float64] | None,
        columns: Columns | None,
    ) -> None:
        """Fit `tree_` to targets of shape (n_samples, n_outputs), classes as codes.

        `columns` are those of X, if they have been laid out already.
        """
        random_state = check_random_state(self.random_state)
        n_samples, self.n_features_in_ = X.shape
        if len(y) != n_samples:
            raise ValueError(f"Number of labels={len(y)} does not match number of samples={n_samples}")
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X, dtype=np.float64)
        if class_weight is not None:
            sample_weight = class_weight if sample_weight is None else sample_weight * class_weight
        self.max_features_ = self._resolved_max_features(self.n_features_in_)
        n_categories = None if self._encoder is None else self._encoder.n_categories()
        if n_categories is not None and self.monotonic_cst is not None:
            if np.any(np.asarray(self.monotonic_cst)[n_categories > 0] != 0):
                raise ValueError("Categorical features cannot have monotonic constraints.")
        rules = self._rules(
            n_samples, n_samples if sample_weight is None else np.sum(sample_weight), n_classes
        )
        if columns is None:
            columns = columns_of(X, n_categories, presorted=self._sorts_columns(self.n_features_in_))
        targets = targets_of(y, sample_weight, n_classes, rules.criterion)
        tree = grow(columns, targets, rules, random_state.randint(0, SEED_LIMIT))
        self.tree_: Tree = tree if self.ccp_alpha == 0.0 else pruned(tree, self.ccp_alpha)

    def _sorts_columns(self, n_features: int) -> bool:
        """Whether to sort all columns once, rather than the drawn ones in every node."""
        drawn = self._resolved_max_features(n_features)
        return bool(self.splitter == "best" and drawn >= _WORTH_PRESORTING * n_features)

    def _rules(self, n_samples: int, total_weight: float, n_classes: NDArray[np.int64]) -> Rules:
        least_leaf, least_split = self.min_samples_leaf, self.min_samples_split
        if not isinstance(least_leaf, Integral):
            least_leaf = ceil(least_leaf * n_samples)
        if not isinstance(least_split, Integral):
            least_split = max(2, ceil(least_split * n_samples))
        return Rules(
            criterion=CRITERIA[self.criterion],
            random_splits=self.splitter == "random",
            max_features=self.max_features_,
            max_depth=_NO_DEPTH_LIMIT if self.max_depth is None else int(self.max_depth),
            min_samples_split=max(int(least_split), 2 * int(least_leaf)),
            min_samples_leaf=int(least_leaf),
            min_weight_leaf=float(self.min_weight_fraction_leaf * total_weight),
            max_leaf_nodes=-1 if self.max_leaf_nodes is None else int(self.max_leaf_nodes),
            min_impurity_decrease=float(self.min_impurity_decrease),
            monotonic=self._monotonic(n_classes),
        )

    def _resolved_max_features(self, n_features: int) -> int:
        if self.max_features is None:
            return int(n_features)
        if self.max_features == "sqrt":
            return max(1, int(np.sqrt(n_features)))
        if self.max_features == "log2":
            return max(1, int(np.log2(n_features)))
        if isinstance(self.max_features, Integral):
            return int(self.max_features)
        return max(1, int(self.max_features * n_features))

    def _monotonic(self, n_classes: NDArray[np.int64]) -> NDArray[np.int8]:
        """Signs for the value that the kernels look at, that of the first class or of the target."""
        if self.monotonic_cst is None:
            return np.empty(0, np.int8)
        if len(n_classes) > 1:
            raise ValueError("Monotonicity constraints are not supported with multiple outputs.")
        signs = np.asarray(self.monotonic_cst)
        if signs.shape[0] != self.n_features_in_:
            raise ValueError(
                f"monotonic_cst has shape {signs.shape[0]} but the input data X has {self.n_features_in_} "
                "features."
            )
        if not np.all(np.isin(signs, (-1, 0, 1))):
            raise ValueError(
                f"monotonic_cst must be None or an array-like of -1, 0 or 1, but got {np.unique(signs)}"
            )
        if n_classes[0] > 2:
            raise ValueError("Monotonicity constraints are not supported with multiclass classification")
        # The constraint is on the second class's probability, which falls as the first one's rises.
        return (-signs if self.criterion in ("gini", "entropy", "log_loss") else signs).astype(np.int8)


def _require_short_indices(X: Any) -> None:
    if X.indices.dtype != np.intc or X.indptr.dtype != np.intc:
        raise ValueError("No support for np.int64 index based sparse matrices")
