"""Gradient boosting as Friedman wrote it: regression trees for residuals, leaves set by a line search."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.multiclass import check_classification_targets

from fullspan.estimators._gradient_boosting_base import GradientBoosting
from fullspan.estimators.friedman import Constant, classification_objective, regression_objective


class GradientBoostingClassifier(ClassifierMixin, GradientBoosting):  # type: ignore[misc]
    """Regression trees added up stage by stage to log-odds, each following the slope of the loss.

    Equal to scikit-learn's for the same `random_state`. With three classes or more, the trees of a stage are
    grown side by side on every usable core.

    Parameters
    ----------
    loss : {"log_loss", "exponential"}
        The second is AdaBoost's, for two classes.
    learning_rate : float
        Shrinks each tree.
    n_estimators : int
        Stages.
    subsample : float
        Share of the rows, drawn anew without replacement, that each stage is fitted to.
    criterion : str
        Without effect; only for code that sets it.
    min_samples_split, min_samples_leaf, min_weight_fraction_leaf, max_depth, min_impurity_decrease, \
max_features, max_leaf_nodes, ccp_alpha
        Of each tree, as in `DecisionTreeRegressor`.
    init : estimator or "zero", optional
        Gives the first predictions; by default the classes' shares.
    random_state : int, RandomState or None
        Seeds the trees and draws rows.
    verbose : int
        1 prints some stages, more prints all.
    warm_start : bool
        Keep the stages of the last fit and add to them.
    validation_fraction : float
        Share of the rows set aside when `n_iter_no_change` is given.
    n_iter_no_change : int, optional
        Stop once the loss of the rows set aside has not fallen by `tol` in so many stages.
    tol : float

    Attributes
    ----------
    estimators_ : ndarray of DecisionTreeRegressor of shape (n_estimators, 1 or n_classes)
        Their leaves hold the steps that the line search found.
    n_estimators_ : int
        Stages fitted.
    n_trees_per_iteration_ : int
    classes_ : ndarray of shape (n_classes,)
    n_classes_ : int
    train_score_ : ndarray of shape (n_estimators,)
        Deviance (exponential loss) of the rows each stage was fitted to.
    oob_improvement_, oob_scores_ : ndarray of shape (n_estimators,)
        How much each stage lowered the loss of the rows it was not fitted to, and that loss; only with
        `subsample` below 1.
    oob_score_ : float
        The last of them.
    init_ : estimator or "zero"
    feature_importances_ : ndarray of shape (n_features,)
    max_features_ : int
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features,)

    Raises
    ------
    ValueError
        In `fit`, for less than two classes with weight, the exponential loss with more than two, an `init`
        that takes no weights when there are some, or fewer `n_estimators` than a warm start has.

    References
    ----------
    J. Friedman, "Greedy function approximation: a gradient boosting machine", Annals of Statistics 29, 2001.
    J. Friedman, "Stochastic gradient boosting", Computational Statistics & Data Analysis 38, 2002.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fullspan.estimators import GradientBoostingClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> model = GradientBoostingClassifier(n_estimators=20, random_state=0).fit(X, y)
    >>> model.estimators_.shape
    (20, 3)
    >>> model.score(X, y) > 0.97
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **GradientBoosting._parameter_constraints,
        "loss": [StrOptions({"log_loss", "exponential"})],
        "init": [StrOptions({"zero"}), None, HasMethods(["fit", "predict_proba"])],
    }

    def __init__(
        self,
        *,
        loss: str = "log_loss",
        learning_rate: float = 0.1,
        n_estimators: int = 100,
        subsample: float = 1.0,
        criterion: str = "deprecated",
        min_samples_split: float = 2,
        min_samples_leaf: float = 1,
        min_weight_fraction_leaf: float = 0.0,
        max_depth: int | None = 3,
        min_impurity_decrease: float = 0.0,
        init: Any = None,
        random_state: Any = None,
        max_features: Any = None,
        verbose: int = 0,
        max_leaf_nodes: int | None = None,
        warm_start: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int | None = None,
        tol: float = 1e-4,
        ccp_alpha: float = 0.0,
    ) -> None:
        self.loss = loss
        self.learning_rate = learning_rate
        self.n_estimators = n_estimators
        self.subsample = subsample
        self.criterion = criterion
        self.min_samples_split = min_samples_split
        self.min_samples_leaf = min_samples_leaf
        self.min_weight_fraction_leaf = min_weight_fraction_leaf
        self.max_depth = max_depth
        self.min_impurity_decrease = min_impurity_decrease
        self.init = init
        self.random_state = random_state
        self.max_features = max_features
        self.verbose = verbose
        self.max_leaf_nodes = max_leaf_nodes
        self.warm_start = warm_start
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.ccp_alpha = ccp_alpha

    def _encoded(self, y: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        self.n_classes_ = len(self.classes_)
        self.n_trees_per_iteration_ = 1 if self.n_classes_ <= 2 else self.n_classes_
        n_weighted = np.count_nonzero(np.bincount(codes, weight))
        if n_weighted < 2:
            raise ValueError(
                f"y contains {n_weighted} class after sample_weight trimmed classes with zero weights, while "
                "a minimum of 2 classes are required."
            )
        self._loss  # noqa: B018  # refuses the exponential loss for more classes
        return codes.astype(np.float64)

    @property
    def _loss(self) -> Any:
        return classification_objective(self.loss, self.n_classes_)

    def _default_init(self) -> Constant:
        return Constant("prior")

    def decision_function(self, X: Any) -> np.ndarray:
        """Log-odds (of the exponential loss, half of them), or a score for each class.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_classes)
        """
        raw = self._raw_predict(self._checked(X))
        return raw.ravel() if raw.shape[1] == 1 else raw

    def staged_decision_function(self, X: Any) -> Iterator[np.ndarray]:
        """`decision_function` after each stage.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Yields
        ------
        ndarray of shape (n_samples, n_trees_per_iteration)
        """
        yield from self._staged_raw(X)

    def _answers(self, raw: np.ndarray) -> np.ndarray:
        codes = (raw[:, 0] >= 0).astype(np.int64) if raw.shape[1] == 1 else raw.argmax(axis=1)
        labels: np.ndarray = self.classes_.take(codes, axis=0)
        return labels

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the classes.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
        """
        raw = self._raw_predict(self._checked(X))
        probabilities: np.ndarray = self._loss.predict_proba(raw)
        return probabilities

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Logarithms of `predict_proba`.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
        """
        return np.asarray(np.log(self.predict_proba(X)))

    def staged_predict_proba(self, X: Any) -> Iterator[np.ndarray]:
        """`predict_proba` after each stage.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Yields
        ------
        ndarray of shape (n_samples, n_classes)
        """
        for raw in self._staged_raw(X):
            yield self._loss.predict_proba(raw)


class GradientBoostingRegressor(RegressorMixin, GradientBoosting):  # type: ignore[misc]
    """Regression trees added up stage by stage, each following the slope of the loss.

    Equal to scikit-learn's for the same `random_state`.

    Parameters
    ----------
    loss : {"squared_error", "absolute_error", "huber", "quantile"}
        Leaves hold the residuals' mean, median, Huber's estimate or `alpha`-quantile.
    learning_rate : float
        Shrinks each tree.
    n_estimators : int
        Stages.
    subsample : float
        Share of the rows, drawn anew without replacement, that each stage is fitted to.
    criterion : str
        Without effect; only for code that sets it.
    min_samples_split, min_samples_leaf, min_weight_fraction_leaf, max_depth, min_impurity_decrease, \
max_features, max_leaf_nodes, ccp_alpha
        Of each tree, as in `DecisionTreeRegressor`.
    init : estimator or "zero", optional
        Gives the first predictions; by default the mean, or the median or quantile that the loss asks for.
    random_state : int, RandomState or None
        Seeds the trees and draws rows.
    alpha : float
        The quantile of the quantile loss; for Huber's, that of the errors which sets its threshold.
    verbose : int
        1 prints some stages, more prints all.
    warm_start : bool
        Keep the stages of the last fit and add to them.
    validation_fraction : float
        Share of the rows set aside when `n_iter_no_change` is given.
    n_iter_no_change : int, optional
        Stop once the loss of the rows set aside has not fallen by `tol` in so many stages.
    tol : float

    Attributes
    ----------
    estimators_ : ndarray of DecisionTreeRegressor of shape (n_estimators, 1)
        Their leaves hold the steps that the line search found.
    n_estimators_ : int
        Stages fitted.
    n_trees_per_iteration_ : int
    train_score_ : ndarray of shape (n_estimators,)
        Mean squared error, or the mean of another loss, of the rows each stage was fitted to.
    oob_improvement_, oob_scores_ : ndarray of shape (n_estimators,)
        How much each stage lowered the loss of the rows it was not fitted to, and that loss; only with
        `subsample` below 1.
    oob_score_ : float
        The last of them.
    init_ : estimator or "zero"
    feature_importances_ : ndarray of shape (n_features,)
    max_features_ : int
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features,)

    Raises
    ------
    ValueError
        In `fit`, for an `init` that takes no weights when there are some, or fewer `n_estimators` than a
        warm start has.

    References
    ----------
    J. Friedman, "Greedy function approximation: a gradient boosting machine", Annals of Statistics 29, 2001.
    J. Friedman, "Stochastic gradient boosting", Computational Statistics & Data Analysis 38, 2002.

    Examples
    --------
    >>> import numpy as np
    >>> from fullspan.estimators import GradientBoostingRegressor
    >>> X = np.linspace(0, 6, 200)[:, None]
    >>> model = GradientBoostingRegressor(loss="huber", random_state=0).fit(X, np.sin(X.ravel()))
    >>> bool(abs(model.predict([[1.57]])[0] - 1) < 0.05)
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **GradientBoosting._parameter_constraints,
        "loss": [StrOptions({"squared_error", "absolute_error", "huber", "quantile"})],
        "init": [StrOptions({"zero"}), None, HasMethods(["fit", "predict"])],
        "alpha": [Interval(Real, 0.0, 1.0, closed="neither")],
    }

    def __init__(
        self,
        *,
        loss: str = "squared_error",
        learning_rate: float = 0.1,
        n_estimators: int = 100,
        subsample: float = 1.0,
        criterion: str = "deprecated",
        min_samples_split: float = 2,
        min_samples_leaf: float = 1,
        min_weight_fraction_leaf: float = 0.0,
        max_depth: int | None = 3,
        min_impurity_decrease: float = 0.0,
        init: Any = None,
        random_state: Any = None,
        max_features: Any = None,
        alpha: float = 0.9,
        verbose: int = 0,
        max_leaf_nodes: int | None = None,
        warm_start: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int | None = None,
        tol: float = 1e-4,
        ccp_alpha: float = 0.0,
    ) -> None:
        self.loss = loss
        self.learning_rate = learning_rate
        self.n_estimators = n_estimators
        self.subsample = subsample
        self.criterion = criterion
        self.min_samples_split = min_samples_split
        self.min_samples_leaf = min_samples_leaf
        self.min_weight_fraction_leaf = min_weight_fraction_leaf
        self.max_depth = max_depth
        self.min_impurity_decrease = min_impurity_decrease
        self.init = init
        self.random_state = random_state
        self.max_features = max_features
        self.alpha = alpha
        self.verbose = verbose
        self.max_leaf_nodes = max_leaf_nodes
        self.warm_start = warm_start
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.ccp_alpha = ccp_alpha

    def _encoded(self, y: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
        self.n_trees_per_iteration_ = 1
        return y.astype(np.float64)

    @property
    def _loss(self) -> Any:
        return regression_objective(self.loss, self.alpha, getattr(self, "_delta", 0.5))

    def _default_init(self) -> Constant:
        if self.loss in ("absolute_error", "huber"):
            return Constant("quantile", 0.5)
        return Constant("quantile", self.alpha) if self.loss == "quantile" else Constant("mean")

    def _answers(self, raw: np.ndarray) -> np.ndarray:
        return raw.ravel()

    def apply(self, X: Any) -> np.ndarray:
        """The leaf that each row ends in, in each tree.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_estimators)
            Numbers of nodes.
        """
        return super().apply(X)[:, :, 0]
