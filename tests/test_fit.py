"""`fullspan fit` and `fullspan predict`, through the real command line, and the columns they infer."""

from __future__ import annotations

import datetime
import json
import signal
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from fullspan.core.errors import ConfigError, DataError, RunError
from fullspan.estimators.table import infer_columns
from fullspan.pipelines.candidates import CANDIDATES, ROWS_OF_A_PART, make_estimator
from fullspan.pipelines.explaining import sampled_shap, shap_of
from fullspan.pipelines.fit_config import FitConfig
from fullspan.pipelines.fit_notes import described
from fullspan.pipelines.fit_report import remarks
from fullspan.pipelines.fitting import fit, fitted
from fullspan.pipelines.problem import make_folds, read_problem
from fullspan.pipelines.scores import score_of_folds, scores_of
from fullspan.tables.duck import query


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
            "tags": [["a"]] * n,
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
    with pytest.raises(DataError, match="column 'school' held numbers before and holds 'much' in row 1 now"):
        encoder.encode(words)
    endless = people().set_column(3, "school", pa.array([np.inf] * 240))
    with pytest.raises(DataError, match="column 'school' holds inf in row 1"):
        encoder.encode(endless)


WRONG_TARGETS = [
    ("incme", "auto", ConfigError, "has no column 'incme'"),
    ("planet", "auto", DataError, "holds one class only: 'Earth'"),
    ("town", "regression", ConfigError, "a regression predicts numbers"),
    ("id", "auto", DataError, "has 1 row, fewer than 5 folds, and 239 more of its 240 classes are as rare"),
    ("tags", "auto", ConfigError, "--target: column 'tags' is list<.*>, which cannot be predicted"),
]


@pytest.mark.parametrize(("target", "task", "error", "message"), WRONG_TARGETS)
def test_wrong_targets(target: str, task: str, error: type[Exception], message: str, table: Path) -> None:
    with pytest.raises(error, match=message):
        read_problem(FitConfig.build({"data": table, "target": target, "task": task}))


def test_fewer_rows_than_folds(tmp_path: Path) -> None:
    path = tmp_path / "few.csv"
    path.write_text("x,y\n1,2\n2,\n3,4\n")
    with pytest.raises(DataError, match="2 rows with a 'y', fewer than 5 folds"):
        read_problem(FitConfig.build({"data": path, "target": "y"}))


WRONG_CALLS = [
    ({"target": "Y"}, ConfigError, r"--target: .*t.csv has no column 'Y'\nhint: did you mean 'y'\?"),
    ({"ignore": ["n,x"]}, ConfigError, "give the option once for each: --ignore n --ignore x"),
    (
        {"ignore": ["n", "x", "c"]},
        ConfigError,
        "no column is left to learn 'y' from\nhint: all others are ignored",
    ),
    ({"data": "none.csv"}, DataError, "column 'y' holds no value"),
    ({"data": "header.csv"}, DataError, "the table has no rows"),
    (
        {"data": "one.csv"},
        DataError,
        "--target: column 'y' holds one class only: 'a'\nhint: name another column",
    ),
    ({"data": "gap.csv"}, ConfigError, "no column is left to learn 'y' from\nhint: x: it holds no value"),
    ({"data": "empty.csv"}, DataError, "^.*empty.csv is empty"),
    ({"data": "folder.csv"}, DataError, "folder.csv is a folder, expected a file"),
    ({"data": "broken.parquet"}, DataError, "^cannot read .*broken.parquet"),
    ({"data": "t.cvs"}, DataError, "^no reader for .*t.cvs\nhint: give a .parquet"),
    ({"data": "tt.csv"}, DataError, r"^no such file: .*tt.csv\nhint: did you mean 't.csv'\?"),
]


@pytest.fixture(scope="module")
def wrong_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wrong")
    texts = {
        "t.csv": "n,x,c,y\n" + "".join(f"{i},{i * i % 7},{'abc'[i % 3]},{i % 2}\n" for i in range(20)),
        "none.csv": "x,y\n1,\n2,\n3,\n",
        "header.csv": "x,y\n",
        "one.csv": "x,y\n" + "1,a\n2,a\n" * 5,
        "gap.csv": "x,y\n" + ",a\n,b\n" * 5,
        "empty.csv": "",
        "broken.parquet": "no parquet",
        "t.cvs": "x,y\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "folder.csv").mkdir()
    return folder


@pytest.mark.parametrize(("options", "error", "message"), WRONG_CALLS)
def test_wrong_calls_say_what_to_do(
    options: dict[str, object], error: type[Exception], message: str, wrong_files: Path
) -> None:
    options = {"data": "t.csv", "target": "y", **options}
    with pytest.raises(error, match=message):
        read_problem(FitConfig.build({**options, "data": wrong_files / str(options["data"])}))


def test_unknown_model_is_named() -> None:
    with pytest.raises(ConfigError, match="no model named 'forrest'"):
        FitConfig.build({"data": "a.csv", "target": "y", "model": ["forrest"]})


TARGETS = [
    (pa.array([0.0, 1.0] * 5), [0, 1]),  # classes that were floats because a row had none
    (pa.array([0.5, 1.0] * 5), None),
    (pa.array([3, 1, 2] * 5), [1, 2, 3]),
    (pa.array([3, 1, 2, 3]), None),  # each too seldom for a class
    (pa.array([Decimal(i) for i in range(10)], pa.decimal128(5, 2)), None),
    (pa.array(range(30)), None),
    (pa.array([True, False] * 5), [False, True]),
    (pa.array(["yes", "no"] * 5), ["no", "yes"]),
    (pa.array(["yes", "no"] * 5).dictionary_encode(), ["no", "yes"]),
]


@pytest.mark.parametrize(("target", "labels"), TARGETS, ids=lambda v: str(getattr(v, "type", "")) or None)
def test_the_target_tells_the_task(target: pa.Array, labels: list[object] | None, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pyarrow.parquet.write_table(pa.table({"x": np.arange(len(target)) ** 2, "y": target}), path)
    task = "regression" if pa.types.is_decimal(target.type) else "auto"
    problem = read_problem(FitConfig.build({"data": path, "target": "y", "folds": 2, "task": task}))
    assert problem.labels == labels
    expected = np.array(target.cast(pa.float64())) if labels is None else None
    got = problem.y if labels is None else [problem.labels[k] for k in problem.y]
    np.testing.assert_array_equal(got, target.to_pylist() if expected is None else expected)


def test_rows_without_a_target_are_left_out_and_infinite_values_named(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    config = FitConfig.build({"data": path, "target": "y", "folds": 2, "weight": "w"})

    def problem_of(**columns: list[float | None]) -> object:
        table = {"x": [1.0, 2.0, 3.0, 5.0], "w": [1.0, 2.0, 3.0, 4.0], "y": [0.5, None, np.nan, 2.5]}
        pyarrow.parquet.write_table(pa.table({**table, **columns}), path)
        return read_problem(config)

    problem = problem_of()
    assert problem.y.tolist() == [0.5, 2.5] and problem.weight.tolist() == [1, 4]
    assert problem.n_without_target == 2 and problem.encoder.features == ["x"]
    with pytest.raises(DataError, match="--target: column 'y' holds inf in row 4"):
        problem_of(y=[0.5, None, 1.0, np.inf])
    # Rows are counted as in the file, though one without a target comes before.
    with pytest.raises(DataError, match="column 'x' holds -inf in row 3"):
        problem_of(x=[1.0, 2.0, -np.inf, 5.0])
    with pytest.raises(DataError, match=r"--weight: column 'w' holds -1.0 in row 1"):
        problem_of(w=[-1.0, 1.0, 1.0, 1.0])


def test_times_and_numbers_of_rows() -> None:
    n = 30
    days = [f"2024-01-{day % 28 + 1:02d}" for day in range(n)]
    columns = {"id": range(n), "year": range(n), "day": days, "known": [None, "x"] * (n // 2), "y": range(n)}
    table = pa.table(columns)
    encoder, left_out = infer_columns(table, "y", ["y"])
    assert left_out == {"id": "it numbers the rows"}  # by its name: a year tells something
    assert [column.kind for column in encoder.columns] == ["number", "time", "category"]
    # Times are times, be they texts, dates or timestamps.
    dates = table.set_column(2, "day", table["day"].cast(pa.date32()))
    np.testing.assert_array_equal(encoder.encode(dates), encoder.encode(table))
    wrong = table.set_column(2, "day", pa.array(["soon"] * n))
    with pytest.raises(DataError, match="column 'day' held times before and holds 'soon' now"):
        encoder.encode(wrong)


def csv_of(path: Path, **columns: list[str]) -> Path:
    """A file with these cells, each as it is written."""
    rows = zip(*columns.values(), strict=True)
    path.write_text("\n".join([",".join(columns), *(",".join(f'"{cell}"' for cell in row) for row in rows)]))
    return path


def test_cells_of_csv_are_read_as_they_are_meant(tmp_path: Path) -> None:
    n = 40
    each = range(n)
    columns = {
        "gap": ["NA" if i % 5 == 0 else str(i * 1.5) for i in each],
        "mark": ["?" if i % 5 == 0 else str(i) for i in each],
        "empty": ["" if i % 5 == 0 else str(i) for i in each],
        "thousands": [f"{i * 997:,}" for i in each],
        "comma": [f"{i},5" for i in each],
        "german": [f"{31 - i % 31}.1.2024" for i in each],
        "american": [f"1/{i % 31 + 1}/2024 7:30" for i in each],
        "zulu": [f"2024-01-{i % 28 + 1:02d}T07:30:00Z" for i in each],
        "yes": ["yes", "no"] * 20,
        "flag": ["True", "FALSE"] * 20,
        "postcode": [f"0{i % 7:04d}" for i in each],
        "country": ["NA", "DE", "FR", "US"] * 10,
        "unsure": [f"{i % 12 + 1}/{i % 11 + 1}/{2000 + i}" for i in each],
        "account": [f"0{i:09d}" for i in each],
        "y": [f"{1000 + i:,}" if i else "?" for i in each],
    }
    config = FitConfig.build({"data": csv_of(tmp_path / "t.csv", **columns), "target": "y"})
    problem = read_problem(config)
    kinds = {column.name: (column.kind, column.form) for column in problem.encoder.columns}
    assert kinds == {
        "gap": ("number", "1234.5"),
        "mark": ("number", "1234.5"),
        "empty": ("number", ""),
        "thousands": ("number", "1,234.5"),
        "comma": ("number", "1.234,5"),
        "german": ("time", "%d.%m.%Y"),
        "american": ("time", "%m/%d/%Y"),
        "zulu": ("time", ""),
        "yes": ("category", ""),
        "flag": ("number", "true"),
        "postcode": ("category", ""),
        "country": ("category", ""),
    }
    assert "does the day or the month come first?" in problem.left_out["unsure"]
    assert problem.left_out["account"] == "nearly every row has another text, such as '0000000001'"
    assert problem.y.tolist() == [1000 + i for i in range(1, n)] and problem.n_without_target == 1
    X = dict(zip(problem.encoder.features, problem.encoder.encode(problem.table).T, strict=True))
    np.testing.assert_array_equal(X["gap"][:5], [1.5, 3, 4.5, 6, np.nan])
    np.testing.assert_array_equal(X["thousands"][:2], [997, 1994])
    np.testing.assert_array_equal(X["comma"][:2], [1.5, 2.5])
    assert X["german"][0] - X["german"][1] == 86400 and X["american (hour)"][0] == 7
    said = "\n".join(described(problem, config))
    assert "read as numbers: 'gap', 'mark', such as '10.5'; 'NA' is a missing value" in said
    assert "read as times: 'american', such as '1/10/2024 7:30'" in said

    # Two rows say nothing about the order of day and month, or of the comma: the model knows it.
    new = {name: [cells[1], cells[2]] for name, cells in columns.items()}
    new |= {
        "comma": ["1.234", "NA"],
        "american": ["2/1/2024 7:30", "?"],
        "flag": ["NA", "true"],
        "empty": ["NA", "1"],
    }
    table = query("SELECT * FROM t", {"t": csv_of(tmp_path / "new.csv", **new)}, problem.encoder.texts)
    X = dict(zip(problem.encoder.features, problem.encoder.encode(table).T, strict=True))
    np.testing.assert_array_equal(X["comma"], [1234, np.nan])
    np.testing.assert_array_equal(X["american (month)"], [2, np.nan])
    np.testing.assert_array_equal(X["flag"], [np.nan, 1])
    np.testing.assert_array_equal(X["empty"], [np.nan, 1])


def test_days_in_texts_are_an_order_and_unsure_ones_are_refused(tmp_path: Path) -> None:
    columns = {"x": [str(i * i) for i in range(12)], "y": [f"{i}.5" for i in range(12)]}
    days = [f"{i % 3 + 13}.{i // 3 + 1}.2024" for i in range(12)]
    path = csv_of(tmp_path / "t.csv", day=[*days[6:], *days[:6]], **columns)
    options = {"data": path, "target": "y", "folds": 2, "order_by": "day"}
    assert read_problem(FitConfig.build(options)).order.tolist() == [*range(6, 12), *range(6)]
    csv_of(path, day=[day.replace(".", "/").replace("1", "0") for day in days], **columns)
    with pytest.raises(DataError, match="--order-by: does the day or the month come first in "):
        read_problem(FitConfig.build(options))


def test_a_key_and_a_mark_among_the_classes_are_pointed_out(tmp_path: Path) -> None:
    n = 30
    path = csv_of(
        tmp_path / "t.csv",
        customer=[str(1000 + i) for i in range(n)],
        x=[str(i * i % 31) for i in range(n)],
        y=[("a", "b", "NA")[i % 3] for i in range(n)],
    )
    config = FitConfig.build({"data": path, "target": "y"})
    said = "\n".join(described(read_problem(config), config))
    assert "'customer' ascends from row to row; if it only numbers them, add --ignore customer" in said
    assert "'NA' is a class of 'y'; leave such rows out if it is none" in said and "'x'" not in said


def test_semicolons_part_the_columns_of_a_european_csv(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a;b\n1,5;x\n2,5;y\n")
    assert query("SELECT * FROM t", {"t": path}).to_pylist() == [
        {"a": "1,5", "b": "x"},
        {"a": "2,5", "b": "y"},
    ]
    path.write_text("a; b\none\ntwo; three\n")  # a single column, its texts with semicolons
    assert query("SELECT * FROM t", {"t": path}).column_names == ["a; b"]


def test_folds_keep_groups_together_and_the_order(table: Path) -> None:
    options = {"data": table, "target": "rich", "folds": 3}
    problem = read_problem(FitConfig.build({**options, "group": "town"}))
    assert "town" not in problem.encoder.features
    for train, test in make_folds(problem, 3, 0):
        assert not set(problem.groups[train]) & set(problem.groups[test])
    problem = read_problem(FitConfig.build({**options, "order_by": "income"}))
    income = np.array(problem.table["income"])
    for train, test in make_folds(problem, 3, 0):
        assert income[train].max() < income[test].min()
    with pytest.raises(DataError, match="--group: column 'town' has 3 values, fewer than 4 folds"):
        read_problem(FitConfig.build({**options, "group": "town", "folds": 4}))
    with pytest.raises(ConfigError, match=r"--order-by: .* has no column 'incom'"):
        read_problem(FitConfig.build({**options, "order_by": "incom"}))
    with pytest.raises(DataError, match="--order-by: column 'age' is missing in 15 rows"):
        read_problem(FitConfig.build({**options, "order_by": "age"}))


def test_held_out_rows_are_unknown_to_what_prepares_them(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rows = [
        f"{'late' if i >= 30 else 'ab'[i % 2]},{i},{'new' if i >= 25 else 'pq'[i % 3 == 0]}"
        for i in range(40)
    ]
    path.write_text("\n".join(["town,x,y", *rows]))
    config = FitConfig.build({"data": path, "target": "y", "order_by": "x"})
    problem = read_problem(config)
    model, classes = fitted("tree", problem, np.arange(20), config)
    assert model.encoder.columns[0].categories == ["a", "b"]
    assert np.isnan(model.encoder.encode(problem.table)[30:, 0]).all()
    assert [problem.labels[k] for k in classes] == ["p", "q"] == model.labels  # none is "new" so early


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("weighted", [False, True])
def test_scores_of_classes_are_scikit_learns(n_classes: int, weighted: bool) -> None:
    from sklearn import metrics

    rng = np.random.default_rng(1)
    y = rng.permutation(np.arange(60) % n_classes)
    predicted = rng.dirichlet(np.ones(n_classes), 60)
    weight = rng.uniform(0.1, 2, 60) if weighted else None
    scores = scores_of(n_classes, y, predicted, weight)
    guess = predicted.argmax(axis=1)
    classes = range(n_classes)
    areas = [metrics.roc_auc_score(y == k, predicted[:, k], sample_weight=weight) for k in classes]
    expected = {
        "log_loss": metrics.log_loss(y, predicted, sample_weight=weight),
        "accuracy": metrics.accuracy_score(y, guess, sample_weight=weight),
        "balanced_accuracy": metrics.balanced_accuracy_score(y, guess, sample_weight=weight),
        "roc_auc": np.mean(areas),
        "brier": metrics.brier_score_loss(y, predicted, sample_weight=weight, scale_by_half=n_classes == 2),
    }
    assert scores.keys() == expected.keys()
    np.testing.assert_allclose(list(scores.values()), list(expected.values()), rtol=1e-12)


def test_scores_of_values_and_of_folds_that_do_not_tell() -> None:
    from sklearn import metrics

    rng = np.random.default_rng(2)
    y, predicted, weight = rng.normal(size=20), rng.normal(size=(20, 1)), rng.uniform(0.1, 2, 20)
    scores = scores_of(None, y, predicted, weight)
    assert scores["r2"] == pytest.approx(metrics.r2_score(y, predicted, sample_weight=weight), rel=1e-12)
    mse = metrics.mean_squared_error(y, predicted, sample_weight=weight)
    assert scores["rmse"] == pytest.approx(np.sqrt(mse), rel=1e-12)
    one_class = scores_of(2, np.zeros(3, int), np.full((3, 2), 0.5), None)
    assert np.isnan(one_class["roc_auc"]) and one_class["brier"] == 0.25
    both = scores_of(2, np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]]), None)
    line = score_of_folds("tree", [one_class, both], 1.0)
    assert line.scores["roc_auc"] == 1.0 and line.scores["accuracy"] == 1.0
    assert score_of_folds("tree", [one_class, one_class], 1.0).scores["roc_auc"] is None


def test_sampled_shap_values() -> None:
    rng = np.random.default_rng(0)
    X, background = rng.normal(size=(5, 4)), rng.normal(size=(1, 4))
    slope = np.array([1.0, -2.0, 0.5, 3.0])
    values = sampled_shap(lambda X: (X @ slope)[:, None], X, background, [[0], [1, 2], [3]], 2, rng)
    steps = (X - background) * slope
    grouped = np.stack([steps[:, 0], steps[:, 1] + steps[:, 2], steps[:, 3]], axis=1)
    np.testing.assert_allclose(values[:, :, 0], grouped, atol=1e-12)

    def twisted(X: np.ndarray) -> np.ndarray:
        return np.stack([X[:, 0] * X[:, 1], np.sin(X).sum(axis=1)], axis=1)

    values = sampled_shap(twisted, X, background, [[0], [1], [2], [3]], 3, rng)
    np.testing.assert_allclose(values.sum(axis=1), twisted(X) - twisted(background), atol=1e-12)


@pytest.mark.parametrize("name", ["tree", "forest", "bagging", "adaboost", "gbdt", "xgb"])
@pytest.mark.parametrize("target", ["rich", "income"])
def test_shap_values_add_up_to_what_a_model_says(name: str, target: str, table: Path) -> None:
    config = FitConfig.build(
        {"data": table, "target": target, "ignore": ["rich" if target == "income" else "income"]}
    )
    problem = read_problem(config)
    train, test = np.arange(200), np.arange(200, 240)
    model, _ = fitted(name, problem, train, config)
    columns = [column.name for column in model.encoder.columns]
    found = shap_of(model, problem, train, test, columns, 0)
    assert found["exact"] == (name != "adaboost" or target == "rich")
    values = found["shap"]
    assert values.shape == (40, 3, 1)
    X = model.encoder.encode(problem.table.take(np.random.default_rng(0).permutation(test)))
    said = model.outputs(X)[:, -1]
    if found["output"] == "log-odds":
        said = np.log(said / (1 - said))
    elif found["output"] == "votes":
        said = model.estimator.decision_function(model.filled(X))
    if found["exact"]:  # all but the expectation, which is the same for every row
        np.testing.assert_allclose(np.ptp(said - values[:, :, 0].sum(axis=1)), 0, atol=1e-4 * np.ptp(said))


def test_remarks_warn_of_a_useless_and_of_a_perfect_model() -> None:
    def fit_with(best: float, baseline: float) -> dict[str, object]:
        lines = [
            {"model": "tree", "scores": {"rmse": best}},
            {"model": "baseline", "scores": {"rmse": baseline}},
        ]
        rest = {
            "best": "tree",
            "target": "y",
            "n_without_target": 0,
            "n_rows": 100,
            "folds": 5,
            "importances": [{"column": "z"}],
        }
        return {"leaderboard": lines, **rest}

    assert list(remarks(fit_with(0.5, 1.0))) == []
    assert "no model beats the baseline" in next(remarks(fit_with(1.1, 1.0)))
    assert "--ignore 'z'" in next(remarks(fit_with(0.01, 1.0)))
    large = fit_with(0.5, 1.0) | {"n_rows": 300_000, "folds": 3}
    large["leaderboard"].append({"model": "forest", "scores": {"rmse": 0.6}})
    assert "a random part of the rows, so that it ends in minutes: 100,000 (forest)" in next(remarks(large))


def test_a_large_table_has_fewer_folds_and_bounded_trees() -> None:
    config = FitConfig.build({"data": "t.csv", "target": "y"})
    assert (config.n_folds(99_999), config.n_folds(100_000)) == (5, 3)
    assert FitConfig.build({"data": "t.csv", "target": "y", "folds": 4}).n_folds(10**6) == 4
    none = np.zeros(3, bool)
    for name, n in ROWS_OF_A_PART.items():
        options = make_estimator(name, True, none, 2 * n, 0).get_params()
        assert options["subsample" if name == "gbdt" else "max_samples"] == 0.5
        options = make_estimator(name, True, none, n, 0).get_params()
        assert options["subsample" if name == "gbdt" else "max_samples"] in (1.0, None)


def test_neighbours_take_columns_of_any_scale_and_no_weights(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    near, far = rng.normal(size=200), 1e6 * rng.normal(size=200)
    path = csv_of(tmp_path / "t.csv", near=near, far=far, y=near + far / 1e6)
    options = {"data": path, "target": "y", "folds": 2}
    run = fit(FitConfig.build({**options, "model": ["knn"], "run": tmp_path / "run"}))
    found = json.loads((run / "fit.json").read_text("utf-8"))
    assert found["best"] == "knn" and found["leaderboard"][0]["scores"]["r2"] > 0.85
    assert {entry["column"] for entry in found["importances"]} == {"near", "far"}
    with pytest.raises(ConfigError, match="--weight: the model 'knn' takes none"):
        FitConfig.build({**options, "model": ["knn"], "weight": "near"})
    assert "knn" not in FitConfig.build({**options, "model": ["all"], "weight": "near"}).names(True)


def test_classification_from_the_command_line(table: Path, tmp_path: Path) -> None:
    words = ["fit", table, "--target", "rich", "--model", "all", "--folds", "3", "--run", "run"]
    done = fullspan(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "target: 'rich', classification, 2 classes; 240 rows\n" in done.stdout
    assert "left out 'id': nearly every row has another text" in done.stdout
    assert (
        done.stdout.count("\nbest: ") == 1 and "predict with it: fullspan predict run NEW_DATA" in done.stdout
    )
    found = json.loads((tmp_path / "run" / "fit.json").read_text("utf-8"))
    assert found["left_out"].keys() == {"id", "planet", "tags"}
    scores = {line["model"]: line["scores"] for line in found["leaderboard"]}
    assert scores.keys() == {"baseline", *CANDIDATES}
    assert scores["baseline"]["roc_auc"] == 0.5 == scores["baseline"]["balanced_accuracy"]
    assert scores[found["best"]]["roc_auc"] > 0.95  # income gives it away
    report = (tmp_path / "run" / "report.html").read_text("utf-8")
    for title in (
        "Leaderboard", "ROC and precision-recall curves", "Calibration", "Confusion matrix", "Learning curve",
        "Permutation importances", "SHAP values", "Columns",
    ):  # fmt: skip
        assert f"<h2>{title}</h2>" in report
    assert found["importances"][0]["column"] == "income" == found["explained"]["columns"][0]

    # The run is not overwritten; going on with it repeats no finished fold.
    again = fullspan(*words, cwd=tmp_path)
    assert again.returncode == 2 and "go on with it by `fullspan fit --run run --resume`" in again.stderr
    before = (tmp_path / "run" / "folds" / "gbdt-1.npz").stat().st_mtime_ns
    assert fullspan("fit", "--run", "run", "--resume", cwd=tmp_path).returncode == 0
    assert (tmp_path / "run" / "folds" / "gbdt-1.npz").stat().st_mtime_ns == before
    assert json.loads((tmp_path / "run" / "fit.json").read_text("utf-8")) == found

    done = fullspan("predict", "run", table, "--out", "out.parquet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    out = pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pydict()
    assert np.mean([a is b for a, b in zip(out["prediction"], out["rich"], strict=True)]) > 0.95
    np.testing.assert_allclose(np.add(out["probability_true"], out["probability_false"]), 1, atol=1e-6)


def test_a_run_goes_on_with_its_own_options_and_data(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("x,y\n" + "".join(f"{i},{i % 7}.5\n" for i in range(20)))
    run = tmp_path / "run"
    options = {"data": tmp_path / "t.csv", "target": "y", "model": ["tree"], "run": run}
    with pytest.raises(ConfigError, match=r"--resume: .*run holds no run to go on with"):
        FitConfig.build({"run": run, "resume": True})
    assert FitConfig.build({**options, "resume": True}).target == "y"  # a recipe's first time
    FitConfig.build({**options, "data_sha256": "0" * 64}).write(run / "config.yaml")
    with pytest.raises(ConfigError, match="--model: logistic predicts classes, and 'y' holds numbers"):
        fit(FitConfig.build({**options, "run": tmp_path / "new", "model": ["logistic"]}))
    assert not (tmp_path / "new").exists()
    again = FitConfig.build({"run": run, "resume": True})
    assert (again.target, again.model) == ("y", ["tree"])
    with pytest.raises(ConfigError, match="begun with another seed: 0, not 3"):
        FitConfig.build({"run": run, "resume": True, "seed": 3})
    with pytest.raises(DataError, match=r"--data-sha256: .*t.csv is not the table that was meant"):
        fit(again)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match=r"--run: .*other is not a run: it holds 'notes.txt'"):
        fit(FitConfig.build({**options, "run": tmp_path / "other"}))


def started(words: list[str | Path], cwd: Path, n_files: int) -> subprocess.Popen[str]:
    """A fit that has finished some of its folds, and not all."""
    command = [sys.executable, "-m", "fullspan", *map(str, words)]
    process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 600
    while len(list(cwd.glob("run/folds/*.npz"))) < n_files and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return process


def test_ctrl_c_and_a_kill_lose_no_finished_fit(table: Path, tmp_path: Path) -> None:
    options = ["--target", "income", "--model", "forest", "--folds", "8"]
    stopped = started(["fit", table, *options, "--run", "run"], tmp_path, 9)  # the baseline's 8 and one
    stopped.send_signal(signal.SIGINT)
    _, stderr = stopped.communicate()
    assert stopped.returncode == 130, stderr
    assert "go on with: fullspan fit --run run --resume" in stderr and "Traceback" not in stderr
    n_kept = len(list(tmp_path.glob("run/folds/*.npz")))
    assert f"run keeps {n_kept} finished fits" in stderr and 9 <= n_kept < 16

    killed = started(["fit", "--run", "run", "--resume"], tmp_path, n_kept + 2)
    killed.kill()
    assert "fits were done before" in killed.communicate()[0]
    kept = sorted(tmp_path.glob("run/folds/forest-*.npz"))
    kept[0].write_bytes(kept[0].read_bytes()[:100])  # a failing disk
    assert fullspan("fit", "--run", "run", "--resume", cwd=tmp_path).returncode == 0
    assert not list(tmp_path.glob("run/**/.*.partial"))

    whole = fullspan("fit", table, *options, "--run", "whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    one, other = (json.loads((tmp_path / run / "fit.json").read_text("utf-8")) for run in ("run", "whole"))
    for found in (one, other):
        found.pop("command")
        for line in found["leaderboard"]:
            line.pop("seconds")
    assert one == other
    first, second = (fullspan("predict", run, table, cwd=tmp_path).stdout for run in ("run", "whole"))
    assert first == second and first


@pytest.fixture(scope="module")
def regression_run(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fit")
    words = ["fit", table, "--target", "income", "--model", "xgb", "--folds", "3", "--run", "run"]
    done = fullspan(*words, "--ignore", "rich", cwd=path)
    assert done.returncode == 0, done.stderr
    return path / "run"


def test_regression_from_the_command_line(regression_run: Path, table: Path, tmp_path: Path) -> None:
    found = json.loads((regression_run / "fit.json").read_text("utf-8"))
    scores = {line["model"]: line["scores"] for line in found["leaderboard"]}
    assert scores["xgb"]["r2"] > 0.8 > scores["baseline"]["r2"]
    assert "rich" not in {entry["column"] for entry in found["importances"]}
    report = (regression_run / "report.html").read_text("utf-8")
    assert "<h2>Residuals</h2>" in report and "<h2>SHAP values</h2>" in report
    done = fullspan("predict", regression_run, table, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("id,age,town,school,planet,income,rich,tags,prediction\n")
    assert len(done.stdout.splitlines()) == 241 and done.stderr == ""


def test_predict_reads_standard_input_and_tells_what_is_unknown(regression_run: Path) -> None:
    words = [sys.executable, "-m", "fullspan", "predict", str(regression_run), "-"]
    rows = "age,town,school,extra\n30,Bonn,12.5,a\n,Paris,12.5,b\n50,,,c\n"
    done = subprocess.run(words, input=rows, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("age,town,school,extra,prediction\n30,Bonn,12.5,a,")
    assert done.stderr == (
        "note: 1 of 3 rows have a 'town' that the model does not know, such as 'Paris'; "
        "it counts as missing\n"
    )
    done = subprocess.run(words, input="age,town\n1,Bonn\n", capture_output=True, text=True)
    assert done.returncode == 2 and "the table has no column 'school'" in done.stderr


def test_predict_without_a_model(tmp_path: Path, table: Path, regression_run: Path) -> None:
    done = fullspan("predict", tmp_path, table, cwd=tmp_path)
    assert done.returncode == 2 and "holds no model.fullspan" in done.stderr
    content = bytearray((regression_run / "model.fullspan").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "model.fullspan").write_bytes(content)
    done = fullspan("predict", tmp_path, table, cwd=tmp_path)
    assert done.returncode == 2 and "model.fullspan" in done.stderr and "damaged" in done.stderr
