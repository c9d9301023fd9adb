"""What the report of `fullspan fit` shows: the leaderboard, and how good and why the best model is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fullspan.pipelines.candidates import BASELINE, ROWS_OF_A_PART
from fullspan.pipelines.plots import Plot, as_svg, new_figure, new_panels, shown_name

_MOST_CURVES = 8
_MOST_BARS = 20
_MOST_NUMBERS_ACROSS = 20
_IN_UNITS_OF_THE_TARGET = ("rmse", "mae")


def fitted_from(fit: dict[str, Any]) -> str:
    """What was learnt from what, in a line."""
    task = "value" if fit["labels"] is None else f"one of {len(fit['labels'])} classes"
    return f"Predicts {fit['target']!r} ({task}), learnt from {fit['data']}."


def fit_figures(fit: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Label and value of the numbers that a reader looks for first."""
    best = next(line for line in fit["leaderboard"] if line["model"] == fit["best"])
    yield "best model", fit["best"]
    for name, value in best["scores"].items():
        yield f"{_spoken(name)} on held-out rows", _number(name, value)
    yield "rows", f"{fit['n_rows']:,}"
    yield "columns learnt from", f"{len(fit['columns'])}"


def leaderboard(fit: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Column names and rows of the comparison."""
    names = list(fit["leaderboard"][0]["scores"])
    rows = []
    for line in fit["leaderboard"]:
        scores = [_number(name, line["scores"][name]) for name in names]
        decimals = len(scores[0].partition(".")[2])  # as many as the score has
        scores[0] += f" ± {line['spread']:,.{decimals}f}"
        rows.append([line["model"], *scores, f"{line['seconds']:.1f}"])
    return ["model", *(_spoken(name) for name in names), "seconds"], rows


def remarks(fit: dict[str, Any]) -> Iterator[str]:
    """What a reader should know before the model is trusted."""
    deciding = next(iter(fit["leaderboard"][0]["scores"]))
    score = {line["model"]: line["scores"][deciding] for line in fit["leaderboard"]}
    best, baseline = score[fit["best"]], score[BASELINE]
    if best >= baseline:
        yield (
            f"no model beats the baseline, which knows only how {fit['target']!r} is distributed: "
            "these columns tell nothing about it, or there are too few rows"
        )
    elif best < 0.02 * baseline and fit["importances"]:
        column = fit["importances"][0]["column"]
        yield (
            f"there is nearly no error; if {column!r} is known only after {fit['target']!r}, "
            f"fit again with --ignore {column!r}"
        )
    n_fitted_on = fit["n_rows"] * (fit["folds"] - 1) // fit["folds"]
    compared = {line["model"] for line in fit["leaderboard"]}
    drawn = {name: n for name, n in ROWS_OF_A_PART.items() if name in compared and n < n_fitted_on}
    if drawn:
        parts = ", ".join(f"{n:,} ({name})" for name, n in drawn.items())
        yield f"each tree was fitted on a random part of the rows, so that it ends in minutes: {parts}"
    if fit["n_without_target"]:
        yield f"{fit['n_without_target']:,} rows have no {fit['target']!r} and were left out"


def columns_table(fit: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Column names and rows of the table of columns: what each was taken for."""
    rows = [[column["name"], column["kind"]] for column in fit["columns"]]
    rows += [[name, f"left out: {reason}"] for name, reason in fit["left_out"].items()]
    return ["column", "taken as"], rows


def fit_plots(run_path: Path, fit: dict[str, Any]) -> Iterator[Plot]:
    """The plots of a run that `fullspan fit` finished."""
    with np.load(run_path / "held_out.npz", allow_pickle=False) as saved:
        held_out = dict(saved)
    y, predicted = held_out["y"], held_out["predicted"]
    if fit["labels"] is None:
        yield _residuals(y, predicted[:, 0])
    else:
        yield _roc_and_precision(y, predicted, fit["labels"])
        yield _calibration(y, predicted, fit["labels"])
        yield _confusion(y, predicted.argmax(axis=1), fit["labels"])
    if len(fit["learning_curve"]) > 1:
        yield _learning_curve(fit)
    yield _importances(fit)
    yield _shap(held_out["shap"], held_out["shap_X"], fit)


def _spoken(name: str) -> str:
    return {"r2": "R²", "roc_auc": "ROC AUC", "rmse": "RMSE", "mae": "MAE", "brier": "Brier score"}.get(
        name, name.replace("_", " ")
    )


def _number(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    if name not in _IN_UNITS_OF_THE_TARGET:
        return f"{value:.4f}" if abs(value) < 1000 else f"{value:.3g}"
    return f"{value:,.0f}" if 10_000 <= abs(value) < 1e12 else f"{value:.4g}"


def _residuals(y: np.ndarray, predicted: np.ndarray) -> Plot:
    figures, (left, right) = new_panels()
    shown = np.random.default_rng(0).permutation(len(y))[:5000]
    size = 6 if len(shown) > 500 else 14
    left.scatter(predicted[shown], (y - predicted)[shown], s=size, alpha=0.4, linewidths=0, rasterized=True)
    left.axhline(0, color="black", linewidth=0.8)
    left.set(xlabel="predicted", ylabel="residual (actual - predicted)")
    right.hist(y - predicted, bins=min(40, max(5, len(y) // 5)))
    right.set(xlabel="residual", ylabel="rows")
    caption = (
        "Of rows that the model was not fitted on. A slope or a funnel on the left is something not learned."
    )
    return Plot("Residuals", caption, as_svg(*figures))


def _curves_of(y: np.ndarray, labels: list[str]) -> list[int]:
    """Classes that get a curve: the second of two, or the most frequent of several."""
    counts = np.bincount(y, minlength=len(labels))
    if len(labels) == 2:
        return [1] if 0 < counts[1] < len(y) else []
    return sorted(int(k) for k in np.argsort(-counts, kind="stable")[:_MOST_CURVES] if counts[k])


def _roc_and_precision(y: np.ndarray, predicted: np.ndarray, labels: list[str]) -> Plot:
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

    shown = _curves_of(y, labels)
    figures, (left, right) = new_panels(3.2 + 0.16 * len(shown))
    for k in shown:
        actual, name = y == k, shown_name(labels[k])
        false, true, _ = roc_curve(actual, predicted[:, k])
        left.plot(false, true, label=f"{name} ({roc_auc_score(actual, predicted[:, k]):.3f})")
        precision, recall, _ = precision_recall_curve(actual, predicted[:, k])
        area = average_precision_score(actual, predicted[:, k])
        right.step(recall, precision, where="post", label=f"{name} ({area:.3f}; chance {actual.mean():.3f})")
    left.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle="--")
    left.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC\n(area)")
    right.set(xlabel="recall", ylabel="precision", title="Precision and recall\n(average precision)")
    for axes in (left, right):
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        # Below the axes, where it hides no curve.
        axes.legend(frameon=False, fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.18))
    which = f"the {len(shown)} most frequent classes" if len(labels) > len(shown) > 1 else "each class"
    which = f"class {labels[1]!r}" if len(labels) == 2 else f"{which} against the rest"
    caption = f"Of {which}, on held-out rows. By chance, the precision is the class's share of the rows."
    return Plot("ROC and precision-recall curves", caption, as_svg(*figures))


def _calibration(y: np.ndarray, predicted: np.ndarray, labels: list[str]) -> Plot:
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
    # Twice the binomial standard error: a bin of few rows tells little.
    error = 2 * np.sqrt(mean * (1 - mean) / counts[some])
    figures, (left, right) = new_panels()
    left.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle="--")
    left.errorbar(mean, share, yerr=error, marker="o", markersize=5, linewidth=1, elinewidth=0.8, capsize=2)
    left.set(xlabel="predicted probability", ylabel="share that it happened", xlim=(0, 1), ylim=(-0.02, 1.02))
    right.bar(edges[:-1], counts, width=0.1, align="edge", edgecolor="white", linewidth=0.5)
    right.set(xlabel="predicted probability", ylabel="rows", xlim=(0, 1))
    which = f"of {labels[1]!r}" if two else "of the likeliest class"
    caption = (
        f"Probability {which}: on the diagonal it can be taken at its word. Bars are what chance allows "
        "to be off by (two standard errors)."
    )
    return Plot("Calibration", caption, as_svg(*figures))


def _confusion(y: np.ndarray, guessed: np.ndarray, labels: list[str]) -> Plot:
    n = len(labels)
    counts = np.bincount(y * n + guessed, minlength=n * n).reshape(n, n)
    figure, axes = new_figure(height=min(1.6 + 0.42 * n, 9))
    axes.grid(visible=False)
    axes.imshow(
        counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1, aspect="auto"
    )
    numbers = n <= _MOST_NUMBERS_ACROSS
    for row, column in np.argwhere(counts) if numbers else ():  # where there is none, nothing is said
        dark = counts[row, column] > 0.55 * counts[row].sum()
        # Not pure black, which a dark page makes light.
        ink = "#ffffff" if dark else "#101010"
        axes.text(
            column, row, f"{counts[row, column]:,}", ha="center", va="center", color=ink, fontsize="small"
        )
    step = 1 if n <= 40 else n // 20
    names = [shown_name(label) for label in labels][::step]
    steep = n > 4 and max(map(len, names)) > 2
    axes.set_xticks(range(0, n, step), names, rotation=45 if steep else 0, ha="right" if steep else "center")
    axes.set_yticks(range(0, n, step), names)
    if n > 10:
        axes.tick_params(labelsize="small")
    axes.set(xlabel="predicted", ylabel="actual")
    return Plot(
        "Confusion matrix", "Held-out rows; the shade is the share of the actual class.", as_svg(figure)
    )


def _learning_curve(fit: dict[str, Any]) -> Plot:
    figure, axes = new_figure()
    name = _spoken(next(iter(fit["leaderboard"][0]["scores"])))
    points = fit["learning_curve"]
    axes.plot([point["rows"] for point in points], [point["score"] for point in points], marker="o")
    axes.set(xlabel="rows fitted on", ylabel=f"{name} on held-out rows")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    caption = "Lower is better. Where the curve still falls at its end, more rows would help."
    return Plot("Learning curve", caption, as_svg(figure))


def _importances(fit: dict[str, Any]) -> Plot:
    shown = fit["importances"][:_MOST_BARS][::-1]
    figure, axes = new_figure(height=1.2 + 0.28 * len(shown))
    axes.barh(
        range(len(shown)),
        [entry["importance"] for entry in shown],
        xerr=[entry["spread"] / 2 for entry in shown],
        error_kw={"elinewidth": 0.8, "capsize": 2},
    )
    axes.set_yticks(range(len(shown)), [shown_name(entry["column"]) for entry in shown])
    name = _spoken(next(iter(fit["leaderboard"][0]["scores"])))
    axes.set(xlabel=f"how much {name} rises when the column is shuffled")
    measured = fit["importances_of"]
    caption = f"On {measured['rows']:,} held-out rows. Columns that tell the same share their importance."
    if measured["columns_left"]:
        caption += f" The {measured['columns_left']:,} columns that the model uses least are not measured."
    return Plot("Permutation importances", caption, as_svg(figure))


def _shap(values: np.ndarray, X: np.ndarray, fit: dict[str, Any]) -> Plot:
    """values [rows, columns, outputs]: one dot a row; of several outputs the mean absolute value."""
    explained = fit["explained"]
    names = [shown_name(name) for name in explained["columns"]]
    of_rows = f"Of {len(values):,} held-out rows, " + (
        "by TreeSHAP." if explained["exact"] else "approximated from sampled orders of the columns."
    )
    strength = np.abs(values).mean(axis=(0, 2))
    order = np.argsort(-strength, kind="stable")[:_MOST_BARS][::-1]
    figure, axes = new_figure(height=1.4 + 0.3 * len(order))
    axes.set_yticks(range(len(order)), [names[j] for j in order])
    if values.shape[2] > 1:
        axes.barh(range(len(order)), strength[order])
        axes.set(xlabel=f"mean absolute SHAP value over rows and classes ({explained['output']})")
        caption = f"How far a column moves the prediction, on average. {of_rows}"
        return Plot("SHAP values", caption, as_svg(figure))
    jitter = np.random.default_rng(0).uniform(-0.3, 0.3, len(values))
    for position, j in enumerate(order):
        known = ~np.isnan(X[:, j])
        axes.scatter(
            values[~known, j, 0], position + jitter[~known], color="grey", s=6, linewidths=0, rasterized=True
        )
        dots = axes.scatter(
            values[known, j, 0],
            position + jitter[known],
            c=_ranks(X[known, j]),
            cmap="coolwarm",
            vmin=0,
            vmax=1,
            s=6,
            linewidths=0,
            rasterized=True,
        )
    bar = figure.colorbar(dots, ax=axes, ticks=[0, 1], aspect=30, pad=0.02)
    bar.ax.set_yticklabels(["low", "high"])
    bar.set_label("value of the column")
    bar.outline.set_visible(False)
    axes.axvline(0, color="black", linewidth=0.8)
    what = shown_name(fit["target"])
    if fit["labels"]:
        what = f"{explained['output']} of {shown_name(fit['labels'][1])}"
    axes.set(xlabel=f"what the column adds to: {what}")
    caption = f"One dot a row; grey: missing. Of categories, rare ones are high. {of_rows}"
    return Plot("SHAP values", caption, as_svg(figure))


def _ranks(values: np.ndarray) -> np.ndarray:
    """From 0 for the lowest to 1 for the highest; equal values have equal ranks."""
    _, ranks = np.unique(values, return_inverse=True)
    return np.asarray(ranks / max(ranks.max(initial=0), 1))
