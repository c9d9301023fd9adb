"""booster="gblinear": a linear model fitted by coordinate descent on the same gradients as trees."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from fullspan.estimators.boosting._linear_kernels import add_products, descend
from fullspan.estimators.saving import Saveable


class LinearModel(Saveable):
    """Margins ``base_score + bias + X @ weight``; what is missing counts as 0.

    Parameters
    ----------
    n_features, n_groups : int
    base_score : float64 array of shape (n_groups,)
    weight : float32 array of shape (n_features, n_groups)
    bias : float32 array of shape (n_groups,)
    n_rounds : int
        How many passes made it.
    """

    def __init__(
        self,
        n_features: int,
        n_groups: int,
        base_score: NDArray[Any],
        weight: NDArray[np.float32] | None = None,
        bias: NDArray[np.float32] | None = None,
        n_rounds: int = 0,
    ) -> None:
        self.n_features, self.n_groups, self.n_rounds = n_features, n_groups, n_rounds
        self.base_score = np.asarray(base_score, np.float64)
        self.weight = np.zeros((n_features, n_groups), np.float32) if weight is None else weight
        self.bias = np.zeros(n_groups, np.float32) if bias is None else bias

    def margin(self, X: Any, base_margin: NDArray[Any] | None = None) -> NDArray[np.float32]:
        """Raw scores [n_samples, n_groups]."""
        if X.shape[1] != self.n_features:
            raise ValueError(f"X has {X.shape[1]} features, but the model was made for {self.n_features}")
        start = np.asarray(self.base_score if base_margin is None else base_margin, np.float32)
        out = np.empty((X.shape[0], self.n_groups), dtype=np.float32)
        out[:] = self.bias + start
        rows = sp.csr_matrix(_present(X), dtype=np.float32)
        add_products(rows.data, rows.indices, rows.indptr, self.weight, out)
        return out

    def contributions(self, X: Any) -> NDArray[np.float32]:
        """What each feature adds [n_samples, n_groups, n_features + 1], the bias last."""
        dense = _present(X)
        dense = dense.toarray() if sp.issparse(dense) else dense
        out = np.empty((X.shape[0], self.n_groups, self.n_features + 1), dtype=np.float32)
        out[:, :, :-1] = dense[:, None, :] * self.weight.T
        out[:, :, -1] = self.bias + self.base_score.astype(np.float32)
        return out


class CoordinateDescent:
    """Passes over the features of one training set, the same for any number of threads.

    Penalties are multiplied by the sum of the weights, as in XGBoost.
    """

    def __init__(
        self, X: Any, learning_rate: float, reg_lambda: float, reg_alpha: float, shuffle: bool, seed: int
    ) -> None:
        self.columns = sp.csc_matrix(_present(X))
        self.columns.sort_indices()
        self.learning_rate, self.reg_lambda, self.reg_alpha = learning_rate, reg_lambda, reg_alpha
        self.shuffle, self.seed = shuffle, seed

    def update(
        self, model: LinearModel, g: NDArray[np.float32], h: NDArray[np.float32], total: float, round: int
    ) -> None:
        """One pass for gradients and hessians [n_samples, n_groups]; `total` is the sum of the weights."""
        order = np.arange(model.n_features)
        if self.shuffle:
            np.random.default_rng([self.seed, round]).shuffle(order)
        for group in range(model.n_groups):
            descend(
                self.columns.data.astype(np.float32), self.columns.indices, self.columns.indptr, order,
                g[:, group].copy(), np.ascontiguousarray(h[:, group]), self.learning_rate,
                self.reg_lambda * total, self.reg_alpha * total, model.weight, model.bias, group,
            )  # fmt: skip
        model.n_rounds += 1


def _present(X: Any) -> Any:
    """X with zeros for missing values."""
    if sp.issparse(X):
        X = sp.csr_matrix(X, copy=True)
        X.data = np.nan_to_num(X.data, nan=0.0)
        return X
    return np.where(np.isnan(X), np.float32(0), X)
