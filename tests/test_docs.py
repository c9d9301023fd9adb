"""The pages in docs/: what they name is there, and what they show runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import fullspan
from fullspan import estimators

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "estimators.md").read_text("utf-8")


def test_files_of_the_paper_index_exist() -> None:
    paths = re.findall(r"`([\w./]+)`", (DOCS / "papers.md").read_text("utf-8"))
    assert len(paths) > 30
    folder = Path(fullspan.__file__).parent
    assert [path for path in paths if not (folder / path).exists()] == []


def test_every_estimator_is_on_the_page_and_in_the_gallery() -> None:
    classes = [name for name in estimators.__all__ if name.endswith(("Classifier", "Regressor", "Ranker"))]
    assert len(classes) > 15
    assert [name for name in classes if f"`{name}`" not in PAGE] == []
    gallery = "".join(file.read_text("utf-8") for file in DOCS.glob("examples/plot_*.py"))
    systems = {re.sub("(RF)?(Classifier|Regressor)$", "", name) for name in classes}
    assert [name for name in sorted(systems) if name not in gallery] == []


@pytest.mark.slow
def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(block, "docs/estimators.md", "exec"), names)
    assert (tmp_path / "model.fullspan").exists()
