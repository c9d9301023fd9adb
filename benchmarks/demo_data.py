"""The demo's training examples, made by the demo's own steps."""

from __future__ import annotations

from pathlib import Path

from fullspan.tables.docstrings import read_docstrings
from fullspan.tables.duck import query_to_file, write_table

RECIPES = Path(__file__).parent.parent / "recipes"


def demo_examples(folder: Path) -> Path:
    """Write modules.parquet, examples.parquet and train.jsonl into `folder`; returns the last."""
    modules, examples, train = folder / "modules.parquet", folder / "examples.parquet", folder / "train.jsonl"
    write_table(read_docstrings("stdlib"), modules)
    _query("pydocs_examples.sql", {"modules": modules}, examples)
    _query("pydocs_train.sql", {"examples": examples}, train)
    return train


def _query(name: str, tables: dict[str, Path], out: Path) -> None:
    query_to_file((RECIPES / name).read_text(encoding="utf-8"), tables, out)
