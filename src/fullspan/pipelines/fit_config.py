"""Options of `fullspan fit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from fullspan.core.config import Argument, Config, InputPath, OutputPath, read_yaml
from fullspan.core.errors import ConfigError
from fullspan.pipelines.candidates import CANDIDATES

# From as many rows on, three parts tell as well as five which estimator is best.
MANY_ROWS = 100_000
# What may differ when a run goes on: where things are, not what they are.
FREE_ON_RESUME = frozenset({"data", "run", "resume"})


class FitConfig(Config):
    """Options of `fullspan fit`."""

    data: Annotated[InputPath, Argument()] = Field(
        description="table: .parquet, .csv, .tsv, .jsonl or .json; text formats may end in .gz"
    )
    target: str = Field(description="name of the column to predict")
    model: list[str] = Field(
        ["forest", "xgb"],
        min_length=1,
        description=f"estimators to compare: {', '.join(CANDIDATES)}, or all; may be repeated",
    )
    task: Literal["auto", "classification", "regression"] = Field(
        "auto", description="auto: texts and a few whole numbers are classes, other numbers a regression"
    )
    ignore: list[str] = Field(
        [], description="column not to learn from, such as one known only after the target; may be repeated"
    )
    weight: str | None = Field(None, description="column with a weight for each row")
    group: str | None = Field(
        None, description="column whose equal values are held out together, such as a customer's number"
    )
    order_by: str | None = Field(
        None, description="column, such as a time: every row is predicted from earlier rows only"
    )
    folds: int | None = Field(
        None,
        ge=2,
        le=100,
        description=f"parts of the cross-validation [default: 5, or 3 from {MANY_ROWS:,} rows on]",
    )
    seed: int = Field(0, ge=0, lt=2**32, description="seed of the folds and of the estimators")
    run: OutputPath | None = Field(None, description="run directory [default: runs/<time>-fit]")
    resume: bool = Field(False, description="go on with the run in --run where it stopped, with its options")
    data_sha256: str | None = Field(
        None,
        pattern="^[0-9a-f]{64}$",
        description="refuse the data if its SHA-256 is another; a run's config.yaml holds it",
    )

    @model_validator(mode="before")
    @classmethod
    def _continue_run(cls, values: Any) -> Any:
        """Options that are not given again are those of the run that goes on."""
        if not isinstance(values, dict) or not values.get("resume"):
            return values
        if not values.get("run"):
            raise ConfigError("--resume needs the run to go on with", "add --run DIRECTORY")
        file = Path(values["run"]) / "config.yaml"
        if not file.exists() and values.get("data") is not None:
            return values  # a recipe's step asks for it the first time too
        if not file.exists():
            raise ConfigError(
                f"--resume: {values['run']} holds no run to go on with", "give the directory that fit printed"
            )
        saved = read_yaml(file)
        for name, value in saved.items():
            if name not in FREE_ON_RESUME and values.get(name, value) != value:
                raise ConfigError(
                    f"--resume: the run in {values['run']} was begun with another {name.replace('_', '-')}: "
                    f"{value!r}, not {values[name]!r}",
                    "leave the option away, or begin another run",
                )
        return {**saved, **values}

    @model_validator(mode="after")
    def _check(self) -> FitConfig:
        for name in self.model:
            if name not in (*CANDIDATES, "all"):
                hint = f"choose from: {', '.join(CANDIDATES)}, all; give the option once for each"
                raise ConfigError(f"--model: no model named {name!r}", hint)
            if self.weight is not None and name in CANDIDATES and not CANDIDATES[name].takes_weights:
                raise ConfigError(f"--weight: the model {name!r} takes none", "leave one of them away")
        if self.group is not None and self.order_by is not None:
            raise ConfigError("--group and --order-by contradict each other", "give one of them")
        return self

    def n_folds(self, n_rows: int) -> int:
        """Parts of the cross-validation of a table with so many rows."""
        return self.folds or (5 if n_rows < MANY_ROWS else 3)

    def names(self, classify: bool) -> list[str]:
        """The estimators to compare, each once."""
        if "all" in self.model:
            return [
                name
                for name, each in CANDIDATES.items()
                if (self.weight is None or each.takes_weights) and (classify or each.takes_values)
            ]
        for name in self.model:
            if not classify and not CANDIDATES[name].takes_values:
                raise ConfigError(
                    f"--model: {name} predicts classes, and {self.target!r} holds numbers",
                    "leave it away, or add --task classification if the numbers are classes",
                )
        return list(dict.fromkeys(self.model))
