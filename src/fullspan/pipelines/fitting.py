"""Fit estimators to a table, compare them by cross-validation, keep the best: `fullspan fit`."""

from __future__ import annotations

import _thread
import contextlib
import json
import shutil
import signal
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fullspan.core.errors import CheckpointError, DataError, RunError
from fullspan.core.files import replacing, sha256
from fullspan.core.progress import progress
from fullspan.core.runs import Run
from fullspan.pipelines.candidates import BASELINE, CANDIDATES, make_estimator
from fullspan.pipelines.fit_config import FitConfig
from fullspan.pipelines.problem import Fold, Problem, make_folds, read_problem
from fullspan.pipelines.scores import Score, deciding_score, score_of_folds, scores_of

if TYPE_CHECKING:
    from fullspan.estimators.table import TableModel

MODEL_FILE = "model.fullspan"
_SHARES = (0.1, 0.2, 0.4)


class FitStopped(KeyboardInterrupt):
    """Ctrl-C or SIGTERM ended the fit.

    Attributes
    ----------
    run : pathlib.Path
        Where it can be gone on with.
    kept : int
        Fits that are not repeated then.
    """

    def __init__(self, run: Path, kept: int) -> None:
        super().__init__(run, kept)
        self.run = run
        self.kept = kept


def fit(config: FitConfig) -> Path:
    """Compare estimators on a table, save the best one and a report.

    Returns
    -------
    pathlib.Path
        The run directory.

    Raises
    ------
    ConfigError, DataError, RunError
        If an option, the table or the run directory is wrong, or the disk is full.
    FitStopped
        On SIGINT or SIGTERM.
    """
    if config.run is not None and config.run.is_dir():
        _check_unused(config.run, config.resume)
    problem = read_problem(config)
    config.names(problem.labels is not None)  # refuses those that cannot be compared here
    digest = sha256(config.data)
    if config.data_sha256 not in (None, digest):
        raise DataError(
            f"--data-sha256: {config.data} is not the table that was meant: its SHA-256 is {digest}",
            "bring the table back, or leave the option away (of a run: begin another)",
        )
    folds = make_folds(problem, problem.folds, config.seed)
    run = Run.open(config.run) if config.run is not None else Run.create("runs", "fit")
    with run, _on_a_stop(run.path):
        _check_unused(run.path, config.resume)  # again: another process may have been here meanwhile
        print(f"run directory: {run.path}", flush=True)
        kept = _begin(run.path, config.model_copy(update={"data_sha256": digest}))
        from fullspan.pipelines.fit_notes import described

        for line in [*described(problem, config), *([f"{kept} fits were done before"] if kept else [])]:
            print(line, flush=True)
        _compare_and_keep(run, problem, config, folds)
        from fullspan.pipelines.report import write_report

        write_report(run.path)
        return run.path


def resume_command(run: Path) -> str:
    """What goes on with a run."""
    import shlex

    return f"fullspan fit --run {shlex.quote(str(run))} --resume"


def _check_unused(folder: Path, resume: bool) -> None:
    """Refuse a folder of other files, and one with a run unless that is to go on."""
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    if names and "config.yaml" not in names:
        raise RunError(
            f"--run: {folder} is not a run: it holds {min(names)!r} and no config.yaml",
            "give a new or an empty directory",
        )
    if names and not resume:
        raise RunError(
            f"--run: {folder} holds a run already",
            f"go on with it by `{resume_command(folder)}`, or give another directory",
        )


def _begin(path: Path, config: FitConfig) -> int:
    """Write the config, clear what a kill left half done; returns how many fits are there already."""
    config.model_copy(update={"run": None, "resume": False}).write(path / "config.yaml")
    for partial in [*path.glob(".*.partial"), *path.glob("folds/.*.partial")]:
        shutil.rmtree(partial, ignore_errors=True)
    (path / "metrics.jsonl").unlink(missing_ok=True)  # written again from the folds' files
    return len(list(path.glob("folds/*.npz")))


@contextlib.contextmanager
def _on_a_stop(path: Path) -> Iterator[None]:
    """Within the block SIGTERM is as Ctrl-C, and both and a full disk tell what is kept."""
    timers: list[threading.Timer] = []

    def stop(number: int, frame: Any) -> None:
        # Python drops what is raised while a library, such as the compiler, calls back: ask again.
        timers.append(threading.Timer(0.5, _thread.interrupt_main))
        timers[-1].daemon = True
        timers[-1].start()
        raise KeyboardInterrupt

    main = threading.current_thread() is threading.main_thread()
    heeded = [
        number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN
    ]
    before = {number: signal.signal(number, stop) for number in heeded} if main else {}
    try:
        try:
            yield
        finally:
            for timer in timers:
                timer.cancel()
    except KeyboardInterrupt:
        raise FitStopped(path, len(list(path.glob("folds/*.npz")))) from None
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        raise RunError(
            f"{error.strerror or error}{where}",
            f"mend that (make room, if the disk is full) and go on with: {resume_command(path)}",
        ) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _compare_and_keep(run: Run, problem: Problem, config: FitConfig, folds: list[Fold]) -> None:
    board, held_out = [], {}
    names = [BASELINE, *config.names(problem.labels is not None)]
    with progress(len(names) * len(folds), "cross-validating", unit="fits") as advance:
        for name in names:
            predicted, score = _cross_validate(run.path, name, problem, config, folds, advance)
            held_out[name] = predicted
            board.append(score)
            known = {key: value for key, value in score.scores.items() if value is not None}
            run.log(len(board), model=name, seconds=score.seconds, **known)
    board.sort(key=lambda score: next(iter(score.scores.values())) or 0.0)
    best = next(score.model for score in board if score.model != BASELINE)
    _finish(run.path, problem, config, board, held_out[best], best, folds)


def _cross_validate(
    path: Path, name: str, problem: Problem, config: FitConfig, folds: list[Fold], advance: Any
) -> tuple[list[np.ndarray], Score]:
    """Predictions of each fold's held-out rows, and the leaderboard's line."""
    predicted, scores, seconds = [], [], 0.0
    for index, (train, test) in enumerate(folds):
        advance(0, note=f"{name}, part {index + 1} of {len(folds)}")
        outputs, took = _fold(path, f"{name}-{index}", name, problem, train, test, config)
        predicted.append(outputs)
        scores.append(scored(problem, test, outputs))
        seconds += took
        advance()
    return predicted, score_of_folds(name, scores, seconds)


def scored(problem: Problem, rows: np.ndarray, outputs: np.ndarray) -> dict[str, float]:
    """Scores of the predictions of some rows."""
    n_classes = None if problem.labels is None else len(problem.labels)
    weight = None if problem.weight is None else problem.weight[rows]
    return scores_of(n_classes, problem.y[rows], outputs, weight)


def _fold(
    path: Path, part: str, name: str, problem: Problem, train: np.ndarray, test: np.ndarray, config: FitConfig
) -> tuple[np.ndarray, float]:
    """Predictions of the held-out rows and the seconds they took; from the file where it is there."""
    file = path / "folds" / f"{part}.npz"
    n_outputs = 1 if problem.labels is None else len(problem.labels)
    # A file that a failing disk has damaged is made again.
    with contextlib.suppress(FileNotFoundError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        with np.load(file, allow_pickle=False) as saved:
            if saved["predicted"].shape == (len(test), n_outputs):
                return saved["predicted"], float(saved["seconds"])
    started = time.monotonic()
    model, classes = fitted(name, problem, train, config)
    outputs = np.zeros((len(test), n_outputs))
    outputs[:, classes] = model.outputs(model.encoder.encode(problem.table.take(test)))
    seconds = time.monotonic() - started
    with replacing(file) as beside, beside.open("wb") as handle:
        np.savez(handle, predicted=outputs, seconds=seconds)
    return outputs, seconds


def fitted(name: str, problem: Problem, rows: np.ndarray, config: FitConfig) -> tuple[TableModel, np.ndarray]:
    """Fit an estimator, and what prepares its columns, on some rows alone.

    Returns
    -------
    TableModel
    ndarray of int
        Which of the problem's outputs the model has: classes without a row among these are none.
    """
    from fullspan.estimators.table import TableModel

    table, y = problem.table.take(rows), problem.y[rows]
    encoder = problem.encoder.refitted(table)
    X = encoder.encode(table)
    classes, labels = np.zeros(1, np.int64), None
    if problem.labels is not None:
        classes, y = np.unique(y, return_inverse=True)
        labels = [problem.labels[k] for k in classes]
        if len(classes) < 2:
            raise DataError(
                f"the {len(rows)} rows that come first by {config.order_by or config.group!r} "
                f"have one class of {config.target!r} only: {labels[0]!r}",
                "lower --folds, or leave --order-by and --group away",
            )
    candidate = CANDIDATES.get(name)
    fill = None if candidate is None or candidate.takes_missing else _medians(X)
    estimator = make_estimator(name, labels is not None, encoder.is_category, len(rows), config.seed)
    weight = None if problem.weight is None else problem.weight[rows]
    model = TableModel(encoder, estimator, config.target, labels, fill)
    if candidate is not None and not candidate.takes_scales:
        deviations = model.filled(X).std(axis=0)
        model.scale = np.where(deviations > 0, deviations, 1.0)
    if candidate is None or candidate.takes_weights:
        estimator.fit(model.filled(X), y, sample_weight=weight)
    else:
        estimator.fit(model.filled(X), y)
    return model, classes


def _medians(X: np.ndarray) -> np.ndarray:
    known = ~np.isnan(X)
    return np.array([np.median(X[known[:, j], j]) if known[:, j].any() else 0.0 for j in range(X.shape[1])])


def _finish(
    path: Path,
    problem: Problem,
    config: FitConfig,
    board: list[Score],
    held_out: list[np.ndarray],
    best: str,
    folds: list[Fold],
) -> None:
    """Fit the best estimator on all rows and write everything that the report shows."""
    from fullspan.estimators.table import label_text
    from fullspan.pipelines.explaining import importances, shap_of

    train, test = folds[-1]
    with progress(len(_SHARES) + 4, f"keeping {best}", unit="steps") as advance:
        advance(0, note="fitting on all rows")
        _keep_model(path, best, problem, config)
        advance(note="learning curve")
        curve = []
        for rows in _parts(train, problem, config):
            outputs, _ = _fold(path, f"curve-{best}-{len(rows)}", best, problem, rows, test, config)
            curve.append({"rows": len(rows), "score": deciding_score(scored(problem, test, outputs))})
            advance()
        curve.append({"rows": len(train), "score": deciding_score(scored(problem, test, held_out[-1]))})
        advance(note="importances")
        model, classes = fitted(best, problem, train, config)
        important, measured = importances(model, classes, problem, test, config.seed)
        advance(note="SHAP values")
        explained = shap_of(
            model, problem, train, test, [entry["column"] for entry in important], config.seed
        )
        advance()
    description = {
        "target": config.target,
        "data": str(config.data),
        "labels": None if problem.labels is None else [label_text(label) for label in problem.labels],
        "n_rows": len(problem.y),
        "n_without_target": problem.n_without_target,
        "folds": problem.folds,
        "columns": [{"name": c.name, "kind": c.kind} for c in problem.encoder.columns],
        "left_out": problem.left_out,
        "leaderboard": [asdict(score) for score in board],
        "best": best,
        "learning_curve": curve,
        "importances": important,
        "importances_of": measured,
        "explained": {name: explained.pop(name) for name in ("columns", "output", "exact")},
        "command": f"fullspan predict {path} NEW_DATA",
    }
    tested = np.concatenate([test for _, test in folds])
    arrays = {"y": problem.y[tested], "predicted": np.concatenate(held_out), **explained}
    with replacing(path / "held_out.npz") as beside, beside.open("wb") as handle:
        np.savez(handle, **arrays)
    with replacing(path / "fit.json") as beside:
        beside.write_text(json.dumps(description, ensure_ascii=False, indent=2) + "\n", "utf-8")


def _keep_model(path: Path, best: str, problem: Problem, config: FitConfig) -> None:
    """Fit on all rows and save, unless the run has done so before it was stopped."""
    from fullspan.estimators.saving import load

    if (path / MODEL_FILE).exists():
        with contextlib.suppress(CheckpointError):  # damaged: made again
            load(path / MODEL_FILE)
            return
    model, _ = fitted(best, problem, np.arange(len(problem.y)), config)
    model.save(path / MODEL_FILE)


def _parts(train: np.ndarray, problem: Problem, config: FitConfig) -> Iterator[np.ndarray]:
    """Ever more of the rows to fit on; the latest where there is an order."""
    order = train[::-1]
    if problem.order is None:
        order = np.random.default_rng(config.seed).permutation(train)
    for share in _SHARES:
        rows = order[: round(share * len(order))]
        n_classes = len(np.unique(problem.y[rows]))
        # Too few rows to have met every class, or any at all.
        if len(rows) >= 5 and (problem.labels is None or n_classes == len(problem.labels)):
            yield rows
