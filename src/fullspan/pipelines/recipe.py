"""Recipes: a YAML list of ordinary commands that share one run directory.

Each step runs as its own process, exactly as if its command line were typed: a step's memory is given
back when it ends, and the report can show commands that work on their own.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field

from fullspan.checkpoints.store import find_model
from fullspan.core.config import Argument, Config, InputPath, read_yaml
from fullspan.core.errors import CheckpointError, ConfigError, RunError, did_you_mean
from fullspan.core.files import replacing, sha256
from fullspan.core.runs import Run


class Step(Config):
    """One command of a recipe."""

    title: str = Field(description="what the step does, in a few words")
    command: str = Field(description="the verb, as on the command line")
    options: dict[str, Any] = Field({}, description="the verb's options")


class Recipe(Config):
    """What a recipe file holds.

    `{run}` in an option stands for the run directory, `{recipe}` for the recipe's folder, and any other
    name in braces for one of `variables`.
    """

    name: str = Field(description="names the run directory", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    description: str = Field("", description="what the recipe does; the report's first line")
    variables: dict[str, str | int | float | bool] = Field({}, description="what --set may change")
    steps: list[Step] = Field(description="the commands, in order", min_length=1)
    closing: list[str] = Field([], description="commands to suggest when all is done")


class RunConfig(Config):
    """Options of `fullspan run`."""

    recipe: Annotated[InputPath, Argument()] = Field(description="The recipe, a YAML file.")
    runs: Path = Field(Path("runs"), description="Folder that run directories are made in.")
    new: bool = Field(False, description="Start a new run instead of going on with the newest one.")
    set: list[str] = Field([], description="Change a variable of the recipe, as NAME=VALUE (repeatable).")


class PlannedStep:
    """A step with its placeholders filled in and its options validated."""

    def __init__(self, step: Step, config: Config, given: Mapping[str, Any], run_path: Path) -> None:
        self.run_path = run_path
        self.title = step.title
        self.command = step.command
        self.config = config
        self.argv = [step.command, *_arguments(config, given)]

    @property
    def shell(self) -> str:
        """The command as a person would type it."""
        return shlex.join(["fullspan", *self.argv])

    def fingerprint(self) -> str:
        """Changes when the options or the content of an input change."""
        # Wherever the run lies, and under whatever name, it is the same step.
        argv = [word.replace(str(self.run_path), "{run}") for word in self.argv]
        content = [argv, [_digest(path) for path in self.config.input_files()]]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def run_recipe(config: RunConfig, config_of: Callable[[str], type[Config]]) -> Path:
    """Run a recipe's steps in order, leaving out those that are done and unchanged.

    Parameters
    ----------
    config : RunConfig
    config_of : callable
        The config class of a verb, by its name.

    Returns
    -------
    pathlib.Path
        The run directory.

    Raises
    ------
    ConfigError
        If the recipe or a step's option is wrong; checked before anything runs.
    RunError
        If a step fails. Running the recipe again goes on from that step.
    """
    recipe = read_recipe(config.recipe, config.set)
    plan(recipe, config.runs / "run", config_of)  # a mistake shows before there is a run directory
    newest = None if config.new else _newest_run(config.runs, recipe)
    with Run.open(newest) if newest else Run.create(config.runs, recipe.name) as run:
        print(f"{'going on in' if newest else 'run directory'}: {run.path}", flush=True)
        steps = plan(recipe, run.path, config_of)
        recipe.write(run.path / "config.yaml")
        for number, step in enumerate(steps, start=1):
            _run_step(run.path, step, f"[{number}/{len(steps)}] {step.title}")
    return run.path


def closing_lines(run_path: Path) -> list[str]:
    """What a finished recipe suggests to do next; empty for a run that no recipe made."""
    file = run_path / "config.yaml"
    values = read_yaml(file) if file.exists() else {}
    fill = {"run": str(run_path), **values.get("variables", {})}
    return [_fill(line, fill) for line in values.get("closing", [])]


def read_recipe(path: Path, assignments: list[str]) -> Recipe:
    """Read a recipe, fill in `{recipe}` and apply `NAME=VALUE` assignments to its variables."""
    recipe = Recipe.read(path)
    variables = dict(recipe.variables)
    for name in {"run", "recipe"} & set(variables):
        raise ConfigError(f"a variable cannot be named {name!r}: {{{name}}} is the {name}'s folder")
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise ConfigError(f"--set takes NAME=VALUE, got {assignment!r}")
        if name not in variables:
            raise ConfigError(f"{path} has no variable {name!r}", did_you_mean(name, variables))
        variables[name] = yaml.safe_load(value)
    values = recipe.model_dump(mode="json")
    here = {name: f"{{{name}}}" for name in ("run", *variables)} | {"recipe": str(path.parent)}
    return Recipe.build(
        {**values, **_fill({k: values[k] for k in ("steps", "closing")}, here), "variables": variables}
    )


def plan(recipe: Recipe, run_path: Path, config_of: Callable[[str], type[Config]]) -> list[PlannedStep]:
    """Validate every step of a recipe, so that a mistake in the last shows before the first runs."""
    fill = {"run": str(run_path), **recipe.variables}
    _fill(recipe.closing, fill)
    planned: list[PlannedStep] = []
    for step in recipe.steps:
        options = _fill(step.options, fill)
        try:
            planned.append(PlannedStep(step, config_of(step.command).build(options), options, run_path))
        except ConfigError as error:
            raise ConfigError(f"step {step.title!r}: {error.message}", error.hint) from None
        if [other.title for other in planned].count(step.title) > 1:
            raise ConfigError(f"two steps have the title {step.title!r}", "titles tell steps apart")
        if any(path.resolve() == run_path.resolve() for path in planned[-1].config.output_files()):
            raise ConfigError(f"step {step.title!r} writes over the run itself", "give it a folder in {run}")
    return planned


def step_records(run_path: Path) -> list[dict[str, Any]]:
    """What `run_recipe` noted of each step: title, command, seconds, fingerprint, state."""
    file = run_path / "steps.json"
    return list(read_json(file)) if file.exists() else []


def read_json(file: Path) -> Any:
    """Read a JSON file of a run.

    Raises
    ------
    RunError
        If it is damaged.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{file} is damaged: {error}", "remove it, and run the recipe again") from None


def _run_step(run_path: Path, step: PlannedStep, heading: str) -> None:
    records = step_records(run_path)
    before = next((record for record in records if record["title"] == step.title), None)
    fingerprint = step.fingerprint()
    same = before is not None and before["fingerprint"] == fingerprint
    if before and same and before["state"] == "done" and before["outputs"] == _outputs(step):
        print(f"{heading}: unchanged, done in {before['seconds']:.0f} s before", flush=True)
        return
    print(f"{heading}\n    {step.shell}", flush=True)
    if not same:
        _set_aside(run_path, step)
    record = {"title": step.title, "command": step.shell, "fingerprint": fingerprint}
    _note(run_path, {**record, "state": "started", "seconds": 0.0, "outputs": []})
    started = time.monotonic()
    code = _call([sys.executable, "-m", "fullspan", *step.argv])
    seconds = time.monotonic() - started
    done = {**record, "seconds": seconds, "outputs": _outputs(step)}
    _note(run_path, {**done, "state": "done" if code == 0 else "failed"})
    if code in (130, -signal.SIGINT, -signal.SIGTERM):
        print(f"stopped in step {step.title!r}; the same command goes on from there", file=sys.stderr)
        raise SystemExit(130)
    if code:
        raise RunError(
            f"step {step.title!r} failed with exit code {code}",
            "mend what it says, and run the same command again to go on from this step",
        )


def _call(command: list[str]) -> int:
    """Run a step. Ctrl-C reaches the step itself, and a request to end is passed on: it saves its work."""
    process = subprocess.Popen(command)
    before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue
    finally:
        signal.signal(signal.SIGTERM, before)


def _note(run_path: Path, record: dict[str, Any]) -> None:
    """Write what is known of a step, in place of what was noted of it before."""
    records = step_records(run_path)
    titles = [other["title"] for other in records]
    if record["title"] in titles:
        records[titles.index(record["title"])] = record
    else:
        records.append(record)
    with replacing(run_path / "steps.json") as beside:
        beside.write_text(json.dumps(records, indent=1), encoding="utf-8")


def _outputs(step: PlannedStep) -> list[list[Any]]:
    """Path, size and time of each file that a step wrote: enough to see that it was changed."""
    files = [file for path in step.config.output_files() for file in _files(path)]
    return [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def _set_aside(run_path: Path, step: PlannedStep) -> None:
    """Rename what the step wrote under other options; only inside the run directory."""
    for path in step.config.output_files():
        if path.exists() and path.resolve().is_relative_to(run_path.resolve()):
            old = path.with_name(f"{path.name}.old")
            if old.is_dir():
                shutil.rmtree(old)
            os.replace(path, old)


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file() and file.name != ".lock")
    return [path] if path.exists() else []


def _digest(path: Path) -> list[str]:
    if not path.exists():
        try:
            path = find_model(str(path))
        except CheckpointError:
            return [str(path), "not there"]  # the step itself says what is missing
    return [digest for file in _files(path) for digest in (file.name, sha256(file))]


def _newest_run(root: Path, recipe: Recipe) -> Path | None:
    """The newest run of a recipe of this name with the same variables."""
    pattern = re.compile(rf"\d{{8}}-\d{{6}}-{re.escape(recipe.name)}(-\d+)?")
    for file in sorted(root.glob("*/steps.json"), reverse=True):
        if pattern.fullmatch(file.parent.name):
            before = read_yaml(file.parent / "config.yaml")
            if (before.get("name"), before.get("variables")) == (recipe.name, recipe.variables):
                return file.parent
    return None


def _fill(value: Any, fill: Mapping[str, Any]) -> Any:
    if isinstance(value, dict):
        return {name: _fill(item, fill) for name, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, fill) for item in value]
    if not isinstance(value, str):
        return value

    def replace(found: re.Match[str]) -> str:
        if found[1] not in fill:
            raise ConfigError(
                f"{value!r} names {found[1]!r}, which is no variable", did_you_mean(found[1], fill)
            )
        return str(fill[found[1]])

    return re.sub(r"\{([A-Za-z_]\w*)\}", replace, value)


def _arguments(config: Config, given: Mapping[str, Any]) -> list[str]:
    positional: list[str] = []
    flags: list[str] = []
    for name, field in type(config).model_fields.items():
        if name not in given:
            continue
        value = getattr(config, name)
        values = list(value) if isinstance(value, list | tuple) else [value]
        if any(isinstance(item, Argument) for item in field.metadata):
            positional += [str(item) for item in values]
        elif isinstance(value, bool):
            flags.append(f"--{'' if value else 'no-'}{name.replace('_', '-')}")
        elif value is not None:
            flags += [word for item in values for word in (f"--{name.replace('_', '-')}", str(item))]
    if any(word.startswith("-") for word in positional):
        return [*flags, "--", *positional]  # what follows -- is never taken for a flag
    return positional + flags
