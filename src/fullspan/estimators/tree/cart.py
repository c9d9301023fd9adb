"""CART: classification and regression trees (Breiman, Friedman, Olshen and Stone 1984)."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin, RegressorMixin, _fit_context
from sklearn.utils import compute_sample_weight
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from fullspan.estimators.inspecting import average_of_trees, stands_for
from fullspan.estimators.saving import Saveable
from fullspan.estimators.tree._records import Columns
from fullspan.estimators.tree.base import BaseDecisionTree


class DecisionTreeClassifier(Saveable, ClassifierMixin, BaseDecisionTree):  # type: ignore[misc]
    """A tree of splits whose leaves hold the fractions of the classes.

    Trees are scikit-learn's, split for split: the same features, thresholds and values for the same
    `random_state`.

    Parameters
    ----------
    criterion : {"gini", "entropy", "log_loss"}
        Impurity that splits reduce; the last two are the same.
    splitter : {"best", "random"}
        Whether to look at every threshold of a feature or at a random one.
    max_depth : int, optional
        Splits on the longest way to a leaf.
    min_samples_split : int or float
        Rows that a node needs to be split; a float is a fraction of all rows.
    min_samples_leaf : int or float
        Rows that each side of a split needs.
    min_weight_fraction_leaf : float
        Fraction of the total weight that each side of a split needs.
    max_features : int, float, {"sqrt", "log2"} or None
        Features that a node looks at, drawn anew for each; a float is a fraction, None means all.
    random_state : int, RandomState instance or None
        Decides in which order features are looked at, so which of two equally good splits is taken.
    max_leaf_nodes : int, optional
        Grow the most improving nodes first, up to this number of leaves.
    min_impurity_decrease : float
        What a split must remove of the impurity, weighted by the node's share of all rows.
    class_weight : dict, list of dict, "balanced" or None
        Weight of each class; a list has one dict for each output.
    ccp_alpha : float
        Price of a leaf in minimal cost-complexity pruning; 0 does not prune.
    monotonic_cst : array-like of int of shape (n_features,), optional
        1, 0 or -1: the second class's probability may only rise, do anything or only fall with the feature.
        For two classes and one output.
    categorical_features : array-like of bool, int or str, "from_dtype" or None
        Mask, indices or names of columns whose values are categories; or those of pandas' category dtype.
        Their splits part the categories into two sets: the best two, where ranking by the mean target finds
        them (one target or two classes), otherwise parted along the first principal component of the class
        fractions. Missing values, and categories that a node never saw, go to the side that was best for
        missing ones, or else to the larger one.

    Attributes
    ----------
    tree_ : Tree
        The nodes as arrays.
    classes_ : array of shape (n_classes,), or a list of them for several outputs
    n_classes_ : int, or an array for several outputs
    n_outputs_ : int
    n_features_in_ : int
    feature_names_in_ : array of shape (n_features,)
        Only if X has string column names.
    max_features_ : int
        `max_features` as a number.
    categories_ : list with an entry a feature, or None
        The categories of each feature in the order of their codes, None for numeric ones.
    feature_importances_ : array of shape (n_features,)
        Share of each feature in the impurity that all splits remove.

    References
    ----------
    Breiman, Friedman, Olshen and Stone (1984), Classification and Regression Trees.

    Examples
    --------
    >>> from fullspan.estimators import DecisionTreeClassifier
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> tree = DecisionTreeClassifier(max_depth=2, random_state=0).fit(X, y)
    >>> float(tree.score(X, y))
    0.96
    """

    __metadata_request__predict_proba: ClassVar = {"check_input": UNUSED}

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseDecisionTree._parameter_constraints,
        "criterion": [StrOptions({"gini", "entropy", "log_loss"})],
        "class_weight": [dict, list, StrOptions({"balanced"}), None],
    }

    def __init__(
        self,
        *,
        criterion: str = "gini",
        splitter: str = "best",
        max_depth: int | None = None,
        min_samples_split: int | float = 2,
        min_samples_leaf: int | float = 1,
        min_weight_fraction_leaf: float = 0.0,
        max_features: int | float | str | None = None,
        random_state: Any = None,
        max_leaf_nodes: int | None = None,
        min_impurity_decrease: float = 0.0,
        class_weight: Any = None,
        ccp_alpha: float = 0.0,
        monotonic_cst: Any = None,
        categorical_features: Any = None,
    ) -> None:
        self.criterion = criterion
        self.splitter = splitter
        self.max_depth = max_depth
        self.min_samples_split = min_samples_split
        self.min_samples_leaf = min_samples_leaf
        self.min_weight_fraction_leaf = min_weight_fraction_leaf
        self.max_features = max_features
        self.random_state = random_state
        self.max_leaf_nodes = max_leaf_nodes
        self.min_impurity_decrease = min_impurity_decrease
        self.class_weight = class_weight
        self.ccp_alpha = ccp_alpha
        self.monotonic_cst = monotonic_cst
        self.categorical_features = categorical_features

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any, sample_weight: Any = None, check_input: bool = True) -> Self:
        """Grow the tree.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Used as float32; sparse ones in csc format. NaN means missing, in dense ones.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Classes, as numbers or strings.
        sample_weight : array-like of shape (n_samples,), optional
            Splits that leave a side without positive weight are not taken.
        check_input : bool
            False if X is known to be a finite float32 array or csc matrix.

        Raises
        ------
        ValueError
            If a parameter or the data is unfit; the message names it.
        """
        if check_input:
            X, y = self._validate_fit(X, y)
        return self._fit_checked(X, y, sample_weight)

    def _fit_checked(self, X: Any, y: Any, sample_weight: Any, columns: Columns | None = None) -> Self:
        check_classification_targets(y)
        y = np.atleast_1d(y)
        y = y.reshape(-1, 1) if y.ndim == 1 else y
        self.n_outputs_ = y.shape[1]
        classes, codes = [], np.empty(y.shape, np.int64)
        for k in range(self.n_outputs_):
            found, codes[:, k] = np.unique(y[:, k], return_inverse=True)
            classes.append(found)
        n_classes = np.array([len(found) for found in classes], np.int64)
        class_weight = None if self.class_weight is None else compute_sample_weight(self.class_weight, y)
        self._grow(X, codes, n_classes, sample_weight, class_weight, columns)
        several = self.n_outputs_ > 1
        self.classes_: Any = classes if several else classes[0]
        self.n_classes_: Any = n_classes if several else n_classes[0]
        return self

    def predict(self, X: Any, check_input: bool = True) -> NDArray[Any]:
        """The most frequent class in each row's leaf.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
        check_input : bool
            False if X is known to be a float32 array (or csr matrix) of the right shape.

        Returns
        -------
        array of shape (n_samples,) or (n_samples, n_outputs)
        """
        check_is_fitted(self)
        shares = self.tree_.predict(self._validate_X_predict(X, check_input))
        if self.n_outputs_ == 1:
            return self.classes_.take(np.argmax(shares, axis=1), axis=0)  # type: ignore[no-any-return]
        predicted = np.zeros(shares.shape[:2], dtype=self.classes_[0].dtype)
        for k, classes in enumerate(self.classes_):
            predicted[:, k] = classes.take(np.argmax(shares[:, k], axis=1), axis=0)
        return predicted

    def predict_proba(self, X: Any, check_input: bool = True) -> Any:
        """The fractions of the classes in each row's leaf.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
        check_input : bool
            False if X is known to be a float32 array (or csr matrix) of the right shape.

        Returns
        -------
        float64 array of shape (n_samples, n_classes), or a list of them for several outputs
            Columns as in ``classes_``.
        """
        check_is_fitted(self)
        shares = self.tree_.predict(self._validate_X_predict(X, check_input))
        if self.n_outputs_ == 1:
            return shares[:, : self.n_classes_]
        return [shares[:, k, :count] for k, count in enumerate(self.n_classes_)]

    def predict_log_proba(self, X: Any) -> Any:
        """Logarithms of `predict_proba`; minus infinity for classes that a leaf does not hold."""
        shares = self.predict_proba(X)
        # No warning where scikit-learn gives one: log(0) is what is asked for.
        with np.errstate(divide="ignore"):
            return np.log(shares) if self.n_outputs_ == 1 else [np.log(share) for share in shares]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class DecisionTreeRegressor(Saveable, RegressorMixin, BaseDecisionTree):  # type: ignore[misc]
    """A tree of splits whose leaves hold means (or medians) of the target.

    Trees are scikit-learn's, split for split: the same features, thresholds and values for the same
    `random_state`.

    Parameters
    ----------
    criterion : {"squared_error", "absolute_error", "poisson", "friedman_mse"}
        Impurity that splits reduce: variance, absolute deviation from the median, or half of the Poisson
        deviance. The last is an old name of the first.
    splitter, max_depth, min_samples_split, min_samples_leaf, min_weight_fraction_leaf, max_features, \
random_state, max_leaf_nodes, min_impurity_decrease, ccp_alpha
        As in `DecisionTreeClassifier`.
    monotonic_cst : array-like of int of shape (n_features,), optional
        1, 0 or -1: the prediction may only rise, do anything or only fall with the feature. For one output.
    categorical_features : array-like of bool, int or str, "from_dtype" or None
        As in `DecisionTreeClassifier`.

    Attributes
    ----------
    tree_, n_outputs_, n_features_in_, feature_names_in_, max_features_, categories_, \
feature_importances_
        As in `DecisionTreeClassifier`.

    References
    ----------
    Breiman, Friedman, Olshen and Stone (1984), Classification and Regression Trees.

    Examples
    --------
    >>> from fullspan.estimators import DecisionTreeRegressor
    >>> tree = DecisionTreeRegressor(max_depth=1).fit([[0], [1], [2], [3]], [1.0, 1.0, 5.0, 7.0])
    >>> tree.predict([[0.5], [2.5]])
    array([1., 6.])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseDecisionTree._parameter_constraints,
        "criterion": [StrOptions({"squared_error", "absolute_error", "poisson", "friedman_mse"})],
    }

    def __init__(
        self,
        *,
        criterion: str = "squared_error",
        splitter: str = "best",
        max_depth: int | None = None,
        min_samples_split: int | float = 2,
        min_samples_leaf: int | float = 1,
        min_weight_fraction_leaf: float = 0.0,
        max_features: int | float | str | None = None,
        random_state: Any = None,
        max_leaf_nodes: int | None = None,
        min_impurity_decrease: float = 0.0,
        ccp_alpha: float = 0.0,
        monotonic_cst: Any = None,
        categorical_features: Any = None,
    ) -> None:
        if isinstance(criterion, str) and criterion == "friedman_mse":
            warnings.warn(
                "criterion 'friedman_mse' is an old name of 'squared_error': both find the same splits",
                FutureWarning,
                stacklevel=2,
            )
        self.criterion = criterion
        self.splitter = splitter
        self.max_depth = max_depth
        self.min_samples_split = min_samples_split
        self.min_samples_leaf = min_samples_leaf
        self.min_weight_fraction_leaf = min_weight_fraction_leaf
        self.max_features = max_features
        self.random_state = random_state
        self.max_leaf_nodes = max_leaf_nodes
        self.min_impurity_decrease = min_impurity_decrease
        self.ccp_alpha = ccp_alpha
        self.monotonic_cst = monotonic_cst
        self.categorical_features = categorical_features

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any, sample_weight: Any = None, check_input: bool = True) -> Self:
        """Grow the tree.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Used as float32; sparse ones in csc format. NaN means missing, in dense ones.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Numbers.
        sample_weight : array-like of shape (n_samples,), optional
            Splits that leave a side without positive weight are not taken.
        check_input : bool
            False if X is known to be a finite float32 array or csc matrix.

        Raises
        ------
        ValueError
            If a parameter or the data is unfit; the message names it.
        """
        if check_input:
            X, y = self._validate_fit(X, y)
        return self._fit_checked(X, y, sample_weight)

    def _fit_checked(self, X: Any, y: Any, sample_weight: Any, columns: Columns | None = None) -> Self:
        y = np.ascontiguousarray(np.atleast_1d(y), np.float64)
        y = y.reshape(-1, 1) if y.ndim == 1 else y
        self.n_outputs_ = y.shape[1]
        self._grow(X, y, np.ones(self.n_outputs_, np.int64), sample_weight, None, columns)
        return self

    def predict(self, X: Any, check_input: bool = True) -> NDArray[np.float64]:
        """The value of each row's leaf.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
        check_input : bool
            False if X is known to be a float32 array (or csr matrix) of the right shape.

        Returns
        -------
        float64 array of shape (n_samples,) or (n_samples, n_outputs)
        """
        check_is_fitted(self)
        values = self.tree_.predict(self._validate_X_predict(X, check_input))
        return values[..., 0]

    def _compute_partial_dependence_recursion(self, grid: Any, target_features: Any) -> NDArray[np.float64]:
        """What `sklearn.inspection.partial_dependence` calls: (n_points,)."""
        return average_of_trees([self.tree_], grid, target_features, self._encoder)

    def __sklearn_tags__(self) -> Any:
        stands_for(DecisionTreeRegressor, "DecisionTreeRegressor")
        return super().__sklearn_tags__()
