"""Histogram boosting: fullspan against LightGBM, XGBoost and scikit-learn on the same rows, in turns.

50 trees of 255 leaves on 28 columns, two threads, binning included; then margins of 100,000 rows. Each
contender is a process of its own. A second race has missing values, categories and weights in the data. After
them: the time for 10,000 to 3,000,000 rows, and the peak memory of a fit.

    python -m benchmarks boosting
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.interleave import median, race, serve, spread, write_results

COLUMNS, TREES, LEAVES, RATE, THREADS = 28, 50, 255, 0.1, 2
TEST_ROWS = 100_000
CATEGORICAL = (3, 11)
CONTENDERS = ("fullspan", "lightgbm-quantised", "lightgbm", "xgboost", "scikit-learn")
CURVE = (10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000)

Data = tuple[np.ndarray, np.ndarray, np.ndarray | None]
Model = tuple[Callable[[], Any], Callable[[Any, np.ndarray], np.ndarray]]


def make_data(rows: int, mixed: bool, seed: int) -> Data:
    """Columns, a binary target that depends on them in several ways, and weights or None."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, COLUMNS)).astype(np.float32)
    signal = np.sin(2 * X[:, 0]) + X[:, 1] * X[:, 2] + 0.7 * X[:, 3] - np.abs(X[:, 4]) + 0.5 * X[:, 5] ** 2
    signal += 0.4 * X[:, 6:12].sum(axis=1) + np.where(X[:, 12] > 0.5, X[:, 13], -X[:, 14])
    weight = None
    if mixed:
        for column in CATEGORICAL:
            X[:, column] = rng.integers(0, 40, rows)
            signal += np.cos(1.7 * X[:, column])
        missing = rng.random(X.shape, dtype=np.float32) < 0.1
        missing[:, CATEGORICAL] = False
        X[missing] = np.nan
        weight = rng.exponential(size=rows).astype(np.float32)
    y = (signal + rng.logistic(size=rows) * 1.2 > 0).astype(np.float32)
    return X, y, weight


def fullspan_model(data: Data, mixed: bool) -> Model:
    """Ours."""
    from fullspan.estimators import XGBClassifier

    X, y, weight = data

    def fit() -> Any:
        model = XGBClassifier(
            n_estimators=TREES, max_leaves=LEAVES, max_depth=0, grow_policy="lossguide", learning_rate=RATE,
            n_jobs=THREADS, tree_method="hist", feature_types=feature_types(mixed), enable_categorical=mixed,
        )  # fmt: skip
        return model.fit(X, y, sample_weight=weight)

    return fit, lambda model, rows: model.predict(rows, output_margin=True)


def feature_types(mixed: bool) -> list[str]:
    """XGBoost's letters for numbers and categories."""
    return ["c" if mixed and column in CATEGORICAL else "q" for column in range(COLUMNS)]


def lightgbm_model(data: Data, mixed: bool, quantised: bool) -> Model:
    """LightGBM, with and without its quantised gradients."""
    import lightgbm

    X, y, weight = data
    settings = {
        "objective": "binary", "num_leaves": LEAVES, "learning_rate": RATE, "num_threads": THREADS,
        "verbosity": -1, "min_data_in_leaf": 1, "min_sum_hessian_in_leaf": 1.0, "max_bin": 255,
        "use_quantized_grad": quantised, "lambda_l2": 1.0, "force_col_wise": True,
    }  # fmt: skip
    categorical: Any = list(CATEGORICAL) if mixed else "auto"

    def fit() -> Any:
        rows = lightgbm.Dataset(X, y, weight=weight, categorical_feature=categorical)
        return lightgbm.train(settings, rows, TREES)

    return fit, lambda model, rows: model.predict(rows, raw_score=True, num_threads=THREADS)


def xgboost_model(data: Data, mixed: bool) -> Model:
    """XGBoost, growing by loss."""
    import xgboost

    X, y, weight = data
    kinds = feature_types(mixed)
    settings = {
        "objective": "binary:logistic", "max_leaves": LEAVES, "max_depth": 0, "grow_policy": "lossguide",
        "learning_rate": RATE, "nthread": THREADS, "tree_method": "hist", "max_bin": 256,
    }  # fmt: skip

    def fit() -> Any:
        rows = xgboost.QuantileDMatrix(
            X, y, weight=weight, nthread=THREADS, feature_types=kinds, enable_categorical=mixed
        )
        return xgboost.train(settings, rows, TREES)

    def predict(model: Any, rows: np.ndarray) -> np.ndarray:
        matrix = xgboost.DMatrix(rows, nthread=THREADS, feature_types=kinds, enable_categorical=mixed)
        return np.asarray(model.predict(matrix, output_margin=True))

    def predict_in_place(model: Any, rows: np.ndarray) -> np.ndarray:
        return np.asarray(model.inplace_predict(rows, predict_type="margin"))

    return fit, predict if mixed else predict_in_place


def sklearn_model(data: Data, mixed: bool) -> Model:
    """scikit-learn's."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    X, y, weight = data
    categorical = np.isin(np.arange(COLUMNS), CATEGORICAL) if mixed else None

    def fit() -> Any:
        model = HistGradientBoostingClassifier(
            max_iter=TREES, max_leaf_nodes=LEAVES, learning_rate=RATE, early_stopping=False,
            categorical_features=categorical, min_samples_leaf=1, l2_regularization=1.0,
        )  # fmt: skip
        return model.fit(X, y, sample_weight=weight)

    return fit, lambda model, rows: model.decision_function(rows)


def make_model(kind: str, data: Data, mixed: bool) -> Model:
    """How a contender fits and predicts."""
    if kind.startswith("lightgbm"):
        return lightgbm_model(data, mixed, kind.endswith("quantised"))
    return {"fullspan": fullspan_model, "xgboost": xgboost_model, "scikit-learn": sklearn_model}[kind](
        data, mixed
    )


def run(kind: str, rows: int, mixed: bool) -> None:
    """A contender's process."""
    from sklearn.metrics import roc_auc_score

    fit, predict = make_model(kind, make_data(rows, mixed, seed=0), mixed)
    X_test, y_test, _ = make_data(TEST_ROWS, mixed, seed=1)

    def round_() -> dict[str, float]:
        started = time.perf_counter()
        model = fit()
        fitted = time.perf_counter()
        margin = predict(model, X_test)
        predicted = time.perf_counter()
        return {
            "fit_seconds": fitted - started,
            "rows_per_second": TEST_ROWS / (predicted - fitted),
            "auc": float(roc_auc_score(y_test, margin)),
        }

    serve(round_)


def run_memory(rows: int) -> None:
    """Print how far memory rises above what the process has with the data, kernels compiled."""
    import psutil

    small = make_data(5_000, False, seed=2)
    make_model("fullspan", small, False)[0]()
    data = make_data(rows, False, seed=0)
    fit, _ = make_model("fullspan", data, False)
    before = psutil.Process().memory_info().rss
    # Linux: forget the peak so far.
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    fit()
    status = open("/proc/self/status").read()
    peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
    print(peak - before)


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "benchmarks.boosting", *words]


def compare(rows: int, mixed: bool, rounds: int, contenders: list[str]) -> dict[str, Any]:
    """Race all contenders on one kind of data and print the ratios."""
    flags = ["--rows", str(rows), *(["--mixed"] if mixed else [])]
    measured = race({kind: command("--kind", kind, *flags) for kind in contenders}, rounds)
    print(f"{rows:,} x {COLUMNS}, {'missing, categories, weights' if mixed else 'numbers'}")
    fit = {kind: median(figures, "fit_seconds") for kind, figures in measured.items()}
    speed = {kind: median(figures, "rows_per_second") for kind, figures in measured.items()}
    auc = {kind: median(figures, "auc") for kind, figures in measured.items()}
    for kind, figures in measured.items():
        print(
            f"  {kind:19} fit {fit[kind]:6.2f} s ({spread(figures, 'fit_seconds')}), "
            f"predicts {speed[kind] / 1e6:5.2f} M rows/s, AUC {auc[kind]:.5f}"
        )
    peers = [kind for kind in contenders if kind != "fullspan"]
    ratios = {
        "fit": min(fit[kind] for kind in peers) / fit["fullspan"],
        "predict": speed["fullspan"] / max(speed[kind] for kind in peers),
        "auc_below_best": max(auc[kind] for kind in peers) - auc["fullspan"],
    }
    print(
        f"  the fastest peer's time is {ratios['fit']:.2f} times ours; we predict {ratios['predict']:.2f} "
        f"times as fast as the fastest; AUC {-ratios['auc_below_best']:+.5f} against the best"
    )
    return {"fit": fit, "rows_per_second": speed, "auc": auc, "ratios": ratios}


def curve() -> dict[int, float]:
    """Time of a fit against rows."""
    times = {}
    make_model("fullspan", make_data(2_000, False, seed=2), False)[0]()
    for rows in CURVE:
        fit, _ = make_model("fullspan", make_data(rows, False, seed=0), False)
        seconds = []
        for _ in range(3 if rows <= 300_000 else 1):
            started = time.perf_counter()
            fit()
            seconds.append(time.perf_counter() - started)
        times[rows] = min(seconds)
        print(f"  {rows:9,} rows: {times[rows]:7.2f} s, {times[rows] / rows * 1e6:6.2f} s a million rows")
    return times


def memory(rows: int) -> float:
    """Peak memory of a fit over one byte a value and two float32 a row."""
    shown = subprocess.run(
        command("--memory", "--rows", str(rows)), capture_output=True, text=True, check=True
    )
    needed = rows * (COLUMNS + 8)
    ratio = int(shown.stdout.split()[-1]) / needed
    print(f"  {rows:,} rows: peak {ratio:.2f} times bins plus gradients ({needed / 2**20:,.0f} MiB)")
    return ratio


def main() -> None:
    """Both races, the curve and the memory."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kind", choices=CONTENDERS)
    parser.add_argument("--rows", type=int, default=900_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mixed", action="store_true")
    parser.add_argument("--memory", action="store_true")
    # `python -m benchmarks` leaves the bench's own name among the words.
    chosen = parser.parse_known_args()[0]
    if chosen.kind:
        run(chosen.kind, chosen.rows, chosen.mixed)
    elif chosen.memory:
        run_memory(chosen.rows)
    else:
        results = {
            "numbers": compare(chosen.rows, False, chosen.rounds, list(CONTENDERS)),
            "mixed": compare(chosen.rows, True, chosen.rounds, list(CONTENDERS)),
            "memory": memory(chosen.rows),
            "curve": curve(),
        }
        write_results("boosting", results)


if __name__ == "__main__":
    # scikit-learn takes its threads from OpenMP.
    os.environ.setdefault("OMP_NUM_THREADS", str(THREADS))
    main()
