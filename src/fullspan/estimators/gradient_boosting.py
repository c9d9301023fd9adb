"""Gradient boosting as Friedman wrote it: regression trees for residuals, leaves set by a line search."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from scipy.sparse import csc_array, csr_array, issparse
from sklearn.base import ClassifierMixin, RegressorMixin, _fit_context, clone, is_classifier
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods, Hidden, Interval, StrOptions
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, column_or_1d, validate_data

from fullspan.core.device import usable_cores
from fullspan.estimators._gradient_boosting_kernels import choose_rows
from fullspan.estimators.combining import Repeated
from fullspan.estimators.friedman import (
    Constant,
    Objective,
    classification_objective,
    regression_objective,
)
from fullspan.estimators.tree.cart import DecisionTreeRegressor
from fullspan.estimators.tree.growing import SEED_LIMIT, columns_of, grow, targets_of
from fullspan.estimators.tree.pruning import pruned
from fullspan.estimators.tree.structure import LEAF

_TREE_PARAMETERS = (
    "max_depth",
    "min_samples_split",
    "min_samples_leaf",
    "min_weight_fraction_leaf",
    "min_impurity_decrease",
    "max_features",
    "max_leaf_nodes",
    "random_state",
    "ccp_alpha",
)
_OF_LAST_FIT = (
    "estimators_",
    "train_score_",
    "oob_improvement_",
    "oob_scores_",
    "oob_score_",
    "init_",
    "_delta",
)
_WORTH_THREADS = 200_000  # values of X
# Sorting all columns once costs more than sorting the drawn ones in every node when fewer are drawn.
_WORTH_PRESORTING = 0.1


class _Grower:
    """Grows trees on the same rows, whose columns are laid out once."""

    def __init__(self, X: Any, template: DecisionTreeRegressor) -> None:
        self.rows = csr_array(X) if issparse(X) else np.ascontiguousarray(X)
        self.template = template
        self.template.n_features_in_ = X.shape[1]
        self.template.max_features_ = self.template._resolved_max_features()
        self.template.n_outputs_ = 1
        self.columns = columns_of(
            _sorted_csc(X) if issparse(X) else X,
            presorted=self.template.max_features_ >= _WORTH_PRESORTING * X.shape[1],
        )

    def grow(self, residual: np.ndarray, weight: np.ndarray, seed: int) -> DecisionTreeRegressor:
        """A fitted tree: what the template's `fit` would make of the residuals, if it drew that seed."""
        made = copy.copy(self.template)
        one = np.ones(1, np.int64)
        rules = made._rules(len(residual), np.sum(weight), one)
        targets = targets_of(residual[:, None], weight, one, rules.criterion)
        tree = grow(self.columns, targets, rules, seed)
        made.tree_ = tree if made.ccp_alpha == 0.0 else pruned(tree, made.ccp_alpha)
        return made


def _sorted_csc(X: Any) -> Any:
    columns = csc_array(X)
    columns.sort_indices()
    return columns


class _GradientBoosting(Repeated):
    """The loop of stages; subclasses name the losses and turn scores into predictions."""

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **{name: DecisionTreeRegressor._parameter_constraints[name] for name in _TREE_PARAMETERS},
        "learning_rate": [Interval(Real, 0.0, None, closed="left")],
        "n_estimators": [Interval(Integral, 1, None, closed="left")],
        "criterion": [
            StrOptions({"squared_error"}),
            Hidden(StrOptions({"deprecated", "friedman_mse"})),
        ],
        "subsample": [Interval(Real, 0.0, 1.0, closed="right")],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "validation_fraction": [Interval(Real, 0.0, 1.0, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left"), None],
        "tol": [Interval(Real, 0.0, None, closed="left")],
    }

    @_fit_context(prefer_skip_nested_validation=False)  # type: ignore[untyped-decorator]
    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, monitor: Callable[..., Any] | None = None
    ) -> Self:
        """Fit the stages.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Used as float32.
        y : array-like of shape (n_samples,)
        sample_weight : array-like of shape (n_samples,), optional
        monitor : callable, optional
            Called after each stage with its number, this estimator and a dict of the arrays at work; boosting
            ends when it returns True.

        Returns
        -------
        self
        """
        if not self.warm_start:
            self._forget()
        if self.criterion != "deprecated":
            warnings.warn(
                "The parameter `criterion` is deprecated and will be removed. It has no effect: all criteria "
                "find the same splits. Leave it to its default value to avoid this warning.",
                FutureWarning,
                stacklevel=3,
            )
        X, y = validate_data(
            self, X, y, accept_sparse=["csr", "csc", "coo"], dtype=np.float32, multi_output=True
        )
        equal_weights = sample_weight is None
        sample_weight = _check_sample_weight(sample_weight, X)
        y = self._encoded(column_or_1d(y, warn=True), None if equal_weights else sample_weight)
        if issparse(X) and X.format == "coo":
            X = csr_array(X)
        validation = None
        if self.n_iter_no_change is not None:
            X, y, sample_weight, validation = self._split(X, y, sample_weight)
        resumed = len(getattr(self, "estimators_", [])) > 0
        if resumed:
            if self.n_estimators < len(self.estimators_):
                raise ValueError(
                    f"n_estimators={self.n_estimators} must be larger or equal to "
                    f"estimators_.shape[0]={len(self.estimators_)} when warm_start==True"
                )
        else:
            self.init_ = self._fitted_init(X, y, None if equal_weights else sample_weight)
        generator = self._generator(resumed)
        n_stages = self._fit_stages(X, y, sample_weight, validation, generator, monitor)
        self._keep_state(generator)
        self._resize(n_stages)
        self.n_estimators_ = n_stages
        return self

    def _forget(self) -> None:
        for name in _OF_LAST_FIT:
            if hasattr(self, name):
                delattr(self, name)

    def _split(self, X: Any, y: np.ndarray, weight: np.ndarray) -> tuple[Any, Any, Any, tuple[Any, Any, Any]]:
        """Set rows aside for validation."""
        X, X_out, y, y_out, weight, weight_out = train_test_split(
            X,
            y,
            weight,
            random_state=self.random_state,
            test_size=self.validation_fraction,
            stratify=y if is_classifier(self) else None,
        )
        if is_classifier(self) and len(np.unique(y)) != self.n_classes_:
            raise ValueError(
                "The training data after the early stopping split is missing some classes. Try using another "
                "random seed."
            )
        return X, y, weight, (csr_array(X_out) if issparse(X_out) else X_out, y_out, weight_out)

    def _fitted_init(self, X: Any, y: np.ndarray, weight: np.ndarray | None) -> Any:
        """The estimator of the first predictions, "zero" if there is none."""
        if isinstance(self.init, str):
            return self.init
        init = self._default_init() if self.init is None else clone(self.init)
        if weight is None:
            return init.fit(X, y)
        refused = f"The initial estimator {type(init).__name__} does not support sample weights."
        try:
            return init.fit(X, y, sample_weight=weight)
        except TypeError as error:
            if "unexpected keyword argument 'sample_weight'" in str(error):
                raise ValueError(refused) from error
            raise
        except ValueError as error:  # a pipeline
            if "pass parameters to specific steps of your pipeline" in str(error):
                raise ValueError(refused) from error
            raise

    def _generator(self, resumed: bool) -> np.random.RandomState:
        """Random numbers, those of the last fit going on if there is one."""
        generator: np.random.RandomState = check_random_state(self.random_state)
        if resumed and isinstance(self.random_state, Integral):
            generator.set_state(self._random_numbers)
        return generator

    def _keep_state(self, generator: np.random.RandomState) -> None:
        if isinstance(self.random_state, Integral):
            self._random_numbers = generator.get_state()

    def _resize(self, n_stages: int) -> None:
        """Make room for stages, or take away room that was not needed."""
        old = getattr(self, "estimators_", np.empty((0, self.n_trees_per_iteration_), dtype=object))
        self.estimators_ = np.empty((n_stages, self.n_trees_per_iteration_), dtype=object)
        kept = min(len(old), n_stages)
        self.estimators_[:kept] = old[:kept]
        names = ["train_score_"]
        if self.subsample < 1 or hasattr(self, "oob_scores_"):
            names += ["oob_improvement_", "oob_scores_"]
        for name in names:
            scores = np.zeros(n_stages)
            before = getattr(self, name, scores)[:kept]
            scores[: len(before)] = before
            setattr(self, name, scores)

    def _fit_stages(
        self,
        X: Any,
        y: np.ndarray,
        sample_weight: np.ndarray,
        validation: tuple[Any, np.ndarray, np.ndarray] | None,
        generator: np.random.RandomState,
        monitor: Callable[..., Any] | None,
    ) -> int:
        """Add stages, and return how many there are then."""
        template = DecisionTreeRegressor(**{name: getattr(self, name) for name in _TREE_PARAMETERS})
        template.random_state = None  # seeds are drawn here
        grower = _Grower(X, template)
        self.max_features_ = template.max_features_
        raw = self._raw_predict(grower.rows)
        held_out = None if validation is None else self._raw_predict(validation[0])
        first = len(getattr(self, "estimators_", []))
        objective = self._loss
        self._resize(self.n_estimators)
        n_samples = len(y)
        n_chosen = max(1, int(self.subsample * n_samples))
        chosen = np.ones(n_samples, dtype=bool)
        history = np.full(self.n_iter_no_change or 1, np.inf)
        reporter = _Reporter(self, first) if self.verbose else None
        n_stages = first
        for stage in range(first, self.n_estimators):
            if self.subsample < 1.0:
                chosen = choose_rows(generator.uniform(size=n_samples), n_chosen)
                if stage == 0:
                    initial_loss = objective.score(y[~chosen], raw[~chosen], sample_weight[~chosen])
            self._fit_stage(stage, objective, grower, y, raw, sample_weight, chosen, generator)
            n_stages = stage + 1
            self.train_score_[stage] = objective.score(y[chosen], raw[chosen], sample_weight[chosen])
            if self.subsample < 1.0:
                loss = objective.score(y[~chosen], raw[~chosen], sample_weight[~chosen])
                before = initial_loss if stage == 0 else self.oob_scores_[stage - 1]
                self.oob_scores_[stage] = self.oob_score_ = loss
                self.oob_improvement_[stage] = before - loss
            if reporter is not None:
                reporter.update(stage)
            if monitor is not None and monitor(stage, self, locals()):
                break
            if validation is not None and held_out is not None:
                self._add_stage(stage, validation[0], held_out)
                loss = objective.score(validation[1], held_out, validation[2])
                if not np.any(loss + self.tol < history):
                    break
                history[stage % len(history)] = loss
        self._delta = float(getattr(objective.closs, "delta", 0.0))
        return n_stages

    def _fit_stage(
        self,
        stage: int,
        objective: Objective,
        grower: _Grower,
        y: np.ndarray,
        raw: np.ndarray,
        sample_weight: np.ndarray,
        chosen: np.ndarray,
        generator: np.random.RandomState,
    ) -> None:
        """Grow a stage's trees, set their leaves, and add them to `raw`."""
        objective.prepare(y, raw, sample_weight)
        residuals = objective.residuals(y, raw)
        if self.subsample < 1.0:
            sample_weight = sample_weight * chosen
        n_columns = residuals.shape[1]
        seeds = [generator.randint(0, SEED_LIMIT) for _ in range(n_columns)]

        def one(k: int) -> None:
            residual = np.ascontiguousarray(residuals[:, k])
            target = (y == k).astype(np.float64) if objective.is_multiclass else y
            made = grower.grow(residual, sample_weight, seeds[k])
            at = made.tree_.apply(grower.rows)
            leaves = np.flatnonzero(made.tree_.children_left == LEAF)
            number = np.empty(made.tree_.node_count, np.int64)
            number[leaves] = np.arange(len(leaves))
            column = raw[:, k]
            inside = (number[at], target, residual, column, sample_weight)
            leaf, target, residual, before, weight = (each[chosen] for each in inside)
            values = objective.leaf_values(leaf, len(leaves), target, residual, before, weight)
            if values is not None:
                made.tree_.value[leaves, 0, 0] = values
            column += self.learning_rate * made.tree_.value[:, 0, 0].take(at)
            self.estimators_[stage, k] = made

        if n_columns > 1 and grower.rows.shape[0] * grower.rows.shape[1] > _WORTH_THREADS:
            with ThreadPoolExecutor(usable_cores()) as pool:
                list(pool.map(one, range(n_columns)))
        else:
            for k in range(n_columns):
                one(k)

    def _first_raw(self, X: Any) -> np.ndarray:
        """Scores before the first stage: (n_samples, n_trees_per_iteration_)."""
        if isinstance(self.init_, str):
            return np.zeros((X.shape[0], self.n_trees_per_iteration_))
        predict = self.init_.predict_proba if is_classifier(self) else self.init_.predict
        first: np.ndarray = self._loss.first(predict(X))
        return first

    def _raw_predict(self, X: Any) -> np.ndarray:
        """Scores of checked rows: (n_samples, n_trees_per_iteration_)."""
        raw = self._first_raw(X)
        for stage in range(len(getattr(self, "estimators_", []))):
            self._add_stage(stage, X, raw)
        return raw

    def _add_stage(self, stage: int, X: Any, raw: np.ndarray) -> None:
        for k, tree in enumerate(self.estimators_[stage]):
            raw[:, k] += self.learning_rate * tree.tree_.value[:, 0, 0].take(tree.tree_.apply(X))

    def _checked(self, X: Any) -> Any:
        check_is_fitted(self)
        return validate_data(self, X, dtype=np.float32, order="C", accept_sparse="csr", reset=False)

    def _staged_raw(self, X: Any) -> Iterator[np.ndarray]:
        """Scores after each stage."""
        X = self._checked(X)
        raw = self._first_raw(X)
        for stage in range(len(self.estimators_)):
            self._add_stage(stage, X, raw)
            yield raw.copy()

    @property
    def feature_importances_(self) -> np.ndarray:
        """Share of each feature in the impurity that all trees' splits remove: (n_features,)."""
        check_is_fitted(self)
        trees = [made.tree_ for made in self.estimators_.ravel() if made.tree_.node_count > 1]
        if not trees:
            return np.zeros(self.n_features_in_)
        means = np.mean([tree.compute_feature_importances(normalize=False) for tree in trees], axis=0)
        return np.asarray(means / means.sum())

    def apply(self, X: Any) -> np.ndarray:
        """The leaf that each row ends in, in each tree.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_estimators, n_trees_per_iteration)
            Numbers of nodes.
        """
        X = self._checked(X)
        leaves = np.empty((X.shape[0], *self.estimators_.shape))
        for place in np.ndindex(self.estimators_.shape):
            leaves[:, *place] = self.estimators_[place].tree_.apply(X)
        return leaves

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


class _Reporter:
    """Prints how far boosting is: each stage, or with `verbose=1` fewer and fewer of them."""

    def __init__(self, model: _GradientBoosting, first: int) -> None:
        self.model, self.first = model, first
        self.every = 1
        self.started = time.time()
        titles = ["Train Loss", *(["OOB Improve"] if model.subsample < 1 else []), "Remaining Time"]
        print(f"{'Iter':>10s} " + "".join(f"{title:>16s} " for title in titles))

    def update(self, stage: int) -> None:
        done = stage - self.first + 1
        if done % self.every:
            return
        model = self.model
        left = (model.n_estimators - stage - 1) * (time.time() - self.started) / done
        shown = f"{left / 60:.2f}m" if left > 60 else f"{left:.2f}s"
        improved = f"{model.oob_improvement_[stage]:>16.4f} " if model.subsample < 1 else ""
        print(f"{stage + 1:>10d} {model.train_score_[stage]:>16.4f} {improved}{shown:>16s}")
        if model.verbose == 1 and done // (self.every * 10) > 0:
            self.every *= 10


class GradientBoostingClassifier(ClassifierMixin, _GradientBoosting):  # type: ignore[misc]
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
        **_GradientBoosting._parameter_constraints,
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

    def _labels(self, raw: np.ndarray) -> np.ndarray:
        codes = (raw[:, 0] >= 0).astype(np.int64) if raw.shape[1] == 1 else raw.argmax(axis=1)
        labels: np.ndarray = self.classes_.take(codes, axis=0)
        return labels

    def predict(self, X: Any) -> np.ndarray:
        """The most probable label.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        return self._labels(self._raw_predict(self._checked(X)))

    def staged_predict(self, X: Any) -> Iterator[np.ndarray]:
        """`predict` after each stage.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Yields
        ------
        ndarray of shape (n_samples,)
        """
        for raw in self._staged_raw(X):
            yield self._labels(raw)

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


class GradientBoostingRegressor(RegressorMixin, _GradientBoosting):  # type: ignore[misc]
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
        **_GradientBoosting._parameter_constraints,
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

    def predict(self, X: Any) -> np.ndarray:
        """The sum of all stages.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        return self._raw_predict(self._checked(X)).ravel()

    def staged_predict(self, X: Any) -> Iterator[np.ndarray]:
        """`predict` after each stage.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Yields
        ------
        ndarray of shape (n_samples,)
        """
        for raw in self._staged_raw(X):
            yield raw.ravel()

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
