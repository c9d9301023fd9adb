"""The demo's training examples, made by the demo's own steps."""

from __future__ import annotations

from pathlib import Path

from fullspan.tables.docstrings import read_docstrings
from fullspan.tables.duck import query_to_file, write_table

QUERY = Path(__file__).parent.parent / "recipes" / "pydocs_examples.sql"


def demo_examples(folder: Path) -> Path:
    """Write modules.parquet and train.jsonl into `folder`; returns the latter."""
    modules, examples = folder / "modules.parquet", folder / "train.jsonl"
    write_table(read_docstrings("stdlib"), modules)
    query_to_file(QUERY.read_text(encoding="utf-8"), {"modules": modules}, examples)
    return examples
