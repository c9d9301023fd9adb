"""The docstrings of packages as a table, and the demo's examples made from it."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from fullspan.cli.docstrings import DocstringsConfig, command
from fullspan.core.errors import ConfigError, DataError
from fullspan.tables.docstrings import SCHEMA, read_docstrings
from fullspan.tables.duck import query

RECIPES = Path(__file__).parents[1] / "recipes"

SOURCE = '''\
"""A module.

    Indented.
"""
import nothing_that_exists

raise RuntimeError("never imported")

def plain(a, b=1, /, *args, c: int = 2, **kwargs) -> str:
    """Plain.

    More.
    """

async def waits(): pass

def _private(): "hidden"

class Box(dict):
    """A box."""
    def __init__(self, size=(1, 2)): ...
    @property
    def side(self): "Its side."
    @side.setter
    def side(self, value): "not this"
    @staticmethod
    def make(size): "Make one."
    @classmethod
    def of(cls, *items): ...
    class Lid:
        def open(self): "Open it."

if True:
    def late(): pass
else:
    def late(): "Late."
try:
    def tried(): "Tried."
except ImportError:
    pass
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package on the path that cannot be imported, with files to skip."""
    root = tmp_path / "boxes"
    (root / "sub").mkdir(parents=True)
    (root / "tests").mkdir()
    (root / "__init__.py").write_text(SOURCE)
    (root / "sub" / "__init__.py").write_text('"""Sub."""')
    (root / "sub" / "latin.py").write_bytes(
        '# -*- coding: latin-1 -*-\n"""caf\u00e9 \\d"""'.encode("latin-1")
    )
    (root / "_private.py").write_text('"""Hidden."""')
    (root / "tests" / "__init__.py").write_text('"""Hidden."""')
    monkeypatch.syspath_prepend(str(tmp_path))
    return root


def test_members_of_a_module(package: Path) -> None:
    table = read_docstrings(["boxes"])
    assert table.schema == SCHEMA
    first, *others = table.to_pylist()
    assert (first["module"], first["path"], first["doc"]) == (
        "boxes",
        "boxes/__init__.py",
        "A module.\n\nIndented.",
    )
    found = [(m["kind"], m["name"], m["signature"], m["doc"]) for m in first["members"]]
    assert found == [
        ("function", "plain", "(a, b=1, /, *args, c: int=2, **kwargs) -> str", "Plain.\n\nMore."),
        ("function", "waits", "()", None),
        ("class", "Box", "(size=(1, 2))", "A box."),
        ("property", "Box.side", None, "Its side."),
        ("method", "Box.make", "(size)", "Make one."),
        ("method", "Box.of", "(*items)", None),
        ("class", "Box.Lid", None, None),
        ("method", "Box.Lid.open", "()", "Open it."),
        ("function", "late", "()", "Late."),
        ("function", "tried", "()", "Tried."),
    ]
    assert [(row["module"], row["doc"]) for row in others] == [
        ("boxes.sub", "Sub."),
        ("boxes.sub.latin", "café \\d"),
    ]
    assert "boxes" not in sys.modules


def test_broken_files_are_skipped_with_a_count(package: Path) -> None:
    (package / "broken.py").write_text("def (")
    (package / "null.py").write_bytes(b"\0")
    (package / "bytes.py").write_bytes(b'"""\xff"""')
    with pytest.warns(UserWarning, match=r"skipped 3 unreadable files, the first is .*\.py"):
        table = read_docstrings(["boxes"])
    assert table.num_rows == 3


@pytest.mark.parametrize("name", ["no_such_package", "os.path", "math"])
def test_wrong_package_is_named(name: str) -> None:
    with pytest.raises(DataError) as caught:
        read_docstrings([name])
    assert name in str(caught.value)


@pytest.fixture(scope="module")
def modules() -> pa.Table:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read_docstrings()


def members(table: pa.Table) -> dict[str, dict[str, Any]]:
    return {f"{row['module']}.{m['name']}": m for row in table.to_pylist() for m in row["members"]}


def test_standard_library(modules: pa.Table) -> None:
    found = members(modules)
    assert found["json.dumps"]["doc"].startswith("Serialize ``obj`` to a JSON formatted ``str``.")
    assert found["json.decoder.JSONDecoder.decode"]["signature"].startswith("(s")
    # Written in C, so inspected.
    assert found["builtins.str.split"] == {
        "kind": "method",
        "name": "str.split",
        "signature": "(sep=None, maxsplit=-1)",
        "doc": found["builtins.str.split"]["doc"],
    }
    assert found["builtins.str.split"]["doc"].startswith("Return a list of the substrings")
    assert found["itertools.chain"]["kind"] == "class"
    assert found["math.sqrt"]["signature"] == "(x, /)"
    assert not any("._" in name for name in found)
    assert not any(name.startswith(("test.", "idlelib.", "lib2to3.")) for name in found)
    documented = sum(m["doc"] is not None for m in found.values())
    assert documented > 4000
    names = modules["module"].to_pylist()
    assert names == sorted(names)
    assert len(names) == len(set(names))


def test_order_is_the_same_every_time(package: Path) -> None:
    assert read_docstrings(["boxes", "json"]) == read_docstrings(["json", "boxes"])


def run(name: str, **tables: pa.Table) -> pa.Table:
    return query((RECIPES / name).read_text(encoding="utf-8"), tables)


def pairs(table: pa.Table) -> list[tuple[str, str]]:
    rows = table.to_pylist()
    for row in rows:
        assert [message["role"] for message in row["messages"]] == ["user", "assistant"]
    return [(row["messages"][0]["content"], row["messages"][1]["content"]) for row in rows]


def test_examples_of_the_demo(modules: pa.Table) -> None:
    examples = run("pydocs_examples.sql", modules=modules)
    training = pairs(run("pydocs_train.sql", examples=examples))
    heldout = pairs(run("pydocs_heldout.sql", examples=examples))
    assert sorted(training + heldout) == sorted(pairs(examples))
    assert 2_000 < len(training) < 6_000
    assert 0.03 < len(heldout) / len(training) < 0.12
    questions = [question for question, _ in training + heldout]
    answers = ["".join(c for c in answer.lower() if c.isalnum()) for _, answer in training + heldout]
    assert len(set(questions)) == len(questions)
    # No answer is trained on and held out too, nor trained on twice.
    assert len(set(answers)) == len(answers)
    assert all(20 <= len(answer) <= 600 and "\n" not in answer for _, answer in training + heldout)
    # The order does not hang on that of the rows in between.
    assert training == pairs(
        run("pydocs_train.sql", examples=examples.take(list(range(examples.num_rows))[::-1]))
    )
    assert examples == run("pydocs_examples.sql", modules=modules)


def test_command_writes_a_nested_table(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (package / "broken.py").write_text("def (")
    out = tmp_path / "modules.jsonl"
    command(DocstringsConfig.build({"packages": ["boxes"], "out": out}))
    said = capsys.readouterr().out
    assert "skipped 1 unreadable files" in said
    assert "3 modules, 10 members, 7 of them with a docstring" in said
    assert f"wrote {out}" in said
    first = json.loads(out.read_text().splitlines()[0])
    assert first["members"][0]["name"] == "plain"


def test_an_unknown_format_is_refused_before_reading(tmp_path: Path) -> None:
    # The package is unknown too: the suffix is looked at first.
    with pytest.raises(ConfigError, match="xyz"):
        command(DocstringsConfig(packages=["nopkg_at_all"], out=tmp_path / "a.xyz"))
