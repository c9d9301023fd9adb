"""Errors for HiveQL that is not translated: what nobody has checked against Hive is never guessed at."""

from __future__ import annotations

from sqlglot import exp

from fullspan.core.errors import ConfigError

_PART_NAMES = {
    "sort": "SORT BY",
    "cluster": "CLUSTER BY",
    "distribute": "DISTRIBUTE BY",
    "sample": "TABLESAMPLE",
    "method": "NATURAL JOIN",
    "windows": "WINDOW name AS",
}


def refuse(what: str, hint: str = "") -> ConfigError:
    """The error for what is not translated."""
    return ConfigError(f"HiveQL {what} is not translated yet", hint)


def only(node: exp.Expr, *known: str) -> None:
    """Refuse a node with parts that its translation would drop."""
    for name, part in node.args.items():
        if part and name not in known:
            text = _PART_NAMES.get(name, name.strip("_").replace("_", " ").upper())
            hint = "ORDER BY sorts the whole result" if name in ("sort", "cluster", "distribute") else ""
            raise refuse(f"{text} in {node.sql('hive')[:60]!r}", hint)
