"""The pages in docs/: what they name is there, and what they show runs."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import pytest
from sklearn.base import BaseEstimator

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


def documented() -> dict[str, object]:
    """What the API page shows of the estimators, by name: their modules' public classes and functions."""
    page = (DOCS / "api.md").read_text("utf-8")
    found: dict[str, object] = {}
    for kind, name in re.findall(r"\.\. auto(\w+):: (fullspan\.estimators[\w.]+)", page):
        module, _, member = name.rpartition(".")
        if kind == "module":
            members = vars(importlib.import_module(name)).items()
            own = {f"{name}.{n}": m for n, m in members if getattr(m, "__module__", None) == name}
            found |= {n: m for n, m in own.items() if not n.split(".")[-1].startswith("_") and callable(m)}
        elif kind in ("function", "class"):
            found[name] = getattr(importlib.import_module(module), member)
    return found


def test_every_public_estimator_is_on_the_api_page_with_an_example() -> None:
    shown = documented()
    public = {name: getattr(estimators, name) for name in estimators.__all__}
    assert [
        name for name, member in public.items() if member not in shown.values() and name != "XGBModel"
    ] == []
    without = [name for name, member in shown.items() if ">>> " not in (inspect.getdoc(member) or "")]
    assert without == []


def test_methods_of_the_estimators_are_on_the_api_page_and_documented() -> None:
    page = (DOCS / "api.md").read_text("utf-8")
    for name, member in documented().items():
        if not (inspect.isclass(member) and issubclass(member, BaseEstimator)):
            continue
        module = name.rpartition(".")[0]
        assert f":: {module}\n   :members:\n   :inherited-members:\n" in page
        methods = [n for n, _ in inspect.getmembers(member, inspect.isfunction) if not n.startswith("_")]
        assert [n for n in methods if not inspect.getdoc(getattr(member, n))] == [], name


@pytest.mark.slow
def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(block, "docs/estimators.md", "exec"), names)
    assert (tmp_path / "model.fullspan").exists()
