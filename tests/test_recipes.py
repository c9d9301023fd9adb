"""Recipes: validated whole, run step by step, gone on with where they stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fullspan.cli.app import config_of
from fullspan.core.errors import ConfigError, RunError
from fullspan.pipelines.recipe import RunConfig, closing_lines, plan, read_recipe, run_recipe, step_records

RECIPES = Path(__file__).parent.parent / "recipes"

RECIPE = """
name: tiny
variables: {limit: 2}
steps:
  - title: keep some rows
    command: sql
    options:
      query: "-- the first rows\\nSELECT a, b FROM rows WHERE a <= {limit}"
      table: ["rows={recipe}/rows.jsonl"]
      out: "{run}/some.jsonl"
  - title: count them
    command: sql
    options:
      query: SELECT count(*) AS n FROM some
      table: ["some={run}/some.jsonl"]
      out: "{run}/count.jsonl"
closing: ["look at {run}/count.jsonl"]
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text(
        "".join(json.dumps({"a": a, "b": str(a)}) + "\n" for a in range(1, 5))
    )
    file = tmp_path / "tiny.yaml"
    file.write_text(RECIPE)
    return file


def run(file: Path, *assignments: str, new: bool = False) -> Path:
    return run_recipe(
        RunConfig(recipe=file, runs=file.parent / "runs", set=list(assignments), new=new), config_of
    )


def times(path: Path) -> list[int]:
    return [(path / name).stat().st_mtime_ns for name in ("some.jsonl", "count.jsonl")]


@pytest.mark.parametrize("file", sorted(RECIPES.glob("*.yaml")), ids=lambda file: file.name)
def test_every_shipped_recipe_is_valid(file: Path) -> None:
    recipe = read_recipe(file, [])
    steps = plan(recipe, Path("runs/x"), config_of)
    assert len(steps) == len(recipe.steps)
    for step in steps:
        for path in step.config.input_files():
            assert str(path).startswith("runs/x") or path.exists() or "/" not in str(path), path


def test_steps_run_in_order_and_are_not_run_again(recipe: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = run(recipe)
    assert json.loads((path / "count.jsonl").read_text()) == {"n": 2}
    assert closing_lines(path) == [f"look at {path}/count.jsonl"]
    capfd.readouterr()
    before = times(path)
    assert run(recipe) == path
    assert times(path) == before
    assert capfd.readouterr().out.count("unchanged") == 2


def test_another_variable_makes_another_run_and_each_is_gone_on_with(recipe: Path) -> None:
    first, second = run(recipe), run(recipe, "limit=3")
    assert second != first
    assert json.loads((first / "count.jsonl").read_text()) == {"n": 2}
    assert json.loads((second / "count.jsonl").read_text()) == {"n": 3}
    assert run(recipe) == first
    assert run(recipe, "limit=3") == second


def test_a_changed_option_sets_the_old_output_aside(recipe: Path) -> None:
    path = run(recipe)
    old = (path / "some.jsonl").read_text()
    recipe.write_text(RECIPE.replace("SELECT a, b FROM", "SELECT b, a FROM"))
    assert run(recipe) == path
    assert (path / "some.jsonl.old").read_text() == old != (path / "some.jsonl").read_text()


def test_runs_of_a_recipe_with_a_similar_name_are_left_alone(recipe: Path) -> None:
    other = recipe.with_name("other.yaml")
    other.write_text(RECIPE.replace("name: tiny", "name: my-tiny"))
    assert run(other) != run(recipe)
    assert run(recipe) != run(other)


def test_a_changed_input_reruns_what_depends_on_it(recipe: Path) -> None:
    path = run(recipe)
    with (recipe.parent / "rows.jsonl").open("a") as rows:
        rows.write('{"a": 0, "b": "0"}\n')
    run(recipe)
    assert json.loads((path / "count.jsonl").read_text()) == {"n": 3}


def test_a_lost_output_is_made_again(recipe: Path) -> None:
    path = run(recipe)
    (path / "some.jsonl").unlink()
    run(recipe)
    assert (path / "some.jsonl").exists()


def test_new_starts_afresh(recipe: Path) -> None:
    assert run(recipe) != run(recipe, new=True)


def test_a_failed_step_names_itself_and_the_run_goes_on_there(
    recipe: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe.write_text(RECIPE.replace("FROM some\n", "FROM sme\n"))
    with pytest.raises(RunError, match="step 'count them' failed with exit code 2"):
        run(recipe)
    runs = [path for path in (recipe.parent / "runs").iterdir() if path.is_dir()]
    assert [record["state"] for record in step_records(runs[0])] == ["done", "failed"]
    capfd.readouterr()
    recipe.write_text(RECIPE)
    assert run(recipe) == runs[0]
    shown = capfd.readouterr().out
    assert "keep some rows: unchanged" in shown and "count them: unchanged" not in shown


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        (("command: sql", "command: sqll"), "no command named 'sqll'", "did you mean 'sql'?"),
        (("query:", "qery:"), "no option 'qery'", "did you mean 'query'?"),
        (("{limit}", "{limt}"), "names 'limt'", "did you mean 'limit'?"),
        (("name: tiny", "name: ../up"), "name: string should match", ""),
        (("title: count them", "titel: count them"), "title: is required", ""),
        (("title: count them", "title: keep some rows"), "two steps have the title", ""),
        (('{run}/count.jsonl"', '{run}"'), "writes over the run itself", ""),
        (("look at {run}", "look at {rum}"), "names 'rum'", "did you mean 'run'?"),
        (("{limit: 2}", "{limit: 2, run: x}"), "cannot be named 'run'", ""),
        (("{limit: 2}", "[limit]"), "variables: input should be a valid dictionary", ""),
    ],
)
def test_a_wrong_recipe_is_refused_before_anything_runs(
    recipe: Path, change: tuple[str, str], message: str, hint: str
) -> None:
    recipe.write_text(RECIPE.replace(*change))
    with pytest.raises(ConfigError, match=message) as caught:
        run(recipe)
    assert hint in caught.value.hint
    assert not list(recipe.parent.glob("runs/*/some.jsonl"))


def test_set_refuses_unknown_variables(recipe: Path) -> None:
    with pytest.raises(ConfigError, match="no variable 'limt'"):
        run(recipe, "limt=3")
    with pytest.raises(ConfigError, match="NAME=VALUE"):
        run(recipe, "limit")


def test_files_outside_the_run_are_never_removed(recipe: Path) -> None:
    outside = recipe.parent / "outside.jsonl"
    recipe.write_text(RECIPE.replace('{run}/count.jsonl"', f'{outside}"', 1))
    run(recipe)
    kept = outside.read_text()
    recipe.write_text(recipe.read_text().replace("FROM some\n", "FROM nowhere\n"))
    with pytest.raises(RunError):
        run(recipe)
    assert outside.read_text() == kept
