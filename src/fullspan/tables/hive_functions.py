"""Hive's functions as DuckDB expressions: the ones listed here give Hive's values, all others are refused.

A name stands with the kinds of its arguments and a template; a rule that must look at its arguments is a
Python function. A kind says what Hive converts the argument to: ``string``, ``double``,
``integer``, ``date``, ``boolean``, ``array``, ``map``, ``any``; with ``?`` it may be left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fullspan.core.errors import ConfigError, did_you_mean
from fullspan.tables import java_regex
from fullspan.tables.hive_types import refuse_type, require_common_type, to_date, to_double, to_string
from fullspan.tables.refusals import refuse
from fullspan.tables.scope import Value, hive_name, quote_string

Rule = Callable[[Sequence[Value]], str]

_TEMPLATES: dict[str, tuple[str, str]] = {
    # strings
    "length": ("string", "length({0})"),
    "char_length": ("string", "length({0})"),
    "lower": ("string", "hive_lower({0})"),
    "upper": ("string", "hive_upper({0})"),
    "trim": ("string", "trim({0}, ' ')"),
    "ltrim": ("string", "ltrim({0}, ' ')"),
    "rtrim": ("string", "rtrim({0}, ' ')"),
    "instr": ("string string", "instr({0}, {1})"),
    "locate": ("string string", "instr({1}, {0})"),
    "repeat": ("string integer", "repeat({0}, greatest({1}, 0))"),
    "space": ("integer", "repeat(' ', greatest({0}, 0))"),
    "md5": ("string", "md5({0})"),
    "sha": ("string", "sha1({0})"),
    "sha1": ("string", "sha1({0})"),
    # numbers
    "sqrt": ("double", "CASE WHEN {0} >= 0 THEN sqrt({0}) END"),
    "exp": ("double", "exp({0})"),
    "ln": ("double", "CASE WHEN {0} > 0 THEN ln({0}) END"),
    "log10": ("double", "CASE WHEN {0} > 0 THEN log10({0}) END"),
    "log2": ("double", "CASE WHEN {0} > 0 THEN log2({0}) END"),
    "power": ("double double", "power({0}, {1})"),
    "pow": ("double double", "power({0}, {1})"),
    "pi": ("", "pi()"),
    # dates
    "to_date": ("date", "{0}"),
    "date": ("date", "{0}"),
    "year": ("date", "CAST(year({0}) AS INTEGER)"),
    "quarter": ("date", "CAST(quarter({0}) AS INTEGER)"),
    "month": ("date", "CAST(month({0}) AS INTEGER)"),
    "day": ("date", "CAST(day({0}) AS INTEGER)"),
    "dayofmonth": ("date", "CAST(day({0}) AS INTEGER)"),
    "dayofweek": ("date", "CAST(dayofweek({0}) + 1 AS INTEGER)"),
    "weekofyear": ("date", "CAST(weekofyear({0}) AS INTEGER)"),
    "datediff": ("date date", "CAST({0} - {1} AS INTEGER)"),
    "date_add": ("date integer", "({0} + CAST({1} AS INTEGER))"),
    "date_sub": ("date integer", "({0} - CAST({1} AS INTEGER))"),
    # conditions
    "isnull": ("any", "({0} IS NULL)"),
    "isnotnull": ("any", "({0} IS NOT NULL)"),
    # collections
    "map_keys": ("map", "coalesce(map_keys({0}), [])"),
    "map_values": ("map", "coalesce(map_values({0}), [])"),
}


def arguments(name: str, kinds: str, values: Sequence[Value]) -> list[str]:
    """The arguments of a call, checked for number and converted to the kinds that it takes."""
    wanted = kinds.split()
    least = sum(not kind.endswith("?") for kind in wanted)
    if not least <= len(values) <= len(wanted):
        expected = str(least) if least == len(wanted) else f"{least} to {len(wanted)}"
        raise ConfigError(f"{name}() takes {expected} arguments, got {len(values)}")
    return [as_kind(value, kind.rstrip("?"), name) for value, kind in zip(values, wanted, strict=False)]


def as_kind(value: Value, kind: str, name: str) -> str:
    """The argument converted to what the function takes.

    Raises
    ------
    ConfigError
        If Hive has no such conversion, or it is not translated.
    """
    if kind == "any":
        return value.sql
    if kind == "string":
        return to_string(value)
    if kind == "double":
        return to_double(value)
    if kind == "date":
        return to_date(value)
    if value.group in (kind, "null"):
        return f"CAST({value.sql} AS BIGINT)" if kind == "integer" and value.group == "null" else value.sql
    raise refuse_type(value, f"{name}() with an argument")


def _substr(values: Sequence[Value]) -> str:
    text, start, *length = arguments("substr", "string integer integer?", values)
    return f"hive_substr({text}, {start}, {length[0] if length else 2147483647})"


def _concat(values: Sequence[Value]) -> str:
    if not values:
        raise ConfigError("concat() takes at least 1 argument, got 0")
    return "(" + " || ".join(to_string(value) for value in values) + ")"


def _concat_ws(values: Sequence[Value]) -> str:
    if len(values) < 2:
        raise ConfigError(f"concat_ws() takes at least 2 arguments, got {len(values)}")
    separator, *parts = values
    if len(parts) == 1 and parts[0].group == "array" and parts[0].child_groups() == ["string"]:
        joined = f"coalesce(hive_no_nulls({parts[0].sql}), [])"
    else:
        for part in parts:
            if part.group not in ("string", "null"):
                raise refuse(
                    f"concat_ws() of {hive_name(part.type)}", "give strings, or one array of strings"
                )
        # array_to_string skips NULLs, as Hive skips arguments that are NULL.
        joined = "[" + ", ".join(f"CAST({part.sql} AS VARCHAR)" for part in parts) + "]"
    text = to_string(separator)
    return f"CASE WHEN {text} IS NOT NULL THEN array_to_string({joined}, {text}) END"


def _pad(side: str) -> Rule:
    def rule(values: Sequence[Value]) -> str:
        text, length, pad = arguments(side, "string integer string", values)
        if not values[2].literal or not isinstance(values[1].literal, int):
            raise ConfigError(
                f"{side}() is translated only with a literal length and a literal, non-empty pad"
            )
        return f"{side}({text}, {length}, {pad})"

    return rule


def _replace(values: Sequence[Value]) -> str:
    text, old, new = arguments("replace", "string string string", values)
    if not values[1].literal:
        raise ConfigError("replace() is translated only with a literal, non-empty text to look for")
    return f"replace({text}, {old}, {new})"


def pattern_of(value: Value, name: str) -> str:
    """A regular expression, which must be a literal so that it can be checked and rewritten."""
    if not isinstance(value.literal, str) or not value.literal:
        raise ConfigError(
            f"{name} is translated only with a literal, non-empty regular expression: {value.sql}"
        )
    return value.literal


def guarded(text: str, pattern: str) -> str:
    """The text, with an error for one whose final line break ``$`` would see differently in Java."""
    return f"hive_line({text})" if java_regex.needs_guard(pattern) else text


def _regexp_replace(values: Sequence[Value]) -> str:
    text, _, _ = arguments("regexp_replace", "string string string", values)
    pattern = pattern_of(values[1], "regexp_replace()")
    if not isinstance(values[2].literal, str):
        raise ConfigError("regexp_replace() is translated only with a literal replacement")
    java_regex.refuse_empty_match(pattern)
    new = java_regex.replacement(values[2].literal, pattern)
    return f"regexp_replace({guarded(text, pattern)}, {_re2(pattern)}, {quote_string(new)}, 'g')"


def _regexp_extract(values: Sequence[Value]) -> str:
    text, *_ = arguments("regexp_extract", "string string integer?", values)
    pattern = pattern_of(values[1], "regexp_extract()")
    index = values[2].literal if len(values) == 3 else 1
    if not isinstance(index, int) or not 0 <= index <= java_regex.n_groups(pattern):
        raise ConfigError(
            f"regexp_extract() takes the literal number of a group of {pattern!r}, got {index}",
            f"the pattern has {java_regex.n_groups(pattern)} groups; 0 is the whole match, 1 the default",
        )
    return f"regexp_extract({guarded(text, pattern)}, {_re2(pattern)}, {index})"


def _split(values: Sequence[Value]) -> str:
    text, _ = arguments("split", "string string", values)
    pattern = pattern_of(values[1], "split()")
    java_regex.refuse_empty_match(pattern)
    return f"string_split_regex({guarded(text, pattern)}, {_re2(pattern)})"


def _re2(pattern: str) -> str:
    return quote_string(java_regex.to_re2(pattern))


def _sha2(values: Sequence[Value]) -> str:
    text, _ = arguments("sha2", "string integer", values)
    if values[1].literal not in (0, 256):
        raise ConfigError("sha2() is translated only with 256 bits")
    return f"sha256({text})"


def _round(values: Sequence[Value]) -> str:
    digits = values[1].literal if len(values) == 2 else 0
    if len(values) not in (1, 2) or not isinstance(digits, int) or not 0 <= digits <= 15:
        raise ConfigError("round() is translated with one argument, or with 0 to 15 literal digits")
    if values[0].group == "integer":
        return values[0].sql
    if values[0].group == "decimal":
        return f"round({values[0].sql}, {digits})"
    return f"hive_round({to_double(values[0])}, {digits})"


def _to_whole(name: str) -> Rule:
    def rule(values: Sequence[Value]) -> str:
        (value,) = values if len(values) == 1 else [None]
        if value is None:
            raise ConfigError(f"{name}() takes 1 argument, got {len(values)}")
        if value.group == "integer":
            return f"CAST({value.sql} AS BIGINT)"
        if value.group == "decimal":
            return f"{name}({value.sql})"
        return f"CAST({name}({to_double(value)}) AS BIGINT)"

    return rule


def _abs(values: Sequence[Value]) -> str:
    if len(values) != 1:
        raise ConfigError(f"abs() takes 1 argument, got {len(values)}")
    return f"abs({values[0].sql if values[0].group in ('integer', 'decimal') else to_double(values[0])})"


def modulo(values: Sequence[Value], template: str, name: str) -> str:
    """``%`` and pmod: of two integers, or as doubles; by zero it is NULL."""
    left, right = values
    if not (left.group == right.group == "integer"):
        sides = to_double(left), to_double(right)
    else:
        sides = left.sql, right.sql
    if "decimal" in (left.group, right.group):
        raise ConfigError(f"{name} of decimals is not translated", "cast to double or to a whole number")
    return template.format(sides[0], f"nullif({sides[1]}, 0)")


def _pmod(values: Sequence[Value]) -> str:
    if len(values) != 2:
        raise ConfigError(f"pmod() takes 2 arguments, got {len(values)}")
    return modulo(values, "((({0} % {1}) + {1}) % {1})", "pmod()")


def _coalesce(name: str) -> Rule:
    def rule(values: Sequence[Value]) -> str:
        if not values or (name == "nvl" and len(values) != 2):
            raise ConfigError(
                f"{name}() takes {'2' if name == 'nvl' else 'at least 1'} arguments, got {len(values)}"
            )
        require_common_type(values, f"arguments of {name}()")
        return f"coalesce({', '.join(value.sql for value in values)})"

    return rule


def _extreme(name: str) -> Rule:
    def rule(values: Sequence[Value]) -> str:
        if len(values) < 2:
            raise ConfigError(f"{name}() takes at least 2 arguments, got {len(values)}")
        require_common_type(values, f"arguments of {name}()")
        # NULL if any argument is (DuckDB skips NULLs).
        nulls = " OR ".join(f"({value.sql}) IS NULL" for value in values)
        return f"CASE WHEN NOT ({nulls}) THEN {name}({', '.join(value.sql for value in values)}) END"

    return rule


def _size(values: Sequence[Value]) -> str:
    if len(values) != 1 or values[0].group not in ("array", "map"):
        raise ConfigError("size() takes one array or map")
    count = "len" if values[0].group == "array" else "cardinality"
    return f"CAST(coalesce({count}({values[0].sql}), -1) AS INTEGER)"


def _array(values: Sequence[Value]) -> str:
    require_common_type(values, "elements of array()")
    return f"[{', '.join(value.sql for value in values)}]"


def _map(values: Sequence[Value]) -> str:
    if not values or len(values) % 2:
        raise ConfigError(f"map() takes pairs of a key and a value, got {len(values)} arguments")
    keys, items = values[::2], values[1::2]
    require_common_type(keys, "keys of map()")
    require_common_type(items, "values of map()")
    literals = [key.literal for key in keys]
    if len(keys) > 1 and (None in literals or len(set(literals)) < len(literals)):
        raise ConfigError("map() of several keys is translated only with different literals as keys")
    pairs = ", ".join(value.sql for value in keys), ", ".join(value.sql for value in items)
    return f"map([{pairs[0]}], [{pairs[1]}])"


def _named_struct(values: Sequence[Value]) -> str:
    names = [value.literal for value in values[::2]]
    if not values or len(values) % 2 or not all(isinstance(name, str) and name for name in names):
        raise ConfigError("named_struct() takes pairs of a literal name and a value")
    fields = zip(names, values[1::2], strict=True)
    return "{" + ", ".join(f"{quote_string(str(name))}: {value.sql}" for name, value in fields) + "}"


def _struct(values: Sequence[Value]) -> str:
    return "{" + ", ".join(f"'col{i}': {value.sql}" for i, value in enumerate(values, 1)) + "}"


def _array_contains(values: Sequence[Value]) -> str:
    array, item = arguments("array_contains", "array any", values)
    kinds = values[0].child_groups()
    if values[1].group != "null" and kinds not in ([values[1].group], ["null"]):
        raise ConfigError(
            f"array_contains() looks for a {values[1].group} in an array of {kinds[0]}", "cast it"
        )
    return f"coalesce(list_contains({array}, {item}), FALSE)"


def _sort_array(values: Sequence[Value]) -> str:
    (array,) = arguments("sort_array", "array", values)
    if values[0].child_groups()[0] in ("array", "map", "struct"):
        raise refuse_type(values[0], "sort_array() of nested elements")
    return f"list_sort({array}, 'ASC', 'NULLS FIRST')"


def _last_day(values: Sequence[Value]) -> str:
    return f"CAST(last_day({arguments('last_day', 'date', values)[0]}) AS VARCHAR)"


_RULES: dict[str, Rule] = {
    "substr": _substr, "substring": _substr, "concat": _concat, "concat_ws": _concat_ws,
    "lpad": _pad("lpad"), "rpad": _pad("rpad"), "replace": _replace, "split": _split,
    "regexp_replace": _regexp_replace, "regexp_extract": _regexp_extract, "sha2": _sha2,
    "round": _round, "floor": _to_whole("floor"), "ceil": _to_whole("ceil"), "ceiling": _to_whole("ceil"),
    "abs": _abs, "pmod": _pmod, "coalesce": _coalesce("coalesce"), "nvl": _coalesce("nvl"),
    "greatest": _extreme("greatest"), "least": _extreme("least"), "size": _size, "array": _array, "map": _map,
    "named_struct": _named_struct, "struct": _struct, "array_contains": _array_contains,
    "sort_array": _sort_array, "last_day": _last_day,
}  # fmt: skip


NAMES = (*_TEMPLATES, *_RULES)


def call(name: str, values: Sequence[Value], others: Sequence[str]) -> str:
    """Translate a call by the function's name; `others` are names that a slip of the pen may have meant.

    Raises
    ------
    ConfigError
        If the function is not in the lists above, or its arguments do not fit it.
    """
    if name in _TEMPLATES:
        kinds, template = _TEMPLATES[name]
        return template.format(*arguments(name, kinds, values))
    if name not in _RULES:
        raise refuse(f"function {name}", did_you_mean(name, [*NAMES, *others]))
    return _RULES[name](values)
