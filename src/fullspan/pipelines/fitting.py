"""Fit estimators to a table, compare them by cross-validation, keep the best: `fullspan fit`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from fullspan.core.config import Argument, Config, InputPath, OutputPath
from fullspan.core.errors import ConfigError, DataError, RunError, did_you_mean
from fullspan.core.files import replacing, sha256
from fullspan.core.progress import progress
from fullspan.core.runs import Run
from fullspan.pipelines.candidates import BASELINE, CANDIDATES, make_estimator

if TYPE_CHECKING:
    import pyarrow as pa

    from fullspan.estimators.table import TableEncoder

MODEL_FILE = "model.fullspan"
_MOST_CLASSES_OF_NUMBERS = 20
_EXPLAINED_ROWS = 1000


class FitConfig(Config):
    """Options of `fullspan fit`."""

    data: Annotated[InputPath, Argument()] = Field(description="table: .parquet, .csv, .jsonl or .json")
    target: str = Field(description="name of the column to predict")
    model: list[str] = Field(
        ["forest", "xgb"],
        description=f"estimators to compare: {', '.join(CANDIDATES)}, or all; may be repeated",
    )
    task: Literal["auto", "classification", "regression"] = Field(
        "auto", description="auto: by the target's type and number of values"
    )
    folds: int = Field(5, ge=2, le=100, description="parts of the cross-validation")
    seed: int = Field(0, ge=0, lt=2**32, description="seed of the folds and of the estimators")
    run: OutputPath | None = Field(None, description="run directory [default: runs/<time>-fit]")
    resume: bool = Field(False, description="go on with the run in --run where it stopped")

    @model_validator(mode="after")
    def _check(self) -> FitConfig:
        for name in self.model:
            if name not in (*CANDIDATES, "all"):
                raise ConfigError(f"no model named {name!r}", did_you_mean(name, [*CANDIDATES, "all"]))
        if self.resume and self.run is None:
            raise ConfigError("resume needs the run to go on with", "add --run DIRECTORY")
        return self

    def names(self) -> list[str]:
        """The estimators to compare, each once."""
        return list(CANDIDATES) if "all" in self.model else list(dict.fromkeys(self.model))


@dataclass(frozen=True)
class Score:
    """One line of the leaderboard; scores are of rows that the estimator was not fitted on.

    Attributes
    ----------
    model : str
    scores : dict of str to float
        The first decides: lower is better.
    seconds : float
        Of all folds together.
    """

    model: str
    scores: dict[str, float]
    seconds: float


@dataclass(frozen=True)
class Problem:
    """The table as arrays.

    Attributes
    ----------
    X : ndarray of float64 [n_rows, n_features]
    y : ndarray [n_rows]
        Class numbers (int64) or values (float64).
    labels : list of str or None
        Names of the classes; None in a regression.
    encoder : TableEncoder
    left_out : dict of str to str
        Columns that are not used, and why.
    """

    X: np.ndarray
    y: np.ndarray
    labels: list[str] | None
    encoder: TableEncoder
    left_out: dict[str, str]


def fit(config: FitConfig) -> Path:
    """Compare estimators on a table, save the best one and a report.

    Returns
    -------
    pathlib.Path
        The run directory.

    Raises
    ------
    ConfigError, DataError, RunError
        If an option, the table or the run directory is wrong.
    """
    problem = read_problem(config.data, config.target, config.task, config.folds)
    if config.run is not None and config.run.is_dir() and any(config.run.iterdir()) and not config.resume:
        raise RunError(f"{config.run} holds a run already", "go on with it by --resume, or give another")
    run = Run.open(config.run) if config.run is not None else Run.create("runs", "fit")
    with run:
        _begin(run.path, config)
        print(f"run directory: {run.path}", flush=True)
        folds = make_folds(problem, config.folds, config.seed)
        board, held_out = _compare(run, problem, config, folds)
        best = next(score.model for score in board if score.model != BASELINE)
        _finish(run.path, problem, config, board, held_out[best], best, folds)
        from fullspan.pipelines.report import write_report

        write_report(run.path)
        return run.path


def _begin(path: Path, config: FitConfig) -> None:
    """Write the config, or hold it against that of the run that goes on."""
    content = config.model_copy(update={"run": None, "resume": False})
    described = {**content.model_dump(mode="json"), "data_sha256": sha256(config.data)}
    file = path / "fit-config.json"
    if file.exists():
        saved = json.loads(file.read_text("utf-8"))
        for name, value in described.items():
            if saved.get(name) != value:
                raise RunError(
                    f"{path} was begun with another {name}: {saved.get(name)!r}, not {value!r}",
                    "give another directory",
                )
    with replacing(file) as beside:
        beside.write_text(json.dumps(described, indent=2) + "\n", "utf-8")
    content.write(path / "config.yaml")


def read_problem(path: Path, target: str, task: str, folds: int) -> Problem:
    """Read a table and decide what its columns are.

    Raises
    ------
    ConfigError
        If there is no such target, or it does not suit the task.
    DataError
        If there are fewer rows than folds, or of one class.
    """
    from fullspan.estimators.table import infer_columns
    from fullspan.tables.duck import query

    table = query("SELECT * FROM data", {"data": path})
    if target not in table.column_names:
        raise ConfigError(f"{path} has no column {target!r}", did_you_mean(target, table.column_names))
    table = table.filter(table[target].is_valid())
    if table.num_rows < folds:
        raise DataError(
            f"{path} has {table.num_rows} rows with a {target!r}, fewer than {folds} folds",
            "lower --folds or give more rows",
        )
    encoder, left_out = infer_columns(table, target)
    y, labels = _encode_target(table[target], target, task, folds)
    return Problem(encoder.encode(table), y, labels, encoder, left_out)


def _encode_target(
    values: pa.ChunkedArray, name: str, task: str, folds: int
) -> tuple[np.ndarray, list[str] | None]:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = values.type
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if pa.types.is_nested(kind) or not (is_number or pa.types.is_boolean(kind) or _is_text(kind)):
        raise ConfigError(f"column {name!r} is {kind}, which cannot be predicted", "give a number or a text")
    counts = pc.value_counts(values).to_pylist()
    if task == "auto":
        few = len(counts) <= _MOST_CLASSES_OF_NUMBERS
        whole = not pa.types.is_floating(kind) and not pa.types.is_decimal(kind)
        task = "classification" if not is_number or (whole and few) else "regression"
    if task == "regression":
        if not is_number:
            raise ConfigError(f"column {name!r} is {kind}; a regression predicts numbers")
        y = values.cast(pa.float64()).to_numpy()
        if not np.isfinite(y).all():
            raise DataError(f"column {name!r} holds NaN or infinite numbers", "remove those rows")
        if len(counts) < 2:
            raise DataError(f"column {name!r} holds one value only: {counts[0]['values']!r}")
        return y, None
    if len(counts) < 2:
        raise DataError(f"column {name!r} holds one class only: {counts[0]['values']!r}")
    rarest = min(counts, key=lambda c: c["counts"])
    if rarest["counts"] < folds:
        raise DataError(
            f"class {rarest['values']!r} of {name!r} has {rarest['counts']} rows, fewer than {folds} folds",
            "lower --folds, or set the rows apart; a number with many values may need --task regression",
        )
    classes = pa.array(sorted(c["values"] for c in counts), values.type)
    y = pc.index_in(values, value_set=classes).to_numpy().astype(np.int64)
    return y, [_label(value) for value in classes.to_pylist()]


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind))


def _label(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def make_folds(problem: Problem, n: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Row numbers to fit on and to hold out; classes are spread evenly."""
    from sklearn.model_selection import KFold, StratifiedKFold

    kind = KFold if problem.labels is None else StratifiedKFold
    return list(kind(n, shuffle=True, random_state=seed).split(problem.X, problem.y))


def _compare(
    run: Run, problem: Problem, config: FitConfig, folds: list[tuple[np.ndarray, np.ndarray]]
) -> tuple[list[Score], dict[str, np.ndarray]]:
    """The leaderboard, best first, and each estimator's predictions of the rows held out from it."""
    names = [BASELINE, *config.names()]
    board, held_out = [], {}
    with progress(len(names) * len(folds), "cross-validating", unit="fits") as advance:
        for name in names:
            predicted = np.empty((len(problem.y), len(problem.labels or [0])))
            seconds = 0.0
            for index, (train, test) in enumerate(folds):
                file = run.path / "folds" / f"{name}-{index}.npz"
                predicted[test], took = _fold(file, name, problem, train, test, config.seed)
                seconds += took
                advance(note=name)
            held_out[name] = predicted
            board.append(Score(name, scores_of(problem, predicted), seconds))
            run.log(len(board), model=name, seconds=seconds, **board[-1].scores)
    return sorted(board, key=lambda score: next(iter(score.scores.values()))), held_out


def _fold(
    file: Path, name: str, problem: Problem, train: np.ndarray, test: np.ndarray, seed: int
) -> tuple[np.ndarray, float]:
    """Predictions of the held-out rows and the seconds they took; from the file where it is there."""
    if file.exists():
        with np.load(file, allow_pickle=False) as saved:
            return saved["predicted"], float(saved["seconds"])
    started = time.monotonic()
    predict = fitted(name, problem, train, seed)[0]
    predicted, seconds = predict(problem.X[test]), time.monotonic() - started
    with replacing(file) as beside, beside.open("wb") as handle:
        np.savez(handle, predicted=predicted, seconds=seconds)
    return predicted, seconds


def fitted(
    name: str, problem: Problem, rows: np.ndarray, seed: int
) -> tuple[Callable[[np.ndarray], np.ndarray], Any, np.ndarray | None]:
    """Fit an estimator on some rows.

    Returns
    -------
    callable
        From a matrix (with missing values) to probabilities [n, n_classes] or values [n, 1].
    estimator
    fill : ndarray or None
        What missing values were replaced by.
    """
    from fullspan.estimators.table import filled

    X, y = problem.X[rows], problem.y[rows]
    candidate = CANDIDATES.get(name)
    fill = None if candidate is None or candidate.takes_missing else _medians(X)
    estimator = make_estimator(name, problem.labels is not None, problem.encoder.is_category, seed)
    estimator.fit(filled(X, fill), y)

    def predict(X: np.ndarray) -> np.ndarray:
        X = filled(X, fill)
        if problem.labels is not None:
            return np.asarray(estimator.predict_proba(X), np.float64)
        return np.asarray(estimator.predict(X), np.float64).reshape(-1, 1)

    return predict, estimator, fill


def _medians(X: np.ndarray) -> np.ndarray:
    known = ~np.isnan(X)
    return np.array([np.median(X[known[:, j], j]) if known[:, j].any() else 0.0 for j in range(X.shape[1])])


def scores_of(problem: Problem, predicted: np.ndarray) -> dict[str, float]:
    """Scores of predictions; the first is what estimators are ranked by, the lower the better."""
    from sklearn import metrics

    y = problem.y
    if problem.labels is None:
        values = predicted[:, 0]
        return {
            "rmse": float(np.sqrt(np.mean((y - values) ** 2))),
            "mae": float(np.mean(np.abs(y - values))),
            "r2": float(metrics.r2_score(y, values)),
        }
    safe = np.clip(predicted, 1e-15, None)
    safe /= safe.sum(axis=1, keepdims=True)
    numbers = np.arange(len(problem.labels))
    area = (
        metrics.roc_auc_score(y, predicted[:, 1])
        if len(numbers) == 2
        else metrics.roc_auc_score(y, safe, multi_class="ovr", labels=numbers)
    )
    return {
        "log_loss": float(metrics.log_loss(y, safe, labels=numbers)),
        "accuracy": float(np.mean(predicted.argmax(axis=1) == y)),
        "roc_auc": float(area),
    }


def _finish(
    path: Path,
    problem: Problem,
    config: FitConfig,
    board: list[Score],
    held_out: np.ndarray,
    best: str,
    folds: list[tuple[np.ndarray, np.ndarray]],
) -> None:
    """Fit the best estimator on all rows and write everything that the report shows."""
    from fullspan.estimators.table import TableModel

    with progress(3, "fitting the best on all rows", unit="steps") as advance:
        _, estimator, fill = fitted(best, problem, np.arange(len(problem.y)), config.seed)
        TableModel(problem.encoder, estimator, config.target, problem.labels, fill).save(path / MODEL_FILE)
        advance(note="learning curve")
        train, test = folds[0]
        curve = list(_learning_curve(best, problem, train, test, config.seed))
        advance(note="importances")
        importances = _importances(best, problem, train, test, config.seed)
        advance()
    description = {
        "target": config.target,
        "data": str(config.data),
        "labels": problem.labels,
        "n_rows": len(problem.y),
        "features": problem.encoder.features,
        "left_out": problem.left_out,
        "leaderboard": [asdict(score) for score in board],
        "best": best,
        "learning_curve": curve,
        "importances": importances,
        "command": f"fullspan predict {path} NEW_DATA",
    }
    explained = _shap_values(estimator, problem, fill)
    with replacing(path / "held_out.npz") as beside, beside.open("wb") as handle:
        np.savez(handle, y=problem.y, predicted=held_out, **explained)  # type: ignore[arg-type]
    with replacing(path / "fit.json") as beside:
        beside.write_text(json.dumps(description, ensure_ascii=False, indent=2) + "\n", "utf-8")


def _learning_curve(
    name: str, problem: Problem, train: np.ndarray, test: np.ndarray, seed: int
) -> Iterator[dict[str, float]]:
    """The deciding score on the first fold's held-out rows, by the number of rows fitted on."""
    order = np.random.default_rng(seed).permutation(train)
    part = Problem(problem.X, problem.y[test], problem.labels, problem.encoder, {})
    for share in (0.1, 0.2, 0.4, 0.7, 1.0):
        rows = order[: max(2, round(share * len(order)))]
        if problem.labels is not None and len(np.unique(problem.y[rows])) < len(problem.labels):
            continue  # too few rows to have met every class
        predicted = fitted(name, problem, rows, seed)[0](problem.X[test])
        yield {"rows": len(rows), "score": next(iter(scores_of(part, predicted).values()))}


def _importances(
    name: str, problem: Problem, train: np.ndarray, test: np.ndarray, seed: int
) -> list[dict[str, Any]]:
    """How much the deciding score on held-out rows worsens when a feature is shuffled (Breiman 2001)."""
    rng = np.random.default_rng(seed)
    test = rng.permutation(test)[:2000]
    predict = fitted(name, problem, train, seed)[0]
    part = Problem(problem.X[test], problem.y[test], problem.labels, problem.encoder, {})

    def score(X: np.ndarray) -> float:
        return next(iter(scores_of(part, predict(X)).values()))

    plain = score(part.X)
    found = []
    for index, feature in enumerate(problem.encoder.features):
        worse = []
        for _ in range(3):
            shuffled = part.X.copy()
            shuffled[:, index] = rng.permutation(shuffled[:, index])
            worse.append(score(shuffled) - plain)
        found.append(
            {"feature": feature, "importance": float(np.mean(worse)), "spread": float(np.ptp(worse))}
        )
    return sorted(found, key=lambda entry: -entry["importance"])


def _shap_values(estimator: Any, problem: Problem, fill: np.ndarray | None) -> dict[str, np.ndarray]:
    """SHAP values of some rows where the estimator has them: `shap` [rows, n_features, outputs], `shap_X`."""
    from fullspan.estimators.table import filled

    explain = getattr(estimator, "shap_values", None)
    if explain is None:
        return {}
    rows = np.random.default_rng(0).permutation(len(problem.y))[:_EXPLAINED_ROWS]
    X = problem.X[rows]
    values = np.asarray(explain(filled(X, fill)))
    # As XGBoost gives them: [rows, outputs, features and the bias], without the middle for one output.
    by_output = values.reshape(len(rows), -1, X.shape[1] + 1)[:, :, :-1]
    return {"shap": by_output.swapaxes(1, 2), "shap_X": X}
