"""Lateral views, characters and files against plain Python, on random tables."""

from __future__ import annotations

import csv
import itertools
import json
import sys
import tempfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fullspan.tables.duck import connect, query, query_to_file, write_table

SETTINGS = settings(max_examples=25, deadline=None)

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
numbers = st.none() | st.integers(-5, 5)
arrays = st.none() | st.lists(numbers, max_size=3)
maps = st.none() | st.dictionaries(texts, numbers, max_size=3)
nested = st.none() | st.lists(st.none() | st.lists(numbers, max_size=3), max_size=3)
tables = st.lists(st.fixed_dictionaries({"a": arrays, "m": maps, "n": nested}), max_size=6)

SCHEMA = pa.schema(
    {
        "i": pa.int64(),
        "a": pa.list_(pa.int64()),
        "m": pa.map_(pa.string(), pa.int64()),
        "n": pa.list_(pa.list_(pa.int64())),
    }
)


def table_of(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist([{**row, "i": i, "m": pairs(row["m"])} for i, row in enumerate(rows)], SCHEMA)


def pairs(mapping: dict[str, Any] | None) -> list[tuple[str, Any]] | None:
    return None if mapping is None else list(mapping.items())


def explode(items: Any, outer: bool) -> Iterator[tuple[int | None, Any]]:
    """Hive's posexplode: (position, element) of each element; OUTER gives one row of NULLs for none."""
    if items:
        yield from enumerate(items)
    elif outer:
        yield None, None


def run(text: str, rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in query(text, {"t": table_of(rows)}).to_pylist()]


@SETTINGS
@given(tables, st.booleans())
def test_posexplode_of_arrays(rows: list[dict[str, Any]], outer: bool) -> None:
    text = f"SELECT i, p, x FROM t LATERAL VIEW {'OUTER' if outer else ''} posexplode(a) v AS p, x"
    assert run(text, rows) == [(i, p, x) for i, row in enumerate(rows) for p, x in explode(row["a"], outer)]


@SETTINGS
@given(tables, st.booleans())
def test_explode_of_maps(rows: list[dict[str, Any]], outer: bool) -> None:
    text = f"SELECT i, k, x FROM t LATERAL VIEW {'OUTER' if outer else ''} explode(m) v AS k, x"
    expected = []
    for i, row in enumerate(rows):
        expected += [(i, *(pair or (None, None))) for _, pair in explode(pairs(row["m"]), outer)]
    assert run(text, rows) == expected


@SETTINGS
@given(tables, st.booleans(), st.booleans())
def test_chained_views(rows: list[dict[str, Any]], first: bool, second: bool) -> None:
    text = (
        f"SELECT i, q, x FROM t LATERAL VIEW {'OUTER' if first else ''} explode(n) v AS inner_list "
        f"LATERAL VIEW {'OUTER' if second else ''} posexplode(inner_list) w AS q, x"
    )
    expected = [
        (i, q, x)
        for i, row in enumerate(rows)
        for _, items in explode(row["n"], first)
        for q, x in explode(items, second)
    ]
    assert run(text, rows) == expected


@SETTINGS
@given(tables)
def test_two_views_are_a_product_and_where_comes_after(rows: list[dict[str, Any]]) -> None:
    text = (
        "SELECT i, x, k FROM t LATERAL VIEW explode(a) v AS x LATERAL VIEW OUTER explode(m) w AS k, y "
        "WHERE x > 0 AND (y IS NULL OR y <> x)"
    )
    expected = []
    for i, row in enumerate(rows):
        items = list(row["m"].items()) if row["m"] else [(None, None)]
        for x, (k, y) in itertools.product(row["a"] or [], items):
            if x is not None and x > 0 and (y is None or y != x):
                expected.append((i, x, k))
    assert run(text, rows) == expected


@SETTINGS
@given(tables)
def test_join_on_an_exploded_column(rows: list[dict[str, Any]]) -> None:
    text = "SELECT t.i, u.i AS j FROM t LATERAL VIEW explode(a) v AS x LEFT JOIN t u ON u.i = v.x"
    expected = [
        (i, x if x is not None and 0 <= x < len(rows) else None)
        for i, row in enumerate(rows)
        for x in row["a"] or []
    ]
    assert sorted(run(text, rows), key=repr) == sorted(expected, key=repr)


@SETTINGS
@given(texts, st.integers(-10, 10), st.integers(-2, 10))
def test_substr(text: str, start: int, length: int) -> None:
    # UDFSubstr.makeIndex
    if length <= 0 or abs(start) > len(text):
        expected = ""
    else:
        begin = start - 1 if start > 0 else len(text) + start if start < 0 else 0
        expected = text[begin : begin + length]
    table = pa.table({"s": [text], "p": [start], "n": [length]})
    found = query("SELECT substr(s, p, n) AS x FROM t", {"t": table})
    assert found["x"][0].as_py() == expected


@SETTINGS
@given(st.lists(texts, min_size=1, max_size=4))
def test_string_literals_survive(values: list[str]) -> None:
    escaped = [value.replace("\\", "\\\\").replace("'", "\\'") for value in values]
    literals = ", ".join(f"'{text}' AS c{i}" for i, text in enumerate(escaped))
    (row,) = query(f"SELECT {literals}", {}).to_pylist()
    assert list(row.values()) == values


@pytest.mark.parametrize("name", ["lower", "upper"])
def test_case_of_every_letter_is_java_s_or_refused(name: str) -> None:
    # Python's str.lower and str.upper use Unicode's full mappings, as Java's do; of letters that every
    # version since 3.2 knows.
    known = unicodedata.ucd_3_2_0
    letters = [
        c for c in map(chr, range(sys.maxunicode)) if known.category(c) in ("Lu", "Ll", "Lt", "So", "Nl")
    ]
    with connect({"letters": pa.table({"c": letters})}) as connection:
        found = connection.execute(f"SELECT c, {name}(c) FROM letters").fetchall()
        different = [letter for letter, cased in found if cased != getattr(letter, name)()]
        for letter in different:
            with pytest.raises(duckdb.Error, match="HiveQL: "):
                connection.execute(f"SELECT hive_{name}(?)", [letter]).fetchall()
    # DuckDB's mappings are the simple ones: there are such letters.
    assert different


@SETTINGS
@given(tables)
def test_files_round_trip(rows: list[dict[str, Any]]) -> None:
    table = table_of(rows)
    with tempfile.TemporaryDirectory() as folder:
        parquet, lines = Path(folder, "t.parquet"), Path(folder, "t.jsonl")
        assert write_table(table, parquet) == len(rows)
        assert query("SELECT * FROM t", {"t": parquet}).to_pylist() == table.to_pylist()
        query_to_file("SELECT * FROM t", {"t": parquet}, lines)
        read = [json.loads(line) for line in lines.read_text(encoding="utf-8").split("\n")[:-1]]
        assert [(row["a"], row["n"]) for row in read] == [(row["a"], row["n"]) for row in rows]
        assert [row["m"] for row in read] == [row["m"] for row in rows]


csv_texts = st.text("ab,;|\"'é \\", max_size=6)


@SETTINGS
@given(st.lists(st.tuples(st.integers(-(2**40), 2**40), csv_texts), min_size=2, max_size=5))
def test_csv_round_trip(rows: list[tuple[int, str]]) -> None:
    table = pa.table({"n": [n for n, _ in rows], "s": ["text " + s for _, s in rows]})
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "t.csv")
        write_table(table, file)
        assert query("SELECT * FROM t", {"t": file}).to_pylist() == table.to_pylist()


cells = st.text("ab;|\t,\"\n' #-", max_size=5)


@SETTINGS
@given(st.integers(1, 3).flatmap(lambda n: st.lists(st.lists(cells, min_size=n, max_size=n), min_size=1)))
def test_csv_is_read_as_python_writes_it(rows: list[list[str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "t.csv")
        with file.open("w", newline="") as handle:
            writer = csv.writer(handle, quoting=csv.QUOTE_ALL, lineterminator="\n")
            writer.writerow([f"c{i}" for i in range(len(rows[0]))])
            writer.writerows(rows)
        found = query("SELECT * FROM t", {"t": file}).to_pylist()
        # An empty value is NULL.
        assert [list(row.values()) for row in found] == [[cell or None for cell in row] for row in rows]


def test_no_torch_is_imported() -> None:
    import subprocess

    program = "import sys, fullspan.tables.duck, fullspan.tables.docstrings, fullspan.tables.hiveql as h; "
    program += "h.translate('SELECT 1 AS a', {}); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
