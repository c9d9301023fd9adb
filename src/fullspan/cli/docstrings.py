"""Read the docstrings of Python packages into a nested Parquet table, one row a module."""

from __future__ import annotations

import warnings
from typing import Annotated

from pydantic import Field

from fullspan.core.config import Argument, Config, OutputPath


class DocstringsConfig(Config):
    """Options of `fullspan docstrings`."""

    packages: Annotated[list[str], Argument()] = Field(
        [], description="Installed packages to read; without any, the standard library of this Python."
    )
    out: OutputPath = Field(description="File to write: .parquet, .jsonl or .csv.")


def command(config: DocstringsConfig) -> None:
    """Read the docstrings of Python packages into a nested Parquet table, one row a module."""
    from fullspan.tables.docstrings import read_docstrings
    from fullspan.tables.duck import write_table, writer_of

    writer_of(config.out)  # says that there is no such format before thousands of files are read
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        table = read_docstrings(config.packages or "stdlib")
    for warning in caught:
        print(f"warning: {warning.message}")
    members = [member for row in table["members"].to_pylist() for member in row]
    documented = sum(member["doc"] is not None for member in members)
    print(f"{table.num_rows} modules, {len(members)} members, {documented} of them with a docstring")
    write_table(table, config.out)
    print(f"wrote {config.out}")
