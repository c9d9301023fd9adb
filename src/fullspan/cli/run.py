"""Run a recipe: a YAML list of commands that share one run directory."""

from __future__ import annotations

from fullspan.cli.app import config_of
from fullspan.pipelines.recipe import RunConfig, closing_lines, run_recipe
from fullspan.pipelines.report import write_report


def command(config: RunConfig) -> None:
    """Run a recipe: a YAML list of commands that share one run directory.

    A step whose options and inputs are unchanged is not run again; after a failure or Ctrl-C the same
    command goes on where it stopped.
    """
    path = run_recipe(config, config_of)
    print(f"report: {write_report(path)}")
    for line in closing_lines(path):
        print(line)
