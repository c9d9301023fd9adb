"""Wrong queries, tables and files: each gets an error that names it, and nothing is lost or read besides."""

from __future__ import annotations

import datetime
import gzip
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fullspan.cli.sql import SqlConfig, command
from fullspan.core.errors import ConfigError, DataError
from fullspan.tables.duck import connect, query, query_to_file, write_table

TABLE = pa.table(
    {
        "id": [1, 2],
        "name": ["ann", None],
        "price": [1.5, 2.5],
        "flag": [True, False],
        "marks": [[1], []],
        "tags": pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int64())),
        "addr": [{"city": "Rome"}, {"city": "Oslo"}],
    }
)
OTHER = pa.table({"id": [1, 1], "k": [1, 2]})

REFUSED = [
    # what sqlglot's own translation answers wrongly or with an engine's error
    ("SELECT explode(marks), explode(tags) FROM t", "takes no other expression"),
    ("SELECT id, explode(marks) FROM t", "takes no other expression"),
    ("SELECT explode(marks) FROM t GROUP BY id", "no GROUP BY"),
    ("SELECT explode_outer(marks) FROM t", "explode_outer"),
    ("SELECT x FROM t LATERAL VIEW posexplode_outer(marks) v AS x", "posexplode_outer"),
    ("SELECT x FROM t LATERAL VIEW inline(marks) v AS x", "inline"),
    ("SELECT size(explode(marks)) FROM t", "explode"),
    ("SELECT stack(2, 1, 2)", "stack"),
    ("SELECT json_tuple(name, 'a') FROM t", "json_tuple"),
    ("SELECT str_to_map('a:1')", "str_to_map"),
    ("SELECT percentile(price, 0.5) FROM t", "percentile"),
    ("SELECT percentile_approx(id, 0.5) FROM t", "percentile_approx"),
    ("SELECT id, grouping__id FROM t GROUP BY id WITH ROLLUP", "grouping__id"),
    ("SELECT array(1, 2)[0]", "ARRAY"),
    ("SELECT CAST(name AS VARCHAR(2)) FROM t", "varchar(n)"),
    ("SELECT '\\101'", "escape"),
    # lateral views
    ("SELECT x FROM t LATERAL VIEW explode(name) v AS x", "takes an array or a map, got string"),
    ("SELECT x FROM t LATERAL VIEW explode(marks) v AS x, y", "gives 1 columns"),
    ("SELECT x FROM t LATERAL VIEW explode(tags) v AS x", "gives 2 columns (key, value)"),
    ("SELECT x FROM t LATERAL VIEW posexplode(marks) v AS x", "gives 2 columns (pos, col)"),
    ("SELECT x FROM t LATERAL VIEW posexplode(marks) v AS x, x", "two columns are named 'x'"),
    ("SELECT x FROM t LATERAL VIEW explode(marks, 1) v AS x", "takes 1 argument"),
    ("SELECT x FROM t LATERAL VIEW explode(marks) AS x", "takes a name"),
    ("SELECT x FROM t LATERAL VIEW explode(y) v AS x", "no column named 'y'"),
    ("SELECT 1 FROM t LATERAL VIEW explode(marks) v LATERAL VIEW explode(marks) v", "are named 'v'"),
    # statements that are no query
    ("CREATE TABLE x AS SELECT 1", "CREATE is not run"),
    ("DROP TABLE t", "DROP is not run"),
    ("INSERT INTO t SELECT 1", "INSERT is not run"),
    ("LOAD DATA INPATH 'x' INTO TABLE t", "LOAD is not run"),
    ("SET hive.exec.parallel = true", "SET is not run"),
    ("ADD JAR x.jar", "ADD is not run"),
    ("FROM t INSERT OVERWRITE TABLE x SELECT id", "FROM is not run"),
    ("SELECT TRANSFORM (id) USING 'cat' FROM t", "TRANSFORM"),
    ("SELECT 1; SELECT 2", "one query is run at a time, got 2"),
    ("SELECT 1; DROP TABLE t", "one query is run at a time, got 2"),
    ("", "the query is empty"),
    (" ; ", "the query is empty"),
    ("-- only a comment", "the query is empty"),
    # what does not parse
    ("SELECT id FROM", "does not parse as HiveQL: line 1, column 14"),
    ("SELECT (id FROM t", "does not parse"),
    ("SELECT 'abc", "does not parse"),
    ("SELECT " + "(" * 3000 + "1" + ")" * 3000, "nested too deeply"),
    # clauses
    ("SELECT id FROM t SORT BY id", "SORT BY"),
    ("SELECT id FROM t CLUSTER BY id", "CLUSTER BY"),
    ("SELECT id FROM t DISTRIBUTE BY id", "DISTRIBUTE BY"),
    ("SELECT id FROM t TABLESAMPLE (10 PERCENT)", "TABLESAMPLE"),
    ("SELECT t.k FROM o t JOIN t ON true", "two tables in FROM are named 't'"),
    ("SELECT k FROM t JOIN o USING (id)", "USING"),
    ("SELECT k FROM t NATURAL JOIN o", "NATURAL JOIN"),
    ("SELECT k FROM t LEFT ANTI JOIN o ON t.id = o.id", "LEFT ANTI JOIN"),
    ("SELECT 1 INTERSECT SELECT 1", "INTERSECT"),
    ("SELECT id FROM t GROUP BY 1", "groups by a constant in Hive"),
    ("SELECT id FROM t ORDER BY 2", "columns 1 to 1"),
    ("SELECT id FROM t LIMIT id", "takes a whole number"),
    ("SELECT DISTINCT ON (id) id FROM t", "DISTINCT ON"),
    ("SELECT sum(id) FILTER (WHERE flag) FROM t", "FILTER"),
    ("SELECT id, count(*) FROM t", "must appear in the GROUP BY"),
    ("SELECT id FROM t WHERE count(*) > 1", "cannot contain aggregates"),
    ("SELECT row_number() FROM t", "needs OVER"),
    ("SELECT collect_list(id) OVER () FROM t", "collect_list() OVER"),
    ("SELECT 1 AS a UNION ALL SELECT 1, 2", "query 1 has 1 columns, query 2 has 2"),
    ("SELECT 1 AS a UNION ALL SELECT 'x'", "different types (int, string)"),
    ("WITH a(x) AS (SELECT 1) SELECT x FROM a", "WITH name(columns)"),
    # names
    ("SELECT nmae FROM t", "did you mean 'name'?"),
    ("SELECT t.nmae FROM t", "did you mean 'name'?"),
    ("SELECT x.id FROM t", "no table or column named 'x'"),
    ("SELECT id FROM tt", "no table named 'tt'"),
    ("SELECT id FROM db.t", "no table named 'db.t'"),
    ("SELECT addr.ctiy FROM t", "did you mean 'city'?"),
    ("SELECT id FROM t JOIN o ON t.id = o.id", "column 'id' is ambiguous"),
    ("SELECT * FROM t JOIN o ON t.id = o.id", "two columns of the result are named 'id'"),
    ("SELECT lenght(name) FROM t", "did you mean 'length'?"),
    # functions and types
    ("SELECT rand()", "changes from run to run"),
    ("SELECT current_date", "changes from run to run"),
    ("SELECT reverse('a')", "function reverse is not translated"),
    ("SELECT length()", "takes 1 arguments, got 0"),
    ("SELECT size(name) FROM t", "size() takes one array or map"),
    ("SELECT id FROM t WHERE name", "WHERE takes a boolean, got string"),
    ("SELECT id FROM t WHERE id OR flag", "OR takes a boolean, got int"),
    ("SELECT id FROM t WHERE flag = 'true'", "comparing boolean with string"),
    ("SELECT id FROM t WHERE marks = 1", "comparing array with int"),
    ("SELECT if(flag, 1, 'a') FROM t", "different types (int, string)"),
    ("SELECT array(1, 'a')", "different types"),
    ("SELECT CAST('yes' AS BOOLEAN)", "CAST to boolean"),
    ("SELECT CAST(marks AS STRING) FROM t", "conversion to string"),
    ("SELECT concat_ws(',', 'a', array('b'))", "concat_ws() of array"),
    ("SELECT max(marks) FROM t", "max()"),
    ("SELECT id & 1 FROM t", "BITWISEAND"),
    ("SELECT flag + 1 FROM t", "a number of type boolean"),
    ("SELECT 9223372036854775808", "no bigint"),
    ("SELECT CAST('2024-01-01T10' AS TIMESTAMP)", "timestamp"),
    ("SELECT '\\u0000'", "NUL"),
    ("SELECT " + " + ".join(["id"] * 3000) + " FROM t", "nested too deeply"),
    # regular expressions that RE2 reads otherwise than Java
    ("SELECT split(name, '') FROM t", "literal, non-empty"),
    ("SELECT regexp_replace(name, 'x*', '-') FROM t", "matches the empty string"),
    ("SELECT regexp_replace(name, name, '-') FROM t", "literal"),
    ("SELECT regexp_replace(name, 'a', '$1') FROM t", "names no group"),
    ("SELECT regexp_extract(name, '(a)', 2) FROM t", "literal number of a group"),
    ("SELECT name RLIKE '(?i)a' FROM t", "'(?i'"),
    ("SELECT name RLIKE 'a(?=b)' FROM t", "'(?='"),
    ("SELECT name RLIKE '\\\\bann' FROM t", "not translated"),
    ("SELECT name RLIKE '(a)\\\\1' FROM t", "not translated"),
    ("SELECT name RLIKE 'a++' FROM t", "'++'"),
    ("SELECT name RLIKE '[a-z&&[b]]' FROM t", "'&&'"),
    ("SELECT name RLIKE '(' FROM t", "not valid"),
    # nothing but the tables given can be read
    ("SELECT * FROM read_csv('/etc/passwd')", "not translated"),
    ("SELECT * FROM '/etc/passwd'", "no table named '/etc/passwd'"),
    ("SELECT * FROM `/etc/passwd`", "no table named '/etc/passwd'"),
    ("SELECT getenv('HOME')", "getenv"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "reason"), REFUSED, ids=[text[:60] for text, _ in REFUSED])
def test_query_is_refused_by_name(text: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        query(text, {"t": TABLE, "o": OTHER})
    assert reason in str(caught.value)


FAILING = [
    # values for which DuckDB and Hive would differ stop the query
    ("SELECT upper('straße')", "upper() is not translated"),
    ("SELECT lower('ΟΔΟΣ')", "lower() is not translated"),
    ("SELECT CAST(1e10 AS STRING)", "exponent"),
    ("SELECT CAST(1e20 AS INT)", "out of range"),
    ("SELECT CAST('2024-02-30' AS DATE)", "2024-02-30 is no day"),
    ("SELECT CAST('1f' AS DOUBLE)", "a number to Java only"),
    ("SELECT regexp_replace('a\\n', 'a$', 'b')", "ends in a line break"),
    ("SELECT 'a' LIKE concat('a', '\\\\')", "backslash"),
    ("SELECT concat_ws(',', array('a', NULL))", "with a NULL in it"),
    ("SELECT 9223372036854775807 + 1", "Overflow"),
    ("SELECT id FROM t WHERE id = (SELECT id FROM o)", "More than one row"),
]


@pytest.mark.parametrize(("text", "reason"), FAILING, ids=[text for text, _ in FAILING])
def test_value_that_hive_treats_otherwise_stops_the_query(text: str, reason: str) -> None:
    with pytest.raises(DataError) as caught:
        query(text, {"t": TABLE, "o": OTHER})
    assert reason in str(caught.value)


def test_a_connection_reads_and_writes_nothing_but_its_tables(tmp_path: Path) -> None:
    secret, table = tmp_path / "secret.csv", tmp_path / "t.csv"
    secret.write_text("a\n1\n")
    table.write_text("a\n2\n")
    with connect({"t": table}) as connection:
        assert connection.execute('SELECT a FROM "t"').fetchall() == [(2,)]
        for statement in (
            f"SELECT * FROM read_csv('{secret}')",
            f"COPY (SELECT 1) TO '{tmp_path / 'out.csv'}'",
            f"ATTACH '{tmp_path / 'x.db'}'",
            "SET enable_external_access = true",
            "INSTALL httpfs",
        ):
            with pytest.raises(Exception, match=r"(?i)disabled|permission|locked|cannot"):
                connection.execute(statement)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret.csv", "t.csv"]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("t.parquet", b"PAR1 nothing of the kind", "cannot read"),
        ("t.jsonl", b'{"a": 1}\n{"a": \n', "cannot read"),
        ("t.jsonl", b"", "is empty"),
        ("t.csv", b"", "is empty"),
        ("t.txt", b"a\n1\n", "no reader"),
    ],
)
def test_broken_table_is_named(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(DataError, match=reason) as caught:
        query("SELECT * FROM t", {"t": file})
    assert name in str(caught.value)


def test_missing_table_suggests_the_nearest_file(tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_text("a\n1\n")
    with pytest.raises(DataError, match=r"did you mean 'people.csv'\?"):
        query("SELECT * FROM t", {"t": tmp_path / "poeple.csv"})


def test_truncated_parquet_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "t.parquet"
    pq.write_table(TABLE, file)
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match="cannot read"):
        query("SELECT id FROM t", {"t": file})


def test_failed_query_leaves_the_old_file(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("kept\n")
    for text, kind in [("SELECT nothing FROM t", ConfigError), ("SELECT upper(name) FROM t", DataError)]:
        source = tmp_path / "t.jsonl"
        source.write_text('{"name": "a"}\n' * 3000 + '{"name": "ß"}\n')
        with pytest.raises(kind):
            query_to_file(text, {"t": source}, out)
    assert out.read_text() == "kept\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "t.jsonl"]


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files as a full disk would")
def test_full_disk_is_an_error(tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    out.write_text("kept\n")
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)); "
    program = limit + (
        "from fullspan.tables.duck import write_table; import pyarrow as pa, pathlib; "
        f"write_table(pa.table({{'a': list(range(100000))}}), pathlib.Path({str(out)!r}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode != 0
    assert "DataError" in done.stderr
    assert out.read_text() == "kept\n"
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


def test_unknown_suffix_of_the_result() -> None:
    with pytest.raises(ConfigError, match=r"no writer for out\.xlsx"):
        write_table(TABLE, Path("out.xlsx"))
    with pytest.raises(ConfigError, match="no writer"):
        query_to_file("SELECT 1", {}, Path("out"))


def test_inputs_of_every_format(tmp_path: Path) -> None:
    lines = [{"a": 1, "b": ["x"]}, {"a": 2, "b": []}]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "t.json").write_text(json.dumps(lines))
    (tmp_path / "t.csv").write_text("a,b\n1,x\n2,\n")
    with gzip.open(tmp_path / "g.csv.gz", "wt") as handle:
        handle.write("a,b\n1,x\n2,\n")
    pq.write_table(pa.Table.from_pylist(lines), tmp_path / "t.parquet")
    for name in ("t.jsonl", "t.json", "t.csv", "g.csv.gz", "t.parquet"):
        assert query("SELECT sum(a) AS s FROM t", {"t": tmp_path / name}).to_pylist() == [{"s": 3}], name


RAGGED = [
    ("t.csv", "a,b\n1,2\n3\n4,5,6\n", "line 3: expected 2 columns, found 1"),
    ("t.csv", "name,note\nx,y\nz\n", "line 3: expected 2 columns, found 1"),
    ("t.csv", "a,b\n1,2,3\n4,5,6\n", "line 2: expected 2 columns, found 3"),
    ("t.csv", "a,b\n" + "1,2\n" * 50_000 + "1,2,3\n", "line 50002: expected 2 columns, found 3"),
    ("t.csv", 'a,b\n1,"x\n2,3\n', "line 2: a quoted value does not end"),
    ("t.csv", "\na,b\nx,y\n", "line 1 is blank"),
    ("t.tsv", "a\tb\n1\t2\n3\n", "line 3: expected 2 columns, found 1"),
]


@pytest.mark.parametrize(
    ("name", "content", "reason"), RAGGED, ids=[content[:20] for _, content, _ in RAGGED]
)
def test_ragged_csv_is_refused_with_its_line(tmp_path: Path, name: str, content: str, reason: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError) as caught:
        query("SELECT * FROM t", {"t": tmp_path / name})
    assert reason in str(caught.value)


def test_csv_is_split_at_commas_alone_and_typed_from_all_rows(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text\nhello; world\nfoo; bar\n")
    assert query("SELECT * FROM t", {"t": tmp_path / "t.csv"}).to_pylist() == [
        {"text": "hello; world"},
        {"text": "foo; bar"},
    ]
    (tmp_path / "u.csv").write_text(
        "#n,day,unsure,big,at\n1,2024-01-05,01/02/2024,12345678901234567890123,10:00:00\n"
    )
    (row,) = query("SELECT * FROM t", {"t": tmp_path / "u.csv"}).to_pylist()
    assert row == {
        "#n": 1,
        "day": datetime.date(2024, 1, 5),
        "unsure": "01/02/2024",
        "big": "12345678901234567890123",
        "at": "10:00:00",
    }
    (tmp_path / "v.tsv").write_text("n\n" + "1\n" * 30_000 + "x\n")
    assert query("SELECT max(n) AS m FROM t", {"t": tmp_path / "v.tsv"}).to_pylist() == [{"m": "x"}]


@pytest.mark.skipif(sys.platform == "win32", reason="no such names there")
def test_a_tables_path_is_no_pattern(tmp_path: Path) -> None:
    names = ["data1.csv", "data[1].csv", "data*.csv", "data?.csv", "data[.csv"]
    for number, name in enumerate(names):
        (tmp_path / name).write_text(f"a\n{number}\n")
    for number, name in enumerate(names):
        assert query("SELECT a FROM t", {"t": tmp_path / name}).to_pylist() == [{"a": number}], name


def test_strings_of_json_stay_as_written(tmp_path: Path) -> None:
    row = {
        "at": "2024-01-01T10:00:00Z",
        "day": "2024-1-5",
        "id": "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
        "clock": "10:00:00",
        "digits": "123",
        "nested": {"DATE": [{"at": "2024-01-01 10:00:00"}], 'q"': "2024-01-01"},
        "none": None,
        "big": 2**63 - 1,
        "text": "not a number: 12345678901234567890123",
    }
    (tmp_path / "t.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "t.json").write_text(json.dumps([row]))
    for name in ("t.jsonl", "t.json"):
        assert query("SELECT * FROM t", {"t": tmp_path / name}).to_pylist() == [row]
    keys = "".join(json.dumps({"m": {f"k{i}": "2024-01-05"}}) + "\n" for i in range(300))
    (tmp_path / "m.jsonl").write_text(keys)
    found = query("SELECT DISTINCT v FROM t LATERAL VIEW explode(m) e AS k, v", {"t": tmp_path / "m.jsonl"})
    assert found.to_pylist() == [{"v": "2024-01-05"}]


@pytest.mark.parametrize("digits", ["12345678901234567890123", str(2**63), str(-(2**63) - 1), "1" * 5000])
def test_number_beyond_bigint_is_refused(tmp_path: Path, digits: str) -> None:
    (tmp_path / "t.jsonl").write_text('{"a": [1]}\n{"a": [' + digits + "]}\n")
    with pytest.raises(DataError, match=r"row 2: .* is no bigint"):
        query("SELECT * FROM t", {"t": tmp_path / "t.jsonl"})


def test_key_that_only_a_late_row_has(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"a": 1}\n' * 30_000 + '{"a": 2, "b": "x"}\n')
    found = query("SELECT a, b FROM t WHERE b IS NOT NULL", {"t": tmp_path / "t.jsonl"})
    assert found.to_pylist() == [{"a": 2, "b": "x"}]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "there is no query"),
        ({"query": "SELECT 1", "file": "q.sql"}, "both as an argument and with --file"),
        ({"query": "SELECT 1", "table": ["people.csv"]}, "expected name=path, got 'people.csv'"),
        ({"query": "SELECT 1", "table": ["=x.csv"]}, "expected name=path"),
        ({"query": "SELECT 1", "table": ["a=x.csv", "A=y.csv"]}, "--table: 'A' is given twice"),
        ({"query": "SELECT 1", "limit": 0}, "limit"),
        ({"query": "SELECT 1", "tabel": []}, "did you mean 'table'?"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SqlConfig.build(options)
    assert reason in str(caught.value)


def test_missing_query_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        command(SqlConfig.build({"file": tmp_path / "query.sql"}))


def test_config_tells_what_it_reads_and_writes() -> None:
    config = SqlConfig.build({"file": "q.sql", "table": ["a=x.csv", "b=y.csv"], "out": "z.csv"})
    assert config.input_files() == [Path("q.sql"), Path("x.csv"), Path("y.csv")]
    assert config.output_files() == [Path("z.csv")]


def test_rows_are_shown_without_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t.csv").write_text("a\n1\n2\n[red]\n")
    query = "SELECT a, array(a, NULL) AS b FROM t"
    config = SqlConfig.build({"query": query, "table": [f"t={tmp_path / 't.csv'}"], "limit": 2})
    command(config)
    shown = capsys.readouterr()
    assert shown.out == 'a,b\n1,"[""1"", null]"\n2,"[""2"", null]"\n'
    assert "2 of 3 rows" in shown.err

    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    command(config.model_copy(update={"limit": 3}))
    shown = capsys.readouterr()
    assert "[red]" in shown.out
    assert "3 of 3 rows, 2 columns" in shown.out


def test_what_was_written_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "out.jsonl"
    command(SqlConfig.build({"query": "SELECT 1 AS a, array(1) AS b", "out": out}))
    assert f"wrote {out}: 1 rows, 2 columns (a, b)" in capsys.readouterr().out
    assert json.loads(out.read_text()) == {"a": 1, "b": [1]}


def test_a_table_as_the_query_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "d.parquet").write_bytes(b"PAR1\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8 text") as caught:
        command(SqlConfig(file=tmp_path / "d.parquet"))
    assert caught.value.hint == f"did you mean --table d={tmp_path / 'd.parquet'}?"


def test_a_table_is_not_written_over() -> None:
    with pytest.raises(ConfigError, match="which is read too"):
        SqlConfig.build({"query": "SELECT 1", "table": ["t=a.csv"], "out": "./a.csv"})
