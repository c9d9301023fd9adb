"""`fullspan fit` and `fullspan predict`, through the real command line, and the columns they infer."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from fullspan.core.errors import ConfigError, DataError
from fullspan.estimators.table import infer_columns
from fullspan.pipelines.fitting import FitConfig, read_problem


def people(n: int = 240) -> pa.Table:
    """Income from age, town and years of schooling; some ages are missing."""
    rng = np.random.default_rng(0)
    age = rng.integers(18, 80, n).astype(float)
    town = rng.choice(["Bonn", "Köln", "Trier"], n)
    school = rng.normal(12, 2, n)
    income = 500 + 20 * age + 300 * (town == "Bonn") + 50 * school + rng.normal(0, 30, n)
    age[::17] = np.nan
    return pa.table(
        {
            "id": [f"person {i}" for i in range(n)],
            "age": pa.array(age, from_pandas=True),
            "town": town,
            "school": school,
            "planet": ["Earth"] * n,
            "income": income,
            "rich": income > np.median(income),
        }
    )


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "people.parquet"
    pyarrow.parquet.write_table(people(), path)
    return path


def fullspan(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fullspan", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


def test_columns_are_inferred() -> None:
    times = [datetime.datetime(2024, 1, day + 1, 7) for day in range(3)]
    table = pa.table(
        {
            "n": pa.array([1, None, 3], pa.int32()),
            "flag": [True, False, None],
            "text": pa.array(["b", "a", "b"]).dictionary_encode(),
            "when": times,
            "list": [[1], [2], [3]],
            "none": pa.array([None, None, None], pa.string()),
            "y": [0, 1, 0],
        }
    )
    encoder, left_out = infer_columns(table, "y")
    assert encoder.features == ["n", "flag", "text", "when", "when (month)", "when (weekday)", "when (hour)"]
    assert encoder.is_category.tolist() == [False, False, True, False, False, False, False]
    assert left_out.keys() == {"list", "none"}
    X = encoder.encode(table)
    np.testing.assert_array_equal(X[:, 0], [1, np.nan, 3])
    np.testing.assert_array_equal(X[:, 1], [1, 0, np.nan])
    np.testing.assert_array_equal(X[:, 2], [0, 1, 0])
    assert X[1, 3] - X[0, 3] == 86400 and X[0, 4:].tolist() == [1, 0, 7]
    # New rows: unknown categories are missing, other types of number are welcome.
    new = table.set_column(2, "text", pa.array(["zzz", "a", None]))
    new = new.set_column(0, "n", pa.array([1.5, 2.5, 3.5]))
    np.testing.assert_array_equal(encoder.encode(new)[:, [0, 2]], [[1.5, np.nan], [2.5, 1], [3.5, np.nan]])


def test_wrong_columns_of_new_rows_are_named() -> None:
    encoder, _ = infer_columns(people(), "income")
    with pytest.raises(DataError, match="no column 'school'"):
        encoder.encode(people().drop_columns(["school"]))
    words = people().set_column(3, "school", pa.array(["much"] * 240))
    with pytest.raises(DataError, match="column 'school' held numbers before and holds string now"):
        encoder.encode(words)
    endless = people().set_column(3, "school", pa.array([np.inf] * 240))
    with pytest.raises(DataError, match="column 'school' holds inf in row 1"):
        encoder.encode(endless)


WRONG_TARGETS = [
    ("incme", "auto", ConfigError, "has no column 'incme'"),
    ("planet", "auto", DataError, "holds one class only: 'Earth'"),
    ("town", "regression", ConfigError, "a regression predicts numbers"),
    ("id", "auto", DataError, "has 1 rows, fewer than 5 folds"),
]


@pytest.mark.parametrize(("target", "task", "error", "message"), WRONG_TARGETS)
def test_wrong_targets(target: str, task: str, error: type[Exception], message: str, table: Path) -> None:
    with pytest.raises(error, match=message):
        read_problem(table, target, task, 5)


def test_fewer_rows_than_folds(tmp_path: Path) -> None:
    path = tmp_path / "few.csv"
    path.write_text("x,y\n1,2\n2,\n3,4\n")
    with pytest.raises(DataError, match="2 rows with a 'y', fewer than 5 folds"):
        read_problem(path, "y", "auto", 5)


def test_unknown_model_is_named() -> None:
    with pytest.raises(ConfigError, match="no model named 'forrest'"):
        FitConfig.build({"data": "a.csv", "target": "y", "model": ["forrest"]})


def test_classification_from_the_command_line(table: Path, tmp_path: Path) -> None:
    words = ["fit", table, "--target", "rich", "--model", "all", "--folds", "3", "--run", "run"]
    done = fullspan(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "left out 'id': nearly every row has another text" in done.stdout
    found = json.loads((tmp_path / "run" / "fit.json").read_text("utf-8"))
    assert found["left_out"].keys() == {"id", "planet"}
    scores = {line["model"]: line["scores"] for line in found["leaderboard"]}
    assert scores.keys() == {"baseline", "tree", "forest", "bagging", "adaboost", "gbdt", "xgb"}
    assert scores["baseline"]["roc_auc"] == 0.5
    assert scores[found["best"]]["roc_auc"] > 0.95  # income gives it away
    report = (tmp_path / "run" / "report.html").read_text("utf-8")
    for title in ("Leaderboard", "Ranking", "Calibration", "Confusion matrix", "Permutation importances"):
        assert f"<h2>{title}</h2>" in report
    assert found["importances"][0]["feature"] == "income"

    # The run is not overwritten; going on with it repeats no finished fold.
    again = fullspan(*words, cwd=tmp_path)
    assert again.returncode == 2 and "holds a run already" in again.stderr
    before = (tmp_path / "run" / "folds" / "gbdt-1.npz").stat().st_mtime_ns
    assert fullspan(*words, "--resume", cwd=tmp_path).returncode == 0
    assert (tmp_path / "run" / "folds" / "gbdt-1.npz").stat().st_mtime_ns == before
    other = fullspan(*words, "--resume", "--seed", "3", cwd=tmp_path)
    assert other.returncode == 2 and "begun with another seed" in other.stderr

    done = fullspan("predict", "run", table, "--out", "out.parquet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    out = pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pydict()
    assert np.mean([a == str(b).lower() for a, b in zip(out["prediction"], out["rich"], strict=True)]) > 0.95
    np.testing.assert_allclose(np.add(out["probability_true"], out["probability_false"]), 1, atol=1e-6)


@pytest.mark.parametrize("model", ["forest", "xgb"])
def test_regression_from_the_command_line(model: str, table: Path, tmp_path: Path) -> None:
    words = ["fit", table, "--target", "income", "--model", model, "--folds", "3", "--run", "run"]
    done = fullspan(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "run" / "fit.json").read_text("utf-8"))
    scores = {line["model"]: line["scores"] for line in found["leaderboard"]}
    assert scores[model]["r2"] > 0.8 > scores["baseline"]["r2"]
    assert "<h2>Residuals</h2>" in (tmp_path / "run" / "report.html").read_text("utf-8")
    done = fullspan("predict", "run", table, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('"id","age","town","school","planet","income","rich","prediction"\n')
    assert len(done.stdout.splitlines()) == 241


def test_predict_without_a_model(tmp_path: Path, table: Path) -> None:
    done = fullspan("predict", tmp_path, table, cwd=tmp_path)
    assert done.returncode == 2 and "holds no model.fullspan" in done.stderr
