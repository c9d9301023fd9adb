"""HiveQL to DuckDB's SQL: SELECT with joins, grouping, windows and LATERAL VIEW, with Hive's values.

sqlglot parses the HiveQL; the tree is then translated here, node by node, by an allow-list: what nobody has
checked against Hive is refused by name rather than answered wrongly. Every column is resolved, so that
``SELECT *`` is spelled out and a wrong name gets the nearest one.

A lateral view becomes UNNEST in the list of a subquery: unlike a join with UNNEST it streams, keeps the order
of the rows and builds no hash table of the arrays.

    FROM t LATERAL VIEW OUTER explode(t.a) v AS x

    FROM (SELECT UNNEST(CASE WHEN len(t.a) > 0 THEN t.a ELSE [NULL] END) AS "rows.x", t.a AS "t.a"
          FROM t) AS "rows"
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import sqlglot
from sqlglot import exp
from sqlglot.dialects.hive import Hive

from fullspan.core.errors import ConfigError
from fullspan.tables.hive_macros import MACROS
from fullspan.tables.hive_select import Translator
from fullspan.tables.refusals import refuse
from fullspan.tables.scope import Scope

if TYPE_CHECKING:
    import duckdb


# The parser logs what it does not know; here that is refused with an error of its own.
logging.getLogger("sqlglot").setLevel(logging.ERROR)


class _HiveParser(Hive.Parser):  # type: ignore[misc, valid-type]
    # Functions keep the names that the query gives them; sqlglot would turn them into its own kinds.
    FUNCTIONS: ClassVar[dict[str, Any]] = {}
    FUNCTION_PARSERS: ClassVar[dict[str, Any]] = {"CAST": Hive.Parser.FUNCTION_PARSERS["CAST"]}
    NO_PAREN_FUNCTIONS: ClassVar[dict[Any, Any]] = {}


class _Hive(Hive):
    Parser = _HiveParser


def translate(query: str, tables: Mapping[str, Mapping[str, str]]) -> str:
    """Translate one HiveQL query to DuckDB's SQL.

    Parameters
    ----------
    query : str
        One SELECT, with or without WITH and UNION. Names are case-insensitive.
    tables : mapping of str to mapping of str to str
        For each table its columns' names and DuckDB types.

    Returns
    -------
    str
        Runs on a connection that has the tables under the same names and Hive's macros
        (`fullspan.tables.duck.connect` makes such a one).

    Raises
    ------
    ConfigError
        If the query is not valid or holds what is not translated.

    Examples
    --------
    >>> print(translate("SELECT size(a) AS n FROM t", {"t": {"a": "INTEGER[]"}}))
    SELECT CAST(coalesce(len("t"."a"), -1) AS INTEGER) AS "n" FROM "t" AS "t"
    """
    tree = parse(query)
    # A cursor has temporary tables of its own.
    with _database().cursor() as connection:
        translator = Translator(connection, tables)
        try:
            body = translator.query(tree, Scope())
        except RecursionError:
            raise ConfigError("the query is nested too deeply to translate") from None
        # Bound once as a whole: what does not bind is the query's mistake, and is told before anything runs.
        translator.binder.describe(body)
        return translator.binder.prefix() + body


@functools.cache
def _database() -> duckdb.DuckDBPyConnection:
    """An empty database, made once, in which queries are bound to learn their types."""
    import duckdb

    connection = duckdb.connect()
    add_macros(connection)
    connection.execute("SET enable_external_access = false")
    return connection


def add_macros(connection: duckdb.DuckDBPyConnection) -> None:
    """Define Hive's conversions in a connection."""
    connection.execute(";\n".join(MACROS))


def parse(query: str) -> exp.Query:
    """Parse one HiveQL query; statements that are no query are refused by name.

    Raises
    ------
    ConfigError
        If it does not parse, is no SELECT, or is more than one statement.
    """
    try:
        _refuse_tokens(query)
        parsed = sqlglot.parse(query, read=_Hive)
    except sqlglot.errors.SqlglotError as error:
        detail = error.errors[0] if isinstance(error, sqlglot.ParseError) and error.errors else None
        where = (
            f"line {detail['line']}, column {detail['col']}: {detail['description']}"
            if detail
            else str(error)
        )
        reason = re.split(r" but got <| missing for <", where)[0].partition("\n")[0]
        raise ConfigError(f"the query does not parse as HiveQL: {reason}") from None
    except RecursionError:
        raise ConfigError("the query is nested too deeply to parse") from None
    statements = [tree for tree in parsed if tree is not None and not isinstance(tree, exp.Semicolon)]
    if not statements:
        raise ConfigError("the query is empty")
    if len(statements) != 1:
        raise ConfigError(
            f"one query is run at a time, got {len(statements)} statements", "call the command for each"
        )
    (tree,) = statements
    if not isinstance(tree, exp.Query):
        raise ConfigError(
            f"{query.split()[0].upper()} is not run: only queries (SELECT, WITH, UNION ALL) are",
            "--out gives a query's result a file",
        )
    return tree


def _refuse_tokens(query: str) -> None:
    """Refuse what sqlglot reads otherwise than Hive: some escapes in strings, and varchar(n) as string."""
    tokens = _Hive().tokenize(query)
    for token, after in zip(tokens, [*tokens[1:], None], strict=False):
        if token.text.upper() in ("CHAR", "VARCHAR") and after is not None and after.text == "(":
            raise refuse(f"type {token.text.lower()}(n)", "use string, and substr to shorten it")
        raw = query[token.start : token.end + 1]
        if any(char == "\0" or "\ud800" <= char <= "\udfff" for char in token.text):
            raise refuse(f"character in {raw[:60]!r}", "write the character itself; NUL cannot be")
        if token.token_type == sqlglot.TokenType.STRING and "\\" in raw:
            pairs = [raw[i + 1] for i in _escapes(raw)]
            if any(char in "01234567bZ" for char in pairs):
                raise refuse(f"escape in the string {raw}", r"\n, \t, \r, \\, \', \" and \uXXXX are")


def _escapes(raw: str) -> list[int]:
    found, at = [], 0
    while at < len(raw) - 1:
        if raw[at] == "\\":
            found.append(at)
            at += 1
        at += 1
    return found
