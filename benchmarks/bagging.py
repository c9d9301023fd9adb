"""Bagging of full trees and multi-class AdaBoost: fullspan against scikit-learn at two threads, in turns."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
import sklearn.ensemble

from benchmarks.interleave import write_results
from fullspan.estimators import AdaBoostClassifier, BaggingClassifier

N_ROWS, N_HELD_OUT, N_FEATURES = 30_000, 20_000, 28
N_TREES, N_STUMPS = 10, 20
ROUNDS = 3


def make_data(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three classes by linear and joint effects of normal features."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, N_FEATURES)).astype(np.float32)
    score = 0.5 * X @ rng.standard_normal(N_FEATURES) + X[:, 0] * X[:, 1] + np.sin(2 * X[:, 2]) * X[:, 3]
    score += 0.5 * rng.logistic(size=n)
    return X, np.digitize(score, np.quantile(score, [1 / 3, 2 / 3]))


def main() -> None:
    """Print seconds to fit, accuracy on held-out rows, and the ratios."""
    X, y = make_data(N_ROWS + N_HELD_OUT)
    results: dict[str, dict[str, float]] = {}
    for what, ours, theirs in (
        (
            f"bagging, {N_TREES} full trees",
            BaggingClassifier(n_estimators=N_TREES, n_jobs=2),
            sklearn.ensemble.BaggingClassifier(n_estimators=N_TREES, n_jobs=2),
        ),
        (
            f"AdaBoost, {N_STUMPS} stumps, three classes",
            AdaBoostClassifier(n_estimators=N_STUMPS),
            sklearn.ensemble.AdaBoostClassifier(n_estimators=N_STUMPS),
        ),
    ):
        ours.fit(X[:500], y[:500])  # compile
        results[what] = race(what, {"fullspan": ours, "scikit-learn": theirs}, X, y)
    write_results("bagging", results)


def race(what: str, models: dict[str, Any], X: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Fit both in turns; the medians and their ratio."""
    seconds: dict[str, list[float]] = {name: [] for name in models}
    accuracy: dict[str, list[float]] = {name: [] for name in models}
    for seed in range(ROUNDS):
        for name, model in models.items():
            started = time.perf_counter()
            model.set_params(random_state=seed).fit(X[:N_ROWS], y[:N_ROWS])
            seconds[name].append(time.perf_counter() - started)
            accuracy[name].append(float(np.mean(model.predict(X[N_ROWS:]) == y[N_ROWS:])))
    for name in models:
        times = seconds[name]
        print(
            f"{what}, {N_ROWS:,} x {N_FEATURES}: {name} {statistics.median(times):.2f} s "
            f"({min(times):.2f} to {max(times):.2f}), accuracy {statistics.median(accuracy[name]):.4f}"
        )
    pairs = zip(seconds["fullspan"], seconds["scikit-learn"], strict=True)
    ratios = sorted(their_time / our_time for our_time, their_time in pairs)
    print(f"{what}: {statistics.median(ratios):.1f} times as fast ({ratios[0]:.1f} to {ratios[-1]:.1f})")
    if accuracy["fullspan"] != accuracy["scikit-learn"]:
        raise SystemExit("the accuracies differ, though the trees should be the same: the times say nothing")
    return {
        "ours": statistics.median(seconds["fullspan"]),
        "theirs": statistics.median(seconds["scikit-learn"]),
        "ratio": statistics.median(ratios),
        "accuracy": statistics.median(accuracy["fullspan"]),
    }


if __name__ == "__main__":
    main()
