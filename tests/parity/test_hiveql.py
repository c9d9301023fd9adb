"""HiveQL's values, worked out by hand from Hive's manual and its sources (named in the comments).

No Hive runs here: LanguageManual is the manual's page, UDF... and Lazy... are classes of Hive 3.
"""

from __future__ import annotations

import datetime
from typing import Any

import pyarrow as pa
import pytest

from fullspan.tables.duck import query

TABLE = pa.table(
    {
        "id": [1, 2, 3, 4],
        "name": ["ann", "bob", "cy", None],
        "price": [1.5, -2.5, None, 10.0],
        "age": pa.array(["3.7", "x", " 12 ", None]),
        "marks": pa.array([[3, None], [], None, [7]], pa.list_(pa.int32())),
        "tags": pa.array([[("a", 1), ("b", None)], [], None, [("c", 3)]], pa.map_(pa.string(), pa.int32())),
        "addr": pa.array(
            [{"city": "Rome", "zip": 1}, {"city": None, "zip": 2}, None, {"city": "Oslo", "zip": 4}],
            pa.struct([("city", pa.string()), ("zip", pa.int64())]),
        ),
        "kids": pa.array(
            [[{"n": "x", "toys": [1, 2]}, {"n": "y", "toys": []}], [], None, [None]],
            pa.list_(pa.struct([("n", pa.string()), ("toys", pa.list_(pa.int32()))])),
        ),
        "grid": pa.array([[[1, 2], None, []], [[3]], None, []], pa.list_(pa.list_(pa.int32()))),
        "day": pa.array(
            [datetime.date(2024, 2, 29), datetime.date(2023, 12, 31), None, datetime.date(2020, 1, 1)]
        ),
        "flag": [True, False, None, True],
    }
)
OTHER = pa.table({"k": [1, 7, 7, None], "label": ["one", "seven", "sieben", "none"]})


def rows(text: str, **tables: pa.Table) -> list[tuple[Any, ...]]:
    """The rows of a query over t and o."""
    result = query(text, {"t": TABLE, "o": OTHER, **tables})
    return [tuple(row.values()) for row in result.to_pylist()]


# LanguageManual UDF: "Built-in Functions", "Operators"; LanguageManual Types: "Literals".
VALUES = [
    # strings
    ("length('häß')", 3),
    ("length(12345)", 5),
    ("lower('ÀB')", "àb"),
    ("upper('àb')", "ÀB"),
    ("concat('a', 'b', 'c')", "abc"),
    ("concat('a', NULL)", None),
    ("concat('a', 1, 2.5, true)", "a12.5TRUE"),  # UDFToString writes TRUE
    ("'a' || 'b'", "ab"),
    ("concat_ws('-', 'a', NULL, 'b')", "a-b"),  # GenericUDFConcatWS skips NULL arguments
    ("concat_ws(NULL, 'a', 'b')", None),
    ("concat_ws('-', array('a', 'b'))", "a-b"),
    ("concat_ws('-', split('', ','))", ""),
    ("substr('Facebook', 5)", "book"),  # the examples of UDFSubstr
    ("substr('Facebook', -5)", "ebook"),
    ("substr('Facebook', 5, 1)", "b"),
    ("substr('abc', 0)", "abc"),  # UDFSubstr.makeIndex: 0 starts at the beginning
    ("substr('abc', 0, 2)", "ab"),
    ("substring('abc', -4)", ""),  # further back than the text is long
    ("substr('abc', 4)", ""),
    ("substr('abc', 2, 0)", ""),
    ("substr('abc', 2, -1)", ""),
    ("substr('abc', 2, 99)", "bc"),
    ("substr('abc', -2, 1)", "b"),
    ("substr('abc', NULL)", None),
    ("trim('  a b ')", "a b"),
    ("ltrim('  a ')", "a "),
    ("rtrim('  a ')", "  a"),
    ("trim('\\ta')", "\ta"),  # spaces only
    ("lpad('hi', 5, '?!')", "?!?hi"),
    ("lpad('hi', 1, '?')", "h"),  # the example of GenericUDFLpad
    ("rpad('hi', 5, '?!')", "hi?!?"),
    ("repeat('ab', 2)", "abab"),
    ("repeat('ab', -1)", ""),
    ("space(2)", "  "),
    ("instr('hello', 'l')", 3),
    ("instr('hello', 'z')", 0),
    ("locate('l', 'hello')", 3),
    ("replace('a.b.c', '.', '-')", "a-b-c"),
    ("split('a,b,', ',')", ["a", "b", ""]),  # String.split(regex, -1) keeps the empty end
    ("split('a1b22c', '[0-9]+')", ["a", "b", "c"]),
    ("split('a.b', '\\\\.')", ["a", "b"]),
    ("split('a|b', '\\\\|')", ["a", "b"]),
    ("split('', ',')", [""]),
    ("split(NULL, ',')", None),
    ("regexp_replace('100-200', '(\\\\d+)', 'num')", "num-num"),  # the example of UDFRegExpReplace
    ("regexp_replace('ab', '(a)(b)', '$2$1')", "ba"),
    ("regexp_replace('ab', 'b', '\\\\$')", "a$"),
    ("regexp_replace('a\\\\b', '\\\\\\\\', '/')", "a/b"),
    ("regexp_replace('ab', 'b', '\\\\\\\\')", "a\\"),
    ("regexp_extract('100-200', '(\\\\d+)-(\\\\d+)', 1)", "100"),  # the example of UDFRegExpExtract
    ("regexp_extract('100-200', '(\\\\d+)-(\\\\d+)', 2)", "200"),
    ("regexp_extract('100-200', '(\\\\d+)-(\\\\d+)')", "100"),  # group 1 by default
    ("regexp_extract('100-200', '\\\\d+$', 0)", "200"),
    ("regexp_extract('abc', '(x)', 1)", ""),
    ("'a\\u000bb' RLIKE 'a\\\\sb'", True),  # Java's \s takes in the vertical tab
    ("'a\\rb' RLIKE 'a.b'", False),  # Java's . stops at every line terminator
    ("'foobar' RLIKE 'ob'", True),  # a part suffices
    ("'foobar' REGEXP '^f.*r$'", True),
    ("'a' NOT RLIKE 'b'", True),
    ("'foobar' LIKE 'foo%'", True),
    ("'foobar' LIKE 'foo'", False),
    ("'foobar' LIKE 'foo___'", True),
    ("'a%c' LIKE 'a\\%c'", True),
    ("'abc' LIKE 'a\\%c'", False),
    ("'a\\\\c' LIKE 'a\\\\c'", True),  # a backslash before anything else is itself
    ("'a\\nc' LIKE 'a%c'", True),  # DOTALL in UDFLike
    ("'abc' NOT LIKE 'a%'", False),
    ("'abc' LIKE concat('a', '%')", True),
    ("md5('ABC')", "902fbdd2b1df0c4f70b4a5d23525e932"),  # the manual's example
    ("sha1('ABC')", "3c01bdbb26f358bab27f267924aa2c9a03fcfdb8"),  # the manual's example
    ("sha2('ABC', 256)", "b5d4045c3f466fa91fe2cc6abe79232a1a57cdf104f7a26e716e0a1e2789df78"),  # the manual's
    # numbers
    ("7 / 2", 3.5),
    ("1 / 0", None),
    ("4 / '2'", 2.0),
    ("7 DIV 2", 3),
    ("-7 DIV 2", -3),
    ("7 DIV 0", None),
    ("-7 % 3", -1),  # the sign of the left side, as in Java
    ("7 % 0", None),
    ("5.5 % 2", 1.5),
    ("pmod(-7, 3)", 2),
    ("'1' + 1", 2.0),
    ("'x' + 1", None),
    ("1.1 + 2.2", 3.3000000000000003),  # literals with a point are DOUBLE
    ("2 + 3 * 4 - 1", 13),
    ("-(2)", -2),
    ("round(2.5)", 3.0),
    ("round(-2.5)", -3.0),
    ("round(1.005, 2)", 1.01),  # BigDecimal, HALF_UP
    ("round(2.675, 2)", 2.68),
    ("round(7)", 7),
    ("floor(-1.5)", -2),
    ("ceil(1.2)", 2),
    ("ceiling(-1.2)", -1),
    ("abs(-3)", 3),
    ("abs('-3')", 3.0),
    ("sqrt(16)", 4.0),
    ("sqrt(-1)", None),
    ("ln(0)", None),
    ("log10(1000)", 3.0),
    ("power(2, 10)", 1024.0),
    ("greatest(2, 3, 1)", 3),
    ("greatest(2, NULL)", None),  # NULL if any is, since Hive 2.0
    ("least('b', 'a')", "a"),
    # CAST: UDFToInteger, UDFToString, LazyLong.parseLong
    ("CAST('3.7' AS INT)", 3),
    ("CAST('-3.7' AS INT)", -3),
    ("CAST('.7' AS INT)", 0),
    ("CAST('+5' AS INT)", 5),
    ("CAST(' 12 ' AS INT)", 12),
    ("CAST('1e3' AS INT)", None),
    ("CAST('x' AS INT)", None),
    ("CAST('' AS INT)", None),
    ("CAST('3000000000' AS INT)", None),
    ("CAST('3000000000' AS BIGINT)", 3000000000),
    ("CAST(3.7 AS INT)", 3),
    ("CAST(-3.7 AS BIGINT)", -3),
    ("CAST(true AS INT)", 1),
    ("CAST('1e3' AS DOUBLE)", 1000.0),
    ("CAST('1_0' AS DOUBLE)", None),
    ("CAST('nan' AS DOUBLE)", None),
    ("CAST('abc' AS DOUBLE)", None),
    ("CAST(1.0 AS STRING)", "1.0"),
    ("CAST(12 AS STRING)", "12"),
    ("CAST(false AS STRING)", "FALSE"),
    ("CAST('2024-02-29' AS DATE)", datetime.date(2024, 2, 29)),
    ("CAST('2024-2-9 10:00:00' AS DATE)", datetime.date(2024, 2, 9)),
    ("CAST('x' AS DATE)", None),
    ("CAST(0 AS BOOLEAN)", False),
    ("CAST(2.5 AS DECIMAL(3, 1)) = 2.5", True),
    ("CAST(NULL AS INT)", None),
    # dates
    ("year('2024-02-29')", 2024),
    ("quarter('2024-05-01')", 2),
    ("month(CAST('2024-02-29' AS DATE))", 2),
    ("day('2024-02-29 23:00:00')", 29),
    ("dayofweek('2024-01-07')", 1),  # Sunday is 1
    ("weekofyear('2023-01-01')", 52),  # ISO weeks
    ("datediff('2009-03-01', '2009-02-27')", 2),  # the manual's example
    ("date_add('2008-12-31', 1)", datetime.date(2009, 1, 1)),  # the manual's example
    ("date_sub('2008-12-31', 1)", datetime.date(2008, 12, 30)),  # the manual's example
    ("last_day('2024-02-01')", "2024-02-29"),  # a string
    ("to_date('2009-07-30 04:17:52')", datetime.date(2009, 7, 30)),
    ("DATE '2024-01-02' > '2024-01-01'", True),
    ("TIMESTAMP '2024-01-01 10:00:00' > DATE '2024-01-01'", True),
    ("CAST('2024-01-01 10:00:00.5' AS TIMESTAMP)", datetime.datetime(2024, 1, 1, 10, 0, 0, 500_000)),
    # conditions
    ("if(1 = 2, 'a', 'b')", "b"),
    ("if(NULL, 'a', 'b')", "b"),
    ("CASE 2 WHEN 1 THEN 'a' WHEN 2 THEN 'b' END", "b"),
    ("CASE WHEN 1 > 2 THEN 1 ELSE 2.5 END", 2.5),
    ("CASE WHEN 1 > 2 THEN 1 END", None),
    ("coalesce(NULL, 'b', 'c')", "b"),
    ("nvl(NULL, 0)", 0),
    ("isnull(NULL)", True),
    ("isnotnull(NULL)", False),
    ("NULL <=> NULL", True),
    ("1 <=> NULL", False),
    ("NULL = NULL", None),
    ("'10' > 9", True),  # as numbers, not as text
    ("'abc' = 0", None),  # 'abc' is no number
    ("1 == 1.0", True),
    ("2 BETWEEN 1 AND 2", True),
    ("2 NOT BETWEEN 1 AND 2", False),
    ("2 IN (1, NULL)", None),
    ("2 IN (1, 2, NULL)", True),
    ("'2' IN (1, 2)", True),
    ("NOT (true AND NULL)", None),
    ("false OR NULL", None),
    ("!true", False),
    ("(NULL IS NULL) IS TRUE", True),
    # collections
    ("size(array(1, 2))", 2),
    ("size(map('a', 1))", 1),
    ("(array(1, 2, 3))[1]", 2),  # from 0
    ("(array(1, 2))[2]", None),
    ("(array(1, 2))[-1]", None),
    ("map('a', 1, 'b', 2)['b']", 2),
    ("map('a', 1)['z']", None),
    ("map_keys(map('a', 1))", ["a"]),
    ("map_values(map('a', 1))", [1]),
    ("array_contains(array(1, NULL), 1)", True),
    ("array_contains(array(1, NULL), 2)", False),  # never NULL
    ("array_contains(array(1), NULL)", False),
    ("sort_array(array(3, NULL, 1))", [None, 1, 3]),
    ("named_struct('a', 1, 'b', 'x')", {"a": 1, "b": "x"}),
    ("named_struct('a', 1).a", 1),
    ("struct(1, 'x')", {"col1": 1, "col2": "x"}),
    # literals
    ('"double quoted"', "double quoted"),
    ("'it\\'s'", "it's"),
    ("'a\\tb\\nc\\\\d'", "a\tb\nc\\d"),
    ("'\\u0041'", "A"),
    ("'a' 'b'", "ab"),
    ("10L", 10),
    ("1e2", 100.0),
]  # fmt: skip


@pytest.fixture(scope="module")
def answers() -> dict[str, Any]:
    """Each expression of VALUES with its value, from one query."""
    listed = ", ".join(f"{expression} AS v{i}" for i, (expression, _) in enumerate(VALUES))
    ((*found,),) = rows(f"SELECT {listed}")
    return {expression: answer for (expression, _), answer in zip(VALUES, found, strict=True)}


@pytest.mark.parametrize(("expression", "expected"), VALUES, ids=[text for text, _ in VALUES])
def test_expression_has_hives_value(expression: str, expected: Any, answers: dict[str, Any]) -> None:
    assert answers[expression] == expected
    assert type(answers[expression]) is type(expected)


# LanguageManual LateralView.
QUERIES = [
    # explode of NULL and of an empty array gives no row, a NULL element is one
    ("SELECT id, m FROM t LATERAL VIEW explode(marks) v AS m", [(1, 3), (1, None), (4, 7)]),
    (
        "SELECT id, m FROM t LATERAL VIEW OUTER explode(marks) v AS m",
        [(1, 3), (1, None), (2, None), (3, None), (4, 7)],
    ),
    ("SELECT id, p, m FROM t LATERAL VIEW posexplode(marks) v AS p, m", [(1, 0, 3), (1, 1, None), (4, 0, 7)]),
    (
        "SELECT id, p, m FROM t LATERAL VIEW OUTER posexplode(marks) v AS p, m",
        [(1, 0, 3), (1, 1, None), (2, None, None), (3, None, None), (4, 0, 7)],
    ),
    (
        "SELECT id, k, n FROM t LATERAL VIEW explode(tags) v AS k, n",
        [(1, "a", 1), (1, "b", None), (4, "c", 3)],
    ),
    (
        "SELECT id, k, n FROM t LATERAL VIEW OUTER explode(tags) v AS k, n",
        [(1, "a", 1), (1, "b", None), (2, None, None), (3, None, None), (4, "c", 3)],
    ),
    ("SELECT id, pos, key, value FROM t LATERAL VIEW posexplode(tags) v WHERE id = 4", [(4, 0, "c", 3)]),
    # names that are left out
    ("SELECT id, col FROM t LATERAL VIEW explode(marks) v WHERE id = 4", [(4, 7)]),
    ("SELECT v.pos, v.col FROM t LATERAL VIEW posexplode(marks) v WHERE id = 4", [(0, 7)]),
    ("SELECT v.* FROM t LATERAL VIEW explode(tags) v WHERE t.id = 4", [("c", 3)]),
    # lateral views come before WHERE, and a later one sees the columns of earlier ones
    ("SELECT id, m FROM t LATERAL VIEW explode(marks) v AS m WHERE m > 3", [(4, 7)]),
    (
        "SELECT id, kid.n, toy FROM t LATERAL VIEW explode(kids) a AS kid LATERAL VIEW "
        "explode(kid.toys) b AS toy",
        [(1, "x", 1), (1, "x", 2)],
    ),
    (
        "SELECT id, kid.n, toy FROM t LATERAL VIEW explode(kids) a AS kid "
        "LATERAL VIEW OUTER explode(kid.toys) b AS toy",
        [(1, "x", 1), (1, "x", 2), (1, "y", None), (4, None, None)],
    ),
    (
        "SELECT id, n FROM t LATERAL VIEW OUTER explode(grid) a AS line LATERAL VIEW OUTER "
        "explode(line) b AS n",
        [(1, 1), (1, 2), (1, None), (1, None), (2, 3), (3, None), (4, None)],
    ),
    (
        "SELECT a, b FROM t LATERAL VIEW explode(marks) v AS a LATERAL VIEW explode(tags) w AS b, c "
        "WHERE id = 4",
        [(7, "c")],
    ),
    # a join on an exploded column, and a lateral view of a joined table
    (
        "SELECT id, label FROM t LATERAL VIEW explode(marks) v AS m JOIN o ON o.k = v.m",
        [(4, "seven"), (4, "sieben")],
    ),
    (
        "SELECT id, m, label FROM t LATERAL VIEW explode(marks) v AS m LEFT JOIN o ON o.k = m AND "
        "o.label LIKE 's%n'",
        [(1, 3, None), (1, None, None), (4, 7, "seven"), (4, 7, "sieben")],
    ),
    (
        "SELECT label, m FROM o JOIN t ON o.k = t.id LATERAL VIEW explode(marks) v AS m",
        [("one", 3), ("one", None)],
    ),
    # explode in SELECT
    ("SELECT explode(marks) AS m FROM t WHERE id < 4", [(3,), (None,)]),
    ("SELECT explode(marks) FROM t WHERE id = 4", [(7,)]),
    ("SELECT explode(tags) AS (k, n) FROM t WHERE id = 4", [("c", 3)]),
    ("SELECT posexplode(marks) AS (p, m) FROM t WHERE id = 1", [(0, 3), (1, None)]),
    ("SELECT explode(array(1, 2)) AS x", [(1,), (2,)]),
    ("SELECT count(*) FROM (SELECT explode(marks) AS m FROM t) s", [(3,)]),
    # columns, structs, arrays, maps
    ("SELECT * FROM o WHERE K = 1", [(1, "one")]),
    ("SELECT O.Label FROM o WHERE o.k <=> NULL", [("none",)]),
    ("SELECT addr.city, t.addr.zip, t.`addr`.`CITY` AS c FROM t WHERE id = 1", [("Rome", 1, "Rome")]),
    ("SELECT kids.n, kids[0].toys[1] FROM t WHERE id = 1", [(["x", "y"], 2)]),
    ("SELECT marks[0], marks[id + 5], tags['a'], tags['z'] FROM t WHERE id = 1", [(3, None, 1, None)]),
    ("SELECT size(marks), size(tags) FROM t ORDER BY id", [(2, 2), (0, 0), (-1, -1), (1, 1)]),
    ("SELECT map_keys(tags), map_values(tags) FROM t WHERE id = 3", [([], [])]),  # GenericUDFMapKeys
    ("SELECT array_contains(marks, 3) FROM t ORDER BY id", [(True,), (False,), (False,), (False,)]),
    ("SELECT id FROM t WHERE age = 12", [(3,)]),
    ("SELECT id, CAST(age AS INT) FROM t ORDER BY id", [(1, 3), (2, None), (3, 12), (4, None)]),
    ("SELECT month(day), day(day) FROM t WHERE day < '2021-01-01'", [(1, 1)]),
    ("SELECT 1 AS x, 'a', x.k FROM o x LIMIT 1", [(1, "a", 1)]),
    # joins
    ("SELECT t.id, o.label FROM t JOIN o ON t.id = o.k", [(1, "one")]),
    ("SELECT t.id, o.label FROM t, o WHERE t.id = o.k", [(1, "one")]),
    (
        "SELECT t.id, o.k FROM t LEFT OUTER JOIN o ON t.id = o.k WHERE t.id < 3 ORDER BY t.id",
        [(1, 1), (2, None)],
    ),
    (
        "SELECT t.id, o.k FROM t RIGHT JOIN o ON t.id = o.k ORDER BY o.k",
        [(None, None), (1, 1), (None, 7), (None, 7)],
    ),
    ("SELECT count(*) FROM t FULL OUTER JOIN o ON t.id = o.k", [(7,)]),
    ("SELECT id FROM t LEFT SEMI JOIN o ON t.id = o.k", [(1,)]),
    ("SELECT count(*) FROM t CROSS JOIN o", [(16,)]),
    ("SELECT a.id, b.id AS nxt FROM t a JOIN t b ON a.id + 1 = b.id WHERE a.id = 1", [(1, 2)]),
    # grouping
    ("SELECT k, count(*), count(label) FROM o GROUP BY k ORDER BY k", [(None, 1, 1), (1, 1, 1), (7, 2, 2)]),
    ("SELECT k FROM o GROUP BY k HAVING count(*) > 1", [(7,)]),
    ("SELECT k, count(*) AS n FROM o GROUP BY k HAVING n > 1", [(7, 2)]),
    ("SELECT upper(label) AS u, sum(k) FROM o GROUP BY upper(label) ORDER BY u LIMIT 1", [("NONE", None)]),
    ("SELECT count(DISTINCT k), count(DISTINCT k, label), sum(DISTINCT k), sum(k), avg(k), "
     "min(k), max(label) FROM o",
     [(2, 3, 8, 15, 5.0, 1, "sieben")]),
    ("SELECT collect_list(k), collect_set(k) FROM o", [([1, 7, 7], [1, 7])]),
    ("SELECT collect_list(k), sum(k), count(k), max(k) FROM o WHERE k > 9", [([], None, 0, None)]),
    ("SELECT sum(age), avg(age) FROM t", [(15.7, 7.85)]),  # strings are summed as doubles
    ("SELECT percentile(k, 0.5), percentile(id, 0.25) FROM o JOIN t ON true", [(7.0, 1.75)]),
    ("SELECT variance(id), stddev_pop(id) FROM t WHERE id < 3", [(0.25, 0.5)]),  # variance is var_pop
    (
        "SELECT k, label, count(*) AS n FROM o WHERE k = 7 GROUP BY k, label GROUPING SETS ((k, "
        "label), k, ()) "
        "ORDER BY k, label",
        [(None, None, 2), (7, None, 2), (7, "seven", 1), (7, "sieben", 1)],
    ),
    (
        "SELECT k, count(*) AS n FROM o GROUP BY k WITH ROLLUP ORDER BY n, k",
        [(None, 1), (1, 1), (7, 2), (None, 4)],
    ),
    (
        "SELECT k, label, count(*) AS n FROM o WHERE k = 1 GROUP BY k, label WITH CUBE ORDER BY k, label",
        [(None, None, 1), (None, "one", 1), (1, None, 1), (1, "one", 1)],
    ),
    # order: NULLs first going up, last going down (LanguageManual SortBy)
    ("SELECT k FROM o ORDER BY k", [(None,), (1,), (7,), (7,)]),
    ("SELECT k FROM o ORDER BY k DESC", [(7,), (7,), (1,), (None,)]),
    ("SELECT k FROM o ORDER BY k NULLS LAST LIMIT 1", [(1,)]),
    ("SELECT label FROM o ORDER BY k DESC, 1 LIMIT 1, 1", [("sieben",)]),
    ("SELECT id, -id AS id2 FROM t ORDER BY id2 LIMIT 1", [(4, -4)]),
    ("SELECT -id AS id FROM t ORDER BY id LIMIT 1", [(-4,)]),  # ORDER BY means the result's column
    ("SELECT DISTINCT k FROM o WHERE k IS NOT NULL ORDER BY k", [(1,), (7,)]),
    # subqueries, WITH, UNION
    ("SELECT s.n FROM (SELECT id * 2 AS n FROM t) s WHERE s.n > 6", [(8,)]),
    (
        "WITH a AS (SELECT id FROM t WHERE id > 2), b AS (SELECT id + 1 AS i FROM a) SELECT i FROM b "
        "ORDER BY i",
        [(4,), (5,)],
    ),
    ("WITH o AS (SELECT 5 AS k) SELECT k FROM o", [(5,)]),  # hides the table
    ("WITH o AS (SELECT * FROM o WHERE k = 1) SELECT * FROM o", [(1, "one")]),
    (
        "SELECT s.k, o.label FROM (WITH o AS (SELECT 1 AS k) SELECT k FROM o) s JOIN o ON o.k = s.k",
        [(1, "one")],
    ),
    ("SELECT id FROM t WHERE id IN (SELECT k FROM o)", [(1,)]),
    ("SELECT id FROM t WHERE id NOT IN (SELECT k FROM o)", []),  # because of the NULL
    ("SELECT id FROM t WHERE EXISTS (SELECT 1 FROM o WHERE o.k = t.id)", [(1,)]),
    ("SELECT id FROM t WHERE NOT EXISTS (SELECT 1 FROM o WHERE o.k = t.id) ORDER BY id", [(2,), (3,), (4,)]),
    ("SELECT (SELECT max(k) FROM o) AS m", [(7,)]),
    ("SELECT 1 AS a UNION ALL SELECT 1 AS b UNION ALL SELECT 2", [(1,), (1,), (2,)]),
    ("SELECT 1 AS a UNION SELECT 1 AS b", [(1,)]),
    ("SELECT k AS a FROM o UNION ALL SELECT id FROM t ORDER BY a DESC LIMIT 2", [(7,), (7,)]),
    # windows
    (
        "SELECT k, row_number() OVER (ORDER BY k DESC, label) FROM o ORDER BY 2",
        [(7, 1), (7, 2), (1, 3), (None, 4)],
    ),
    ("SELECT label, rank() OVER (ORDER BY k) AS r, dense_rank() OVER (ORDER BY k) AS d FROM o "
     "ORDER BY r, label",
     [("none", 1, 1), ("one", 2, 2), ("seven", 3, 3), ("sieben", 3, 3)]),
    ("SELECT label, sum(k) OVER (PARTITION BY k) AS s FROM o ORDER BY label",
     [("none", None), ("one", 1), ("seven", 14), ("sieben", 14)]),
    ("SELECT id, lag(id) OVER (ORDER BY id), lead(id, 2, 0) OVER (ORDER BY id) FROM t ORDER BY id",
     [(1, None, 3), (2, 1, 4), (3, 2, 0), (4, 3, 0)]),
    ("SELECT id, sum(id) OVER (ORDER BY id ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM t ORDER BY id",
     [(1, 1), (2, 3), (3, 5), (4, 7)]),
    ("SELECT id, last_value(id) OVER (ORDER BY id) FROM t ORDER BY id LIMIT 2", [(1, 1), (2, 2)]),
    ("SELECT id, count(*) OVER () FROM t ORDER BY id LIMIT 1", [(1, 4)]),
    # building examples
    (
        "SELECT array(named_struct('role', 'user', 'content', name)) AS messages FROM t WHERE id = 1",
        [([{"role": "user", "content": "ann"}],)],
    ),
    ("SELECT /*+ MAPJOIN(o) */ id -- a comment\nFROM t JOIN o ON id = k", [(1,)]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), QUERIES, ids=[text for text, _ in QUERIES])
def test_query_has_hives_rows(text: str, expected: list[tuple[Any, ...]]) -> None:
    found = rows(text)
    # A join may turn the order of rows around.
    assert found == expected if "ORDER BY" in text else sorted(found, key=repr) == sorted(expected, key=repr)


def test_names_of_the_result() -> None:
    text = "SELECT id, id + 1, t.addr.city, marks[0], upper(name) AS Loud FROM t LIMIT 0"
    assert query(text, {"t": TABLE}).column_names == ["id", "_c1", "city", "_c3", "Loud"]


def test_a_table_in_a_database_is_named_with_a_point() -> None:
    assert rows(
        "SELECT orders.x, o.k FROM sales.orders JOIN o ON x = k", **{"sales.orders": pa.table({"x": [1]})}
    ) == [(1, 1)]


def test_sum_of_integers_is_a_bigint() -> None:
    assert query("SELECT sum(id) AS s FROM t", {"t": TABLE}).schema.field("s").type == pa.int64()


def test_outer_lateral_view_keeps_the_order_of_rows() -> None:
    many = pa.table({"i": list(range(20_000)), "a": [[i] * (i % 3) for i in range(20_000)]})
    found = query("SELECT i, x FROM many LATERAL VIEW OUTER explode(a) v AS x", {"many": many})
    assert found["i"].to_pylist() == [i for i in range(20_000) for _ in range(max(1, i % 3))]


def test_lateral_view_keeps_columns_apart_whose_dotted_names_are_equal() -> None:
    left, right = pa.table({"b.c": [1], "a": [[5, 6]]}), pa.table({"c": [2]})
    found = query(
        "SELECT `x`.`b.c` AS p, `x.b`.c AS q, e FROM x CROSS JOIN `x.b` LATERAL VIEW explode(a) v AS e",
        {"x": left, "x.b": right},
    )
    assert found.to_pylist() == [{"p": 1, "q": 2, "e": 5}, {"p": 1, "q": 2, "e": 6}]
