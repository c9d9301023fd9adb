"""What the report of `fullspan fit` shows: the leaderboard, and how good and why the best model is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fullspan.pipelines.plots import Plot, as_svg, new_figure

_MOST_CURVES = 8
_MOST_BARS = 20


def fit_figures(fit: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Label and value of the numbers that a reader looks for first."""
    best = next(line for line in fit["leaderboard"] if line["model"] == fit["best"])
    yield "best model", fit["best"]
    for name, value in best["scores"].items():
        yield f"{name.replace('_', ' ')} on held-out rows", f"{value:.4f}"
    yield "rows", f"{fit['n_rows']:,}"
    yield "features", f"{len(fit['features'])}"


def leaderboard(fit: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Column names and rows of the comparison."""
    names = list(fit["leaderboard"][0]["scores"])
    rows = [
        [line["model"], *(f"{line['scores'][name]:.4f}" for name in names), f"{line['seconds']:.1f}"]
        for line in fit["leaderboard"]
    ]
    return ["model", *(name.replace("_", " ") for name in names), "seconds"], rows


def fit_plots(run_path: Path, fit: dict[str, Any]) -> Iterator[Plot]:
    """The plots of a run that `fullspan fit` finished."""
    with np.load(run_path / "held_out.npz", allow_pickle=False) as saved:
        held_out = dict(saved)
    y, predicted = held_out["y"], held_out["predicted"]
    if fit["labels"] is None:
        yield _residuals(y, predicted[:, 0])
    else:
        yield _roc_and_precision(y, predicted, fit["labels"])
        yield _calibration(y, predicted)
        yield _confusion(y, predicted.argmax(axis=1), fit["labels"])
    if len(fit["learning_curve"]) > 1:
        yield _learning_curve(fit)
    yield _importances(fit["importances"])
    if "shap" in held_out:
        yield _shap(held_out["shap"], held_out["shap_X"], fit["features"])


def _residuals(y: np.ndarray, predicted: np.ndarray) -> Plot:
    figure, (left, right) = new_figure(2)
    shown = np.random.default_rng(0).permutation(len(y))[:5000]
    left.scatter(predicted[shown], (y - predicted)[shown], s=6, alpha=0.4, linewidths=0, rasterized=True)
    left.axhline(0, color="black", linewidth=0.8)
    left.set(xlabel="predicted", ylabel="residual (actual - predicted)")
    right.hist(y - predicted, bins=40)
    right.set(xlabel="residual", ylabel="rows")
    caption = (
        "Of rows that the model was not fitted on. A slope or a funnel on the left is something not learned."
    )
    return Plot("Residuals", caption, as_svg(figure))


def _curves_of(labels: list[str]) -> list[tuple[int, str]]:
    """Classes that get a curve: the second of two, or each of several."""
    return [(1, labels[1])] if len(labels) == 2 else list(enumerate(labels))[:_MOST_CURVES]


def _roc_and_precision(y: np.ndarray, predicted: np.ndarray, labels: list[str]) -> Plot:
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

    figure, (left, right) = new_figure(2, height=3.6)
    for index, label in _curves_of(labels):
        actual = y == index
        false, true, _ = roc_curve(actual, predicted[:, index])
        left.plot(false, true, label=f"{label} ({roc_auc_score(actual, predicted[:, index]):.3f})")
        precision, recall, _ = precision_recall_curve(actual, predicted[:, index])
        area = average_precision_score(actual, predicted[:, index])
        right.plot(recall, precision, label=f"{label} ({area:.3f})")
    left.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle="--")
    left.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC (area)")
    right.set(xlabel="recall", ylabel="precision", title="precision and recall (average precision)")
    left.legend(frameon=False, fontsize="small")
    right.legend(frameon=False, fontsize="small")
    return Plot("Ranking", "Each class against the rest, on held-out rows.", as_svg(figure))


def _calibration(y: np.ndarray, predicted: np.ndarray) -> Plot:
    """Of two classes the second's probability, of more the largest."""
    two = predicted.shape[1] == 2
    probability = predicted[:, 1] if two else predicted.max(axis=1)
    happened = (y == 1) if two else (predicted.argmax(axis=1) == y)
    edges = np.linspace(0, 1, 11)
    bins = np.clip(np.digitize(probability, edges) - 1, 0, 9)
    counts = np.bincount(bins, minlength=10)
    some = counts > 0
    mean = np.bincount(bins, probability, 10)[some] / counts[some]
    share = np.bincount(bins, happened, 10)[some] / counts[some]
    figure, (left, right) = new_figure(2)
    left.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle="--")
    left.plot(mean, share, marker="o")
    left.set(xlabel="predicted probability", ylabel="share that it happened", xlim=(0, 1), ylim=(0, 1))
    right.bar(edges[:-1], counts, width=0.1, align="edge")
    right.set(xlabel="predicted probability", ylabel="rows", xlim=(0, 1))
    which = "of the second class" if two else "of the likeliest class"
    return Plot(
        "Calibration", f"Probability {which}: on the diagonal it can be taken at its word.", as_svg(figure)
    )


def _confusion(y: np.ndarray, guessed: np.ndarray, labels: list[str]) -> Plot:
    n = len(labels)
    counts = np.bincount(y * n + guessed, minlength=n * n).reshape(n, n)
    figure, (axes,) = new_figure(1, height=min(2.2 + 0.35 * n, 10))
    axes.grid(visible=False)
    axes.imshow(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
    if n <= 20:
        for row in range(n):
            for column in range(n):
                dark = counts[row, column] > counts[row].sum() / 2
                axes.text(
                    column,
                    row,
                    f"{counts[row, column]:,}",
                    ha="center",
                    va="center",
                    color="white" if dark else "black",
                    fontsize="small",
                )
    axes.set_xticks(range(n), labels, rotation=45 if n > 4 else 0, ha="right" if n > 4 else "center")
    axes.set_yticks(range(n), labels)
    axes.set(xlabel="predicted", ylabel="actual")
    return Plot(
        "Confusion matrix", "Held-out rows; the shade is the share of the actual class.", as_svg(figure)
    )


def _learning_curve(fit: dict[str, Any]) -> Plot:
    figure, (axes,) = new_figure()
    name = next(iter(fit["leaderboard"][0]["scores"])).replace("_", " ")
    points = fit["learning_curve"]
    axes.plot([point["rows"] for point in points], [point["score"] for point in points], marker="o")
    axes.set(xlabel="rows fitted on", ylabel=f"{name} on held-out rows")
    caption = "Where the curve still falls at its end, more rows would help."
    return Plot("Learning curve", caption, as_svg(figure))


def _importances(importances: list[dict[str, Any]]) -> Plot:
    shown = importances[:_MOST_BARS][::-1]
    figure, (axes,) = new_figure(1, height=1.2 + 0.28 * len(shown))
    axes.barh(
        [entry["feature"] for entry in shown],
        [entry["importance"] for entry in shown],
        xerr=[entry["spread"] / 2 for entry in shown],
    )
    axes.set(xlabel="how much worse the score is when the feature is shuffled")
    caption = "On held-out rows; features that tell the same share their importance."
    return Plot("Permutation importances", caption, as_svg(figure))


def _shap(values: np.ndarray, X: np.ndarray, features: list[str]) -> Plot:
    """values [rows, n_features, outputs]: one dot a row; of several outputs the mean absolute value."""
    strength = np.abs(values).mean(axis=(0, 2))
    order = np.argsort(-strength)[:_MOST_BARS][::-1]
    figure, (axes,) = new_figure(1, height=1.2 + 0.3 * len(order))
    if values.shape[2] > 1:
        axes.barh([features[j] for j in order], strength[order])
        axes.set(xlabel="mean absolute SHAP value over rows and classes")
        return Plot("SHAP values", "How far a feature moves the prediction, on average.", as_svg(figure))
    jitter = np.random.default_rng(0).uniform(-0.3, 0.3, len(values))
    for position, j in enumerate(order):
        ranks = np.argsort(np.argsort(np.where(np.isnan(X[:, j]), -np.inf, X[:, j]))) / max(len(X) - 1, 1)
        axes.scatter(
            values[:, j, 0], position + jitter, c=ranks, cmap="coolwarm", s=5, linewidths=0, rasterized=True
        )
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(order)), [features[j] for j in order])
    axes.set(xlabel="SHAP value (what the feature adds to the prediction; red: high values of it)")
    caption = "One dot a row. Values are on the model's own scale: log-odds in a classification."
    return Plot("SHAP values", caption, as_svg(figure))
