"""Friedman's gradient boosting, for classes and for numbers: the loop of stages."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from scipy.sparse import csr_array, issparse
from sklearn.base import _fit_context, clone, is_classifier
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Hidden, Interval, StrOptions
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, column_or_1d, validate_data

from fullspan.core.device import usable_cores
from fullspan.estimators._gradient_boosting_kernels import choose_rows
from fullspan.estimators._gradient_boosting_trees import Grower
from fullspan.estimators._gradient_boosting_watching import HeldOut, Reporter
from fullspan.estimators.combining import Repeated
from fullspan.estimators.friedman import Leaves, Objective
from fullspan.estimators.inspecting import average_of_trees, stands_for
from fullspan.estimators.tree.cart import DecisionTreeRegressor
from fullspan.estimators.tree.growing import SEED_LIMIT
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


class GradientBoosting(Repeated):
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
        grower = Grower(X, template)
        self.max_features_ = template.max_features_
        raw = self._raw_predict(grower.rows)
        held_out = None if validation is None else HeldOut(self, *validation)
        first = len(getattr(self, "estimators_", []))
        objective = self._loss
        self._resize(self.n_estimators)
        chosen = np.ones(len(y), dtype=bool)
        reporter = Reporter(self, first) if self.verbose else None
        n_stages = first
        for stage in range(first, self.n_estimators):
            if self.subsample < 1.0:
                n_chosen = max(1, int(self.subsample * len(y)))
                chosen = choose_rows(generator.uniform(size=len(y)), n_chosen)
                if stage == 0:
                    initial_loss = objective.score(y[~chosen], raw[~chosen], sample_weight[~chosen])
            self._fit_stage(stage, objective, grower, y, raw, sample_weight, chosen, generator)
            n_stages = stage + 1
            self.train_score_[stage] = objective.score(y[chosen], raw[chosen], sample_weight[chosen])
            if self.subsample < 1.0:
                loss = objective.score(y[~chosen], raw[~chosen], sample_weight[~chosen])
                before = initial_loss if stage == 0 else self.oob_scores_[stage - 1]
                self.oob_improvement_[stage] = before - loss
                self.oob_scores_[stage] = self.oob_score_ = loss
            if reporter is not None:
                reporter.update(stage)
            if monitor is not None and monitor(stage, self, locals()):
                break
            if held_out is not None and not held_out.improves(stage, objective):
                break
        self._delta = float(getattr(objective.closs, "delta", 0.0))
        return n_stages

    def _fit_stage(
        self,
        stage: int,
        objective: Objective,
        grower: Grower,
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
            inside = (target, residual, column, sample_weight)
            rows = Leaves(number[at][chosen], len(leaves), *(each[chosen] for each in inside))
            values = objective.leaf_values(rows)
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

    def _answers(self, raw: np.ndarray) -> np.ndarray:
        """Labels or targets from scores."""
        raise NotImplementedError

    def predict(self, X: Any) -> np.ndarray:
        """A label (the most probable one) or target (the sum of all stages) for each row.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        return self._answers(self._raw_predict(self._checked(X)))

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
            yield self._answers(raw)

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

    def _compute_partial_dependence_recursion(self, grid: Any, target_features: Any) -> np.ndarray:
        """What `sklearn.inspection.partial_dependence` calls: raw scores [n_trees_per_stage, n_points]."""
        if self.init is not None:
            warnings.warn(
                "Using recursion method with a non-constant init predictor will lead to incorrect partial "
                f"dependence values. Got init={self.init}.",
                UserWarning,
                stacklevel=2,
            )
        sums = [
            average_of_trees([made.tree_ for made in trees], grid, target_features)
            for trees in self.estimators_.T
        ]
        return np.asarray(self.learning_rate * np.array(sums))

    def __sklearn_tags__(self) -> Any:
        stands_for(GradientBoosting, "BaseGradientBoosting")
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
