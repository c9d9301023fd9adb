"""SHAP values of any model made of trees: single trees, forests, bags and boosted ensembles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from fullspan.core.errors import ConfigError
from fullspan.estimators._adaboost_votes import node_votes
from fullspan.estimators._bagging_base import Bagging
from fullspan.estimators._forest_base import Forest
from fullspan.estimators._gradient_boosting_base import GradientBoosting
from fullspan.estimators.adaboost import AdaBoostClassifier
from fullspan.estimators.binning import float32_below
from fullspan.estimators.boosting.shap import ExplainedTrees, explain
from fullspan.estimators.friedman import Constant
from fullspan.estimators.tree.base import BaseDecisionTree
from fullspan.estimators.tree.structure import LEAF, Tree

_UNUSED = 16777215  # a code that no row has: a split by categories needs one on its right


class _Part(NamedTuple):
    """A tree as it counts in its ensemble."""

    tree: Tree
    value: NDArray[np.float64]  # [node_count, width]
    group: int  # the first output that it adds to
    features: NDArray[np.int64] | None = None  # the ensemble's features that it was given; None is all


class _Sum(NamedTuple):
    """A model as a sum of trees, with rows as they take them."""

    parts: list[_Part]
    base_score: NDArray[np.float64]
    rows: Any  # float32 array or csr matrix
    n_categories: NDArray[np.int64] | None = None


def shap_values(model: Any, X: Any) -> Any:
    """What each feature adds to a tree model's prediction, row by row.

    The values are those of path-dependent TreeSHAP: where a feature is not known, both sides of a split count
    by the training weight of their rows.

    Parameters
    ----------
    model : fitted estimator
        A decision tree, random forest, `GradientBoosting…`, `XGB…`, a bag of decision trees or
        `AdaBoostClassifier` with decision trees.
    X : {array-like, sparse matrix} of shape (n_samples, n_features)

    Returns
    -------
    ndarray of shape (n_samples, [n_outputs,] n_features + 1)
        Last comes what is expected without any feature; a row adds up to the model's answer. That is
        ``predict`` of regressors (an output for each target), ``predict_proba`` of trees, forests and bags
        (an output for each class; a list with an array for each target, if there are several), and the margin
        or ``decision_function`` of boosting, which has a single output for two classes.

    Raises
    ------
    ConfigError
        If the model is no sum of trees.

    References
    ----------
    S. Lundberg et al., "From local explanations to global understanding with explainable AI for trees",
    Nature Machine Intelligence 2 (2020).

    Examples
    --------
    >>> import numpy as np
    >>> from fullspan.estimators import DecisionTreeRegressor, shap_values
    >>> X, y = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.array([0.0, 0.0, 0.0, 4.0])
    >>> tree = DecisionTreeRegressor(random_state=0).fit(X, y)
    >>> shap_values(tree, [[1, 1]])  # 4 is 1 on the average and 1.5 by each of the two features
    array([[1.5, 1.5, 1. ]])
    """
    if hasattr(model, "shap_values"):
        return model.shap_values(X)
    return _explained(model, X, interactions=False)


def shap_interaction_values(model: Any, X: Any) -> Any:
    """SHAP values parted among pairs of features.

    Parameters
    ----------
    model, X
        As for `shap_values`.

    Returns
    -------
    ndarray of shape (n_samples, [n_outputs,] n_features + 1, n_features + 1)
        Symmetric; what a feature does by itself is on the diagonal, and rows add up to the SHAP values.

    Raises
    ------
    ConfigError
        If the model is no sum of trees.

    References
    ----------
    S. Lundberg et al., "From local explanations to global understanding with explainable AI for trees",
    Nature Machine Intelligence 2 (2020).

    Examples
    --------
    >>> import numpy as np
    >>> from fullspan.estimators import DecisionTreeRegressor, shap_interaction_values
    >>> X, y = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.array([0.0, 0.0, 0.0, 4.0])
    >>> tree = DecisionTreeRegressor(random_state=0).fit(X, y)
    >>> shap_interaction_values(tree, [[1, 1]])
    array([[[1. , 0.5, 0. ],
            [0.5, 1. , 0. ],
            [0. , 0. , 1. ]]])
    """
    if hasattr(model, "shap_interaction_values"):
        return model.shap_interaction_values(X)
    return _explained(model, X, interactions=True)


def _explained(model: Any, X: Any, *, interactions: bool) -> Any:
    sum_ = _sum_of(model, X)
    found = explain(
        _joined(sum_),
        sum_.rows.shape[0],
        model.n_features_in_,
        lambda rows: _dense(sum_.rows[rows]),
        interactions=interactions,
    )
    n_classes: Any = getattr(model, "n_classes_", None)
    if np.ndim(n_classes) == 1 and isinstance(model, BaseDecisionTree | Forest):  # several targets
        most = int(np.max(n_classes))
        return [found[:, most * k : most * k + count] for k, count in enumerate(n_classes)]
    single = isinstance(model, GradientBoosting | AdaBoostClassifier) or n_classes is None
    return found[:, 0] if single and found.shape[1] == 1 else found


def _sum_of(model: Any, X: Any) -> _Sum:
    if isinstance(model, BaseDecisionTree | Forest | Bagging | GradientBoosting | AdaBoostClassifier):
        check_is_fitted(model)
    if isinstance(model, BaseDecisionTree):
        rows = model._validate_X_predict(X, True)
        parts, categories = _mean([model.tree_]), _n_categories(model)
    elif isinstance(model, Forest):
        rows = model._validate_X_predict(X)
        parts, categories = _mean([each.tree_ for each in model.estimators_]), _n_categories(model)
    elif isinstance(model, Bagging):
        return _bag(model, X)
    elif isinstance(model, GradientBoosting):
        return _friedman(model, X)
    elif isinstance(model, AdaBoostClassifier):
        return _adaboost(model, X)
    else:
        raise ConfigError(
            f"SHAP values need a model that adds up trees, got {type(model).__name__}",
            "sklearn.inspection.permutation_importance works with every model",
        )
    return _Sum(parts, np.zeros(parts[0].value.shape[1]), rows, categories)


def _n_categories(model: Any) -> NDArray[np.int64] | None:
    return None if model._encoder is None else model._encoder.n_categories()


def _mean(trees: Sequence[Tree]) -> list[_Part]:
    return [_Part(tree, tree.value.reshape(tree.node_count, -1) / len(trees), 0) for tree in trees]


def _bag(model: Any, X: Any) -> _Sum:
    _require_trees(model)
    n_groups = getattr(model, "n_classes_", model.estimators_[0].n_outputs_)
    parts = []
    for tree, features in zip(model.estimators_, model.estimators_features_, strict=True):
        value = np.zeros((tree.tree_.node_count, n_groups))
        seen = tree.classes_ if hasattr(model, "classes_") else slice(None)
        value[:, seen] = tree.tree_.value.reshape(len(value), -1) / len(model.estimators_)
        parts.append(_Part(tree.tree_, value, 0, features))
    return _Sum(parts, np.zeros(n_groups), _float32(model._checked(X)))


def _friedman(model: Any, X: Any) -> _Sum:
    if not isinstance(model.init_, str | Constant):
        raise ConfigError(
            f"SHAP values need trees alone, but the model begins with a {type(model.init_).__name__}",
            'fit it with init=None or init="zero"',
        )
    rows = model._checked(X)
    parts = [
        _Part(made.tree_, model.learning_rate * made.tree_.value[:, 0], k)
        for stage in model.estimators_
        for k, made in enumerate(stage)
    ]
    return _Sum(parts, model._first_raw(np.zeros((1, rows.shape[1])))[0], rows)


def _adaboost(model: Any, X: Any) -> _Sum:
    _require_trees(model)
    total = model.estimator_weights_.sum()
    parts = []
    for tree, weight in zip(model.estimators_, model.estimator_weights_, strict=False):
        if model.n_classes_ == 1:
            votes = np.zeros((tree.tree_.node_count, 1))
        else:
            votes = node_votes(tree, weight) / total
        two = model.n_classes_ == 2
        parts.append(_Part(tree.tree_, votes[:, 1:] - votes[:, :1] if two else votes, 0))
    return _Sum(parts, np.zeros(parts[0].value.shape[1]), model._ready(X)[0])


def _require_trees(model: Any) -> None:
    for each in model.estimators_:
        if not isinstance(each, BaseDecisionTree) or each._encoder is not None:
            raise ConfigError(
                f"SHAP values need decision trees without categorical_features in {type(model).__name__}, "
                f"got {each!r}",
                "sklearn.inspection.permutation_importance works with every model",
            )


def _float32(X: Any) -> Any:
    return X.tocsr().astype(np.float32) if sp.issparse(X) else np.ascontiguousarray(X, np.float32)


def _dense(rows: Any) -> NDArray[np.float32]:
    return np.ascontiguousarray(rows.toarray() if sp.issparse(rows) else rows)


def _joined(sum_: _Sum) -> ExplainedTrees:
    """All trees behind one another, with a `TreeEnsemble`'s rules for which way a row goes."""
    parts = sum_.parts
    sizes = [part.tree.node_count for part in parts]
    columns: list[list[Any]] = [[] for _ in range(7)]
    category_counts, categories = [], []
    for part in parts:
        tree = part.tree
        is_split = tree.children_left != LEAF
        feature = np.where(is_split, tree.feature, 0)
        threshold = np.where(np.isnan(tree.threshold), 0.0, tree.threshold)  # NaN where categories decide
        counts, codes = _right_categories(tree, sum_.n_categories)
        category_counts.append(counts)
        categories.append(codes)
        each = (
            tree.children_left,
            tree.children_right,
            feature if part.features is None else np.asarray(part.features)[feature],
            # x <= t for a float32 x just when it is less than the next one above.
            np.nextafter(float32_below(threshold), np.float32(np.inf)),
            tree.missing_go_to_left.astype(np.bool_),
            part.value,
            tree.weighted_n_node_samples,
        )
        for column, values in zip(columns, each, strict=True):
            column.append(values)
    left, right, feature, threshold, default_left, value, cover = (
        np.concatenate(column) for column in columns
    )
    return ExplainedTrees(
        len(sum_.base_score),
        sum_.base_score,
        np.concatenate([[0], np.cumsum(sizes)]),
        np.array([part.group for part in parts]),
        left.astype(np.int32),
        right.astype(np.int32),
        feature.astype(np.int32),
        threshold,
        default_left,
        np.ascontiguousarray(value, np.float64),
        cover,
        np.concatenate([[0], np.cumsum(np.concatenate(category_counts))]),
        np.concatenate(categories).astype(np.int32),
    )


def _right_categories(
    tree: Tree, n_categories: NDArray[np.int64] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many categories each node sends to the right, and which those are."""
    counts = np.zeros(tree.node_count, np.int64)
    if tree.category_start is None or tree.category_words is None or n_categories is None:
        return counts, np.empty(0, np.int64)
    codes = []
    for node in np.flatnonzero(np.diff(tree.category_start)):
        words = tree.category_words[tree.category_start[node] : tree.category_start[node + 1]]
        goes_left = np.unpackbits(words.view(np.uint8), bitorder="little").astype(bool)
        n_more = max(int(n_categories[tree.feature[node]]) - len(goes_left), 0)
        goes_left = np.append(goes_left, np.full(n_more, bool(tree.missing_go_to_left[node])))
        right = np.flatnonzero(~goes_left)
        codes.append(right if len(right) else np.array([_UNUSED]))
        counts[node] = len(codes[-1])
    return counts, np.concatenate(codes) if codes else np.empty(0, np.int64)
