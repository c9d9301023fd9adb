"""Hive's expressions as DuckDB's: one method for each kind of node that sqlglot's parser makes of HiveQL.

A node without a method is a construct that nobody has checked against Hive: it is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from sqlglot import exp

from fullspan.core.errors import ConfigError, did_you_mean
from fullspan.tables import hive_functions as functions
from fullspan.tables import java_regex
from fullspan.tables.hive_aggregates import AGGREGATES, WINDOW_FUNCTIONS, frame
from fullspan.tables.hive_aggregates import call as aggregate
from fullspan.tables.hive_types import cast, comparable, require_common_type, to_double, to_string
from fullspan.tables.refusals import only, refuse
from fullspan.tables.scope import Binder, Column, Scope, Value, children, hive_name, quote_string

_TABLE_FUNCTIONS = (
    "explode",
    "posexplode",
    "inline",
    "stack",
    "json_tuple",
    "parse_url_tuple",
    "explode_outer",
)

_CHANGING = ("rand", "current_date", "current_timestamp", "unix_timestamp", "uuid")

# The parts of a node that its method reads; any other part is refused, not dropped.
_USUAL_PARTS = ("this", "expression", "expressions")
_PARTS = {
    "literal": ("this", "is_string"),
    "column": ("this", "table", "db", "catalog"),
    "dpipe": (*_USUAL_PARTS, "safe"),
    "concat": (*_USUAL_PARTS, "coalesce", "safe"),
    "like": (*_USUAL_PARTS, "negate"),
    "div": (*_USUAL_PARTS, "typed", "safe"),
    "between": ("this", "low", "high"),
    "in": ("this", "expressions", "query"),
    "if": ("this", "true", "false"),
    "case": ("this", "ifs", "default"),
    "trycast": ("this", "to"),
    "cast": ("this", "to"),
    "window": ("this", "partition_by", "order", "spec", "over"),
}


class Expressions:
    """Translates expressions in a scope; subqueries go back to the `query` function given.

    Parameters
    ----------
    binder : Binder
        Tells types.
    query : callable
        Translates a subquery in a scope.
    """

    def __init__(self, binder: Binder, query: Callable[[exp.Expr, Scope], str]) -> None:
        self._binder = binder
        self._query = query

    def sql(self, node: exp.Expr, scope: Scope) -> str:
        """The translation of one expression, safe to stand anywhere."""
        method = getattr(self, f"_{node.key}", None)
        if method is None:
            raise refuse(f"construct {node.key.upper()} in {node.sql('hive')[:60]!r}")
        only(node, *_PARTS.get(node.key, _USUAL_PARTS))
        text: str = method(node, scope)
        return f"({text})" if text.startswith("CASE ") else text

    def value(self, node: exp.Expr, scope: Scope) -> Value:
        """The translation with its type, and its value when it is a literal."""
        literal: str | int | None = None
        if isinstance(node, exp.Literal) and node.is_string:
            literal = node.this
        elif isinstance(node, exp.Concat):
            literal = "".join(part.this for part in node.expressions)
        elif isinstance(node, exp.Literal) and node.this.isdigit():
            literal = int(node.this)
        return Value(self.sql(node, scope), scope, self._binder, literal)

    def boolean(self, node: exp.Expr, scope: Scope, where: str) -> str:
        """A condition, which must be boolean: DuckDB would read 'yes' or 2 as one."""
        value = self.value(node, scope)
        if value.group not in ("boolean", "null"):
            kind = hive_name(value.type)
            raise ConfigError(f"{where} takes a boolean, got {kind}: {node.sql('hive')[:60]}")
        return value.sql

    # literals and columns

    def _literal(self, node: exp.Literal, scope: Scope) -> str:
        if node.is_string:
            return quote_string(node.this)
        if node.this.isdigit() and int(node.this) >= 2**63:
            raise refuse(f"number {node.this}, which is no bigint")
        # 1.5 and 1e3 are DOUBLE in Hive, DECIMAL in DuckDB.
        return str(node.this) if node.this.isdigit() else f"CAST('{node.this}' AS DOUBLE)"

    def _concat(self, node: exp.Concat, scope: Scope) -> str:
        if not all(isinstance(part, exp.Literal) and part.is_string for part in node.expressions):
            raise refuse(f"construct {node.sql('hive')[:60]!r}")
        return quote_string("".join(part.this for part in node.expressions))

    def _null(self, node: exp.Null, scope: Scope) -> str:
        return "NULL"

    def _boolean(self, node: exp.Boolean, scope: Scope) -> str:
        return "TRUE" if node.this else "FALSE"

    def _paren(self, node: exp.Paren, scope: Scope) -> str:
        return f"({self.sql(node.this, scope)})"

    def _column(self, node: exp.Column, scope: Scope) -> str:
        parts = [part.name for part in node.parts]
        if isinstance(node.this, exp.Star):
            raise ConfigError(f"{node.sql('hive')} can stand only in the list of SELECT")
        alias = scope.aliases.get(parts[0].lower()) if len(parts) == 1 else None
        if alias is not None and (scope.aliases_first or scope.column(parts[0]) is None):
            return alias
        column, fields = self._resolve(parts, scope)
        sql = column.sql
        for name in fields:
            sql = self._field(Value(sql, scope, self._binder), name)
        return sql

    def _resolve(self, parts: list[str], scope: Scope) -> tuple[Column, list[str]]:
        """The column that a dotted name means, and the struct fields behind it."""
        if len(parts) > 1 and (source := scope.source(parts[0])) is not None:
            column = source.find(parts[1])
            if column is not None:
                return column, parts[2:]
            if scope.column(parts[0]) is None:
                hint = did_you_mean(parts[1], source.columns)
                raise ConfigError(f"table {parts[0]!r} has no column {parts[1]!r}", hint)
        column = scope.column(parts[0])
        if column is None:
            tables = [source.name for each in scope.chain() for source in each.sources]
            if len(parts) > 1:
                raise ConfigError(f"no table or column named {parts[0]!r}", did_you_mean(parts[0], tables))
            if parts[0].lower() in _CHANGING:
                raise refuse(f"function {parts[0]}", "its value changes from run to run; write the date")
            raise scope.unknown(parts[0])
        return column, parts[1:]

    def _field(self, value: Value, name: str) -> str:
        type_ = value.type
        of_array = value.group == "array" and value.child_groups() == ["struct"]
        if of_array:
            type_ = children(type_)[0][1]
        elif value.group != "struct":
            raise ConfigError(f"{value.sql} of type {hive_name(type_)} has no field {name!r}")
        names = [field for field, _ in children(type_)]
        found = next((field for field in names if field.lower() == name.lower()), None)
        if found is None:
            raise ConfigError(f"no field named {name!r}", did_you_mean(name, names))
        # The field of an array of structs is the array of the fields.
        if of_array:
            return f"list_transform({value.sql}, lambda item: struct_extract(item, {quote_string(found)}))"
        return f"struct_extract({value.sql}, {quote_string(found)})"

    def _dot(self, node: exp.Dot, scope: Scope) -> str:
        return self._field(self.value(node.this, scope), node.expression.name)

    def _bracket(self, node: exp.Bracket, scope: Scope) -> str:
        value = self.value(node.this, scope)
        (index,) = (self.value(item, scope) for item in node.expressions)
        if value.group == "array" and index.group in ("integer", "null"):
            # Arrays count from 0, and what is out of range is NULL.
            return f"CASE WHEN {index.sql} >= 0 THEN ({value.sql})[{index.sql} + 1] END"
        if value.group == "map":
            key = value.child_groups()[0]
            if index.group not in (key, "null"):
                raise ConfigError(f"the map {value.sql} has keys of type {key}, got {hive_name(index.type)}")
            return f"({value.sql})[{index.sql}]"
        raise ConfigError(f"{value.sql} of type {hive_name(value.type)} has no element [{index.sql}]")

    # operators

    def _arithmetic(self, node: exp.Binary, scope: Scope, operator: str) -> str:
        left, right = self.value(node.left, scope), self.value(node.right, scope)
        groups = {left.group, right.group}
        if groups <= {"integer"} or groups == {"decimal"} or groups == {"integer", "decimal"}:
            return f"({left.sql} {operator} {right.sql})"
        return f"({to_double(left)} {operator} {to_double(right)})"

    def _add(self, node: exp.Add, scope: Scope) -> str:
        return self._arithmetic(node, scope, "+")

    def _sub(self, node: exp.Sub, scope: Scope) -> str:
        return self._arithmetic(node, scope, "-")

    def _mul(self, node: exp.Mul, scope: Scope) -> str:
        return self._arithmetic(node, scope, "*")

    def _div(self, node: exp.Div, scope: Scope) -> str:
        left, right = self.value(node.left, scope), self.value(node.right, scope)
        groups = {left.group, right.group}
        if "decimal" in groups and "double" not in groups:
            raise refuse("division of decimals", "cast one side to double")
        return f"({to_double(left)} / nullif({to_double(right)}, 0))"

    def _intdiv(self, node: exp.IntDiv, scope: Scope) -> str:
        left, right = self.value(node.left, scope), self.value(node.right, scope)
        if {left.group, right.group} != {"integer"}:
            raise ConfigError(f"DIV takes two integers: {node.sql('hive')[:60]}", "cast them to bigint")
        return f"CAST({left.sql} // nullif({right.sql}, 0) AS BIGINT)"

    def _mod(self, node: exp.Mod, scope: Scope) -> str:
        values = self.value(node.left, scope), self.value(node.right, scope)
        return functions.modulo(values, "({0} % {1})", "%")

    def _neg(self, node: exp.Neg, scope: Scope) -> str:
        value = self.value(node.this, scope)
        return f"(-{value.sql if value.group in ('integer', 'decimal') else to_double(value)})"

    def _dpipe(self, node: exp.DPipe, scope: Scope) -> str:
        return f"({to_string(self.value(node.left, scope))} || {to_string(self.value(node.right, scope))})"

    def _compare(self, node: exp.Binary, scope: Scope, operator: str) -> str:
        left, right = comparable(self.value(node.left, scope), self.value(node.right, scope))
        return f"({left} {operator} {right})"

    def _eq(self, node: exp.EQ, scope: Scope) -> str:
        return self._compare(node, scope, "=")

    def _neq(self, node: exp.NEQ, scope: Scope) -> str:
        return self._compare(node, scope, "<>")

    def _nullsafeeq(self, node: exp.NullSafeEQ, scope: Scope) -> str:
        return self._compare(node, scope, "IS NOT DISTINCT FROM")

    def _lt(self, node: exp.LT, scope: Scope) -> str:
        return self._compare(node, scope, "<")

    def _lte(self, node: exp.LTE, scope: Scope) -> str:
        return self._compare(node, scope, "<=")

    def _gt(self, node: exp.GT, scope: Scope) -> str:
        return self._compare(node, scope, ">")

    def _gte(self, node: exp.GTE, scope: Scope) -> str:
        return self._compare(node, scope, ">=")

    def _between(self, node: exp.Between, scope: Scope) -> str:
        value = self.value(node.this, scope)
        low = comparable(value, self.value(node.args["low"], scope))
        high = comparable(value, self.value(node.args["high"], scope))
        return f"({low[0]} >= {low[1]} AND {high[0]} <= {high[1]})"

    def _in(self, node: exp.In, scope: Scope) -> str:
        value = self.value(node.this, scope)
        if query := node.args.get("query"):
            # The subquery's column goes through the same comparison rules.
            inner = Value(f"({self._query(query.unnest(), scope)})", scope, self._binder)
            if value.group != inner.group and {value.group, inner.group} - {"integer", "double", "null"}:
                raise refuse(f"IN of {hive_name(value.type)} and {hive_name(inner.type)}", "cast one of them")
            return f"({value.sql} IN {inner.sql})"
        pairs = [comparable(value, self.value(item, scope)) for item in node.expressions]
        return "(" + " OR ".join(f"{left} = {right}" for left, right in pairs) + ")"

    def _exists(self, node: exp.Exists, scope: Scope) -> str:
        return f"EXISTS ({self._query(node.this.unnest(), scope)})"

    def _subquery(self, node: exp.Subquery, scope: Scope) -> str:
        return f"({self._query(node.this, scope)})"

    def _and(self, node: exp.And, scope: Scope) -> str:
        return "(" + " AND ".join(self._conditions(node, scope, "AND")) + ")"

    def _or(self, node: exp.Or, scope: Scope) -> str:
        return "(" + " OR ".join(self._conditions(node, scope, "OR")) + ")"

    def _conditions(self, node: exp.Connector, scope: Scope, where: str) -> list[str]:
        # A chain of hundreds nests as deep; flat, it costs neither stack nor time.
        return [self.boolean(part, scope, where) for part in node.flatten(unnest=False)]

    def _not(self, node: exp.Not, scope: Scope) -> str:
        return f"(NOT {self.boolean(node.this, scope, 'NOT')})"

    def _is(self, node: exp.Is, scope: Scope) -> str:
        if not isinstance(node.expression, exp.Null | exp.Boolean):
            raise refuse(f"construct {node.sql('hive')[:60]!r}")
        if isinstance(node.expression, exp.Boolean):
            return f"({self.boolean(node.this, scope, 'IS')} IS {self.sql(node.expression, scope)})"
        return f"({self.sql(node.this, scope)} IS NULL)"

    def _like(self, node: exp.Like, scope: Scope) -> str:
        text, pattern = to_string(self.value(node.this, scope)), self.value(node.expression, scope)
        if isinstance(pattern.literal, str):
            # Only \% and \_ are escapes in Hive; DuckDB would take any character after the escape.
            escaped = re.sub(r"\\(?![%_])", r"\\\\", pattern.literal)
            matched = f"({text} LIKE {quote_string(escaped)} ESCAPE '\\')"
        else:
            matched = f"({text} LIKE hive_pattern({to_string(pattern)}))"
        return f"(NOT {matched})" if node.args.get("negate") else matched

    def _regexplike(self, node: exp.RegexpLike, scope: Scope) -> str:
        text, value = self.value(node.this, scope), self.value(node.expression, scope)
        pattern = functions.pattern_of(value, "RLIKE")
        searched = functions.guarded(to_string(text), pattern)
        return f"regexp_matches({searched}, {quote_string(java_regex.to_re2(pattern))})"

    # conditions and conversions

    def _if(self, node: exp.If, scope: Scope) -> str:
        if node.args.get("false") is None:
            raise ConfigError(f"if() takes 3 arguments: {node.sql('hive')[:60]}")
        then, other = self.value(node.args["true"], scope), self.value(node.args["false"], scope)
        require_common_type([then, other], "results of if()")
        return f"CASE WHEN {self.boolean(node.this, scope, 'if()')} THEN {then.sql} ELSE {other.sql} END"

    def _case(self, node: exp.Case, scope: Scope) -> str:
        subject = self.value(node.this, scope) if node.this else None
        text, results = "CASE", []
        for branch in node.args["ifs"]:
            if subject is None:
                condition = self.boolean(branch.this, scope, "CASE WHEN")
            else:
                condition = " = ".join(comparable(subject, self.value(branch.this, scope)))
            results.append(self.value(branch.args["true"], scope))
            text += f" WHEN {condition} THEN {results[-1].sql}"
        if default := node.args.get("default"):
            results.append(self.value(default, scope))
            text += f" ELSE {results[-1].sql}"
        require_common_type(results, "results of CASE")
        return text + " END"

    def _trycast(self, node: exp.TryCast, scope: Scope) -> str:
        return cast(self.value(node.this, scope), node.to)

    _cast = _trycast

    # functions

    def _anonymous(self, node: exp.Anonymous, scope: Scope, over: str = "") -> str:
        name = node.name.lower()
        if name in _TABLE_FUNCTIONS:
            hint = "write FROM t LATERAL VIEW [OUTER] explode(...) v AS column" if "explode" in name else ""
            raise refuse(f"function {name} in an expression", hint)
        if name in _CHANGING:
            raise refuse(f"function {name}", "its value changes from run to run")
        if name not in AGGREGATES and name not in WINDOW_FUNCTIONS and name != "count":
            if over:
                raise refuse(f"{name}() OVER (...)")
            values = [self.value(item, scope) for item in node.expressions]
            return functions.call(name, values, [*AGGREGATES, *WINDOW_FUNCTIONS, "count", "if", "explode"])
        # Inside an aggregate a name is a column, even where an alias of ORDER BY has the same name.
        scope = Scope(scope.sources, scope.outer)
        if name == "count":
            return self._count(node, scope) + (f" {over}" if over else "")
        distinct = len(node.expressions) == 1 and isinstance(node.expressions[0], exp.Distinct)
        items = node.expressions[0].expressions if distinct else node.expressions
        return aggregate(name, [self.value(item, scope) for item in items], distinct=distinct, over=over)

    def _count(self, node: exp.Anonymous, scope: Scope) -> str:
        if len(node.expressions) == 1 and isinstance(node.expressions[0], exp.Star):
            return "count(*)"
        (first, *more) = node.expressions or [None]
        if first is None or more:
            raise ConfigError("count() takes *, one expression, or DISTINCT expressions")
        if not isinstance(first, exp.Distinct):
            return f"count({self.sql(first, scope)})"
        items = [self.sql(item, scope) for item in first.expressions]
        if len(items) == 1:
            return f"count(DISTINCT {items[0]})"
        # A tuple with a NULL in it does not count.
        whole = " AND ".join(f"{item} IS NOT NULL" for item in items)
        return f"count(DISTINCT CASE WHEN {whole} THEN row({', '.join(items)}) END)"

    def _window(self, node: exp.Window, scope: Scope) -> str:
        if not isinstance(node.this, exp.Anonymous):
            raise refuse(f"window {node.sql('hive')[:60]!r}")
        parts = []
        if keys := node.args.get("partition_by"):
            parts.append("PARTITION BY " + ", ".join(self.sql(key, scope) for key in keys))
        if order := node.args.get("order"):
            parts.append(self.order(order, scope))
        if spec := node.args.get("spec"):
            only(spec, "kind", "start", "start_side", "end", "end_side")
            parts.append(frame(spec))
        return self._anonymous(node.this, scope, over=f"OVER ({' '.join(parts)})")

    def order(self, node: exp.Order, scope: Scope) -> str:
        """ORDER BY with Hive's place of NULLs: first going up, last going down, unless it says so."""
        items = []
        for item in node.expressions:
            only(item, "this", "desc", "nulls_first")
            direction = "DESC" if item.args.get("desc") else "ASC"
            nulls = "FIRST" if item.args.get("nulls_first") else "LAST"
            items.append(f"{self.sql(item.this, scope)} {direction} NULLS {nulls}")
        return "ORDER BY " + ", ".join(items)
