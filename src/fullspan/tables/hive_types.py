"""Hive's conversions between types, as DuckDB expressions.

Hive converts implicitly where DuckDB refuses (``'1' + 1`` is 2.0) and by other rules where both convert
(``CAST(3.7 AS INT)`` is 3 in Hive, 4 in DuckDB). Conversions that are not sure to agree are refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqlglot import exp

from fullspan.core.errors import ConfigError
from fullspan.tables.refusals import refuse
from fullspan.tables.scope import Value, children, group, hive_name, quote_string

if TYPE_CHECKING:
    from duckdb.sqltypes import DuckDBPyType

_TARGETS = {
    "TINYINT": "TINYINT", "SMALLINT": "SMALLINT", "INT": "INTEGER", "BIGINT": "BIGINT", "FLOAT": "FLOAT",
    "DOUBLE": "DOUBLE", "TEXT": "VARCHAR", "BOOLEAN": "BOOLEAN", "DATE": "DATE", "TIMESTAMP": "TIMESTAMP",
    "DECIMAL": "DECIMAL",
}  # fmt: skip


def refuse_type(value: Value, what: str) -> ConfigError:
    """The error for a value of a type that a function or operator does not take here."""
    return ConfigError(
        f"{what} of type {hive_name(value.type)} is not translated: {value.sql}",
        "cast it, or give a type it takes",
    )


def cast(value: Value, to: exp.DataType) -> str:
    """``CAST(value AS to)`` by Hive's rules.

    Raises
    ------
    ConfigError
        If the conversion is not one that is sure to agree.
    """
    name = _TARGETS.get(to.this.name)
    if name is None or (to.expressions and name != "DECIMAL"):
        raise ConfigError(
            f"CAST to {to.sql('hive')} is not translated yet", "cast to a number, string or date type"
        )
    if value.group == "null":
        return f"CAST(NULL AS {decimal_type(to) if name == 'DECIMAL' else name})"
    if name in ("TINYINT", "SMALLINT", "INTEGER", "BIGINT"):
        return _to_integer(value, name)
    if name in ("FLOAT", "DOUBLE"):
        number = f"CAST({value.sql} AS DOUBLE)" if value.group == "boolean" else to_double(value)
        return number if name == "DOUBLE" else f"CAST({number} AS FLOAT)"
    if name == "VARCHAR":
        return to_string(value)
    if name == "DATE":
        return to_date(value)
    if name == "BOOLEAN" and value.group in ("boolean", "integer", "double", "decimal"):
        return f"CAST({value.sql} AS BOOLEAN)" if value.group == "boolean" else f"({value.sql} <> 0)"
    if name == "TIMESTAMP" and value.group in ("timestamp", "date"):
        return f"CAST({value.sql} AS TIMESTAMP)"
    if name == "TIMESTAMP" and value.group == "string":
        return _timestamp(value)
    if name == "DECIMAL" and value.group in ("integer", "decimal", "double"):
        digits = f"CAST({value.sql} AS VARCHAR)" if value.group == "double" else value.sql
        return f"TRY_CAST({digits} AS {decimal_type(to)})"
    raise refuse_type(value, f"CAST to {name.lower()}")


def decimal_type(to: exp.DataType) -> str:
    """DECIMAL alone is DECIMAL(10, 0) in Hive."""
    digits = [parameter.name for parameter in to.expressions] or ["10", "0"]
    return f"DECIMAL({', '.join(digits)})"


def _timestamp(value: Value) -> str:
    text = value.literal
    if not isinstance(text, str) or not re.fullmatch(r"\d{4}-\d\d-\d\d( \d\d:\d\d:\d\d(\.\d{1,6})?)?", text):
        raise refuse(
            f"CAST of {value.sql} to timestamp", "write a literal 'yyyy-MM-dd HH:mm:ss', or cast to a date"
        )
    return f"CAST({quote_string(text)} AS TIMESTAMP)"


def _to_integer(value: Value, name: str) -> str:
    if value.group == "string":
        return f"TRY_CAST(hive_integer({value.sql}) AS {name})"
    if value.group in ("integer", "boolean"):
        return f"CAST({value.sql} AS {name})"
    if value.group == "decimal":
        return f"TRY_CAST(trunc({value.sql}) AS {name})"
    if value.group == "double":
        return f"CAST(trunc({value.sql}) AS {name})"
    raise refuse_type(value, f"CAST to {name.lower()}")


def to_double(value: Value) -> str:
    """The value as DOUBLE; a string that is no number becomes NULL."""
    if value.group == "string":
        return f"hive_double({value.sql})"
    if value.group in ("integer", "double", "decimal", "null"):
        return value.sql if str(value.type) == "DOUBLE" else f"CAST({value.sql} AS DOUBLE)"
    raise refuse_type(value, "a number")


def to_string(value: Value) -> str:
    """The value as Hive prints it into a string."""
    if value.group == "string":
        return value.sql
    if value.group in ("integer", "date", "null"):
        return f"CAST({value.sql} AS VARCHAR)"
    if value.group == "double":
        return f"hive_double_text({value.sql})"
    if value.group == "boolean":
        return f"(CASE WHEN {value.sql} THEN 'TRUE' WHEN NOT {value.sql} THEN 'FALSE' END)"
    raise refuse_type(value, "conversion to string")


def to_date(value: Value) -> str:
    """The value as DATE: from a date, a timestamp, or a string that begins with one."""
    if value.group in ("date", "timestamp", "null"):
        return f"CAST({value.sql} AS DATE)"
    if value.group == "string":
        return f"hive_date({value.sql})"
    raise refuse_type(value, "a date")


def comparable(left: Value, right: Value) -> tuple[str, str]:
    """Both sides of a comparison in a common type: a string and a number meet as doubles."""
    groups = {left.group, right.group}
    numbers = {"integer", "double", "decimal"}
    if len(groups) == 1 or "null" in groups or groups <= numbers:
        if groups <= {"integer", "double"} and len(groups) == 2:
            return to_double(left), to_double(right)
        return left.sql, right.sql
    if "string" in groups and groups & numbers:
        return to_double(left), to_double(right)
    if groups == {"string", "date"} and any(isinstance(v.literal, str) for v in (left, right)):
        return to_date(left), to_date(right)
    if groups == {"date", "timestamp"}:
        return f"CAST({left.sql} AS TIMESTAMP)", f"CAST({right.sql} AS TIMESTAMP)"
    raise ConfigError(
        f"comparing {hive_name(left.type)} with {hive_name(right.type)} is not translated: "
        f"{left.sql}, {right.sql}",
        "cast one of them",
    )


def require_common_type(values: Sequence[Value], what: str) -> None:
    """Refuse branches or elements whose types DuckDB would unify by other rules than Hive."""
    values = [value for value in values if value.group != "null"]
    groups = {value.group for value in values}
    exact = len({str(value.type) for value in values}) <= 1
    if exact or groups <= {"integer"} or groups <= {"integer", "double"} or groups == {"decimal"}:
        return
    if len(groups) == 1 and groups & {"array", "map", "struct"}:
        return _require_same_shape(values, what)
    names = ", ".join(sorted({hive_name(value.type) for value in values}))
    raise ConfigError(f"{what} of different types ({names}) are not translated", "cast them to one type")


def _require_same_shape(values: Sequence[Value], what: str) -> None:
    first, *others = (_shape(value.type) for value in values)
    if any(other != first for other in others):
        names = ", ".join(sorted({str(value.type) for value in values}))
        raise ConfigError(f"{what} of different types ({names}) are not translated", "cast them to one type")


def _shape(type_: DuckDBPyType) -> object:
    kind = group(type_)
    if kind in ("array", "map", "struct"):
        return kind, tuple((name.lower(), _shape(child)) for name, child in children(type_))
    return kind
