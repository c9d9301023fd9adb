"""One query, clause by clause: WITH, UNION, FROM and its joins, GROUP BY, HAVING, ORDER BY."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sqlglot import exp

from fullspan.core.errors import ConfigError, did_you_mean
from fullspan.tables.hive_expressions import Expressions
from fullspan.tables.hive_laterals import add_lateral, split_udtf
from fullspan.tables.hive_types import require_common_type
from fullspan.tables.refusals import only, refuse
from fullspan.tables.scope import Binder, Column, Columns, Scope, Source, Value, quote

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


class Translator:
    """Translates queries clause by clause."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, tables: Mapping[str, Mapping[str, str]]
    ) -> None:
        self.binder = Binder(connection)
        self._expressions = Expressions(self.binder, self.query)
        self._tables = {}
        for name, columns in tables.items():
            # Empty tables of the same types, so that whole subqueries can be bound.
            listed = ", ".join(f"{quote(column)} {type_}" for column, type_ in columns.items())
            connection.execute(f"CREATE TEMP TABLE {quote(name)} ({listed})")
            self._tables[name] = self.binder.describe(f"SELECT * FROM {quote(name)}")
        self._ctes: list[dict[str, tuple[str, Columns]]] = []
        self._names: set[str] = set()
        self._reserved = {name.lower() for name in tables}

    def query(self, node: exp.Expr, outer: Scope) -> str:
        """SQL of a SELECT or UNION in the scope around it."""
        self._ctes.append({})
        try:
            for cte in node.args["with_"].expressions if node.args.get("with_") else []:
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
        # All stand in front of the whole query, where they must not hide a table from its other parts.
        name = self._unique(cte.alias)
        while name.lower() in self._reserved:
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
                raise ConfigError(
                    f"UNION: query 1 has {len(described[0])} columns, query {i} has {len(columns)}"
                )
            for (name, first), (_, other) in zip(described[0], columns, strict=True):
                pair = [Value.of_type(type_, self.binder) for type_ in (first, other)]
                require_common_type(pair, f"UNION: columns {name!r}")
        sql = f"({texts[0]})"
        for operator, text in zip(reversed(operators), texts[1:], strict=True):
            sql = f"({sql} {operator} ({text}))"
        return self._ordered(sql, described[0], node)

    def _ordered(self, sql: str, columns: Columns, node: exp.Query) -> str:
        """ORDER BY and LIMIT around a query, by the names of its columns."""
        if not any(node.args.get(part) for part in ("order", "limit", "offset")):
            return sql
        name = self._unique("result")
        source = Source("", {column: Column(name, column, type_) for column, type_ in columns})
        scope = Scope([source])
        tail = self._order(node, scope, len(columns)) + self._limit(node)
        return f"SELECT * FROM ({sql}) AS {quote(name)}{tail}"

    def _select(self, node: exp.Select, outer: Scope) -> str:
        only(node, *_SELECT_PARTS)
        node, udtf = split_udtf(node)
        scope = Scope(outer=outer if outer.sources or outer.outer else None)
        source = self._from(node, scope, udtf)
        sql = ""
        if where := node.args.get("where"):
            sql += f" WHERE {self._expressions.boolean(where.this, scope, 'WHERE')}"
        items = self._items(node, scope)
        if group := node.args.get("group"):
            sql += " GROUP BY " + self._group(group, scope)
        aliases = {name.lower(): text for name, text, given in items if given}
        if having := node.args.get("having"):
            grouped = Scope(scope.sources, scope.outer, aliases)
            sql += f" HAVING {self._expressions.boolean(having.this, grouped, 'HAVING')}"
        sql += self._order(node, Scope(scope.sources, scope.outer, aliases, aliases_first=True), len(items))
        sql += self._limit(node)
        if distinct := node.args.get("distinct"):
            only(distinct)
        listed = ", ".join(f"{text} AS {quote(name)}" for name, text, _ in items)
        return (
            f"SELECT {'DISTINCT ' if distinct else ''}{listed}" + (f" FROM {source}" if source else "") + sql
        )

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
                name = (
                    item.name
                    if isinstance(item, exp.Column)
                    else item.expression.name
                    if named
                    else f"_c{position}"
                )
                items.append((name, self._expressions.sql(item, scope), False))
        seen: set[str] = set()
        for name, _, _ in items:
            if name.lower() in seen:
                raise ConfigError(
                    f"two columns of the result are named {name!r}",
                    "give one of them another name: ... AS name",
                )
            seen.add(name.lower())
        return items

    def _source(self, table: str, scope: Scope) -> Source:
        found = next((s for s in scope.sources if s.name.lower() == table.lower()), None)
        if found is None:
            hint = did_you_mean(table, [s.name for s in scope.sources])
            raise ConfigError(f"no table named {table!r} in FROM", hint)
        return found

    def _from(self, node: exp.Select, scope: Scope, udtf: exp.Lateral | None) -> str:
        from_ = node.args.get("from_")
        joins, laterals = node.args.get("joins") or [], node.args.get("laterals") or []
        if from_ is None and (joins or laterals):
            raise ConfigError("a join or a lateral view needs FROM")
        sql = self._relation(from_.this, scope) if from_ else ""
        # The parser keeps them in two lists; their order in the text matters to outer joins.
        parts = sorted([*joins, *laterals], key=_position)
        for part in [*parts, *([udtf] if udtf else [])]:
            if isinstance(part, exp.Join):
                sql = self._join(sql, part, scope)
            else:
                sql, view = add_lateral(sql, part, scope, self._expressions, self._unique("rows"))
                self._add_source(scope, view)
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
        self._add_source(
            scope, Source(alias, {name: Column(relation, name, type_) for name, type_ in columns})
        )
        return f"{text} AS {quote(relation)}"

    def _add_source(self, scope: Scope, source: Source) -> None:
        if any(s.name.lower() == source.name.lower() for s in scope.sources):
            raise ConfigError(f"two tables in FROM are named {source.name!r}", "give one of them an alias")
        scope.sources.append(source)

    def _table(self, node: exp.Table) -> tuple[str, Columns]:
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
        raise ConfigError(
            f"no table named {name!r}", did_you_mean(name, names) or "give it with --table name=path"
        )

    def _join(self, sql: str, node: exp.Join, scope: Scope) -> str:
        only(node, "this", "side", "kind", "on")
        side, kind = node.side.upper(), node.kind.upper()
        join = _JOINS.get((side, kind))
        if join is None:
            raise refuse(
                f"{side} {kind} JOIN".strip(),
                "write JOIN, LEFT/RIGHT/FULL JOIN, LEFT SEMI JOIN or CROSS JOIN",
            )
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

    def _group(self, node: exp.Group, scope: Scope) -> str:
        only(node, "expressions", "grouping_sets", "rollup", "cube")
        sets, rollup, cube = (node.args.get(part) or [] for part in ("grouping_sets", "rollup", "cube"))
        inline = next((key for key in node.expressions if isinstance(key, exp.Rollup | exp.Cube)), None)
        if inline is not None and (len(node.expressions) > 1 or sets or rollup or cube):
            raise refuse("GROUP BY with ROLLUP or CUBE beside other keys")
        listed = inline.expressions if inline is not None else node.expressions
        keys = [self._group_key(key, scope) for key in listed]
        if sets:
            members = [self._grouping_set(item, scope, keys) for each in sets for item in each.expressions]
            return f"GROUPING SETS ({', '.join(members)})"
        kind = "ROLLUP" if rollup else "CUBE" if cube else inline.key.upper() if inline is not None else ""
        return f"{kind} ({', '.join(keys)})" if kind else ", ".join(keys)

    def _group_key(self, key: exp.Expr, scope: Scope) -> str:
        if isinstance(key, exp.Literal):
            raise ConfigError(
                f"GROUP BY {key.sql('hive')} groups by a constant in Hive, not by position", "name the column"
            )
        return self._expressions.sql(key, scope)

    def _grouping_set(self, item: exp.Expr, scope: Scope, keys: Sequence[str]) -> str:
        members = (
            item.expressions
            if isinstance(item, exp.Tuple)
            else [item.this if isinstance(item, exp.Paren) else item]
        )
        texts = [self._expressions.sql(member, scope) for member in members]
        for member, text in zip(members, texts, strict=True):
            if text not in keys:
                raise ConfigError(f"GROUPING SETS names {member.sql('hive')!r}, which GROUP BY does not list")
        return f"({', '.join(texts)})"

    def _order(self, node: exp.Query, scope: Scope, n_columns: int) -> str:
        order = node.args.get("order")
        if order is None:
            return ""
        only(order, "this", "expressions")
        for item in order.expressions:
            if isinstance(item.this, exp.Literal):
                position = item.this.this
                if not position.isdigit() or not 1 <= int(position) <= n_columns:
                    raise ConfigError(f"ORDER BY {position}: the result has columns 1 to {n_columns}")
        return " " + self._expressions.order(order, scope)

    def _limit(self, node: exp.Query) -> str:
        sql = ""
        for part in ("limit", "offset"):
            if clause := node.args.get(part):
                only(clause, "expression")
                if not isinstance(clause.expression, exp.Literal) or not clause.expression.this.isdigit():
                    raise ConfigError(
                        f"{part.upper()} takes a whole number, got {clause.expression.sql('hive')}"
                    )
                sql += f" {part.upper()} {clause.expression.this}"
        return sql


def _position(node: exp.Expr) -> int:
    starts = [part.meta["start"] for part in node.find_all(exp.Identifier) if "start" in part.meta]
    return min(starts, default=0)
