"""AdaBoost with stumps: fullspan against scikit-learn on the same rows, in turns in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.ensemble import AdaBoostClassifier as Theirs

from benchmarks.interleave import write_results
from fullspan.estimators import AdaBoostClassifier

N_ROWS, N_FEATURES, N_STUMPS = 100_000, 28, 100
THEIR_STUMPS = 20  # every round costs them the same: their time for all stumps is five times that of these
ROUNDS, OUR_FITS = 2, 5


def main() -> None:
    """Time both fits and predictions; check that the stumps are the same."""
    X, y = rows(2 * N_ROWS)
    seen, unseen, labels, truth = X[:N_ROWS], X[N_ROWS:], y[:N_ROWS], y[N_ROWS:]
    AdaBoostClassifier(n_estimators=2).fit(seen[:500], labels[:500]).predict(unseen)  # compiles
    ours = AdaBoostClassifier(n_estimators=N_STUMPS, random_state=0)
    theirs = Theirs(n_estimators=THEIR_STUMPS, random_state=0)
    fits: list[tuple[float, float]] = []
    for _ in range(ROUNDS):
        our_time = statistics.median(seconds(lambda: ours.fit(seen, labels)) for _ in range(OUR_FITS))
        their_time = seconds(lambda: theirs.fit(seen, labels)) * N_STUMPS / THEIR_STUMPS
        fits.append((our_time, their_time))
        print(f"  round: fullspan {our_time:.2f} s, scikit-learn {their_time:.0f} s", flush=True)
    our_median, their_median = (statistics.median(column) for column in zip(*fits, strict=True))
    apart = np.abs(ours.estimator_errors_[:THEIR_STUMPS] - theirs.estimator_errors_).max()
    print(
        f"{N_STUMPS} stumps on {N_ROWS:,} x {N_FEATURES}: fullspan {our_median:.2f} s, scikit-learn "
        f"{their_median:.0f} s ({THEIR_STUMPS} stumps, scaled); ratio {their_median / our_median:.0f}"
    )
    print(f"errors of the first {THEIR_STUMPS} stumps differ by at most {apart:.1e}")
    first = AdaBoostClassifier(n_estimators=THEIR_STUMPS, random_state=0).fit(seen, labels)
    print(
        f"accuracy on {N_ROWS:,} other rows: fullspan {ours.score(unseen, truth):.4f} ({N_STUMPS} stumps), "
        f"{first.score(unseen, truth):.4f} ({THEIR_STUMPS}); scikit-learn {theirs.score(unseen, truth):.4f} "
        f"({THEIR_STUMPS})"
    )
    our_rate, their_rate = (
        len(unseen) * len(model) / seconds(lambda model=model: model.predict(unseen))
        for model in (ours, theirs)
    )
    print(f"prediction: fullspan {our_rate / 1e6:.0f}M stumps x rows/s, scikit-learn {their_rate / 1e6:.0f}M")
    write_results(
        "adaboost",
        {
            "ours": our_median,
            "theirs": their_median,
            "ratio": their_median / our_median,
            "largest difference of errors": float(apart),
            "accuracy": ours.score(unseen, truth),
            "our predictions": our_rate,
            "their predictions": their_rate,
        },
    )


def rows(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of two classes that stumps can tell apart in part: ten columns matter, through their squares."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, N_FEATURES)).astype(np.float32)
    radius = (X[:, :10] ** 2).sum(axis=1) + rng.normal(size=n)
    return X, (radius > np.median(radius)).astype(np.int64)


def seconds(call: Callable[[], Any]) -> float:
    """How long one call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
