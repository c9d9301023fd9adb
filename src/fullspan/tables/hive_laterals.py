"""LATERAL VIEW: arrays and maps unnested in the list of a subquery."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlglot import exp

from fullspan.core.errors import ConfigError
from fullspan.tables.hive_expressions import Expressions
from fullspan.tables.refusals import only, refuse
from fullspan.tables.scope import Column, Scope, Source, Value, children, quote

if TYPE_CHECKING:
    from duckdb.sqltypes import DuckDBPyType

_FUNCTIONS = ("explode", "posexplode")


def add_lateral(
    sql: str, node: exp.Lateral, scope: Scope, expressions: Expressions, relation: str
) -> tuple[str, Source]:
    """Put a lateral view on top of what FROM holds so far.

    Every column so far is carried along under a name of its own (c0, c1, ...: no names of the query's, which
    may hold any character), and the scope is told the new names.

    Returns
    -------
    tuple of str and Source
        What FROM holds now, and the view's columns.
    """
    only(node, "this", "view", "outer", "alias")
    call = node.this
    name = call.name.lower() if isinstance(call, exp.Anonymous) else call.key
    if name not in _FUNCTIONS or not node.args.get("view"):
        raise refuse(f"LATERAL VIEW {name}", "explode and posexplode are")
    if len(call.expressions) != 1:
        raise ConfigError(f"{name}() takes 1 argument, got {len(call.expressions)}")
    if not node.alias:
        raise ConfigError(f"LATERAL VIEW {name}(...) takes a name: LATERAL VIEW {name}(...) view AS column")
    value = expressions.value(call.expressions[0], scope)
    unnested = _unnested(name, value, outer=bool(node.args.get("outer")))
    given = [column.name for column in node.args["alias"].columns]
    if given and len(given) != len(unnested):
        names = ", ".join(column for column, _, _ in unnested)
        raise ConfigError(
            f"{name}() of {value.group} gives {len(unnested)} columns ({names}), AS names {len(given)}"
        )
    listed: list[str] = []
    view = Source(node.alias, {})
    for position, (column, text, type_) in enumerate(unnested):
        key = given[position] if given else column
        inside = f"c{len(listed)}"
        view.columns[key] = Column(relation, inside, type_)
        listed.append(f"UNNEST({text}) AS {inside}")
    if len(view.columns) < len(unnested):
        raise ConfigError(f"LATERAL VIEW {node.alias}: two columns are named {given[0]!r}")
    for source in scope.sources:
        for key, carried in source.columns.items():
            inside = f"c{len(listed)}"
            listed.append(f"{carried.sql} AS {inside}")
            source.columns[key] = Column(relation, inside, carried.type)
    return f"(SELECT {', '.join(listed)}" + (f" FROM {sql}" if sql else "") + f") AS {quote(relation)}", view


def _unnested(name: str, value: Value, outer: bool) -> list[tuple[str, str, DuckDBPyType]]:
    """Hive's column names, the parallel lists to unnest, and their elements' types."""
    text = value.sql
    if value.group == "array":
        count, lists = f"len({text})", [("col", text)]
    elif value.group == "map":
        count = f"CAST(cardinality({text}) AS BIGINT)"
        lists = [("key", f"map_keys({text})"), ("value", f"map_values({text})")]
    else:
        raise ConfigError(f"{name}() takes an array or a map, got {value.group}: {text}")
    types = [child for _, child in children(value.type)]
    if name == "posexplode":
        lists.insert(0, ("pos", f"CAST(range({count}) AS INTEGER[])"))
        types.insert(0, Value("CAST(0 AS INTEGER)", Scope(), value.binder).type)
    if outer:
        lists = [(column, f"CASE WHEN {count} > 0 THEN {text} ELSE [NULL] END") for column, text in lists]
    return [(column, text, type_) for (column, text), type_ in zip(lists, types, strict=True)]


def split_udtf(node: exp.Select) -> tuple[exp.Select, exp.Lateral | None]:
    """``SELECT explode(a) AS x FROM t`` as ``SELECT v.* FROM t`` and ``LATERAL VIEW explode(a) v AS x``.

    Raises
    ------
    ConfigError
        If there is anything else in the list: Hive refuses that too.
    """
    calls = [_called(item) for item in node.expressions]
    if not any(call is not None and call.name.lower() in _FUNCTIONS for call in calls):
        return node, None
    if len(calls) > 1 or any(node.args.get(part) for part in ("group", "having", "distinct")):
        raise ConfigError(
            "SELECT with explode takes no other expression, no GROUP BY and no DISTINCT, in Hive too",
            "write FROM t LATERAL VIEW explode(...) v AS column",
        )
    (item,) = node.expressions
    names = item.expressions if isinstance(item, exp.Aliases) else [item.args["alias"]] if item.alias else []
    alias = exp.TableAlias(
        this=exp.to_identifier("exploded"), columns=[exp.to_identifier(name.name) for name in names]
    )
    node = node.copy()
    node.set("expressions", [exp.Column(this=exp.Star(), table=exp.to_identifier("exploded"))])
    return node, exp.Lateral(this=calls[0], view=True, outer=False, alias=alias)


def _called(item: exp.Expr) -> exp.Anonymous | None:
    call = item.this if isinstance(item, exp.Alias | exp.Aliases) else item
    return call if isinstance(call, exp.Anonymous) else None
