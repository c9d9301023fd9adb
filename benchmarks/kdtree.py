"""Kd-trees: build, and the 8 nearest of 100,000 queries; fullspan against pykdtree at two threads, in turns.

Every distance is compared with the peer's. scipy's and scikit-learn's trees, which take far longer, show for
a tenth of the queries where they are.
"""

from __future__ import annotations

import os
import statistics
import time
from typing import Any

import numpy as np

from benchmarks.interleave import write_results

THREADS = 2
os.environ.setdefault("OMP_NUM_THREADS", str(THREADS))  # read when pykdtree is imported
SIZES = ((1_000_000, 3), (200_000, 8))
CURVE = ((10_000, 3), (100_000, 3), (3_000_000, 3), (200_000, 2), (200_000, 5), (50_000, 12))
N_QUERIES = 100_000
K = 8
ROUNDS = 3


def _timed(build: Any, query: Any, data: np.ndarray, queries: np.ndarray) -> tuple[float, float, np.ndarray]:
    started = time.perf_counter()
    tree = build(data)
    built = time.perf_counter()
    distances = query(tree, queries)[0]
    return built - started, time.perf_counter() - built, distances


def contenders() -> dict[str, tuple[Any, Any]]:
    """How each builds, and how it is asked."""
    from pykdtree.kdtree import KDTree as PyKDTree

    from fullspan.estimators import KDTree

    return {
        "fullspan": (KDTree, lambda tree, q: tree.query(q, K, workers=THREADS)),
        "pykdtree": (PyKDTree, lambda tree, q: tree.query(q, K)),
    }


def race(n: int, m: int, dtype: Any, rounds: int) -> dict[str, list[float]]:
    """Seconds to build and to query, medians; and the range of the ratios of their sums."""
    rng = np.random.default_rng(0)
    data, queries = rng.random((n, m)).astype(dtype), rng.random((N_QUERIES, m)).astype(dtype)
    kinds = contenders()
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
    for _ in range(rounds):
        found = {}
        for name, (build, query) in kinds.items():
            built, asked, found[name] = _timed(build, query, data, queries)
            measured[name].append((built, asked))
        tolerance = 1e-12 if dtype is np.float64 else 1e-5  # theirs are rounded to float32 then
        np.testing.assert_allclose(found["fullspan"], found["pykdtree"], rtol=tolerance, atol=tolerance)
    ratios = sorted(
        sum(theirs) / sum(ours)
        for ours, theirs in zip(measured["fullspan"], measured["pykdtree"], strict=True)
    )
    figures = {
        name: [statistics.median(column) for column in zip(*runs, strict=True)]
        for name, runs in measured.items()
    }
    figures["ratio"] = [statistics.median(ratios), ratios[0], ratios[-1]]
    print(
        f"{n:>9,} x {m:<2} {np.dtype(dtype).name}: "
        + "; ".join(
            f"{name} build {figures[name][0]:.3f} s, query {figures[name][1]:.3f} s" for name in kinds
        )
        + f"; {figures['ratio'][0]:.1f} times as fast ({ratios[0]:.1f} to {ratios[-1]:.1f})",
        flush=True,
    )
    return figures


def others(n: int, m: int) -> None:
    """What scipy and scikit-learn take, for a tenth of the queries."""
    from scipy.spatial import cKDTree
    from sklearn.neighbors import KDTree as SklearnKDTree

    rng = np.random.default_rng(0)
    data, queries = rng.random((n, m)), rng.random((N_QUERIES // 10, m))
    asked = {
        "scipy": (cKDTree, lambda tree, q: tree.query(q, K, workers=THREADS)),
        "scikit-learn (one thread)": (SklearnKDTree, lambda tree, q: tree.query(q, K)),
    }
    for name, (build, query) in asked.items():
        built, took, _ = _timed(build, query, data, queries)
        print(f"{'':>15} {name}: build {built:.2f} s, a tenth of the queries {took:.2f} s", flush=True)


def memory(n: int, m: int) -> float:
    """Bytes of a tree for each byte of its points, these not counted."""
    from fullspan.estimators import KDTree

    tree = KDTree(np.random.default_rng(0).random((n, m)))
    parts = vars(tree._structure).values()
    return sum(part.nbytes for part in parts if isinstance(part, np.ndarray)) / tree.data.nbytes


def main(quick: bool = False) -> None:
    """Print seconds, ratios, the cost curve and the memory."""
    from fullspan.estimators import KDTree

    KDTree(np.random.default_rng(0).random((20_000, 3))).query(np.zeros((9000, 3)), K)  # compile
    results: dict[str, Any] = {}
    for n, m in SIZES:
        for dtype in (np.float64, np.float32):
            results[f"{n}x{m} {np.dtype(dtype).name}"] = race(n, m, dtype, ROUNDS)
        if not quick:
            others(n, m)
        print(f"{'':>15} the tree takes {memory(n, m):.2f} times the memory of its points", flush=True)
    if not quick:
        print("cost curve")
        for n, m in CURVE:
            results[f"{n}x{m}"] = race(n, m, np.float64, 1)
        write_results("kdtree", results)


if __name__ == "__main__":
    main()
