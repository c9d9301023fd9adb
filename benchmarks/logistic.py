"""Logistic regression, dense 900,000 x 28 and sparse 1,000,000 x 10,000: fullspan against scikit-learn.

Each solver is told a tolerance at which all reach the same optimum; the loss that each ends at is printed.

    python -m benchmarks logistic
"""

from __future__ import annotations

import statistics
import time
import warnings
from typing import Any

import numpy as np
from scipy import sparse
from scipy.special import expit
from sklearn.linear_model import LogisticRegression as Peer

from benchmarks.interleave import write_results
from fullspan.estimators import LogisticRegression

ROUNDS = 3


def dense() -> tuple[Any, np.ndarray]:
    """900,000 rows of 28 columns of different scales."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(900_000, 28)) * np.linspace(0.5, 2, 28)
    return X, (expit(X @ rng.normal(size=28) * 0.3) > rng.random(len(X))).astype(int)


def thin() -> tuple[Any, np.ndarray]:
    """1,000,000 rows of 10,000 columns, of which 20 are not zero."""
    rng = np.random.default_rng(1)
    columns = np.sort((10_000 * rng.random((1_000_000, 20)) ** 2).astype(np.int32), axis=1)
    indptr = np.arange(0, columns.size + 1, 20, dtype=np.int32)
    X = sparse.csr_matrix((rng.normal(size=columns.size), columns.ravel(), indptr), (1_000_000, 10_000))
    X.sum_duplicates()
    return X, (expit(X @ rng.normal(size=10_000) * 0.5) > rng.random(X.shape[0])).astype(int)


def objective(model: Any, X: Any, y: np.ndarray) -> float:
    """What the solvers minimise, for each row."""
    margin = (X @ model.coef_[0] + model.intercept_[0]) * (2 * y - 1)
    return float((np.logaddexp(0, -margin).sum() + 0.5 * (model.coef_**2).sum()) / len(y))


def main() -> None:
    """Take turns on both tables."""
    results: dict[str, Any] = {}
    for table, (X, y), peers in (
        ("dense", dense(), {"lbfgs": 1e-5, "newton-cholesky": 1e-5}),
        ("sparse", thin(), {"lbfgs": 1e-5, "newton-cg": 1e-4}),
    ):
        models: dict[str, Any] = {"fullspan": LogisticRegression(tol=1e-5)}
        models |= {name: Peer(solver=name, tol=tol, max_iter=1000) for name, tol in peers.items()}
        times: dict[str, list[float]] = {name: [] for name in models}
        for _ in range(ROUNDS):
            for name, model in models.items():
                started = time.perf_counter()
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    model.fit(X, y)
                times[name].append(time.perf_counter() - started)
        for name, found in times.items():
            ratio = statistics.median(b / a for a, b in zip(times["fullspan"], found, strict=True))
            print(
                f"{table:7} {name:16} {statistics.median(found):.2f} s ({min(found):.2f} to "
                f"{max(found):.2f}), {ratio:.2f} times ours, objective {objective(models[name], X, y):.9f}",
                flush=True,
            )
        results[table] = times
    write_results("logistic", results)


if __name__ == "__main__":
    main()
