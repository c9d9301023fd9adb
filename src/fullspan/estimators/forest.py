"""Random forests (Breiman 2001): trees on bootstrapped rows, with features drawn anew in each node."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils import compute_class_weight, compute_sample_weight
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.multiclass import check_classification_targets

from fullspan.estimators._forest_base import Forest
from fullspan.estimators.inspecting import average_of_trees, stands_for
from fullspan.estimators.tree.cart import DecisionTreeClassifier, DecisionTreeRegressor


class RandomForestClassifier(ClassifierMixin, Forest):  # type: ignore[misc]
    """A forest of classification trees whose class frequencies are averaged.

    With fewer than 2,000 rows the trees are scikit-learn's, split for split, for the same `random_state`.
    From then on features are put into at most 255 bins once, and trees grow on histograms of the bins: much
    faster, exact where a feature has no more than 255 values. What histograms do not do is grown
    exactly with any number of rows: several outputs, more than 64 classes, `max_leaf_nodes`, `monotonic_cst`,
    negative weights, and the absolute error of `RandomForestRegressor`.

    Parameters
    ----------
    n_estimators : int
        Number of trees.
    criterion : {"gini", "entropy", "log_loss"}
        Impurity that splits reduce; the last two are the same.
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
    max_leaf_nodes : int, optional
        Grow the most improving nodes first, up to this number of leaves.
    min_impurity_decrease : float
        What a split must remove of the impurity, weighted by the node's share of all rows.
    bootstrap : bool
        Whether each tree is grown on rows drawn with replacement, or on all rows.
    oob_score : bool or callable
        Whether to predict each row with the trees that did not see it, and score that; a callable is the
        score, of true and predicted classes.
    n_jobs : int, optional
        Threads; None and -1 are one for each usable core. The forest does not depend on it.
    random_state : int, RandomState instance or None
        Of the bootstraps and of the features drawn.
    verbose : int
        Says what is being grown.
    warm_start : bool
        Keep the trees of the last fit and add those that are missing to `n_estimators`.
    class_weight : dict, list of dict, "balanced", "balanced_subsample" or None
        Weight of each class; a list has one dict for each output. "balanced_subsample" balances the classes
        of each bootstrap.
    ccp_alpha : float
        Price of a leaf in minimal cost-complexity pruning; 0 does not prune.
    max_samples : int or float, optional
        Rows of a bootstrap; a float is a fraction, None means as many as there are.
    monotonic_cst : array-like of int of shape (n_features,), optional
        1, 0 or -1: the second class's probability may only rise, do anything or only fall with the feature.
    categorical_features : array-like of bool, int or str, "from_dtype" or None
        Mask, indices or names of columns whose values are categories; or those of pandas' category dtype. A
        split sends a subset of them left: the best of those that are ordered by mean response (with more
        than two classes, by the share of the commonest). Categories that a node never saw go where missing
        values go. A column with more than 254 of them lets the forest grow exactly.

    Attributes
    ----------
    estimators_ : list of DecisionTreeClassifier
        Their ``tree_`` take 57 + 8 K bytes a node with K classes, and the classes are numbers from 0.
    estimator_ : DecisionTreeClassifier
        Not fitted.
    classes_ : array of shape (n_classes,), or a list of them for several outputs
    n_classes_ : int, or a list for several outputs
    n_outputs_, n_features_in_ : int
    feature_names_in_ : array of shape (n_features,)
        Only if X has string column names.
    feature_importances_ : array of shape (n_features,)
        Mean share of each feature in the impurity that splits remove.
    oob_score_ : float
    oob_decision_function_ : array of shape (n_samples, n_classes[, n_outputs])
        Mean of what the trees that did not see a row predict for it; zeros where every tree did, with a
        warning. With `oob_score` only.
    estimators_samples_ : list of int32 arrays
        Rows that each tree was grown on.

    References
    ----------
    Breiman (2001), Random Forests, Machine Learning 45.

    Examples
    --------
    >>> from fullspan.estimators import RandomForestClassifier
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> forest = RandomForestClassifier(n_estimators=50, oob_score=True, random_state=0).fit(X, y)
    >>> forest.oob_score_ > 0.9
    True
    """

    _tree_class = DecisionTreeClassifier

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **Forest._parameter_constraints,
        **DecisionTreeClassifier._parameter_constraints,
        "class_weight": [StrOptions({"balanced_subsample", "balanced"}), dict, list, None],
        "categorical_features": ["array-like", StrOptions({"from_dtype"}), None],
    }
    _parameter_constraints.pop("splitter")

    def __init__(
        self,
        n_estimators: int = 100,
        *,
        criterion: str = "gini",
        max_depth: int | None = None,
        min_samples_split: int | float = 2,
        min_samples_leaf: int | float = 1,
        min_weight_fraction_leaf: float = 0.0,
        max_features: int | float | str | None = "sqrt",
        max_leaf_nodes: int | None = None,
        min_impurity_decrease: float = 0.0,
        bootstrap: bool = True,
        oob_score: bool | Callable[..., float] = False,
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: int = 0,
        warm_start: bool = False,
        class_weight: Any = None,
        ccp_alpha: float = 0.0,
        max_samples: int | float | None = None,
        monotonic_cst: Any = None,
        categorical_features: Any = None,
    ) -> None:
        self.n_estimators = n_estimators
        self.criterion = criterion
        self.max_depth = max_depth
        self.min_samples_split = min_samples_split
        self.min_samples_leaf = min_samples_leaf
        self.min_weight_fraction_leaf = min_weight_fraction_leaf
        self.max_features = max_features
        self.max_leaf_nodes = max_leaf_nodes
        self.min_impurity_decrease = min_impurity_decrease
        self.bootstrap = bootstrap
        self.oob_score = oob_score
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose
        self.warm_start = warm_start
        self.class_weight = class_weight
        self.ccp_alpha = ccp_alpha
        self.max_samples = max_samples
        self.monotonic_cst = monotonic_cst
        self.categorical_features = categorical_features

    def predict(self, X: Any) -> NDArray[Any]:
        """The class with the highest mean frequency.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)

        Returns
        -------
        array of shape (n_samples,) or (n_samples, n_outputs)
        """
        probability = self.predict_proba(X)
        if self.n_outputs_ == 1:
            return self.classes_.take(np.argmax(probability, axis=1), axis=0)  # type: ignore[no-any-return]
        predicted = np.empty((len(probability[0]), self.n_outputs_), dtype=self.classes_[0].dtype)
        for k, classes in enumerate(self.classes_):
            predicted[:, k] = classes.take(np.argmax(probability[k], axis=1), axis=0)
        return predicted

    def predict_proba(self, X: Any) -> Any:
        """Mean frequencies of the classes in the leaves that a row ends in.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)

        Returns
        -------
        float64 array of shape (n_samples, n_classes), or a list of them for several outputs
            Columns as in ``classes_``.
        """
        means = self._mean_values(X)
        if self.n_outputs_ == 1:
            return means[:, 0]
        return [means[:, k, :count] for k, count in enumerate(self.n_classes_)]

    def predict_log_proba(self, X: Any) -> Any:
        """Logarithms of `predict_proba`; minus infinity for classes that no leaf holds."""
        probability = self.predict_proba(X)
        with np.errstate(divide="ignore"):
            return np.log(probability) if self.n_outputs_ == 1 else [np.log(each) for each in probability]

    def _validate_y_class_weight(
        self, y: NDArray[Any], sample_weight: Any
    ) -> tuple[NDArray[Any], NDArray[np.float64] | None]:
        """Codes of the classes, and the weight of each row by its classes."""
        check_classification_targets(y)
        self.classes_: Any = []
        self.n_classes_: Any = []
        codes = np.empty(y.shape, np.int64)
        for k in range(self.n_outputs_):
            found, codes[:, k] = np.unique(y[:, k], return_inverse=True)
            self.classes_.append(found)
            self.n_classes_.append(len(found))
        if self.class_weight is None:
            return codes, None
        if not isinstance(self.class_weight, str):
            return codes, compute_sample_weight(self.class_weight, y)
        if self.warm_start:
            warnings.warn(
                'class_weight presets "balanced" or "balanced_subsample" are not recommended for warm_start '
                "if the fitted data differs from the full dataset. Give the weights of the full data: "
                'compute_class_weight("balanced", classes=..., y=...).',
                stacklevel=4,
            )
        if self.class_weight == "balanced_subsample" and self.bootstrap:
            return codes, None
        balance = [
            dict(
                zip(
                    classes,
                    compute_class_weight("balanced", classes=classes, y=column, sample_weight=sample_weight),
                    strict=True,
                )
            )
            for classes, column in zip(self.classes_, y.T, strict=True)
        ]
        return codes, compute_sample_weight(balance[0] if self.n_outputs_ == 1 else balance, y)

    def _unwrap_classes(self) -> None:
        if self.n_outputs_ == 1:
            self.classes_, self.n_classes_ = self.classes_[0], self.n_classes_[0]

    def _describe_classes(self, tree: Any, n_classes: NDArray[np.int64]) -> None:
        codes = [np.arange(count, dtype=np.float64) for count in n_classes]
        tree.classes_ = codes if self.n_outputs_ > 1 else codes[0]
        tree.n_classes_ = n_classes if self.n_outputs_ > 1 else n_classes[0]

    def _set_oob_score_and_attributes(
        self, X: Any, y: NDArray[np.float64], scoring_function: Callable[..., float] | None = None
    ) -> None:
        frequencies = self._oob_means(X).transpose(0, 2, 1)
        if self.n_outputs_ == 1:
            frequencies = frequencies[..., 0]
        self.oob_decision_function_ = frequencies
        score = accuracy_score if scoring_function is None else scoring_function
        self.oob_score_ = score(y, np.argmax(frequencies, axis=1))

    def _codes(self, y: NDArray[Any]) -> NDArray[Any]:
        return np.searchsorted(self.classes_, y)

    @staticmethod
    def _loss(values: NDArray[np.float64], y: NDArray[Any]) -> float:
        return float(np.mean(values.argmax(axis=1) != y))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class RandomForestRegressor(RegressorMixin, Forest):  # type: ignore[misc]
    """A forest of regression trees whose predictions are averaged.

    Which trees are grown on histograms and which exactly: see `RandomForestClassifier`.

    Parameters
    ----------
    n_estimators : int
        Number of trees.
    criterion : {"squared_error", "absolute_error", "poisson", "friedman_mse"}
        Impurity that splits reduce: variance, absolute deviation from the median, or half of the Poisson
        deviance. The last is an old name of the first.
    max_depth, min_samples_split, min_samples_leaf, min_weight_fraction_leaf, max_features, max_leaf_nodes, \
min_impurity_decrease, bootstrap, n_jobs, random_state, verbose, warm_start, ccp_alpha, max_samples, \
categorical_features
        As in `RandomForestClassifier`, but that all features are looked at by default.
    oob_score : bool or callable
        Whether to predict each row with the trees that did not see it, and score that; a callable is the
        score, of true and predicted values.
    monotonic_cst : array-like of int of shape (n_features,), optional
        1, 0 or -1: the prediction may only rise, do anything or only fall with the feature.

    Attributes
    ----------
    estimators_ : list of DecisionTreeRegressor
        Their ``tree_`` take 57 + 8 K bytes a node with K outputs.
    oob_prediction_ : array of shape (n_samples,) or (n_samples, n_outputs)
        Mean of what the trees that did not see a row predict for it; zeros where every tree did, with a
        warning. With `oob_score` only.
    estimator_, n_outputs_, n_features_in_, feature_names_in_, feature_importances_, oob_score_, \
estimators_samples_
        As in `RandomForestClassifier`.

    References
    ----------
    Breiman (2001), Random Forests, Machine Learning 45.

    Examples
    --------
    >>> from fullspan.estimators import RandomForestRegressor
    >>> X = [[value] for value in range(100)]
    >>> forest = RandomForestRegressor(n_estimators=20, random_state=0).fit(X, range(100))
    >>> abs(float(forest.predict([[50.2]])[0]) - 50) < 3
    True
    """

    _tree_class = DecisionTreeRegressor

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **Forest._parameter_constraints,
        **DecisionTreeRegressor._parameter_constraints,
        "categorical_features": ["array-like", StrOptions({"from_dtype"}), None],
    }
    _parameter_constraints.pop("splitter")

    def __init__(
        self,
        n_estimators: int = 100,
        *,
        criterion: str = "squared_error",
        max_depth: int | None = None,
        min_samples_split: int | float = 2,
        min_samples_leaf: int | float = 1,
        min_weight_fraction_leaf: float = 0.0,
        max_features: int | float | str | None = 1.0,
        max_leaf_nodes: int | None = None,
        min_impurity_decrease: float = 0.0,
        bootstrap: bool = True,
        oob_score: bool | Callable[..., float] = False,
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: int = 0,
        warm_start: bool = False,
        ccp_alpha: float = 0.0,
        max_samples: int | float | None = None,
        monotonic_cst: Any = None,
        categorical_features: Any = None,
    ) -> None:
        if isinstance(criterion, str) and criterion == "friedman_mse":
            warnings.warn(
                "criterion 'friedman_mse' is an old name of 'squared_error': both find the same splits",
                FutureWarning,
                stacklevel=2,
            )
        self.n_estimators = n_estimators
        self.criterion = criterion
        self.max_depth = max_depth
        self.min_samples_split = min_samples_split
        self.min_samples_leaf = min_samples_leaf
        self.min_weight_fraction_leaf = min_weight_fraction_leaf
        self.max_features = max_features
        self.max_leaf_nodes = max_leaf_nodes
        self.min_impurity_decrease = min_impurity_decrease
        self.bootstrap = bootstrap
        self.oob_score = oob_score
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose
        self.warm_start = warm_start
        self.ccp_alpha = ccp_alpha
        self.max_samples = max_samples
        self.monotonic_cst = monotonic_cst
        self.categorical_features = categorical_features

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Mean of the trees' predictions.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)

        Returns
        -------
        float64 array of shape (n_samples,) or (n_samples, n_outputs)
        """
        means = self._mean_values(X)[..., 0]
        return means[:, 0] if self.n_outputs_ == 1 else means

    def _set_oob_score_and_attributes(
        self, X: Any, y: NDArray[np.float64], scoring_function: Callable[..., float] | None = None
    ) -> None:
        predicted = self._oob_means(X)[..., 0]
        self.oob_prediction_ = predicted[:, 0] if self.n_outputs_ == 1 else predicted
        score = r2_score if scoring_function is None else scoring_function
        self.oob_score_ = score(y, self.oob_prediction_)

    def _codes(self, y: NDArray[Any]) -> NDArray[Any]:
        return y.astype(np.float64)

    @staticmethod
    def _loss(values: NDArray[np.float64], y: NDArray[Any]) -> float:
        return float(np.mean((values[:, 0] - y) ** 2))

    def _compute_partial_dependence_recursion(self, grid: Any, target_features: Any) -> NDArray[np.float64]:
        """What `sklearn.inspection.partial_dependence` calls: (n_points,)."""
        trees = [estimator.tree_ for estimator in self.estimators_]
        return average_of_trees(trees, grid, target_features, self._encoder) / len(trees)

    def __sklearn_tags__(self) -> Any:
        stands_for(RandomForestRegressor, "RandomForestRegressor")
        return super().__sklearn_tags__()
