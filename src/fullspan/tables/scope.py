"""Names and types while a query is translated: which columns are in sight, and what DuckDB says they are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

from fullspan.core.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    import duckdb
    from duckdb.sqltypes import DuckDBPyType

_INTEGERS = {
    "tinyint", "smallint", "integer", "bigint", "hugeint",
    "utinyint", "usmallint", "uinteger", "ubigint", "uhugeint",
}  # fmt: skip
_GROUPS = {
    "varchar": "string", "float": "double", "double": "double", "decimal": "decimal", "boolean": "boolean",
    "date": "date", "timestamp": "timestamp", "null": "null", "blob": "binary",
    "list": "array", "map": "map", "struct": "struct",
}  # fmt: skip


Columns: TypeAlias = "list[tuple[str, DuckDBPyType]]"


def children(type_: DuckDBPyType) -> Columns:
    """Names and types of an array's element, a map's key and value, or a struct's fields."""
    return [(name, child) for name, child in type_.children if not isinstance(child, int | list)]


def quote(name: str) -> str:
    """An identifier as DuckDB reads it, whatever characters it holds."""
    return '"' + name.replace('"', '""') + '"'


def quote_string(text: str) -> str:
    """A string literal as DuckDB reads it."""
    return "'" + text.replace("'", "''") + "'"


def group(type_: DuckDBPyType) -> str:
    """The family that Hive's rules speak of: string, integer, decimal, double, boolean, date, array, ..."""
    return "integer" if type_.id in _INTEGERS else _GROUPS.get(type_.id, str(type_).lower())


def hive_name(type_: DuckDBPyType) -> str:
    """A type in Hive's words, for messages."""
    return {"integer": "int"}.get(group(type_), group(type_))


@dataclass(frozen=True)
class Column:
    """A column in sight: the relation that carries it in the translation, its name there, and its type."""

    relation: str
    name: str
    type: DuckDBPyType

    @property
    def sql(self) -> str:
        return f"{quote(self.relation)}.{quote(self.name)}"


@dataclass
class Source:
    """A table, subquery or lateral view as the query names it, with its columns by output name."""

    name: str
    columns: dict[str, Column]

    def find(self, name: str) -> Column | None:
        return next((c for key, c in self.columns.items() if key.lower() == name.lower()), None)


@dataclass(eq=False)
class Scope:
    """The sources of one SELECT, the scope around it, and its aliases in lower case.

    In ORDER BY an alias hides a column of the same name, in HAVING the column hides the alias.
    """

    sources: list[Source] = field(default_factory=list)
    outer: Scope | None = None
    aliases: dict[str, str] = field(default_factory=dict)
    aliases_first: bool = False

    def chain(self) -> Iterator[Scope]:
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.outer

    def source(self, name: str) -> Source | None:
        return next(
            (s for scope in self.chain() for s in scope.sources if s.name.lower() == name.lower()), None
        )

    def column(self, name: str) -> Column | None:
        """The column that an unqualified name means, the innermost scope first."""
        for scope in self.chain():
            found = [(s.name, c) for s in scope.sources if (c := s.find(name)) is not None]
            if len(found) > 1:
                tables = " and ".join(table for table, _ in found)
                raise ConfigError(
                    f"column {name!r} is ambiguous: {tables} have it", f"write {found[0][0]}.{name}"
                )
            if found:
                return found[0][1]
        return None

    def unknown(self, name: str) -> ConfigError:
        names = {key for scope in self.chain() for source in scope.sources for key in source.columns}
        return ConfigError(f"no column named {name!r}", did_you_mean(name, names))

    def relations(self) -> dict[str, list[Column]]:
        """Every column in sight by the relation that carries it."""
        found: dict[str, list[Column]] = {}
        for scope in self.chain():
            for source in scope.sources:
                for column in source.columns.values():
                    found.setdefault(column.relation, []).append(column)
        return found


@dataclass(frozen=True)
class Value:
    """A translated expression; its type is asked of DuckDB when a rule needs it."""

    sql: str
    scope: Scope
    binder: Binder
    literal: str | int | None = None

    @classmethod
    def of_type(cls, type_: DuckDBPyType, binder: Binder) -> Value:
        """A value with nothing but a type."""
        return cls(f"CAST(NULL AS {type_})", Scope(), binder)

    @cached_property
    def type(self) -> DuckDBPyType:
        return self.binder.type(self.sql, self.scope)

    @property
    def group(self) -> str:
        return group(self.type)

    def child_groups(self) -> list[str]:
        """Families of an array's element, a map's key and value, or a struct's fields."""
        return [group(child) for _, child in children(self.type)]


class Binder:
    """Asks DuckDB for types: the query is bound on empty relations of the same types and never run."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._types: dict[tuple[str, str], DuckDBPyType] = {}
        self.ctes: list[str] = []

    def prefix(self) -> str:
        """The common table expressions translated so far."""
        return f"WITH {', '.join(self.ctes)} " if self.ctes else ""

    def type(self, sql: str, scope: Scope) -> DuckDBPyType:
        relations = [
            "(SELECT "
            + ", ".join(f"CAST(NULL AS {c.type}) AS {quote(c.name)}" for c in columns)
            + f") AS {quote(name)}"
            for name, columns in scope.relations().items()
            if columns
        ]
        query = f"SELECT {sql}" + (f" FROM {', '.join(relations)}" if relations else "")
        key = (query, self.prefix())
        if key not in self._types:
            self._types[key] = self.describe(query)[0][1]
        return self._types[key]

    def describe(self, query: str) -> Columns:
        """Names and types of a query's columns.

        Raises
        ------
        ConfigError
            With DuckDB's reason, if the query does not bind.
        """
        import duckdb

        try:
            relation = self._connection.sql(self.prefix() + query)
            return list(zip(relation.columns, relation.types, strict=True))
        except duckdb.Error as error:
            raise ConfigError(f"the query is not valid: {first_line(error)}") from None


def first_line(error: Exception) -> str:
    """DuckDB's reason without its kind, the candidates and the caret that point into the translation."""
    text = str(error).partition("\n")[0].partition(". In order to select one")[0]
    return re.sub(r"^[A-Z]\w*( \w+)* Error: ", "", text)
