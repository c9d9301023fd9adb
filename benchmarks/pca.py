"""Principal components of 100,000 x 256 rows: fullspan against scikit-learn, and the matrix product alone.

python -m benchmarks pca
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import sklearn.decomposition

from benchmarks.interleave import write_results
from fullspan.estimators import PCA

ROWS, COLUMNS, COMPONENTS = 100_000, 256, 32
ROUNDS = 9


def seconds(call: Callable[[], Any]) -> float:
    """How long one call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def main() -> None:
    """Take turns, and print medians, spreads and the median of the ratios."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(ROWS, 40)) @ rng.normal(size=(40, COLUMNS)) + rng.normal(size=(ROWS, COLUMNS))
    contenders: dict[str, Callable[[], Any]] = {
        "fullspan": lambda: PCA(COMPONENTS).fit(X),
        "scikit-learn": lambda: sklearn.decomposition.PCA(COMPONENTS).fit(X),
        "product": lambda: X.T @ X,
    }
    ours, theirs = contenders["fullspan"](), contenders["scikit-learn"]()
    np.testing.assert_allclose(ours.explained_variance_, theirs.explained_variance_, rtol=1e-9)
    np.testing.assert_allclose(np.abs(ours.components_), np.abs(theirs.components_), atol=1e-6)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, call in contenders.items():
            times[name].append(seconds(call))
    for name, found in times.items():
        ratio = statistics.median(b / a for a, b in zip(times["fullspan"], found, strict=True))
        line = f"{name:18} {statistics.median(found):.3f} s ({min(found):.3f} to {max(found):.3f})"
        print(line + (f", {ratio:.2f} times ours" if name != "fullspan" else ""))
    write_results("pca", {"rounds": times})


if __name__ == "__main__":
    main()
