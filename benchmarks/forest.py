"""A random forest of full trees: fullspan against scikit-learn at two threads, in turns in one process."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
import sklearn.ensemble

from benchmarks.interleave import write_results
from fullspan.estimators import RandomForestClassifier

N_ROWS = 100_000
N_HELD_OUT = 50_000
N_FEATURES = 28
N_TREES = 50
ROUNDS = 3


def make_data(n: int, n_features: int = N_FEATURES, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two classes by linear, periodic and joint effects of normal features, with logistic noise."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, n_features)).astype(np.float32)
    score = 0.5 * X @ rng.standard_normal(n_features) + X[:, 0] * X[:, 1] + np.sin(2 * X[:, 2]) * X[:, 3]
    score += 1.5 * (np.abs(X[:, 4]) > 1) + rng.logistic(size=n)
    return X, (score > np.median(score)).astype(np.int64)


def main() -> None:
    """Print seconds to fit and to predict, accuracy on held-out rows, and the ratios."""
    X, y = make_data(N_ROWS + N_HELD_OUT)
    RandomForestClassifier(2, n_jobs=2).fit(X[:5_000], y[:5_000]).predict(X[:100])  # compile
    kinds: dict[str, Any] = {
        "fullspan": RandomForestClassifier,
        "scikit-learn": sklearn.ensemble.RandomForestClassifier,
    }
    figures: dict[str, list[tuple[float, float, float]]] = {name: [] for name in kinds}
    for seed in range(ROUNDS):
        for name, kind in kinds.items():
            forest = kind(N_TREES, n_jobs=2, random_state=seed)
            started = time.perf_counter()
            forest.fit(X[:N_ROWS], y[:N_ROWS])
            fitted = time.perf_counter()
            accuracy = float(np.mean(forest.predict(X[N_ROWS:]) == y[N_ROWS:]))
            figures[name].append((fitted - started, time.perf_counter() - fitted, accuracy))
    results: dict[str, dict[str, float]] = {}
    for name, rounds in figures.items():
        fit, predict, accuracy = (statistics.median(column) for column in zip(*rounds, strict=True))
        results[name] = {"fit": fit, "predict": predict, "accuracy": accuracy}
        fits = [seconds for seconds, _, _ in rounds]
        print(
            f"{name:12}: fit {fit:.2f} s ({min(fits):.2f} to {max(fits):.2f}), "
            f"predict {N_HELD_OUT / predict / 1e6:.2f} M rows/s, accuracy {accuracy:.4f}"
        )
    for number, what in enumerate(("fit", "predict")):
        ratios = sorted(
            theirs[number] / ours[number]
            for ours, theirs in zip(figures["fullspan"], figures["scikit-learn"], strict=True)
        )
        results.setdefault("ratio", {})[what] = statistics.median(ratios)
        print(f"{what}: {statistics.median(ratios):.1f} times as fast ({ratios[0]:.1f} to {ratios[-1]:.1f})")
    gap = results["fullspan"]["accuracy"] - results["scikit-learn"]["accuracy"]
    print(f"accuracy {gap:+.4f}")
    if gap < -0.002:
        raise SystemExit("the accuracy is worse by more than 0.002: the times say nothing")
    write_results("forest", results)


if __name__ == "__main__":
    main()
