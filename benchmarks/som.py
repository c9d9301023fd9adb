"""Self-organizing maps: fullspan against MiniSom, and somoclu where there is one, in turns in one process."""

from __future__ import annotations

import importlib.util
import statistics
import time
import tracemalloc
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.interleave import write_results
from fullspan.estimators import SelfOrganizingMap

N_ROWS, N_FEATURES, SIDE, EPOCHS = 10_000, 64, 30, 5
ROUNDS = 3


def main() -> None:
    """Time 10,000 online steps and batch epochs from the same weights, compare the errors; then costs."""
    X, start = rows(N_ROWS, N_FEATURES), rows(SIDE * SIDE, N_FEATURES, seed=1).reshape(SIDE, SIDE, -1)
    results: dict[str, Any] = {}
    race("online", contenders_online(X, start), X, start, results)
    race(f"{EPOCHS} batch epochs", contenders_batch(X, start), X, start, results)
    costs(results)
    write_results("som", results)


def rows(n: int, n_features: int, seed: int = 0) -> np.ndarray:
    """Ten clusters on a sheet of few dimensions, with noise."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(size=(10, n_features)) * 2
    sheet = np.random.default_rng(8).normal(size=(4, n_features))
    noise = 0.3 * rng.normal(size=(n, n_features))
    return np.asarray(centres[rng.integers(0, 10, n)] + rng.normal(size=(n, 4)) @ sheet + noise)


def ours(start: np.ndarray, **options: Any) -> SelfOrganizingMap:
    """With MiniSom's learning rate and decays, and its width."""
    decays = {"sigma_decay_function": "asymptotic_decay", "sigma": SIDE / 2, "init": start, "shuffle": False}
    return SelfOrganizingMap(SIDE, SIDE, **{**decays, **options})


def minisom(start: np.ndarray) -> Any:
    """Theirs, from the same weights."""
    from minisom import MiniSom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        som = MiniSom(SIDE, SIDE, start.shape[2], sigma=SIDE / 2, learning_rate=0.5, random_seed=0)
    som._weights = start.copy()
    return som


def contenders_online(X: np.ndarray, start: np.ndarray) -> dict[str, Callable[[], np.ndarray]]:
    """Name and a call that returns the weights after one pass over the rows."""
    once: dict[str, Any] = {"algorithm": "online", "max_iter": 1}

    def theirs() -> np.ndarray:
        som = minisom(start)
        som.train(X, len(X))
        return np.asarray(som.get_weights())

    return {
        "fullspan": lambda: ours(start, **once).fit(X.astype(np.float32)).weights_,
        "fullspan, float64": lambda: ours(start, **once).fit(X).weights_,
        "MiniSom": theirs,
    }


def contenders_batch(X: np.ndarray, start: np.ndarray) -> dict[str, Callable[[], np.ndarray]]:
    """Name and a call that returns the weights after the epochs."""

    def theirs() -> np.ndarray:
        som = minisom(start)
        # Newer versions have a compiled loop.
        getattr(som, "train_batch_offline_fast", som.train_batch_offline)(X, EPOCHS)
        return np.asarray(som.get_weights())

    def parallel() -> np.ndarray:
        import somoclu

        codebook = start.reshape(-1, start.shape[2]).astype(np.float32)
        som = somoclu.Somoclu(SIDE, SIDE, compactsupport=False, verbose=0, initialcodebook=codebook)
        som.train(X.astype(np.float32), epochs=EPOCHS, radius0=SIDE / 2, radiusN=SIDE / 6)
        return np.asarray(som.codebook, dtype=float)

    found = {
        "fullspan": lambda: ours(start, max_iter=EPOCHS, learning_rate=0.5).fit(X).weights_,
        "MiniSom": theirs,
    }
    if importlib.util.find_spec("somoclu"):
        found["somoclu"] = parallel
    return found


def race(
    work: str,
    contenders: dict[str, Callable[[], np.ndarray]],
    X: np.ndarray,
    start: np.ndarray,
    results: dict[str, Any],
) -> None:
    """Let contenders take turns, the first round to warm up."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    errors: dict[str, float] = {}
    judge = ours(start, max_iter=1).fit(X[:10])
    for number in range(ROUNDS + 1):
        for name, call in contenders.items():
            spent, judge.weights_ = seconds(call)
            if number:
                times[name].append(spent)
            errors[name] = judge.quantization_error(X)
    print(f"{work}, {len(X):,} x {X.shape[1]}, {SIDE} x {SIDE} units:")
    best = statistics.median(times["fullspan"])
    for name, spent in times.items():
        median = statistics.median(spent)
        print(
            f"  {name}: {median:.3f} s ({min(spent):.3f} to {max(spent):.3f}), quantization error "
            f"{errors[name]:.4f}, ratio {median / best:.1f}"
        )
        results[f"{work}, {name}"] = {"seconds": spent, "error": errors[name], "ratio": median / best}


def costs(results: dict[str, Any]) -> None:
    """Seconds of a batch epoch and of 10,000 online steps, and memory beside the data, as the work grows."""
    print(f"{'rows':>9}{'columns':>9}{'units':>9}{'batch epoch':>13}{'10k steps':>11}{'memory, MiB':>13}")
    for n, n_features, side in (
        (10_000, 64, 10), (100_000, 64, 10), (10_000, 16, 30), (10_000, 256, 30), (10_000, 64, 60),
    ):  # fmt: skip
        X = rows(n, n_features)
        batch, short = (SelfOrganizingMap(side, side, max_iter=epochs) for epochs in (4, 1))
        # Four epochs less one, so that what is done once does not count.
        epoch = (seconds(partial(batch.fit, X))[0] - seconds(partial(short.fit, X))[0]) / 3
        online = SelfOrganizingMap(side, side, algorithm="online", max_iter=1)
        steps = seconds(partial(online.fit, X[:10_000]))[0]
        tracemalloc.start()
        short.fit(X)
        peak = tracemalloc.get_traced_memory()[1] / 2**20
        tracemalloc.stop()
        print(f"{n:9,}{n_features:9}{side * side:9,}{epoch:11.4f} s{steps:9.3f} s{peak:13.1f}")
        results[f"{n} x {n_features}, {side * side} units"] = [epoch, steps, peak]


def seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    """How long one call takes, and what it returns."""
    started = time.perf_counter()
    found = call()
    return time.perf_counter() - started, found


if __name__ == "__main__":
    main()
