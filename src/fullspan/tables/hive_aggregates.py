"""Hive's aggregate and window functions as DuckDB expressions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlglot import exp

from fullspan.core.errors import ConfigError
from fullspan.tables.hive_functions import arguments
from fullspan.tables.hive_types import refuse_type, require_common_type, to_double
from fullspan.tables.refusals import refuse
from fullspan.tables.scope import Value

# Takes the arguments, "DISTINCT " or nothing, and "OVER (...)" or nothing.
AggregateRule = Callable[[Sequence[Value], str, str], str]

_WITH_DISTINCT = ("sum", "avg", "min", "max")


def _sum(values: Sequence[Value], distinct: str, over: str) -> str:
    arguments("sum", "any", values)
    (value,) = values
    if value.group == "integer":
        # BIGINT as in Hive; DuckDB's HUGEINT would be written to Parquet as a double.
        return f"CAST(sum({distinct}{value.sql}){over} AS BIGINT)"
    return f"sum({distinct}{value.sql if value.group == 'decimal' else to_double(value)}){over}"


def _average(values: Sequence[Value], distinct: str, over: str) -> str:
    arguments("avg", "any", values)
    if values[0].group == "decimal":
        raise refuse("avg() of decimals", "cast to double")
    return f"avg({distinct}{to_double(values[0])}){over}"


def _extreme(name: str) -> AggregateRule:
    def rule(values: Sequence[Value], distinct: str, over: str) -> str:
        (item,) = arguments(name, "any", values)
        if values[0].group in ("array", "map", "struct"):
            raise refuse_type(values[0], f"{name}()")
        return f"{name}({distinct}{item}){over}"

    return rule


def _spread(name: str, function: str) -> AggregateRule:
    def rule(values: Sequence[Value], distinct: str, over: str) -> str:
        return f"{function}({arguments(name, 'double', values)[0]}){over}"

    return rule


def _percentile(values: Sequence[Value], distinct: str, over: str) -> str:
    column, fraction = arguments("percentile", "integer any", values)
    if values[1].group not in ("decimal", "double", "integer"):
        raise refuse("percentile() with several fractions", "call it for each")
    return f"quantile_cont(CAST({column} AS DOUBLE), {fraction})"


def _collect(name: str, template: str) -> AggregateRule:
    def rule(values: Sequence[Value], distinct: str, over: str) -> str:
        (item,) = arguments(name, "any", values)
        return f"coalesce(list({template.format(item)}) FILTER (WHERE ({item}) IS NOT NULL), [])"

    return rule


def _rank(name: str) -> AggregateRule:
    def rule(values: Sequence[Value], distinct: str, over: str) -> str:
        arguments(name, "", values)
        return f"CAST({name}(){over} AS INTEGER)"

    return rule


def _neighbour(name: str) -> AggregateRule:
    def rule(values: Sequence[Value], distinct: str, over: str) -> str:
        texts = arguments(name, "any integer? any?", values)
        if len(values) > 1 and not isinstance(values[1].literal, int):
            raise refuse(f"{name}() with a distance that is no literal")
        require_common_type([values[0], *values[2:]], f"arguments of {name}()")
        return f"{name}({', '.join(texts)}){over}"

    return rule


def _edge(name: str) -> AggregateRule:
    def rule(values: Sequence[Value], distinct: str, over: str) -> str:
        return f"{name}({arguments(name, 'any', values)[0]}){over}"

    return rule


AGGREGATES: dict[str, AggregateRule] = {
    "sum": _sum,
    "avg": _average,
    "min": _extreme("min"),
    "max": _extreme("max"),
    "percentile": _percentile,
    "collect_list": _collect("collect_list", "{0}"),
    # Sorted, so that a query gives the same file every time (Hive's order is that of arrival).
    "collect_set": _collect("collect_set", "DISTINCT {0} ORDER BY {0}"),
    "variance": _spread("variance", "var_pop"),
    "var_pop": _spread("var_pop", "var_pop"),
    "stddev": _spread("stddev", "stddev_pop"),
    "stddev_pop": _spread("stddev_pop", "stddev_pop"),
}

WINDOW_FUNCTIONS: dict[str, AggregateRule] = {
    "row_number": _rank("row_number"),
    "rank": _rank("rank"),
    "dense_rank": _rank("dense_rank"),
    "lag": _neighbour("lag"),
    "lead": _neighbour("lead"),
    "first_value": _edge("first_value"),
    "last_value": _edge("last_value"),
}

_OVER = {**WINDOW_FUNCTIONS, **{name: AGGREGATES[name] for name in _WITH_DISTINCT}}


def call(name: str, values: Sequence[Value], *, distinct: bool = False, over: str = "") -> str:
    """Translate the call of an aggregate or window function.

    Raises
    ------
    ConfigError
        If it is not one that Hive allows there, or not translated.
    """
    if over and name not in _OVER:
        raise refuse(f"{name}() OVER (...)")
    if distinct and (over or name not in _WITH_DISTINCT):
        raise refuse(f"{name}(DISTINCT ...)")
    if not over and name in WINDOW_FUNCTIONS:
        raise ConfigError(f"{name}() needs OVER (...)")
    rule = _OVER[name] if over else AGGREGATES[name]
    return rule(values, "DISTINCT " if distinct else "", f" {over}" if over else "")


def frame(spec: exp.WindowSpec) -> str:
    """ROWS or RANGE BETWEEN of a window."""
    edges = []
    for edge in ("start", "end"):
        bound = spec.args.get(edge) or "CURRENT ROW"
        text = bound if isinstance(bound, str) else bound.name if isinstance(bound, exp.Literal) else "?"
        edges.append(f"{text} {spec.args.get(f'{edge}_side') or ''}".strip())
    kind = str(spec.args.get("kind")).upper()
    by_number = any(edge[0].isdigit() for edge in edges)
    if "?" in edges[0] + edges[1] or kind not in ("ROWS", "RANGE") or (kind == "RANGE" and by_number):
        raise refuse(f"window frame {spec.sql('hive')!r}")
    return f"{kind} BETWEEN {edges[0]} AND {edges[1]}"
