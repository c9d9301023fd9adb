"""Forests say which parameter or column is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError

from fullspan.estimators import RandomForestClassifier, RandomForestRegressor

X, Y = load_iris(return_X_y=True)
KINDS = [RandomForestClassifier, RandomForestRegressor]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_estimators": 0}, "'n_estimators'"),
        ({"criterion": "mean"}, "'criterion'"),
        ({"max_features": 1.5}, "'max_features'"),
        ({"max_samples": 0}, "'max_samples'"),
        ({"min_samples_leaf": 0}, "'min_samples_leaf'"),
        ({"bootstrap": False, "oob_score": True}, "only available if bootstrap=True"),
        ({"bootstrap": False, "max_samples": 0.5}, "`max_sample` cannot be set"),
        ({"monotonic_cst": [1]}, "monotonic_cst has shape 1"),
        ({"categorical_features": [9]}, "categorical_features"),
        ({"categorical_features": [0], "monotonic_cst": [1, 0, 0, 0]}, "monotonic constraints"),
        ({"categorical_features": [0.5]}, "categorical_features"),
    ],
)
def test_wrong_parameters(kind: Any, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**parameters).fit(X, Y)


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_data(kind: Any) -> None:
    with pytest.raises(ValueError, match="infinity"):
        kind(2).fit(np.where(X > 5, np.inf, X), Y)
    with pytest.raises(ValueError, match="inconsistent"):
        kind(2).fit(X, Y[:-1])
    with pytest.raises(ValueError, match="sparse multilabel"):
        kind(2).fit(X, sparse.csr_matrix(Y[:, None]))
    with pytest.raises(ValueError, match="non-negative"):
        kind(2).fit(X, Y, sample_weight=np.where(Y == 0, -1.0, 1.0))
    with pytest.raises(ValueError, match="sparse input"):
        kind(2, categorical_features=[0]).fit(sparse.csr_matrix(X), Y)


def test_wrong_targets() -> None:
    with pytest.raises(ValueError, match="negative"):
        RandomForestRegressor(2, criterion="poisson").fit(X, -1.0 - Y)
    with pytest.raises(ValueError, match="not strictly positive"):
        RandomForestRegressor(2, criterion="poisson").fit(X, 0.0 * Y)
    with pytest.raises(ValueError, match="continuous"):
        RandomForestClassifier(2).fit(X, Y + 0.5 * X[:, 0])
    with pytest.raises(ValueError, match="cannot be used to compute OOB"):
        RandomForestClassifier(2, oob_score=True).fit(X, np.column_stack([Y, Y]))


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_rows_to_predict(kind: Any) -> None:
    with pytest.raises(NotFittedError, match="not fitted yet"):
        kind().predict(X)
    with pytest.raises(NotFittedError, match="not fitted yet"):
        _ = kind().feature_importances_
    fitted = kind(2, random_state=0).fit(X, Y)
    with pytest.raises(ValueError, match="3 features"):
        fitted.predict(X[:, :3])
    with pytest.raises(ValueError, match="infinity"):
        fitted.predict(np.full((1, 4), np.inf))
    with pytest.raises(ValueError, match="100 rows"):
        fitted.oob_permutation_importance(X[:100], Y[:100])
    with pytest.raises(ValueError, match="bootstrap=True"):
        kind(2, bootstrap=False).fit(X, Y).oob_permutation_importance(X, Y)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [10, 2_100])
def test_degenerate_data_gives_single_leaves(kind: Any, n: int) -> None:
    constant = kind(2, random_state=0).fit(np.ones((n, 3)), np.arange(n) % 2)
    assert [tree.tree_.node_count for tree in constant.estimators_] == [1, 1]
    assert not constant.feature_importances_.any()
    empty = kind(2, random_state=0).fit(np.full((n, 3), np.nan), np.arange(n) % 2)
    assert empty.estimators_[0].tree_.node_count == 1
    one_class = kind(2, random_state=0).fit(np.arange(3 * n).reshape(n, 3), np.ones(n))
    assert (one_class.predict(np.zeros((4, 3))) == 1).all()


def test_warm_start_cannot_shrink() -> None:
    forest = RandomForestClassifier(3, warm_start=True).fit(X, Y)
    with pytest.raises(ValueError, match="larger or equal"):
        forest.set_params(n_estimators=2).fit(X, Y)
    with pytest.warns(UserWarning, match="without increasing n_estimators"):
        forest.set_params(n_estimators=3).fit(X, Y)
