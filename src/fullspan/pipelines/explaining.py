"""Why a model predicts what it does: importances of columns, and SHAP values."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fullspan.pipelines.problem import Problem
from fullspan.pipelines.scores import deciding_score, scores_of

if TYPE_CHECKING:
    from fullspan.estimators.table import TableModel

_MOST_ROWS = 2000
_MOST_COLUMNS = 100
_MOST_PLAYERS = 20
_SAMPLED_ROWS = 200
_SAMPLED_PAIRS = 16
# Exact values cost a quarter of a microsecond for each row and each step on the way to each leaf.
_MOST_STEPS = 30_000_000
_FEWEST_ROWS = 100
_MOST_ROWS_EXACT = 1000
_XGB_DEPTH = 6  # of trees for which no depth was asked


def importances(
    model: TableModel, classes: np.ndarray, problem: Problem, test: np.ndarray, seed: int
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """How much the deciding score on held-out rows worsens when a column is shuffled (Breiman 2001).

    All features of a column are shuffled together. Of very many columns only those are measured that the
    model uses most.

    Returns
    -------
    list of dict
        ``column``, ``importance`` and its ``spread`` over three shuffles, the greatest first.
    dict of str to int
        ``rows`` that were predicted, and ``columns_left``, how many columns were not measured.
    """
    rng = np.random.default_rng(seed)
    test = rng.permutation(test)[:_MOST_ROWS]
    X, y = model.encoder.encode(problem.table.take(test)), problem.y[test]
    weight = None if problem.weight is None else problem.weight[test]
    n_classes = None if problem.labels is None else len(problem.labels)

    def score(X: np.ndarray) -> float:
        outputs = np.zeros((len(y), n_classes or 1))
        outputs[:, classes] = model.outputs(X)
        return deciding_score(scores_of(n_classes, y, outputs, weight))

    plain = score(X)
    found = []
    positions = model.encoder.positions()
    measured = _most_used(model.estimator, positions)[:_MOST_COLUMNS]
    for index in measured:
        worse, features = [], positions[index]
        values = X[:, features]
        for _ in range(3):
            X[:, features] = values[rng.permutation(len(X))]
            worse.append(score(X) - plain)
        X[:, features] = values
        column = model.encoder.columns[index].name
        found.append({"column": column, "importance": float(np.mean(worse)), "spread": float(np.ptp(worse))})
    limits = {"rows": len(test), "columns_left": len(positions) - len(measured)}
    return sorted(found, key=lambda entry: -entry["importance"]), limits


def _most_used(estimator: Any, positions: list[list[int]]) -> list[int]:
    """Columns, those first that the model gained most by in fitting."""
    used = getattr(estimator, "feature_importances_", None)
    if used is None:  # bagging has none of its own, and what is no sum of trees cannot tell
        parts = getattr(estimator, "estimators_", [])
        n_features = estimator.n_features_in_
        used = np.mean([part.feature_importances_ for part in parts] or [np.ones(n_features)], axis=0)
    strength = np.array([np.sum(used[features]) for features in positions])
    return [int(index) for index in np.argsort(-strength, kind="stable")]


def shap_of(
    model: TableModel, problem: Problem, train: np.ndarray, test: np.ndarray, columns: list[str], seed: int
) -> dict[str, Any]:
    """SHAP values of held-out rows: TreeSHAP where its cost is fine, otherwise sampled.

    Parameters
    ----------
    model : TableModel
        Fitted on the rows `train`.
    problem : Problem
    train, test : ndarray of int
        Rows fitted on, and held out.
    columns : list of str
        Those to show, the most important first.
    seed : int

    Returns
    -------
    dict
        ``shap`` [rows, columns, outputs], ``shap_X`` [rows, columns] (the first feature of each, NaN where
        missing), ``columns``, ``output``, what is explained, and ``exact``, whether by TreeSHAP.
    """
    rng = np.random.default_rng(seed)
    by_name = {column.name: index for index, column in enumerate(model.encoder.columns)}
    positions = model.encoder.positions()
    players = [positions[by_name[name]] for name in columns[:_MOST_PLAYERS]]
    rows = rng.permutation(test)
    n_exact = _rows_for_tree_shap(model.estimator)
    exact = n_exact >= min(len(rows), _FEWEST_ROWS)
    rows = rows[: n_exact if exact else _SAMPLED_ROWS]
    X = model.encoder.encode(problem.table.take(rows))
    if exact:
        by_player, output = _tree_shap(model, X, players)
    else:
        background = model.encoder.encode(problem.table.take(rng.permutation(train)[:_MOST_ROWS]))
        shown = {feature for features in players for feature in features}
        rest = [j for j in range(X.shape[1]) if j not in shown]
        groups = [*players, *([rest] if rest else [])]
        by_player = sampled_shap(model.outputs, X, background, groups, _SAMPLED_PAIRS, rng)[:, : len(players)]
        by_player = by_player[:, :, 1:] if by_player.shape[2] == 2 else by_player
        output = "prediction" if model.labels is None else "probability"
    shap_X = np.stack([X[:, features[0]] for features in players], axis=1)
    shown_columns = columns[:_MOST_PLAYERS]
    return {"shap": by_player, "shap_X": shap_X, "columns": shown_columns, "output": output, "exact": exact}


def _rows_for_tree_shap(estimator: Any) -> int:
    """How many rows TreeSHAP explains in some ten seconds; 0 for what is no sum of trees."""
    from fullspan.estimators import AdaBoostRegressor, XGBModel

    if isinstance(estimator, AdaBoostRegressor):  # the median of its trees
        return 0
    if isinstance(estimator, XGBModel):
        trees = estimator.get_booster().model
        steps = np.count_nonzero(trees.left < 0) * (estimator.max_depth or _XGB_DEPTH)
    elif not hasattr(estimator, "estimators_") and not hasattr(estimator, "tree_"):
        return 0
    else:
        parts = np.ravel(getattr(estimator, "estimators_", [estimator]))
        steps = sum(_steps(part.tree_) for part in parts)
    return min(_MOST_ROWS_EXACT, int(_MOST_STEPS // max(steps, 1)))


def _steps(tree: Any) -> int:
    """The length of the ways to all leaves together."""
    is_leaf = tree.children_left < 0
    return int((tree.compute_node_depths()[is_leaf] - 1).sum())


def _tree_shap(model: TableModel, X: np.ndarray, players: list[list[int]]) -> tuple[np.ndarray, str]:
    """Values [rows, players, outputs], and what they add up to."""
    from fullspan.estimators import AdaBoostClassifier, GradientBoostingClassifier, XGBClassifier, shap_values

    # [rows, (outputs,) features and the expectation]: without the middle for one output.
    values = np.asarray(shap_values(model.estimator, model.filled(X)), np.float64)
    values = values.reshape(len(X), -1, X.shape[1] + 1)
    by_player = np.stack([values[:, :, features].sum(axis=2) for features in players], axis=1)
    if model.labels is None:
        return by_player, "prediction"
    if isinstance(model.estimator, XGBClassifier | GradientBoostingClassifier):
        return by_player, "log-odds"
    if isinstance(model.estimator, AdaBoostClassifier):
        return by_player, "votes"
    return (by_player[:, :, 1:] if len(model.labels) == 2 else by_player), "probability"


def sampled_shap(
    outputs: Callable[[np.ndarray], np.ndarray],
    X: np.ndarray,
    background: np.ndarray,
    groups: list[list[int]],
    n_pairs: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Shapley values of any model's outputs, by sampled orders of the features.

    Features enter one group after the other, in a random order and in its reverse; before that they have the
    values of a random row of the background.

    Parameters
    ----------
    outputs : callable
        From a matrix to [n_rows, n_outputs].
    X : ndarray [n_rows, n_features]
        Rows to explain.
    background : ndarray [n_background, n_features]
    groups : list of list of int
        Features that enter together.
    n_pairs : int
        Orders, each with its reverse.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of float64 [n_rows, n_groups, n_outputs]
        A row's values add up to its output less the mean output of the background rows it met.

    References
    ----------
    E. Štrumbelj and I. Kononenko, "Explaining prediction models and individual predictions with feature
    contributions", Knowledge and Information Systems 41 (2014), algorithm 1.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> product = lambda X: X[:, :1] * X[:, 1:]
    >>> sampled_shap(product, np.array([[2.0, 3.0]]), np.zeros((1, 2)), [[0], [1]], 1, rng).tolist()
    [[[3.0], [3.0]]]
    """
    n_rows, n_features = X.shape
    total = np.zeros((n_rows, len(groups), outputs(X[:1]).shape[1]))
    for _ in range(n_pairs):
        order = rng.permutation(len(groups))
        reference = background[rng.integers(len(background), size=n_rows)]
        for sequence in (order, order[::-1]):
            # All steps of a sequence in one call: models have a cost for each.
            steps = np.repeat(reference[None], len(groups) + 1, axis=0)
            for step, group in enumerate(sequence):
                steps[step + 1 :, :, groups[group]] = X[:, groups[group]]
            values = outputs(steps.reshape(-1, n_features)).reshape(len(groups) + 1, n_rows, -1)
            total[:, sequence] += np.diff(values, axis=0).swapaxes(0, 1)
    return total / (2 * n_pairs)
