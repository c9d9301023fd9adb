"""Friedman's gradient boosting: fullspan against scikit-learn on the same rows, in turns in one process."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
import sklearn.ensemble

from benchmarks.bagging import make_data
from benchmarks.interleave import write_results
from fullspan.estimators import GradientBoostingClassifier, GradientBoostingRegressor

N_ROWS, N_HELD_OUT = 20_000, 10_000
N_STAGES = 30
ROUNDS = 3


def main() -> None:
    """Print seconds to fit and to predict, the held-out loss, and the ratios."""
    X, y = make_data(N_ROWS + N_HELD_OUT)
    theirs = sklearn.ensemble
    settings: dict[str, Any] = {"n_estimators": N_STAGES, "random_state": 0}
    cases: dict[str, tuple[Any, Any, np.ndarray]] = {
        "two classes": (
            GradientBoostingClassifier(**settings),
            theirs.GradientBoostingClassifier(**settings),
            (y > 1).astype(np.int64),
        ),
        "three classes": (
            GradientBoostingClassifier(**settings),
            theirs.GradientBoostingClassifier(**settings),
            y,
        ),
        "Huber's loss": (
            GradientBoostingRegressor(loss="huber", **settings),
            theirs.GradientBoostingRegressor(loss="huber", **settings),
            X[:, 0] * X[:, 1] + np.sin(2 * X[:, 2]),
        ),
    }
    write_results("gradient_boosting", {name: race(name, *case, X) for name, case in cases.items()})


def race(what: str, ours: Any, theirs: Any, y: np.ndarray, X: np.ndarray) -> dict[str, float]:
    """Fit and ask both in turns; the medians and their ratios."""
    ours.fit(X[:500], y[:500]).predict(X[:10])  # compile
    taken: dict[str, list[tuple[float, float]]] = {"fullspan": [], "scikit-learn": []}
    for _ in range(ROUNDS):
        for name, model in (("fullspan", ours), ("scikit-learn", theirs)):
            started = time.perf_counter()
            model.fit(X[:N_ROWS], y[:N_ROWS])
            fitted = time.perf_counter()
            model.predict(X[N_ROWS:])
            taken[name].append((fitted - started, time.perf_counter() - fitted))
    ratios = [
        sorted(b[k] / a[k] for a, b in zip(taken["fullspan"], taken["scikit-learn"], strict=True))
        for k in range(2)
    ]
    medians = {
        name: [statistics.median(column) for column in zip(*rows, strict=True)]
        for name, rows in taken.items()
    }
    print(
        f"{what}, {N_STAGES} stages, {N_ROWS:,} x {X.shape[1]}: fit {medians['fullspan'][0]:.2f} s, "
        f"scikit-learn {medians['scikit-learn'][0]:.2f} s; {statistics.median(ratios[0]):.1f} times as fast "
        f"({ratios[0][0]:.1f} to {ratios[0][-1]:.1f}); predict {statistics.median(ratios[1]):.1f} times "
        f"({ratios[1][0]:.1f} to {ratios[1][-1]:.1f})"
    )
    apart = float(np.abs(ours.train_score_ - theirs.train_score_).max() / np.abs(theirs.train_score_).max())
    if apart > 1e-6:
        raise SystemExit(f"the training losses differ by {apart:.1e}: the times say nothing")
    return {
        "ours": float(medians["fullspan"][0]),
        "theirs": float(medians["scikit-learn"][0]),
        "ratio": statistics.median(ratios[0]),
        "ratio of predictions": statistics.median(ratios[1]),
        "largest difference of training losses": apart,
    }


if __name__ == "__main__":
    main()
