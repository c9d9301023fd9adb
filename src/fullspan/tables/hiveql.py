"""HiveQL to DuckDB's SQL: SELECT with joins, grouping, windows and LATERAL VIEW, with Hive's values.

sqlglot parses the HiveQL; the tree is then translated here, node by node, by an allow-list: what nobody has
checked against Hive is refused by name rather than answered wrongly. Every column is resolved, so that
``SELECT *`` is spelled out and a wrong name gets the nearest one.

A lateral view becomes UNNEST in the list of a subquery. Unlike a join with UNNEST it streams, keeps the order of
rows, and takes no hash table of the arrays:

    FROM t LATERAL VIEW OUTER explode(t.a) v AS x
    FROM (SELECT t.a AS "t.a", UNNEST(CASE WHEN len(t.a) > 0 THEN t.a ELSE [NULL] END) AS "v.x" FROM t) AS "rows"
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import sqlglot
from sqlglot import exp
from sqlglot.dialects.hive import Hive

from fullspan.core.errors import ConfigError, did_you_mean
from fullspan.tables.hive_expressions import Expressions, only, refuse
from fullspan.tables.hive_types import MACROS, require_common_type
from fullspan.tables.scope import Binder, Column, Scope, Source, Value, quote

if TYPE_CHECKING:
    import duckdb

_SELECT_PARTS = (
    "kind", "hint", "distinct", "expressions", "from_", "joins", "laterals", "where", "group", "having",
    "order", "limit", "offset", "with_",
)  # fmt: skip
_JOINS = {
    ("", ""): "JOIN", ("", "INNER"): "JOIN", ("LEFT", ""): "LEFT JOIN", ("RIGHT", ""): "RIGHT JOIN",
    ("FULL", ""): "FULL JOIN", ("LEFT", "OUTER"): "LEFT JOIN", ("RIGHT", "OUTER"): "RIGHT JOIN",
    ("FULL", "OUTER"): "FULL JOIN", ("", "CROSS"): "CROSS JOIN", ("LEFT", "SEMI"): "SEMI JOIN",
}  # fmt: skip


class _HiveParser(Hive.Parser):
    # Functions keep the names that the query gives them; sqlglot would turn them into its own kinds.
    FUNCTIONS: dict[str, Any] = {}
    FUNCTION_PARSERS = {"CAST": Hive.Parser.FUNCTION_PARSERS["CAST"]}
    NO_PAREN_FUNCTIONS: dict[Any, Any] = {}


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
    import duckdb

    with duckdb.connect() as connection:
        add_macros(connection)
        tree = parse(query)
        translator = _Translator(connection, tables)
        body = translator.query(tree, Scope())
        return translator.binder.prefix() + body


def add_macros(connection: duckdb.DuckDBPyConnection) -> None:
    """Define Hive's conversions in a connection."""
    for macro in MACROS:
        connection.execute(macro)


def parse(query: str) -> exp.Query:
    """Parse one HiveQL query; statements that are no query are refused by name.

    Raises
    ------
    ConfigError
        If it does not parse, is no SELECT, or is more than one statement.
    """
    try:
        _refuse_tokens(query)
        statements = [tree for tree in sqlglot.parse(query, read=_Hive) if tree is not None]
    except sqlglot.errors.SqlglotError as error:
        detail = error.errors[0] if isinstance(error, sqlglot.ParseError) and error.errors else None
        where = f"line {detail['line']}, column {detail['col']}: {detail['description']}" if detail else str(error)
        raise ConfigError(f"the query does not parse as HiveQL: {where}") from None
    except RecursionError:
        raise ConfigError("the query is nested too deeply to parse") from None
    if len(statements) != 1:
        raise ConfigError(f"one query is run at a time, got {len(statements)} statements", "call the command for each")
    (tree,) = statements
    if not isinstance(tree, exp.Query):
        name = tree.this if isinstance(tree, exp.Command) else tree.key
        raise ConfigError(
            f"{str(name).upper()} is not run: only queries (SELECT, WITH, UNION ALL) are", "give the result a file with --out"
        )
    return tree


def _refuse_tokens(query: str) -> None:
    """Refuse what sqlglot reads otherwise than Hive: some escapes in strings, and varchar(n) as string."""
    tokens = _Hive().tokenize(query)
    for token, after in zip(tokens, [*tokens[1:], None], strict=True):
        if token.text.upper() in ("CHAR", "VARCHAR") and after is not None and after.text == "(":
            raise refuse(f"type {token.text.lower()}(n)", "use string, and substr to shorten it")
        raw = query[token.start : token.end + 1]
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


class _Translator:
    """Translates queries clause by clause."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, tables: Mapping[str, Mapping[str, str]]) -> None:
        self.binder = Binder(connection)
        self._expressions = Expressions(self.binder, self.query)
        self._tables = {}
        for name, columns in tables.items():
            # Empty tables of the same types, so that whole subqueries can be bound.
            listed = ", ".join(f"{quote(column)} {type_}" for column, type_ in columns.items())
            connection.execute(f"CREATE TEMP TABLE {quote(name)} ({listed})")
            self._tables[name] = self.binder.describe(f"SELECT * FROM {quote(name)}")
        self._ctes: list[dict[str, tuple[str, list[tuple[str, Any]]]]] = []
        self._names: set[str] = set()

    def query(self, node: exp.Expr, outer: Scope) -> str:
        """SQL of a SELECT or UNION in the scope around it."""
        self._ctes.append({})
        try:
            for cte in (node.args["with_"].expressions if node.args.get("with_") else []):
                self._add_cte(cte, node.args["with_"])
            if isinstance(node, exp.Union):
                return self._union(node, outer)
            if isinstance(node, exp.Select):
                return self._select(node, outer)
            if isinstance(node, exp.Subquery) and not node.alias:
                only(node, "this", "with_")
                return self.query(node.this, outer)
        finally:
            self._ctes.pop()
        raise refuse(f"{node.key.upper()}")

    def _add_cte(self, cte: exp.CTE, with_: exp.With) -> None:
        only(with_, "expressions")
        if cte.args["alias"].columns:
            raise refuse("WITH name(columns)", "name the columns in its SELECT")
        sql = self.query(cte.this, Scope())
        columns = self.binder.describe(sql)
        name = self._unique(cte.alias)
        self.binder.ctes.append(f"{quote(name)} AS ({sql})")
        self._ctes[-1][cte.alias.lower()] = (name, columns)

    def _unique(self, name: str) -> str:
        unique, n = name, 1
        while unique.lower() in self._names:
            n += 1
            unique = f"{name}#{n}"
        self._names.add(unique.lower())
        return unique

    def _union(self, node: exp.Union, outer: Scope) -> str:
        only(node, "this", "expression", "distinct", "order", "limit", "offset", "with_")
        # A long chain nests to the left, deeper than Python's stack likes.
        branches, rest = [], node
        operators: list[str] = []
        while isinstance(rest, exp.Union):
            branches.append(rest.expression)
            operators.append("UNION" if rest.args.get("distinct") else "UNION ALL")
            if rest is not node:
                only(rest, "this", "expression", "distinct")
            rest = rest.this
        branches.append(rest)
        texts = [self.query(branch, outer) for branch in reversed(branches)]
        described = [self.binder.describe(text) for text in texts]
        for i, columns in enumerate(described[1:], 2):
            if len(columns) != len(described[0]):
                raise ConfigError(f"UNION: query 1 has {len(described[0])} columns, query {i} has {len(columns)}")
            for (name, first), (_, other) in zip(described[0], columns, strict=True):
                pair = [_Typed(first), _Typed(other)]
                require_common_type(pair, f"UNION: columns {name!r}")  # type: ignore[arg-type]
        sql = f"({texts[0]})"
        for operator, text in zip(reversed(operators), texts[1:], strict=True):
            sql = f"({sql} {operator} ({text}))"
        return self._ordered(sql, described[0], node)

    def _ordered(self, sql: str, columns: list[tuple[str, Any]], node: exp.Query) -> str:
        """ORDER BY and LIMIT around a query, by the names of its columns."""
        if not any(node.args.get(part) for part in ("order", "limit", "offset")):
            return sql
        name = self._unique("result")
        source = Source("", {column: Column(name, column, type_) for column, type_ in columns})
        scope = Scope([source])
        tail = self._order(node, scope, list(source.columns.values())) + self._limit(node)
        return f"SELECT * FROM ({sql}) AS {quote(name)}{tail}"

    def _select(self, node: exp.Select, outer: Scope) -> str:
        only(node, *_SELECT_PARTS)
        node = _udtf_as_lateral(node)
        scope = Scope(outer=outer if outer.sources or outer.outer else None)
        source = self._from(node, scope)
        sql = ""
        if where := node.args.get("where"):
            sql += f" WHERE {self._expressions.boolean(where.this, scope, 'WHERE')}"
        items = self._items(node, scope)
        if group := node.args.get("group"):
            sql += " GROUP BY " + self._group(group, scope)
        aliased = Scope(scope.sources, scope.outer, {name: text for name, text, given in items if given})
        if having := node.args.get("having"):
            sql += f" HAVING {self._expressions.boolean(having.this, aliased, 'HAVING')}"
        sql += self._order(node, aliased, [Column("", name, None) for name, _, _ in items]) + self._limit(node)  # type: ignore[arg-type]
        distinct = "DISTINCT " if self._distinct(node) else ""
        listed = ", ".join(f"{text} AS {quote(name)}" for name, text, _ in items)
        return f"SELECT {distinct}{listed}" + (f" FROM {source}" if source else "") + sql

    def _distinct(self, node: exp.Select) -> bool:
        distinct = node.args.get("distinct")
        if distinct:
            only(distinct)
        return bool(distinct)

    def _items(self, node: exp.Select, scope: Scope) -> list[tuple[str, str, bool]]:
        """The list of SELECT as (name, sql, whether the query gives the name)."""
        items: list[tuple[str, str, bool]] = []
        for position, item in enumerate(node.expressions):
            table = item.table if isinstance(item, exp.Column) and isinstance(item.this, exp.Star) else None
            if isinstance(item, exp.Star) or table is not None:
                only(item, "this", "table")
                sources = scope.sources if table is None else [self._source(table, scope)]
                items += [(name, column.sql, False) for s in sources for name, column in s.columns.items()]
            elif isinstance(item, exp.Alias):
                items.append((item.alias, self._expressions.sql(item.this, scope), True))
            else:
                named = isinstance(item, exp.Column | exp.Dot)
                name = item.name if isinstance(item, exp.Column) else item.expression.name if named else f"_c{position}"
                items.append((name, self._expressions.sql(item, scope), False))
        seen: set[str] = set()
        for name, _, _ in items:
            if name.lower() in seen:
                raise ConfigError(f"two columns of the result are named {name!r}", "give one of them another name: ... AS name")
            seen.add(name.lower())
        return items

    def _source(self, table: str, scope: Scope) -> Source:
        found = next((s for s in scope.sources if s.name.lower() == table.lower()), None)
        if found is None:
            hint = did_you_mean(table, [s.name for s in scope.sources])
            raise ConfigError(f"no table named {table!r} in FROM", hint)
        return found

    def _from(self, node: exp.Select, scope: Scope) -> str:
        if not node.args.get("from_"):
            if node.args.get("joins"):
                raise refuse("a join without FROM")
            sql = ""
        else:
            sql = self._relation(node.args["from_"].this, scope)
        joins = node.args.get("joins") or []
        laterals = node.args.get("laterals") or []
        # The parser keeps them in two lists; their order in the text matters to outer joins.
        for part in sorted([*joins, *laterals], key=_position):
            sql = self._join(sql, part, scope) if isinstance(part, exp.Join) else self._lateral(sql, part, scope)
        return sql

    def _relation(self, node: exp.Expr, scope: Scope) -> str:
        """A table or subquery of FROM, put in the scope."""
        if isinstance(node, exp.Subquery):
            only(node, "this", "alias")
            sql = self.query(node.this, Scope())
            columns = self.binder.describe(sql)
            text = f"({sql})"
            alias = node.alias or "subquery"
        elif isinstance(node, exp.Table):
            only(node, "this", "db", "alias")
            name, columns = self._table(node)
            text = quote(name)
            alias = node.alias or node.name
        else:
            raise refuse(f"{node.key.upper()} in FROM")
        if node.args.get("alias") and node.args["alias"].columns:
            raise refuse("an alias with names of columns", "name the columns in a SELECT")
        relation = self._unique(alias)
        self._add_source(scope, Source(alias, {name: Column(relation, name, type_) for name, type_ in columns}))
        return f"{text} AS {quote(relation)}"

    def _add_source(self, scope: Scope, source: Source) -> None:
        if any(s.name.lower() == source.name.lower() for s in scope.sources):
            raise ConfigError(f"two tables in FROM are named {source.name!r}", "give one of them an alias")
        scope.sources.append(source)

    def _table(self, node: exp.Table) -> tuple[str, list[tuple[str, Any]]]:
        if not isinstance(node.this, exp.Identifier):
            raise refuse(f"{node.sql('hive')[:60]} in FROM")
        name = f"{node.db}.{node.name}" if node.db else node.name
        for ctes in reversed(self._ctes):
            if name.lower() in ctes:
                return ctes[name.lower()]
        for known, columns in self._tables.items():
            if known.lower() == name.lower():
                return known, columns
        names = [*self._tables, *(cte for ctes in self._ctes for cte in ctes)]
        raise ConfigError(f"no table named {name!r}", did_you_mean(name, names) or "give it with --table name=path")

    def _join(self, sql: str, node: exp.Join, scope: Scope) -> str:
        only(node, "this", "side", "kind", "on")
        side, kind = node.side.upper(), node.kind.upper()
        join = _JOINS.get((side, kind))
        if join is None:
            raise refuse(f"{side} {kind} JOIN".strip(), "write JOIN, LEFT/RIGHT/FULL JOIN, LEFT SEMI JOIN or CROSS JOIN")
        text = self._relation(node.this, scope)
        if node.args.get("on") is None:
            if side:
                raise ConfigError(f"{join} takes ON: {node.sql('hive')[:60]}")
            return f"{sql} CROSS JOIN {text}"
        condition = self._expressions.boolean(node.args["on"], scope, "ON")
        if join == "SEMI JOIN":
            scope.sources.pop()  # its columns are in sight of ON only
        join = "JOIN" if join == "CROSS JOIN" else join
        return f"{sql} {join} {text} ON {condition}"

    def _lateral(self, sql: str, node: exp.Lateral, scope: Scope) -> str:
        only(node, "this", "view", "outer", "alias")
        call = node.this
        name = call.name.lower() if isinstance(call, exp.Anonymous) else call.key
        if name not in ("explode", "posexplode") or not node.args.get("view"):
            raise refuse(f"LATERAL VIEW {name}", "explode and posexplode are")
        if len(call.expressions) != 1:
            raise ConfigError(f"{name}() takes 1 argument, got {len(call.expressions)}")
        value = self._expressions.value(call.expressions[0], scope)
        lists, names, types = _exploded(name, value, outer=bool(node.args.get("outer")))
        given = [column.name for column in node.args["alias"].columns]
        if given and len(given) != len(names):
            raise ConfigError(
                f"{name}() of {value.group} gives {len(names)} columns ({', '.join(names)}), AS names {len(given)}"
            )
        names = given or names
        relation = self._unique("rows")
        columns = [f"UNNEST({text}) AS {quote(f'{relation}.{column}')}" for text, column in zip(lists, names, strict=True)]
        for source in scope.sources:
            for key, column in source.columns.items():
                columns.append(f"{column.sql} AS {quote(f'{column.relation}.{column.name}')}")
                source.columns[key] = Column(relation, f"{column.relation}.{column.name}", column.type)
        alias = node.alias or self._unique("view")
        new = {n: Column(relation, f"{relation}.{n}", t) for n, t in zip(names, types, strict=True)}
        self._add_source(scope, Source(alias, new))
        return f"(SELECT {', '.join(columns)}" + (f" FROM {sql}" if sql else "") + f") AS {quote(relation)}"

    def _group(self, node: exp.Group, scope: Scope) -> str:
        only(node, "expressions", "grouping_sets", "rollup", "cube")
        sets, rollup, cube = (node.args.get(part) or [] for part in ("grouping_sets", "rollup", "cube"))
        keys = [self._group_key(key, scope) for key in node.expressions if not isinstance(key, exp.Rollup | exp.Cube)]
        listed = ", ".join(keys)
        inline = [key for key in node.expressions if isinstance(key, exp.Rollup | exp.Cube)]
        if inline:
            if len(node.expressions) > 1 or sets or rollup or cube:
                raise refuse("GROUP BY with ROLLUP or CUBE beside other keys")
            keys = [self._group_key(key, scope) for key in inline[0].expressions]
            return f"{inline[0].key.upper()} ({', '.join(keys)})"
        if rollup or cube:
            return f"{'ROLLUP' if rollup else 'CUBE'} ({listed})"
        if sets:
            members = [self._grouping_set(item, scope, keys) for each in sets for item in each.expressions]
            return f"GROUPING SETS ({', '.join(members)})"
        return listed

    def _group_key(self, key: exp.Expr, scope: Scope) -> str:
        if isinstance(key, exp.Literal):
            raise ConfigError(f"GROUP BY {key.sql('hive')} groups by a constant in Hive, not by position", "name the column")
        return self._expressions.sql(key, scope)

    def _grouping_set(self, item: exp.Expr, scope: Scope, keys: Sequence[str]) -> str:
        members = item.expressions if isinstance(item, exp.Tuple) else [item.this if isinstance(item, exp.Paren) else item]
        texts = [self._expressions.sql(member, scope) for member in members]
        for member, text in zip(members, texts, strict=True):
            if text not in keys:
                raise ConfigError(f"GROUPING SETS names {member.sql('hive')!r}, which GROUP BY does not list")
        return f"({', '.join(texts)})"

    def _order(self, node: exp.Query, scope: Scope, columns: Sequence[Column]) -> str:
        order = node.args.get("order")
        if order is None:
            return ""
        only(order, "this", "expressions")
        for item in order.expressions:
            if isinstance(item.this, exp.Literal):
                position = item.this.this
                if not position.isdigit() or not 1 <= int(position) <= len(columns):
                    raise ConfigError(f"ORDER BY {position}: the result has columns 1 to {len(columns)}")
        return " " + self._expressions.order(order, scope)

    def _limit(self, node: exp.Query) -> str:
        sql = ""
        for part in ("limit", "offset"):
            if clause := node.args.get(part):
                only(clause, "expression")
                if not isinstance(clause.expression, exp.Literal) or not clause.expression.this.isdigit():
                    raise ConfigError(f"{part.upper()} takes a whole number, got {clause.expression.sql('hive')}")
                sql += f" {part.upper()} {clause.expression.this}"
        return sql


class _Typed:
    """A column of a query as a value with nothing but a type."""

    def __init__(self, type_: Any) -> None:
        self.type = type_

    group = Value.group


def _position(node: exp.Expr) -> int:
    starts = [part.meta["start"] for part in node.find_all(exp.Identifier) if "start" in part.meta]
    return min(starts, default=0)


def _udtf_as_lateral(node: exp.Select) -> exp.Select:
    """``SELECT explode(a) AS x FROM t`` as ``SELECT x FROM t LATERAL VIEW explode(a) v AS x``."""
    calls = [
        item for item in node.expressions
        if isinstance(call := item.unalias() if not isinstance(item, exp.Aliases) else item.this, exp.Anonymous)
        and call.name.lower() in ("explode", "posexplode")
    ]  # fmt: skip
    if not calls:
        return node
    (item, *others) = node.expressions
    if others:
        raise ConfigError("SELECT with explode takes no other expression, in Hive too", "use LATERAL VIEW explode(...)")
    if any(node.args.get(part) for part in ("group", "having", "distinct")):
        raise ConfigError("SELECT with explode takes no GROUP BY or DISTINCT, in Hive too", "use LATERAL VIEW explode(...)")
    names = item.expressions if isinstance(item, exp.Aliases) else [item.args["alias"]] if item.alias else []
    call = item.this if isinstance(item, exp.Alias | exp.Aliases) else item
    alias = exp.TableAlias(this=exp.to_identifier("exploded"), columns=[exp.to_identifier(n.name) for n in names])
    lateral = exp.Lateral(this=call.copy(), view=True, outer=False, alias=alias)
    node = node.copy()
    lateral_last = [*(node.args.get("laterals") or []), lateral]
    node.set("laterals", lateral_last)
    node.set("expressions", [exp.Column(this=exp.Star(), table=exp.to_identifier("exploded"))])
    return node


def _exploded(name: str, value: Value, outer: bool) -> tuple[list[str], list[str], list[Any]]:
    """The parallel lists to unnest, with Hive's names and the types of the columns."""
    text = value.sql
    if value.group == "array":
        count, lists, names = f"len({text})", [text], ["col"]
    elif value.group == "map":
        count, lists, names = f"cardinality({text})", [f"map_keys({text})", f"map_values({text})"], ["key", "value"]
    else:
        raise ConfigError(f"{name}() takes an array or a map, got {value.group}: {text}")
    types = [child for _, child in value.type.children]
    if name == "posexplode":
        integer = Value("CAST(0 AS INTEGER)", Scope(), value.binder).type
        lists, names, types = [f"CAST(range({count}) AS INTEGER[])", *lists], ["pos", *names], [integer, *types]
        if value.group == "map":
            names = ["pos", "key", "value"]
    if outer:
        lists = [f"CASE WHEN {count} > 0 THEN {each} ELSE [NULL] END" for each in lists]
    return lists, names, types
